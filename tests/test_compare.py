"""The main job on people with known tastes: verdict, gains, placebo, users, files; and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref.cli import main
from polypref.data.split import split
from polypref.errors import NotEnoughData, SettingsError
from polypref.evaluation import Settings, compare
from polypref.evaluation.results import Results
from polypref.evaluation.tables import Arm, choose_baseline
from toy_learners import Length, LengthEncoder, Noise, OwnLength, Sham, people

QUICK = Settings(seeds=2, workers=1, quiet=True)
WORLD = people(users=40, per_user=80, noise=0.1)
LEARNERS = {"pooled": Length(), "own": OwnLength()}


@pytest.fixture(scope="module")
def two_tastes(tmp_path_factory) -> tuple[Results, str]:
    out = tmp_path_factory.mktemp("two-tastes")
    return compare(WORLD, LEARNERS, LengthEncoder(), out=out, settings=QUICK, sizes=(200,)), str(out)


def test_opposed_tastes_are_found_and_the_minority_gains(two_tastes):
    results, _ = two_tastes
    assert results.verdict["room"] == "yes"
    assert results.verdict["best"] == "own"
    assert results.value("own") > results.value("pooled") + 0.08
    assert results.value("pooled", "accuracy_macro", "minority") < 0.35
    assert results.value("own", "accuracy_macro", "minority") > 0.65
    counted = results.content["users"]["own"]
    assert counted["better"] >= 5
    assert counted["worse"] == 0
    better = results.users.filter((pl.col("learner") == "own") & (pl.col("verdict") == "better"))["user_id"]
    assert set(better) <= {f"u{i}" for i in range(10)}


def test_placebo_gains_nothing(two_tastes):
    results, _ = two_tastes
    placebo = [row for row in results.content["placebo"] if row["metric"] == "accuracy_micro"]
    assert [row["learner"] for row in placebo] == ["own"]
    assert placebo[0]["lo"] < 0.02
    assert placebo[0]["better"] == 0
    wanted = ("accuracy_micro", "all", results.content["size"])
    gain = next(r for r in results.content["gains"] if (r["metric"], r["cohort"], r["size"]) == wanted)
    own = results.content["gains_over_shuffled"]
    assert [(row["learner"], row["baseline"], row["metric"]) for row in own] == [
        ("own", "own", "accuracy_micro"),
        ("own", "own", "accuracy_macro"),
    ]
    assert own[0]["value"] == pytest.approx(gain["value"] - placebo[0]["value"])
    assert own[0]["lo"] > 0.05


def test_results_json_is_the_stated_interface(two_tastes):
    results, out = two_tastes
    content = json.loads(
        Path(out, "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON")
    )
    assert content == json.loads(json.dumps(results.content))
    assert content["schema"] == 1
    assert {"data", "encoder", "split", "verdict", "rows", "users", "placebo", "gains", "baseline"} <= set(content)
    assert set(content["verdict"]) == {"room", "best", "text", "reason", "passed", "until", "lacks", "measure"}
    row_keys = {"learner", "size", "cohort", "metric", "value", "lo", "hi", "n_users", "n_comparisons", "seeds"}
    assert all(row_keys <= set(row) for row in content["rows"])
    metrics = {"accuracy_micro", "accuracy_macro", "accuracy_worst_decile", "log_loss", "calibration_error"}
    found = {(row["learner"], row["size"], row["cohort"], row["metric"]) for row in content["rows"]}
    for learner in LEARNERS:
        for size in (200, content["size"]):
            assert {(learner, size, cohort, m) for cohort in ("all", "minority") for m in metrics} <= found
    assert set(content["users"]["own"]) == {"better", "worse", "tested"}
    assert pl.read_parquet(f"{out}/results.parquet").equals(results.rows)
    users = pl.read_parquet(f"{out}/users.parquet")
    assert users.equals(results.users)
    assert " ".join(users.columns) == (
        "user_id learner n_train n_test accuracy baseline_accuracy gain gain_lo gain_hi p_value verdict minority"
    )
    assert users.group_by("learner").len()["len"].to_list() == [40, 40]


def test_gains_are_differences_of_the_rows(two_tastes):
    results, _ = two_tastes
    gains = [row for row in results.content["gains"] if row["value"] is not None]
    assert {row["baseline"] for row in gains} == {"pooled"}
    rows = {(r["learner"], r["size"], r["cohort"], r["metric"]): r["value"] for r in results.content["rows"]}
    for gain in gains:
        key = gain["size"], gain["cohort"], gain["metric"]
        sign = -1 if gain["metric"] in ("log_loss", "brier", "calibration_error") else 1
        assert gain["value"] == pytest.approx(sign * (rows["own", *key] - rows["pooled", *key]))
        assert gain["lo"] <= gain["value"] <= gain["hi"]
    assert len(gains) == 22
    absent = [row for row in results.content["gains"] if row["value"] is None]
    assert {(row["metric"], row["cohort"], row["n_users"]) for row in absent} == {
        ("accuracy_worst_decile", "minority", 10)  # a tenth of ten people is nobody's tenth
    }


def test_second_run_goes_on_and_says_the_same(two_tastes):
    results, out = two_tastes
    again = compare(WORLD, LEARNERS, LengthEncoder(), out=out, settings=QUICK, sizes=(200,))
    assert again.content["timing"]["cells_run"] == 0
    fresh = compare(WORLD, LEARNERS, LengthEncoder(), settings=QUICK, sizes=(200,))
    assert fresh.content["timing"]["cells_run"] > 0
    for other in (again, fresh):
        same = {key: value for key, value in other.content.items() if key != "timing"}
        assert same == {key: value for key, value in results.content.items() if key != "timing"}
        assert other.users.equals(results.users)


def test_more_data_help(two_tastes):
    results, _ = two_tastes
    rows = [
        r
        for r in results.content["rows"]
        if (r["learner"], r["metric"], r["cohort"]) == ("own", "accuracy_micro", "all")
    ]
    few, many = sorted(rows, key=lambda row: row["size"])
    assert few["value"] < many["value"]
    assert few["n_comparisons"] == many["n_comparisons"]


def test_nothing_to_personalise_is_said():
    results = compare(people(users=40, opposed=0.0, noise=0.05), LEARNERS, LengthEncoder(), settings=QUICK)
    assert results.verdict["room"] == "no"
    assert results.verdict["best"] == "pooled"
    assert "no room" in results.verdict["text"]
    assert results.content["users"]["own"]["better"] == 0
    minority = [row for row in results.content["rows"] if row["cohort"] == "minority"]
    assert minority
    assert all(row["value"] is None and row["n_users"] == 0 for row in minority)


@pytest.mark.parametrize("opposed", [1 / 3, 0.0])
def test_twelve_people_speak_for_themselves(opposed):
    """Four of twelve opposed: the mean over people may be chance whatever they judge, each of the four is not."""
    data = people(users=12, per_user=125, opposed=opposed, noise=0.1)
    learners = {"pooled": Length(), **{f"own{k}": OwnLength(2.0 + k) for k in range(3)}}
    results = compare(data, learners, LengthEncoder(), settings=QUICK)
    content = results.content
    assert (results.verdict["room"] == "yes") == bool(opposed)
    assert content["users_sure"]["own0"] == (4 if opposed else 0)
    if opposed:
        assert "4 of 12 users tested are significantly better off and none worse" in results.verdict["text"]
        assert "until there are more people" in results.verdict["text"]
        gain = next(row for row in content["gains"] if row["learner"] == "own0" and row["metric"] == "accuracy_micro")
        assert gain["variance_parts"]["users"] > 0.8


def test_a_better_population_part_is_not_sold_as_personal():
    learners = {"pooled": Noise(), "sham": Sham()}
    results = compare(people(users=30, opposed=0.2), learners, LengthEncoder(), settings=QUICK)
    gain = next(row for row in results.content["gains"] if row["metric"] == "accuracy_micro" and row["cohort"] == "all")
    assert gain["lo"] > 0
    assert results.verdict["room"] == "unclear"
    assert "shuffled" in results.verdict["text"]
    blind = compare(people(users=30, opposed=0.2), learners, LengthEncoder(), settings=QUICK, placebo=False)
    assert blind.verdict["room"] == "yes"
    assert "no placebo arm was run" in blind.verdict["text"]


def test_users_with_few_judgements_are_left_out_and_counted():
    data = people(users=30)
    few = np.flatnonzero((data.user_N != 3) | (np.cumsum(data.user_N == 3) <= 4))
    results = compare(data.take(few), LEARNERS, LengthEncoder(), settings=QUICK, min_judgements=10)
    told = results.content["data"]
    assert (told["users_left_out"], told["comparisons_left_out"], told["n_users"]) == (1, 4, 29)
    assert "u3" not in results.users["user_id"]
    with pytest.raises(NotEnoughData, match="no user has 1,000 judgements; the most is 40"):
        compare(data, LEARNERS, LengthEncoder(), settings=QUICK, min_judgements=1000)


def test_ties_are_learned_from_and_count_in_log_loss_only():
    data = people(users=30)
    tied = replace(data, tie_N=np.arange(len(data)) % 5 == 0)
    results = compare(tied, LEARNERS, LengthEncoder(), settings=QUICK)
    n = {row["metric"]: row["n_comparisons"] for row in results.content["rows"] if row["cohort"] == "all"}
    assert n["log_loss"] > n["accuracy_micro"] > 0.7 * n["log_loss"]
    assert results.content["data"]["n_ties"] == int(tied.tie_N.sum())


def test_what_cannot_be_compared_says_so():
    data = people(users=30)
    with pytest.raises(SettingsError, match=r"unknown setting 'seed'\. Did you mean 'seeds'"):
        compare(data, LEARNERS, LengthEncoder(), seed=3)
    with pytest.raises(SettingsError, match="seeds is 0; expected"):
        compare(data, LEARNERS, LengthEncoder(), seeds=0)
    with pytest.raises(SettingsError, match="--sizes 999999"):
        compare(data, LEARNERS, LengthEncoder(), settings=QUICK, sizes=(999999,))
    with pytest.raises(SettingsError, match="split is 'pairs'; expected"):
        compare(data, LEARNERS, LengthEncoder(), settings=QUICK, split="pairs")
    with pytest.raises(NotEnoughData, match="nothing to personalise"):
        compare(data.take(data.user_N == 0), LEARNERS, LengthEncoder(), settings=QUICK)
    with pytest.raises(NotEnoughData, match="nothing to personalise"):
        compare(replace(data, tie_N=np.ones(len(data), bool)), LEARNERS, LengthEncoder(), settings=QUICK)


def test_odd_user_ids_stay_themselves():
    data = people(users=12, per_user=30)
    odd = ["__proto__", "0", "<b>ü</b> \u202e"]
    named = replace(data, users=replace(data.users, ids=pl.Series(odd + data.users.ids.to_list()[3:])))
    results = compare(named, LEARNERS, LengthEncoder(), settings=QUICK)
    assert set(odd) <= set(results.users["user_id"])


def test_a_user_in_test_rows_only_gets_the_populations_answer():
    data = people(users=12, per_user=30)
    alone = np.flatnonzero(split(data, "pair", 0).test_rows[0] == np.arange(len(data)))
    user_N = data.user_N.copy()
    user_N[alone] = len(data.users)
    ids = pl.Series([*data.users.ids.to_list(), "alone"])
    with_one = replace(data, user_N=user_N, users=replace(data.users, ids=ids))
    results = compare(with_one, LEARNERS, LengthEncoder(), settings=QUICK, seeds=1)
    row = results.users.filter((pl.col("user_id") == "alone") & (pl.col("learner") == "own")).to_dicts()[0]
    assert (row["n_train"], row["n_test"], row["gain"], row["verdict"]) == (0, 1, 0.0, "untested")


# parts


def arm(learner: str, serves: str, *valid: float | None) -> Arm:
    selection = tuple({} if v is None else {"valid_accuracy": v} for v in valid)
    return Arm(learner, serves, selection, np.zeros(1))


def test_baseline_is_the_best_population_learner_on_validation_rows():
    arms = [
        arm("random", "population", 0.99, 0.99),
        arm("length", "population", None, None),
        arm("pooled", "population", 0.70, 0.74),
        arm("pooled-effects", "population", 0.73, 0.75),
        arm("personal", "any_user", 0.9, 0.9),
    ]
    found = choose_baseline({a.learner: a for a in arms})
    assert found["learner"] == "pooled-effects"
    assert found["valid_accuracy"] == pytest.approx(0.74)
    assert choose_baseline({"personal": arms[-1]})["learner"] is None
    assert choose_baseline({"length": arms[1]}) == {
        "learner": "length",
        "valid_accuracy": None,
        "candidates": {"length": None},
    }


# the command


@pytest.fixture
def toy_world(monkeypatch, tmp_path):
    import polypref.features
    import polypref.learners

    monkeypatch.setattr(polypref.learners, "LEARNERS", LEARNERS, raising=False)
    monkeypatch.setattr(polypref.learners, "STANDARD", tuple(LEARNERS))
    monkeypatch.setattr(polypref.features, "encoder", lambda name, **_: LengthEncoder())
    data = people(users=24, per_user=30)
    texts, ids = data.responses.texts_R, data.users.ids
    path = tmp_path / "prefs.jsonl"
    pl.DataFrame(
        {
            "user_id": ids.gather(data.user_N),
            "prompt": data.responses.prompts.gather(data.responses.prompt_R[data.chosen_N]),
            "chosen": texts.gather(data.chosen_N),
            "rejected": texts.gather(data.rejected_N),
        }
    ).write_ndjson(path)
    return path


def test_command_writes_everything_and_prints_the_verdict(toy_world, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", str(toy_world), "--out", str(out), "--seeds", "2", "--workers", "1", "--sizes", "200"]) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    for name in ("report.html", "results.parquet", "users.parquet"):
        assert (out / name).stat().st_size > 500
    assert printed.startswith("1. Personalise: ")
    assert results["verdict"]["text"] in printed
    assert f"Report: {out / 'report.html'}" in printed
    assert results["data"]["files"] == [str(toy_world)]
    assert results["reproduce"]["command"].split()[:3] == ["polypref", "compare", str(toy_world)]
    assert "--sizes 200" in results["reproduce"]["command"]
    assert isinstance(results["findings"], list)


def test_command_takes_settings_from_a_file_and_flags_win(toy_world, tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text(f'[compare]\nseeds = 1\nworkers = 1\nsplit = "prompt"\nout = "{tmp_path}/from-file"\n')
    assert main(["compare", str(toy_world), "--config", str(config), "--split", "pair"]) == 0
    results = json.loads((tmp_path / "from-file" / "results.json").read_text())
    assert (results["settings"]["seeds"], results["split"]["rule"]) == (1, "pair")
    config.write_text("[compare]\nseed = 1\n")
    capsys.readouterr()
    assert main(["compare", str(toy_world), "--config", str(config)]) == 2
    assert "Did you mean 'seeds'" in capsys.readouterr().err


def test_command_errors_are_one_line(toy_world, tmp_path, capsys):
    assert main(["compare", str(toy_world), "--learners", "poled", "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err == (
        "polypref: error: unknown learner 'poled'. Did you mean 'pooled'? "
        "Known: jury:ATTRIBUTE, own, persona:MODEL, pooled, pretrained:MODEL, retrieval-judge:MODEL.\n"
    )
    assert main(["compare", "--out", str(tmp_path / "o")]) == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["compare", str(toy_world), "--out", str(blocked), "--seeds", "1", "--workers", "1"]) == 2
    assert "Choose another --out" in capsys.readouterr().err
