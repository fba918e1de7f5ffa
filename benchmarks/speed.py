"""Time of the learners at the size of a large public data set, beside a loop of scikit-learn models in the same run.

    python benchmarks/speed.py [--users 2642] [--comparisons 246000] [--curve]

People compare texts within prompts, as in real data: each user meets a few prompts and judges pairs of their texts.
Features are 64 numbers per text plus two lengths, 66 inputs in all. One core: OMP_NUM_THREADS=1 is set unless given.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import dataclass
from itertools import pairwise

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from polypref.comparisons import Comparisons, Responses, Users
from polypref.learners.bradley_terry import ridge
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.individual import Individual
from polypref.learners.inputs import Inputs
from polypref.learners.pooled import Pooled

DIRECTIONS, TEXTS_PER_PROMPT, PROMPTS = 64, 60, 28


@dataclass(frozen=True, eq=False)
class Table:
    """An encoder that looks features up: the cost of encoding is measured elsewhere (encode.py)."""

    features_RD: np.ndarray
    rank: dict[int, int]
    name: str = "table"
    identity: str = "table"

    def encode(self, responses: Responses) -> np.ndarray:
        return self.features_RD[[self.rank[key] for key in responses.keys_R.tolist()]]


def crowd(users: int, comparisons: int, seed: int) -> tuple[Comparisons, Table]:
    rng = np.random.default_rng(seed)
    responses = PROMPTS * TEXTS_PER_PROMPT
    words = [f"text {r} " + "x" * int(rng.integers(5, 400)) for r in range(responses)]
    prompt_R = np.repeat(np.arange(PROMPTS), TEXTS_PER_PROMPT).astype(np.int32)
    pool = Responses(pl.Series([f"prompt {p}" for p in range(PROMPTS)]), prompt_R, pl.Series(words))
    features_RD = rng.normal(size=(responses, DIRECTIONS)).astype(np.float32)
    user_N = np.sort(rng.integers(users, size=comparisons)).astype(np.int32)
    home_U = rng.integers(PROMPTS, size=users)
    a_N = home_U[user_N] * TEXTS_PER_PROMPT + rng.integers(TEXTS_PER_PROMPT, size=comparisons)
    b_N = home_U[user_N] * TEXTS_PER_PROMPT + rng.integers(TEXTS_PER_PROMPT - 1, size=comparisons)
    b_N = np.where(b_N >= a_N, b_N + 1, b_N)
    taste_UD = rng.normal(size=DIRECTIONS) + rng.normal(size=(users, DIRECTIONS))
    margin_N = np.einsum("nd,nd->n", features_RD[a_N] - features_RD[b_N], taste_UD[user_N]) / 8
    wins_N = rng.random(comparisons) < 1 / (1 + np.exp(-margin_N))
    ids = Users(pl.Series("id", [f"u{u}" for u in range(users)]))
    chosen_N, rejected_N = np.where(wins_N, a_N, b_N).astype(np.int32), np.where(wins_N, b_N, a_N).astype(np.int32)
    table = Table(features_RD, {key: r for r, key in enumerate(pool.keys_R.tolist())})
    return Comparisons(pool, ids, user_N, chosen_N, rejected_N), table


def scikit_loop(data: Comparisons, encoder: Table) -> float:
    x_RK = Inputs.fit(encoder, data, DIRECTIONS)(data.responses)
    difference_NK = x_RK[data.chosen_N] - x_RK[data.rejected_N]
    sign_N = np.where(np.arange(len(data)) % 2 == 0, 1.0, -1.0)  # the model wants both classes
    bounds = np.searchsorted(data.user_N, np.arange(len(data.users) + 1))
    started = time.perf_counter()
    for start, stop in pairwise(bounds.tolist()):
        if stop - start > 1:
            rows, sign = difference_NK[start:stop], sign_N[start:stop]
            LogisticRegression(fit_intercept=False, C=1.0).fit(rows * sign[:, None], sign)
    return time.perf_counter() - started


def batched(data: Comparisons, encoder: Table) -> float:
    """The same models as the loop's, same penalty: what ``individual`` does for one ridge."""
    x_RK = Inputs.fit(encoder, data, DIRECTIONS)(data.responses)
    started = time.perf_counter()
    difference_NK = x_RK[data.chosen_N] - x_RK[data.rejected_N]
    for batch in ridge.batches(difference_NK, data.user_N, data.label_N, data.weights_N):
        ridge.solve(batch, 1.0, tolerance=1e-4)
    return time.perf_counter() - started


def timed(learner: object, data: Comparisons, encoder: Table) -> float:
    valid = data.take(np.arange(len(data)) % 10 == 0)
    train = data.take(np.arange(len(data)) % 10 != 0)
    started = time.perf_counter()
    learner.fit(train, encoder=encoder, seed=0, valid=valid)  # type: ignore[attr-defined]
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2642)
    parser.add_argument("--comparisons", type=int, default=246_000)
    parser.add_argument("--curve", action="store_true", help="also other sizes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sizes = [(args.users, args.comparisons)]
    if args.curve:
        sizes += [(args.users, args.comparisons // f) for f in (4, 2)] + [(args.users, args.comparisons * 2)]
        sizes += [(args.users // f, args.comparisons) for f in (4, 2)] + [(args.users * 2, args.comparisons)]
    columns = ("users", "comparisons", "scikit-learn loop", "individual, one ridge", "ratio")
    print("| " + " | ".join((*columns, "individual", "pooled-effects", "hierarchical")) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for users, comparisons in sizes:
        data, encoder = crowd(users, comparisons, args.seed)
        loop = scikit_loop(data, encoder)
        one = batched(data, encoder)
        found = [
            timed(learner, data, encoder) for learner in (Individual(), Pooled(response_effects=True), Hierarchical())
        ]
        cells = [f"{users:,}", f"{comparisons:,}", f"{loop:.1f} s", f"{one:.1f} s", f"{loop / one:.1f}"]
        print("| " + " | ".join(cells + [f"{seconds:.1f} s" for seconds in found]) + " |", flush=True)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
