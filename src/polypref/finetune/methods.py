"""The evaluation paper's user models on a tuned language model: pooled, individual, conditional, personalized.

Papers: Dong et al. 2025, "When Personalization Meets Reality", section 4.1; Li et al. 2024, "Personalized Language
Modeling from Personalized Human Feedback" (P-RLHF). With l the loss of one judgement, -log sigmoid(r(chosen) -
r(rejected)), the methods that know users minimise

    alpha * mean l(under the judging user) + (1 - alpha) * mean l(under the generic user)

What we changed. Every judgement is read under its user and under the generic user, so both means are over the whole
batch however it is cut (the authors' alpha depends on the content of a micro-batch). The reward head is trained and
saved; it reads the last attended token, or the mean over the attended tokens in encoders, never the soft tokens. Users
are numbered by content: a person's id has no effect, and "User ID: 3" is not a name. The soft tokens come first,
without a separator. Validation rows choose the step and do not join a second fit.

Suffixes here: ``_I`` positions of the training order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np

from polypref.comparisons import Comparisons
from polypref.errors import SettingsError
from polypref.features.protocol import Encoder
from polypref.finetune.fitting import Study
from polypref.finetune.network import Asking, State
from polypref.finetune.recipe import Recipe
from polypref.finetune.scorer import PooledScorer, TunedScorer
from polypref.finetune.tuning import Tuned, tune
from polypref.learners import validation
from polypref.learners.protocol import margins
from polypref.learners.provenance import recorded

AnyScorer = TypeVar("AnyScorer", bound=TunedScorer)


@dataclass(frozen=True)
class Pooled:
    """One reward for everyone."""

    recipe: Recipe = field(default_factory=Recipe)

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> PooledScorer:
        """See ``learners.protocol.Learner``; ``encoder`` is not used."""
        study, asking = Study.of(self.recipe, train, valid, seed), Asking()
        return _scorer(PooledScorer, study, asking, [study.tune(asking, (0.0, 1.0))])


@dataclass(frozen=True)
class Conditional:
    """The user's number as text before the prompt, "User ID: 3"; strangers are "User ID: generic"."""

    recipe: Recipe = field(default_factory=Recipe)
    alpha: float = 0.5
    """Share of the loss under the judging user; the rest is under the generic id."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> TunedScorer:
        """See ``learners.protocol.Learner``; ``encoder`` is not used."""
        study = Study.of(self.recipe, train, valid, seed)
        return _fit(study, Asking("id", len(study.users)), _shares(self.alpha))


@dataclass(frozen=True)
class Personalized:
    """P-RLHF's soft tokens: learned vectors of the user before the prompt; strangers have the generic user's."""

    recipe: Recipe = field(default_factory=Recipe)
    users: Literal["individual", "cluster"] = "individual"
    """Each user's own vectors around the generic user's, or a mixture of a few clusters' vectors."""
    tokens: int = 10
    """Soft tokens of one user; the evaluation paper uses 1."""
    clusters: int = 5
    """Clusters, for users="cluster"."""
    alpha: float = 0.5
    """Share of the loss under the judging user; the rest is under the generic user."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> TunedScorer:
        """See ``learners.protocol.Learner``; ``encoder`` is not used."""
        if self.tokens < 1 or self.clusters < 1:
            raise SettingsError(f"tokens = {self.tokens}, clusters = {self.clusters}; expected 1 or more of both.")
        study = Study.of(self.recipe, train, valid, seed)
        if self.users == "individual":
            asking = Asking("tokens", len(study.users), self.tokens)
        else:
            asking = Asking("clusters", len(study.users), self.tokens, self.clusters)
        return _fit(study, asking, _shares(self.alpha))


@dataclass(frozen=True)
class Individual:
    """One adapter per user, each from that user's judgements alone; strangers get the pooled one.

    The cost is one fit per user and one for everybody.
    """

    recipe: Recipe = field(default_factory=Recipe)
    start: Literal["base", "pooled"] = "base"
    """Tune each user's adapter from the backbone, or continue from the pooled one."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> TunedScorer:
        """See ``learners.protocol.Learner``; ``encoder`` is not used."""
        study = Study.of(self.recipe, train, valid, seed)
        asking = Asking()
        reader, texts = study.texts(asking)

        def one(fitted: Comparisons, judged: Comparisons, start: State | None, user: int) -> Tuned:
            rows = study.batches(reader, texts, fitted, (0.0, 1.0))
            looks = study.batches(reader, texts, judged, (0.0, 1.0))
            whose = {"user": user} if user else {}  # everybody's fit is the pooled one, and may be finished already
            return tune(study.task(asking, replace(rows, row_I=study.order(fitted)), looks, start, None, **whose))

        everyone = one(study.train, study.valid, None, 0)
        start = everyone.state if self.start == "pooled" else None
        fits, own = [everyone], study.numbers.users_U
        for number, user in enumerate(own.tolist(), 1):
            fitted, judged = (rows.take(rows.user_N == user) for rows in (study.train, study.valid))
            # a user who is only in the validation rows has nothing to learn from
            fits.append(one(fitted, judged, start, number) if len(fitted) else everyone)
        return _scorer(TunedScorer, study, asking, fits)


def _shares(alpha: float) -> tuple[float, float]:
    if not 0.0 <= alpha <= 1.0:
        raise SettingsError(f"alpha = {alpha}; expected a share from 0 to 1.")
    return alpha, 1.0 - alpha


def _fit(study: Study, asking: Asking, shares: tuple[float, float]) -> TunedScorer:
    return _scorer(TunedScorer, study, asking, [study.tune(asking, shares)])


def _scorer(kind: type[AnyScorer], study: Study, asking: Asking, fits: list[Tuned]) -> AnyScorer:
    """The scorer of the tuned network, measured on the validation rows."""
    steps = float(np.mean([fit.steps for fit in fits[1:] or fits]))
    states = [fit.state for fit in fits]
    scorer = kind(study.recipe, study.plan, asking, study.users, states, {"steps": steps})
    if not len(study.valid):
        return scorer
    found = validation.measure(margins(scorer, study.valid).value_Q, study.valid)
    return replace(scorer, selection={"steps": steps, **found})
