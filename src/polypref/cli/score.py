"""``polypref score``: scores responses for users with a scorer saved by ``polypref fit``, and says who answered."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import tyro

from polypref.cli.shared import Loads, NamesColumns, limits_of, refuse_to_replace
from polypref.terminal import say
from polypref.wording import counted, json_text

if TYPE_CHECKING:
    import polars as pl

    from polypref.bounds.gate import Bounded
    from polypref.data.files.limits import Limits
    from polypref.data.files.sources import Source
    from polypref.files import Output
    from polypref.learners.protocol import Scorer

ROLES = ("user_id", "prompt", "response")


@dataclass(frozen=True, kw_only=True)
class Score(NamesColumns, Loads):
    """Score responses for users with a saved scorer.

    Reads rows of user_id, prompt and response; writes each, in the same order, with its score and its source: personal,
    group or population. Users whom the scorer does not know get the population's score. Only differences between scores
    of one user are meaningful. With --bounds scores are within calibrated bounds (docs/safety.md): the score of a
    dropped response is null, and each row has the policy hash, and a script (unknown_script) that the calibration did
    not hold, if there is one.
    """

    scorer: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder written by polypref fit."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Rows to score: JSONL, CSV or Parquet."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """JSONL file to write; None: standard output."""
    force: bool = False
    """Replace an existing file."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The encoder, if not the one named at fit."""
    bounds: Annotated[Path | None, tyro.conf.arg(metavar="BOUNDS.TOML", help_behavior_hint="")] = None
    """Calibrated bounds."""
    pin: Annotated[str | None, tyro.conf.arg(metavar="HASH", help_behavior_hint="")] = None
    """Refuse bounds with another policy hash."""

    def run(self) -> int:
        """Load the scorer, then read, score and write batch by batch."""
        from polypref.data.files.sources import open_source
        from polypref.data.rows.layouts import find_columns, parse_columns
        from polypref.scorers import load

        self._refuse_to_replace()
        scorer = load(self.scorer, self.encoder, allow_network=self.allow_network)
        bounded = self._bounded(scorer)
        limits = limits_of(self)
        source = open_source(self.file, limits)
        names = find_columns(self.file, source.types, ROLES, parse_columns(self.columns))
        with _output(self.out) as output:
            unknown = sum(_write(scorer, frame, output, bounded) for frame in rows_of(source, names, limits))
            self._refuse_to_replace()
        if unknown and bounded is not None and (rule := bounded.safety.rule) is not None:
            told = "dropped" if rule.drops else "let to the gate"
            say(f"{counted(unknown, 'rows')} with a script that the calibration did not hold: {told} (unknown_script).")
        return 0

    def _refuse_to_replace(self) -> None:
        """Raises as ``refuse_to_replace``; a device or a pipe is written to, not replaced."""
        from polypref.files import is_device

        if self.out is not None and not is_device(self.out):
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
    from polypref.data.giving_up import ReadSoFar
    from polypref.data.rows.formats import response_rows
    from polypref.errors import InputError

    so_far = ReadSoFar(source.path, limits)
    for batch in source.batches(list(names.values()), so_far.unusable):
        for role, name in names.items():
            missing = batch.frame[name].is_null()
            if missing.any():
                line = int(batch.line_B[missing.arg_max() or 0])
                raise InputError(f'line {line} of {source.path}: "{name}" is missing; expected a text for {role}.')
        frame = response_rows(batch, names, source.path, so_far.unusable)
        so_far.refuse_any("so answers would not line up with rows")
        so_far.add(batch, batch.rows)
        yield frame


def _write(scorer: Scorer, frame: pl.DataFrame, output: TextIO | Output, bounded: Bounded | None = None) -> int:
    """Score and write rows; how many have a script that the calibration of the bounds did not hold."""
    import numpy as np

    from polypref.bounds.gate import DROPPED
    from polypref.comparisons import Responses
    from polypref.content import excerpt
    from polypref.errors import ArtifactError
    from polypref.learners.protocol import SOURCES

    users, texts = frame["user_id"], frame["response"]
    prompts = [json.loads(p) if chat else p for p, chat in zip(frame["prompt"], frame["chat"], strict=True)]
    pool, response_Q = Responses.of(frame["prompt"], texts, frame["chat"])
    scores = scorer.score(pool, users, response_Q)
    value_Q = scores.value_Q if bounded is None else bounded.score(pool, users, response_Q)
    if bounded is None and not (finite_Q := np.isfinite(value_Q)).all():
        at = int(finite_Q.argmin())
        raise ArtifactError(
            f"the scorer's reward for the user {excerpt(users[at])} is {value_Q[at]}, not a finite number; fit "
            "and save it again."
        )
    unknown_R = [None] * len(pool) if bounded is None else bounded.safety.unknown(pool)
    unknown_Q = [unknown_R[r] for r in response_Q.tolist()]
    lines = []
    for user, prompt, response, value, source, script in zip(
        users, prompts, texts, value_Q, scores.source_Q, unknown_Q, strict=True
    ):
        row = {"user_id": user, "prompt": prompt, "response": response}
        answer = {"score": round(float(value), 6), "source": SOURCES[source]}
        if bounded is not None:
            dropped = value == DROPPED
            answer |= {"score": None if dropped else answer["score"], "policy_hash": bounded.policy_hash}
            answer |= {} if script is None else {"unknown_script": script}
        lines.append(json_text(row | answer) + "\n")
    output.write("".join(lines))
    return sum(script is not None for script in unknown_Q)


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
