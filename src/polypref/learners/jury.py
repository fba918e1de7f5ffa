"""One reward for everyone, from a stated composition of people instead of whoever judged most.

Paper: Gordon et al. 2022, "Jury Learning", arXiv 2202.02950. ``rule="maxmin"``: Chakraborty et al. 2024, "MaxMin-RLHF",
arXiv 2402.08925, with the exponentiated steps of Sagawa et al. 2020, arXiv 1911.08731. A jury counts each of its people
alike, and each group by its share:

    weight of a judgement = share of the user's group / people of the group / the user's judgements

scaled to the same sum; the reward is ``pooled``'s with these weights, after its design effects. Without an attribute
all people are one group; ``shares`` names the groups on the jury and their shares, by default all values alike. Users
without one of these values are not on the jury. "maxmin" finds the shares instead, about: those of groups with a large
mean log loss grow, and the mean of all steps is taken.

What we changed: the jury weighs the judgements of one linear reward on frozen features, where the paper predicts each
juror and takes the median. Not covered: noisy groups; "maxmin" follows those that no reward serves well, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Users, concat
from polypref.errors import NotEnoughData, SettingsError, unknown_name
from polypref.features.protocol import Encoder
from polypref.learners import validation
from polypref.learners.bradley_terry.panel import Panel, scorer_margins
from polypref.learners.likelihood import surprise
from polypref.learners.linear import PopulationScorer
from polypref.learners.pooled import Pooled
from polypref.learners.provenance import recorded

STEPS, RATE = 20, 2.0  # of the exponentiated steps
FORM = "expected VALUE:SHARE for each group, joined by /, as in north:.5/south:.5"


@dataclass(frozen=True)
class Jury:
    """Settings of the jury."""

    attribute: str = ""
    """The users' attribute that names their group; "": all people are one group."""
    shares: str = ""
    """Shares of groups, as north:.5/south:.5; "": each value of the attribute alike."""
    rule: Literal["shares", "maxmin"] = "shares"
    """maxmin: find the shares that serve the worst group best."""
    response_effects: bool = False
    """As in pooled."""
    directions: int | None = None
    """As in pooled."""

    def __post_init__(self) -> None:
        if self.rule not in ("shares", "maxmin"):
            raise unknown_name("rule of jury", self.rule, ("shares", "maxmin"))
        if (self.shares or self.rule == "maxmin") and not self.attribute:
            raise SettingsError("a jury of groups needs an attribute of the users: jury:ATTRIBUTE.")
        if self.shares and self.rule == "maxmin":
            raise SettingsError("rule=maxmin finds the shares; leave out shares.")
        self._stated()

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> PopulationScorer:
        """See ``learners.protocol.Learner``. Nothing is chosen on ``valid``; it is measured, then joins the fit.

        Raises SettingsError if users have no such attribute or value, NotEnoughData if the jury judged nothing.
        """
        train, valid = validation.cut(train, valid, seed)
        first, _ = self._fit(train, encoder, seed)
        found = validation.measure(scorer_margins(first, valid), valid)
        if not len(valid):
            return replace(first, selection=found)
        last, shares = self._fit(concat(train, valid), encoder, seed)
        return replace(last, selection=found | shares)

    def _fit(self, rows: Comparisons, encoder: Encoder, seed: int) -> tuple[PopulationScorer, dict[str, float]]:
        names, group_U = self._groups(rows.users)
        jury = rows.take(np.flatnonzero(group_U[rows.user_N] >= 0))
        judged_G = np.bincount(group_U[jury.user_N], minlength=len(names)) > 0
        share_G = self._shares(names) if self.rule == "shares" else judged_G / max(judged_G.sum(), 1)
        weighed(jury, group_U, share_G)  # refuses what nobody judged before anything is encoded
        pooled = Pooled(response_effects=self.response_effects, directions=self.directions)
        panel = pooled.panel_of(jury, encoder, seed)

        def of(share_G: NDArray[np.float64]) -> PopulationScorer:
            return pooled.scorer_of(Panel.build(weighed(panel.train, group_U, share_G), panel.inputs), seed)

        if self.rule == "shares":
            return of(share_G), {}
        mean_G = np.zeros(len(names))
        for _ in range(STEPS):
            mean_G += share_G / STEPS
            loss_G = group_losses(scorer_margins(of(share_G), rows), rows, group_U, len(names))
            share_G = share_G * np.exp(RATE * loss_G)
            share_G /= share_G.sum()
        return of(mean_G), {f"share of {name}": float(share) for name, share in zip(names, mean_G, strict=True)}

    def _groups(self, users: Users) -> tuple[list[str], IntArray]:
        """Names of the groups and the group of each user, -1: not on the jury."""
        if not self.attribute:
            return ["all"], np.zeros(len(users), np.int32)
        value_U = users.values_of(self.attribute)
        names = value_U.drop_nulls().unique().sort().to_list()
        for name in self._stated():
            if name not in names:
                raise unknown_name(f"value of {self.attribute}", name, names)
        names = list(self._stated()) or names
        number = {name: at for at, name in enumerate(names)}
        return names, np.array([number.get(value, -1) for value in value_U.to_list()], np.int32)

    def _stated(self) -> dict[str, float]:
        """The shares that the settings state, by value, with sum 1."""
        found: dict[str, float] = {}
        for part in filter(None, self.shares.split("/")):
            name, _, share = part.rpartition(":")
            try:
                found[name] = float(share)
            except ValueError:
                raise SettingsError(f"shares={self.shares}: {part!r} has no share; {FORM}.") from None
            if not name or not math.isfinite(found[name]) or found[name] <= 0:
                raise SettingsError(f"shares={self.shares}: {part!r} is not a share above 0 of a group; {FORM}.")
        if found and len(found) < len(self.shares.split("/")):
            raise SettingsError(f"shares={self.shares} names a group twice or none; {FORM}.")
        total = sum(found.values())
        return {name: share / total for name, share in found.items()}

    def _shares(self, names: list[str]) -> NDArray[np.float64]:
        stated = self._stated()
        return np.array([stated.get(name, 0.0) if stated else 1 / len(names) for name in names])


def weighed(rows: Comparisons, group_U: IntArray, share_G: NDArray[np.float64]) -> Comparisons:
    """The judgements of a jury, weighed so that people of a group count alike, and groups by their share.

    The sum of the weights stays. Raises NotEnoughData if a group with a share has no judgements.
    """
    judged_U = np.bincount(rows.user_N, rows.weights_N, len(group_U))
    people_G = np.bincount(group_U[judged_U > 0], minlength=len(share_G))
    if not len(rows) or (people_G[share_G > 0] == 0).any():
        raise NotEnoughData("a group of the jury has no judgements to learn from; give it more, or leave it out.")
    each_G = share_G / np.maximum(people_G, 1)
    weight_N = rows.weights_N * each_G[group_U[rows.user_N]] / judged_U[rows.user_N]
    return replace(rows, weight_N=weight_N * rows.weights_N.sum() / weight_N.sum())


def group_losses(
    margin_N: NDArray[np.floating], rows: Comparisons, group_U: IntArray, groups: int
) -> NDArray[np.float64]:
    """Log loss of each group (G,), its people counted alike; 0 for a group without judgements."""
    weight_N, loss_N = rows.weights_N, surprise(margin_N, rows.label_N)
    judged_U = np.bincount(rows.user_N, weight_N, len(group_U))
    loss_U = np.bincount(rows.user_N, weight_N * loss_N, len(group_U)) / np.where(judged_U > 0, judged_U, 1)
    counted = (group_U >= 0) & (judged_U > 0)
    people_G = np.bincount(group_U[counted], minlength=groups)
    return np.bincount(group_U[counted], loss_U[counted], groups) / np.maximum(people_G, 1)
