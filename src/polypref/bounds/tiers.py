"""The settings of ``bounds.toml``: their types and lines, and the rule that a later tier may only tighten them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polypref.bounds.calibrate import Target
from polypref.errors import SettingsError, unknown_name

TIERS = ("immutable", "organisation", "user")
LOWER, HIGHER, FIXED = "lower", "higher", "fixed"
KEYS: dict[str, tuple[type, str, int]] = {  # kind of value, which way is tighter, the last tier that may set it
    "safety": (str, FIXED, 0),
    "by_category": (bool, FIXED, 0),
    "rewritings": (list, FIXED, 0),
    "unknown": (str, FIXED, 0),
    "alpha": (float, LOWER, 1),
    "delta": (float, LOWER, 1),
    "cap": (float, LOWER, 2),
    "most_candidates": (int, LOWER, 2),
    "floor": (float, HIGHER, 2),
    "safety_weight": (float, HIGHER, 1),
    "ample": (float, HIGHER, 1),
    "steering": (float, LOWER, 1),
}
HUGE = 1e12
DROP, PASS = "drop", "pass"  # what becomes of texts in scripts that the calibration did not hold
# what [immutable] means where it does not say
DEFAULTS = {"alpha": Target.alpha, "delta": Target.delta, "unknown": DROP}
SURE = 0.1  # the largest delta that is stricter than a mean


@dataclass(frozen=True)
class Setting:
    """A value, and where it was set: the table's name as in the file, and the line (0: not found)."""

    value: Any
    table: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}, [{self.table}]" if self.line else f"[{self.table}]"


def lines_of(text: str) -> dict[tuple[str, str], int]:
    """(table, key) -> line; the first is 1."""
    table, found = "", {}
    for number, line in enumerate(text.split("\n"), 1):
        if (begun := line.lstrip()).startswith("[") and "]" in begun:
            table = begun[1 : begun.index("]")].strip().replace('"', "").replace("'", "")
        elif key := re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line):
            found.setdefault((table, key[1]), number)
    return found


def settings_of(
    path: Path, table: str, tier: int, values: Mapping[str, Any], lines: Mapping[tuple[str, str], int]
) -> dict[str, Setting]:
    """The settings of one table. Raises SettingsError for an unknown one, one that another tier sets, and a value that
    cannot be."""
    found = {}
    for name, value in values.items():
        line = lines.get((table, name), 0)
        if name not in KEYS:
            raise unknown_name(f"key on line {line} of {path}, [{table}]", name, KEYS)
        kind, _, last = KEYS[name]
        where = f"line {line} of {path}: [{table}] {name} = {value!r}"
        if tier > last:
            raise SettingsError(f"{where}; only [{'] and ['.join(TIERS[: last + 1])}] may set it.")
        if not _is_a(kind, value):
            what = {
                list: "a list of names",
                str: "a text",
                bool: "true or false",
                float: "a number",
                int: "a whole number",
            }[kind]
            raise SettingsError(f"{where}; expected {what}.")
        least = {"most_candidates": 1, "floor": -HUGE, "ample": -HUGE}.get(name, 0)
        if kind in (float, int) and not (least <= value <= HUGE):
            raise SettingsError(f"{where[:200]}; expected {least:.6g} or more, and finite.")
        if name == "unknown" and value not in (DROP, PASS):
            raise SettingsError(f'{where}; expected "{DROP}" or "{PASS}".')
        if isinstance(value, str) and not value.strip():
            raise SettingsError(f"{where}; expected the name of a folder.")
        found[name] = Setting(value, table, line)
    return found


def _is_a(kind: type, value: object) -> bool:
    """Whether a value is of the kind; a list is one of texts, and a whole number is a number."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool) else whole or (kind is float and isinstance(value, float))


def tightened(path: Path, held: Mapping[str, Setting], by: Mapping[str, Setting]) -> dict[str, Setting]:
    """What holds after ``by``. Raises SettingsError where that would loosen anything, naming both lines."""
    for name, new in by.items():
        old = held.get(name)
        if old is None:
            continue
        loosens = new.value > old.value if KEYS[name][1] == LOWER else new.value < old.value
        if name == "delta" and 0 in (old.value, new.value):  # 0 asks for the mean alone
            loosens = old.value != new.value and (new.value == 0 or new.value > SURE)
        if loosens:
            way = "less" if KEYS[name][1] == LOWER else "more"
            raise SettingsError(
                f"{path}: {name} = {new.value!r} of {new} loosens {name} = {old.value!r} of {old}; a later tier may "
                f"only tighten. Set {old.value!r} or {way}, or remove it."
            )
    return {**held, **by}
