"""Formats a table of measured and published figures as Markdown, LaTeX or HTML; it computes nothing.

A cell keeps measured and published figures apart: Markdown prints the published figure in brackets and italics, LaTeX
and HTML print it in grey. A missing figure is a dash. Footnotes have keys and are numbered in the order in which a
table first refers to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from polypref.wording import MISSING, markdown_line, visible
from polypref.wording import html_text as escape
from polypref.wording import markdown_text as _piped

LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
}


@dataclass(frozen=True)
class Cell:
    """A figure ``measured`` here, one ``published`` elsewhere, the measured one's ``interval``, keys of footnotes."""

    measured: str | None = None
    published: str | None = None
    interval: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of a table: its label, the label's footnotes, one cell per column."""

    label: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column, its group (columns of one group are adjacent) and the group's footnotes."""

    title: str
    group: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """``remarks`` are sentences under the table; ``texts`` holds the footnotes by key."""

    key: str
    title: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows), f"{self.key}: ragged rows"

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each footnote that the table refers to."""
        keys: list[str] = [key for column in self.columns for key in column.notes]
        for row in self.rows:
            keys += [*row.notes, *(key for cell in row.cells for key in cell.notes)]
        return {key: number for number, key in enumerate(dict.fromkeys(keys), 1)}

    @property
    def groups(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """Each group of adjacent columns: title, number of columns, footnotes."""
        found: list[tuple[str, int, tuple[str, ...]]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1, tuple(dict.fromkeys(found[-1][2] + column.notes)))
            else:
                found.append((column.group, 1, column.notes))
        return found


def markdown(tables: Sequence[Table], legend: str, intervals: bool = False) -> str:
    """All tables as one Markdown document."""
    return "\n".join([f"{_piped(legend)}\n", *(_markdown(table, intervals) for table in tables)])


def _markdown(table: Table, intervals: bool) -> str:
    numbers = table.numbers

    def marked(text: str, notes: Iterable[str]) -> str:
        marks = ", ".join(str(numbers[key]) for key in notes)
        return _piped(text) + (f"<sup>{marks}</sup>" if marks else "")

    def cell(one: Cell) -> str:
        text = "" if one.measured is None else _piped(one.measured)
        if intervals and one.interval:
            text += f" ({one.interval})"
        if one.published is not None:
            text = f"{text or MISSING} *[{_piped(one.published)}]*"
        return marked("", one.notes).join([text or MISSING, ""])

    titles = [f"{column.group} {column.title}".strip() for column in table.columns]
    heads = [marked(title, column.notes) for title, column in zip(titles, table.columns, strict=True)]
    lines = [f"## {_piped(table.title)}", "", markdown_line([_piped(table.head), *heads])]
    lines.append("|---|" + "---:|" * len(heads))
    for row in table.rows:
        lines.append(markdown_line([marked(row.label, row.notes), *map(cell, row.cells)]))
    lines += [""] + [f"{_piped(remark)}\n" for remark in table.remarks]
    lines += [f"{number}. {_piped(table.texts[key])}" for key, number in numbers.items()]
    return "\n".join(lines).rstrip() + "\n"


def latex(tables: Sequence[Table], legend: str, intervals: bool = False) -> str:
    """All tables as a LaTeX document that compiles by itself; each table can be copied out of it."""
    lines = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[landscape,margin=15mm]{geometry}",
        r"\usepackage{booktabs,xcolor,graphicx}",
        r"\newcommand{\published}[1]{{\color{gray}#1}}",
        r"\begin{document}",
        _tex(legend),
        *(_latex(table, intervals) for table in tables),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _latex(table: Table, intervals: bool) -> str:
    numbers = table.numbers

    def marked(text: str, notes: Iterable[str]) -> str:
        marks = ",".join(str(numbers[key]) for key in notes)
        return text + (rf"\textsuperscript{{{marks}}}" if marks else "")

    def cell(one: Cell) -> str:
        text = _tex(one.measured or MISSING)
        if intervals and one.interval:
            text += rf" {{\footnotesize ({_tex(one.interval)})}}"
        if one.published is not None:
            text += rf" \published{{{_tex(one.published)}}}"
        return marked(text, one.notes)

    lines = [r"\begin{table}[p]\centering", rf"\caption{{{_tex(table.title)}}}\label{{tab:{table.key}}}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    if any(title for title, _, _ in table.groups):
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{marked(_tex(title), notes)}}}" for title, n, notes in table.groups]
        lines += [" & ".join(["", *spans]) + r" \\"]
        heads = [_tex(column.title) for column in table.columns]
    else:
        heads = [marked(_tex(column.title), column.notes) for column in table.columns]
    lines += [" & ".join([_tex(table.head), *heads]) + r" \\", r"\midrule"]
    for row in table.rows:
        lines.append(" & ".join([marked(_tex(row.label), row.notes), *map(cell, row.cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    below = [_tex(remark) for remark in table.remarks]
    below += [rf"\textsuperscript{{{number}}} {_tex(table.texts[key])}." for key, number in numbers.items()]
    if below:
        lines += [r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize", " ".join(below), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in visible(text))


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1b1b;background:#fff}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
thead tr:last-child th{border-bottom:1px solid #444}thead tr:first-child th{border-top:2px solid #444}
.group{text-align:center;border-bottom:1px solid #bbb}tbody tr:last-child td{border-bottom:2px solid #444}
.published{color:#767676}small{color:#444}ol{font-size:.85rem;color:#333;margin:.5rem 0 0;padding-left:1.4rem}
p.remark{font-size:.9rem;margin:.4rem 0 0}
"""


def html(tables: Sequence[Table], legend: str, intervals: bool = False) -> str:
    """All tables as one self-contained page; intervals are also the tooltips of the measured figures."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>polypref tables</title>',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style></head><body>',
            f"<p>{escape(legend)}</p>",
            *(_html(table, intervals) for table in tables),
            "</body></html>\n",
        )
    )


def _html(table: Table, intervals: bool) -> str:
    numbers = table.numbers

    def marked(text: str, notes: Iterable[str]) -> str:
        marks = ", ".join(f'<a href="#{table.key}-{numbers[key]}">{numbers[key]}</a>' for key in notes)
        return text + (f"<sup>{marks}</sup>" if marks else "")

    def cell(one: Cell) -> str:
        tip = f' title="95 % interval {escape(one.interval)}"' if one.interval else ""
        text = f'<span class="measured"{tip}>{escape(one.measured or MISSING)}</span>'
        if intervals and one.interval:
            text += f" <small>({escape(one.interval)})</small>"
        if one.published is not None:
            text += f' <span class="published">{escape(one.published)}</span>'
        return f"<td>{marked(text, one.notes)}</td>"

    grouped = any(title for title, _, _ in table.groups)
    lines = [f'<section id="{table.key}"><h2>{escape(table.title)}</h2><div class="wide"><table><thead>']
    if grouped:
        spans = (
            f'<th class="group" colspan="{n}">{marked(escape(title), notes)}</th>' for title, n, notes in table.groups
        )
        lines.append(f"<tr><th></th>{''.join(spans)}</tr>")
    heads = (f"<th>{marked(escape(c.title), () if grouped else c.notes)}</th>" for c in table.columns)
    lines.append(f"<tr><th>{escape(table.head)}</th>{''.join(heads)}</tr></thead><tbody>")
    for row in table.rows:
        lines.append(f"<tr><td>{marked(escape(row.label), row.notes)}</td>{''.join(map(cell, row.cells))}</tr>")
    lines.append("</tbody></table></div>")
    lines += [f'<p class="remark">{escape(remark)}</p>' for remark in table.remarks]
    notes = "".join(f'<li id="{table.key}-{number}">{escape(table.texts[key])}</li>' for key, number in numbers.items())
    lines += [f"<ol>{notes}</ol>"] if notes else []
    return "\n".join([*lines, "</section>"])
