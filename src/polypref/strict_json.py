"""Strict JSON: all files that polypref writes for itself (manifests, results, states, checkpoints) are read by it.

Rows of data, and files that other packages write, follow the common rule instead: of equal keys the last one counts.

Covered: duplicate keys, NaN, infinity, numbers beyond floats, deep nesting, lone surrogates, other encodings.
"""

from __future__ import annotations

import json
import re
from typing import Any

from polypref.errors import ArtifactError

DEEPEST = 32  # of nested lists and objects
MOST_CONTAINERS = 1_000_000
FEW_CONTAINERS = 200  # harmless for the parser at any nesting
SHOWN = 60  # characters of a wrong value


def parse(raw: bytes, where: str) -> Any:
    """The JSON value in ``raw``, strictly. Raises ArtifactError, naming ``where``."""
    try:
        return loads(raw)
    except UnicodeError:
        raise ArtifactError(f"{where} is not UTF-8 text; expected JSON written by polypref.") from None
    except ValueError as error:
        raise ArtifactError(f"{where} is not JSON written by polypref: {error}. Make it again.") from None


def loads(raw: bytes) -> Any:
    """The JSON value in ``raw``, strictly. Raises ValueError."""
    text = raw.decode("utf-8")
    _ensure_shallow(text)
    try:
        found = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise (ValueError("a huge number") if "int_max_str" in str(error) else error) from None
    if "\\u" in text:
        canonical(found).encode("utf-8")  # it may contain a lone surrogate as an escape
    return found


def canonical(value: Any) -> str:
    """The canonical form in which a JSON value is hashed. Raises ValueError for NaN and infinity."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _ensure_shallow(text: str) -> None:
    if text.count("[") + text.count("{") <= FEW_CONTAINERS:  # avoids reading a long list of users twice
        return
    depth = count = 0
    for bracket in re.finditer(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', text, re.DOTALL):
        kind = bracket[0]
        if kind in "[{":
            depth, count = depth + 1, count + 1
            if depth > DEEPEST or count > MOST_CONTAINERS:
                raise ValueError(f"more than {DEEPEST} levels" if depth > DEEPEST else "too many lists and objects")
        elif kind in "]}":
            depth -= 1


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {json.dumps(twice)[:SHOWN]} occurs twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _finite(digits: str) -> float:
    if abs(number := float(digits)) == float("inf"):
        raise ValueError(f"{digits[:SHOWN]} is too large a number")
    return number
