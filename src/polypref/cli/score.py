"""``polypref score``: scores responses for users with a scorer saved by ``polypref fit``, and says who answered."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import tyro

from polypref.cli.shared import Loads, NamesColumns, limits_of, refuse_suffix, refuse_to_replace
from polypref.terminal import say
from polypref.wording import counted

if TYPE_CHECKING:
    import polars as pl

    from polypref.bounds.gate import Bounded
    from polypref.cli.scored_rows import OwnRows
    from polypref.data.files.limits import Limits
    from polypref.data.files.sources import Source
    from polypref.files import Output
    from polypref.learners.protocol import Scorer

ROLES = ("user_id", "prompt", "response")
SCRIPT = "unknown_script"


@dataclass(frozen=True, kw_only=True)
class Score(NamesColumns, Loads):
    """Score responses for users with a saved scorer.

    Reads rows of user_id, prompt and response. Writes each row as it is, in the same order, with two columns more:
    its score, and the score's source (personal, group or population). Users whom the scorer does not know get the
    population's score. Only differences between scores of one user are meaningful. With --bounds scores are within
    calibrated bounds (docs/safety.md): the score of a dropped response is null, and each row has the policy hash, and a
    script (unknown_script) that the calibration did not hold, if there is one.
    """

    scorer: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder written by polypref fit."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Rows to score: JSONL, CSV or Parquet."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """File to write, in the format of its ending (.jsonl, .csv or .parquet); None: JSONL on standard output."""
    best: bool = False
    """Write only the best response of each user and prompt."""
    prefix: str = ""
    """Put this before the names of the columns that are added."""
    force: bool = False
    """Replace an existing file."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The encoder, if not the one named at fit."""
    bounds: Annotated[Path | None, tyro.conf.arg(metavar="BOUNDS.TOML", help_behavior_hint="")] = None
    """Calibrated bounds."""
    pin: Annotated[str | None, tyro.conf.arg(metavar="HASH", help_behavior_hint="")] = None
    """Refuse bounds with another policy hash."""

    def run(self) -> int:
        """Load the scorer, then read and score batch by batch, and write."""
        from polypref.cli.scored_rows import OwnRows, refuse_names
        from polypref.data.files.sources import open_source
        from polypref.data.rows.layouts import find_columns, parse_columns
        from polypref.scorers import load

        self._refuse_to_replace()
        scorer = load(self.scorer, self.encoder, allow_network=self.allow_network)
        bounded = self._bounded(scorer)
        limits = limits_of(self)
        source = open_source(self.file, limits)
        names = find_columns(self.file, source.types, ROLES, parse_columns(self.columns), optional=("prompt",))
        if "prompt" not in names:
            say("no prompt column (--columns prompt=NAME names one): every response answers an empty prompt.")
        refuse_names(source, [self.prefix + name for name in answer_names(bounded)])
        answered = ((frame, answers_of(scorer, frame, bounded)) for frame in rows_of(source, names, limits))
        unknown = self._write(answered, OwnRows(source, limits))
        if unknown and bounded is not None and (rule := bounded.safety.rule) is not None:
            told = "dropped" if rule.drops else "let to the gate"
            say(f"{counted(unknown, 'rows')} with a script that the calibration did not hold: {told} (unknown_script).")
        return 0

    def _write(self, answered: Iterator[tuple[pl.DataFrame, pl.DataFrame]], own: OwnRows) -> int:
        """Write the caller's ``own`` rows beside the answers to them; how many are in a script that is unknown."""
        from polypref.cli.scored_rows import KEYS, Scored, as_table, joined, unanswered
        from polypref.files import Output, is_device

        suffix = ".jsonl" if self.out is None or is_device(self.out) else self.out.suffix
        kept: list[Scored] = []
        unknown = 0
        with _output(self.out) as output:
            for frame, answers in answered:
                unknown += answers.height - answers[SCRIPT].null_count() if SCRIPT in answers else 0
                named = answers.rename({name: self.prefix + name for name in answers.columns})
                kept.append(Scored(frame.select(KEYS), own.take(frame.height), named))
                if self.best:
                    kept = [joined(kept).best()]
                elif suffix == ".jsonl":
                    output.write(kept.pop().text())
            if self.best and kept:
                if line := unanswered(kept[0]):
                    say(line)
                kept = [kept[0].answered()]
            if kept and suffix == ".jsonl":
                output.write(kept[0].text())
            elif kept:
                assert isinstance(output, Output), "tables are written to files"
                output.write(as_table(kept, suffix, self.file))
            self._refuse_to_replace()
        return unknown

    def _refuse_to_replace(self) -> None:
        """Raises as ``refuse_to_replace``; a device or a pipe is written to, not replaced."""
        from polypref.files import is_device

        if self.out is not None and not is_device(self.out):
            refuse_suffix(self.out)
            refuse_to_replace(self.out, self.force)

    def _bounded(self, scorer: Scorer) -> Bounded | None:
        """The scorer within the bounds; None without any."""
        from polypref.bounds.bounds_file import load_bounds
        from polypref.bounds.load_safety import safety_from
        from polypref.errors import SettingsError

        if self.bounds is None:
            if self.pin is not None:
                raise SettingsError("--pin names the policy hash of bounds; add --bounds BOUNDS.TOML.")
            return None
        calibrated = load_bounds(self.bounds, self.pin)
        return calibrated.bind(scorer, safety_from(calibrated.file, self.allow_network))


def rows_of(source: Source, names: dict[str, str], limits: Limits) -> Iterator[pl.DataFrame]:
    """The rows in batches as preferences are read: user_id, prompt, chat (is the prompt one?) and response.

    Raises InputError at the first row that cannot be scored, since answers must line up with rows.
    """
    from polypref.data.files.csvfiles import Csv
    from polypref.data.giving_up import ReadSoFar
    from polypref.data.rows.formats import response_rows
    from polypref.errors import InputError

    so_far = ReadSoFar(source.path, limits)
    for batch in source.batches(list(names.values()), so_far.unusable):
        for role, name in names.items():
            missing = batch.frame[name].is_null()
            if missing.any() and not (role == "prompt" and isinstance(source, Csv)):  # an empty cell is an empty text
                line = int(batch.line_B[missing.arg_max() or 0])
                raise InputError(f'line {line} of {source.path}: "{name}" is missing; expected a text for {role}.')
        frame = response_rows(batch, names, source.path, so_far.unusable)
        so_far.refuse_any("so answers would not line up with rows")
        so_far.add(batch, batch.rows)
        yield frame


def answer_names(bounded: Bounded | None) -> tuple[str, ...]:
    """The columns of ``answers_of``."""
    return ("score", "source") if bounded is None else ("score", "source", "policy_hash", SCRIPT)


def answers_of(scorer: Scorer, frame: pl.DataFrame, bounded: Bounded | None = None) -> pl.DataFrame:
    """The answers to rows of ``rows_of``: score (null: dropped), source, and within bounds their policy
    hash and an unknown script.

    Raises ArtifactError where a reward is not finite.
    """
    import numpy as np
    import polars as pl

    from polypref.bounds.gate import DROPPED
    from polypref.comparisons import Responses
    from polypref.content import excerpt
    from polypref.errors import ArtifactError
    from polypref.learners.protocol import SOURCES

    users = frame["user_id"]
    pool, response_Q = Responses.of(frame["prompt"], frame["response"], frame["chat"])
    scores = scorer.score(pool, users, response_Q) if bounded is None else bounded.answers(pool, users, response_Q)
    value_Q = scores.value_Q
    if bounded is None and not (finite_Q := np.isfinite(value_Q)).all():
        at = int(finite_Q.argmin())
        raise ArtifactError(
            f"the scorer's reward for the user {excerpt(users[at])} is {value_Q[at]}, not a finite number; fit "
            "and save it again."
        )
    score = pl.Series("score", np.round(value_Q, 6), pl.Float64)
    answers = pl.DataFrame([score, pl.Series("source", np.array(SOURCES)[scores.source_Q], pl.String)])
    if bounded is None:
        return answers
    unknown_R = bounded.safety.unknown(pool)
    return answers.with_columns(
        pl.Series(SCRIPT, [unknown_R[r] for r in response_Q.tolist()], pl.String),
        score=pl.when(pl.Series(value_Q != DROPPED)).then(score),
        policy_hash=pl.lit(bounded.policy_hash),
    ).select(answer_names(bounded))


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO | Output]:
    """Standard output, or a file that appears only when complete."""
    from polypref.files import writing

    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSONL is UTF-8 whatever the terminal's encoding
        yield sys.stdout
        return
    with writing(path) as output:
        yield output
