"""What ``polypref compare`` prints: the answer in five lines, then the numbers: each learner's accuracy and gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polypref.answers import wrapped
from polypref.terminal import columns, out
from polypref.wording import MISSING, code, interval, number, percent, points

if TYPE_CHECKING:
    from polypref.answers import Answer
    from polypref.evaluation.results_schema import CompareContents

ACCURACY = (
    ("all judgements", "accuracy_micro", "all"),
    ("mean over people", "accuracy_macro", "all"),
    ("worst decile", "accuracy_worst_decile", "all"),
    ("minority", "accuracy_macro", "minority"),
)


def show_answer(answer: Answer) -> None:
    """Print the lines of an answer, at most 80 characters each."""
    out(*answer.printed())


def show_numbers(contents: CompareContents) -> None:
    """Print two tables, each at most 80 characters wide: accuracy in percent, and gains in points."""
    measure: str = contents.verdict["measure"]
    out(f"{measure[0].upper()}{measure[1:]} on test judgements, %, and log loss:")
    titles, *rows = accuracy_lines(contents)
    columns(titles, rows)
    titles, *rows = gain_lines(contents)
    if rows:
        text = f"Gain over {code(contents.floor)}, points, and how many people surely gain and lose:"
        out("", *wrapped(text))
        columns(titles, rows)


def accuracy_lines(contents: CompareContents) -> list[list[str]]:
    """Header and one line per learner at the full size: accuracies in percent, and log loss."""
    rows = contents.rows.at_full()
    few = next((row.n_users for row in rows.where(metric="accuracy_macro", cohort="minority")), None)
    size = f"(n = {few})" if few else "(not measurable)"
    titles = [f"{title} {size}" if cohort != "all" else title for title, _, cohort in ACCURACY]
    lines = [["learner", *titles, "log loss"]]
    for learner in rows.learners:
        found = [rows.at(learner, metric, cohort) for _, metric, cohort in ACCURACY]
        loss = rows.at(learner, "log_loss")
        lines.append([learner, *(percent(row and row.value) for row in found), number(loss and loss.value)])
    return lines


def gain_lines(contents: CompareContents) -> list[list[str]]:
    """Header and one line per learner at the full size: gains in points, and people who surely gain and lose."""
    micro, macro = (contents.gains.by_learner(metric) for metric in ("accuracy_micro", "accuracy_macro"))
    titles = ["learner", "all judgements", "95 % interval", "mean over people", "95 % interval", "gain", "lose"]
    lines = [titles]
    for learner in contents.rows.at_full().learners:
        if learner not in micro or micro[learner].value is None:
            continue
        line = [learner]
        for rows in (micro, macro):
            row = rows.get(learner)
            line += [points(row and row.value), MISSING if row is None else interval(row.ends, points) or MISSING]
        counts = contents.counts(learner)
        lines.append([*line, *(MISSING if counts[key] is None else str(counts[key]) for key in ("better", "worse"))])
    return lines
