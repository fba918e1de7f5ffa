"""Coverage, recovery and speed of ``polypref leaderboard``: ``python benchmarks/leaderboard.py [--worlds 200]``.

Worlds of people with and without tastes of their own, as in tests/leaderboard_cases.py. Printed: how often all
rank intervals of a table contain the truth; how often the interval of the share of people with another best does;
how often people are said to differ; and the time and memory of a million judgements of 200 systems, beside
scikit-learn's logistic regression on the design matrix, with the largest difference between the two's coefficients.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from scipy.sparse import csr_array, vstack

from leaderboard_cases import world  # pyright: ignore[reportMissingImports]
from polypref.leaderboard import people
from polypref.leaderboard.ranks import rank_intervals
from polypref.leaderboard.strengths import fit, logits


def coverage(worlds: int, spread: float, systems: int, persons: int, each: int) -> dict[str, float]:
    """Shares of worlds whose truth lies within the interval."""
    ranks, shares, alarms = [], [], []
    for seed in range(worlds):
        battles, prompt_N, theta_M, own_UM = world(
            seed, systems=systems, people=persons, each=each, apart=(0.5, spread), ties=0.2
        )
        found = fit(battles)
        ours_M = found.theta_M - found.theta_M.mean()
        best_M, worst_M = rank_intervals(ours_M, found.covariance_MM, found.clusters, seed)
        rank_M = 1 + (theta_M[:, None] < theta_M[None, :]).sum(axis=1)
        ranks.append(bool(((best_M <= rank_M) & (rank_M <= worst_M)).all()))
        base_N = logits(battles, found.theta_A)
        one = people.spread_of(battles, prompt_N, base_N, seed)
        told = people.persons(battles, {"p": found}, np.full(len(battles), "p"), one, 10, seed)
        share = float((own_UM.argmax(axis=1) != theta_M.argmax()).mean())
        shares.append(told.lo <= share <= told.hi)
        alarms.append(one.lo > 0)
    return {
        "ranks": float(np.mean(ranks)),
        "share": float(np.mean(shares)),
        "said to differ": float(np.mean(alarms)),
    }


def speed(n: int, systems: int, persons: int) -> None:
    """Time, memory, and the peer's."""
    from sklearn.linear_model import LogisticRegression

    battles = world(0, systems=systems, people=persons, each=n // persons, position=0.1, ties=0.1)[0]
    started = time.perf_counter()
    fitted = fit(battles)
    estimated = time.perf_counter() - started
    started = time.perf_counter()
    ours = fit(battles, variance=1.0).theta_A
    alone = time.perf_counter() - started
    rank_intervals(fitted.theta_M, fitted.covariance_MM, fitted.clusters)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    rows = np.arange(len(battles))
    values = np.concatenate([np.ones(len(rows)), -np.ones(len(rows)), 10 * np.ones(len(rows))])
    where = np.concatenate([battles.first_N, battles.second_N, np.full(len(rows), systems)])
    design = csr_array((values, (np.tile(rows, 3), where)), shape=(len(rows), systems + 1))
    label = np.r_[np.ones(len(rows)), np.zeros(len(rows))]
    weight = np.r_[battles.label_N, 1 - battles.label_N]
    used = np.flatnonzero(weight > 0)
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=2000)
    peer.fit(vstack([design, design]).tocsr()[used], label[used], weight[used])
    theirs = peer.coef_[0] * np.append(np.ones(systems), 10)
    took = time.perf_counter() - started
    print(
        f"{len(rows):,} judgements, {systems} systems: {estimated:.1f} s with the prior's variance estimated, "
        f"{memory:.0f} MiB"
    )
    print(
        f"  equal prior: {alone:.1f} s, scikit-learn {took:.1f} s; largest difference {np.abs(ours - theirs).max():.1e}"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--judgements", type=int, default=1_000_000)
    arguments = parser.parse_args()
    speed(arguments.judgements, 200, 10_000)
    for spread in (0.0, 0.3, 0.8, 1.5):
        found = coverage(arguments.worlds, spread, systems=8, persons=60, each=30)
        print(f"spread {spread}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
