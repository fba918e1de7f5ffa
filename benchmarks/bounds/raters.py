"""Whose line does a gate hold? Real raters, four rules for their labels, and who is protected less by which.

    python benchmarks/bounds/raters.py [--data ../shared/data] [--cuts 40] [--alpha 0.05]

dices350: 123 raters label each of 350 answers safe or unsafe (unsure: one half). Raters are cut into four groups by how
often they say unsafe on one half of the answers; everything else is measured on the other half. A rule makes one label
of all labels (``polypref.bounds.raters``); a gate is calibrated on half of the remaining answers by that label, at
alpha, on average (conformal), and judged on the rest: of the answers that most of a group call unsafe, how many pass;
and of those that nine tenths of all raters call safe, how many are dropped. Intervals are of the mean over cuts by
prompt (Student's t over cuts: they tell the luck of cutting, not of these raters and answers).

The safety scorer is an oracle: the share of a random half of the raters who say safe, which no detector of texts
reaches. So what differs between rows is the rule alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from scipy.stats import t as student

GROUPS = 4
RULES = {"expert": None, "majority": 0.5, "share=.3": 0.3, "share=.1": 0.1, "group=.5": 0.5}


def threshold(safe_N: np.ndarray, unsafe_N: np.ndarray, alpha: float) -> float:
    """The lowest threshold that lets at most (n + 1) alpha - 1 of n answers through that are unsafe (conformal)."""
    allowed = int(np.floor((len(safe_N) + 1) * alpha - 1 + 1e-9))
    if allowed < 0:
        return np.inf
    scores = np.sort(safe_N[unsafe_N])[::-1]
    return -np.inf if len(scores) <= allowed else float(np.nextafter(scores[allowed], np.inf))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cuts", type=int, default=40)
    parser.add_argument("--alpha", type=float, default=0.05)
    asked = parser.parse_args()
    rows = pl.read_parquet(asked.data / "dices350.ratings.parquet")
    wide = rows.pivot(on="user_id", index=["item_id", "prompt", "expert_unsafe"], values="rating")
    unsafe_IR = 1 - wide.drop("item_id", "prompt", "expert_unsafe").to_numpy()
    expert_I = (wide["expert_unsafe"] == "Yes").to_numpy()
    prompt_I = wide["prompt"].rank("dense").to_numpy().astype(int) - 1
    found: dict[str, list[list[float]]] = {rule: [] for rule in RULES}
    sizes = []
    for cut in range(asked.cuts):
        rng = np.random.default_rng(cut)
        part_I = rng.permutation(4)[rng.integers(4, size=prompt_I.max() + 1)[prompt_I]]
        early_I, calibration_I, test_I = part_I < 2, part_I == 2, part_I == 3
        strict_R = np.argsort(np.argsort(unsafe_IR[early_I].mean(0) + 1e-9 * rng.random(unsafe_IR.shape[1])))
        group_R = strict_R * GROUPS // len(strict_R)
        half_R = rng.random(len(group_R)) < 0.5
        score_I = 1 - unsafe_IR[:, half_R].mean(1) + 1e-9 * rng.random(len(unsafe_IR))
        share_IG = np.stack([unsafe_IR[:, ~half_R & (group_R == g)].mean(1) for g in range(GROUPS)], axis=1)
        all_I = unsafe_IR[:, ~half_R].mean(1)
        sizes.append([(share_IG[test_I, g] >= 0.5).mean() for g in range(GROUPS)])
        for rule, share in RULES.items():
            label_I = expert_I if share is None else (share_IG.max(1) if rule.startswith("group") else all_I) >= share
            limit = threshold(score_I[calibration_I], label_I[calibration_I], asked.alpha)
            passed_I = score_I >= limit
            unsafe_IG = share_IG >= 0.5
            let = [passed_I[test_I & unsafe_IG[:, g]].mean() for g in range(GROUPS)]
            safe_I = test_I & (all_I <= 0.1)
            dropped = (~passed_I)[safe_I].mean() if safe_I.any() else np.nan
            found[rule].append([(passed_I & label_I)[test_I].mean(), *let, dropped])
    print("answers that most of a group call unsafe:", np.round(np.mean(sizes, axis=0), 3).tolist())
    names = ["leak by the rule", *(f"passes, group {g + 1}" for g in range(GROUPS)), "dropped, safe to nine in ten"]
    print("| rule | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for rule, values in found.items():
        mean, error = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1) / np.sqrt(asked.cuts)
        wide_by = student.ppf(0.975, asked.cuts - 1) * error
        print(
            f"| {rule} | "
            + " | ".join(f"{100 * m:.1f} ± {100 * w:.1f}" for m, w in zip(mean, wide_by, strict=True))
            + " |"
        )


if __name__ == "__main__":
    main()
