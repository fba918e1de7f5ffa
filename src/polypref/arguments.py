"""Checks of settings and arguments: types, ranges and lengths, stated once and used by commands and Python alike.

A setting's type says what it may be: ``Count = Annotated[int, Range(1, ...)]``. ``check_settings`` compares every field
of a settings object with its type, ``expect`` a single argument. Each error is one line with the name, what was given,
and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from polypref.errors import InputError, SettingsError

MOST = 2**31 - 1


class WrongValue(SettingsError):
    """A setting's value has another type or is out of its range."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(name, value, expected)  # all are in args, which pickle passes to __init__
        self.name, self.value, self.expected = name, value, expected

    def __str__(self) -> str:
        return f"{self.name} is {self.value}; expected {self.expected}."


@dataclass(frozen=True)
class Range:
    """Numbers from ``least`` to ``most``; without the ends themselves if ``open``. Neither NaN nor infinite."""

    least: float
    most: float = MOST
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least < value < self.most if self.open else self.least <= value <= self.most

    def __str__(self) -> str:
        least, most = f"{self.least:,}", f"{self.most:,}"
        if self.most == math.inf:
            return f"above {least}" if self.open else f"from {least}"
        return f"between {least} and {most}" if self.open else f"from {least} to {most}"


Seed = Annotated[int, Range(0, 2**32 - 1)]
Seeds = Annotated[int, Range(1, 10_000)]
PairedSeeds = Annotated[int, Range(2, 10_000)]  # one leaves no interval
Port = Annotated[int, Range(0, 65_535)]
Processes = Annotated[int, Range(0, 1024)]
AtLeastOne = Annotated[int, Range(1)]
AtLeastZero = Annotated[int, Range(0)]
People = Annotated[int, Range(1, 10_000_000)]
Resamples = Annotated[int, Range(100, 1_000_000)]
Slates = Annotated[int, Range(100, 10_000_000)]
Tries = Annotated[int, Range(0, 1_000_000)]
Samples = Annotated[int, Range(2, 1_000_000)]
Numbers = Annotated[int, Range(1, 1000)]
NotNegative = Annotated[float, Range(0, math.inf)]
Above = Annotated[float, Range(0, math.inf, open=True)]
Share = Annotated[float, Range(0, 1)]
ProperShare = Annotated[float, Range(0, 1, open=True)]
Dtype = Literal["stored", "float32", "bfloat16"]  # of a trained model's weights


def check_settings(settings: Any) -> None:
    """Raise WrongValue for a field of a frozen dataclass that is not of its type, or out of its range.

    A list becomes a tuple where a tuple is expected, so that settings cannot change.
    """
    hints = _hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        checked = expect(field.name, value, hints[field.name])
        if checked is not value:
            object.__setattr__(settings, field.name, checked)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def expect(name: str, value: Any, kind: Any) -> Any:
    """``value`` as a ``kind``, which is a type as in a dataclass. Raises WrongValue for anything else.

    Checked are numbers, texts, booleans, literals, paths, and tuples, mappings and unions of them; other types are not.
    """
    if _unset(value):
        return value
    parts = get_args(_bare(kind))
    if _of(kind) is tuple and isinstance(value, list | tuple):
        return tuple(expect(name, one, parts[0]) for one in value)
    if not _fits(value, kind):
        raise WrongValue(name, quoted(value), _described(kind))
    return value


def expect_instance(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise InputError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is {quoted(value)} (type {type(value).__name__}); expected {expected}.")


def _unset(value: Any) -> bool:
    """Whether tyro has still to fill this value in."""
    return type(value).__module__.startswith("tyro.")


def _of(kind: Any) -> Any:
    """What a type is made with: ``tuple`` of ``Annotated[tuple[int, ...], ...]``."""
    bare = _bare(kind)
    return get_origin(bare) or bare


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        inner, *about = get_args(kind)
        return _fits(value, inner) and all(
            value in one for one in about if isinstance(one, Range) and value is not None
        )
    made, parts = _of(kind), get_args(kind)
    if made in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if made is Literal:
        return isinstance(value, str | int | NoneType) and value in parts
    if made is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if made is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if made is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return made not in (str, bool, tuple, NoneType, Path) or isinstance(value, made)


def _described(kind: Any) -> str:
    """The values of a type in words."""
    if get_origin(kind) is Annotated:
        inner, *about = get_args(kind)
        return " ".join([_described(inner), *(str(one) for one in about if isinstance(one, Range))])
    made, parts = _of(kind), get_args(kind)
    if made in (Union, UnionType):
        return " or ".join(_described(part) for part in parts if part is not NoneType)
    if made is Literal:
        return ", ".join(map(repr, parts[:-1])) + f" or {parts[-1]!r}"
    if made is tuple:
        return f"a list or tuple, each {_described(parts[0])}"
    if made is Mapping:
        return "a dictionary of texts"
    words = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False", Path: "a Path"}
    return words.get(made) or f"a {getattr(made, '__name__', made)}"


def quoted(value: object) -> str:
    """A value for a message: at most 60 characters, on one line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python prints no whole number of many digits
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
