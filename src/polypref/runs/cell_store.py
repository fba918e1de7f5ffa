"""Stored cells: the part that all cells of a run share, and a hash of everything that affects their numbers.

The hash covers data, encoder, learner and settings, the additions of the kind of cell, and the source code of the
learner, of the cell's own module and of every polypref module that they import. A stored cell is a folder that is
written atomically, so a run killed at any point finds its finished cells again.

Not covered by the hash: versions of numpy, torch and other packages.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from numpy.typing import NDArray

from polypref import artifact, content
from polypref.comparisons import Comparisons
from polypref.data.split import Rule
from polypref.errors import ArtifactError
from polypref.features.protocol import Encoder, read_by
from polypref.regular_files import content_of
from polypref.schema import Layout
from polypref.terminal import say


@runtime_checkable
class HasIdentity(Protocol):
    """Only learners with their own model, whose identity names everything that affects its answers."""

    @property
    def identity(self) -> str: ...


@dataclass(frozen=True, eq=False)
class StoredCells(ABC):
    """The part that all cells of a run share; it goes to the workers in one file, with what was computed from it."""

    kind: ClassVar[str]
    layout: ClassVar[Layout]

    comparisons: Comparisons
    encoder: Encoder
    learners: Mapping[str, Any]
    rule: Rule
    folder: Path

    @abstractmethod
    def content(self, cell: Any) -> dict[str, Any]:
        """What affects the numbers of a cell besides data, encoder, learner and source."""

    @cached_property
    def code(self) -> dict[str, str]:
        """Hash of each learner's source, computed once, so that an edit during a run does not rename its cells."""
        own = code_hash(type(self).__module__)
        return {name: f"{code_hash(type(learner).__module__)} {own}" for name, learner in self.learners.items()}

    def path(self, cell: Any) -> Path:
        """Folder of the stored cell, named by its content hash."""
        learner = self.learners[cell.learner]
        parts = {
            "data": self.comparisons.content_hash,
            "encoder": self.encoder.identity,
            "features": read_by(self.encoder),
            "learner": [type(learner).__module__, type(learner).__qualname__, asdict(learner)],
            "code": self.code[cell.learner],
            **self.content(cell),
        }
        if isinstance(learner, HasIdentity):
            parts["model"] = learner.identity
        text = json.dumps(parts, sort_keys=True, default=str)
        return self.folder / blake2b(text.encode(), digest_size=12).hexdigest()

    def save(self, cell: Any, config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
        """Store a finished cell. Raises CacheError."""
        artifact.save(self.path(cell), self.kind, config, arrays)

    def load(self, cell: Any) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """A stored cell's settings and arrays. Raises ArtifactError if it is missing or damaged."""
        path = self.path(cell)
        config, arrays = artifact.load(path, self.kind)
        self.layout.check(config, arrays, str(path))
        return config, arrays

    def is_stored(self, cell: Any) -> bool:
        """Whether a cell is stored completely; a damaged one is reported and removed, to be computed again."""
        path = self.path(cell)
        if not (path / artifact.MANIFEST).exists() and not path.is_symlink():
            return False
        try:
            self.load(cell)
        except ArtifactError as error:
            say(f"a finished cell is computed again ({cell}): {error}")
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
            return False
        return True


def code_hash(module: str) -> str:
    """Hash of the source of ``module`` and of all polypref modules that it imports, directly or through others."""
    state = blake2b(digest_size=8)
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _source(name)
        if path is None and name == module:
            state.update(os.urandom(16))  # written in a notebook, so it is unknown whether it is unchanged
        if path is not None:
            source = content_of(path)
            state.update(content.framed(name) + content.framed(source))
            waiting += sorted(_imported(source), reverse=True)
    return state.hexdigest()


def _source(module: str) -> Path | None:
    """The module's source file; None if it is not a module or has no file. No polypref module is imported."""
    if module.startswith("polypref."):
        place = Path(artifact.__file__).parent.joinpath(*module.split(".")[1:])
        return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    loaded = sys.modules.get(module)
    if loaded is None:
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:  # a name in a module, not a module
            return None
        origin = None if spec is None else spec.origin
    else:
        origin = getattr(loaded, "__file__", None)
    return Path(origin) if origin and origin.endswith(".py") else None


@cache
def _imported(source: bytes) -> frozenset[str]:
    """Names in ``source`` that may be polypref modules; learners share most of what they import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.startswith("polypref."))
