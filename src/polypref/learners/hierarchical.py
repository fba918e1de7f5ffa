"""Our own: everybody's weights vary around the population's, by an amount estimated from the data.

Model: ``mixed`` (a mixed-effects Bradley-Terry model); ``spread`` is a full matrix, so the directions in which people
differ are learned from everyone. Response effects, shared and per user, keep repeated judgements of the same few texts
from counting as independent evidence. Means and variances come from expectation propagation, the amount of difference
between people from empirical Bayes (``expectation_propagation``, ``variances``). Validation rows may choose a larger
variance of views. If differences between people do not improve predictions, the method is ``pooled-effects``: it then
knows no users, and the scores say that the population answered. With much data per user it approaches ``individual``.

Strangers get the one reward that explains everybody's judgements best, not the mean of people's rewards: where tastes
are opposed, the mean agrees with fewer judgements. A new user starts from the mean, around which tastes vary.

The standard errors cover the uncertainty of a user given their answers, and of the population's weights given
everybody's. Not covered: uncertainty of the texts' shared effects and of the variances.

Suffixes here: ``_E`` entries: a user's effect on a response, ``_M`` distinct judgements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.arguments import NotNegative
from polypref.comparisons import Comparisons, FloatArray, concat
from polypref.content import Identities
from polypref.errors import NotEnoughData
from polypref.features.protocol import Encoder
from polypref.learners import linear, validation
from polypref.learners.bradley_terry import expectation_propagation as propagation
from polypref.learners.bradley_terry import mixed, newton, single
from polypref.learners.bradley_terry.expectation_propagation import Posterior
from polypref.learners.bradley_terry.panel import Panel
from polypref.learners.bradley_terry.variances import Estimate
from polypref.learners.canonical_order import Numbering
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.linear import LAYOUT, LinearScorer, Newcomer, ResponseEffects, no_users
from polypref.learners.protocol import Serves, log_odds
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.swapped import SWAPS
from polypref.schema import Layout, floats, identities

VIEWS = (1.0, 4.0)  # variances of views of texts to try besides the estimated one


@dataclass(frozen=True)
class Hierarchical:
    """Settings of the hierarchical Bradley-Terry model."""

    directions: int | None = None
    """Principal directions of the encoder's space to use; None: the number that ``inputs`` chooses."""
    swaps: NotNegative = SWAPS
    """How much the population is told that answers stay with their questions, as in ``pooled``."""
    shared_effects: bool = True
    """Learn a quality of each text, shared by everyone, that its features do not explain."""
    personal_effects: bool = True
    """Learn each user's view of each text beyond its features."""
    likeness: float = 0.9
    """Share of a user's view of a text that carries over to similar training texts of the same prompt."""
    tune_rows: int = 20_000
    """Estimate the variances on at most about this many training rows (complete users, at least two, at random)."""
    tune_users: int = 500
    """And on at most this many users, since each costs the cube of the number of inputs."""
    steps: int = 30
    """Steps of empirical Bayes."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> HierarchicalScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        train, whole = _counted(train), _counted(concat(train, valid))
        inputs = Inputs.fit(encoder, whole, self.directions)
        some, some_valid = self._some_users(train, valid, seed)
        found, config, selection = self._chosen(self._panel(some, inputs), some_valid, seed)
        panel = self._panel(whole, inputs)
        everyone = self._everyone(panel, seed)
        if found is None:
            return replace(everyone, selection=selection)
        found = propagation.solve(panel.task, found.prior)
        if len(some) == len(train):
            found = propagation.settled(panel.task, config, seed, found)
        return replace(
            self._scorer(panel, found, selection), strangers=Newcomer(everyone.population_K, everyone.effects)
        )

    def _panel(self, rows: Comparisons, inputs: Inputs) -> Panel:
        return Panel.build(rows, inputs, self.likeness, np.float32, self.swaps)

    def _chosen(
        self, panel: Panel, valid: Comparisons, seed: int
    ) -> tuple[Posterior | None, Estimate, dict[str, float | str]]:
        """The variances that predict the judgements of ``valid`` best; None if no differences between people are found.

        Empirical Bayes is preferred: another variance of views, with the others estimated again, must be better by two
        standard errors of the paired difference.
        """
        config = Estimate(shared=self.shared_effects, personal=self.personal_effects, steps=self.steps)
        found = propagation.settled(panel.task, config, seed)
        if not len(valid):
            return found, config, {}
        loss_N, margin_N = self._losses(panel, found, valid)
        again = replace(config, steps=self.steps // 2)
        if self.personal_effects:
            fixed, trial = replace(again, personal=False), found
            for personal in VIEWS:
                trial = replace(trial, prior=replace(trial.prior, personal=personal))
                trial = propagation.settled(panel.task, fixed, seed, trial)
                trial_N, trial_margin_N = self._losses(panel, trial, valid)
                if _gain(loss_N, trial_N, valid.weights_N, 2.0) > 0:
                    found, again, loss_N, margin_N = trial, fixed, trial_N, trial_margin_N
        alike = self._everyone(panel, seed)
        alike_N, alike_margin_N = _surprises(alike, valid)
        apart = _apart(panel, found.prior, valid)
        if _gain(loss_N, alike_N, valid.weights_N, 1.0) > 0 or not _differ(panel, found):
            none_differ: dict[str, float | str] = {"apart": 0.0, "personal": 0.0}
            return None, again, none_differ | validation.measure(alike_margin_N, valid)
        chosen: dict[str, float | str] = {"apart": apart, "personal": found.prior.personal}
        return found, again, chosen | validation.measure(margin_N, valid)

    def _losses(self, panel: Panel, found: Posterior, valid: Comparisons) -> tuple[FloatArray, FloatArray]:
        return _surprises(self._scorer(panel, found, {}), valid)

    def _everyone(self, panel: Panel, seed: int) -> HierarchicalScorer:
        """The one reward that explains everybody's judgements best, as found by ``pooled``; it knows no users."""
        effects, prior = panel.population(self.shared_effects, seed)
        linear = replace(panel.scorer(effects, prior, {}), users=no_users(), weights_UK=effects.t_UK[:0])
        none_UKK = np.zeros((0, *prior.spread_KK.shape), np.float32)
        return HierarchicalScorer(**vars(linear), prior=prior, covariance_UKK=none_UKK, likeness=self.likeness)

    def _scorer(self, panel: Panel, found: Posterior, selection: Mapping[str, float | str]) -> HierarchicalScorer:
        views = newton.views(found.reduced, found.prior)
        return HierarchicalScorer(
            **vars(panel.scorer(found.effects, found.prior, selection, views)),
            prior=replace(found.prior, spread_KK=found.newcomer_KK),
            covariance_UKK=found.covariance_UKK.astype(np.float32),
            likeness=self.likeness,
        )

    def _some_users(self, train: Comparisons, valid: Comparisons, seed: int) -> tuple[Comparisons, Comparisons]:
        users = Numbering.of(train).users_U
        if len(train) <= self.tune_rows and len(users) <= self.tune_users:
            return train, valid
        order_U = users[np.random.default_rng(seed).permutation(len(users))]
        count_U = np.bincount(train.user_N, minlength=len(train.users))[order_U]
        most = max(2, min(self.tune_users, int(np.searchsorted(count_U.cumsum(), self.tune_rows))))
        kept_U = np.zeros(len(train.users), bool)
        kept_U[order_U[:most]] = True
        return train.take(kept_U[train.user_N]), valid.take(kept_U[valid.user_N])


def _counted(rows: Comparisons) -> Comparisons:
    """Equal judgements of one user as one judgement with the sum of their weights.

    Expectation propagation finds nearly, but not exactly, the same posterior for both forms.
    """
    key_N4 = np.stack([rows.user_N, rows.chosen_N, rows.rejected_N, 2 * rows.label_N], axis=1).astype(np.int64)
    _, first, at_N = np.unique(key_N4, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows
    first_M = np.sort(first)
    weight_M = np.bincount(at_N.ravel(), rows.weights_N)[np.argsort(first)]
    return replace(rows.take(first_M), weight_N=weight_M)


def _surprises(scorer: HierarchicalScorer, rows: Comparisons) -> tuple[FloatArray, FloatArray]:
    """The log loss of each of the rows, (N,), and the log odds of their choices."""
    log_odds_N = log_odds(scorer, rows).value_Q
    return surprise(log_odds_N, rows.label_N), log_odds_N


def _gain(loss_N: FloatArray, other_N: FloatArray, weight_N: FloatArray, errors: float) -> float:
    """How much smaller the other loss is, minus ``errors`` standard errors of the difference."""
    saved_N, share_N = loss_N - other_N, weight_N / weight_N.sum()
    mean = float(saved_N @ share_N)
    return mean - errors * float(np.sqrt((saved_N - mean) ** 2 @ share_N / weight_N.sum()))


def _differ(panel: Panel, found: Posterior) -> bool:
    """Whether allowing people to differ lowers the loss by more than a standard error over people."""
    alike = propagation.solve(panel.task, found.prior.scaled(spread=1e-6, personal=0.0))
    weight_N = panel.task.weight_N
    saved_N = propagation.left_out(panel.task, alike) - propagation.left_out(panel.task, found)
    weight_U = np.bincount(panel.user_N, weight_N)
    saved_U = np.bincount(panel.user_N, weight_N * saved_N)
    mean = saved_U.sum() / weight_U.sum()
    return float(mean) > float(np.sqrt(((saved_U - mean * weight_U) ** 2).sum()) / weight_U.sum())


def _apart(panel: Panel, prior: mixed.Variances, rows: Comparisons) -> float:
    """The typical distance of people's reward differences from the population's, in log odds."""
    x_RK, _, place_2N = panel.inputs.used(rows.responses, np.concatenate([rows.chosen_N, rows.rejected_N]))
    one_NK, other_NK = np.split(x_RK[place_2N], 2)
    difference_NK = one_NK - other_NK
    variance_N = ((difference_NK @ prior.spread_KK) * difference_NK).sum(axis=1)
    variance_N += (
        2 * prior.personal * (1 - mixed.Likeness(panel.share or 0.0, panel.inputs.kinds[0]).between(one_NK, other_NK))
    )
    return float(np.sqrt(variance_N.mean()))


class Fields(linear.Fields):
    """Settings of a saved scorer."""

    shared: float
    personal: float
    likeness: float


@dataclass(frozen=True, eq=False, repr=False)
class HierarchicalScorer(LinearScorer):
    """A linear scorer with a posterior: ``covariance_UKK`` of each user's weights; ``prior`` of all effects.

    ``strangers`` is the reward for anybody else; None: the population's mean.
    """

    prior: mixed.Variances
    covariance_UKK: NDArray[np.float32]
    likeness: float
    strangers: Newcomer | None = None

    kind: ClassVar[str] = "hierarchical"
    layout: ClassVar[Layout] = LAYOUT.with_more(
        Fields,
        {
            "prior.population_K": floats("K"),
            "prior.spread_KK": floats("K", "K"),
            "strangers.weights_K": floats("K"),
            "strangers.key_R": identities("S"),
            "strangers.shared_R": floats("S"),
            "covariance_UKK": floats("U", "K", "K", dtype="float32"),
        },
        may_lack=("strangers.",),
    )
    serves: ClassVar[Serves] = "any_user"

    def for_strangers(self, x_RK: FloatArray, shared_R: FloatArray, keys_R: Identities) -> FloatArray:
        """See ``LinearScorer``."""
        if self.strangers is None:
            return super().for_strangers(x_RK, shared_R, keys_R)
        return x_RK @ self.strangers.weights_K + self.strangers.effects.shared(keys_R)

    def margin_sd(self, comparisons: Comparisons) -> NDArray[np.float64]:
        """Standard error (N,) of reward(chosen) - reward(rejected) for the judging user; the prior's for strangers.

        NaN if no differences between people were found, since their distance from the population is then unknown. The
        variance is that of the user's weights plus that of the difference between their views of the two texts: the
        posterior's for texts that they judged, the prior's for others, with the prior's correlation between them.
        """
        if not self.prior.differ:
            return np.full(len(comparisons), np.nan)
        both = np.concatenate([comparisons.chosen_N, comparisons.rejected_N])
        x_RK, pool, place_2N = self.inputs.used(comparisons.responses, both)
        n = len(comparisons)
        difference_NK = x_RK[place_2N[:n]] - x_RK[place_2N[n:]]
        ids_N = comparisons.users.ids.gather(comparisons.user_N)
        variance_N = np.einsum("nk,kl,nl->n", difference_NK, self.prior.spread_KK, difference_NK, optimize=True)
        own_2N = np.full(2 * n, self.prior.personal)
        covariances = [self.covariance_UKK] if not self.newcomers else [self._new_covariance_UKK, self.covariance_UKK]
        for (user_N, _, effects), covariance_UKK in zip(self.tables(ids_N), covariances, strict=True):
            known_N = np.flatnonzero(user_N >= 0)
            for rows in np.array_split(known_N, max(1, len(known_N) * difference_NK.shape[1] ** 2 // (1 << 24))):
                covariance_NKK = covariance_UKK[user_N[rows]]
                variance_N[rows] = np.einsum("nk,nkl,nl->n", difference_NK[rows], covariance_NKK, difference_NK[rows])
            entry_2N = effects.entry(np.concatenate([user_N, user_N]), effects.find(pool.identity_R)[place_2N])
            own_2N = np.where(entry_2N >= 0, np.append(effects.variance_E, 0.0)[entry_2N], own_2N)
        alike = mixed.Likeness(self.likeness, self.inputs.kinds[0])
        alike_N = alike.between(x_RK[place_2N[:n]], x_RK[place_2N[n:]])
        variance_N += own_2N[:n] + own_2N[n:] - 2 * alike_N * np.sqrt(own_2N[:n] * own_2N[n:])
        return np.sqrt(np.maximum(variance_N, 0.0))

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> HierarchicalScorer:
        """See ``learners.protocol.Adapts``: what is known of a user already is the prior of ``few``."""
        user_id = content.one_id(user_id)
        if not len(few):
            raise NotEnoughData(f"no comparisons to learn user {user_id!r} from; give at least one.")
        before = self.known_of(user_id)
        prior = self.prior
        if before.covariance_KK is not None:
            prior = replace(prior, spread_KK=before.covariance_KK.astype(np.float64))
        x_RK, pool, place_2N = self.inputs.used(few.responses, np.concatenate([few.chosen_N, few.rejected_N]))
        judges = (place_2N[: len(few)], place_2N[len(few) :])
        judged = single.Judged(x_RK, pool.prompt_R, *judges, few.label_N, few.weights_N)
        if not judged.suits:
            return self.with_newcomer(user_id, self._from_many(few, before, prior))
        view_R, variance_R = before.effects.own(pool.identity_R)
        mean_R = x_RK @ before.weights_K + self.effects.shared(pool.identity_R) + view_R
        left_R = np.where(np.isnan(variance_R), 1.0, variance_R / max(prior.personal, 1e-12))
        likeness = mixed.Likeness(self.likeness, self.inputs.kinds[0])
        found = single.solve(judged, mean_R, prior, likeness, left_R)
        effects = before.effects
        if prior.personal > 0:
            effects = effects.updated(pool.identity_R, view_R + found.view_R, found.view_variance_R)
        weights_K = before.weights_K + found.deviation_K
        return self.with_newcomer(user_id, Newcomer(weights_K, effects, found.covariance_KK.astype(np.float32)))

    def known_of(self, user_id: str) -> Newcomer:
        """What is known of a user; of a stranger, the population."""
        if user_id in self.newcomers:
            return self.newcomers[user_id]
        if (user := int(self.users.index([user_id])[0])) >= 0:
            return Newcomer(self.weights_UK[user], self.effects.of_user(user), self.covariance_UKK[user])
        return Newcomer(self.population_K)

    def _from_many(self, rows: Comparisons, before: Newcomer, prior: mixed.Variances) -> Newcomer:
        """The general solver's result, whose cost is linear in comparisons."""
        rows = replace(rows, user_N=np.zeros(len(rows), np.int32))
        panel = Panel.build(rows, self.inputs, self.likeness, swaps=0.0)
        keys_R = rows.responses.identity_R[panel.responses_R]
        view_R, _ = before.effects.own(keys_R)
        mean_R = panel.task.x_RK @ before.weights_K + self.effects.shared(keys_R) + view_R
        found = propagation.solve(panel.task, prior, population_R=mean_R, tolerance=1e-7)
        effects = replace(found.effects, w_K=before.weights_K)
        alone = panel.scorer(effects, prior, {}, newton.views(found.reduced, prior))
        own_R, variance_R = alone.effects.own(keys_R)
        known_R = np.isfinite(variance_R)
        views = before.effects.updated(keys_R[known_R], (view_R + own_R)[known_R], variance_R[known_R])
        return Newcomer(alone.weights_UK[0], views, found.covariance_UKK[0].astype(np.float32))

    def outlook(self, user_id: str, candidates: Comparisons) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """The distribution of ``candidates`` for one user: x (C, K), mean (C,), S (K, K) and v (C,).

        The reward of the first text minus that of the other is mean + x . d + views, where d ~ N(0, S) is the
        deviation of the user's weights from their mean, and v the variance of the views' difference. A stranger's
        are the prior's.
        """
        n = len(candidates)
        x_RK, pool, place_2N = self.inputs.used(
            candidates.responses, np.concatenate([candidates.chosen_N, candidates.rejected_N])
        )
        shared_R = self.effects.shared(pool.identity_R)
        one_N, other_N = place_2N[:n], place_2N[n:]
        known = self.known_of(user_id)
        covariance_KK = self.prior.spread_KK if known.covariance_KK is None else known.covariance_KK
        alike_N = mixed.Likeness(self.likeness, self.inputs.kinds[0]).between(x_RK[one_N], x_RK[other_N])
        x_NK = x_RK[one_N] - x_RK[other_N]
        mean_N = x_NK @ known.weights_K + shared_R[one_N] - shared_R[other_N]
        return x_NK, mean_N, covariance_KK.astype(np.float64), 2 * self.prior.personal * (1 - alike_N)

    @passed_on
    def forget(self, user_id: str) -> Self:
        """See ``learners.protocol.Forgets``."""
        return replace(super().forget(user_id), covariance_UKK=self.covariance_UKK[self.but(user_id)])

    def settled(self) -> Self:
        """See ``LinearScorer``."""
        if not self.newcomers:
            return self
        kept_U = np.flatnonzero(~self.users.ids.is_in(list(self.newcomers)).to_numpy())
        return replace(
            super().settled(), covariance_UKK=np.concatenate([self.covariance_UKK[kept_U], self._new_covariance_UKK])
        )

    @cached_property
    def _new_covariance_UKK(self) -> NDArray[np.float32]:
        found = [one.covariance_KK for one in self.newcomers.values()]
        return np.array(found, np.float32).reshape(len(found), *self.prior.spread_KK.shape)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        flat = self.settled()
        config, arrays = super(HierarchicalScorer, flat).state()
        config |= {"shared": self.prior.shared, "personal": self.prior.personal, "likeness": self.likeness}
        arrays |= {"prior.population_K": self.prior.population_K, "prior.spread_KK": self.prior.spread_KK}
        if self.strangers is not None:
            effects = self.strangers.effects
            population: dict[str, NDArray] = {"weights_K": self.strangers.weights_K, "shared_R": effects.shared_R}
            population["key_R"] = content.packed(effects.key_R)
            arrays |= {f"strangers.{name}": value for name, value in population.items()}
        return config, arrays | {"covariance_UKK": flat.covariance_UKK}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        linear = LinearScorer.from_state(config, arrays, encoder)
        prior = mixed.Variances(
            arrays["prior.population_K"], arrays["prior.spread_KK"], config["shared"], config["personal"]
        )
        strangers = None
        if "strangers.weights_K" in arrays:
            effects = ResponseEffects(content.unpacked(arrays["strangers.key_R"]), arrays["strangers.shared_R"])
            strangers = Newcomer(arrays["strangers.weights_K"], effects)
        covariance_UKK, likeness = arrays["covariance_UKK"], config["likeness"]
        return cls(**vars(linear), prior=prior, covariance_UKK=covariance_UKK, likeness=likeness, strangers=strangers)
