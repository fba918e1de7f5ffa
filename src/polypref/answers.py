"""A short answer in plain words: a few lines with their data, made once and shown by terminal, page and JSON alike.

    Line("people", "Who gains", "10 surely gain, ...", {"better": 10, ...})

In a text, names of learners and settings stand in backquotes. A command stands apart from the text, so that it can be
copied whole.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from polypref.wording import unbroken, visible

WIDTH = 80


@dataclass(frozen=True)
class Line:
    """One line: ``name`` is its key in JSON, ``title`` what it is about, ``data`` JSON types, ``command`` may be empty.

    ``name``, ``title``, ``text`` and ``command`` are themselves keys in JSON, so ``data`` must not have them.
    """

    name: str
    title: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Answer:
    """The lines, in their order."""

    lines: tuple[Line, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """By name: title, text, command and data of every line."""
        return {one.name: {"title": one.title, "text": one.text, "command": one.command, **one.data} for one in self}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """From what ``as_dict`` gave; entries of another shape are left out."""
        told = {name: one for name, one in content.items() if isinstance(one, Mapping) and "text" in one}
        own = ("title", "text", "command")
        return cls(
            tuple(
                Line(
                    name,
                    str(one.get("title", name)),
                    str(one["text"]),
                    {key: value for key, value in one.items() if key not in own},
                    str(one.get("command") or ""),
                )
                for name, one in told.items()
            )
        )

    def __iter__(self):
        return iter(self.lines)

    def __bool__(self) -> bool:
        return bool(self.lines)

    def printed(self, width: int = WIDTH) -> list[str]:
        """Lines of at most ``width`` characters; only a command, on a line of its own, may be longer."""
        found: list[str] = []
        for number, one in enumerate(self, start=1):
            text = f"{number}. {one.title}: {one.text}"
            found += wrapped(text, width, "   ")
            found += [f"   {visible(one.command)}"] if one.command else []
        return found


def wrapped(text: str, width: int = WIDTH, indent: str = "") -> list[str]:
    """The text in lines of at most ``width``; ``indent`` begins all but the first.

    Numbers keep their percent sign, and names in backquotes stay in one line.
    """
    whole = re.sub(r"`[^`]{1,40}`", lambda name: name[0].replace(" ", "\u00a0"), visible(text))
    lines = textwrap.wrap(
        unbroken(whole), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\u00a0", " ") for line in lines]
