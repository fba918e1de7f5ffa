"""``polypref score``: rewards of responses for users from a scorer that ``polypref fit`` saved, and who answered."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import tyro

if TYPE_CHECKING:
    import polars as pl

    from polypref.comparisons import Comparisons
    from polypref.data.sources import Source
    from polypref.learners.protocol import Scorer

ROLES = ("user_id", "prompt", "response")


@dataclass(frozen=True)
class Score:
    """Score responses for users with a saved scorer.

    Reads rows of user_id, prompt and response; writes each, in the same order, with its score and its source: personal,
    group or population. A user whom the scorer does not know gets the population's score. Only differences between
    scores of one user mean anything.
    """

    scorer: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that polypref fit has written."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Rows to score: JSONL, CSV or Parquet."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """JSONL file to write; standard output when not given."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """What turns text into features, if not the encoder named at fit."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ROLE=NAME ...", help_behavior_hint="")] = ()
    """Which column plays which role, as in user_id=annotator response=answer."""

    def run(self) -> int:
        """Load the scorer, then read, score and write batch by batch."""
        from polypref.data.layouts import parse_columns
        from polypref.data.sources import open_source

        scorer = self._load()
        source = open_source(self.file)
        names = _names(source, parse_columns(self.columns))
        with _output(self.out) as output:
            for frame in _rows(source, names):
                _write(scorer, frame, source.types[names["prompt"]] == "list", output)
        return 0

    def _load(self) -> Scorer:
        from polypref.cli.fit import read_facts
        from polypref.errors import SettingsError
        from polypref.features import encoder
        from polypref.learners import load

        facts = read_facts(self.scorer)
        name = self.encoder or facts.get("encoder")
        if not isinstance(name, str):
            if not (self.scorer / "manifest.json").exists():
                load(self.scorer, encoder("minilm"))  # says why this is no scorer
            raise SettingsError(f"{self.scorer} does not say which encoder it was fitted with; add --encoder NAME.")
        encode = encoder(name)
        fitted = facts.get("encoder_identity", encode.identity)
        if fitted != encode.identity:
            raise SettingsError(
                f"{self.scorer} was fitted on the features of [{fitted}], and {name} now gives those of "
                f"[{encode.identity}]; fit it again or give the encoder it was fitted with."
            )
        return load(self.scorer, encode)


def _names(source: Source, columns: dict[str, str]) -> dict[str, str]:
    """Role -> column. Raises InputError when the file lacks one, SettingsError for an unknown role."""
    from polypref.errors import InputError, unknown_name

    for role in columns:
        if role not in ROLES:
            raise unknown_name("role in --columns", role, ROLES)
    names = {role: columns.get(role, role) for role in ROLES}
    for role, name in names.items():
        if name not in source.types:
            found = ", ".join(source.types)
            raise InputError(
                f'{source.path}: "{name}" is missing; found: {found}. Use --columns {role} NAME to map yours.'
            )
    kind = source.types[names["prompt"]]
    if "list" in kind and kind != "list":
        raise InputError(f"{source.path}: prompts are {kind}; expected all texts or all lists of chat messages.")
    return names


def _rows(source: Source, names: dict[str, str]) -> Iterator[pl.DataFrame]:
    """The rows in batches, columns named by role. Raises InputError at the first row that cannot be scored."""
    import polars as pl

    from polypref.data.problems import Tally
    from polypref.errors import InputError

    tally = Tally()
    for batch in source.batches(list(names.values()), tally):
        if tally.problems:
            first = tally.problems[0].text
            raise InputError(f"{tally.rows} rows cannot be read, so answers would not line up with rows: {first}")
        frame = batch.frame.select(pl.col(name).cast(pl.String).alias(role) for role, name in names.items())
        for role in ROLES:
            missing = frame[role].is_null()
            if missing.any():
                line = int(batch.line_B[missing.arg_max() or 0])
                raise InputError(f'line {line} of {source.path}: "{names[role]}" is missing; expected a text.')
        yield frame


def _write(scorer: Scorer, frame: pl.DataFrame, chat: bool, output: TextIO) -> None:
    from polypref.learners.protocol import SOURCES

    pool = _pool(frame, chat)
    scores = scorer.score(pool.responses, frame["user_id"], pool.chosen_N)
    rows = zip(frame["user_id"], _prompts(frame, chat), frame["response"], scores.value_Q, scores.source_Q, strict=True)
    for user, prompt, response, value, source in rows:
        row = {"user_id": user, "prompt": prompt, "response": response}
        answer = {"score": round(float(value), 6), "source": SOURCES[source]}
        output.write(json.dumps(row | answer, ensure_ascii=False, allow_nan=False) + "\n")


def _pool(frame: pl.DataFrame, chat: bool) -> Comparisons:
    """The rows' distinct responses, and which of them each row is about, as ``chosen_N``."""
    from polypref.comparisons import from_columns

    return from_columns(frame["user_id"], _prompts(frame, chat), frame["response"], frame["response"])


def _prompts(frame: pl.DataFrame, chat: bool) -> pl.Series | list[list[dict[str, object]]]:
    """Texts as they are; chats as messages, without keys that have no value, as preferences are read."""
    if not chat:
        return frame["prompt"]
    chats = map(json.loads, frame["prompt"])
    return [[{k: v for k, v in message.items() if v is not None} for message in messages] for messages in chats]


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name only when whole."""
    from polypref.errors import CacheError

    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSONL is UTF-8 whatever the terminal's encoding
        yield sys.stdout
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as output:
            yield output
        os.replace(partial, path)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}. Free the space or choose another --out.") from error
    finally:
        partial.unlink(missing_ok=True)
