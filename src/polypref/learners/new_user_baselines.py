"""The baselines that an adapting learner must beat: plain ways to serve a new person from a few comparisons.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.3 (new users). Each route is fitted on seen
users and adds a new one by ``adapt``, as a learner does:

individual                a reward from the new user's comparisons alone
further-fine-tuning       the pooled reward, moved towards the new user's comparisons
similar-user-agreement    the reward of the seen user with the most agreement, net of disagreement, on shared pairs
similar-user-accuracy     the reward of the seen user whose own reward predicts the new user's choices best

What we changed: linear rewards on frozen features. The paper leaves open how far further fine-tuning goes; here (and
for ``individual``) it goes to the posterior mode under N(start, variance), and the variance, one for each number of
comparisons, is the one that serves seen users best when they are treated as new, with that many of their training rows,
measured on their validation rows. If no one agrees on more than half of the shared pairs, the population answers; the
authors' code stops there. These are baselines for people who are new: ``adapt`` replaces what was learned of somebody
before, where learners add to it.

Suffixes here: ``_E`` matches of a judgement and an earlier one, ``_M`` judgements of the seen users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, FloatArray, IntArray, KeyArray, concat
from polypref.errors import NotEnoughData
from polypref.features.protocol import Encoder
from polypref.learners import linear, validation
from polypref.learners.bradley_terry import ridge
from polypref.learners.canonical_order import Numbering
from polypref.learners.individual import Individual
from polypref.learners.inputs import Inputs
from polypref.learners.likelihood import surprise
from polypref.learners.linear import LAYOUT, LinearScorer, Newcomer, ResponseEffects
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import Serves, margins
from polypref.learners.provenance import passed_on, recorded
from polypref.schema import Layout, floats, indices, keys

MOST_PLAYERS = 300


@dataclass(frozen=True)
class FewShot:
    """Settings of ``individual`` (start="nothing") and ``further-fine-tuning`` (start="pooled")."""

    start: Literal["nothing", "pooled"]
    directions: int | None = None
    counts: tuple[int, ...] = (3, 10, 30, 100, 300)
    """Numbers of comparisons for which a variance is chosen; other numbers use the nearest (by ratio)."""
    variances: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> FewShotScorer:
        """See ``learners.protocol.Learner``; variances are chosen around a pooled reward fitted on ``train`` only."""
        train, valid = validation.cut(train, valid, seed)
        pooled = Pooled(directions=self.directions)
        judged = pooled.fit(train, encoder=encoder, seed=seed, valid=valid.take(np.zeros(0, np.int64)))
        found = {count: self._chosen(judged, train, valid, count, seed) for count in self.counts}
        known = {count: variance for count, variance in found.items() if variance is not None}
        final = pooled.fit(train, encoder=encoder, seed=seed, valid=valid)
        variances = {f"variance_{count}": variance for count, variance in known.items()}
        return FewShotScorer(
            **vars(replace(final, selection=dict(final.selection) | variances)),
            from_pooled=self.start == "pooled",
            variance_of=known or {1: 1.0},
        )

    def _chosen(
        self, pooled: LinearScorer, train: Comparisons, valid: Comparisons, count: int, seed: int
    ) -> float | None:
        """The best variance for seen users treated as new with ``count`` comparisons; None: no user has that many."""
        count_U = np.bincount(train.user_N, minlength=len(train.users))
        can_U = (count_U >= count) & (np.bincount(valid.user_N, minlength=len(train.users)) > 0)
        rng = np.random.default_rng([seed, 4])
        users = Numbering.of(train).users_U
        players = rng.permutation(users[can_U[users]])[:MOST_PLAYERS]
        if not len(players):
            return None
        order_N = rng.permutation(len(train))
        order_N = order_N[np.argsort(train.user_N[order_N], kind="stable")]
        place_N = np.arange(len(train)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
        played = train.take(np.sort(order_N[(place_N < count) & np.isin(train.user_N[order_N], players)]))
        judged = valid.take(np.isin(valid.user_N, players))
        center_K = pooled.population_K if self.start == "pooled" else np.zeros_like(pooled.population_K)
        groups = _batches(pooled.inputs, played, played.user_N)
        weights_UK, loss = np.zeros((len(train.users), len(center_K))), {}
        for variance in self.variances:
            for batch in groups:
                weights_UK[batch.user_B] = ridge.solve(batch, variance, tolerance=1e-3, center_K=center_K)
            scorer = LinearScorer(pooled.inputs, pooled.population_K, train.users, weights_UK, ResponseEffects(), {})
            loss[variance] = validation.log_loss(margins(scorer, judged).value_Q, judged)
        return validation.best(loss)


def _batches(inputs: Inputs, rows: Comparisons, user_N: IntArray) -> list[ridge.Batch]:
    return ridge.batches(_differences(inputs, rows), user_N, rows.label_N, rows.weights_N)


def _differences(inputs: Inputs, rows: Comparisons) -> NDArray[np.float64]:
    """Inputs of the chosen minus those of the rejected, (N, K)."""
    x_RK, _, place_2N = inputs.used(rows.responses, np.concatenate([rows.chosen_N, rows.rejected_N]))
    return x_RK[place_2N[: len(rows)]] - x_RK[place_2N[len(rows) :]]


def _some(few: Comparisons, user_id: str) -> Comparisons:
    if not len(few):
        raise NotEnoughData(f"no comparisons to learn user {user_id!r} from; give at least one.")
    return few


class FewShotFields(linear.Fields):
    """Settings of a saved scorer; ``variance_of`` by numbers of comparisons."""

    from_pooled: bool
    variance_of: dict[str, float]


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    counts = list(config["variance_of"])
    if not counts or not all(count.isascii() and count.isdecimal() and 0 < len(count) < 10 for count in counts):
        return f"variance_of is for {counts[:5]} comparisons; expected whole numbers"
    return None if min(config["variance_of"].values()) > 0 else "a variance is not above 0"


@dataclass(frozen=True, eq=False, repr=False)
class FewShotScorer(LinearScorer):
    """The pooled reward, and how far a new user's reward may move from its start."""

    from_pooled: bool
    variance_of: Mapping[int, float]

    kind: ClassVar[str] = "few-shot"
    layout: ClassVar[Layout] = LAYOUT.with_more(FewShotFields, {}, rule=_wrong)
    serves: ClassVar[Serves] = "any_user"

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> Self:
        """See ``learners.protocol.Adapts``."""
        user_id = content.one_id(user_id)
        few = _some(few, user_id)
        nearest = min(self.variance_of, key=lambda count: abs(np.log(count / len(few))))
        (batch,) = _batches(self.inputs, few, np.zeros(len(few), np.int32))
        center_K = self.population_K if self.from_pooled else np.zeros_like(self.population_K)
        weights_1K = ridge.solve(batch, self.variance_of[nearest], center_K=center_K)
        return self.with_newcomer(user_id, Newcomer(weights_1K[0]))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        variances = {str(count): variance for count, variance in self.variance_of.items()}
        return config | {"from_pooled": self.from_pooled, "variance_of": variances}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        linear = LinearScorer.from_state(config, arrays, encoder)
        variance_of = {int(count): variance for count, variance in config["variance_of"].items()}
        return cls(**vars(linear), from_pooled=config["from_pooled"], variance_of=variance_of)


@dataclass(frozen=True)
class SimilarUser:
    """Settings of ``similar-user-agreement`` and ``similar-user-accuracy``."""

    by: Literal["agreement", "accuracy"]
    directions: int | None = None

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> SimilarUserScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        individual = Individual(directions=self.directions).fit(train, encoder=encoder, seed=seed, valid=valid)
        whole = concat(train, valid)
        order_N = np.argsort(whole.pair_key_N, kind="stable")
        user_N = individual.users.index(whole.users.ids)[whole.user_N]
        judged = (whole.pair_key_N[order_N], _votes(whole)[order_N], user_N[order_N])
        return SimilarUserScorer(**vars(individual), by_agreement=self.by == "agreement", judged=judged)


def _votes(rows: Comparisons) -> NDArray[np.float64]:
    """The winner of each pair, (N,): weight if it has the lower key, -weight otherwise, 0 for a tie."""
    keys_R = rows.responses.keys_R
    sign_N = np.where(keys_R[rows.chosen_N] <= keys_R[rows.rejected_N], 1.0, -1.0)
    return sign_N * (2 * rows.label_N - 1) * rows.weights_N


class SimilarUserFields(linear.Fields):
    """Settings of a saved scorer."""

    by_agreement: bool


@dataclass(frozen=True, eq=False, repr=False)
class SimilarUserScorer(LinearScorer):
    """Everybody's individual reward, and ``judged``: keys (ascending) of judged pairs, votes, numbers of users."""

    by_agreement: bool
    judged: tuple[KeyArray, FloatArray, IntArray]

    kind: ClassVar[str] = "similar-user"
    layout: ClassVar[Layout] = LAYOUT.with_more(
        SimilarUserFields,
        {
            "judged.key_M": keys("M", "weakly"),
            "judged.vote_M": floats("M"),
            "judged.user_M": indices("M", "U"),
        },
    )
    serves: ClassVar[Serves] = "any_user"
    forget: ClassVar[None] = None  # type: ignore[assignment]  # newcomers get another person's vector

    @passed_on
    def adapt(self, user_id: str, few: Comparisons) -> Self:
        """See ``learners.protocol.Adapts``."""
        user_id = content.one_id(user_id)
        few = _some(few, user_id)
        nearest = self._agrees_most(few) if self.by_agreement else self._predicts_best(few)
        weights_K = self.population_K if nearest is None else self.weights_UK[nearest]
        return self.with_newcomer(user_id, Newcomer(weights_K))

    def _agrees_most(self, few: Comparisons) -> int | None:
        """The seen user with the most agreement minus disagreement; None if it is above 0 for nobody."""
        key_M, vote_M, user_M = self.judged
        low_N, high_N = (np.searchsorted(key_M, few.pair_key_N, side) for side in ("left", "right"))
        count_N = high_N - low_N
        at_E = np.repeat(low_N - np.cumsum(count_N) + count_N, count_N) + np.arange(count_N.sum())
        agreement_E = np.repeat(_votes(few), count_N) * vote_M[at_E]
        net_U = np.bincount(user_M[at_E], agreement_E, len(self.users))
        return int(net_U.argmax()) if net_U.max(initial=0.0) > 0 else None

    def _predicts_best(self, few: Comparisons) -> int:
        """The seen user whose reward is right most often; of several, the one with the highest likelihood."""
        margin_NU = _differences(self.inputs, few) @ self.weights_UK.T
        right_N = few.weights_N * (2 * few.label_N - 1)
        right_U = right_N @ np.sign(margin_NU)
        label_N1 = few.label_N[:, None]
        loss_U = few.weights_N @ (surprise(margin_NU, label_N1))
        return int(np.lexsort((loss_U, -right_U))[0])

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        names = ("judged.key_M", "judged.vote_M", "judged.user_M")
        return config | {"by_agreement": self.by_agreement}, arrays | dict(zip(names, self.judged, strict=True))

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``."""
        linear = LinearScorer.from_state(config, arrays, encoder)
        judged = (arrays["judged.key_M"], arrays["judged.vote_M"], arrays["judged.user_M"])
        return cls(**vars(linear), by_agreement=config["by_agreement"], judged=judged)


ROUTES: dict[str, FewShot | SimilarUser] = {
    "similar-user-agreement": SimilarUser("agreement"),
    "similar-user-accuracy": SimilarUser("accuracy"),
    "individual": FewShot("nothing"),
    "further-fine-tuning": FewShot("pooled"),
}
