"""The figures that polypref holds itself to on real people's preferences, measured and judged line by line.

    python benchmarks/real_sets.py --out runs/real [--sets llmfao pandalm] [--data ../shared/data]

Runs ``polypref compare`` with all learners and five seeds on every set (finished cells are not computed again) and
prints Markdown: one table per set, then each target with what was reached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Content = dict[str, Any]


@dataclass(frozen=True)
class Set:
    """One data set, how it is cut, and what it must show."""

    flags: tuple[str, ...]
    targets: tuple[Callable[[Content], tuple[str, str, bool]], ...]


def value(content: Content, learner: str, metric: str) -> Any:
    """A figure at the full size; None where too few users leave it unknown."""
    found = [
        row["value"]
        for row in content["rows"]
        if (row["learner"], row["metric"], row["cohort"]) == (learner, metric, "all") and row["size"] == content["size"]
    ]
    assert len(found) == 1, f"{learner} {metric}: {len(found)} rows"
    return found[0]


def population(content: Content, metric: str) -> float:
    """The better of the population models, without and with response effects."""
    return max(value(content, name, metric) for name in ("pooled", "pooled-majority", "pooled-effects"))


def at_least(metric: str, floor: float) -> Callable[[Content], tuple[str, str, bool]]:
    def check(content: Content) -> tuple[str, str, bool]:
        got = value(content, "hierarchical", metric)
        return f"hierarchical {metric} >= {floor}", f"{got:.4f}", got >= floor

    return check


def above_population(metric: str, margin: float) -> Callable[[Content], tuple[str, str, bool]]:
    def check(content: Content) -> tuple[str, str, bool]:
        got, base = value(content, "hierarchical", metric), population(content, metric)
        return (
            f"hierarchical {metric} >= best population {margin:+}",
            f"{got:.4f} against {base:.4f}",
            got >= base + margin,
        )

    return check


def above(metric: str, *others: str) -> Callable[[Content], tuple[str, str, bool]]:
    def check(content: Content) -> tuple[str, str, bool]:
        got = value(content, "hierarchical", metric)
        rest = {name: value(content, name, metric) for name in others}
        text = ", ".join(f"{name} {v:.4f}" for name, v in rest.items())
        return f"hierarchical {metric} above {', '.join(others)}", f"{got:.4f}; {text}", got > max(rest.values())

    return check


def near_best(metric: str, slack: float) -> Callable[[Content], tuple[str, str, bool]]:
    def check(content: Content) -> tuple[str, str, bool]:
        every = {row["learner"]: value(content, row["learner"], metric) for row in content["rows"]}
        best, got = max(every, key=lambda name: every[name]), every["hierarchical"]
        return (
            f"{metric} within {slack} of the best",
            f"{got:.4f}; {best} {every[best]:.4f}",
            got >= every[best] - slack,
        )

    return check


def verdict(room: str) -> Callable[[Content], tuple[str, str, bool]]:
    def check(content: Content) -> tuple[str, str, bool]:
        return f"verdict: {room}", content["verdict"]["room"], content["verdict"]["room"] == room

    return check


def no_gain_claimed(content: Content) -> tuple[str, str, bool]:
    claimed = [f"{g['learner']} {g['lo']:+.3f}" for g in content["gains"] if _personal_gain(content, g) and g["lo"] > 0]
    return "no personal learner claims a significant gain", ", ".join(claimed) or "none", not claimed


def nobody_worse(content: Content) -> tuple[str, str, bool]:
    against = content["users_over_pooled"]["hierarchical"]
    return "no user worse off than under pooled", f"{against['worse']} of {against['tested']}", against["worse"] == 0


def placebo_gains_nothing(content: Content) -> tuple[str, str, bool]:
    found = [p for p in content["placebo"] if p["metric"] == "accuracy_micro" and p["learner"] == "hierarchical"]
    text = ", ".join(f"{p['value']:+.4f} ({p['lo']:+.4f} to {p['hi']:+.4f})" for p in found)
    return "shuffled users: hierarchical gains nothing", text, bool(found) and all(p["lo"] <= 0 for p in found)


def _personal_gain(content: Content, gain: Content) -> bool:
    population_names = {"random", "length", "pooled", "pooled-majority", "pooled-effects"}
    key = (gain["metric"], gain["cohort"], gain["baseline"])
    return gain["learner"] not in population_names and key == ("accuracy_micro", "all", content["baseline"]["learner"])


EVERYWHERE = (nobody_worse, placebo_gains_nothing)
RIVALS = ("individual", "personalized", "low-rank")
SETS = {
    "llmfao": Set(
        ("--min-judgements", "40", "--split", "pair"),
        (
            at_least("accuracy_micro", 0.83),
            above_population("accuracy_micro", 0.06),
            above_population("accuracy_macro", 0.0),
            above("accuracy_macro", "individual"),
            above_population("accuracy_worst_decile", 0.0),
            above("accuracy_worst_decile", "individual"),
        ),
    ),
    "ukpconvarg1": Set(
        ("--min-judgements", "60", "--split", "pair"),
        (
            at_least("accuracy_micro", 0.81),
            above_population("accuracy_micro", 0.015),
            above_population("accuracy_macro", 0.0),
            above_population("accuracy_worst_decile", -0.005),
            above("accuracy_micro", *RIVALS),
            above("accuracy_worst_decile", *RIVALS),
        ),
    ),
    "polis_opendata": Set(("--min-judgements", "100", "--split", "response"), (near_best("accuracy_micro", 0.005),)),
    "pandalm": Set((), (verdict("no"), no_gain_claimed)),
    "squality_humaneval": Set((), (verdict("no"), no_gain_claimed)),
}


def run(name: str, chosen: Set, data: Path, out: Path) -> tuple[Content, float]:
    command = [sys.executable, "-m", "polypref", "compare", str(data / f"{name}.parquet"), "--out", str(out / name)]
    started = time.perf_counter()
    subprocess.run([*command, *chosen.flags, "--seeds", "5"], check=True, stdout=sys.stderr)
    return json.loads((out / name / "results.json").read_text()), time.perf_counter() - started


def show(name: str, chosen: Set, content: Content, seconds: float) -> None:
    data = content["data"]
    print(f"\n### {name}\n")
    print(f"{content['verdict']['text']}\n")
    print(
        f"{data['n_comparisons']:,} judgements, {data['n_users']:,} users, split by {content['split']['rule']}, ",
        end="",
    )
    print(f"{seconds:.0f} s (cells {content['timing'].get('cells_seconds', seconds):.0f} s)\n")
    print(
        "| learner | micro | macro | worst decile | log loss | gain over the baseline, 95 % | better / worse / tested |"
    )
    print("|---|---|---|---|---|---|---|")
    gains = {
        g["learner"]: g
        for g in content["gains"]
        if (g["metric"], g["cohort"]) == ("accuracy_micro", "all") and g["baseline"] == content["baseline"]["learner"]
    }
    metrics = ("accuracy_micro", "accuracy_macro", "accuracy_worst_decile", "log_loss")
    for learner in dict.fromkeys(row["learner"] for row in content["rows"]):
        found = [value(content, learner, metric) for metric in metrics]
        cells = ["too few users" if v is None else f"{v:.4f}" for v in found]
        gain, people = gains.get(learner), content["users"].get(learner)
        cells.append(f"{gain['value']:+.4f} ({gain['lo']:+.4f} to {gain['hi']:+.4f})" if gain else "baseline")
        cells.append(f"{people['better']} / {people['worse']} / {people['tested']}" if people else "")
        print(f"| {learner} | " + " | ".join(cells) + " |")
    print("\n| target | reached | met |\n|---|---|---|")
    for target in (*chosen.targets, *EVERYWHERE):
        asked, reached, met = target(content)
        print(f"| {asked} | {reached} | {'yes' if met else '**no**'} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POLYPREF_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    args = parser.parse_args()
    for name in args.sets:
        content, seconds = run(name, SETS[name], args.data, args.out)
        show(name, SETS[name], content, seconds)


if __name__ == "__main__":
    main()
