"""Validates artifacts from elsewhere before they are used: declared fields and arrays.

A ``Layout`` declares an artifact's content. Fields are type hints, arrays have symbolic sizes:

    class Fields(TypedDict):
        users: Ids
        penalty: float

    LAYOUT = Layout(Fields, {"weights_UK": floats("U", "K"), "mean_K": floats("K")}, sizes={"U": "users"})

A symbol gets its value from ``sizes`` or from its first use alone, and keeps it everywhere; "K-2", "2H" and "K+Z" are
sums of symbols, "T*D" is a product. Everything declared must be present, and nothing else. A number of the fields that
is a size must be that of an array with as many values, so no memory is reserved for a size that is only stated.

Covered: missing and extra keys, wrong types, inconsistent sizes, sizes without values, numbers that are not finite,
indices out of range. Not covered: whether the numbers are sensible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from math import prod
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
from numpy.typing import NDArray

from polypref.errors import ArtifactError

SHOWN = 60  # characters of a wrong value

Ids = Annotated[list[str], "distinct"]
"""Different texts, none of them empty or with a NUL character."""
Selection = dict[str, float | str]
"""Settings chosen on validation rows, and figures there."""
Json = Any
"""Any JSON value."""


# --- fields


def conform(value: Any, hint: Any, where: str) -> None:
    """Raise ArtifactError, naming the place within ``where``, unless a JSON value matches the type hint.

    Hints: bool, int, float (finite, an int too), str, None, Literal, unions, ``list[T]``, ``tuple[T, ...]`` (a list),
    ``dict[str, T]``, ``Ids``, TypedDict and dataclasses (objects of exactly these keys), and Any.
    """
    origin = get_origin(hint)
    if hint is Any:
        return
    if origin is Annotated:
        base, rule = get_args(hint)
        conform(value, base, where)
        assert rule == "distinct", rule
        if len(set(value)) < len(value):
            raise _wrong(where, _repeated(value), "different texts")
        odd = next((one for one in value if not one or "\0" in one), None)
        if odd is not None:
            raise _wrong(where, odd, "texts that are not empty and have no character NUL")
    elif origin in (Union, UnionType):
        if not any(_fits(value, one, where) for one in get_args(hint)):
            raise _wrong(where, value, _named(hint))
    elif origin is Literal:
        if not any(value == one and type(value) is type(one) for one in get_args(hint)):
            raise _wrong(where, value, _named(hint))
    elif origin in (list, tuple):
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        _all_conform(enumerate(value), get_args(hint)[0], where + "[{}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        _all_conform(value.items(), get_args(hint)[1], where + ".{}")
    elif is_typeddict(hint) or is_dataclass(hint):
        _object_conforms(value, hint, where)
    elif not _is(value, hint):
        raise _wrong(where, value, _named(hint))


def _all_conform(items: Iterable[tuple[Any, Any]], hint: Any, place: str) -> None:
    for at, one in items:
        if not (hint is str and type(one) is str):  # the list of users may be long
            conform(one, hint, place.format(_shown(at) if isinstance(at, str) else at))


def _object_conforms(value: Any, hint: Any, where: str) -> None:
    hints = _hints(hint)
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    if value.keys() != hints.keys():
        differ = sorted(value.keys() ^ hints.keys())[0]
        fault = "is missing" if differ in hints else "is not known"
        raise ArtifactError(f"{where}: the key {_shown(differ)} {fault}; expected {', '.join(hints) or 'none'}.")
    for name, one in hints.items():
        conform(value[name], one, f"{where}.{name}")


@lru_cache(maxsize=256)
def _hints(hint: Any) -> dict[str, Any]:
    """The type hint of each key: annotations, or those of a dataclass's fields."""
    hints = get_type_hints(hint, include_extras=True)
    return {name: hints[name] for name in hint.__dataclass_fields__} if is_dataclass(hint) else hints


def _is(value: Any, hint: Any) -> bool:
    if hint in (None, NoneType):
        return value is None
    if hint is float:
        return type(value) in (int, float) and abs(value) < float("inf") and abs(value) < 2**1000
    if hint is int:
        return type(value) is int and abs(value) < 2**64
    assert hint in (bool, str), hint
    return type(value) is hint


def _fits(value: Any, hint: Any, where: str) -> bool:
    try:
        conform(value, hint, where)
    except ArtifactError:
        return False
    return True


NAMES = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", NoneType: "null"}


def _named(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_named, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(json.dumps(one) for one in get_args(hint))
    return NAMES.get(hint, "an object" if not get_origin(hint) else "a list")


def _wrong(where: str, value: Any, expected: str) -> ArtifactError:
    return ArtifactError(f"{where} is {_shown(value)}; expected {expected}.")


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)) and len(value) > 4:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    text = json.dumps(value) if type(value) is not int or abs(value) < 2**64 else "a huge number"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _repeated(values: list[str]) -> str:
    seen: set[str] = set()
    return next(one for one in values if one in seen or seen.add(one))


# --- arrays


@dataclass(frozen=True)
class Array:
    """One array: its ``sizes`` (numbers, symbols, sums or products; None: any), its ``dtype`` and limits of its values.

    ``below``   integers from ``least`` up to below this size; None: any.
    ``rises``   each value is larger than the one before ("strictly"), or at least as large ("weakly").
    ``span``    weakly rising from 0 to this size: the starts of parts.
    ``finite``  no NaN and no infinity; ``positive``  all above 0.
    ``together``  prefix of arrays that exist together or not at all; without them, their sizes are 0.
    """

    sizes: tuple[str | int | None, ...]
    dtype: str = "float64"
    below: str | int | None = None
    least: int = 0
    rises: Literal["strictly", "weakly"] | None = None
    span: str | None = None
    finite: bool = True
    positive: bool = False
    together: str = ""


def floats(*sizes: str | int | None, dtype: str = "float64") -> Array:
    """Finite numbers."""
    return Array(sizes, dtype)


def indices(size: str, below: str | int, *, least: int = 0, dtype: str = "int32") -> Array:
    """Indices below the size ``below``."""
    return Array((size,), dtype, below=below, least=least)


def identities(size: str, rises: Literal["strictly", "weakly"] | None = "strictly") -> Array:
    """Identities of texts (``content.packed``), in ascending byte order."""
    return Array((size, 16), "uint8", rises=rises)


def keys(size: str, rises: Literal["strictly", "weakly"] | None = "strictly", dtype: str = "uint64") -> Array:
    """Content keys in ascending order."""
    return Array((size,), dtype, rises=rises)


Arrays = Mapping[str, Array]
Numbers = Mapping[str, NDArray]


@dataclass(frozen=True)
class Layout:
    """An artifact's content: ``fields`` (a TypedDict or dataclass), ``arrays``, and the relations of their sizes.

    ``arrays``  by name; a function of the fields, if they decide which exist.
    ``endings`` by the last parts of their names, where the first depend on a model: every array that ends so, at least
                one; other arrays may exist. None: all are declared by their whole names.
    ``sizes``   symbol -> place in the fields, as "users" or "how.latent": a list's length, or a number.
    ``may_lack``  prefixes of arrays that exist together or not at all.
    ``rule``    further conditions: a function of fields and arrays that returns what is wrong, or None.
    """

    fields: Any
    arrays: Arrays | Callable[[Mapping[str, Any]], Arrays] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    may_lack: tuple[str, ...] = ()
    rule: Rule | None = None
    endings: Callable[[Mapping[str, Any]], Arrays] | None = None

    def check(self, config: Any, arrays: Numbers, where: str) -> None:
        """Raise ArtifactError, naming the place within ``where``, unless fields and arrays match the declaration."""
        conform(config, self.fields, where)
        self._check_arrays(config, arrays, where)
        if self.rule is not None and (wrong := self.rule(config, arrays)):
            raise ArtifactError(f"{where}: {wrong}.")

    def _check_arrays(self, config: Mapping[str, Any], arrays: Numbers, where: str) -> None:
        declared = self._declared(config, arrays, where)
        known = {symbol: 0 for one in self._lacking(config, arrays) for size in one.sizes for symbol in _symbols(size)}
        known |= {symbol: _size_at(config, place) for symbol, place in self.sizes.items()}
        for name, one in declared.items():
            _ensure_shape(arrays[name], one, known, f"{where}: the array {name}")
        for symbol, place in self.sizes.items():
            uses = [name for name, one in declared.items() if any(symbol in _symbols(size) for size in one.sizes)]
            if uses and known[symbol] > max(arrays[name].size for name in uses):
                raise ArtifactError(f"{where}: {place} is {known[symbol]}, and no array has as many values.")
        for name, one in declared.items():
            _ensure_values(arrays[name], one, known, f"{where}: the array {name}")

    def _declared(self, config: Mapping[str, Any], arrays: Numbers, where: str) -> Arrays:
        """The declaration of each array. Raises ArtifactError if one is missing or not known."""
        if self.endings is not None:
            found = {}
            for ending, one in self.endings(config).items():
                named = [name for name in arrays if name == ending or name.endswith(f".{ending}")]
                if not named:
                    raise ArtifactError(f"{where}: there is no array {_shown(ending)}.")
                found |= dict.fromkeys(named, one)
            return found
        declared = self._all(config)
        for prefix in (*self.may_lack, *{one.together for one in declared.values() if one.together}):
            if not any(name.startswith(prefix) for name in arrays):
                declared = {name: one for name, one in declared.items() if not name.startswith(prefix)}
        if arrays.keys() != declared.keys():
            differ = sorted(arrays.keys() ^ declared.keys())[0]
            fault = "is missing" if differ in declared else "is not known"
            raise ArtifactError(f"{where}: the array {_shown(differ)} {fault}.")
        return declared

    def _all(self, config: Mapping[str, Any]) -> Arrays:
        return self.arrays(config) if callable(self.arrays) else self.arrays

    def _lacking(self, config: Mapping[str, Any], arrays: Numbers) -> list[Array]:
        """The arrays of ``together`` that do not exist."""
        if self.endings is not None:
            return []
        return [one for name, one in self._all(config).items() if one.together and name not in arrays]

    def with_more(
        self,
        fields: Any,
        arrays: Arrays,
        *,
        sizes: Mapping[str, str] | None = None,
        may_lack: tuple[str, ...] = (),
        rule: Rule | None = None,
    ) -> Layout:
        """This layout with further arrays; ``fields`` are all of them."""
        assert isinstance(self.arrays, Mapping) and self.endings is None
        return Layout(
            fields,
            {**self.arrays, **arrays},
            {**self.sizes, **(sizes or {})},
            (*self.may_lack, *may_lack),
            _both(self.rule, rule),
        )


Rule = Callable[[Mapping[str, Any], Numbers], "str | None"]
"""What is wrong with fields and arrays that match the declaration; None: nothing."""


def _both(one: Rule | None, other: Rule | None) -> Rule | None:
    if one is None or other is None:
        return one or other
    return lambda config, arrays: one(config, arrays) or other(config, arrays)


def _size_at(config: Any, place: str) -> int:
    for name in place.split("."):
        config = config[name]
    return config if isinstance(config, int) else len(config)


def _ensure_shape(array: NDArray, one: Array, known: dict[str, int], where: str) -> None:
    if array.dtype != np.dtype(one.dtype):
        raise ArtifactError(f"{where} has the type {array.dtype}; expected {one.dtype}.")
    expected = None
    if array.ndim == len(one.sizes):
        for size, found in zip(one.sizes, array.shape, strict=True):
            if isinstance(size, str) and re.fullmatch(r"[A-Za-z]\w*", size) and size not in known:
                known[size] = found
        expected = tuple(_value(size, known, found) for size, found in zip(one.sizes, array.shape, strict=True))
    if array.shape != expected:
        symbols = ", ".join(map(str, one.sizes))
        values = "" if expected is None else f", which is {expected} here"
        raise ArtifactError(f"{where} has the shape {array.shape}; expected ({symbols}){values}.")


def _symbols(size: str | int | None) -> list[str]:
    return re.findall(r"[A-Za-z]\w*", size) if isinstance(size, str) else []


def _value(size: str | int | None, known: dict[str, int], found: int) -> int:
    """The value of a sum of symbols; an unknown symbol by itself, and None, get the value ``found``."""
    if not isinstance(size, str):
        return found if size is None else size
    if "*" in size:
        return prod(known[symbol] for symbol in size.split("*"))
    total, unknown = 0, None
    for sign, times, symbol in re.findall(r"([+-]?)(\d*)((?:[A-Za-z]\w*)?)", size):
        if times or symbol:
            number = (-1 if sign == "-" else 1) * int(times or 1)
            if symbol and symbol not in known:
                assert unknown is None and number == 1, size
                unknown = symbol
            else:
                total += number * (known[symbol] if symbol else 1)
    if unknown is None:
        return total
    known[unknown] = max(found - total, 0)
    return known[unknown] + total


def _ensure_values(array: NDArray, one: Array, known: dict[str, int], where: str) -> None:
    if not array.size:
        if one.span is not None:
            raise ArtifactError(f"{where} is empty; expected the starts of parts, from 0.")
        return
    if one.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArtifactError(f"{where} contains a number that is not finite.")
    if one.positive and not (array > 0).all():
        raise ArtifactError(f"{where} holds {array.min()}; expected numbers above 0.")
    if one.below is not None:
        limit = _value(one.below, known, 0)
        if int(array.min()) < one.least or int(array.max()) >= limit:
            raise ArtifactError(f"{where} holds {array.min()} to {array.max()}; expected {one.least} to {limit - 1}.")
    if one.rises is not None:
        ordered = array if array.ndim == 1 else np.ascontiguousarray(array).view(f"S{array.shape[1]}").ravel()
        after, before = ordered[1:], ordered[:-1]
        if not (after > before if one.rises == "strictly" else after >= before).all():
            raise ArtifactError(f"{where} is not in ascending order.")
    if one.span is not None and (
        array[0] != 0 or array[-1] != _value(one.span, known, 0) or (array[1:] < array[:-1]).any()
    ):
        raise ArtifactError(f"{where} does not rise from 0 to {_value(one.span, known, 0)}.")
