"""Is ``hierarchical`` ever far behind the linear methods that it contains? On real sets, seeds that no choice has seen.

Each set is cut by the rule that suits it, or by response where the name ends in ``-r``. ``pooled``, ``pooled-effects``,
``individual`` and ``hierarchical`` are fitted on the same rows. A row of the table is a method on a set, over
``--seeds`` seeds from 100 on: accuracy over judgements and over people, log loss, seconds per fit. The last lines say
how far ``hierarchical`` is behind the best of the three others, set by set.

    python benchmarks/truth/bases.py [--data ../shared/data] [--seeds 3] [--sets llmfao-r ...]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import polypref
from polypref.comparisons import Comparisons
from polypref.data.split import Rule, split
from polypref.learners import LEARNERS, validation
from polypref.learners.protocol import log_odds

NAMES = ("pooled", "pooled-effects", "individual", "hierarchical")


@dataclass(frozen=True)
class Set:
    """A file, the fewest judgements of a user who is kept, and how it is cut."""

    file: str
    least: int
    rule: Rule

    def read(self, data: Path) -> Comparisons:
        """Its judgements."""
        rows = polypref.read([str(data / f"{self.file}.parquet")]).comparisons
        count_U = np.bincount(rows.user_N, minlength=len(rows.users))
        return rows.take(count_U[rows.user_N] >= self.least)


SETS = {
    "llmfao": Set("llmfao", 40, "pair"),
    "ukpconvarg1": Set("ukpconvarg1", 60, "pair"),
    "llmfao-r": Set("llmfao", 40, "response"),
    "ukpconvarg1-r": Set("ukpconvarg1", 60, "response"),
    "squality-r": Set("squality_humaneval", 1, "response"),
    "pandalm-r": Set("pandalm", 1, "response"),
    "wmt23-r": Set("wmt23_mqm_zhen", 1, "response"),
    "dices350-r": Set("dices350", 1, "response"),
}


def measure(rows: Comparisons, rule: Rule, seed: int, encoder: object) -> np.ndarray:
    """Accuracy over judgements, over people, log loss and seconds of each method, (4, 4)."""
    parts = split(rows, rule, seed)
    train, valid, test = (rows.take(some) for some in (parts.train_rows, parts.valid_rows, parts.test_rows))
    found = []
    for name in NAMES:
        started = time.perf_counter()
        scorer = LEARNERS[name].fit(train, valid=valid, encoder=encoder, seed=seed)  # type: ignore[arg-type]
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
    encoder = polypref.encoder("minilm")
    gaps = []
    print(f"{'set':14s} {'method':15s} {'micro':>7s} {'macro':>7s} {'log loss':>9s} {'seconds':>8s}")
    for name in asked.sets:
        rows = SETS[name].read(asked.data)
        mean_44 = np.mean([measure(rows, SETS[name].rule, 100 + s, encoder) for s in range(asked.seeds)], axis=0)
        for method, (micro, macro, loss, seconds) in zip(NAMES, mean_44, strict=True):
            print(f"{name:14s} {method:15s} {micro:7.4f} {macro:7.4f} {loss:9.4f} {seconds:8.1f}", flush=True)
        best_3 = np.array([mean_44[:3, 0].max(), mean_44[:3, 1].max(), -mean_44[:3, 2].min()])
        gaps.append(best_3 - mean_44[3, :3] * [1, 1, -1])
    print("\nbehind the best of the others (negative: ahead)")
    for name, (micro, macro, loss) in zip(asked.sets, gaps, strict=True):
        print(f"{name:14s} {micro:+7.4f} {macro:+7.4f} {loss:+9.4f}")
    worst, mean = np.max(gaps, axis=0), np.maximum(gaps, 0).mean(axis=0)
    for text, (micro, macro, loss) in (("worst", worst), ("mean, 0 ahead", mean)):
        print(f"{text:14s} {micro:+7.4f} {macro:+7.4f} {loss:+9.4f}")


if __name__ == "__main__":
    main()
