"""``polypref table``: published figures as printed, measured ones from the results, three formats, room and gain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from polypref.cli import main
from polypref.evaluation import collect_results
from polypref.evaluation.collect_results import Correlation, collect, correlation, gained
from polypref.report.paper import method_of, published, set_of
from polypref.report.table import Cell
from table_example import FIGURES, built, cell, content, folder, row


@pytest.fixture
def psoups(tmp_path):
    return folder(tmp_path / "psoups", content(FIGURES, 50_000), users=8)


# ----------------------------------------------------------------------------------------------- the published figures


def test_published_tables_are_whole():
    paper = published()
    for key, sizes in paper["accuracy"]["sizes"].items():
        assert list(paper["accuracy"][key]) == list(paper["methods"])
        assert all(len(values) == len(sizes) == 3 for values in paper["accuracy"][key].values())
        assert len(paper["characteristics"][key]) == len(paper["characteristics"]["columns"])
    assert list(paper["users"]["accuracy"]) == list(paper["methods"])
    assert all(len(values) == 8 for values in paper["users"]["accuracy"].values())
    assert set(paper["new_users"]["accuracy"]) == set(paper["new_users"]["names"])
    assert set(paper["new_users"]["routes"].values()) <= set(paper["new_users"]["names"])
    figures = [v for key in paper["accuracy"]["sizes"] for values in paper["accuracy"][key].values() for v in values]
    assert len(figures) == 72
    assert all(0.4 < value < 0.9 for value in figures)


def test_published_figures_agree_with_each_other():
    """Sums of the tables as printed, and figures that they share: a slip of the hand would break one of them."""
    paper = published()
    users, accuracy = paper["users"]["accuracy"], paper["accuracy"]["personalllm"]
    assert round(float(np.mean(users["individual"])), 4) == 0.8075  # the column of 10,000
    assert round(float(np.mean(users["pooled"])), 2) == 0.72
    assert abs(np.mean(users["personalized"]) - 0.84) < 0.005
    assert paper["tax"]["personalllm"]["pretrained"][0] == accuracy["pretrained"][0]
    assert paper["tax"]["personalllm"]["pooled"][1:] == paper["tax"]["personalllm"]["conditional"][1:]
    assert paper["new_users"]["accuracy"]["pooled"][0] == accuracy["pooled"][-1]
    sums = {key: round(sum(map(sum, paper["accuracy"][key].values())), 2) for key in paper["accuracy"]["sizes"]}
    assert sums == {"personalllm": 16.93, "tldr": 14.28, "psoups": 13.81}


def test_the_known_trap_has_a_footnote(tmp_path):
    """VPL's row of users is Vanilla's, digit by digit."""
    users = published()["users"]["accuracy"]
    assert users["vpl"] == users["pooled"]
    table = built(folder(tmp_path / "personalllm", content(FIGURES, 50_000)))["users-published"]
    (vpl,) = [line for line in table.rows if line.label == "VPL"]
    assert vpl.notes == ("vpl-users",)
    assert "same as Vanilla's row" in table.texts["vpl-users"]
    assert all(c.measured is None for line in table.rows for c in line.cells)


# ----------------------------------------------------------------------------------------------------- what is compared


def test_measured_and_published_stand_side_by_side(psoups):
    table = built(psoups)["accuracy"]
    assert cell(table, "individual (Individual RM)", "1,000") == Cell("0.750", "0.74", "0.730–0.770")
    assert cell(table, "finetune:personalized (Personalized RM)", "50,000") == Cell("0.870", "0.86", "0.850–0.890")
    assert cell(table, "finetune:personalized (Personalized RM)", "10,000") == Cell(None, "0.83")
    assert cell(table, "VPL", "50,000") == Cell(None, "0.62")
    assert cell(table, "hierarchical", "50,000") == Cell("0.880", None, "0.860–0.900")
    notes = {line.label: line.notes for line in table.rows}
    assert "frozen" in notes["pooled (Vanilla RM)"]
    assert "frozen" not in notes["finetune:personalized (Personalized RM)"]


def test_no_published_figure_comes_with_another_set_or_unasked(psoups, tmp_path):
    mine = folder(tmp_path / "mine", content(FIGURES, 50_000), users=8)
    for found in (built(mine), built(psoups, mine, beside=False)):
        assert not [c for table in found.values() for line in table.rows for c in line.cells if c.published]
        assert not [line.label for line in found["accuracy"].rows if "RM" in line.label]
    both = built(psoups, mine)["accuracy"]
    groups = {column.group for column, c in zip(both.columns, both.rows[0].cells, strict=True) if c.published}
    assert groups == {"psoups"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("psoups", ("psoups", False)),
        ("P-SOUPS", ("psoups", False)),
        ("psoups-like", ("psoups", True)),
        ("TL;DR", ("tldr", False)),
        ("personalllm_like", ("personalllm", True)),
        ("psoups2", (None, False)),
        ("llmfao", (None, False)),
    ],
)
def test_which_published_set_a_folder_stands_for(name, expected):
    assert set_of(name) == expected


def test_a_world_beside_a_published_set_says_so(psoups):
    table = built(f"psoups-like={psoups}")["accuracy"]
    assert all("world" in column.notes for column in table.columns)
    assert "simulated world" in table.texts["world"]


def test_learners_stand_for_methods_whatever_their_model():
    names = ["pretrained:org/model", "finetune:pooled", "retrieval-judge:x", "gpo", "pooled-majority"]
    assert [method_of(name) for name in names] == ["pretrained", "pooled", "retrieval-judge", "gpo", "pooled-majority"]


def test_characteristics_come_from_the_profile(psoups):
    table = built(psoups)["characteristics"]
    assert [c.measured for c in table.rows[0].cells] == ["400", "8", "50 %", None, "0.33–0.93", "0.91"]
    assert [c.published for c in table.rows[0].cells] == ["53k", "6", "100 %", "98 %", "0.51–0.59", "1"]


def test_users_one_by_one_or_by_percentiles(psoups, tmp_path):
    few = built(psoups)["users-psoups"]
    assert (few.columns[0].title, few.columns[-1].title) == ("u7", "u0 (minority)")  # best served by pooled first
    many = built(folder(tmp_path / "many", content(FIGURES, 50_000), users=21))["users-many"]
    assert cell(many, "pooled", "worst").measured == "0.40"
    assert cell(many, "pooled", "median").measured == "0.90"
    assert cell(many, "pooled", "better").measured == "1"


def test_minority_users(psoups):
    table = built(psoups)["minorities"]
    assert cell(table, "individual", "minority").measured == "0.810"


def test_sizes_of_each_user_are_named(tmp_path):
    sizes = [{"size": 1000, "per_user": 20}, {"size": 50_000, "per_user": None}]
    table = built(folder(tmp_path / "mine", content(FIGURES, 50_000, sizes=sizes)))["accuracy"]
    assert [column.title for column in table.columns] == ["20 each (1,000)", "50,000"]


def test_new_users_beside_the_published_routes(tmp_path):
    path = Path(folder(tmp_path / "personalllm-like", content(FIGURES, 50_000)))
    rows = [
        row("gpo", 30, 0.8),
        row("hierarchical", 30, 0.82),
        row("gpo", 3, 0.6),
        row("individual, all data", 30, 0.86),
    ]
    rows += [row("gpo", 30, 0.4, metric="log_loss"), row("similar-user-accuracy", 30, 0.7)]
    (path / "new_users.json").write_text(json.dumps({"schema": 1, "rows": rows}))
    table = built(str(path))["new-users"]
    assert [column.title for column in table.columns] == ["3", "30", "100", "300"]
    assert cell(table, "gpo (GPO)", "30") == Cell("0.800", "0.83", "0.780–0.820")
    assert cell(table, "gpo (GPO)", "300") == Cell(None, "0.85")
    assert cell(table, "individual, all data (Individual RM (with full dataset))", "30").published == "0.85"
    assert cell(table, "similar-user-accuracy (Retrieve Similar User RM)", "100").published == "0.74"
    assert cell(table, "Further Fine-tune Trained RM", "30") == Cell(None, "0.71")
    assert cell(table, "hierarchical", "30").published is None
    assert "world" in table.columns[0].notes


# -------------------------------------------------------------------------------------------------------- room and gain


def test_room_and_gain_are_of_one_learner(psoups):
    (one,) = collect([psoups])
    found = gained(one)
    assert found is not None
    assert (found.learner, found.baseline, found.measured) == ("hierarchical", "pooled", True)
    assert found.room == pytest.approx(0.93 - 0.49)
    assert found.gain == pytest.approx(0.88 - 0.49)


def test_room_without_repeats_is_a_bound(tmp_path):
    what = content(FIGURES, 50_000)
    what["profile"]["room"]["measured"] = False
    table = built(folder(tmp_path / "mine", what))["room"]
    assert cell(table, "mine", "room").measured == "≤ 51.0"


def test_correlation_finds_what_was_planted_and_cannot_be_told_from_three():
    rng = np.random.default_rng(0)
    room = rng.uniform(0, 0.5, 12)
    strong = correlation(room, 0.8 * room + rng.normal(0, 0.02, 12))
    assert strong.value is not None
    assert strong.lo is not None
    assert strong.value > 0.95
    assert strong.lo > 0.8
    none = correlation(room, rng.permutation(room))
    assert none.lo is not None
    assert none.hi is not None
    assert none.lo < 0 < none.hi
    assert correlation([0.1, 0.2, 0.3], [1, 2, 3]) == Correlation(3, None, None, None)
    assert correlation([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 1]).value is None


def test_correlation_is_pearsons_whatever_the_units():
    first, second = [0.1, 0.3, 0.2, 0.5, 0.9], [3.0, 1.0, 4.0, 1.0, 5.0]
    found = correlation(first, second)
    assert found.value == pytest.approx(np.corrcoef(first, second)[0, 1])
    scaled = correlation(np.multiply(first, 100), second)
    assert (scaled.value, scaled.lo, scaled.hi) == pytest.approx((found.value, found.lo, found.hi))
    assert found.lo is not None
    assert found.hi is not None
    assert found.value is not None
    assert -1 <= found.lo < found.value < found.hi <= 1


def test_the_sentence_says_when_it_cannot_be_told(tmp_path):
    folders = [folder(tmp_path / f"set{i}", content(_shifted(0.02 * i), 50_000)) for i in range(5)]
    three = " ".join(built(*folders[:3])["room"].remarks)
    assert "3 data sets cannot show whether room predicts gain (expected 4 or more)" in three
    five = " ".join(built(*folders)["room"].remarks)
    assert "Over 5 data sets, the correlation of room and gain is" in five


def _shifted(by: float) -> dict[str, dict[int, float]]:
    return {name: {n: v + (by if name == "pooled" else 0) for n, v in sizes.items()} for name, sizes in FIGURES.items()}


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_three_files(psoups, tmp_path, capsys):
    out = tmp_path / "tables"
    assert main(["table", psoups, "--out", str(out), "--intervals"]) == 0
    said = capsys.readouterr().out
    assert "0.750 (0.730–0.770) *[0.74]*" in (out / "tables.md").read_text()
    assert "0.750 (0.730–0.770) [0.74]" in said and max(map(len, said.splitlines()[:-1])) <= 80
    assert (out / "tables.tex").read_text().startswith(r"\documentclass")
    assert (out / "tables.html").read_text().endswith("</body></html>\n")
    assert main(["table", psoups, "--out", str(out), "--no-published", "--force"]) == 0
    assert "Dong" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ([], "no folder given"),
        (["absent"], "holds no results.json"),
        (["a=one", "a=two"], "two folders are named 'a'"),
        (["old"], "has schema 0; expected 1"),
        (["broken"], "cannot be read as JSON"),
    ],
)
def test_mistakes_are_one_line(what, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        folder(Path(name), content(FIGURES, 50_000))
    folder(Path("old"), {"schema": 0, "serves": {}})
    folder(Path("broken"), {"serves": {}})
    Path("broken/results.json").write_text("{")
    assert main(["table", *what]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_results_without_the_parts_a_table_needs_leave_it_out(tmp_path):
    bare = {"schema": 1, "size": 10, "rows": [row("pooled", 10, None)], "gains": [], "baseline": None, "serves": {}}
    found = built(folder(tmp_path / "bare", bare))
    assert set(found) == {"accuracy"}
    assert found["accuracy"].rows[0].cells == (Cell(),)
    assert collect_results.gained(collect([str(tmp_path / "bare")])[0]) is None
