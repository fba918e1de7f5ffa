"""TOML from elsewhere: all settings files are read by it.

Covered: deep nesting and long dotted keys, which cost ``tomllib`` the square of their length, are told before they are
parsed; whole numbers beyond 64 bits, which Python may not be able to print. Not covered: files of many megabytes;
``regular_files.content_of`` bounds them.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

DEEPEST = 16  # of nested lists and tables, and of the parts of a key
MOST = 1 << 22  # bytes of a settings file: limits of some 100,000 users
TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'  # an unfinished string ends where tomllib stops
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+"
    r"|[\[\]{}.,=\n]",
    re.DOTALL,
)


def loads(text: str) -> dict[str, Any]:
    """The TOML document in ``text``. Raises ValueError, in one line."""
    _ensure_shallow(text)
    try:
        found = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise (ValueError("a huge number") if "int_max_str" in str(error) else error) from None
    waiting: list[tuple[str, Any]] = [("", found)]
    while waiting:
        key, one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.items()
        elif isinstance(one, list):
            waiting += [(key, inner) for inner in one]
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError(f"{key[:60]!r} is a whole number beyond 64 bits")
    return found


def _ensure_shallow(text: str) -> None:
    depth = parts = 0
    for token in TOKEN.finditer(text):
        kind = token[0]
        if kind == ".":
            parts += 1
        elif kind in ("[", "]", "{", "}", ",", "=", "\n"):
            depth, parts = depth + (kind in "[{") - (kind in "]}"), 0
        if parts >= DEEPEST or depth > DEEPEST:
            raise ValueError(f"a key of more than {DEEPEST} parts" if parts else f"more than {DEEPEST} levels")
