"""Cutting comparisons into training, validation and test rows, by pair, by prompt, by response or by own response.

``pair``          the two texts of a test comparison were not judged against each other in training (by anyone); each
                  of them may have been seen in other pairs.
``prompt``        no prompt of a test comparison occurs in training.
``response``      no text of a test comparison occurs in training, under any prompt. A comparison of a held-out with a
                  kept text belongs to neither side and is dropped.
``own-response``  no text of a test comparison was judged in training by the same user; others may have judged it. The
                  user's opinion of it is as new as under ``response``, and a dozen texts are enough.

A cut hashes content with the seed, so it does not depend on the order of the rows, and rows that are added later do not
move earlier ones. A side that would have no rows, only ties or only people whom the other side does not know is an
error, since nothing personal can be learned or measured on it.

Covered: equal texts under different pair ids, prompts or users. Not covered: near-duplicates and paraphrases.

Suffixes here: ``_K`` units that stay together, ``_X`` distinct texts, or texts of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, cast, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import BoolArray, Comparisons, KeyArray
from polypref.data.derived import SAY_PAIRS, origin
from polypref.data.judgement_graph import content_keys
from polypref.errors import NotEnoughData, SettingsError, unknown_name
from polypref.wording import counted, listed

Rule = Literal["pair", "prompt", "response", "own-response"]
RULES: tuple[Rule, ...] = get_args(Rule)
Rows = NDArray[np.int64]

# A comparison is held out by response only when both its texts are, so .3 of the texts make about .09 of the rows.
TEST_SHARE: dict[Rule, float] = {"pair": 0.2, "prompt": 0.2, "response": 0.3, "own-response": 0.3}
VALID_SHARE: dict[Rule, float] = {"pair": 0.1, "prompt": 0.15, "response": 0.2, "own-response": 0.2}
TEXT_RULES: tuple[Rule, ...] = ("response", "own-response")

# So few texts, each judged so often, that knowing each text's quality answers every pair of them; below FEWEST_TEXTS
# the texts held out for everyone would make three pairs or fewer.
FEWEST_TEXTS, FEW_TEXTS, OFTEN = 12, 100, 50
FEWEST_PROMPTS = 12

HELPS: dict[Rule, str] = {
    "pair": "of more pairs of texts",
    "prompt": "on more prompts",
    "response": "of more texts",
    "own-response": "of more texts",
}
KEPT_APART: dict[Rule, str] = {
    "pair": "no test pair, and none of its texts, occurs in training",
    "prompt": "test prompts never occur in training",
    "response": "test texts never occur in training",
    "own-response": "nobody is tested on texts that they judged in training; others may have judged them there",
}
UNDER_OTHERS = "test prompts never occur in training; a text that answers several prompts may"
TEXTS_RETURN = "a text of a test pair may occur in other pairs of training, where a population baseline may remember it"


class EmptySide(NotEnoughData):
    """A cut would leave a side empty, or useless. ``lack`` says which in a clause."""

    def __init__(self, message: str, lack: str = "one side would be empty") -> None:
        super().__init__(message)
        self.lack = lack


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of training, validation and test judgements, ascending, and the number of those in none of them."""

    rule: Rule
    train_rows: Rows
    valid_rows: Rows
    test_rows: Rows
    dropped: int


def split(
    comparisons: Comparisons,
    rule: Rule,
    seed: int,
    test_share: float | None = None,
    valid_share: float | None = None,
) -> Split:
    """Cut by ``rule``; the validation rows are cut by the same rule from the rest.

    The shares are of pairs, prompts or texts (defaults: TEST_SHARE, VALID_SHARE). Raises EmptySide when a side stays
    empty, or has only ties or strangers.
    """
    test_share = TEST_SHARE[_known(rule)] if test_share is None else test_share
    valid_share = VALID_SHARE[rule] if valid_share is None else valid_share
    left_rows, test_rows = holdout(comparisons, rule, _derived_seed(seed, "test"), test_share)
    ensure_useful(comparisons, rule, left_rows, test_rows)
    left = comparisons.take(left_rows)
    kept, held = holdout(left, rule, _derived_seed(seed, "valid"), valid_share)
    ensure_useful(left, rule, kept, held)
    dropped = len(comparisons) - len(test_rows) - len(kept) - len(held)
    return Split(rule, left_rows[kept], left_rows[held], test_rows, dropped)


def holdout(comparisons: Comparisons, rule: Rule, seed: int, share: float) -> tuple[Rows, Rows]:
    """``(kept_rows, held_rows)``: hold out ``share`` of the pairs, prompts or texts; rows of neither side are left out.

    Raises EmptySide when either side would be empty, SettingsError for an unknown rule or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise SettingsError(f"a share of {share} cannot be held out; expected a number between 0 and 1.")
    if _known(rule) in TEXT_RULES:
        unit_2N, key_X = _text_units(comparisons, rule)
        first_N, second_N = _drawn(key_X, seed, share)[unit_2N]
        kept_N, held_N = ~first_N & ~second_N, first_N & second_N
    else:
        unit_N, key_K = unit_codes(comparisons, rule)
        held_N = _drawn(key_K, seed, share)[unit_N]
        kept_N = ~held_N
    if not kept_N.any() or not held_N.any():
        raise _empty(comparisons, rule, "one side would be empty")
    return np.flatnonzero(kept_N), np.flatnonzero(held_N)


def ensure_useful(comparisons: Comparisons, rule: Rule, kept_rows: Rows, held_rows: Rows) -> None:
    """Raise EmptySide if one of two sides has only ties, or nobody is on both."""
    tie_N = comparisons.tie_N
    if tie_N is not None and (tie_N[kept_rows].all() or tie_N[held_rows].all()):
        raise _empty(comparisons, rule, "one side would have nothing but ties")
    if not np.isin(comparisons.user_N[held_rows], comparisons.user_N[kept_rows]).any():
        raise _empty(comparisons, rule, "nobody would be on both sides")


def _empty(comparisons: Comparisons, rule: Rule, lack: str) -> EmptySide:
    judged = counted(len(comparisons), "comparisons")
    return EmptySide(f"{judged} cannot be split by {rule}: {lack}. Give judgements {HELPS[rule]}.", lack)


def unit_codes(comparisons: Comparisons, rule: Rule) -> tuple[NDArray[np.int64], KeyArray]:
    """What ``rule`` keeps together, one per comparison: ``(unit_N, key_K)``, codes 0..K-1 and their content keys."""
    if rule == "prompt":
        prompt_N = comparisons.responses.prompt_R[comparisons.chosen_N]
        used, unit_N = np.unique(prompt_N, return_inverse=True)
        return unit_N, content_keys([comparisons.responses.prompts[int(p)] for p in used])
    key_K, unit_N = np.unique(comparisons.pair_key_N, return_inverse=True)
    return unit_N, key_K


def check_leaks(comparisons: Comparisons, parts: Split) -> None:
    """Raise SettingsError when a unit of ``parts.rule`` (pair, prompt or text) is on two of its three sides."""
    sides = {"training": parts.train_rows, "validation": parts.valid_rows, "test": parts.test_rows}
    if parts.rule in TEXT_RULES:
        unit_2N, _ = _text_units(comparisons, parts.rule)
    else:
        unit_2N = unit_codes(comparisons, parts.rule)[0][None]
    units = {name: np.unique(unit_2N[:, rows]) for name, rows in sides.items()}
    names = list(sides)
    for one, other in ((names[0], names[1]), (names[0], names[2]), (names[1], names[2])):
        shared = np.intersect1d(units[one], units[other], assume_unique=True)
        if len(shared):
            what = {"response": "text", "own-response": "user's text"}.get(parts.rule, parts.rule)
            raise SettingsError(
                f"leak: {len(shared)} {what}s of the {other} rows are also in the {one} rows; "
                f"a split by {parts.rule} must keep each {what} on one side."
            )


def choose_rule(comparisons: Comparisons, cut: Callable[[Rule], object] | None = None) -> tuple[Rule, str]:
    """The rule for these data, and the reason in one sentence.

    Where a user's judgements follow from others of theirs (``derived.origin``), by ``response``; by ``own-response``
    where there are few texts, or a side is left empty; else by ``prompt``. Where that is unknown, by
    ``prompt`` first if there are enough, since that drops nothing. By ``response`` also where so few texts are judged
    so often that remembering each text answers every pair. Otherwise by ``pair``.

    ``cut``  makes the cuts that will be made by a rule; one for which it raises EmptySide is not chosen. Default: one
             ``split``. What was tried before is named in the reason. Raises EmptySide if it does so for every rule that
             does not leak.
    """
    comparisons = comparisons.weighing()
    made = origin(comparisons)
    sides = np.concatenate([comparisons.chosen_N, comparisons.rejected_N])
    sides = sides[~comparisons.responses.bar_R[sides]]  # a bar is no text
    used = np.unique(sides)
    texts = comparisons.responses.texts_R.gather(used).n_unique()
    uses = len(sides) / max(texts, 1)
    rules: tuple[Rule, ...]
    if made.dependent:
        by_text: list[Rule] = ["response", "own-response"]
        if texts < FEWEST_TEXTS:
            by_text.reverse()
        prompts = len(np.unique(comparisons.responses.prompt_R[used]))
        unsure = made.derived is None and prompts >= FEWEST_PROMPTS
        by_text.insert(0 if unsure else len(by_text), "prompt")
        rules, why = tuple(by_text), made.why
    elif FEWEST_TEXTS <= texts < FEW_TEXTS and uses >= OFTEN:
        rules = ("response", "pair")
        why = (
            f"only {counted(texts, 'texts')}, each judged {uses:.0f} times: remembering each text "
            f"would answer every pair"
        )
    else:
        rules = ("pair",)
        why = made.why
    tried: dict[str, list[str]] = {}
    for rule in rules:
        try:
            cut(rule) if cut else split(comparisons, rule, 0)
        except EmptySide as error:
            tried.setdefault(error.lack, []).append(rule)
            continue
        return rule, "; ".join([why, *_lacks(tried), f"{_apart(comparisons, rule)}."])
    raise EmptySide(
        f"{counted(len(comparisons), 'comparisons')} cannot be split: {'; '.join(_lacks(tried))} "
        f"({why.removesuffix(SAY_PAIRS)}). Give judgements {HELPS[rules[0]]}."
    )


def _lacks(tried: Mapping[str, Sequence[str]]) -> list[str]:
    """What was wrong with the rules that were tried, in clauses."""
    return [f"by {listed(rules)}, {lack}" for lack, rules in tried.items()]


def _known(rule: str) -> Rule:
    if rule not in RULES:
        raise unknown_name("split", rule, RULES)
    return cast(Rule, rule)


def _text_codes(comparisons: Comparisons) -> tuple[NDArray[np.int64], KeyArray]:
    """``(text_R, key_X)``: code of each response's text whatever its prompt, and the texts' content keys."""
    texts_R = comparisons.responses.texts_R
    texts = texts_R.unique(maintain_order=True)
    table = pl.DataFrame({"text": texts, "code": np.arange(len(texts), dtype=np.int64)})
    codes = pl.DataFrame({"text": texts_R}).join(table, on="text", how="left", maintain_order="left")
    return codes["code"].to_numpy(), content_keys(texts)


def _apart(comparisons: Comparisons, rule: Rule) -> str:
    """What a rule keeps apart in these data, and what may be on both sides."""
    if rule == "pair" and _texts_return(comparisons):
        return TEXTS_RETURN
    if rule == "prompt":
        pool = comparisons.responses
        judged_R = np.union1d(comparisons.chosen_N, comparisons.rejected_N)
        judged_R = judged_R[~pool.bar_R[judged_R]]
        if pool.texts_R.gather(judged_R).n_unique() < len(judged_R):
            return UNDER_OTHERS
    return KEPT_APART[rule]


def _texts_return(comparisons: Comparisons) -> bool:
    """Whether any text is in two different pairs."""
    text_R, key_X = _text_codes(comparisons)
    first = np.unique(comparisons.pair_key_N, return_index=True)[1]
    text_2Y = np.stack([text_R[side_N[first]] for side_N in (comparisons.chosen_N, comparisons.rejected_N)])
    if (bar_X := np.bincount(text_R, comparisons.responses.bar_R, len(key_X)) > 0).any():
        text_2Y = text_2Y[~bar_X[text_2Y]]
    return bool((np.bincount(text_2Y.ravel(), minlength=1) > 1).any())


def _text_units(comparisons: Comparisons, rule: Rule) -> tuple[NDArray[np.int64], KeyArray]:
    """``(unit_2N, key_X)``: what ``rule`` keeps together of both texts of each comparison, and the content keys."""
    text_R, key_X = _text_codes(comparisons)
    side_2N = np.stack([comparisons.chosen_N, comparisons.rejected_N])
    if (bar_R := comparisons.responses.bar_R).any():  # a bar is on every side: a like goes with its one text
        side_2N = np.where(bar_R[side_2N], side_2N[::-1], side_2N)
    text_2N = text_R[side_2N]
    if rule == "response":
        return text_2N, key_X
    many = max(len(key_X), 1)
    code_X, unit_2N = np.unique(np.asarray(comparisons.user_N, np.int64) * many + text_2N, return_inverse=True)
    user_U = content_keys(comparisons.users.ids)
    return unit_2N.reshape(text_2N.shape), _mix(user_U[code_X // many]) ^ key_X[code_X % many]


def _drawn(key_K: KeyArray, seed: int, share: float) -> BoolArray:
    """Which of K distinct units are held out: those whose hash with ``seed`` falls under ``share``; at least one."""
    hash_K = _mix(key_K ^ _mix(np.uint64(seed % 2**64)))
    if not len(hash_K):
        return np.zeros(0, bool)
    return (hash_K < np.uint64(int(share * 2**64))) | (hash_K == hash_K.min())


def _mix(value):
    """The finaliser of splitmix64: every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def _derived_seed(seed: int, name: str) -> int:
    """A seed of its own for each purpose: the same hash for both cuts would leave the second one empty."""
    return int.from_bytes(blake2b(f"{name}:{seed}".encode(), digest_size=8).digest(), "little")
