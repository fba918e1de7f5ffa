"""Writes responses of known style with a small grammar over everyday advice; no language model.

A response gives advice on a topic (``topics.toml``), one point per sentence. Six dimensions are set independently, from
0 to 1, and each is visible in the text:

length     number of words, from 40 (0) to 130 (1), on a log scale; not clipped
formality  share of formal minus informal points: "just ..." (0), "you need to ..." (.5), "it is imperative to ..." (1)
hedging    share of points that are softened: "perhaps you could ..."
examples   share of points that are followed by a concrete instance
jargon     share of points made in technical terms
warmth     kind words around and between the points, as a share of the most that fit

The requested levels are met as closely as whole sentences allow. The returned styles are counted from the written text,
not taken from the request.

Suffixes here: ``_D`` styles, ``_K`` points of a response.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, FloatArray, IntArray

STYLES = ("length", "formality", "hedging", "examples", "jargon", "warmth")

FEWEST_WORDS, MOST_WORDS = 40, 130
FEWEST_POINTS = 2
# Mean words of a point of advice, and what a hedge, a reason, an example and a kind sentence add to it: the number of
# points is chosen from these.
ADVICE_WORDS, HEDGE_WORDS, REASON_WORDS, EXAMPLE_WORDS, WARM_WORDS = 9.0, 4.8, 6.8, 13.0, 9.5

INFORMAL, NEUTRAL, FORMAL = 0, 1, 2

# FRAMES[register][hedged]: sentence frames for a point of advice.
FRAMES = (
    (
        ("dude, just {}", "definitely {}", "you've really gotta {}", "yeah, {}", "c'mon, totally {}", "for sure {}"),
        (
            "not sure, but maybe you could {}, perhaps",
            "I dunno, maybe it might help to {}, or maybe not",
            "hmm, perhaps {}, but I'm not sure that's right",
            "I could be wrong, but I'd maybe {}, I guess",
            "it might possibly be good to {}, but who knows",
            "I'm unsure, but perhaps it could help to {}, maybe",
        ),
    ),
    (
        (
            "you should definitely {}",
            "always {}",
            "you need to {}",
            "make sure to {}",
            "certainly {}",
            "the answer is to {}",
        ),
        (
            "I am not sure, but perhaps you could {}, if possible",
            "it is uncertain, but maybe it might help to {}",
            "perhaps you could {}, although I am unsure",
            "in some cases it might possibly help to {}, but maybe not",
            "I could be wrong, but perhaps you might {}, maybe",
            "it might be that you could {}, but I am uncertain",
        ),
    ),
    (
        (
            "it is imperative to {}",
            "one must unquestionably {}",
            "it is strictly necessary to {}",
            "it is incumbent upon one to {}",
            "one is obliged to {}",
            "it is hereby established that one shall {}",
        ),
        (
            "although this remains uncertain, it might perhaps be prudent to {}",
            "one might conceivably {}, albeit this is far from certain",
            "it may possibly be advisable to {}, though doubt remains",
            "the evidence is uncertain, yet one could perhaps {}",
            "it might seem plausible, perhaps, to {}",
            "it is possibly appropriate to {}, though one cannot be sure",
        ),
    ),
)
REASONS = (("'cause {}", "since, y'know, {}"), ("because {}", "since {}"), ("given that {}", "inasmuch as {}"))
EXAMPLES = (
    ("like, for example, picture {}", "here's an example for ya: {}", "one example I saw: {}"),
    ("for example, think of {}", "here is an example: {}", "take this example: {}"),
    ("by way of example, consider {}", "one may cite, for example, {}", "a pertinent example would be {}"),
)
# WARM[register]: (openings, closings, asides).
WARM = (
    (
        ("aww, I love this question, thanks so much for asking, sweetie!", "hey friend, yay, so happy you're here!"),
        ("you've totally got this, I'm cheering for you, love ya!", "big hugs, you're gonna do great, sweetie!"),
        (
            "you're doing awesome, I'm so proud of you!",
            "don't worry, we've all been there, buddy, hugs!",
            "yay, so happy for you, keep going!",
            "aww, be kind to yourself, okay, friend?",
        ),
    ),
    (
        ("what a lovely question, I am so happy to help you!", "thank you so much for asking, you are wonderful!"),
        (
            "I believe in you with all my heart, lots of joy to you!",
            "take good care, dear friend, I love this!",
        ),
        (
            "you are doing wonderfully already, I am proud of you!",
            "please be gentle and kind with yourself, dear.",
            "it is lovely that you care so much, thank you!",
            "everyone struggles with this, so do not worry, dear friend.",
        ),
    ),
    (
        (
            "it is a sincere joy and pleasure to assist so wonderful a person.",
            "allow me to express my heartfelt gratitude for this delightful enquiry.",
        ),
        (
            "please accept my warmest and most affectionate wishes for your happiness.",
            "it would bring my heart great joy to learn of your success.",
        ),
        (
            "your dedication is truly admirable and heartwarming, dear reader.",
            "kindly be assured of my warm and affectionate encouragement.",
            "your loving care in this matter is deeply touching.",
            "I remain most grateful and delighted by your kindness.",
        ),
    ),
)


Stock = tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Topic:
    """Questions that share advice: (plain, jargon, reason, instance) of each point."""

    name: str
    prompts: tuple[str, ...]
    points: Stock


@cache
def topics() -> tuple[Topic, ...]:
    """All topics, read from ``topics.toml``."""
    tables = tomllib.loads(files("polypref.worlds").joinpath("topics.toml").read_text(encoding="utf-8"))["topic"]
    return tuple(Topic(t["name"], tuple(t["prompts"]), tuple(map(tuple, t["points"]))) for t in tables)


@cache
def prompts() -> tuple[str, ...]:
    """All P questions, in a fixed order."""
    return tuple(prompt for topic in topics() for prompt in topic.prompts)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The planned sentences of R responses; ``_RK`` is response by point; the first ``points_R`` count."""

    points_R: IntArray
    warm_R: IntArray
    order_RK: IntArray
    register_RK: IntArray
    hedged_RK: BoolArray
    example_RK: BoolArray
    jargon_RK: BoolArray
    reason_RK: BoolArray
    pick_RK: IntArray


def write(prompt_R: IntArray, level_RD: FloatArray, rng: np.random.Generator) -> tuple[list[str], NDArray[np.float64]]:
    """Texts answering prompts ``prompt_R`` in styles ``level_RD`` (columns as in ``STYLES``, each from 0 to 1).

    Returns the R texts and their styles, ``style_RD``, counted from the written text.
    """
    plan = _plan(level_RD, rng)
    topic_P = [topic for topic in topics() for _ in topic.prompts]
    rows = (column.tolist() for column in vars(plan).values())
    texts = [
        _compose(topic_P[prompt].points, points, warm, columns)
        for prompt, points, warm, *columns in zip(prompt_R.tolist(), *rows, strict=True)
    ]
    words_R = np.array([text.count(" ") + 1 for text in texts], np.float64)
    formal_R = (plan.register_RK == FORMAL).sum(1) - (plan.register_RK == INFORMAL).sum(1)
    shares = [part.sum(1) / plan.points_R for part in (plan.hedged_RK, plan.example_RK, plan.jargon_RK)]
    length_R = np.log(words_R / FEWEST_WORDS) / np.log(MOST_WORDS / FEWEST_WORDS)
    formality_R = (1 + formal_R / plan.points_R) / 2
    return texts, np.stack([length_R, formality_R, *shares, plan.warm_R / _warm_room(plan.points_R)], axis=1)


def _warm_room(points_R: IntArray) -> IntArray:
    """How many kind sentences fit: an opening, and one more for every second point."""
    return 1 + points_R // 2


def _plan(level_RD: FloatArray, rng: np.random.Generator) -> _Plan:
    """Plan each sentence: whole numbers of sentences that meet the requested levels on average."""
    n, most = len(level_RD), min(len(topic.points) for topic in topics())
    length_R, formality_R, hedging_R, examples_R, jargon_R, warmth_R = np.asarray(level_RD, np.float64).T
    wanted_R = FEWEST_WORDS * (MOST_WORDS / FEWEST_WORDS) ** length_R
    per_point_R = ADVICE_WORDS + hedging_R * HEDGE_WORDS + examples_R * EXAMPLE_WORDS + warmth_R * WARM_WORDS / 2
    ahead_R = wanted_R - warmth_R * WARM_WORDS
    points_R = np.clip(_whole(ahead_R / (per_point_R + REASON_WORDS / 2), rng), FEWEST_POINTS, most)
    reasons_R = np.clip(_whole((ahead_R - points_R * per_point_R) / REASON_WORDS, rng), 0, points_R)

    def some(count_R: IntArray) -> BoolArray:  # which count_R of the points_R sentences, by lot
        lot_RK = np.where(np.arange(most) < points_R[:, None], rng.random((n, most)), 2.0)
        return lot_RK.argsort(axis=1).argsort(axis=1) < count_R[:, None]

    marked_R = np.clip(_whole(np.abs(2 * formality_R - 1) * points_R, rng), 0, points_R)
    side_R = np.where(formality_R > 0.5, FORMAL, INFORMAL)
    return _Plan(
        points_R=points_R,
        order_RK=rng.random((n, most)).argsort(axis=1).astype(np.int32),
        register_RK=np.where(some(marked_R), side_R[:, None], NEUTRAL).astype(np.int32),
        hedged_RK=some(_whole(hedging_R * points_R, rng)),
        example_RK=some(_whole(examples_R * points_R, rng)),
        jargon_RK=some(_whole(jargon_R * points_R, rng)),
        reason_RK=some(reasons_R),
        warm_R=_whole(warmth_R * _warm_room(points_R), rng),
        pick_RK=rng.integers(0, 2**31, (n, most), dtype=np.int32),
    )


def _whole(amount_R: NDArray[np.float64], rng: np.random.Generator) -> IntArray:
    """Round up or down at random, so that the mean is kept."""
    return np.floor(amount_R + rng.random(len(amount_R))).astype(np.int32)


def _compose(stock: Stock, points: int, warm: int, columns: Sequence[Sequence[int]]) -> str:
    """A response of ``points`` points and ``warm`` kind sentences; ``columns`` are the plan's ``_RK`` rows in order."""
    sentences = []
    for k, (at, form, hedged, example, jargon, reason, lot) in enumerate(zip(*columns, strict=True)):
        if k == points:
            break
        plain, technical, why, instance = stock[at]
        frames, reasons, examples = FRAMES[form][hedged], REASONS[form], EXAMPLES[form]
        advice = frames[lot % len(frames)].format(technical if jargon else plain)
        lot //= len(frames)
        if reason:
            advice = f"{advice}, {reasons[lot % len(reasons)].format(why)}"
        sentences.append(advice + ".")
        if example:
            sentences.append(examples[lot // len(reasons) % len(examples)].format(instance) + ".")
        if k % 2 == 0 and k // 2 + 2 < warm:
            asides = WARM[form][2]
            sentences.append(asides[(columns[-1][0] + k // 2) % len(asides)])
    forms, lots = columns[1], columns[-1]
    if warm:
        openings = WARM[forms[0]][0]
        sentences.insert(0, openings[lots[-1] % len(openings)])
    if warm > 1:
        closings = WARM[forms[points - 1]][1]
        sentences.append(closings[lots[-1] // 2 % len(closings)])
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
