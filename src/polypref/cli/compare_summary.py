"""The table that ``polypref compare`` prints at the end: each learner's figures, and users better and worse off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polypref.terminal import framed, interactive, tabbed
from polypref.wording import MISSING, interval, number, signed

if TYPE_CHECKING:
    from polypref.evaluation.results import Results
    from polypref.evaluation.results_schema import CompareContents

COLUMNS = (
    ("micro", "accuracy_micro", "all"),
    ("macro", "accuracy_macro", "all"),
    ("worst decile", "accuracy_worst_decile", "all"),
    ("minority", "accuracy_macro", "minority"),
    ("log loss", "log_loss", "all"),
)


def show(results: Results) -> None:
    """Print the table: framed on a terminal, tab-separated lines otherwise."""
    titles, *rows = table_lines(results.contents)
    if interactive():
        framed(titles, rows, right=True)
    else:
        for line in (titles, *rows):
            tabbed(line)


def table_lines(contents: CompareContents) -> list[list[str]]:
    """Header and one line per learner at the full size: metrics, gain over the baseline, users better and worse off."""
    rows, gains, baseline = contents.rows.at_full(), contents.gains.by_learner(), contents.floor or "the baseline"
    few = next((row.n_users for row in rows.where(metric=COLUMNS[3][1], cohort=COLUMNS[3][2])), 0)
    titles = [f"{title} (n = {few})" if cohort != "all" else title for title, _, cohort in COLUMNS]
    lines = [["learner", *titles, f"gain over {baseline}", "95 % interval", "better", "worse"]]
    for learner in rows.learners:
        found = [rows.at(learner, metric, cohort) for _, metric, cohort in COLUMNS]
        line = [learner, *(number(row and row.value) for row in found)]
        gain = gains.get(learner)
        if gain is None or gain.value is None:
            line += ["baseline" if learner == baseline else MISSING, ""]
        else:
            line += [signed(gain.value), interval(gain.ends, signed)]
        counted = contents.counts(learner)
        lines.append([*line, *(MISSING if counted[key] is None else str(counted[key]) for key in ("better", "worse"))])
    return lines
