"""A plausible results.json and users table for the report's tests, with hostile user ids among the ordinary ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

HOSTILE = [
    "__proto__",
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 2'>",
    "</script><script>window.hit = 3</script>",
    "{{ 7 * 7 }}",
    "\u202euser\u202c",
    "'\" onmouseover=window.hit=4 x='",
    "🦜 \u2028 مستخدم",
]
LEARNERS = {
    "random": (0.500, 0.498, 0.41),
    "length": (0.602, 0.611, 0.44),
    "pooled": (0.754, 0.766, 0.564),
    "individual": (0.818, 0.797, 0.592),
    "low-rank": (0.811, 0.807, 0.583),
    "personalized": (0.806, 0.801, 0.577),
    "hierarchical": (0.832, 0.822, 0.604),
}
VERDICT = {
    "room": "yes",
    "best": "hierarchical",
    "text": "hierarchical gains 7.8 points over pooled (95 % interval 6.4 to 9.2), and nothing when the users "
    "are shuffled. There is room to personalise, and no user is significantly worse off: use hierarchical.",
}
DATA = {
    "hash": "9f3c2b7a11d04e65",
    "n_comparisons": 5460,
    "n_responses": 650,
    "n_prompts": 13,
    "min_judgements": 40,
    "users_left_out": 81,
    "comparisons_left_out": 1240,
    "files": ["data/llmfao.parquet"],
}
FINDINGS = (
    {
        "name": "length bias",
        "count": 1778,
        "total": 4929,
        "unit": "rows",
        "action": "counted",
        "example": "",
        "text": "the longer response won 36.1% [29.0%, 43.1%]",
    },
    {
        "name": "empty response",
        "count": 531,
        "total": 5460,
        "unit": "rows",
        "action": "dropped",
        "example": 'line 7 of llmfao.parquet: user "w0" prefers "<b>" over "\\n\\n"',
        "text": "one of the two responses is missing or empty",
    },
)
RATE = {"value": 0.53, "lo": 0.51, "hi": 0.55, "n": 1012}
UNKNOWN = {"value": None, "lo": None, "hi": None, "n": 0}
CHANCE = {"value": 0.692, "null": 0.754, "null_lo": 0.615, "null_hi": 0.923, "excess": -0.062, "p": 0.85, "n": 13}
PROFILE = {
    "sizes": {"judgements": 5460, "users": 124, "pairs": 1567},
    "disagreement": {"contested": RATE, "at_panel": {"3": {"contested": RATE}}, "mean_panel": 3.56},
    "consistency": {"retest": RATE, "panel_alpha": UNKNOWN, "n_users": 28, "ceiling": [0.82, 0.99]},
    "minorities": {"n_users": 124, "n_minority": 0, "mv_acc": {"lo": 0.61, "hi": 1.0, "n_users": 80}},
    "room": {"population_lo": 0.72, "population_hi": 0.82, "measured": True, "lo": 0.0, "hi": 0.267},
    "social_choice": {"cyclic_prompts": CHANCE},
    "groups": {"groups": 2, "parts": [{"n_users": 80}]},
    "sentences": {"room": "A personal answer could add 0.000–0.267."},
    "table2": "| data | #samples |\n|---|---:|\n| data | 4,929 |",
}


def example_users(n: int, seed: int = 0, learners: tuple[str, ...] = tuple(LEARNERS)) -> pl.DataFrame:
    """Per-user rows for every learner; the last three users have no test judgements, one in twelve is a minority."""
    rng = np.random.default_rng(seed)
    ids = (HOSTILE + [f"worker-{i:04d}" for i in range(n)])[:n]
    n_train = np.maximum(rng.lognormal(4, 0.9, n).astype(int), 4)
    n_test = np.maximum(n_train // 4, 1)
    n_test[-3:] = 0
    minority = np.arange(n) % 12 == 5
    base = np.clip(rng.normal(0.76, 0.1, n) - 0.3 * minority, 0.05, 1)
    frames = []
    for name in learners:
        gain = (
            (LEARNERS[name][1] - LEARNERS["pooled"][1])
            + rng.normal(0, 0.05, n)
            + 0.25 * minority * (name == "hierarchical")
        )
        gain = np.clip(base + gain, 0, 1) - base if name != "pooled" else np.zeros(n)
        half = np.where(name == "pooled", 0, 0.9 / np.sqrt(np.maximum(n_test, 1)))
        verdict = np.where(gain - half > 0, "better", np.where(gain + half < 0, "worse", "unclear"))
        untested = n_test == 0
        blank = np.where(untested, np.nan, 0.0)
        frames.append(
            pl.DataFrame(
                {
                    "user_id": ids,
                    "learner": name,
                    "n_train": n_train,
                    "n_test": n_test,
                    "accuracy": base + gain + blank,
                    "baseline_accuracy": base + blank,
                    "gain": gain + blank,
                    "gain_lo": gain - half + blank,
                    "gain_hi": gain + half + blank,
                    "p_value": 0.5 + blank,
                    "verdict": np.where(untested, "untested", verdict),
                    "minority": minority,
                },
                nan_to_null=True,
            )
        )
    return pl.concat(frames)


def example_rows(n_users: int, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Metrics of every learner at every size, the full one last."""
    rows = []
    for name, (micro, macro, worst) in LEARNERS.items():
        for size in sizes:
            less = 0.0 if name == "random" else 0.03 * float(np.log(sizes[-1] / size))
            shared = {"learner": name, "size": size, "n_users": n_users, "n_comparisons": 1318, "seeds": 5}
            values = {
                "accuracy_micro": micro - less,
                "accuracy_macro": macro - less,
                "accuracy_worst_decile": worst - less,
                "log_loss": 0.95 - 0.6 * micro + less,
                "calibration_error": 0.08 - 0.06 * micro + less / 4,
            }
            for metric, value in values.items():
                rows.append(shared | {"cohort": "all", "metric": metric} | interval(value, 0.012))
            minority = {"cohort": "minority", "metric": "accuracy_macro", "n_users": 10, "n_comparisons": 71}
            rows.append(shared | minority | interval(macro - 0.2, 0.07))
    return rows


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "lo": value - half, "hi": value + half}


def example_results(users: pl.DataFrame, sizes: tuple[int, ...] = (500, 1000, 2000, 4142)) -> dict[str, Any]:
    """What compare writes to results.json, with the figures that llmfao gave in a prototype."""
    n_users = users["user_id"].n_unique()
    named = {"baseline": "pooled", "size": sizes[-1], "cohort": "all", "metric": "accuracy_micro"}
    gains = [
        {"learner": name} | named | interval(micro - 0.754, 0.014)
        for name, (micro, _, _) in LEARNERS.items()
        if name != "pooled"
    ]
    placebo = [
        {"learner": name, "arm": "shuffled", "better": 0, "worse": 1} | named | interval(-0.004, 0.009)
        for name in ("individual", "low-rank", "personalized", "hierarchical")
    ]
    knowing = [
        gain | {"baseline": gain["learner"], "arm": "shuffled"} | interval(gain["value"] + 0.004, 0.012)
        for gain in gains
        if gain["learner"] not in ("random", "length")
    ]
    counts = users.group_by("learner").agg(
        *((pl.col("verdict") == v).sum().alias(v) for v in ("better", "worse")),
        (pl.col("verdict") != "untested").sum().alias("tested"),
    )
    return {
        "schema": 1,
        "data": DATA | {"n_users": n_users},
        "encoder": {"name": "minilm", "identity": "minilm:c9745ed1"},
        "split": {"rule": "pair", "why": "650 responses over 13 prompts: too few to hold out.", "test": 983.0},
        "verdict": dict(VERDICT),
        "rows": example_rows(n_users, sizes),
        "users": {r["learner"]: {k: r[k] for k in ("better", "worse", "tested")} for r in counts.iter_rows(named=True)},
        "placebo": placebo,
        "gains_over_shuffled": knowing,
        "baseline": {"learner": "pooled", "valid_accuracy": 0.75, "candidates": {"length": 0.6, "pooled": 0.75}},
        "gains": gains,
        "profile": dict(PROFILE),
        "findings": [dict(finding) for finding in FINDINGS],
        "settings": {"learners": {"pooled": {"class": "Pooled", "aggregate": "concat"}}, "seeds": 5, "workers": 2},
        "reproduce": {"command": "polypref compare llmfao.parquet --min-judgements 40 --sizes 500 1000 2000"},
        "versions": {"python": "3.11.2", "polypref": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2, "memory_gib": 7.8},
        "timing": {"encode_seconds": 12.1, "cells_seconds": 64.0, "cells_run": 70},
    }
