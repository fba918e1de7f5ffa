"""The unit of work: one learner fitted on one cut of the data and scored on the test rows, stored by content hash.

A cell's hash covers everything that decides its numbers: data, encoder, learner and settings, training size, seed,
split rule, arm, and the source of the learner, of this module and of every polypref module they import. A stored cell
is a folder that is written whole or not at all, so a run that is killed anywhere finds its finished cells again.

Not covered by the hash: versions of numpy, torch and other packages.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polypref import artifact
from polypref.comparisons import Comparisons
from polypref.data.split import Rule, Split, check_leaks, split
from polypref.errors import PolyprefError
from polypref.evaluation.budgets import Rows, training_rows
from polypref.evaluation.placebo import shuffle_users
from polypref.evaluation.settings import Budget
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Learner, ReadsModel, margins

Arm = Literal["real", "shuffled"]
KIND = "cell"


@dataclass(frozen=True)
class Cell:
    """``learner`` by name, ``size`` training comparisons (None: all), ``seed`` of the split, real or shuffled users.

    ``budget`` says what ``size`` counts: comparisons in all, or those of each user.
    """

    learner: str
    size: int | None
    seed: int
    arm: Arm = "real"
    budget: Budget = "total"

    def __str__(self) -> str:
        each = " per user" if self.budget == "per-user" else ""
        size = "all data" if self.size is None else f"size {self.size:,}{each}"
        return f"{self.learner}, {size}, seed {self.seed}" + (", shuffled users" if self.arm == "shuffled" else "")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cell stores: ``margin_T`` and ``source_T`` (index into SOURCES) on the test rows of its seed."""

    cell: Cell
    serves: str
    selection: dict[str, Any]
    seconds: float
    margin_T: NDArray[np.float32]
    source_T: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class StoredCells(ABC):
    """What all cells of a run share; travels to the workers in one file, with what was computed of it."""

    comparisons: Comparisons
    encoder: Encoder
    learners: dict[str, Learner]
    rule: Rule
    folder: Path

    @abstractmethod
    def content(self, cell: Any) -> dict[str, Any]:
        """What decides the numbers of a cell beside data, encoder, learner and source."""

    @cached_property
    def code(self) -> dict[str, str]:
        """Hash of the source behind each learner, taken once: an edit during a run must not rename its cells."""
        own = code_hash(type(self).__module__)
        return {name: f"{code_hash(type(learner).__module__)} {own}" for name, learner in self.learners.items()}

    def path(self, cell: Any) -> Path:
        """Folder of the stored cell, named by its content hash."""
        learner = self.learners[cell.learner]
        content = {
            "data": self.comparisons.content_hash,
            "encoder": self.encoder.identity,
            "learner": [type(learner).__module__, type(learner).__qualname__, asdict(learner)],  # type: ignore[call-overload]
            "code": self.code[cell.learner],
            **self.content(cell),
        }
        if isinstance(learner, ReadsModel):
            content["model"] = learner.identity
        text = json.dumps(content, sort_keys=True, default=str)
        return self.folder / blake2b(text.encode(), digest_size=12).hexdigest()

    def is_stored(self, cell: Any) -> bool:
        return (self.path(cell) / "manifest.json").exists()


@dataclass(frozen=True, eq=False)
class Job(StoredCells):
    """The cells of ``compare``."""

    @cached_property
    def _splits(self) -> dict[int, Split]:
        return {}

    def training_rows(self, size: int | None, seed: int, budget: Budget) -> tuple[Rows, Rows]:
        """The seed's training and validation rows, cut to a size. Raises SettingsError where that cannot be."""
        return training_rows(self.parts(seed), size, seed, budget, self.comparisons.user_N)

    def parts(self, seed: int) -> Split:
        """The split of a seed, cut and checked for leaks once."""
        if seed not in self._splits:
            parts = split(self.comparisons, self.rule, seed)
            check_leaks(self.comparisons, parts)
            self._splits[seed] = parts
        return self._splits[seed]

    def content(self, cell: Cell) -> dict[str, Any]:
        """See ``StoredCells``."""
        return {"cell": [cell.size, cell.seed, cell.arm, cell.budget], "rule": self.rule}


def run(job: Job, cell: Cell) -> None:
    """Fit and score one cell and store the outcome."""
    started = time.perf_counter()
    parts = job.parts(cell.seed)
    train_rows, valid_rows = job.training_rows(cell.size, cell.seed, cell.budget)
    train, valid = job.comparisons.take(train_rows), job.comparisons.take(valid_rows)
    if cell.arm == "shuffled":
        train, valid = shuffle_users(train, cell.seed), shuffle_users(valid, cell.seed)
    scorer = job.learners[cell.learner].fit(train, encoder=job.encoder, seed=cell.seed, valid=valid)
    scores = margins(scorer, job.comparisons.take(parts.test_rows))
    unknown = int((~np.isfinite(scores.value_Q)).sum())
    if unknown:
        raise PolyprefError(
            f"{unknown:,} of {len(scores.value_Q):,} test rows got a score that is not a finite number."
        )
    selection = dict(scorer.selection)
    if scores.unanswered_Q is not None:
        selection["test_unanswered"] = float(scores.unanswered_Q.mean())
    config = {
        "cell": asdict(cell),
        "serves": scorer.serves,
        "selection": selection,
        "seconds": time.perf_counter() - started,
    }
    arrays = {"margin_T": scores.value_Q.astype(np.float32), "source_T": scores.source_Q.astype(np.int8)}
    artifact.save(job.path(cell), KIND, config, arrays)


def read(job: Job, cell: Cell) -> Outcome:
    """A stored cell's outcome."""
    config, arrays = artifact.load(job.path(cell), KIND)
    return Outcome(
        cell, config["serves"], config["selection"], config["seconds"], arrays["margin_T"], arrays["source_T"]
    )


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
            state.update(os.urandom(16))  # written in a notebook: nothing tells that it is unchanged
        if path is not None:
            source = path.read_bytes()
            state.update(name.encode() + b"\0" + source)
            waiting += sorted(_imported(source), reverse=True)
    return state.hexdigest()


def _source(module: str) -> Path | None:
    """The module's source file; None for what is no module, or has no file. Of polypref's own nothing is imported."""
    if module.startswith("polypref."):
        place = Path(artifact.__file__).parent.joinpath(*module.split(".")[1:])
        return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    loaded = sys.modules.get(module)
    if loaded is None:
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:  # a name within a module, not a module
            return None
        origin = None if spec is None else spec.origin
    else:
        origin = getattr(loaded, "__file__", None)
    return Path(origin) if origin and origin.endswith(".py") else None


def _imported(source: bytes) -> set[str]:
    """Names in ``source`` that may be polypref modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("polypref.")}
