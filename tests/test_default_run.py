"""The default run on the commonest shapes of data: each runs on a useful split, or is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from polypref import compare
from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.data.derived import origin
from polypref.data.split import EmptySide, check_leaks, split
from polypref.data.thumbs import from_thumbs
from polypref.evaluation.grid_setup import prepare
from polypref.evaluation.settings import Settings
from polypref.learners import LEARNERS

WORDS = ("calm", "lively", "short", "long", "formal", "casual", "funny", "serious")
Row = tuple[str, str, str, str]
Pair = Callable[[int, int], tuple[str, str, str]]  # prompt and two texts of a user's n-th judgement


@dataclass(frozen=True)
class Lively:
    """One feature: how often "lively" occurs, which half of the people like."""

    name: str = "lively"
    identity: str = "lively v1"

    def encode(self, responses: Responses) -> np.ndarray:
        return responses.texts_R.str.count_matches("lively").to_numpy().astype(np.float32)[:, None]


def text(rng: np.random.Generator, mark: object) -> str:
    return f"{' '.join(rng.choice(WORDS, 5))} {mark}"


def judged(pair: Pair, users: int = 12, each: int = 20, seed: int = 0) -> Comparisons:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for u in range(users):
        for n in range(each):
            prompt, a, b = pair(u, n)
            likes = (a.count("lively") - b.count("lively")) * (1 if u % 2 else -1) + rng.normal() > 0
            rows.append((f"u{u}", prompt, *((a, b) if likes else (b, a))))
    return from_columns(*zip(*rows, strict=True))


def of_texts(many: int, prompt: str = "p", seed: int = 1) -> Pair:
    """Pairs of a few texts that come back."""
    rng = np.random.default_rng(seed)
    texts = [text(rng, n) for n in range(many)]
    return lambda u, n: (prompt, *(texts[i] for i in rng.choice(many, 2, replace=False)))


def new_texts(prompt: str, own: str = "", seed: int = 1) -> Pair:
    """Two texts, of which the first may be the user's ``own``, and the other nobody has seen before."""
    rng = np.random.default_rng(seed)
    return lambda u, n: (
        prompt.format(u=u, n=n, few=n % 5),
        own.format(u=u) or text(rng, f"{u} {n} a"),
        text(rng, f"{u} {n} b"),
    )


def ranked(texts: int, own: bool, users: int = 12, seed: int = 0) -> Comparisons:
    """Every user ranks ``texts`` answers to one question: everybody the same, or each their ``own``."""
    rng, rows = np.random.default_rng(seed), []
    for u in range(users):
        order = rng.permutation(texts)
        names = [f"{WORDS[i % 8]} {i} {u if own else ''}" for i in order]
        prompt = f"p{u}" if own else "p"
        rows += [(f"u{u}", prompt, names[a], names[b]) for a in range(texts) for b in range(a + 1, texts)]
    return from_columns(*zip(*rows, strict=True))


def some_ties(share: float) -> Comparisons:
    c = judged(new_texts("p {u} {n}"))
    return replace(c, tie_N=np.random.default_rng(0).random(len(c)) < share)


def thumbs(each: int) -> Comparisons:
    rng = np.random.default_rng(0)
    texts = [text(rng, n) for n in range(6 * each)]
    ids = [f"u{n % 6}" for n in range(len(texts))]
    liked = np.array([("lively" in t) == (n % 2 == 0) for n, t in enumerate(texts)])
    return from_thumbs(ids, [f"p {n}" for n in range(len(texts))], texts, liked)


WORLDS: dict[str, Callable[[], Comparisons]] = {
    "unique prompts": lambda: judged(new_texts("p {u} {n}")),
    "unique texts": lambda: judged(new_texts("p")),
    "each pair judged once": lambda: judged(new_texts("p {n}")),
    "one text a user": lambda: judged(new_texts("p {few}", "own text {u}")),
    "one text a user, one prompt": lambda: judged(new_texts("p", "own text {u}")),
    "one text for all": lambda: judged(new_texts("p", "the text")),
    "eleven texts": lambda: judged(of_texts(11)),
    "three texts": lambda: judged(of_texts(3)),
    "two texts": lambda: judged(of_texts(2)),
    "one prompt": lambda: judged(of_texts(40)),
    "two users": lambda: judged(new_texts("p {few}"), users=2, each=40),
    "two users, one prompt": lambda: judged(of_texts(9), users=2, each=40),
    "two judgements a user": lambda: judged(new_texts("p {u} {n}"), users=40, each=2),
    "the same ranking": lambda: ranked(8, own=False),
    "each their own ranking": lambda: ranked(5, own=True),
    "yes or no": lambda: judged(lambda u, n: (f"p {u} {n}", "yes", "no")),
    "many ties": lambda: some_ties(0.8),
    "nearly only ties": lambda: some_ties(0.98),
    "six judgements": lambda: judged(new_texts("p {u} {n}"), users=2, each=3),
    "thumbs": lambda: thumbs(30),
    "few thumbs": lambda: thumbs(4),
}


@pytest.mark.parametrize("world", WORLDS)
def test_every_shape_has_useful_sides_or_is_refused_in_one_line(world: str) -> None:
    comparisons = WORLDS[world]()
    try:
        found = prepare(comparisons, Lively(), Settings(seeds=2))
    except EmptySide as refused:
        line = str(refused)
        assert "\n" not in line and "Give judgements of more" in line
        assert "--made-from" not in line and "--split" not in line, "no leak is recommended"
        return
    rule, why = found.rule, found.why
    assert "\n" not in why
    assert rule != "pair" or not origin(comparisons).dependent
    for seed in range(2):
        parts = split(comparisons, rule, seed)
        check_leaks(comparisons, parts)
        known = comparisons.user_N[np.concatenate([parts.train_rows, parts.valid_rows])]
        for rows in (parts.train_rows, parts.valid_rows, parts.test_rows):
            assert comparisons.tie_N is None or not comparisons.tie_N[rows].all()
        assert np.isin(comparisons.user_N[parts.test_rows], known).any(), "somebody who is tested is known"


@pytest.mark.parametrize("world", ["one text a user", "each their own ranking", "many ties", "few thumbs"])
def test_the_rarer_shapes_are_compared_to_the_end(world: str) -> None:
    learners = {name: LEARNERS[name] for name in ("length", "individual")}
    found = compare(WORLDS[world](), learners, Lively(), seeds=1, workers=1, placebo=False, quiet=True)
    row = found.contents.rows.at("individual")
    assert row is not None and row.value is not None


@pytest.mark.parametrize(
    ("world", "rule", "fell_back"),
    [
        ("unique prompts", "pair", ""),
        ("each their own ranking", "own-response", "by prompt and response, nobody would be on both"),
        ("one text a user", "prompt", "by response and own-response, nobody would be on both sides"),
        ("the same ranking", "own-response", ""),
    ],
)
def test_the_next_honest_split_is_taken_and_named(world: str, rule: str, fell_back: str) -> None:
    prepared = prepare(WORLDS[world](), Lively(), Settings(seeds=3))
    assert prepared.rule == rule, prepared.why
    assert fell_back in prepared.why and (", nobody would" in prepared.why) == bool(fell_back)


@pytest.mark.parametrize("world", ["three texts", "two texts"])
def test_where_no_honest_split_exists_one_line_says_so(world: str) -> None:
    with pytest.raises(EmptySide, match=r"^240 comparisons cannot be split: by .*Give judgements of more [\w ]+\.$"):
        prepare(WORLDS[world](), Lively(), Settings(seeds=3))


def test_a_split_that_was_asked_for_is_refused_before_any_work_and_names_one_that_works() -> None:
    comparisons = WORLDS["each their own ranking"]()
    with pytest.raises(EmptySide, match=r"by prompt: nobody would be on both sides.* --split auto splits these by own"):
        prepare(comparisons, Lively(), Settings(split="prompt", seeds=3))
    with pytest.raises(EmptySide, match=r"by prompt: one side would be empty\. Give judgements on more prompts\.$"):
        prepare(WORLDS["two texts"](), Lively(), Settings(split="prompt", seeds=3))
