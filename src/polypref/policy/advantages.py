"""Advantages: each reward measured against the history of its preference group.

Sources: Wang et al. (2026), Personalized Group Relative Policy Optimization, arXiv 2603.10009 (``PAPER``); Shao et al.
(2024), DeepSeekMath, arXiv 2402.03300 (GRPO, to which a group without a history falls back). The published formula is

    A_i = (r_i - mu_p) / (sigma_p + epsilon)    mu_p, sigma_p: of all rewards that group p has had so far

and leaves open whether mu_p and sigma_p include the batch itself (``order``) and what a new group gets (``min_count``).
Everything else here is ours. For completion i of a prompt with G completions, m_i is the mean of the others' rewards:

    baseline     subtracted                  divided by
    "group"      mu_p                        sqrt(t)
    "prompt"     the prompt's mean           sqrt(t)
    "shrunken"   mu_p + k (m_i - mu_p)       sqrt(w)
    "grpo"       the prompt's mean           the prompt's standard deviation (divisor G - 1) + 1e-4: no history

t is the variance of the group's rewards, w that within its prompts, b = t - w (not below 0) that between them, and k =
b / (b + w / (G - 1)): the best linear forecast of a reward from the prompt's others (docs/pgrpo.md). At G = 1 there are
no others: k = 0 and w = t, so "shrunken" is "group", and "prompt" and "grpo" have no signal. The weight of a group is
independent of all this: advantages are multiplied by the weights of ``group_weights``, whose mean over the batch is 1.

Covered: rewards that are not finite or exceed ``LARGEST`` get advantage 0 and enter no statistic; a group whose rewards
are all equal gets exactly 0; adding c to a group's rewards changes its advantages only by rounding, about 2e-16 |c| /
spread in each batch (under 1e-6 at rewards of 1e9 +- 1), until the spread is ``ROUNDING`` of the mean; one group's
rewards never change another's advantages, except by design (a parent's statistics below ``min_count`` and with
``shrinkage``); weights depend on how many rewards a group has had, never on their values. Not covered: completions of
one prompt in different groups (refused).

Suffixes here: ``_L`` levels of groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from polypref.errors import InputError, SettingsError, unknown_name
from polypref.policy.drift import DriftAlarm
from polypref.policy.group_weights import GroupWeights
from polypref.policy.history import ROUNDING, Floats, Ints, RewardHistory, remembered, usable

Key = str | int
Path = tuple[Key, ...]  # of a group: its own key behind those of the groups that it lies in

Baseline = Literal["group", "prompt", "shrunken", "grpo"]
Order = Literal["after", "before"]
Cold = Literal["prompt", "parent"]

EPSILON = 1e-4  # of GRPO's scale, as in TRL


@dataclass(frozen=True)
class Normalization:
    """How rewards become advantages.

    ``baseline``   see the top of this file.
    ``order``      "after": the batch is in the history that it is measured against, so no scale is ever unseen;
                   "before": it is not, so the rewards of a batch do not affect each other, and a group's first batch
                   falls back.
    ``half_life``  of the history, in rewards of the group itself; None: all rewards count the same, so mu_p lags behind
                   an improving policy.
    ``min_count``  rewards that a history needs; until then the group's advantages are those of ``cold``.
    ``cold``       "prompt": GRPO's, within the prompt; "parent": with the statistics of the level above.
    ``shrinkage``  number of rewards as which the parent's spread counts in the group's, on the log scale; 0: none.
    ``clip``       largest absolute advantage; None: any.
    ``epsilon``    added to the scale; above 0, groups with small rewards learn less.
    ``adaptive``   when a group's drift alarm rings (``drift.DriftAlarm``, on the finest level), its history is cut to
                   ``min_count`` rewards, so that its mean and scale soon follow the present rewards.
    ``group_weight``  alpha of ``group_weights``, for the coarsest level of groups: with 0 every rollout counts alike,
                   with 1 every group. This chooses the objective; docs/pgrpo.md gives the cost for the majority.
    """

    baseline: Baseline = "shrunken"
    order: Order = "after"
    half_life: float | None = None
    min_count: int = 16
    cold: Cold = "prompt"
    shrinkage: float = 0.0
    clip: float | None = None
    epsilon: float = 0.0
    adaptive: bool = False
    group_weight: float = 0.5

    def __post_init__(self) -> None:
        named = {"baseline": (self.baseline, Baseline), "order": (self.order, Order), "cold": (self.cold, Cold)}
        for name, (value, kinds) in named.items():
            if value not in get_args(kinds):
                raise SettingsError(f"{name} is {value!r}; expected {' or '.join(map(repr, get_args(kinds)))}.")
        lowest = {"half_life": 1, "min_count": 1, "shrinkage": 0, "clip": 0, "epsilon": 0, "group_weight": 0}
        for name, least in lowest.items():
            value, most = getattr(self, name), 1 if name == "group_weight" else math.inf
            expected = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                hint = " YAML reads 1e-4 as text; write 1.0e-4." if isinstance(value, str) else ""
                raise SettingsError(f"{name} is {value!r}; expected a number, {expected}.{hint}")
            if value is not None and not (least <= value <= most and math.isfinite(value)):
                raise SettingsError(f"{name} is {value}; expected a number, {expected}.")
        if self.half_life and self.min_count >= (most := remembered(self.half_life)):
            raise SettingsError(
                f"half_life is {self.half_life:g}, so no more than {most:.1f} rewards are ever remembered, and "
                f"min_count is {self.min_count}: no history would be used. Make half_life longer or min_count smaller."
            )


PAPER = Normalization(baseline="group", min_count=2, epsilon=EPSILON, group_weight=0.0)
"""The published formula, with what it leaves open as in ``Normalization``; it weighs no group."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of a batch: ``of_B``, numbered 0 to P - 1, and which rewards count (``counts_B``)."""

    reward_B: Floats
    of_B: NDArray[np.intp]
    counts_B: NDArray[np.bool_]
    size_P: Floats
    mean_P: Floats

    @classmethod
    def of(cls, reward_B: Floats, prompt_B: Ints) -> Self:
        """Means over the rewards that are finite; NaN for a prompt that has none."""
        return cls.numbered(reward_B, np.unique(prompt_B, return_inverse=True)[1])

    @classmethod
    def numbered(cls, reward_B: Floats, of_B: NDArray[np.intp]) -> Self:
        """``of``, where prompts are numbered 0 to P - 1 already."""
        counts_B = usable(reward_B)
        many = int(of_B.max(initial=-1)) + 1
        size_P = np.bincount(of_B[counts_B], minlength=many).astype(np.float64)
        first_P = np.full(many, np.nan)
        first_P[of_B[counts_B][::-1]] = reward_B[counts_B][::-1]
        shift_B = np.where(counts_B, reward_B - first_P[of_B], 0.0)
        with np.errstate(invalid="ignore"):
            mean_P = first_P + np.bincount(of_B, shift_B, many) / size_P
        return cls(reward_B, of_B, counts_B, size_P, mean_P)

    @property
    def residual_B(self) -> Floats:
        """Rewards minus their prompt's mean."""
        return self.reward_B - self.mean_P[self.of_B]

    @property
    def size_B(self) -> Floats:
        return self.size_P[self.of_B]

    def grpo(self) -> Floats:
        """GRPO's advantages: residuals over the prompt's standard deviation (divisor G - 1); 0 for a prompt of one."""
        square_B = np.where(self.counts_B, self.residual_B, 0.0) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            scale_P = np.sqrt(np.bincount(self.of_B, square_B, len(self.size_P)) / (self.size_P - 1))
        return np.where(self.size_B > 1, self.residual_B / (scale_P[self.of_B] + EPSILON), 0.0)


@dataclass(eq=False)
class Level:
    """The groups of one level, numbered by first occurrence, and the statistics of each."""

    rewards: RewardHistory
    residuals: RewardHistory
    numbers: dict[Path, int] = field(default_factory=dict)

    def copy(self) -> Level:
        """An independent copy."""
        return Level(self.rewards.copy(), self.residuals.copy(), dict(self.numbers))

    def number(self, paths: Sequence[Path]) -> NDArray[np.int64]:
        """The number of each one's group; a new group gets the next."""
        for path in dict.fromkeys(paths):
            self.numbers.setdefault(path, len(self.numbers))
        found = list(map(self.numbers.__getitem__, paths))
        for history in (self.rewards, self.residuals):
            history.grow(len(self.numbers))
        return np.array(found, np.int64)

    def update(self, prompts: Prompts, group_B: Ints) -> None:
        """Rewards, and residuals scaled to the variance of what they are residuals of."""
        self.rewards.update(prompts.reward_B, group_B)
        told_B = prompts.counts_B & (prompts.size_B > 1)
        size_B = prompts.size_B[told_B]
        self.residuals.update(prompts.residual_B[told_B] * np.sqrt(size_B / (size_B - 1)), group_B[told_B])


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of each completion's group: count, mean, total variance, and variance within prompts."""

    count_B: Floats
    mean_B: Floats
    total_B: Floats
    within_B: Floats

    @classmethod
    def of(cls, level: Level, group_B: Ints) -> Self:
        """The total variance in place of the one within prompts where no prompt had two rewards."""
        count_B, mean_B, total_B = level.rewards.of(group_B)
        told_B, residual_B, within_B = level.residuals.of(group_B)
        within_B = np.where(told_B > 0, np.minimum(within_B + residual_B**2, total_B), total_B)
        least_B = (ROUNDING * mean_B) ** 2
        spreads = (np.where(spread_B <= least_B, 0.0, spread_B) for spread_B in (total_B, within_B))
        return cls(count_B, mean_B, *spreads)

    def unless(self, own_B: NDArray[np.bool_], parent: Moments) -> Moments:
        """The parent's where ``own_B`` does not hold."""
        both = zip(vars(self).values(), vars(parent).values(), strict=True)
        return Moments(*[np.where(own_B, mine_B, of_B) for mine_B, of_B in both])

    def towards(self, parent: Moments, weight: float) -> Moments:
        """Spreads shrunk towards the parent's on the log scale, which counts as ``weight`` rewards."""
        share_B = self.count_B / (self.count_B + weight)

        def drawn(own_B: Floats, of_B: Floats) -> Floats:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(own_B > 0, np.exp(share_B * np.log(own_B) + (1 - share_B) * np.log(of_B)), own_B)

        spreads = drawn(self.total_B, parent.total_B), drawn(self.within_B, parent.within_B)
        return Moments(self.count_B, self.mean_B, *spreads)


@dataclass(frozen=True, eq=False)
class Advantages:
    """``value_B`` and how each was computed.

    ``weight_B``  the group's weight in it: ``group_weights``.
    ``group_LB``  the number of each one's group at each level, everyone first.
    ``alarmed``   of ``adaptive``: the finest level's groups whose histories were cut.
    """

    value_B: Floats
    weight_B: Floats
    group_LB: list[NDArray[np.int64]]
    fell_back_B: NDArray[np.bool_]
    alarmed: NDArray[np.int64]


class Normalizer:
    """Histories of preference groups, and the advantages of each batch against them.

    ``names``  of the levels of grouping, coarse to fine, as in ``("group", "user")``; above them is everyone. Equal
    batches in equal order give equal advantages and states, bit for bit, in any process.
    """

    def __init__(self, how: Normalization = PAPER, names: Sequence[str] = ("group",)) -> None:
        self.how, self.names = how, tuple(names)
        self.levels = [Level(RewardHistory(how.half_life), RewardHistory(how.half_life)) for _ in ("", *names)]
        self.alarm = DriftAlarm()
        self.weights = GroupWeights(how.group_weight)

    def __call__(
        self, reward_B: Floats, prompt_B: Ints, key_LB: Sequence[Sequence[Key]], learn: bool = True
    ) -> Advantages:
        """Advantages of a batch, which is added to the histories; without ``learn`` the histories stay as they were.

        ``prompt_B``  which prompt each completion answers, any numbers.
        ``key_LB``    for each level, the group of each completion: text or whole numbers.
        Raises SettingsError when completions of one prompt belong to different groups.
        """
        if not learn:
            return self.copy()(reward_B, prompt_B, key_LB)
        prompts = Prompts.of(np.asarray(reward_B, np.float64), prompt_B)
        return self.numbered(prompts, self._groups(prompts.of_B, key_LB))

    def numbered(self, prompts: Prompts, group_LP: Sequence[NDArray[np.int64]]) -> Advantages:
        """Advantages of a batch that enters the histories, where groups are given by their numbers in ``levels``.

        ``group_LP``  for each level, everyone first, the number of each prompt's group.
        """
        group_LB = [group_P[prompts.of_B] for group_P in group_LP]
        before = self._moments(group_LB) if self.how.order == "before" else None
        alarmed = self._forget(prompts, group_LP[-1]) if self.how.adaptive else np.zeros(0, np.int64)
        for level, group_B in zip(self.levels, group_LB, strict=True):
            level.update(prompts, group_B)
        value_B, cold_B = self._against(prompts, before or self._moments(group_LB))
        weight_B = self.weights(group_LB[:2][-1], prompts.counts_B)
        value_B = value_B * weight_B
        if self.how.clip is not None:
            value_B = value_B.clip(-self.how.clip, self.how.clip)
        return Advantages(value_B, weight_B, group_LB, cold_B, alarmed)

    def copy(self) -> Normalizer:
        """A copy with its own histories."""
        other = Normalizer(self.how, self.names)
        other.levels, other.alarm = [level.copy() for level in self.levels], self.alarm.copy()
        other.weights = self.weights.copy()
        return other

    def _groups(self, of_B: Ints, key_LB: Sequence[Sequence[Key]]) -> list[NDArray[np.int64]]:
        """For each level, everyone first, the number of each prompt's group. Raises SettingsError."""
        prompts = list(dict.fromkeys(zip(of_B.tolist(), *key_LB, strict=True)))  # in the order in which they first came
        if len(prompts) > int(of_B.max(initial=-1)) + 1:
            _refuse(of_B, key_LB)
        place, *key_LP = zip(*prompts, strict=True) if prompts else [()] * len(self.levels)
        found = []
        for depth, level in enumerate(self.levels):
            group_P = np.zeros(len(prompts), np.int64)
            paths = list(zip(*key_LP[:depth], strict=True)) if depth else [()] * len(prompts)
            group_P[list(place)] = level.number(paths)
            found.append(group_P)
        return found

    def _forget(self, prompts: Prompts, group_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cut the histories of the finest groups with an alarm at this batch; return those groups."""
        alarmed, _ = self.alarm.watch(prompts.mean_P, group_P)
        for history in (self.levels[-1].rewards, self.levels[-1].residuals):
            history.forget(alarmed, self.how.min_count)
        return alarmed

    def _moments(self, group_LB: Sequence[Ints]) -> Moments:
        """The finest level's, shrunk towards their parents' or replaced by them, by the settings."""
        parent, *finer = (Moments.of(level, group_B) for level, group_B in zip(self.levels, group_LB, strict=True))
        for own in finer:
            own = own.towards(parent, self.how.shrinkage) if self.how.shrinkage else own
            parent = own.unless(own.count_B >= self.how.min_count, parent) if self.how.cold == "parent" else own
        return parent

    def _against(self, prompts: Prompts, used_to: Moments) -> tuple[Floats, NDArray[np.bool_]]:
        """Advantages before weights, and which of them fell back."""
        if self.how.baseline == "grpo":
            return np.where(prompts.counts_B, prompts.grpo(), 0.0), np.zeros(len(prompts.of_B), bool)
        cold_B = ~(used_to.count_B >= self.how.min_count)
        baseline_B, scale_B = self._baseline(prompts, used_to)
        with np.errstate(invalid="ignore", divide="ignore"):
            value_B = np.where(scale_B > 0, (prompts.reward_B - baseline_B) / (scale_B + self.how.epsilon), 0.0)
        return np.where(prompts.counts_B, np.where(cold_B, prompts.grpo(), value_B), 0.0), cold_B

    def _baseline(self, prompts: Prompts, used_to: Moments) -> tuple[Floats, Floats]:
        """What is subtracted from each reward, and what the rest is divided by."""
        mean_B, total_B, within_B = used_to.mean_B, used_to.total_B, used_to.within_B
        if self.how.baseline == "group":
            return mean_B, np.sqrt(total_B)
        prompt_B = prompts.mean_P[prompts.of_B]
        if self.how.baseline == "prompt":
            return prompt_B, np.sqrt(total_B)
        others_B = prompts.size_B - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            between_B = total_B - within_B
            pull_B = np.nan_to_num(between_B / (between_B + within_B / others_B))  # 0 / 0: all rewards are equal
            left_out_B = prompt_B - prompts.residual_B / others_B
            baseline_B = np.where(others_B > 0, mean_B + pull_B * (left_out_B - mean_B), mean_B)
        return baseline_B, np.sqrt(np.where(others_B > 0, within_B, total_B))


def normalizer_of(settings: dict[str, Any], where: str) -> Normalizer:
    """A normalizer without history, by an engine's settings: ``Normalization``'s, ``paper``, and the columns of groups.

    ``where``  the user's name for them. Raises SettingsError for unknown names and invalid values.
    """
    columns = (settings.pop("group_column", "group"), settings.pop("user_column", None))
    paper, known = settings.pop("paper", False), [setting.name for setting in fields(Normalization)]
    for name in settings:
        if name not in known:
            raise unknown_name(f"setting of {where}", name, [*known, "group_column", "user_column", "paper"])
    return Normalizer(PAPER if paper else Normalization(**settings), [column for column in columns if column])


def _refuse(prompt_B: Ints, key_LB: Sequence[Sequence[Key]]) -> None:
    """Name two completions of one prompt that belong to different groups."""
    first: dict[int, int] = {}
    for key_B in key_LB:
        for b, (prompt, key) in enumerate(zip(prompt_B.tolist(), key_B, strict=True)):
            if key != key_B[at := first.setdefault(prompt, b)]:
                raise SettingsError(
                    f"completions {at} and {b} answer one prompt and belong to different groups, {key_B[at]!r} and "
                    f"{key!r}; expected one group for all completions of a prompt."
                )


def check_keys(keys: list[list[Any]], columns: Sequence[str]) -> None:
    """Groups are text that is not blank, or whole numbers; never both in one column. Raises InputError."""
    for at, column in enumerate(columns):
        found = [row[at] for row in keys]
        kinds = set(map(type, found))
        if kinds <= {int} or (kinds == {str} and all(map(str.strip, set(found)))):
            continue  # the usual case, at once
        for key in found:
            if isinstance(key, bool) or not isinstance(key, (str, int)) or (isinstance(key, str) and not key.strip()):
                raise InputError(f"{column} of a row is {key!r}; expected text or a whole number, for every prompt.")
        if len(kinds) > 1:
            raise InputError(f"{column} mixes text and numbers, as in {keys[0][at]!r}; expected one kind.")
