"""Privacy figures from one seed's world: membership, attributes, re-identification, differential privacy, deletion.

The world is ``personalllm-like`` with mixed tastes: everybody wants something different, and the probed attribute marks
those whose main taste is one of the two odd ones. Features are the styles of the texts, known exactly. Half of the
people take part in attacks; the other half are strangers, on whom accuracy is measured. Sources and limits are in the
files of the measures.

Suffixes here: ``_D`` styles, ``_F`` features of a response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.comparisons import Comparisons, Users
from polypref.files import temporary
from polypref.forgetting import bits_apart, forget, residue, shared_change
from polypref.learners import LEARNERS
from polypref.learners.bradley_terry.ridge import batches, solve
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.protocol import Scorer, margins
from polypref.scorers import load, save
from polypref.studies.risks.differential_privacy import clipped_mean, dp_mean
from polypref.studies.risks.privacy import (
    Fit,
    Floats,
    Margins,
    as_strangers,
    mean_differences,
    membership,
    probe_auc,
    rank_one,
    votes,
)
from polypref.studies.risks.settings import Found, SlowRisks
from polypref.worlds.community import KnownFeatures
from polypref.worlds.simulation import STYLE_MEAN, STYLE_SD, SimulatedWorld, simulate

ALPHA, NOISE, ODD = 0.3, 0.5, ("function 6", "function 7")
RIDGE = 1.0  # variance of a weight in a user's own vector; public, so not chosen on anybody's data
FORGOTTEN = 5  # people who are forgotten, one by one


@dataclass(frozen=True, eq=False)
class Fixture:
    """A world with its encoder; ``x_RF`` are the features; the first ``inside`` people take part."""

    world: SimulatedWorld
    encoder: KnownFeatures
    x_RF: Floats
    inside: int

    @property
    def known(self) -> Comparisons:
        """The judgements of the people who take part."""
        rows = self.world.comparisons
        kept = rows.take(rows.user_N < self.inside)
        return Comparisons(
            kept.responses, Users(rows.users.ids[: self.inside]), kept.user_N, kept.chosen_N, kept.rejected_N
        )

    @property
    def others(self) -> Comparisons:
        """The judgements of strangers."""
        rows = self.world.comparisons
        return rows.take(rows.user_N >= self.inside)


def fixture(config: SlowRisks, seed: int) -> Fixture:
    """The world of a seed."""
    changes = {
        "users": 2 * config.private_users,
        "judgements": config.each,
        "judges": 4,
        "alpha": ALPHA,
        "temperature": NOISE,
    }
    world = simulate("personalllm-like", seed=seed, **changes)
    keys_R, x_RF = world.comparisons.responses.keys_R, (world.style_RD - STYLE_MEAN) / STYLE_SD
    order_R = np.argsort(keys_R, kind="stable")
    return Fixture(world, KnownFeatures(keys_R[order_R], x_RF[order_R].astype(np.float32)), x_RF, config.private_users)


def vectors(rows: Comparisons, x_RF: Floats) -> Floats:
    """Each user's ridge weights, from their own judgements and public features alone; zeros without judgements."""
    weights_UF = np.zeros((len(rows.users), x_RF.shape[1]))
    apart_NF = x_RF[rows.chosen_N] - x_RF[rows.rejected_N]
    for batch in batches(apart_NF, rows.user_N, rows.label_N, rows.weights_N):
        weights_UF[batch.user_B] = solve(batch, RIDGE)
    return weights_UF


def shared_mean(config: SlowRisks, x_RF: Floats, epsilon: float | None) -> Fit:
    """A shared linear reward: the mean of clipped user vectors, private at ``epsilon``; None: without noise."""

    def fit(rows: Comparisons, seed: int) -> Margins:
        present = np.unique(rows.user_N)
        weights_UF = vectors(rows, x_RF)[present]
        if epsilon is None:
            mean_F = clipped_mean(weights_UF, config.clip)[0]
        else:
            mean_F = dp_mean(weights_UF, config.clip, epsilon, config.delta, np.random.default_rng([seed, 77])).mean_K
        return lambda queried: (x_RF[queried.chosen_N] - x_RF[queried.rejected_N]) @ mean_F

    return fit


def learnt(name: str, encoder: KnownFeatures) -> Fit:
    """The shared part of a registered learner."""
    return lambda rows, seed: as_strangers(LEARNERS[name].fit(rows, encoder=encoder, seed=0))


def members(config: SlowRisks, seed: int) -> Found:
    """The membership attack on shared parts and their accuracy, with and without differential privacy."""
    here = fixture(config, seed)
    attacked: dict[str, Fit] = {f"shared part of {name}": learnt(name, here.encoder) for name in config.attacked}
    attacked["mean of clipped vectors"] = shared_mean(config, here.x_RF, None)
    attacked |= {f"mean, epsilon {epsilon:g}": shared_mean(config, here.x_RF, epsilon) for epsilon in config.epsilons}
    found: Found = {}
    for arm, fit in attacked.items():
        outcome = membership(fit, here.known, config.pairs, seed)
        right_N = 0.5 + 0.5 * np.sign(fit(here.known, seed)(here.others))
        found["privacy", "membership: area under the curve", arm] = outcome.auc
        found["privacy", "membership: true positives at 1 % false alarms", arm] = outcome.tpr
        found["privacy", "accuracy for strangers", arm] = float(right_N.mean())
    return found


def profiles(config: SlowRisks, seed: int) -> Found:
    """What a user's vector reveals: the probed attribute, and who they are."""
    here = fixture(config, seed)
    rows, ids = here.known, here.known.users.ids
    has_U = np.isin(np.array(here.world.people.group_U[: here.inside]), ODD)
    fitted = Hierarchical().fit(here.others, encoder=here.encoder, seed=0)
    lot_U = np.random.default_rng(seed).permutation(here.inside)
    vector = {}
    for name, half_N in (("all", np.ones(len(rows), bool)), *_halves(rows, seed)):
        scorer = fitted
        for u, user_id in enumerate(ids):
            scorer = scorer.adapt(user_id, rows.take((rows.user_N == u) & half_N))
        vector[name] = np.stack([scorer.newcomers[user_id].weights_K for user_id in ids])
    probed = {
        "user vector": vector["all"],
        "raw votes": votes(rows),
        "raw votes and public features": mean_differences(rows, here.x_RF),
        "another's user vector": vector["all"][lot_U],
    }
    found = {
        ("privacy", "attribute inference: area under the curve", arm): probe_auc(x_UK, has_U, seed)
        for arm, x_UK in probed.items()
    }
    matched = {"user vectors of two halves": rank_one(vector["one"], vector["other"]), "chance": 1 / here.inside}
    return found | {("privacy", "re-identification: rank 1", arm): value for arm, value in matched.items()}


def _halves(rows: Comparisons, seed: int) -> tuple[tuple[str, np.ndarray], ...]:
    """Two halves of everybody's judgements that share no pair of texts."""
    pairs, at_N = np.unique(rows.pair_key_N, return_inverse=True)
    first_N = (np.random.default_rng(seed).permutation(len(pairs)) % 2 == 0)[at_N]
    return ("one", first_N), ("other", ~first_N)


def deletion(config: SlowRisks, seed: int) -> Found:
    """Forget people of the fit, save, load, and compare: with strangers, with the scorer before, and with a refit."""
    here = fixture(config, seed)
    rows = here.known
    found: Found = {}
    for name in ("hierarchical", "low-rank"):
        scorer = LEARNERS[name].fit(rows, encoder=here.encoder, seed=0)
        gone, kept = rows.users.ids[:FORGOTTEN].to_list(), rows.users.ids[FORGOTTEN:].to_list()
        less = scorer
        for user_id in gone:
            less = forget(less, user_id)
        with temporary() as folder:
            save(scorer, folder / "before")
            save(less, folder / "after")
            again = load(folder / "after", here.encoder)
            places = {when: sum(len(residue(folder / when, one)) for one in gone) for when in ("before", "after")}
        reseeded = LEARNERS[name].fit(rows, encoder=here.encoder, seed=1)
        refit = LEARNERS[name].fit(rows.take(rows.user_N >= FORGOTTEN), encoder=here.encoder, seed=0)
        outcome = {
            "largest difference from a stranger, before": bits_apart(scorer, scorer, rows, gone, ["a stranger"]),
            "largest difference from a stranger, after": bits_apart(again, again, rows, gone, ["a stranger"]),
            "largest change of others' scores": bits_apart(scorer, again, rows, kept, kept),
            "places in files, before": places["before"],
            "places in files, after": places["after"],
            f"change of the shared part in a refit without {FORGOTTEN} users": shared_change(
                scorer, refit, here.others
            ),
            "change of the shared part in a refit with another seed": shared_change(scorer, reseeded, here.others),
            "accuracy for strangers": _right(scorer, here.others),
            f"accuracy for strangers, refit without {FORGOTTEN} users": _right(refit, here.others),
        }
        found |= {("forgetting", measure, name): float(value) for measure, value in outcome.items()}
    return found


def _right(scorer: Scorer, rows: Comparisons) -> float:
    return float((0.5 + 0.5 * np.sign(margins(scorer, rows).value_Q)).mean())
