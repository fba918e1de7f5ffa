"""Figures from one seed's simulated communities: filter bubble, homogenisation, lock-in, sycophancy, manipulation.

Each personal figure comes with those of the population's scorer and of random choice, on the same people, texts and
random draws. Sources and limits are in the files of the measures.

Suffixes here: ``_E`` judgements of a user, ``_F`` features that people care for, ``_K`` kinds of text, ``_M`` slates,
``_T`` rounds, ``_W`` windows of rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from polypref.experiments.closed_loop import Log, Personal, Stage, arms, live, picks, probe_values, stage
from polypref.studies.risks.filter_bubble import counts, effective_number, filter_bubble
from polypref.studies.risks.homogenisation import diet_likeness, overlap
from polypref.studies.risks.inertia import half_life, inertia
from polypref.studies.risks.manipulation import shortfall, targeting_gap
from polypref.studies.risks.settings import Found, SlowRisks
from polypref.studies.risks.sycophancy import false_congruent
from polypref.worlds.community import DISLIKE, FALSE, FLATTERS, KINDS, LEANING, Community, Floats, judgements

GOOD = "share of the attainable good, last third"


def beside(risk: str, measure: str, value: Mapping[str, float]) -> Found:
    """Each arm's figure, and the personal arm's minus the population's."""
    found = {(risk, measure, arm): float(one) for arm, one in value.items()}
    return found | {(risk, measure, "personal - population"): float(value["personal"] - value["population"])}


def _late(value_TU: Floats) -> Floats:
    """The rows of the last third of the rounds."""
    return value_TU[-(len(value_TU) // 3) :]


def bubbles(config: SlowRisks, seed: int) -> Found:
    """Filter bubble and homogenisation, in a community without views or flattery."""
    logs = arms(stage(Community(), config.life, 1000 * seed), seed)
    bubble = {arm: filter_bubble(log.kind_TU, KINDS) for arm, log in logs.items()}
    count = {arm: counts(log.kind_TU, KINDS) for arm, log in logs.items()}
    found = {
        ("filter bubble", "effective kinds a person saw, all rounds"): {
            arm: effective_number(count_UK).mean() for arm, count_UK in count.items()
        },
        ("filter bubble", "effective kinds a person saw, last third"): {
            arm: one.number_WU[-1].mean() for arm, one in bubble.items()
        },
        ("filter bubble", "change of effective kinds per 10 rounds"): {
            arm: one.slope_U.mean() for arm, one in bubble.items()
        },
        ("filter bubble", GOOD): {arm: _late(log.good_TU).mean() for arm, log in logs.items()},
        ("homogenisation", "overlap on the same questions"): {arm: overlap(picks(log)) for arm, log in logs.items()},
        ("homogenisation", "likeness of diets"): {arm: diet_likeness(count_UK) for arm, count_UK in count.items()},
    }
    return {key: one for (risk, name), value in found.items() for key, one in beside(risk, name, value).items()}


def lock_in(config: SlowRisks, seed: int) -> Found:
    """Inertia, and what happens when everybody's taste reverses half-way."""
    turn = config.life.rounds // 2
    here = stage(Community(), replace(config.life, turns_at=turn), 1000 * seed)
    servers = {"personal": Personal(here.base), f"personal, last {config.memory}": Personal(here.base, config.memory)}
    logs = {arm: live(here, server, seed) for arm, server in servers.items()}
    found: Found = {}
    for arm, log in logs.items():
        found["value lock-in", "half-life after a change, rounds", arm] = half_life(log.good_TU.mean(axis=1), turn)
        found["value lock-in", f"{GOOD}, after a change half-way", arm] = float(_late(log.good_TU).mean())
    for confirming in config.confirming:
        needed_U = flips(here, confirming, seed)
        found["value lock-in", f"contrary answers to flip {confirming}", "personal"] = float(np.median(needed_U))
    return found


def flips(here: Stage, confirming: int, seed: int) -> Floats:
    """``inertia`` of each person (U,) between the best and the worst text of a probe; inf: three times as many contrary
    as confirming answers did not suffice. The judged pairs come from the slates of the rounds.
    """
    users, each = len(here.people), 4 * confirming
    pair_N2 = here.slate_TUC[..., : here.life.n // 2 * 2].reshape(-1, 2)
    pair_UE2 = pair_N2[np.arange(users * each) % len(pair_N2)].reshape(users, each, 2)
    rows = judgements(here.people, here.pool, pair_UE2, seed)
    probe_UC = here.probe_MC[np.arange(users) % len(here.probe_MC)]
    good_UC = np.einsum("ucf,uf->uc", here.pool.feature_RF[probe_UC], here.people.choice_UF)
    needed = []
    for u, (probe_C, good_C) in enumerate(zip(probe_UC, good_UC, strict=True)):
        best, worst = int(probe_C[good_C.argmax()]), int(probe_C[good_C.argmin()])
        needed.append(inertia(here.base, rows.take(rows.user_N == u), confirming, best, worst))
    return np.array(needed)


def sycophancy(config: SlowRisks, seed: int) -> Found:
    """Whether false answers that agree with people beat true ones, in a community where people have views."""
    here = stage(config.views, config.life, 1000 * seed)
    logs = arms(here, seed)
    share = {arm: _falls(probe_values(log), here) for arm, log in logs.items()}
    own_UMC = np.einsum("mcf,uf->umc", here.pool.feature_RF[here.probe_MC], here.people.choice_UF)
    share["people themselves"] = _falls(own_UMC, here)
    shown = {arm: _late(here.pool.feature_RF[log.served_TU, FALSE]).mean() for arm, log in logs.items()}
    return beside("sycophancy", "false answer preferred where it agrees", share) | beside(
        "sycophancy", "share of false answers shown, last third", shown
    )


def _falls(value_UMC: Floats, here: Stage) -> float:
    """``false_congruent``, mean over people; the first two texts of each probe lean to different sides."""
    probe_M2F = here.pool.feature_RF[here.probe_MC[:, :2]]
    share_U = false_congruent(value_UMC[..., :2], probe_M2F[..., LEANING], probe_M2F[..., FALSE], here.people.view_U)
    return float(share_U.mean())


def manipulation(config: SlowRisks, seed: int) -> Found:
    """Whether the few people who like flattery are flattered and served worse; on the probes, after the last round.

    People differ in more than being gameable. So their loss is measured against the same people, texts and random draws
    in a community where nobody likes flattery.
    """
    here = stage(config.game, config.life, 1000 * seed)
    gameable_U = here.people.gameable_U
    flattered, good = _probed(arms(here, seed))
    gap = {arm: targeting_gap(bad_U, gameable_U) for arm, bad_U in flattered.items()}
    found = beside("manipulation", "targeting gap: flattery shown, worst stratum less mean", gap)
    for name, of in (("gameable", gameable_U), ("others", ~gameable_U)):
        rate = {arm: bad_U[of].mean() for arm, bad_U in flattered.items()}
        found |= beside("manipulation", f"flattering answers shown to the {name}", rate)
    _, honest = _probed(arms(stage(replace(config.game, pull=-DISLIKE), config.life, 1000 * seed), seed))
    short = {arm: shortfall(good[arm], gameable_U) - shortfall(honest[arm], gameable_U) for arm in good}
    return found | beside("manipulation", "share of the good that the gameable lose by it", short)


def _probed(logs: Mapping[str, Log]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Each arm's share of flattering picks in the probes, and its share of the attainable good, per person (U,)."""
    flattered, good = {}, {}
    for arm, log in logs.items():
        feature_MCF, pick_MU = log.stage.pool.feature_RF[log.stage.probe_MC], picks(log)
        row_M1 = np.arange(len(pick_MU))[:, None]
        flattered[arm] = feature_MCF[row_M1, pick_MU, FLATTERS].mean(axis=0)
        good_UMC = np.einsum("mcf,uf->umc", feature_MCF, log.stage.people.good_UF)
        picked_UM = np.take_along_axis(good_UMC, pick_MU.T[..., None], axis=2)[..., 0]
        mean_UM = good_UMC.mean(axis=2)
        good[arm] = (picked_UM - mean_UM).sum(axis=1) / (good_UMC.max(axis=2) - mean_UM).sum(axis=1)
    return flattered, good
