"""How often the intervals of gains hold the truth, in simulated worlds: what ``docs/protocol.md`` quotes.

python benchmarks/truth/gains.py                                   # all cells of the first kind, 2,000 draws each
python benchmarks/truth/gains.py --kind users pairs --draws 400
python benchmarks/truth/gains.py --pairs 30 --users 300 --gain 0 0.1

A draw is one evaluation: people judge pairs, each pair is held out by five random cuts with chance .2 and by one at
least, and two learners score what is held out. The margin of learner i on user u's judgement of pair p is

    mean_i + user_sd a_iu + pair_sd b_ip + e_iup,   all standard normal, correlated between the two learners

with the mean that makes it right in RIGHT + gain of all cases: gains differ from user to user and from pair to pair.
People are unequally busy (Gamma(2)). The call is the shipped one, ``evaluation.tables.leaderboard``, as ``compare``
makes it. The truth that its intervals should hold is the mean over all users and pairs with ten users or more, and the
mean over these users on all pairs with fewer. ``called``: the share of draws in which the interval leaves out 0.

Suffixes here: ``_M`` judgements that were made.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import ndtr, ndtri

from polypref.evaluation.tables import leaderboard
from polypref.stats.cluster_robust import FEW_USERS, Clusters
from polypref.stats.metrics import HeldOut

METRICS = ("accuracy_micro", "accuracy_macro")
PAIRS, USERS, GAINS = (30, 100, 300, 1000, 3000), (3, 10, 30, 100, 300), (0.0, 0.03, 0.05, 0.10)
RIGHT, BUSY, SEEDS, HELD_OUT = 0.7, 2.0, 5, 0.2


@dataclass(frozen=True)
class Kind:
    """Standard deviations of users' and pairs' parts of a margin, and how far the two learners share each part."""

    user_sd: float
    user_shared: float
    pair_sd: float
    pair_shared: float
    noise_shared: float

    @property
    def total(self) -> float:
        return (1 + self.user_sd**2 + self.pair_sd**2) ** 0.5


KINDS = {
    "both": Kind(0.5, 0.7, 0.7, 0.8, 0.7),
    "users": Kind(0.7, 0.5, 0.0, 1.0, 0.8),
    "pairs": Kind(0.0, 1.0, 1.0, 0.6, 0.8),
    "neither": Kind(0.0, 1.0, 0.0, 1.0, 0.8),
    "alike": Kind(0.3, 0.95, 0.7, 0.95, 0.95),
}


@dataclass(frozen=True)
class World:
    """``judges`` people are drawn for each pair, or as many more as it takes for everyone to judge two."""

    pairs: int
    users: int
    gain: float
    kind: str = "both"
    judges: int = 3

    def draw(self, rng: np.random.Generator) -> tuple[HeldOut, dict[str, np.ndarray], dict[str, float]]:
        """Rows that were held out, margins of ``baseline`` and ``learner`` on them, and the true gain by metric."""
        kind, (user_M, pair_M) = KINDS[self.kind], self._deal(rng)
        mean_2 = kind.total * ndtri([RIGHT, RIGHT + self.gain])
        user_2U, pair_2P, noise_2M = (
            _correlated(rng, n, shared)
            for n, shared in (
                (self.users, kind.user_shared),
                (self.pairs, kind.pair_shared),
                (len(user_M), kind.noise_shared),
            )
        )
        level_2U = mean_2[:, None] + kind.user_sd * user_2U
        margin_2M = level_2U[:, user_M] + kind.pair_sd * pair_2P[:, pair_M] + noise_2M
        held_SP = rng.random((SEEDS, self.pairs)) < HELD_OUT
        never = np.flatnonzero(~held_SP.any(axis=0))
        held_SP[rng.integers(SEEDS, size=len(never)), never] = True
        seed_H, row_H = np.nonzero(held_SP[:, pair_M])
        n = len(row_H)
        rows = HeldOut(
            seed_H=seed_H,
            user_H=user_M[row_H],
            pair_H=pair_M[row_H],
            tie_H=np.zeros(n, bool),
            weight_H=np.ones(n),
            judgement_H=row_H,
            cohort_H={"all": np.ones(n, bool)},
            n_seeds=SEEDS,
            n_users=self.users,
            n_pairs=self.pairs,
        )
        gain_U = ndtr(level_2U[1] / (1 + kind.pair_sd**2) ** 0.5) - ndtr(level_2U[0] / (1 + kind.pair_sd**2) ** 0.5)
        margins = {"baseline": margin_2M[0, row_H], "learner": margin_2M[1, row_H]}
        return rows, margins, self._truth(rows, gain_U)

    def _deal(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Who judges which pair: users by how busy they are, nobody twice."""
        judges = max(self.judges, -(-2 * self.users // self.pairs))
        busy_U = rng.gamma(BUSY, size=self.users).cumsum()
        user_M = np.searchsorted(busy_U, rng.random(self.pairs * judges) * busy_U[-1])
        code_M = np.unique(np.repeat(np.arange(self.pairs), judges) * self.users + user_M)
        return code_M % self.users, code_M // self.users

    def _truth(self, rows: HeldOut, gain_U: np.ndarray) -> dict[str, float]:
        if self.users >= FEW_USERS:
            return dict.fromkeys(METRICS, self.gain)
        count_SU = np.zeros((rows.n_seeds, self.users))
        np.add.at(count_SU, (rows.seed_H, rows.user_H), 1)
        count_SU = count_SU[count_SU.any(axis=1)]
        micro = count_SU / count_SU.sum(axis=1, keepdims=True)
        macro = (count_SU > 0) / (count_SU > 0).sum(axis=1, keepdims=True)
        return {name: float((share @ gain_U).mean()) for name, share in zip(METRICS, (micro, macro), strict=True)}


def _correlated(rng: np.random.Generator, n: int, shared: float) -> np.ndarray:
    one, other = rng.normal(size=(2, n))
    return np.stack([one, shared * one + (1 - shared**2) ** 0.5 * other])


@dataclass(frozen=True)
class Found:
    """Over the draws of one world, by metric: coverage, mean half width, share of draws in which a gain is called."""

    coverage: dict[str, float]
    half: dict[str, float]
    called: dict[str, float]


def simulate(world: World, draws: int, seed: int = 0) -> Found:
    """The shipped call on ``draws`` draws of a world."""
    rng = np.random.default_rng([seed, world.pairs, world.users, round(1000 * world.gain), world.judges])
    held, half, called = ({name: [] for name in METRICS} for _ in range(3))
    for _ in range(draws):
        rows, margins, truth = world.draw(rng)
        gains = leaderboard(Clusters(rows), margins, {"gains": "baseline"}, 0, METRICS)["gains"]
        for name in METRICS:
            row = gains.at("learner", name)
            assert row is not None
            lo, hi = (row.lo, row.hi) if row.lo is not None and row.hi is not None else (-1.0, 1.0)
            held[name].append(lo <= truth[name] <= hi)
            half[name].append((hi - lo) / 2)
            called[name].append(not lo <= 0 <= hi)
    return Found(*({name: float(np.mean(values)) for name, values in of.items()} for of in (held, half, called)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="*", choices=[*KINDS], default=["both"])
    parser.add_argument("--pairs", nargs="*", type=int, default=PAIRS)
    parser.add_argument("--users", nargs="*", type=int, default=USERS)
    parser.add_argument("--gain", nargs="*", type=float, default=GAINS)
    parser.add_argument("--judges", type=int, default=3)
    parser.add_argument("--draws", type=int, default=2000)
    asked = parser.parse_args()
    print(
        "| kind | pairs | users | gain | coverage micro, macro | half width | called | seconds |\n" + "|---" * 8 + "|"
    )
    lowest, highest = 1.0, 0.0
    for kind, pairs, users, gain in product(asked.kind, asked.pairs, asked.users, asked.gain):
        started = time.process_time()
        found = simulate(World(pairs, users, gain, kind, asked.judges), asked.draws)
        cells = [", ".join(f"{of[name]:.3f}" for name in METRICS) for of in (found.coverage, found.half, found.called)]
        seconds = time.process_time() - started
        print(f"| {kind} | {pairs} | {users} | {gain:g} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
        lowest, highest = min(lowest, *found.coverage.values()), max(highest, *found.coverage.values())
    print(f"\ncoverage from {lowest:.3f} to {highest:.3f}")


if __name__ == "__main__":
    main()
