"""Tables in a terminal: at most 80 characters wide, every number whole, whatever the names and numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref import terminal
from polypref.cli.compare_summary import show_numbers
from polypref.cli.groups import _show as show_groups
from polypref.evaluation.collect_results import collect
from polypref.evaluation.results_schema import CompareContents
from polypref.newcomers.tables import NewContents, gain_lines, table_lines
from polypref.report.paper import legend, tables
from polypref.report.table import markdown
from polypref.wording import interval, markdown_line, markdown_text, number, percent, points
from table_example import FIGURES, content, folder

NAMES = st.text(st.sampled_from("abcXYZ -_:.|*`\\<"), min_size=1, max_size=90).map(lambda text: f"n{text}n")
FIGURE = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
CELLS = st.one_of(
    FIGURE.map(number),
    FIGURE.map(points),
    FIGURE.map(percent),
    st.integers(0, 10**12).map(number),
    st.tuples(FIGURE, FIGURE).map(lambda ends: interval({"lo": min(ends), "hi": max(ends)}, points)),
    st.tuples(FIGURE, FIGURE).map(lambda two: f"{points(two[0])} ({points(two[1])} to {points(two[0])})"),
)


@st.composite
def some_table(draw: st.DrawFn) -> tuple[list[str], list[list[str]], int]:
    texts, numbers = draw(st.integers(1, 2)), draw(st.integers(1, 9))
    rows = draw(
        st.lists(
            st.tuples(
                st.lists(NAMES, min_size=texts, max_size=texts), st.lists(CELLS, min_size=numbers, max_size=numbers)
            ),
            max_size=4,
        )
    )
    titles = draw(st.lists(NAMES, min_size=texts + numbers, max_size=texts + numbers))
    return titles, [[*names, *cells] for names, cells in rows], texts


def whole(cells: list[str], lines: list[str]) -> bool:
    """Whether every number of the cells stands in the lines as it is."""
    printed = re.findall(r"\S+", "\n".join(lines))
    return all(part in printed for cell in cells for part in cell.split())


@settings(deadline=None, max_examples=150)
@given(some_table())
def test_a_table_fits_and_breaks_no_number(table: tuple[list[str], list[list[str]], int]) -> None:
    titles, rows, texts = table
    lines = terminal.table_lines(titles, rows, texts)
    assert max(map(len, lines)) <= 80
    assert whole([cell for row in rows for cell in row[texts:]], lines)
    printed = "".join(sorted("".join(lines).replace(" ", "")))
    for name in (row[0] for row in rows):  # words may break, but nothing of them is lost
        assert all(printed.count(letter) >= name.count(letter) for letter in set(name) - {" "})


@settings(deadline=None, max_examples=60)
@given(some_table())
def test_so_does_a_page_of_markdown(table: tuple[list[str], list[list[str]], int]) -> None:
    titles, rows, _ = table
    shown = [markdown_line(map(markdown_text, row)) for row in (titles, *rows)]
    page = "\n".join(["# Head", "", shown[0], "|---|" + "---:|" * (len(titles) - 1), *shown[1:], "", "one two " * 40])
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "_print", lambda text, stream: lines.append(text))
        terminal.document(page)
    assert max(map(len, lines)) <= 80
    assert whole([cell for row in rows for cell in row[1:] if cell[0] in "+−0123456789"], lines)
    assert not rows or all(letter in "".join(lines) for letter in set(rows[0][0]) - {" "})


def test_a_number_that_is_broken_is_noticed() -> None:
    assert whole(["+1.2 (+0.3 to 4)"], ["x +1.2", "(+0.3 to", "4)"])
    assert not whole(["+1.25"], ["+1.2", "5"])


LONG = "finetune:personalized:an-organization/and-its-model-of-a-long-name"


def renamed(value: Any, names: dict[str, str]) -> Any:
    """JSON with other names, in keys and values."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def new_people() -> NewContents:
    """Figures of new people at six sizes, as large as they get."""
    sizes = [0, 1, 3, 10, 100, 1000]
    rows = [
        {"learner": LONG, "metric": "accuracy_micro", "cohort": "all", "size": s, "value": 1.0, "lo": 1.0, "hi": 1.0}
        for s in sizes
    ]
    gains = [row | {"baseline": "pooled", "value": -0.9, "lo": -1.0, "hi": -0.8, "p": 0.0} for row in rows]
    counts = [{"size": s, "new_users": 1_000_000, "left_out": 1_000_000} for s in sizes]
    return NewContents.of({"rows": rows, "gains": gains, "sizes": counts})


def groups_content() -> dict[str, Any]:
    tried = [{"groups": n, "log_likelihood": -12.34567, "gain": 1.23456, "se": 0.1} for n in range(1, 7)]
    return {
        "answer": {},
        "data": {"judgements": 10**9, "users": 10**8, "origin": "why " * 40},
        "groups": {"sizes": {LONG: 99_999_999, "unknown": 1}, "tried": tried},
    }


def writers(tmp_path: Any) -> dict[str, Any]:
    """What each command prints its tables with, with wide names and numbers."""
    told = content(FIGURES, max(FIGURES["pooled"]))
    wide = renamed(told, {"personalized": LONG, "pooled": f"p-{LONG}"})
    contents = CompareContents.of(wide)
    collected = collect([f"{LONG}=" + folder(tmp_path / "a", told, users=6), folder(tmp_path / "b", told, users=30)])
    return {
        "compare": lambda: show_numbers(contents),
        "groups": lambda: show_groups(groups_content()),
        "adapt, accuracy": lambda: terminal.columns((lines := table_lines(new_people()))[0], lines[1:]),
        "adapt, gain": lambda: terminal.columns((lines := gain_lines(new_people()))[0], lines[1:]),
        "table": lambda: terminal.document(markdown(tables(collected), legend(True), True)),
    }


def test_every_command_prints_tables_that_fit(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, show in writers(tmp_path).items():
        show()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 5, name
        assert max(map(len, lines)) <= 80, (name, max(lines, key=len))
