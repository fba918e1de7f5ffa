"""Files that commands write: whole or not at all, never over something that is there unless asked."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".jsonl", ".csv", ".parquet")


def refuse_suffix(out: Path) -> None:
    """Raises SettingsError unless the file's ending names a format that tables are written in."""
    from polypref.errors import SettingsError

    if out.suffix not in SUFFIXES:
        raise SettingsError(f"--out {out} ends in {out.suffix!r}; expected one of {', '.join(SUFFIXES)}.")


def refuse_to_replace(out: Path, force: bool) -> None:
    """Raises SettingsError for a folder, and for a file that is there and is not to be replaced."""
    from polypref.errors import SettingsError

    if out.is_dir():
        raise SettingsError(f"--out {out} is a folder; name a file in it.")
    if out.exists() and not force:
        raise SettingsError(f"{out} exists. Choose another --out, or replace it with --force.")


def encoded(table: pl.DataFrame, suffix: str) -> bytes:
    """A table in the format of a file's ending."""
    buffer = io.BytesIO()
    if suffix == ".parquet":
        table.write_parquet(buffer)
    elif suffix == ".csv":
        table.write_csv(buffer)
    else:
        table.write_ndjson(buffer)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises CacheError when it cannot be written."""
    from polypref.errors import CacheError

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise CacheError(f"cannot write {path}: {error.strerror}. Free the space or choose another folder.") from error
