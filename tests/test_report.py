"""The report without a browser: what is absent is said to be, numbers as words, figures as data, all or nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from polypref import report
from polypref import wording as words
from polypref.errors import CacheError
from polypref.evaluation import compare
from polypref.evaluation.results_schema import CompareContents
from polypref.report import figures
from polypref.report.learning_curves import placebo_section
from polypref.report.page import coded
from polypref.report.people import people_section, tidy
from polypref.report.profile import measure
from report_example import DATA, LEARNERS, example_results, example_users
from toy_learners import Length, LengthEncoder, OwnLength, people


@pytest.mark.parametrize(
    "absent",
    [
        "rows",
        "gains",
        "placebo",
        "profile",
        "findings",
        "users",
        "verdict",
        "baseline",
        "split",
        "encoder",
        "data",
        "reproduce",
    ],
)
def test_an_absent_section_is_said_to_be_absent(tmp_path: Path, absent: str) -> None:
    users = example_users(20)
    results = example_results(users)
    whole = report.write(tmp_path, results, users).read_text()
    notes = {
        "rows": "no learner has been measured",
        "placebo": "placebo arm was not run",
        "profile": "not profiled",
        "findings": "not linted",
        "verdict": "No verdict",
    }
    del results[absent]
    page = report.write(tmp_path, results, users).read_text()
    assert notes.get(absent, "The learners compared") in page
    if absent in notes:
        assert notes[absent] not in whole
    assert "Traceback" not in page and ">None<" not in page and ">nan<" not in page


def test_what_knowing_the_user_is_worth_stands_under_both_arms(tmp_path: Path) -> None:
    results = example_results(users := example_users(20))
    section = placebo_section(CompareContents.of(results), list(LEARNERS))
    assert section is not None
    lines = [(row["learner"], row["arm"]) for row in section["rows"]]
    assert lines[:3] == [("individual", "real"), ("individual", "shuffled"), ("individual", "real minus shuffled")]
    assert len(lines) == 3 * 4
    assert report.write(tmp_path, results, users).read_text().count("<td>real minus shuffled</td>") == 4
    del results["gains_over_shuffled"]  # results of an earlier version
    page = report.write(tmp_path, results, users).read_text()
    assert "<td>real minus shuffled</td>" not in page
    assert "<td>shuffled<" in page


def test_a_worst_decile_of_too_few_users_says_so(tmp_path: Path) -> None:
    results = example_results(users := example_users(12))
    assert "too few users" not in report.write(tmp_path, results, users).read_text()
    for row in results["rows"]:
        if row["metric"] == "accuracy_worst_decile":
            row["value"] = row["lo"] = row["hi"] = None
    page = report.write(tmp_path, results, users).read_text()
    assert page.count(">n = 12<") == page.count("too few users") == len(LEARNERS)


def test_the_first_line_of_results_is_enough(tmp_path: Path) -> None:
    page = report.write(tmp_path, {"schema": 1, "data": {}}, pl.DataFrame()).read_text()
    assert page.count('class="absent"') == 7


def test_one_training_size_says_how_to_get_more(tmp_path: Path) -> None:
    users = example_users(20)
    assert "--sizes 100 300" not in report.write(tmp_path, example_results(users), users).read_text()
    page = report.write(tmp_path, example_results(users, sizes=(4142,)), users).read_text()
    assert "How much data it takes" in page and "<code>--sizes 100 300</code>" in page


def test_mean_lines_are_in_the_legend_where_they_are_drawn(tmp_path: Path) -> None:
    for n, drawn in ((12, False), (40, True)):
        users = example_users(n)
        page = report.write(tmp_path, example_results(users), users).read_text()
        assert (
            ("mean over the same users" in page) == ('class="line floor" d="M' in page.split('id="sizes"')[0]) == drawn
        )
        assert ("Too few users for mean lines" in page) != drawn
        assert ("with mean lines of hierarchical" in page) == drawn


def test_an_unclear_run_opens_on_the_largest_personal_gain_and_names_who_has_no_panel() -> None:
    users = example_users(20).with_columns(
        gain=pl.when(pl.col("learner") == "length").then(0.0 * pl.col("gain")).otherwise("gain")
    )
    results = example_results(users)
    results["verdict"] = {"room": "unclear", "best": "pooled", "text": "Unclear."}
    section = people_section(CompareContents.of(results), users, list(LEARNERS))
    assert section is not None
    assert (section["open"], section["unmoved"]) == ("hierarchical", ["length"])
    results["serves"] = {name: "population" if name == "hierarchical" else "seen_users" for name in LEARNERS}
    assert people_section(CompareContents.of(results), users, list(LEARNERS))["open"] == "individual"  # type: ignore[index]


def test_the_baseline_is_not_called_best(tmp_path: Path) -> None:
    results = example_results(users := example_users(20))
    results["verdict"] = {"room": "unclear", "best": "pooled", "text": "Unclear."}
    page = report.write(tmp_path, results, users).read_text()
    assert '<span class="role">baseline: best on validation rows</span>' in page
    assert '<span class="role">best' not in page


def test_minority_counts_say_which_rows_they_go_by(tmp_path: Path) -> None:
    page = report.write(tmp_path, example_results(users := example_users(20)), users).read_text()
    assert "minority users by some seed&#39;s training rows, n = 10" in page
    assert "minority users by the training rows of half of the seeds or more" in page
    assert "minority users by all the data" in page


def test_one_of_a_kind_is_singular(tmp_path: Path) -> None:
    results = example_results(users := example_users(20))
    results["data"] = DATA | {"n_users": 1, "n_prompts": 1}
    page = report.write(tmp_path, results, users).read_text()
    assert "<dt>user</dt><dd>1</dd>" in page and "<dt>prompt</dt><dd>1</dd>" in page
    assert "<dt>responses</dt><dd>650</dd>" in page


def test_an_empty_cohort_has_no_value(tmp_path: Path) -> None:
    users = example_users(20)
    results = example_results(users)
    for row in results["rows"]:
        if row["cohort"] == "minority":
            row.update(value=None, lo=None, hi=None, n_users=0, n_comparisons=0)
    page = report.write(tmp_path, results, users).read_text()
    assert page.count(">not measurable</td>") == len(LEARNERS)
    assert "training rows, not measurable<" in page and "n = 0" not in page


def test_users_nobody_tested_are_counted_not_drawn(tmp_path: Path) -> None:
    users = example_users(20)
    page = report.write(tmp_path, example_results(users), users).read_text()
    assert "Not drawn: 3 users without test judgements" in page
    data = json.loads(re.search(r'id="people-data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert all(len(learner["gain"]) == 17 and None not in learner["gain"] for learner in data["learners"])


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    users = example_users(10)
    with pytest.raises(CacheError, match=r"cannot write .*report\.html: .*\. Choose another folder\."):
        report.write(tmp_path / "file", example_results(users), users)


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = example_users(10)
    path = report.write(tmp_path, example_results(users), users)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CacheError, match="No space left"):
        report.write(tmp_path, {"schema": 1}, users)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "number", "points"),
    [
        (0.8324, "0.832", "+83.2"),
        (-0.0004, "0.000", "0.0"),
        (None, "–", "–"),
        (float("nan"), "–", "–"),
        (True, "–", "–"),
    ],
)
def test_numbers_in_words(value: Any, number: str, points: str) -> None:
    assert words.number(value) == number
    assert words.points(value) == points


def test_intervals_in_words() -> None:
    assert words.interval({"lo": 0.1, "hi": 0.2}) == "0.100–0.200"
    assert words.interval({"lo": -0.001, "hi": 0.012}, words.points) == "−0.1 to +1.2"
    assert words.interval({"lo": None, "hi": 0.2}) == ""
    assert words.interval(None) == ""


def test_a_profile_measure_without_a_value_is_unknown() -> None:
    assert measure("alpha", {"value": None, "n": 0})["value"] == "unknown"
    assert measure("alpha", {"value": 0.0, "n": 7})["value"] == "0.000"


def test_ticks_are_round_and_inside() -> None:
    axis = figures.span([-0.31, 0.42])
    ticks = axis.ticks(signed=True, scale=100)
    assert [t.text for t in ticks] == ["−20", "0", "+20", "+40"]
    assert all(0 <= t.at <= 100 for t in ticks)
    assert [t.text for t in figures.Axis(3, 420, log=True).ticks()] == ["5", "10", "20", "50", "100", "200"]
    assert [t.text for t in figures.Axis(16.5, 24.0, log=True).ticks()] == ["18", "20", "22", "24"]
    assert [t.text for t in figures.Axis(90, 130, log=True).ticks()] == ["90", "100", "110", "120", "130"]
    assert [t.text for t in figures.Axis(0.87, 1.15, log=True).ticks()] == ["1"]
    assert [t.text for t in figures.Axis(0.081, 0.093).ticks(scale=100)] == ["8.25", "8.50", "8.75", "9.00", "9.25"]


def test_group_means_cover_everybody_once() -> None:
    amount = np.repeat([1.0, 5.0, 50.0], [30, 30, 40])
    at, (mean,) = figures.group_means(amount, (amount * 2,), 10)
    assert at.tolist() == [1.0, 5.0, 50.0]
    assert mean.tolist() == [2.0, 10.0, 100.0]


def test_an_absent_column_is_unknown() -> None:
    table = tidy(pl.DataFrame({"user_id": ["a"], "learner": ["x"], "gain": [float("nan")]}))
    assert table["gain"].to_list() == [None]
    assert table["verdict"].to_list() == ["untested"]


def test_what_the_profile_says_is_printed(tmp_path: Path) -> None:
    users = example_users(20)
    page = report.write(tmp_path, example_results(users), users).read_text()
    lines = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', page))
    assert lines["contested (3 judges or more)"].startswith("0.530<")
    assert lines["alpha of a panel"] == "unknown"
    assert lines["best population accuracy"] == "0.720–0.820"
    assert lines["room"] == "0.000–0.267"
    assert "by chance 0.615–0.923" in lines["prompts with a Condorcet cycle"]
    assert lines["minority users by all the data, 95 % sure"] == "0"
    assert "A personal answer could add" in page
    assert "| data | 4,929 |" in page
    assert "81 users with fewer than 40 judgements were left out" in page


def test_a_real_comparison_leaves_nothing_unsaid(tmp_path: Path) -> None:
    """The evaluation and the profile write the keys that the report reads."""
    learners = {"pooled": Length(), "own": OwnLength()}
    settings = {"seeds": 2, "workers": 1, "sizes": (100,), "quiet": True}
    results = compare(people(), learners, LengthEncoder(), out=tmp_path, metadata={"findings": []}, **settings)
    page = report.write(tmp_path, results.content, results.users).read_text()
    assert 'class="absent"' not in page
    for line in results.answer:
        assert str(coded(line.text)) in page
    assert str(coded(results.verdict["text"])) in page
    for words_of_section in ("How much data it takes", "shuffled", "What could be gained at most?", "tested"):
        assert words_of_section in page
    full = next(r for r in results.content["rows"] if r["size"] == results.content["size"] and r["learner"] == "own")
    assert f'data-value="{full["value"]}"' in page
