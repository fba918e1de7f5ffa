"""The five lines: right on people with known truth, the same in terminal, page and JSON, and commands that run."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref import from_columns, profile
from polypref.answers import Answer, Line, wrapped
from polypref.cli import main
from polypref.cli.compare import Compare
from polypref.cli.settings import command_class, parse
from polypref.evaluation.answer import answer_of
from polypref.evaluation.collect_results import collect, gained
from polypref.evaluation.gain_by_amount import by_amount, pays_from
from polypref.evaluation.level_methods import level
from polypref.evaluation.results_schema import CompareContents
from polypref.evaluation.results_table import ResultRow, ResultTable
from polypref.evaluation.tables import held_out
from polypref.profiling.answer import answer_of as profile_lines
from polypref.report.page import coded
from polypref.report.people import people_section
from polypref.stats.cluster_robust import Clusters
from polypref.terminal import columns
from table_example import content, folder
from toy_learners import LengthEncoder, people

NAMES = ["personalise", "method", "amount", "people", "next"]
TRUTH = {
    "differ": (people(users=30, per_user=40, opposed=0.4, noise=0.05), "yes", "individual"),
    "alike": (people(users=30, per_user=60, opposed=0.0, noise=0.02), "no", None),
    "few": (people(users=6, per_user=8, opposed=0.5, noise=0.3), "unclear", None),
}


@pytest.fixture
def compared(tmp_path, monkeypatch, capsys):
    """Run ``compare`` on a world's file; returns what was printed, the results and the page."""
    monkeypatch.setattr("polypref.features.encoder", lambda name, **how: LengthEncoder())
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> tuple[str, dict, str]:
        data, texts = TRUTH[name][0], TRUTH[name][0].responses.texts_R
        prompts = data.responses.prompts.gather(data.responses.prompt_R[data.chosen_N])
        sides = {"better one": texts.gather(data.chosen_N), "rejected": texts.gather(data.rejected_N)}
        pl.DataFrame({"user_id": data.users.ids.gather(data.user_N), "prompt": prompts} | sides).write_ndjson(
            "p f.jsonl"
        )
        assert main(["compare", "p f.jsonl", "--learners", "pooled", "individual", "--seeds", "2", "--workers", "1",
                     "--columns", "chosen=better one", "--out", "report"]) == 0  # fmt: skip
        printed = capsys.readouterr().out
        return printed, json.loads(Path("report/results.json").read_text()), Path("report/report.html").read_text()

    return run


@pytest.mark.parametrize("name", TRUTH)
def test_the_answer_fits_the_truth_everywhere_and_its_command_runs(compared, name, capsys):
    printed, results, page = compared(name)
    _, room, learner = TRUTH[name]
    found = results["answer"]
    assert list(found) == NAMES
    assert found["personalise"]["value"] == results["verdict"]["room"] == room
    assert found["method"]["learner"] == (learner or results["baseline"]["learner"])
    flat = " ".join(printed.split())
    for number, one in enumerate(found.values(), start=1):
        assert f"{number}. {one['title']}: {' '.join(one['text'].split())}" in flat
        assert str(coded(one["text"])) in page
        assert one["command"] in printed and html.escape(one["command"]).replace("&#x27;", "&#39;") in page
    assert all(len(line) <= 80 for line in printed.partition("Report:")[0].splitlines() if "polypref fit" not in line)
    if room == "yes":
        gains = (found["personalise"][key]["value"] for key in ("gain", "gain_of_people"))
        micro, macro = (f"{100 * gain:.1f}" for gain in gains)
        assert f"gains {micro} points" in flat and f"and {macro} as the mean over people" in flat
        assert re.search(rf"individual +\+{micro} .* \+{macro} ", printed.partition("Gain over")[2])
        assert page.count('<span class="head">Gain, points') == 2
        assert found["people"]["better"] >= 8 and found["people"]["worse"] == 0
        assert found["amount"]["people"] >= 25 and 20 <= found["amount"]["amount"] <= 40
    else:
        assert found["people"]["better"] == 0 and found["amount"]["amount"] is None
    counts = found["people"]
    assert counts["better"] + counts["worse"] + counts["unknown"] == results["data"]["n_users"]
    assert main(shlex.split(found["next"]["command"])[1:]) == 0
    assert "saved to scorer" in capsys.readouterr().out


def test_other_comparisons_than_these_are_advised_with_commands_that_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = Compare(files=("a b.jsonl",), encoder="static", min_judgements=3, split="pair", out=Path("r"))
    again = command.next_commands()
    for lacks, part in (("split", ""), ("personal", "--learners hierarchical")):
        verdict = {"room": "unclear", "best": "pooled", "text": "t.", "reason": "r", "lacks": lacks}
        contents = CompareContents.of(
            {"verdict": verdict, "method": {"learner": "pooled"}, "reproduce": {"again": again}, "data": {"n_users": 3}}
        )
        line = answer_of(contents).lines[-1]
        _, name, *rest = shlex.split(line.command)
        told = parse(command_class(name), name, rest)
        assert part in line.command
        assert (told.files, told.encoder, told.min_judgements, told.split) == (("a b.jsonl",), "static", 3, "auto")
        assert told.out == Path("r-again")


def row(learner: str, value: float, se: float, size: int = 100) -> ResultRow:
    from scipy.stats import norm

    lo, hi = value - 1.96 * se, value + 1.96 * se
    return ResultRow(learner, size, value=value, lo=lo, hi=hi, se=se, p=2 * norm.sf(abs(value) / se), baseline="best",
                     n_users=50, n_comparisons=500)  # fmt: skip


def test_level_is_what_is_not_surely_behind_and_the_simplest_comes_first():
    behind = ResultTable((row("a", 0.05, 0.01), row("b", 0.01, 0.01), row("c", 0.0, 0.01)))
    assert level("best", behind, ["a", "b", "best", "c"]) == ["b", "best", "c"]
    assert level("best", ResultTable((row("a", 0.05, 0.01),)), ["a", "best"]) == ["best"]
    # 2.2 standard errors are sure for one, not when three are compared
    assert level("best", ResultTable((row("a", 0.022, 0.01),)), ["a", "best"]) == ["best"]
    three = ResultTable(tuple(row(name, 0.022, 0.01) for name in "abc"))
    assert level("best", three, ["a", "b", "c", "best"]) == ["a", "b", "c", "best"]


def test_amounts_are_tested_downward_until_one_is_not_sure():
    people_rows = ResultTable((row("x", 0.05, 0.01, 40), row("x", 0.0, 0.01, 20), row("x", 0.05, 0.01, 10)))
    found = pays_from(people_rows, ResultTable(), tests=1)
    assert (found.amount, found.fewest, found.source) == (40, False, "people")
    sizes = ResultTable((row("x", 0.05, 0.01, 20), row("x", 0.04, 0.01, 5)))
    found = pays_from(people_rows, sizes, tests=1)
    assert (found.amount, found.fewest, found.source) == (5, True, "sizes")
    assert pays_from(ResultTable((row("x", 0.022, 0.01, 40),)), ResultTable(), tests=5).amount is None


@pytest.mark.parametrize(("busy", "users"), [(20, 40), (10, 60), (30, 40)])
def test_people_with_few_judgements_do_not_pay_where_only_the_busy_gain(busy, users):
    """Those with 100 judgements are all gained for, those with 10 are left as they were, however many they are."""
    amounts = np.where(np.arange(users) < busy, 100, 10)
    user_N = np.repeat(np.arange(users), amounts)
    busy_N = user_N < busy
    data = people(users=users, per_user=-(-len(user_N) // users), noise=0.0).take(np.arange(len(user_N)))
    data = type(data)(**{**vars(data), "user_N": user_N.astype(data.user_N.dtype)})
    rng = np.random.default_rng(0)
    floor_H = np.where(rng.random(len(user_N)) < 0.6, 1.0, -1.0)
    own_H = np.where(busy_N & (rng.random(len(user_N)) < 0.8), 1.0, floor_H)
    clusters = Clusters(held_out(data, [np.arange(len(user_N))]))
    rows = by_amount(clusters, (own_H, floor_H), amounts, ("own", "pooled"))
    assert next(iter(rows)).size == 100
    assert pays_from(rows, ResultTable(), tests=1).amount == 100
    every_H = np.where(rng.random(len(user_N)) < 0.8, 1.0, floor_H)
    rows = by_amount(clusters, (every_H, floor_H), amounts, ("own", "pooled"))
    assert pays_from(rows, ResultTable(), tests=1).amount == 10


def test_an_answer_is_read_back_from_json_and_wraps_without_breaking_a_number():
    answer = Answer((Line("a", "A", "x " * 35 + "between 10.5 % and 20.5 % of `name`.", {"n": 3}, "polypref x " * 20),))
    assert Answer.of(json.loads(json.dumps(answer.as_dict()))) == answer
    *text, command = answer.printed()
    assert all(len(line) <= 80 for line in text) and command.strip() == answer.lines[0].command.strip()
    assert not any(line.endswith("10.5") or line.lstrip().startswith("%") for line in text)
    assert wrapped("\x1b[31m red") == ["\\x1b[31m red"]
    assert not Answer.of({}) and not answer_of(CompareContents())


def test_tables_fit_80_columns_and_break_words_but_no_number(capsys):
    titles = ["learner", "all judgements", "95 % interval", "mean over people", "95 % interval", "gain", "lose"]
    number = "−12.3 to +45.6"
    columns(titles, [["pretrained:" + "m" * 60, "+12.3", number, "+12.3", number, "1,234", "0"], ["b"] + ["–"] * 6])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count(number) for line in lines) == 2
    assert sum(line.count("m") for line in lines[3:]) >= 60


def test_profile_ends_in_lines_that_say_what_is_known_and_a_command_that_parses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sides = [
        {"chosen": f"{x} {i}", "rejected": f"{y} {i}", "prompt": f"p{i}"} for x, y in ("ab", "ba") for i in range(30)
    ]
    rows = [{"user": f"u{u}", **one} for u in range(4) for one in sides[30 * (u % 2) :][:30]]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["profile", "p.jsonl", "--columns", "user_id=user"]) == 0
    printed = capsys.readouterr().out
    *_, said, command = printed.splitlines()
    assert "1. Do people differ: two people disagree on 67 %" in printed
    assert said.startswith("4. Next")
    assert command.strip() == "polypref compare p.jsonl --columns user_id=user"
    assert main(["profile", "p.jsonl", "--columns", "user_id=user", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["answer"]
    assert found["differ"]["value"] == pytest.approx(2 / 3) and found["differ"]["n"] == 30
    assert found["enough"] | {"title": "", "text": ""} == {
        "title": "", "text": "", "command": "", "people": 4, "judgements": 120, "typical": 30, "enough": False,
    }  # fmt: skip
    _, name, *rest = shlex.split(found["next"]["command"])
    assert parse(command_class(name), name, rest) is not None


def test_profile_tells_taste_from_carelessness_and_a_few_busy_people_from_enough():
    """Everybody tosses coins, so that a person disagrees with themself as often as with another."""
    rng, texts = np.random.default_rng(0), [(f"a {i}", f"b {i}") for i in range(40)]
    rows = [(f"u{u}", i) for u in range(30) for i in [*range(8), *range(4)] + [*range(8, 40)] * 3 * (u < 4)]
    sides = [texts[i] if rng.random() < 0.5 else texts[i][::-1] for _, i in rows]
    users, won, lost = [user for user, _ in rows], *map(list, zip(*sides, strict=True))
    data = from_columns(users, [f"p {i}" for _, i in rows], won, lost)
    found = profile_lines(profile(data), "x").as_dict()
    own, others = found["differ"]["repeats"], found["differ"]["value"]
    assert own["n"] > 100 and own["value"] == pytest.approx(0.5, abs=0.12) and others == pytest.approx(0.5, abs=0.12)
    assert "asked again, the same person disagrees on" in found["differ"]["text"]
    assert "by chance alone: at most" in found["outvoted"]["text"]
    assert len(rows) / 30 > 20 and found["enough"]["typical"] == 12 and not found["enough"]["enough"]


@pytest.mark.parametrize("room", ["yes", "no", "unclear"])
def test_table_report_and_answer_name_one_learner(room: str, tmp_path) -> None:
    """Whatever validation rows, test rows, simplicity and the verdict prefer."""
    rng, names = np.random.default_rng(len(room)), ["pooled", "individual", "low-rank", "hierarchical"]
    for number in range(20):
        value = dict(zip(names, [0.5, *rng.uniform(0.45, 0.8, 3)], strict=True))
        what = content({name: {100: float(value[name])} for name in names}, 100)
        what["selection"] = {name: [{"valid_accuracy": float(rng.uniform())}] for name in names}
        best, take = rng.choice(names[1:], 2)
        what["verdict"] = {"room": room, "best": str(best) if room == "yes" else "pooled", "text": "x", "reason": ""}
        what["method"] = {"learner": str(take) if room == "yes" else "pooled", "level": []}
        what["users"] = {name: {"better": 1, "worse": 0, "tested": 8} for name in names}
        what["data"] = {"n_users": 8}
        (one,) = collect([folder(tmp_path / f"{number}", what)])
        answer = answer_of(one.contents).as_dict()
        named = {line["learner"] for key, line in answer.items() if key in ("personalise", "people")}
        found = gained(one)
        assert found is not None
        assert named == {found.learner} == {str(take) if room == "yes" else max(names[1:], key=lambda n: value[n])}
        users = pl.DataFrame({"user_id": ["a", "b"], "learner": [found.learner] * 2, "gain": [0.1, 0.2]})
        others = [users.with_columns(learner=pl.lit(name)) for name in names[1:] if name != found.learner]
        section = people_section(one.contents, pl.concat([*others, users]), names)
        assert section is not None and section["open"] == found.learner
