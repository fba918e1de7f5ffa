"""CSV as spreadsheets save it: rows of separators only, and a first line that names the separator."""

from __future__ import annotations

import numpy as np
import pytest

from polypref.data.files.csvfiles import Csv
from polypref.data.files.limits import Limits
from polypref.data.linting.problems import ProblemLog
from polypref.data.read import read
from polypref.errors import InputError

COLUMNS = ("user_id", "prompt", "chosen", "rejected")
ODD = 'u9{0}p 5" pipe{0}x{0}y'  # sends the file to Python's parser


def saved(tmp_path, lines):
    path = tmp_path / "p.csv"
    path.write_text("\r\n".join(lines) + "\r\n")
    return str(path)


def rows_of(path):
    problem_log = ProblemLog()
    source = Csv.open(path, Limits())
    batches = list(source.batches(source.columns, problem_log))
    rows = [(int(line), *row) for b in batches for line, row in zip(b.line_B, b.frame.iter_rows(), strict=True)]
    return rows, problem_log


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("declared", ["", "sep={0}", '"SEP={0}"'])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_blank_rows_and_declared_separators(tmp_path, separator, declared, odd):
    if separator == "|" and not declared:
        pytest.skip("only a declared one")
    rng = np.random.default_rng(7)
    lines = [declared.format(separator)] if declared else []
    expected = []
    for row in [None, COLUMNS, *[None if rng.random() < 0.4 else (f"u{k}", "p, q; r|", "x", "") for k in range(40)]]:
        if row is None:
            lines.append(separator * int(rng.choice([0, 3, 3, 6 if odd else 3])))
            continue
        cells = [f'"{cell}"' if cell == "p, q; r|" else cell for cell in row]
        lines.append(separator.join(cells))
        expected.append((len(lines), *row))
    if odd:
        lines.append(ODD.format(separator))
        expected.append((len(lines), "u9", 'p 5" pipe', "x", "y"))
    rows, problem_log = rows_of(saved(tmp_path, lines))
    assert [tuple(cell or "" for cell in row) for row in rows] == expected[1:]
    assert not problem_log.problems


def test_a_hint_proposes_a_column_that_has_a_name(tmp_path):
    with pytest.raises(InputError, match="user_id=name"):
        read([saved(tmp_path, [",prompt,chosen,rejected,name", "1,p,x,y,n"])])


def test_only_separators(tmp_path):
    with pytest.raises(InputError, match="only empty lines"):
        read([saved(tmp_path, ["sep=;", ";;;", ";;;"])])
