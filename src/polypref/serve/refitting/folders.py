"""The scorers of a store as folders: each in a folder that is named by its hash, next to the store or shared by hosts.

A name in the store never decides a path but by being such a hash, and a scorer is used only if its folder still has it:
a folder that was changed is refused. Folders are complete or absent, whenever a process is killed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from polypref import artifact, scorers
from polypref.errors import ArtifactError
from polypref.features.protocol import Encoder
from polypref.files import writable
from polypref.learners.protocol import Forgets, Scorer
from polypref.serve.store.opened import is_database

HASH = re.compile("[0-9a-f]{64}")
WORK = "refit"  # the folder of a refit that is not finished


def beside(store: Path) -> Path:
    """Where the scorers of an SQLite store are."""
    return store.with_name(f"{store.name}.scorers")


def folders_of(store: str | Path, given: Path | None) -> Folders | None:
    """Where a store's scorers are: ``given``, or beside a store in a file; None: a database without such a folder."""
    if given is not None:
        return Folders(given)
    return None if is_database(store) else Folders(beside(Path(store)))


class Folders:
    """The folder ``path`` with a store's scorers; it is made when the first is added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def work(self) -> Path:
        """Where a refit keeps what it has done."""
        return self.path / WORK

    def at(self, digest: str) -> Path:
        """The folder of a scorer. Raises ArtifactError for what is no hash."""
        if not HASH.fullmatch(digest):
            raise ArtifactError(f"the store names the scorer {digest[:80]!r}, which is no hash of a scorer's folder.")
        return self.path / digest

    def hashes(self) -> list[str]:
        """The scorers that have a folder."""
        if not self.path.is_dir():
            return []
        return sorted(one.name for one in self.path.iterdir() if HASH.fullmatch(one.name) and one.is_dir())

    def add(self, folder: Path) -> str:
        """Copy a scorer's folder here; returns its hash. Raises ArtifactError, CacheError."""
        digest = artifact.digest_of(folder, scorers.KIND)
        if not self.has(digest):
            artifact.save(self.at(digest), scorers.KIND, *artifact.load(folder, scorers.KIND))
            self.ensure(digest)
        return digest

    def has(self, digest: str) -> bool:
        """Whether the folder of this scorer is there, unchanged."""
        try:
            self.ensure(digest)
        except ArtifactError:
            return False
        return True

    def keep(self, scorer: Scorer) -> str:
        """Save a scorer here; returns its hash. Raises CacheError."""
        new = self.path / "new"
        scorers.save(scorer, new)
        digest = self.add(new)
        self.remove(new)
        return digest

    def load(self, digest: str, encoder: Encoder | str | None = None, *, allow_network: bool = False) -> Scorer:
        """The scorer with this hash. Raises ArtifactError where its folder is missing or was changed."""
        folder = self.at(digest)
        self.ensure(digest)
        scorer = scorers.load(folder, encoder, allow_network=allow_network)
        self.ensure(digest)  # it may have been replaced meanwhile
        return scorer

    def ensure(self, digest: str) -> None:
        """Raise ArtifactError unless the folder of this scorer is there and has its hash."""
        if (found := artifact.digest_of(self.at(digest), scorers.KIND)) != digest:
            raise ArtifactError(f"{self.at(digest)} was changed: its hash is {found[:16]}; put the folder back.")

    def remove(self, folder: Path) -> None:
        """Remove a folder below this one. Raises CacheError."""
        if folder.exists():
            with writable(folder):
                shutil.rmtree(folder)


def known_to(scorer: Scorer) -> list[str]:
    """The people of whom a scorer has rows of their own."""
    return scorer.known_users().ids.to_list() if isinstance(scorer, Forgets) else []
