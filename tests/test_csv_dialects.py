"""CSV as programs really write it: other separators, line ends and escapes; quotes that swallow rows are refused."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref import PolyprefError, read
from polypref.errors import InputError

HEAD = ("user_id", "prompt", "chosen", "rejected")
TEXTS = ["plain", 'says "hi"', "one, two; three | four", "two\nlines", "tab\there"]
ROWS = [(f"u{k % 4}", f"Q{k // 4}", f"{TEXTS[k % 5]} {k}", f"no {k}") for k in range(40)]


def saved(tmp_path, text, newline=""):
    path = tmp_path / "p.csv"
    path.write_text(text, encoding="utf-8", newline=newline)
    return path


def table(rows, **dialect):
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows([HEAD, *rows])
    return out.getvalue()


def told(reading):
    data, pool = reading.comparisons, reading.comparisons.responses
    users, texts = data.users.ids, pool.texts_R
    return [
        (users[int(u)], pool.prompts[int(pool.prompt_R[c])], texts[int(c)], texts[int(r)])
        for u, c, r in zip(data.user_N, data.chosen_N, data.rejected_N, strict=True)
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("declared", [False, True])
def test_separators_and_line_ends(tmp_path, separator, end, declared):
    text = table(ROWS, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    reading = read([saved(tmp_path, (f"sep={separator}{end}" if declared else "") + text)])
    assert told(reading) == ROWS and not reading.problems
    assert any("CR" in rule for rule in reading.rules) == (end == "\r")


def test_quotes_escaped_by_backslashes(tmp_path):
    rows = [(*row[:2], f'say "{k}", "{k}"', f"C:\\temp {k}") for k, row in enumerate(ROWS * 30)]
    text = table(rows, quoting=csv.QUOTE_ALL).replace('""', '\\"')
    reading = read([saved(tmp_path, text)])
    assert told(reading) == rows and any("backslash" in rule for rule in reading.rules)
    with pytest.raises(InputError, match=r"line 1102 of .* may end a text or not"):
        read([saved(tmp_path, text.replace("C:\\temp 1100", "C:\\\\"))])


def test_a_text_that_ends_in_a_backslash_is_no_escape(tmp_path):
    rows = [(*row[:3], f"C:\\{k}\\") for k, row in enumerate(ROWS)]
    assert told(read([saved(tmp_path, table(rows, quoting=csv.QUOTE_ALL))])) == rows


def test_header_cells_with_line_breaks(tmp_path):
    head = '"user_id\n(your name)",prompt,"Chosen\n(the better one)","Which was\nworse?"\n'
    path = saved(tmp_path, head + "u,q,yes,no\n")
    with pytest.raises(InputError) as caught:
        read([path])
    hint = re.search(r"--columns '(\w+)=(.*)'\.$", str(caught.value))
    assert hint is not None and hint[2] == "Which was worse?"
    from polypref.data.read import ReadOptions

    assert told(read([path], ReadOptions({hint[1]: hint[2]}))) == [("u", "q", "yes", "no")]


LINES = [f"u{k % 4},Q{k // 8},yes {k},no {k}" for k in range(60)]


def opened(lines, at, column):
    cells = lines[at].split(",")
    cells[column] = '"' + cells[column]
    return [*lines[:at], ",".join(cells), *lines[at + 1 :]]


@pytest.mark.parametrize("column", [1, 2, 3])
def test_a_quote_that_is_never_closed(tmp_path, column):
    lines = opened(LINES, 20, column)
    with pytest.raises(InputError, match="line 22 of"):
        read([saved(tmp_path, "\n".join([",".join(HEAD), *lines]) + "\n")])
    lines[-1] += '"'  # closed at the end of the file: one text, and legal where it opened in the last column
    with pytest.raises(InputError, match="line 22 of"):
        read([saved(tmp_path, "\n".join([",".join(HEAD), *lines]) + "\n")])


@pytest.mark.parametrize("stray", ["", 'u9,a 5" pipe,x,y'])
@pytest.mark.parametrize("closed", ['"{}', '{}"'])
def test_a_quote_closed_by_the_next_stray_one(tmp_path, closed, stray):
    lines = opened(LINES, 20, 2)
    user, prompt, chosen, rejected = lines[40].split(",")
    lines[40] = ",".join([user, prompt, closed.format(chosen), rejected])
    lines = [stray] * bool(stray) + lines
    with pytest.raises(InputError, match=f"line {22 + bool(stray)} of .* look like rows"):
        read([saved(tmp_path, "\n".join([",".join(HEAD), *lines]) + "\n")])


def test_a_table_in_an_answer_is_an_answer(tmp_path):
    answer = "name,age,town,pay\n" + "\n".join(f"person {k},{k},X,{k * 7}" for k in range(20))
    rows = [(f"u{k % 4}", f"Q{k}", answer, "no") for k in range(12)]
    assert told(read([saved(tmp_path, table(rows))])) == rows


CELLS = st.text(st.sampled_from('ab ,;|"\\\n\r\t'), max_size=8)


class TestAnyTable:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), separator=st.sampled_from(",;\t|"))
    def test_what_csv_writes_is_read_back(self, tmp_path, cells, separator):
        rows = [(f"u{k}", q, f"a{a}", f"b{b}") for k, (q, a, b) in enumerate(cells)]
        text = table(rows, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
        assert told(read([saved(tmp_path, text)])) == rows

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(places=st.lists(st.tuples(st.integers(0, 900), st.sampled_from('",\n\\;')), min_size=1, max_size=3))
    def test_damage_is_read_refused_or_counted(self, tmp_path, places):
        text = "\n".join([",".join(HEAD), *LINES[:30]]) + "\n"
        for place, mark in places:
            place = 30 + place % (len(text) - 30)
            text = text[:place] + mark + text[place:]
        try:
            reading = read([saved(tmp_path, text)])
        except PolyprefError as error:
            assert "\n" not in str(error)
            return
        lost = sum(problem.count for problem in reading.problems if not problem.kept)
        assert len(reading.comparisons) + lost == reading.rows_read
        assert reading.rows_read + lost >= 28  # a line break inside a text, but never rows
