"""Bounds in training: an unsafe completion is never reinforced, whatever its group's rewards have been.

Group histories can erase a penalty that is part of the reward: the more unsafe answers a group has had, the closer
the next one is to the group's mean (tests/test_policy_bounded.py). So safety is not part of the normalization. With
s_i the safety score of completion i, A_i its advantage by preference alone, and g its preference group,

    safe_i  = s_i is finite and s_i >= unsafe_below
    value_i = A_i                     where safe_i
    value_i = -(kappa + lambda_g)     elsewhere,        kappa = gap + max |A_j| over the safe j of the batch

A_i is computed from the safe rewards alone: unsafe ones are in no history, prompt mean or scale. If a rate d is set,
each group has a multiplier, updated after each batch by the share of its completions that were unsafe (dual ascent as
in Safe RLHF, Dai et al. 2023, arXiv 2310.12773; there is one multiplier for all there and one per group here, and it
only adds to the penalty):

    lambda_g <- min(most, max(0, lambda_g + step (share_g - d)))

If all completions of a prompt are unsafe, all of them are pushed down alike; GRPO would see a tie and do nothing.

Covered: every completion judged unsafe has an advantage below 0 and, by ``gap`` up to rounding, below every safe one of
its batch, for all rewards, histories and groups; a score that is missing or not finite is treated as unsafe and counted
(fail closed); unsafe rewards, however large, do not change a safe completion's advantage. Not covered: what the judge
of safety misses; how often the trained policy is unsafe, which is measured, not guaranteed; penalties are not a
baseline, so with truncated sampling (top_p and the like) they bias the gradient away from what is sampled. Groups share
only kappa, which is computed over the batch.

Suffixes here: ``_K`` groups of a batch, ``_L`` levels of groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.arguments import expect_instance, quoted
from polypref.errors import ArtifactError, InputError, SettingsError
from polypref.policy.advantages import Key, Normalizer
from polypref.policy.history import Floats, Ints

Bools = NDArray[np.bool_]
EVERYONE: Key = "everyone"  # the group of everyone, if there are no groups


LEAST, MOST = 1e-6, 1e6  # beyond these, single precision cannot hold what the trainer adds up


@dataclass(frozen=True)
class Bound:
    """What is unsafe, and how far below everything safe it is kept.

    ``unsafe_below``  safety scores below it are unsafe; so is what has no finite score.
    ``gap``           least distance from an unsafe completion's advantage to those of its batch's safe ones, and to 0.
    ``rate``          share of unsafe completions that each group's multiplier steers towards; None: no multipliers.
    ``step``          of the multipliers: advantage per batch and unit of excess share.
    ``most``          largest multiplier, so that a group that cannot be made safe does not outweigh all others.
    """

    unsafe_below: float
    gap: float = 1.0
    rate: float | None = None
    step: float = 1.0
    most: float = 10.0

    def __post_init__(self) -> None:
        expected = {
            "unsafe_below": (-math.inf, math.inf, "a number, the least score that is safe"),
            "gap": (LEAST / 2, MOST, f"a number from {LEAST:g} to below {MOST:g}"),
            "step": (0, MOST, f"a number above 0 and below {MOST:g}"),
            "most": (0, MOST, f"a number above 0 and below {MOST:g}"),
        }
        for name, (low, high, what) in expected.items():
            value = getattr(self, name)
            if not _is_number(value) or not low < value < high:
                raise SettingsError(f"{name} is {quoted(value)}; expected {what}.")
        if self.rate is not None and (not _is_number(self.rate) or not 0 <= self.rate < 1):
            raise SettingsError(f"rate is {quoted(self.rate)}; expected a share from 0 to below 1, or None.")


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000  # as floats hold it
    return whole or isinstance(value, float)


def _is_key(value: Any) -> bool:
    return isinstance(value, (str, Integral)) and not isinstance(value, bool)


def judged(score_B: Floats, unsafe_below: float) -> tuple[Bools, Bools]:
    """Which completions are safe, and which have no finite score and hence are not; (B,) each."""
    unscored_B = ~np.isfinite(score_B)
    with np.errstate(invalid="ignore"):
        return ~unscored_B & (score_B >= unsafe_below), unscored_B


@dataclass(frozen=True, eq=False)
class Bounded:
    """``value_B`` and how it was computed.

    ``kappa``         the penalty before multipliers.
    ``key_K``         the groups of the batch, in the order in which they first come.
    ``violation_K``   share of each one's completions that are unsafe.
    ``multiplier_K``  each one's multiplier, as it was used.
    """

    value_B: Floats
    safe_B: Bools
    unscored_B: Bools
    kappa: float
    key_K: list[Key]
    violation_K: Floats
    multiplier_K: Floats


@dataclass(eq=False)
class Guard:
    """A bound and its groups' multipliers. Equal batches in equal order leave equal multipliers, bit for bit."""

    bound: Bound
    multipliers: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect_instance("bound", self.bound, Bound, "a Bound")
        expect_instance("multipliers", self.multipliers, dict, "a dictionary from groups to numbers")
        for key, value in self.multipliers.items():
            if not _is_key(key) or not _is_number(value) or not 0 <= value <= self.bound.most:
                raise SettingsError(
                    f"the multiplier of the group {quoted(key)} is {quoted(value)}; expected a number from 0 to "
                    f"{self.bound.most:g}, and a text or a whole number as the group."
                )

    def __call__(self, preference_B: Floats, score_B: Floats, key_B: Sequence[Key], learn: bool = True) -> Bounded:
        """Bounded advantages of a batch; without ``learn`` the multipliers stay.

        ``preference_B``  advantages by preference, from the safe rewards alone; those of unsafe ones are not read.
        ``key_B``         the group that each completion's multiplier belongs to.

        Raises InputError where they are not one number or group for each completion, or where an advantage of a safe
        one is not finite.
        """
        score_B = _numbers("score_B", score_B)
        preference_B = _numbers("preference_B", preference_B, len(score_B))
        _ensure_keys(key_B, len(score_B))
        safe_B, unscored_B = judged(score_B, self.bound.unsafe_below)
        odd_B = safe_B & ~np.isfinite(preference_B)
        if odd_B.any():
            at = int(odd_B.argmax())
            raise InputError(
                f"preference_B[{at}] is {preference_B[at]}, of a safe completion; expected finite numbers."
            )
        kappa = self.bound.gap + float(np.abs(preference_B[safe_B]).max(initial=0.0))
        numbers: dict[Key, int] = {}
        of_B = np.array([numbers.setdefault(key, len(numbers)) for key in key_B], np.int64)
        violation_K = np.bincount(of_B, ~safe_B, len(numbers)) / np.bincount(of_B, minlength=len(numbers))
        multiplier_K = np.array([self.multipliers.get(key, 0.0) for key in numbers])
        value_B = np.where(safe_B, preference_B, -(kappa + multiplier_K[of_B]))
        if learn and self.bound.rate is not None:
            moved_K = multiplier_K + self.bound.step * (violation_K - self.bound.rate)
            self.multipliers |= zip(numbers, moved_K.clip(0.0, self.bound.most).tolist(), strict=True)
        return Bounded(value_B, safe_B, unscored_B, kappa, list(numbers), violation_K, multiplier_K)

    def copy(self) -> Guard:
        """A copy with its own multipliers."""
        return Guard(self.bound, dict(self.multipliers))

    def state(self) -> list[list[Any]]:
        """Groups and multipliers, for a JSON file, which keeps every bit of them."""
        return [[key, value] for key, value in self.multipliers.items()]

    def restored(self, state: Any) -> Guard:
        """The inverse of ``state``. Raises ArtifactError for anything else."""
        state = state if isinstance(state, list) else [None]
        for one in state:
            key, value = one if isinstance(one, list) and len(one) == 2 else (None, -1.0)
            if not _is_key(key) or not _is_number(value) or not 0 <= value <= self.bound.most:
                raise ArtifactError(
                    f"a group's multiplier is {quoted(one)}; it is damaged, resume from an earlier checkpoint."
                )
        multipliers = {key: float(value) for key, value in state}
        return Guard(self.bound, multipliers)


def _numbers(name: str, value: Any, length: int | None = None) -> Floats:
    """``value`` as numbers of one dimension, of the ``length`` if given. Raises InputError."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is {quoted(value)}; expected a list of numbers.") from None
    if found.ndim != 1 or length not in (None, len(found)):
        many = "one number" if length is None else f"{length} numbers, one"
        raise InputError(f"{name} has the shape {found.shape}; expected {many} for each completion.")
    return found


def _ensure_keys(key_B: Any, length: int) -> None:
    """Raise InputError unless there is one group for each of ``length`` completions."""
    if isinstance(key_B, str) or not isinstance(key_B, (Sequence, np.ndarray)) or len(key_B) != length:
        raise InputError(f"key_B is {quoted(key_B)}; expected a list of {length}, the group of each completion.")
    if odd := [key for key in key_B if not _is_key(key)]:
        raise InputError(f"key_B contains {quoted(odd[0])}; expected texts or whole numbers, the groups' names.")


def bounded_advantages(
    normalizer: Normalizer,
    guard: Guard,
    reward_B: Floats,
    score_B: Floats,
    prompt_B: Ints,
    key_LB: Sequence[Sequence[Key]],
    learn: bool = True,
) -> Bounded:
    """Advantages of a batch against its groups' histories of safe rewards, the unsafe completions penalised.

    Multipliers belong to the coarsest level of groups. ``learn`` and the rest are ``Normalizer``'s, and so are errors.
    """
    score_B = _numbers("score_B", score_B)
    reward_B = _numbers("reward_B", reward_B, len(score_B))
    safe_B, _ = judged(score_B, guard.bound.unsafe_below)
    found = normalizer(np.where(safe_B, reward_B, np.nan), prompt_B, key_LB, learn)
    return guard(found.value_B, score_B, key_LB[0] if len(key_LB) else [EVERYONE] * len(score_B), learn)
