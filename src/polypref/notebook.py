"""How objects look in a console and in a notebook: one short line, and a small HTML table.

Everything that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polypref.wording import counted, html_text, visible

LONGEST = 60  # characters of a fact that is text


class Shown:
    """Base of the objects that are shown by ``facts``: counts by what is counted, or texts by name."""

    def facts(self) -> Mapping[str, object]:
        """What the line and the table show, in this order; None: left out."""
        raise AssertionError(f"{type(self).__name__} has no facts")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(map(_words, *zip(*_known(self.facts()), strict=True)))}>"

    def _repr_html_(self) -> str:
        rows = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in _known(self.facts())]
        return table(rows, caption=type(self).__name__)


class ShownResponses(Shown):
    """A pool of responses."""

    def facts(self: Any) -> Mapping[str, object]:
        return {"responses": len(self.texts_R), "prompts": len(self.prompts)}


class ShownUsers(Shown):
    """People with their attributes."""

    def facts(self: Any) -> Mapping[str, object]:
        named = [] if self.attributes is None else self.attributes.columns
        return {"users": len(self.ids), "attributes": ", ".join(named) or None}


class ShownComparisons(Shown):
    """Judgements of people about responses."""

    def facts(self: Any) -> Mapping[str, object]:
        ties = None if self.tie_N is None else int(self.tie_N.sum())
        return {
            "judgements": len(self),
            "ties": ties,
            **self.users.facts(),
            **self.responses.facts(),
            "made from": self.lists or None,
        }


def _known(facts: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(name, value) for name, value in facts.items() if value is not None]


def _words(name: str, value: object) -> str:
    return counted(value, name) if isinstance(value, int) else f"{_short(name)} {_short(value)}"


def _short(value: object) -> str:
    text = visible(str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def table(rows: Iterable[Sequence[object]], titles: Sequence[str] = (), caption: str = "") -> str:
    """An HTML table of texts; all of them are escaped."""
    head = f"<tr>{''.join(f'<th>{_cell(title)}</th>' for title in titles)}</tr>" if titles else ""
    body = "".join(f"<tr>{''.join(f'<td>{_cell(one)}</td>' for one in row)}</tr>" for row in rows)
    return f"<table><caption>{_cell(caption)}</caption>{head}{body}</table>"


def _cell(value: object) -> str:
    return html_text(str(value))
