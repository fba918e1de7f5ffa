"""``polypref simulate``: a simulated world as a preference file."""

from __future__ import annotations

import io
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Simulate:
    """Write a simulated world, whose truth is known, as a preference file.

    Worlds: two-tastes, psoups-like, personalllm-like, tldr-like; docs/worlds.md tells them apart. The column attributes
    holds each user's true group. Equal settings and seed give equal files.
    """

    world: tyro.conf.Positional[str]
    """Which world."""
    out: Path
    """File to write; its ending decides the format: .jsonl, .csv or .parquet."""
    users: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """People; the world's own number if not given."""
    judgements: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Judgements of each person; the world's own number if not given."""
    seed: int = 0
    """Decides texts, people and choices."""
    force: bool = False
    """Replace a file that is there."""

    def run(self) -> int:
        """Simulate, write, say what was written."""
        from polypref.data.worlds import simulate
        from polypref.errors import SettingsError

        if self.out.suffix not in SUFFIXES:
            raise SettingsError(f"--out {self.out} ends in {self.out.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
        self._refuse_to_replace()
        changes = {"users": self.users, "judgements": self.judgements}
        world = simulate(self.world, seed=self.seed, **{k: v for k, v in changes.items() if v is not None})
        content = _encoded(world.table(), self.out.suffix)
        self._refuse_to_replace()  # somebody may have written it meanwhile
        _write(self.out, content)
        data, group_sizes = world.comparisons, Counter(world.people.group_U)
        size = f"{len(data):,} judgements of {len(data.users):,} users on {len(data.responses) // 2:,} pairs"
        print(f"{self.world}: {size}, seed {self.seed}, written to {self.out}")
        print("users in each group: " + ", ".join(f"{group} {n:,}" for group, n in group_sizes.items()))
        return 0

    def _refuse_to_replace(self) -> None:
        from polypref.errors import SettingsError

        if self.out.is_dir():
            raise SettingsError(f"--out {self.out} is a folder; name a file in it.")
        if self.out.exists() and not self.force:
            raise SettingsError(f"{self.out} exists. Choose another --out, or replace it with --force.")


def _encoded(table: pl.DataFrame, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".parquet":
        table.write_parquet(buffer)
    elif suffix == ".csv":
        table.write_csv(buffer)
    else:
        table.write_ndjson(buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
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
