"""``polypref compare``: the main job, from preference files to a report on who gains from personalization."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from polypref.cli.shared import Columns, EncoderName, FileLimits, Files, MadeFromFlag, Ties, ensure_files, reading_of
from polypref.evaluation.settings import Settings
from polypref.terminal import framed, interactive, out, tabbed
from polypref.wording import MISSING, interval, number, signed

if TYPE_CHECKING:
    from polypref.evaluation.contents import CompareContents
    from polypref.evaluation.results import Results

COLUMNS = (
    ("micro", "accuracy_micro", "all"),
    ("macro", "accuracy_macro", "all"),
    ("worst decile", "accuracy_worst_decile", "all"),
    ("minority", "accuracy_macro", "minority"),
    ("log loss", "log_loss", "all"),
)


@dataclass(frozen=True)
class Compare(Settings):
    """Who gains from personalization, with which learner, and how sure that is.

    Writes report.html, results.json, results.parquet and users.parquet. A run that was stopped goes on where it was.
    """

    files: Files = field(kw_only=True)
    out: Path = Path("polypref-report")
    """Folder of the report, the results and the finished cells."""
    learners: tuple[str, ...] = ()
    """Which learners, or "all": docs/learners.md. pooled and pooled-effects always take part."""
    encoder: EncoderName = "minilm"
    ties: Ties = ()
    columns: Columns = ()
    made_from: MadeFromFlag = "auto"
    limits: FileLimits = ()

    def run(self) -> int:
        """Read, lint, compare, write the report, print the verdict and the table."""
        started = time.perf_counter()
        from polypref.cli.check import remarks
        from polypref.data.linting.lint import clean, lint
        from polypref.evaluation import compare
        from polypref.evaluation.comparison import named_learners
        from polypref.features import encoder
        from polypref.report import write

        ensure_files(self, "compare FILE --out DIR")
        named_learners(self.learners)  # misspelt names are told before a long file is read
        encode = encoder(self.encoder)
        reading = reading_of(self, self.made_from)
        found = lint(reading)
        facts = {
            "data": {
                "files": list(reading.files),
                "rows_read": reading.rows_read,
                "read_as": list(reading.rules),
                "columns": [layout.as_dict() for layout in reading.layouts],
            },
            "findings": [asdict(finding) for finding in found.findings],
            "reproduce": {"command": command_line(self)},
        }
        settings = Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})
        comparisons = clean(reading, found)
        results = compare(comparisons, self.learners or None, encode, out=self.out, facts=facts, settings=settings)
        page = write(self.out, results.content, results.users)
        show(results, [(f.name, f.count, f.unit) for f in found.findings if f.action == "dropped"])
        for line in remarks(reading):
            out(line)
        out(f"report: {page}")
        out(f"done in {time.perf_counter() - started:.0f} s")
        return 0


def command_line(command: Compare) -> str:
    """The command that gives the same results: every setting that is not the default, wherever it came from."""
    words = ["polypref", "compare", *command.files]
    for f in fields(command):
        value = getattr(command, f.name)
        if f.name == "files" or value == f.default:
            continue
        flag = f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def show(results: Results, dropped: list[tuple[str, int, str]]) -> None:
    """Print the verdict, what was compared and the table: a table on a terminal, tab-separated lines otherwise."""
    from polypref.wording import counted

    contents = results.contents
    data, split = contents.data, contents.split
    out(contents.verdict["text"])
    out(
        f"{counted(data['n_comparisons'], 'judgements')} by {counted(data['n_users'], 'users')}, features from "
        f"{contents.encoder['name']}, split by {split['rule']}: {split['why']}"
    )
    for name, count, unit in dropped:
        out(f"dropped: {counted(count, unit)} ({name})")
    if data["users_left_out"]:
        out(
            f"left out: {counted(data['users_left_out'], 'users')} with fewer than {data['min_judgements']} judgements "
            f"({counted(data['comparisons_left_out'], 'judgements')})"
        )
    titles, *rows = table_lines(contents)
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
