"""Formatting of numbers, names and texts for people: one rounding, one minus sign, one dash, one form of escapes.

Missing values print as a dash or "unknown", never as 0. Names and texts come from outside (columns, files, users,
prompts), so all printed ones go through ``visible``: it escapes control characters, characters that change the reading
direction, and invisible ones.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"
SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Printable for Python but invisible on the screen: fillers, selectors without a variant, and tags.
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0d\U000e0100-\U000e01ef"
EMPTY = re.compile(f"[{UNSEEN}]")
SUSPECT = re.compile(rf"[^\w !-~]|[{UNSEEN}]")
# Characters with a meaning in a line of Markdown; not an underscore within a word; "&" only if it begins an entity.
MARKDOWN = re.compile(r"[\\`*\[\]|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
IRREGULAR = {"people": "person", "categories": "category", "other quantities": "other quantity"}
SPACES = frozenset(" \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")


def visible(text: str, keep: str = "") -> str:
    """``text`` with every character escaped that has an effect or is invisible; ``keep`` stays as it is.

    Escaped, as Python writes them (``\\x1b``, ``\\u202e``): controls (C0, C1, line breaks and tabs too), marks of
    direction and joining, line and paragraph separators, zero-width and filler characters, lone surrogates, private and
    unassigned code points. Letters, marks and signs of all scripts, emoji and every kind of space stay.
    """
    return _replaced(text, _python_escape, keep)


def json_text(value: Any, indent: int | None = None) -> str:
    """Printable JSON: the same value, with what ``visible`` escapes written as JSON escapes."""
    return printable_json(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def printable_json(text: str) -> str:
    """JSON with what ``visible`` escapes written as JSON escapes; nothing else changes."""
    return _replaced(text, lambda character: json.dumps(character)[1:-1], "\n")


def _replaced(text: str, escape: Callable[[str], str], keep: str) -> str:
    if text.isprintable() and not EMPTY.search(text):
        return text
    return SUSPECT.sub(lambda found: found[0] if _seen(found[0]) or found[0] in keep else escape(found[0]), text)


def _seen(character: str) -> bool:
    return character in SPACES or (character.isprintable() and not EMPTY.match(character))


def _python_escape(character: str) -> str:
    code = ord(character)
    return SHORT.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def markdown_text(text: str) -> str:
    """``text`` as literal Markdown: no table cell, code, link, emphasis or HTML begins or ends in it."""
    return MARKDOWN.sub(r"\\\g<0>", visible(text)).replace("<", "&lt;")


def markdown_line(cells: Iterable[str]) -> str:
    """A row of a Markdown table; the cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def html_text(text: str) -> str:
    """``text`` escaped for HTML or SVG, also within an attribute's quotes."""
    return html.escape(visible(text, keep="\n\t"))


def shown(value: object, width: int = 60) -> str:
    """A value quoted in a message: in quotes, on one line, shortened if long, with every character visible."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return f'"{visible(text[:width])}..."' if len(text) > width else f'"{visible(text)}"'


def shortened(text: str, most: int = 2000) -> str:
    """``text`` without its middle if it is longer than ``most``, since the end says what to do next."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... ({len(text) - most:,} characters) ... {text[len(text) - most // 2 :]}"


def finite(value: Any) -> float | None:
    """The number, or None if it is absent, NaN, infinite or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any, digits: int = 3) -> str:
    """``0.832``; a count as ``5,460``; a dash if missing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace("-", "−")
    return MISSING if (known := finite(value)) is None else unsigned_zero(f"{known:,.{digits}f}")


def signed(value: Any, digits: int = 3) -> str:
    """``+0.068`` or ``−0.004``; a dash if missing."""
    return MISSING if (known := finite(value)) is None else unsigned_zero(f"{known:+.{digits}f}")


def percent(value: Any, digits: int = 1) -> str:
    """A share in percent, without the sign: ``83.2``."""
    return MISSING if (known := finite(value)) is None else number(100 * known, digits)


def share(value: Any, digits: int = 0) -> str:
    """A share in percent, with the sign: ``83 %``."""
    return MISSING if finite(value) is None else f"{percent(value, digits)} %"


def points(value: Any, digits: int = 1) -> str:
    """A difference of shares in percentage points: ``+6.8``."""
    return MISSING if (known := finite(value)) is None else signed(100 * known, digits)


def unsigned_zero(text: str) -> str:
    """No sign before a rounded zero; a real minus sign elsewhere."""
    return text.lstrip("+-") if not text.strip("+-0.,") else text.replace("-", "−")


def interval(row: Mapping[str, Any] | None, write: Callable[[Any], str] = number) -> str:
    """``0.821–0.843``, or ``−0.4 to +1.2`` if signs would touch the dash; empty if either end is unknown."""
    if row is None or finite(row.get("lo")) is None or finite(row.get("hi")) is None:
        return ""
    lo, hi = write(float(row["lo"])), write(float(row["hi"]))
    return f"{lo} to {hi}" if {lo[0], hi[0]} & {"+", "−"} else f"{lo}–{hi}"


def estimate(row: Mapping[str, Any] | None, write: Callable[[Any], str] = number, key: str = "value") -> str:
    """A figure and its 95 % interval: ``+6.8 (+1.2 to +9.9)``; the figure alone if an end is unknown."""
    ends = interval(row, write)
    return write(None if row is None else row.get(key)) + (f" ({ends})" if ends else "")


def code(name: object) -> str:
    """A name or command set off from its sentence by backquotes; pages show it as code."""
    return f"`{name}`"


def unbroken(text: str) -> str:
    """A sentence whose percent signs are not separated from their numbers."""
    return text.replace(" %", "\u00a0%")


def plain(key: str) -> str:
    """A key as words: ``worst_user_regret`` -> ``worst user regret``."""
    return key.replace("_", " ")


def counted(n: Any, things: str) -> str:
    """``1 user``, ``2,000 users``, ``an unknown number of users``, from a plural such as "users"."""
    return f"an unknown number of {things}" if finite(n) is None else f"{number(int(n))} {units(n, things)}"


def units(n: Any, plural: str) -> str:
    """A plural such as "users", or its singular for one."""
    return plural if n != 1 else IRREGULAR.get(plural) or plural.removesuffix("s")


def listed(things: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if things[1:] else things)


def are(n: Any) -> str:
    """The verb of ``n`` things."""
    return "is" if n == 1 else "are"
