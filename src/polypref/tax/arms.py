"""The arms of the tax: the scorers compared, fitted on the same rows, and the users they are evaluated for.

Covered: the personalized, pooled and shuffled arm see the same judgements through the same encoder; none sees the
held-out rows. Not covered: equal numbers of parameters, which are impossible with personalization; the shuffled arm has
the same.

Suffixes here: ``_A`` arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import finetune
from polypref.arguments import AtLeastOne, ProperShare, Resamples, Seed, check_settings
from polypref.comparisons import Comparisons
from polypref.data import thumbs
from polypref.data.benchmarks import Suite
from polypref.data.split import choose_rule, split
from polypref.data.zero_weight import counted
from polypref.errors import Diverged, NotEnoughData, SettingsError
from polypref.evaluation.placebo import shuffle_users
from polypref.features.protocol import Encoder
from polypref.learners.pretrained import Pretrained, PretrainedScorer
from polypref.learners.protocol import POPULATION, Learner, Scorer
from polypref.scorers import learner as learner_by_name
from polypref.scorers import load, metadata

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BLOCK = 500_000  # questions per call of a scorer
GENERIC, NOBODY = "generic", "no user"


@dataclass(frozen=True)
class Task:
    """Settings of the measurement."""

    users: AtLeastOne = 20
    """Maximum number of users, those with most judgements."""
    min_judgements: AtLeastOne = 10
    """Minimum judgements of a user."""
    margin: ProperShare = 0.02
    """The verdict is "no tax" below this margin, as a share; .02 is two points."""
    draws: Resamples = 2000
    """Resamples of the benchmark's items."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, eq=False)
class Arms:
    """The scorers, and the judgements that none of them was fitted on; ``notes`` explain fields that are None.

    ``known`` are the judgements that define the users and their numbers of judgements.
    """

    personal: Scorer
    pooled: Scorer
    known: Comparisons
    held_out: Comparisons | None = None
    shuffled: Scorer | None = None
    base: Scorer | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.personal.serves == "population":
            raise SettingsError(
                f"the scorer ({self.personal.kind}) answers everyone alike, so no user can be taxed; expected one that "
                "knows users, as --learner hierarchical."
            )
        if self.pooled.serves != "population":
            raise SettingsError(
                f"the pooled scorer ({self.pooled.kind}) knows users; expected one that answers everyone alike, as "
                "polypref fit --learner pooled makes."
            )


def fit_arms(comparisons: Comparisons, learner: str, encoder: Encoder, seed: int, base: Scorer | None = None) -> Arms:
    """Fit the personalized, pooled and shuffled arm on the same rows; the rest, split by the rule that suits the data,
    is held out.

    Raises SettingsError for an unknown learner, NotEnoughData if the rows cannot be split.
    """
    thumbs.refuse(comparisons, "the tax")
    comparisons = counted(comparisons)
    rule, why = choose_rule(comparisons, lambda rule: split(comparisons, rule, seed))
    parts = split(comparisons, rule, seed)
    train, valid, test = (comparisons.take(rows) for rows in (parts.train_rows, parts.valid_rows, parts.test_rows))
    personal = learner_by_name(learner)
    pooled = population_of(personal)
    fixed = {"encoder": encoder, "seed": seed}
    mixed = shuffle_users(train, seed), shuffle_users(valid, seed)
    return Arms(
        personal=personal.fit(train, valid=valid, **fixed),
        pooled=pooled.fit(train, valid=valid, **fixed),
        shuffled=personal.fit(mixed[0], valid=mixed[1], **fixed),
        base=base,
        known=comparisons.take(np.concatenate([parts.train_rows, parts.valid_rows])),
        held_out=test,
        notes=(
            f"fitted on {len(train) + len(valid):,} judgements, gains on {len(test):,} others, split by {rule}: {why}",
        ),
    )


def load_arms(
    comparisons: Comparisons, scorer: Path, pooled: Path, base: Scorer | None = None, allow_network: bool = False
) -> Arms:
    """Two saved scorers as arms; users and gains come from ``comparisons``.

    Gains are measured only if the folders say that they were fitted on other judgements. Raises ArtifactError for a
    folder without a scorer.
    """
    comparisons = counted(comparisons)
    known = [metadata(folder) for folder in (scorer, pooled)]
    unseen = all(one is not None and not one.saw(comparisons) for one in known)
    note = (
        "the judgements are not those that the saved scorers were fitted on, so gains are measured on all of them; "
        "it is unknown whether single ones were seen before."
        if unseen
        else "the saved scorers were fitted on these judgements, or do not say on which, so gains are not measured."
    )
    held_out = comparisons if unseen else None
    personal, shared = (load(folder, allow_network=allow_network) for folder in (scorer, pooled))
    return Arms(personal, shared, comparisons, held_out, base=base, notes=(note,))


def base_scorer(name: str, allow_network: bool = False) -> Scorer:
    """A reward from before tuning: the folder of a saved scorer, or ``hf:MODEL``, a published reward model; with
    ``hf:MODEL,ask=true`` a language model that is asked whether a response is good.
    """
    if name.startswith("hf:"):
        settings = learner_by_name(f"pretrained:{name.removeprefix('hf:')}")
        assert isinstance(settings, Pretrained)
        return PretrainedScorer(settings, settings.identity, {})
    return load(name, allow_network=allow_network)


def population_of(personal: Learner) -> Learner:
    """The population learner that matches a personal one: tuned by the same recipe if it tunes a language model."""
    return finetune.Pooled(personal.recipe) if isinstance(personal, finetune.Method) else learner_by_name("pooled")


def taxed_users(arms: Arms, task: Task) -> list[str]:
    """The users with most judgements, in descending order, among those whom the scorer answers personally.

    Raises NotEnoughData if nobody is left.
    """
    count_U = np.bincount(arms.known.user_N, minlength=len(arms.known.users))
    order = np.argsort(-count_U, kind="stable")
    ids = arms.known.users.ids.gather(order[count_U[order] >= task.min_judgements])
    if len(ids):
        some = np.zeros(len(ids), np.int32) + arms.known.chosen_N[0]
        ids = ids.filter(pl.Series(arms.personal.score(arms.known.responses, ids, some).source_Q != POPULATION))
    if not len(ids):
        raise NotEnoughData(
            f"no user with {task.min_judgements} judgements or more, besides those held out, is known to the scorer "
            f"({len(arms.known.users)} users in the files). Lower --min-judgements, or give the files it was fitted on."
        )
    return ids.head(task.users).to_list()


def rewards(suite: Suite, arms: Arms, users: Sequence[str]) -> tuple[Floats, dict[str, Codes]]:
    """``value_AC``: rewards of the candidates under each of A scores, and which of the A belong to which arm.

    Raises Diverged for a reward that is not finite.
    """
    evaluated: list[tuple[str, Scorer | None, list[str] | list[None]]] = [
        ("base", arms.base, [None]),
        ("pooled", arms.pooled, [None]),
    ]
    evaluated += [("personal", arms.personal, list(users)), ("shuffled", arms.shuffled, list(users))]
    evaluated += [(GENERIC, arms.personal, [stranger(users)]), (NOBODY, arms.personal, [None])]
    parts, at, begin = [], {}, 0
    for name, scorer, ids in evaluated:
        if scorer is not None:
            parts.append(_scored(suite, scorer, ids))
            at[name] = np.arange(begin, begin + len(ids))
            begin += len(ids)
            if not np.isfinite(parts[-1]).all():
                item = int(suite.item_C[np.argmin(np.isfinite(parts[-1]).all(axis=0))])
                raise Diverged(f"{suite.where(item)}: the {name} arm's reward is not finite. Fit it again.")
    at["length"] = np.array([begin])
    length_C = suite.responses.lengths_R[suite.response_C].astype(np.float64)
    return np.concatenate([*parts, length_C[None]]), at


def stranger(users: Sequence[str]) -> str:
    """An id that no user has."""
    return "?" * (1 + max(map(len, users), default=0))


def _scored(suite: Suite, scorer: Scorer, ids: Sequence[str] | Sequence[None]) -> Floats:
    """Rewards (ids, C), each distinct response scored once for each id."""
    size = len(suite.responses)
    together = max(1, BLOCK // size)
    parts = []
    for begin in range(0, len(ids), together):
        few = pl.Series("id", ids[begin : begin + together], dtype=pl.String)
        who, what = np.divmod(np.arange(len(few) * size), size)
        scores = scorer.score(suite.responses, few.gather(who), what.astype(np.int32))
        parts.append(scores.value_Q.reshape(len(few), size))
    return np.concatenate(parts)[:, suite.response_C].astype(np.float64)
