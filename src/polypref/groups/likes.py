"""What each group likes: how often it chooses the response with more of a trait, and single texts, against all others.

A person's value of a trait is the share of their judgements, of those in which the two responses differ in it, that
chose the one with more of it; of a text, the share of its judgements that it won. A tie counts one half. A group is
compared with everybody in another group, person by person (``stats.group_differences``), in two families, traits and
texts, each at half of 5 %: so all intervals of a report hold at once, at 95 %. Traits are those of
``features.wording``, which needs words alone. Texts are the most judged ones, chosen without looking at who won.

Groups that were discovered are described by judgements that were kept out when they were found again
(``discover_groups.found_again``). Otherwise any two halves of a crowd would differ in what divided them.

Covered: related traits, people with few judgements. Not covered: groups that judged different questions differ also by
those (``shared`` says how many judgements are on pairs that another group judged too); why a group likes a trait.

Suffixes here: ``_K`` traits or texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray
from polypref.data import thumbs
from polypref.data.zero_weight import counted
from polypref.features import wording
from polypref.features.prompts import prompt_texts
from polypref.groups.grouping import Grouping
from polypref.stats.group_differences import LEAST, Differences, differences

Floats = NDArray[np.float64]

MOST_TEXTS = 200
RARE = 0.05  # traits in which fewer pairs of responses differ are left out
LONGEST = 300  # characters of a text that are shown
LEVEL = 0.95
LENGTH = "length"
WORDS = {  # what a group chooses that likes more of a trait, and what if it likes less
    LENGTH: ("longer responses", "shorter responses"),
    "word variety": ("more varied words", "fewer different words"),
    "repeated trigrams": ("more repetition", "less repetition"),
    "ends with punctuation": ("a full stop at the end", "no full stop at the end"),
    "log newlines": ("more line breaks", "fewer line breaks"),
    "log list items": ("more list items", "fewer list items"),
    "share of digits": ("more digits", "fewer digits"),
    "share of capitals": ("more capital letters", "fewer capital letters"),
    "words a sentence": ("longer sentences", "shorter sentences"),
    "letters a word": ("longer words", "shorter words"),
    "question marks": ("more questions", "fewer questions"),
    "refusal word": ("refusals and apologies", "no refusals or apologies"),
    "share of content words": ("more content words", "more small words (the, of, you)"),
    "prompt words in response": ("more of the question's words", "fewer of the question's words"),
    "response words in prompt": ("words that stay with the question", "words beyond the question"),
    "prompt bigrams in response": ("more of the question's phrases", "fewer of the question's phrases"),
    "response bigrams in prompt": ("phrases that stay with the question", "phrases beyond the question"),
}


class Like(NamedTuple):
    """A group's share and the others', in one trait or text, with the difference's interval, and its people."""

    group: str
    name: str
    text: str
    own: float
    others: float
    value: float
    lo: float
    hi: float
    people: int
    prompt: str = ""

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.lo > 0 or self.hi < 0


@dataclass(frozen=True, eq=False)
class Sample:
    """Judgements to describe groups by: ``group_U`` is the group of each of ``rows.users``, -1 for unknown.

    ``kept_out``  whether the groups were found without these judgements.
    """

    rows: Comparisons
    group_U: IntArray
    kept_out: bool = False

    @classmethod
    def of(cls, comparisons: Comparisons, grouping: Grouping) -> Sample:
        """All judgements, for groups that do not come from them."""
        rows = counted(comparisons)
        at = {name: number for number, name in enumerate(grouping.names)}
        return cls(rows, np.array([at.get(name, -1) for name in grouping.of(rows.users.ids)], np.int32))


@dataclass(frozen=True)
class Likes:
    """What ``likes`` found; ``why_not`` says why nothing could be compared.

    ``traits``, ``texts``  every comparison made, the surest of a group first; of texts those that it prefers.
    """

    names: tuple[str, ...]
    judgements: int = 0
    shared: float | None = None
    kept_out: bool = False
    looked_at: tuple[int, int] = (0, 0)
    traits: tuple[Like, ...] = field(default=())
    texts: tuple[Like, ...] = field(default=())
    why_not: str = ""

    def of(self, group: str, kind: str = "traits") -> list[Like]:
        """What a group surely likes more than the others do, the surest difference first."""
        found: tuple[Like, ...] = getattr(self, kind)
        return [one for one in found if one.group == group and one.sure]

    @property
    def differs(self) -> bool:
        """Whether any group surely differs in anything."""
        return any(one.sure for one in (*self.traits, *self.texts))

    def as_dict(self) -> dict[str, Any]:
        """JSON types; shares from 0 to 1, ``sure`` where the interval excludes zero."""
        looked = dict(zip(("traits", "texts"), self.looked_at, strict=True))
        found = {"groups": list(self.names), "judgements": self.judgements, "on_shared_pairs": self.shared}
        found |= {"kept_out": self.kept_out, "level": LEVEL, "looked_at": looked, "why_not": self.why_not}
        for kind in ("traits", "texts"):
            found[kind] = [{**one._asdict(), "sure": one.sure} for one in getattr(self, kind)]
        return found


def likes(sample: Sample, names: tuple[str, ...], *, seed: int) -> Likes:
    """What each group likes, against everybody in another group; without two groups of LEAST people it says why not."""
    if not len(sample.rows):
        return Likes(names, kept_out=sample.kept_out, why_not="too few judgements to keep some out")
    size_G = np.bincount(sample.group_U[np.unique(sample.rows.user_N)] + 1, minlength=len(names) + 1)[1:]
    rows = sample.rows.take(sample.group_U[sample.rows.user_N] >= 0)
    if thumbs.bar_N(rows).any():
        return Likes(names, why_not="judgements of single answers have no second answer to compare with")
    if len(names) < 2:
        return Likes(names, why_not="there is one group, and nobody to compare it with")
    if (size_G >= LEAST).sum() < 1 or size_G.sum() - size_G.max() < LEAST:
        who = "fewer than two groups" + (" found again in half of the judgements" if sample.kept_out else "")
        return Likes(names, kept_out=sample.kept_out, why_not=f"{who} have {LEAST} people or more")
    level = 1 - (1 - LEVEL) / 2
    keys, *values = trait_values(rows)
    text_K, *wins = text_values(rows, sample.group_U, len(names))
    traits, texts = (
        differences(share_UK, sample.group_U, len(names), seed=seed, level=level, judged_UK=judged_UK)
        for share_UK, judged_UK in (values, wins)
    )
    return Likes(
        names,
        judgements=len(rows),
        shared=shared_pairs(rows, sample.group_U),
        kept_out=sample.kept_out,
        looked_at=(traits.looked_at, texts.looked_at),
        traits=tuple(_listed(traits, names, [(key, *WORDS[key]) for key in keys])),
        texts=tuple(_texts_listed(texts, names, rows, text_K)),
    )


def trait_values(rows: Comparisons) -> tuple[list[str], Floats, Floats]:
    """Names of the traits; of each user (U, K) how often they chose the response with more of it, of how many.

    NaN: never asked.
    Relation to the prompt is left out where there is one prompt or none, and so are traits that are RARE.
    """
    used_R, at_2N = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]), return_inverse=True)
    pool = rows.responses.take(used_R)
    keys, parts = [LENGTH, *wording.STYLE], [pool.lengths_R[:, None], wording.style(pool.texts_R)]
    prompts, prompt_R = prompt_texts(pool)
    if len(prompts) > 1:
        keys += wording.OVERLAP
        parts.append(wording.overlap(pool.texts_R, prompts.texts_R, prompt_R))
    trait_RK = np.concatenate(parts, axis=1)
    columns = []
    for trait_R in trait_RK.T:
        more_N = np.sign(trait_R[at_2N[: len(rows)]] - trait_R[at_2N[len(rows) :]])
        value_N = 0.5 + more_N * (rows.label_N - 0.5)
        columns.append((more_N, _means(rows.user_N, value_N, rows.weights_N * (more_N != 0), len(rows.users))))
    kept = [k for k, (more_N, _) in enumerate(columns) if np.mean(more_N != 0) >= RARE]
    found = np.array([columns[k][1] for k in kept]).reshape(len(kept), 2, len(rows.users))
    return [keys[k] for k in kept], found[:, 0].T, found[:, 1].T


def text_values(rows: Comparisons, group_U: IntArray, groups: int) -> tuple[IntArray, Floats, Floats]:
    """The most judged texts; of each user (U, K) how often each won, NaN if not judged by them, of how many."""
    user_2N, text_2N = np.tile(rows.user_N, 2), np.concatenate([rows.chosen_N, rows.rejected_N])
    votes = np.unique(user_2N * np.int64(len(rows.responses)) + text_2N)
    voter, text = np.divmod(votes, len(rows.responses))
    judges_GR = np.zeros((groups, len(rows.responses)), np.int64)
    np.add.at(judges_GR, (group_U[voter], text), 1)
    fewest_R = np.minimum(judges_GR, judges_GR.sum(axis=0) - judges_GR).max(axis=0)
    order_R = np.argsort(-fewest_R, kind="stable")[:MOST_TEXTS]
    text_K = order_R[fewest_R[order_R] >= LEAST].astype(np.int32)
    place_R = np.full(len(rows.responses), -1, np.int64)
    place_R[text_K] = np.arange(len(text_K))
    here = np.flatnonzero(place_R[text_2N] >= 0)
    won_2N = np.concatenate([rows.label_N, 1 - rows.label_N])
    cell = user_2N[here] * np.int64(max(len(text_K), 1)) + place_R[text_2N[here]]
    many = len(rows.users) * len(text_K)
    found = _means(cell, won_2N[here], np.tile(rows.weights_N, 2)[here], many)
    won_UK, judged_UK = (found_X.reshape(len(rows.users), len(text_K)) for found_X in found)
    return text_K, won_UK, judged_UK


def shared_pairs(rows: Comparisons, group_U: IntArray) -> float:
    """Share of the judgements on pairs of texts that two groups or more judged."""
    pairs = pl.DataFrame({"pair": rows.pair_key_N, "group": group_U[rows.user_N]})
    return float(pairs.select((pl.col.group.n_unique().over("pair") > 1).mean()).item() or 0.0)


def _means(code: NDArray, value: Floats, weight: Floats, many: int) -> tuple[Floats, Floats]:
    """Weighted mean by code, NaN where nothing weighs, and the judgements of equal weight that it is worth."""
    total = np.bincount(code, weight, many)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, np.bincount(code, weight * value, many) / total, np.nan)
        return mean, np.where(total > 0, total**2 / np.bincount(code, weight**2, many), 0.0)


def _listed(found: Differences, names: tuple[str, ...], words: list[tuple[str, str, str]]) -> list[Like]:
    """Every comparison, by group, the surest difference first; told so that the group's share is the larger one."""
    lines = []
    for g, name in enumerate(names):
        of_group = []
        for k in np.flatnonzero(np.isfinite(found.value_GK[g])).tolist():
            key, more, less = words[k]
            own, others, lo, hi, people = _figures(found, g, k)
            if own < others:
                own, others, lo, hi, more = 1 - own, 1 - others, -hi, -lo, less
            of_group.append(Like(name, key, more, own, others, own - others, lo, hi, people))
        lines += sorted(of_group, key=lambda one: -one.lo)
    return lines


def _texts_listed(found: Differences, names: tuple[str, ...], rows: Comparisons, text_K: IntArray) -> list[Like]:
    """Every text that a group prefers more than the others do, the surest difference first."""
    lines, pool = [], rows.responses
    for g, name in enumerate(names):
        of_group = []
        for k in np.flatnonzero(np.nan_to_num(found.value_GK[g]) > 0).tolist():
            own, others, lo, hi, people = _figures(found, g, k)
            r = int(text_K[k])
            prompt, identity = pool.prompt_text(int(pool.prompt_R[r])), pool.identity_R[r].tobytes().hex()
            told = pool.texts_R[r][:LONGEST], own, others, own - others, lo, hi, people, prompt[:LONGEST]
            of_group.append(Like(name, identity, *told))
        lines += sorted(of_group, key=lambda one: -one.lo)
    return lines


def _figures(found: Differences, g: int, k: int) -> tuple[float, float, float, float, int]:
    """The group's share, the others', ends of the difference within what is possible, and people."""
    own, others = (float(np.clip(share_GK[g, k], 0, 1)) for share_GK in (found.own_GK, found.others_GK))
    lo, hi = (float(np.clip(end_GK[g, k], -1, 1)) for end_GK in (found.lo_GK, found.hi_GK))
    return own, others, lo, hi, int(found.people_GK[g, k])
