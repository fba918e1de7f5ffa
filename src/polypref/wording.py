"""Numbers and names as the report prints them. What is missing prints as a dash or "unknown", never as 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

MISSING = "–"


def finite(value: Any) -> float | None:
    """The number, or None for what is absent, NaN, infinite or no number at all."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any, digits: int = 3) -> str:
    """``0.832``; a count as ``5,460``; a dash when missing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace("-", "−")
    return MISSING if (known := finite(value)) is None else unsigned_zero(f"{known:,.{digits}f}")


def signed(value: Any, digits: int = 3) -> str:
    """``+0.068`` or ``−0.004``; a dash when missing."""
    return MISSING if (known := finite(value)) is None else unsigned_zero(f"{known:+.{digits}f}")


def percent(value: Any) -> str:
    """A share in percent, without the sign: ``83.2``."""
    return MISSING if (known := finite(value)) is None else number(100 * known, 1)


def points(value: Any) -> str:
    """A difference of shares in percentage points: ``+6.8``."""
    return MISSING if (known := finite(value)) is None else signed(100 * known, 1)


def unsigned_zero(text: str) -> str:
    """No sign before a rounded zero; a real minus sign elsewhere."""
    return text.lstrip("+-") if not text.strip("+-0.,") else text.replace("-", "−")


def interval(row: Mapping[str, Any] | None, write: Callable[[Any], str] = number) -> str:
    """``0.821–0.843``, or ``−0.4 to +1.2`` where signs would touch the dash; empty when either end is unknown."""
    if row is None or finite(row.get("lo")) is None or finite(row.get("hi")) is None:
        return ""
    lo, hi = write(float(row["lo"])), write(float(row["hi"]))
    return f"{lo} to {hi}" if {lo[0], hi[0]} & {"+", "−"} else f"{lo}–{hi}"


def unbroken(text: str) -> str:
    """A sentence whose percent signs stay with their numbers."""
    return text.replace(" %", "\u00a0%")


def plain(key: str) -> str:
    """A key as words: ``worst_user_regret`` -> ``worst user regret``."""
    return key.replace("_", " ")


def count(n: Any, noun: str) -> str:
    """``1 user``, ``124 users``, ``an unknown number of users``."""
    if finite(n) is None:
        return f"an unknown number of {noun}s"
    return f"{number(int(n))} {noun}{'' if n == 1 else 's'}"


def units(n: Any, plural: str) -> str:
    """A regular plural such as "users", or its singular where there is one."""
    return plural.removesuffix("s") if n == 1 else plural
