"""Settings shared by several commands, so that they are named, parsed and documented once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import arg

from polypref.arguments import AtLeastOne, Seed
from polypref.data.files.limits import NAMES, Limits, parse_limits
from polypref.runs.settings import Quiet

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.data.read import Reading
    from polypref.features.protocol import Encoder

Read = Literal["pair", "response"]  # of features.protocol, whose import takes long

Files = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(
        metavar="FILE ...",
        help="JSONL, CSV (both also .gz, .zst) or Parquet files, patterns, or hf://datasets/... paths.",
        help_behavior_hint="(one or more)",
    ),
]

MinJudgements = Annotated[AtLeastOne, arg(metavar="INT", help="Leave out users with fewer judgements.")]

Columns = Annotated[
    tuple[str, ...],
    arg(
        metavar="ROLE=NAME ...",
        help="The column of each role, as in user_id=annotator chosen=better; ROLE= leaves a column out.",
        help_behavior_hint="(default: found by their names)",
    ),
]

FileLimits = Annotated[
    tuple[str, ...],
    arg(
        metavar="NAME=N ...",
        help=f"Limits of what a file may use of this machine: {', '.join(NAMES)} (see docs/data.md).",
        help_behavior_hint="(default: more than an ordinary file needs)",
    ),
]

Ties = Annotated[
    tuple[str, ...],
    arg(
        metavar="FILE ...",
        help="Files whose rows are ties (columns response_a and response_b).",
        help_behavior_hint="(default: none)",
    ),
]

MadeFromFlag = Annotated[
    Literal["auto", "ratings", "pairs"],
    arg(
        metavar="{auto,ratings,pairs}",
        help="What judgements were made from: ratings (or rankings, votes), so that they imply each other, or pairs "
        "judged one by one; auto decides from the judgements and says why.",
    ),
]

LabelsFlag = Annotated[
    str,
    arg(
        metavar="MEANING",
        help='What labels mean: "1=A,2=B,0=tie"; index (0 or 1: who won); scale (negative: response_a; '
        "scale:1..7 names both ends, that of response_a first; the grade is the row's weight). For ratings: "
        "VALUE=NUMBER, decimal-comma, thousands. See docs/data.md.",
        help_behavior_hint="(default: decided from the whole column, or the file is refused)",
    ),
]

EncoderName = Annotated[
    str,
    arg(
        metavar="NAME",
        help="The encoder of texts: minilm, minilm-windows (reads long texts whole), minilm-4 (four of its layers), "
        "static, hf:MODEL, endpoint:URL; or several: minilm+static.",
    ),
]


AllowNetwork = Annotated[
    bool,
    arg(help="Allow requests to servers and downloads of models that a saved folder names. Your API key is not sent."),
]


@dataclass(frozen=True, kw_only=True)
class Seeded(Quiet):
    """Settings of a command with random draws."""

    seed: Seed = 0
    """Seed of all random draws; equal seeds give equal results."""


@dataclass(frozen=True, kw_only=True)
class Caches(Quiet):
    """Settings of a command that turns text into features, or loads what does."""

    cache: bool = True
    """Keep the features of texts on disk for the next run; --no-cache keeps them in memory and writes none."""


@dataclass(frozen=True, kw_only=True)
class Encodes(Caches):
    """Settings of a command that turns text into features."""

    encoder: EncoderName = "minilm"


@dataclass(frozen=True, kw_only=True)
class ReadsQuestion(Encodes):
    """Settings of a command that fits learners on text."""

    features: Read = "pair"
    """What learners read: the response, how it relates to its prompt and its style (pair), or the response alone."""

    def text_encoder(self) -> Encoder:
        """The encoder. Raises SettingsError for an unknown name."""
        from polypref.features import encoder

        return encoder(self.encoder, features=self.features)


@dataclass(frozen=True, kw_only=True)
class Loads(Caches):
    """Settings of a command that loads models named by an artifact."""

    allow_network: AllowNetwork = False


@dataclass(frozen=True, kw_only=True)
class Limited(Quiet):
    """A command that reads files from elsewhere."""

    limits: FileLimits = ()


@dataclass(frozen=True, kw_only=True)
class NamesColumns(Limited):
    """A command that reads rows."""

    columns: Columns = ()


@dataclass(frozen=True, kw_only=True)
class ReadsJudgements(NamesColumns):
    """Settings of a command whose preference files have another name; ``files`` returns them."""

    labels: LabelsFlag = ""
    ties: Ties = ()
    made_from: MadeFromFlag = "auto"


@dataclass(frozen=True, kw_only=True)
class Reads(ReadsJudgements):
    """Settings of a command whose arguments are preference files."""

    files: Files


@dataclass(frozen=True, kw_only=True)
class UsesSlates(Loads):
    """Settings of a command that uses labelled slates and calibrated bounds."""

    part: Annotated[str, arg(metavar="K/N", help_behavior_hint="(default: all of it)")] = "1/1"
    """Use part K (or K-L) of N of the slates, split by prompt, to train, calibrate and audit on different ones."""
    raters: Annotated[str | None, arg(metavar="RULE", help_behavior_hint="")] = None
    """Slates labelled by several raters: majority, share=S or group=S, see docs/safety.md."""
    pin: Annotated[str | None, arg(metavar="HASH", help_behavior_hint="")] = None
    """Refuse bounds with another policy hash."""


@dataclass(frozen=True, kw_only=True)
class WritesFolder(Quiet):
    """A command that writes a folder, which no other run may write meanwhile."""

    out: Path
    """Folder of the results."""
    force: bool = False
    """Replace a finished result of other settings."""

    def writes(self) -> tuple[str, ...]:
        """Names of the files that it writes into the folder; none where the folder is an artifact."""
        return ()

    def finishes(self) -> bool:
        """Whether the folder holds a result once it has run."""
        return True


@dataclass(frozen=True, kw_only=True)
class Replaces(Quiet):
    """Settings of a command that writes one file."""

    out: Path
    """File to write; its ending gives the format: .jsonl, .csv or .parquet."""
    force: bool = False
    """Replace an existing file."""


def ensure_files(command: Quiet, files: tuple[str, ...], usage: str) -> None:
    """Raise SettingsError, with ``usage`` (the command and what it needs), if no file is named.

    A flag of several values takes the files that follow it, so the error names that flag.
    """
    from polypref.errors import SettingsError

    if files:
        return
    name = usage.split()[0]
    took = [(f.name, value[-1]) for f in fields(command) if _is_file(value := getattr(command, f.name))]
    if took:
        flag = f"--{took[0][0].replace('_', '-')}"
        raise SettingsError(
            f"{name} needs at least one preference file, and {flag} took {took[0][1]}. Files go first: polypref {name} "
            f"FILE ... {flag} ..."
        )
    raise SettingsError(f"{name} needs at least one preference file: polypref {usage}.")


def _is_file(value: object) -> bool:
    """Whether a setting has several texts, the last of which may be a file."""
    from polypref.data.files.sources import SUFFIXES

    if not isinstance(value, tuple) or not value or not isinstance(value[-1], str):
        return False
    path = Path(value[-1].removesuffix(".gz").removesuffix(".zst"))
    return path.suffix.lower() in SUFFIXES or "://" in value[-1]


def reading_of(command: ReadsJudgements, files: tuple[str, ...], rating_gap: float = 0.0) -> Reading:
    """``files``, read in the columns and as what the command says."""
    from polypref.data.read import ReadOptions, read
    from polypref.data.rows.layouts import parse_columns

    columns = parse_columns(command.columns)
    options = ReadOptions(
        columns, command.ties, command.made_from, rating_gap, limits=limits_of(command), labels=command.labels
    )
    return read(files, options)


def limits_of(command: Limited) -> Limits:
    """What the files that the command reads may ask of this machine."""
    return parse_limits(command.limits)


def cleaned(reading: Reading) -> Comparisons:
    """The comparisons without the rows that the linter drops; what it drops is said."""
    from polypref.data.given import comparisons_of

    return comparisons_of(reading)


def some_of(ids: list[str], most: int = 5) -> str:
    """The first of some users' ids, for a message."""
    return ", ".join(map(repr, ids[:most])) + (f" and {len(ids) - most:,} more" if len(ids) > most else "")


def refuse_suffix(out: Path) -> None:
    """Raises SettingsError unless the file's ending names a format of tables."""
    from polypref.errors import SettingsError
    from polypref.files import TABLES

    if out.suffix not in TABLES:
        raise SettingsError(f"--out {out} ends in {out.suffix!r}; expected one of {', '.join(TABLES)}.")


def refuse_to_replace(out: Path, force: bool) -> None:
    """Raises SettingsError for a folder, and, without ``force``, for an existing file or a link; CacheError.

    A command asks before its work and again before it writes: a file may have appeared meanwhile.
    """
    from polypref.errors import SettingsError
    from polypref.files import OTHER_OUT, writable

    with writable(out, OTHER_OUT):
        folder, there = out.is_dir(), out.exists() or out.is_symlink()
    if folder:
        raise SettingsError(f"--out {out} is a folder; name a file in it.")
    if there and not force:
        raise SettingsError(f"{out} exists. Choose another --out, or replace it with --force.")
