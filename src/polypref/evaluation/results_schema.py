"""The keys of ``results.json`` and ``new_users.json``, in one place for writers and readers.

Both files are interfaces for other programs: keys are added, never renamed or removed, within a schema number.
docs/protocol.md describes every key. They contain no NaN: an unknown value is null. A missing key is read as its empty
value: a table without rows, a section whose entries are None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from polypref import strict_json
from polypref.errors import InputError, reason, unknown_name
from polypref.evaluation.results_table import GAIN, PLACEBO, ROW, SHUFFLED, ResultTable
from polypref.regular_files import content_of

SCHEMA = 1
Section = Mapping[str, Any]
KINDS: dict[str, type] = {"schema": int, "size": int, "sizes": list, "findings": list}  # others: tables and objects
EXPECTED = {int: "a whole number", list: "a list", dict: "an object"}


def table(columns: Iterable[str]) -> Any:
    """A key that holds a table whose rows have the keys ``columns``."""
    return field(default_factory=ResultTable, metadata={"columns": tuple(columns)})


def section(*names: str, **known: Any) -> Any:
    """A key with an object that has at least ``names`` (None by default) and ``known``."""
    empty = dict.fromkeys(names) | known
    return field(default_factory=lambda: dict(empty), metadata={"empty": empty})


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The keys of both files."""

    schema: int = SCHEMA
    data: Section = section(
        *("hash", "n_users", "n_comparisons", "n_ties", "n_pairs", "n_responses", "n_prompts", "min_judgements"),
        *("users_left_out", "comparisons_left_out"),
        files=(),
    )
    encoder: Section = section("name", "identity", "features")
    split: Section = section("rule", "why")
    baseline: Section = section("learner", "valid_accuracy", candidates={})
    sizes: Sequence[Section] = ()
    rows: ResultTable = table(ROW)
    gains: ResultTable = table(GAIN)
    selection: Section = section()
    serves: Section = section()
    findings: Sequence[Section] | None = None
    settings: Section = section(learners={})
    reproduce: Section = section("command")
    versions: Section = section()
    machine: Section = section()
    timing: Section = section()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """From JSON types. Raises InputError for a key with a value of another kind."""
        found: dict[str, Any] = {}
        for key in fields(cls):
            value: Any = content.get(key.name)
            if value is None:
                continue
            _check(key.name, value, KINDS.get(key.name, list if "columns" in key.metadata else dict))
            if "columns" in key.metadata:
                value = ResultTable.of(value)
            empty = key.metadata.get("empty")
            found[key.name] = value if empty is None else empty | {k: v for k, v in value.items() if v is not None}
        return cls(**found)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file. Raises InputError, in one line, if it is not such a file or has another schema."""
        try:
            content = strict_json.loads(content_of(path))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON ({reason(error)}). Run polypref again.") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{path} has schema {schema!r}; expected {SCHEMA}. Run polypref again.")
        try:
            return cls.of(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """JSON types; unknown values, and a missing baseline, are None."""
        found = {key.name: getattr(self, key.name) for key in fields(self)}
        for key in fields(self):
            if "columns" in key.metadata:
                found[key.name] = found[key.name].as_dicts(key.metadata["columns"])
        return plain(found | {"baseline": self.baseline if self.floor else None})

    def with_metadata(self, added: Mapping[str, Any]) -> Self:
        """With more keys, or more entries of sections. Raises SettingsError for an unknown key."""
        known = [key.name for key in fields(self)]
        for name in added:
            if name not in known:
                raise unknown_name("key of the results", name, known)
        merged = {k: {**getattr(self, k), **v} if isinstance(v, Mapping) else v for k, v in added.items()}
        return replace(self, **merged)

    @property
    def floor(self) -> str | None:
        """The population learner that gains are measured against; None if there is none."""
        return self.baseline["learner"]

    @property
    def personal(self) -> list[str]:
        """The learners that know users."""
        return [name for name, serves in self.serves.items() if serves != "population"]


@dataclass(frozen=True, kw_only=True)
class CompareContents(Contents):
    """The content of results.json."""

    answer: Section = section()
    verdict: Section = section(
        "best", "text", room="unclear", reason="", passed=(), until="", lacks="", measure="accuracy"
    )
    method: Section = section("learner", level=())
    behind_best: ResultTable = table(GAIN)
    pays: Section = section(*("amount", "people", "of", "median", "value", "lo", "hi", "fewest", "source"))
    gains_by_amount: ResultTable = table(GAIN)
    size: int | None = None
    gains_over_pooled: ResultTable = table(GAIN)
    gains_over_shuffled: ResultTable = table(SHUFFLED)
    gains_of_these_users: ResultTable = table(SHUFFLED)
    placebo: ResultTable = table(PLACEBO)
    users: Mapping[str, Mapping[str, int]] = section()
    users_sure: Mapping[str, int] = section()
    users_over_pooled: Mapping[str, Mapping[str, int]] = section()
    profile: Section | None = None

    def counts(self, learner: str) -> Section:
        """Users ``better`` and ``worse`` off under a learner, and ``tested`` ones; None if not counted."""
        return {"better": None, "worse": None, "tested": None, **self.users.get(learner, {})}


def _check(name: str, value: Any, kind: type) -> None:
    """Raise InputError unless a key's value is of its kind."""
    if not isinstance(value, kind):
        raise InputError(f"{name!r} of the results is {str(value)[:80]}; expected {EXPECTED[kind]}.")
    if isinstance(value, list) and not all(isinstance(one, dict) for one in value):
        raise InputError(f"{name!r} of the results holds {str(value)[:80]}; expected objects.")


def plain(content: Any) -> Any:
    """The same as JSON types; a number that is not finite becomes None."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if hasattr(content, "item") and not isinstance(content, str):  # a numpy scalar
        content = content.item()
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Path):
        return str(content)
    return content
