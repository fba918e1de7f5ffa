"""Is ``hierarchical`` ever far behind the linear methods that it contains? On seeds that no choice has seen.

Real sets are cut by the rule that suits them, or by response where the name ends in ``-r``; polis is every fourth user.
Generated worlds have rewards linear in eight standard normal features of a text, plus a quality of each text that the
features do not show. ``pooled``, ``pooled-effects``,
``individual`` and ``hierarchical`` are fitted on the same rows. A row of the table is a method on a set, over
``--seeds`` seeds from 100 on: accuracy over judgements and over people, log loss, seconds per fit. The last lines say
how far ``hierarchical`` is behind the best of the three others, set by set.

    python benchmarks/truth/bases.py [--data ../shared/data] [--seeds 3] [--sets llmfao-r ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

import polypref
from polypref.comparisons import Comparisons, from_columns
from polypref.data.split import Rule, split
from polypref.features.protocol import Encoder
from polypref.learners import LEARNERS, validation
from polypref.learners.protocol import log_odds

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from recovery_worlds import DIMENSIONS, Normal

NAMES = ("pooled", "pooled-effects", "individual", "hierarchical")


@dataclass(frozen=True)
class Set:
    """A file, the fewest judgements of a user who is kept, and how it is cut."""

    file: str
    least: int
    rule: Rule
    every: int = 1

    def read(self, data: Path, seed: int) -> tuple[Comparisons, Encoder]:
        """Its judgements, by every n-th user."""
        del seed  # the same for all seeds
        rows = polypref.read([str(data / f"{self.file}.parquet")]).comparisons
        count_U = np.bincount(rows.user_N, minlength=len(rows.users))
        kept = (count_U[rows.user_N] >= self.least) & (rows.user_N % self.every == 0)
        return rows.take(kept), polypref.encoder("minilm")


@dataclass(frozen=True)
class World:
    """``users`` with ``each`` judgements over ``texts`` common texts (None: pairs of their own).

    The common taste has norm ``shared``; a user's differs from it by N(0, spread^2) in each feature, or is its opposite
    for a share ``opposed`` of the users. ``quality`` is the standard deviation of the texts' own quality.
    """

    users: int
    each: int
    texts: int | None
    shared: float = 1.0
    spread: float = 0.0
    opposed: float = 0.0
    quality: float = 0.0

    @property
    def rule(self) -> Rule:
        """By response where texts are common."""
        return "response" if self.texts else "pair"

    def read(self, data: Path, seed: int) -> tuple[Comparisons, Encoder]:
        """The judgements of a seed's world."""
        del data
        rng = np.random.default_rng([seed, 11])
        user_N = np.repeat(np.arange(self.users), self.each)
        n = len(user_N)
        if self.texts:
            a_N = rng.integers(self.texts, size=n)
            b_N = (a_N + rng.integers(1, self.texts, size=n)) % self.texts
        else:
            a_N, b_N = np.arange(n), n + np.arange(n)
        count = self.texts or 2 * n
        names = [f"{seed} {at:06d}" for at in range(count)]
        taste_D = rng.normal(size=DIMENSIONS)
        taste_UD = np.tile(self.shared * taste_D / np.linalg.norm(taste_D), (self.users, 1))
        taste_UD[np.arange(self.users) < self.opposed * self.users] *= -1
        taste_UD += self.spread * rng.normal(size=taste_UD.shape)
        known = from_columns(["u"] * (count // 2), [""] * (count // 2), names[: count // 2], names[count // 2 :])
        x_RD = Normal().encode(known.responses).astype(np.float64)
        place = {text: at for at, text in enumerate(known.responses.texts_R)}
        x_TD = x_RD[[place[name] for name in names]]
        own_T = self.quality * rng.normal(size=count)
        margin_N = ((x_TD[a_N] - x_TD[b_N]) * taste_UD[user_N]).sum(1) + own_T[a_N] - own_T[b_N]
        wins_N = rng.random(n) < expit(margin_N)
        best_N, other_N = np.where(wins_N, a_N, b_N), np.where(wins_N, b_N, a_N)
        ids = [f"u{u:03d}" for u in user_N]
        texts = ([names[at] for at in side] for side in (best_N, other_N))
        return from_columns(ids, [""] * n, *texts), Normal()


SETS = {
    "llmfao": Set("llmfao", 40, "pair"),
    "ukpconvarg1": Set("ukpconvarg1", 60, "pair"),
    "llmfao-r": Set("llmfao", 40, "response"),
    "ukpconvarg1-r": Set("ukpconvarg1", 60, "response"),
    "squality-r": Set("squality_humaneval", 1, "response"),
    "pandalm-r": Set("pandalm", 1, "response"),
    "wmt23-r": Set("wmt23_mqm_zhen", 1, "response"),
    "dices350-r": Set("dices350", 1, "response"),
    "polis-r": Set("polis_opendata", 1, "response", every=4),
    "opposed": World(24, 40, None, opposed=0.25),
    "opposed, few texts": World(60, 60, 60, shared=1.5, opposed=0.25, quality=0.5),
    "alike": World(60, 40, None),
    "alike, few texts": World(60, 60, 60, quality=0.5),
    "spread": World(60, 40, None, spread=0.5),
    "spread, few texts": World(60, 60, 60, spread=0.5, quality=0.5),
    "short": World(300, 12, None, spread=0.5),
    "few people": World(4, 400, None, spread=0.7),
    "few people, alike": World(4, 400, 200, quality=0.5),
    "noise": World(40, 40, None, shared=0.0),
}


def measure(rows: Comparisons, rule: Rule, seed: int, encoder: Encoder) -> np.ndarray:
    """Accuracy over judgements, over people, log loss and seconds of each method, (4, 4)."""
    parts = split(rows, rule, seed)
    train, valid, test = (rows.take(some) for some in (parts.train_rows, parts.valid_rows, parts.test_rows))
    found = []
    for name in NAMES:
        started = time.perf_counter()
        scorer = LEARNERS[name].fit(train, valid=valid, encoder=encoder, seed=seed)
        seconds = time.perf_counter() - started
        margin_N = log_odds(scorer, test).value_Q
        right_N = 0.5 + 0.5 * np.sign(margin_N)
        tests_U = np.bincount(test.user_N, minlength=len(test.users))
        macro_U = np.bincount(test.user_N, right_N, len(test.users))[tests_U > 0] / tests_U[tests_U > 0]
        found.append((right_N.mean(), macro_U.mean(), validation.log_loss(margin_N, test), seconds))
    return np.array(found)


def main() -> None:
    """Print the table and the gaps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    asked = parser.parse_args()
    gaps = []
    print(f"{'set':20s} {'method':15s} {'micro':>7s} {'macro':>7s} {'log loss':>9s} {'seconds':>8s}")
    for name in asked.sets:
        found = []
        for seed in range(100, 100 + asked.seeds):
            rows, encoder = SETS[name].read(asked.data, seed)
            found.append(measure(rows, SETS[name].rule, seed, encoder))
        mean_44 = np.mean(found, axis=0)
        for method, (micro, macro, loss, seconds) in zip(NAMES, mean_44, strict=True):
            print(f"{name:20s} {method:15s} {micro:7.4f} {macro:7.4f} {loss:9.4f} {seconds:8.1f}", flush=True)
        best_3 = np.array([mean_44[:3, 0].max(), mean_44[:3, 1].max(), -mean_44[:3, 2].min()])
        gaps.append(best_3 - mean_44[3, :3] * [1, 1, -1])
    print("\nbehind the best of the others (negative: ahead)")
    for name, (micro, macro, loss) in zip(asked.sets, gaps, strict=True):
        print(f"{name:20s} {micro:+7.4f} {macro:+7.4f} {loss:+9.4f}")
    worst, mean = np.max(gaps, axis=0), np.maximum(gaps, 0).mean(axis=0)
    for text, (micro, macro, loss) in (("worst", worst), ("mean, 0 ahead", mean)):
        print(f"{text:20s} {micro:+7.4f} {macro:+7.4f} {loss:+9.4f}")


if __name__ == "__main__":
    main()
