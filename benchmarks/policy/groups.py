"""Are planted groups found, and the opinion groups of polis? docs/groups.md gives the figures.

    python benchmarks/policy/groups.py                         # simulated users, and polis where it is
    python benchmarks/policy/groups.py --parts planted --seeds 8
    python benchmarks/policy/groups.py --parts polis --data ../shared/data

``planted``  200 users in three groups (one, for the placebo) judge pairs of their own in eight features; a reward is a
shared part plus the group's own, both standard normal in every feature. Adjusted Rand index (Hubert and Arabie 1985) of
each user's likeliest group, mean and 95 % interval (Student) over seeds: by the mixture with the number of groups given
and chosen, and by k-means on the users' weights under ``hierarchical``.
``polis``    each conversation by itself, as many groups as it has opinion groups; the interval redraws users (1,000
draws). Beside it k-means on the weights under ``hierarchical``, of at most MOST_EACH judgements of each user (the
mixture reads all), and labels dealt anew.
``held-out`` the same conversations: which groups tell more of held-out judgements, the mixture's or the opinion groups?
``speed``    the largest set of the data folder by users, all of the search, features cached.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the small worlds of the tests

import numpy as np
import polars as pl
from scipy.cluster.vq import kmeans2
from scipy.optimize import minimize
from scipy.stats import t as student
from sklearn.metrics import adjusted_rand_score

from polypref.comparisons import Comparisons
from polypref.data.linting.lint import clean, lint
from polypref.data.read import read
from polypref.features import encoder
from polypref.groups import Grouping, discover
from polypref.groups.discover_groups import numbered
from polypref.groups.mixture import Problem, alone
from polypref.groups.number_of_groups import folds, search, standard_error
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.likelihood import surprise
from recovery_worlds import Normal, judged

USERS, GROUPS, DRAWS = 200, 3, 1000
MOST_EACH = 150  # judgements for the k-means arm: pairs made from votes imply each other, and there are thousands
Labels = np.ndarray


def planted(groups: int, each: int, seed: int) -> tuple[Comparisons, Labels]:
    """Simulated users, and the group of each."""
    rng = np.random.default_rng([seed, groups, each])
    own_GD, all_D = rng.normal(size=(groups, 8)), rng.normal(size=8)
    group_U = np.arange(USERS) % groups
    return judged(USERS, each, lambda u, x: ((all_D + own_GD[group_U[u]]) * x).sum(axis=1), seed), group_U


def likeliest(grouping: Grouping, ids: pl.Series) -> Labels:
    """The likeliest group of each user, unknown or not."""
    return grouping.share_of(ids).argmax(axis=1)


def clustered(data: Comparisons, encode, ids: pl.Series, groups: int) -> Labels:
    """k-means on the weights that hierarchical finds for each user, of ``MOST_EACH`` of their judgements by lot;
    everybody in one where it finds no differences."""
    order_N = np.random.default_rng(0).permutation(len(data))
    rank_N = pl.DataFrame({"user": data.user_N[order_N]}).select(pl.int_range(pl.len()).over("user")).to_series()
    data = data.take(np.sort(order_N[(rank_N < MOST_EACH).to_numpy()]))
    scorer = Hierarchical().fit(data, encoder=encode, seed=0)
    if not len(scorer.users):
        return np.zeros(len(ids), int)
    weights_UK = scorer.weights_UK[scorer.users.index(ids)]
    runs = []
    for start in range(5):
        center_GK, label_U = kmeans2(weights_UK, groups, minit="++", seed=start, iter=50)
        runs.append((((weights_UK - center_GK[label_U]) ** 2).sum(), start, label_U))
    return min(runs)[2]


def over_seeds(values: list[float]) -> str:
    """Mean and 95 % interval."""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ({max(np.mean(values) - half, -1):.2f} to {min(np.mean(values) + half, 1):.2f})"


def show_planted(seeds: int, cases: Sequence[tuple[int, int]]) -> None:
    print("| planted | comparisons | ARI, number given | ARI, number chosen | numbers chosen | unknown | k-means |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for groups, each in cases:
        given, free, chosen, unknown, means = [], [], [], [], []
        for seed in range(seeds):
            data, truth = planted(groups, each, seed)
            ids = data.users.ids
            found = discover(data, encoder=Normal(), seed=seed)
            chosen.append(len(found.names))
            unknown.append(found.sizes().get("unknown", 0) / USERS)
            if groups > 1:
                free.append(adjusted_rand_score(truth, likeliest(found, ids)))
                told = discover(data, encoder=Normal(), seed=seed, groups=groups)
                given.append(adjusted_rand_score(truth, likeliest(told, ids)))
                means.append(adjusted_rand_score(truth, clustered(data, Normal(), ids, groups)))
        columns = [over_seeds(values) if values else "" for values in (given, free)]
        numbers = ", ".join(f"{n}: {chosen.count(n)}" for n in sorted(set(chosen)))
        last = over_seeds(means) if means else ""
        print(
            f"| {groups} | {each} | {' | '.join(columns)} | {numbers} | {np.mean(unknown):.2f} | {last} |", flush=True
        )


def redrawn(truth: Labels, label: Labels, rng: np.random.Generator) -> str:
    """ARI and its 95 % interval over users drawn anew."""
    at = rng.integers(0, len(truth), (DRAWS, len(truth)))
    draws = [adjusted_rand_score(truth[i], label[i]) for i in at]
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{adjusted_rand_score(truth, label):.2f} ({low:.2f} to {high:.2f})"


def conversations(folder: Path) -> Iterator[tuple[str, Comparisons, Labels, int]]:
    """Name, judgements, opinion group of each user in the order of ids, and number of groups; small ones first."""
    reading = read([str(folder / "polis_opendata.parquet")])
    data = clean(reading, lint(reading))
    attributes = data.users.attributes
    assert attributes is not None
    prompt_N = data.responses.prompt_R[data.chosen_N]
    for prompt in np.argsort(np.bincount(prompt_N)).tolist():
        rows = data.take(np.flatnonzero(prompt_N == prompt))
        ids, truth = members(rows), attributes["opinion_group"]
        truth = truth.gather(data.users.index(ids)).to_numpy()
        yield data.responses.prompts[prompt][:60], rows, truth, len(np.unique(truth))


def members(rows: Comparisons) -> pl.Series:
    """Ids of those who judged, in order."""
    return rows.users.ids.gather(np.unique(rows.user_N)).sort()


def show_polis(folder: Path) -> None:
    encode = encoder("minilm")
    print("| conversation | users | opinion groups | mixture | k-means | chance, 97.5 % | number chosen | seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, rows, truth, groups in conversations(folder):
        rng, ids = np.random.default_rng(0), members(rows)
        before = time.perf_counter()
        label = likeliest(discover(rows, encoder=encode, seed=0, groups=groups), ids)
        free = discover(rows, encoder=encode, seed=0)
        spent = time.perf_counter() - before
        chance = np.quantile([adjusted_rand_score(truth, rng.permutation(label)) for _ in range(DRAWS)], 0.975)
        kmeans = redrawn(truth, clustered(rows, encode, ids, groups), rng)
        print(
            f"| {name} | {len(ids)} | {groups} | {redrawn(truth, label, rng)} | {kmeans} | {chance:.2f} | "
            f"{len(free.names)} | {spent:.0f} |",
            flush=True,
        )


def predicts(rows: Comparisons, label_U: Labels, groups: int) -> tuple[float, float, float]:
    """Gain in held-out log likelihood over one group: of the mixture, and of groups that are given; and the latter's
    standard error. The mixture sees a user's kept judgements, the given groups were made from all votes."""
    crowd, _, _ = numbered(rows, encoder("minilm"), 64)
    cuts = folds(crowd, 3, 0)
    found = search(crowd, (groups,), cuts, 3, 0)
    share_UG = np.eye(groups)[label_U]
    gains = []
    for cut in cuts:
        problem = Problem(cut.votes, found.scales, groups)
        heard = cut.votes.heard_2YU @ share_UG
        theta = minimize(problem.loss, np.zeros(problem.ends[-1]), (heard,), jac=True, method="L-BFGS-B").x
        reward_RG = problem.reward(theta)
        margin_HG = reward_RG[cut.chosen_H] - reward_RG[cut.rejected_H]
        own_H = -surprise(margin_HG[np.arange(len(margin_HG)), label_U[cut.user_H]], cut.label_H)
        gains.append(own_H - cut.predicted(alone(cut.votes, found.scales)))
    gain_H = np.concatenate(gains)
    return found.tried[-1].gain, float(gain_H.mean()), standard_error(gain_H, np.ones(len(gain_H)), cuts)


def show_held_out(folder: Path) -> None:
    """Which groups tell more of judgements that were not seen: the mixture's, or the opinion groups?"""
    print("| conversation | users | gain of the mixture | gain of the opinion groups |\n|---|---|---|---|", flush=True)
    for name, rows, truth, groups in conversations(folder):
        label_U = np.unique(truth, return_inverse=True)[1]
        mixture, given, error = predicts(rows, label_U, groups)
        print(f"| {name} | {len(truth)} | {mixture:+.3f} | {given:+.3f} ± {1.96 * error:.3f} |", flush=True)


def show_speed(folder: Path) -> None:
    reading = read([str(folder / "ukpconvarg1.parquet")])
    data, encode = clean(reading, lint(reading)), encoder("minilm")
    encode.encode(data.responses)
    before, wall = time.process_time(), time.perf_counter()
    found = discover(data, encoder=encode, seed=0)
    spent = f"{time.process_time() - before:.0f} s of one core, {time.perf_counter() - wall:.0f} s on the clock"
    print(f"{len(data):,} judgements of {len(data.users):,} users: {len(found.names)} groups, {spent}")
    print(found.sizes(), *found.tried, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["planted", "polis", "held-out", "speed"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--each", type=int, nargs="*", default=[3, 10, 30, 100], help="comparisons of each user")
    parser.add_argument("--placebo", type=int, nargs="*", default=[3, 10, 30, 100], help="the same, of one group")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POLYPREF_DATA", "../shared/data")))
    args = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "planted": lambda: show_planted(args.seeds, [(GROUPS, n) for n in args.each] + [(1, n) for n in args.placebo]),
        "polis": lambda: show_polis(args.data),
        "held-out": lambda: show_held_out(args.data),
        "speed": lambda: show_speed(args.data),
    }
    for name in args.parts:
        if name != "planted" and not args.data.exists():
            print(f"{name} was skipped: {args.data} is not here.")
            continue
        parts[name]()
        print(flush=True)


if __name__ == "__main__":
    main()
