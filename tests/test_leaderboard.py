"""``polypref leaderboard``: strengths against a second solver, coverage, planted and null worlds, bad input."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from leaderboard_cases import rows, world
from polypref.cli import main
from polypref.data.read import read
from polypref.leaderboard import battles_of, people
from polypref.leaderboard.ranks import half_widths, rank_intervals
from polypref.leaderboard.strengths import fit, logits
from polypref.leaderboard.table import ranked


def written(path: Path, content: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


def run(tmp_path: Path, content: list[dict], *more: str) -> dict:
    file = written(tmp_path / "battles.jsonl", content)
    assert main(["leaderboard", file, "--out", str(tmp_path / "out"), *more]) == 0
    return json.loads((tmp_path / "out" / "leaderboard.json").read_text(encoding="utf-8"))


def test_the_mode_is_that_of_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    battles = world(0, ties=0.2, position=0.4)[0]
    design = np.zeros((len(battles), 6))
    at = np.arange(len(battles))
    design[at, battles.first_N] += 1
    design[at, battles.second_N] -= 1
    design = np.column_stack([design, np.sqrt(100) * battles.extra_NE])  # its prior's variance is 100
    label = np.r_[np.ones(len(at)), np.zeros(len(at))]
    weight = np.r_[battles.label_N, 1 - battles.label_N]
    peer = linear_model.LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000)
    peer.fit(np.tile(design, (2, 1)), label, weight)
    ours = fit(battles, variance=1.0).theta_A
    assert np.allclose(ours, peer.coef_[0] * [1, 1, 1, 1, 1, 1, 10], atol=1e-5)


def test_intervals_cover_strengths_and_all_ranks_at_once():
    covered, ranks, independent = [], [], []
    attenuated = np.sqrt(1 + people.ATTENUATION * 0.5**2)
    for seed in range(60):
        battles, _, _, own_UM = world(seed, apart=(0.5, 0.5), people=40, each=30)
        truth_M = own_UM.mean(axis=0) - own_UM.mean()
        strengths = fit(battles)
        theta_M = strengths.theta_M - strengths.theta_M.mean()
        half_M = half_widths(strengths.covariance_MM, strengths.clusters)
        covered.append(np.abs(theta_M - truth_M / attenuated) <= half_M)  # people taken together are closer to zero
        best_M, worst_M = rank_intervals(theta_M, strengths.covariance_MM, strengths.clusters, seed)
        rank_M = 1 + (truth_M[:, None] < truth_M[None, :]).sum(axis=1)
        ranks.append(bool(((best_M <= rank_M) & (rank_M <= worst_M)).all()))
        alone = fit(replace(battles, user_N=np.arange(len(battles)), n_users=len(battles)))
        independent.append(half_M.mean() / half_widths(alone.covariance_MM, alone.clusters).mean())
    assert np.mean(covered) > 0.91
    assert np.mean(ranks) >= 0.93
    assert np.mean(independent) > 1.1  # judgements of one person are no sample of people


def test_ties_count_one_half_and_draw_systems_together():
    battles = world(1, apart=(1.0, 0.0))[0]
    tied = replace(battles, label_N=np.full(len(battles), 0.5))
    assert np.abs(fit(tied).theta_A).max() < 1e-6
    doubled = replace(
        battles.take(np.tile(np.arange(len(battles)), 2)), label_N=np.r_[battles.label_N, 1 - battles.label_N]
    )
    assert np.abs(fit(doubled).theta_A).max() < 1e-6


def test_position_bias_is_found_and_kept_from_the_strengths():
    battles, _, theta_M, _ = world(2, people=100, position=0.6)
    found = fit(battles)
    se = np.sqrt(found.covariance_AA[-1, -1])
    assert abs(found.theta_A[-1] - 0.6) < 3 * se < 0.3
    assert np.corrcoef(found.theta_M, theta_M)[0, 1] > 0.95
    none = fit(world(3, people=100)[0])
    assert abs(none.theta_A[-1]) < 3 * np.sqrt(none.covariance_AA[-1, -1])


@pytest.mark.parametrize(("spread", "seed"), [(0.0, 0), (0.0, 1), (0.8, 2), (0.8, 3)])
def test_the_share_of_people_with_another_best(spread: float, seed: int):
    battles, prompt_N, theta_M, own_UM = world(seed, apart=(0.5, spread), people=120)
    truth = float((own_UM.argmax(axis=1) != theta_M.argmax()).mean())
    whole = fit(battles)
    base_N = logits(battles, whole.theta_A)
    found = people.spread_of(battles, prompt_N, base_N, 0)
    told = people.persons(battles, {"p": whole}, np.full(len(battles), "p"), found, 10, 0)
    raw = people.raw_share(battles, base_N, int(whole.theta_M.argmax()), 0)
    assert found.lo <= spread <= found.hi
    assert told.lo <= truth <= told.hi
    assert (found.lo > 0) == (found.p < 0.05), "what is said and its p agree"
    if spread:
        assert found.p < 1e-4 and found.lo > 0.5
        assert told.lo > 0.2
    else:
        assert told.lo == 0.0 and told.share < raw["observed"] - 0.1  # noise alone gives a count of raw wins much
        assert abs(raw["noise_alone"] - raw["observed"]) < 0.15
    assert people.spread_of(people.shuffled(battles, np.full(len(battles), "p"), 1), prompt_N, base_N, 0).p > 0.001


def test_what_single_texts_are_worth_is_no_taste():
    """Judgements of one text by one person agree because of the text; without prompts that looks like people."""
    battles, _, _, _ = world(4, people=100, each=10)
    rng = np.random.default_rng(0)
    five = np.repeat(np.arange(len(battles)), 5)
    worth_N = np.repeat(2 * rng.standard_normal(len(battles)), 5)
    many = battles.take(five)
    logit_N = logits(many, fit(battles).theta_A) + worth_N
    many = replace(many, label_N=(rng.random(len(many)) < expit(logit_N)).astype(float))
    base_N = logits(many, fit(many).theta_A)
    five_fold = people.spread_of(many, five, base_N, 0)
    assert five_fold.p > 0.01 and (five_fold.lo > 0) == (five_fold.p < 0.05)
    assert people.spread_of(many, np.arange(len(many)), base_N, 0).p < 1e-6


def test_the_page_and_the_json(tmp_path, capsys):
    battles = world(5, people=30, each=20, ties=0.1)[0]
    names = ("<b>x</b>", "模型", "s\u0301", "d", "e", "f")
    found = run(tmp_path, rows(battles, names), "--groups", "land")
    assert {row["system"] for row in found["rows"]} == set(names)
    assert set(found["groups"]) == {"a", "b"}
    assert found["judgements"] == 600 and found["ties"] == int((battles.label_N == 0.5).sum())
    assert found["data"]["hash"] and found["versions"]["polypref"] and found["settings"]["seed"] == 0
    page = (tmp_path / "out" / "leaderboard.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;x&lt;/b&gt;" in page and "<b>x</b>" not in page and "模型" in page
    assert "chosen_model and rejected_model" in capsys.readouterr().err
    again = run(tmp_path, rows(battles, names), "--groups", "land")
    assert again == found
    assert main(["leaderboard", str(tmp_path / "battles.jsonl"), "--out", str(tmp_path / "out"), "--seed", "1"]) == 2


def test_sides_are_those_of_the_file_in_any_order(tmp_path):
    """Systems stay with their texts whatever the order of rows; a column of sides gives what one of outcomes gives."""
    content = rows(world(6, people=20, each=10)[0])
    outcomes = battles_of(read(written(tmp_path / "a.jsonl", content)))[0]
    for row in content:
        first = row.pop("chosen_model"), row.pop("rejected_model")
        a, b = first if row["chosen_pos"] == 0 else first[::-1]
        row["attributes"] = row["attributes"] | {"model_a": a, "model_b": b}
    random.Random(0).shuffle(content)
    sides = battles_of(read(written(tmp_path / "b.jsonl", content)))[0]
    assert np.allclose(fit(outcomes).theta_A, fit(sides).theta_A, atol=1e-6)


def test_style_finds_a_planted_bias_for_length(tmp_path):
    battles, _, theta_M, _ = world(7, people=80, apart=(0.3, 0.0))
    rng = np.random.default_rng(0)
    wordy_M = np.arange(6) * 8 + 4  # later systems are wordier, which is all that is liked of them
    count_N2 = np.column_stack([wordy_M[battles.first_N], wordy_M[battles.second_N]]) + rng.integers(
        0, 12, (len(battles), 2)
    )
    apart_N = (count_N2[:, 0] - count_N2[:, 1]) / count_N2.sum(axis=1)
    logit_N = theta_M[battles.first_N] - theta_M[battles.second_N] + 2 * apart_N
    battles = replace(battles, label_N=(rng.random(len(battles)) < expit(logit_N)).astype(float))
    content = rows(battles)
    for at, row in enumerate(content):
        first, second = ("chosen", "rejected") if row["chosen_pos"] == 0 else ("rejected", "chosen")
        for side, count in ((first, count_N2[at, 0]), (second, count_N2[at, 1])):
            row[side] = " ".join([f"{at}{side}", *["w"] * (int(count) - 1)])
    made = battles_of(read(written(tmp_path / "a.jsonl", content)))[0]
    styled, plain = fit(made), fit(made.without_style())
    words = len(made.names) + made.covariates.index("words")
    planted = 2 * float(np.sqrt((apart_N**2).mean()))
    assert abs(styled.theta_A[words] - planted) < 3 * np.sqrt(styled.covariance_AA[words, words])
    error = [np.abs(one.theta_M - one.theta_M.mean() - (theta_M - theta_M.mean())).mean() for one in (styled, plain)]
    assert error[0] < 0.5 * error[1]


def test_parts_that_never_met_have_tables_of_their_own(tmp_path, capsys):
    battles = world(8, people=20, each=20)[0]
    apart = (battles.first_N < 3) == (battles.second_N < 3)
    found = run(tmp_path, rows(battles.take(apart)))
    assert len(found["rows"]) == 3 and len(found["other_parts"]) == 1
    assert {row["best_rank"] for row in found["rows"]} <= {1, 2, 3}
    assert "never compared" in capsys.readouterr().out


def test_one_person(tmp_path, capsys):
    found = run(tmp_path, rows(world(9, people=1, each=80)[0]))
    assert found["clusters"] == "judgements" and "10 are needed" in found["persons"]["why_not"]
    assert "these people only" in capsys.readouterr().out.replace("\n", " ")


def test_a_group_leans_on_the_population():
    battles = world(10)[0]
    whole = fit(battles)
    few = fit(battles.take(np.arange(25)), prior_M=whole.theta_M)
    alone = fit(battles.take(np.arange(25)))
    assert np.abs(few.theta_M - whole.theta_M).mean() < np.abs(alone.theta_M - whole.theta_M).mean()
    assert len(ranked(battles, few, 0)) == 6


@pytest.mark.parametrize(
    ("change", "more", "text"),
    [
        ({"chosen_model": None, "rejected_model": None}, (), "no judgements"),
        ({}, ("--systems", "one"), "expected two"),
        ({}, ("--systems", "x", "y"), "no column names the system"),
        ({}, ("--groups", "no"), "no"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, change, more, text):
    file = written(tmp_path / "b.jsonl", [row | change for row in rows(world(11, people=5, each=10)[0])])
    assert main(["leaderboard", file, "--out", str(tmp_path / "o"), *more]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("polypref: error:") and (text in last or "0 judgements" in last)


def test_sides_without_an_order_are_refused(tmp_path, capsys):
    content = rows(world(12, people=5, each=10)[0])
    for row in content:
        row["model_a"], row["model_b"] = row.pop("chosen_model"), row.pop("rejected_model")
        del row["chosen_pos"]
    assert main(["leaderboard", written(tmp_path / "b.jsonl", content), "--out", str(tmp_path / "o")]) == 2
    assert "which side was chosen" in capsys.readouterr().err.replace("\n", " ")


def test_few_judgements_are_refused(tmp_path, capsys):
    content = rows(world(13, people=2, each=5)[0])
    assert main(["leaderboard", written(tmp_path / "b.jsonl", content), "--out", str(tmp_path / "o")]) == 2
    assert "at least 20 judgements" in capsys.readouterr().err


def test_one_system_is_refused(tmp_path, capsys):
    content = [row | {"chosen_model": "x", "rejected_model": "x"} for row in rows(world(14, people=5, each=10)[0])]
    assert main(["leaderboard", written(tmp_path / "b.jsonl", content), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1]


def test_a_system_against_itself_counts_for_nothing(tmp_path):
    content = rows(world(15, people=20, each=10)[0])
    same = content[0] | {"rejected_model": content[0]["chosen_model"], "prompt": "another question"}
    assert run(tmp_path, [*content, same])["judgements"] == len(content)


def test_ties_alone_put_no_system_ahead(tmp_path):
    battles = world(16, people=20, each=10)[0]
    found = run(tmp_path, rows(replace(battles, label_N=np.full(len(battles), 0.5))))
    assert found["ties"] == found["judgements"] == 200
    assert {row["best_rank"] for row in found["rows"]} == {1}


def test_a_person_with_one_judgement_counts_and_is_not_ranked(tmp_path):
    content = rows(world(17, people=15, each=20)[0])
    found = run(tmp_path, [*content, content[0] | {"user_id": "once"}])
    assert found["people"] == 16 and found["judgements"] == 301
    assert "once" not in {row["user"] for row in found["persons"]["rows"]}


@pytest.mark.parametrize("value", [["a", "b"], {"name": "a"}, [], ' ["a"]'])
def test_a_name_that_is_several_names_its_place(tmp_path, capsys, value):
    content = rows(world(18, people=5, each=20)[0])
    content[7]["rejected_model"] = value
    file = written(tmp_path / "b.jsonl", content)
    assert main(["leaderboard", file, "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert f"{file}, line 8: rejected_model is" in said and "expected the name of one system" in said
    assert not (tmp_path / "o").exists()


def test_a_name_in_brackets_is_a_name(tmp_path, capsys):
    found = run(tmp_path, rows(world(19, people=5, each=20)[0], ("[a]", "{b", "c", "d", "e", "f")))
    assert {"[a]", "{b"} <= {row["system"] for row in found["rows"]}
    assert "counted as" not in capsys.readouterr().err


def test_names_that_look_alike_count_apart_and_are_told(tmp_path, capsys):
    found = run(tmp_path, rows(world(20, people=20, each=20)[0], ("GPT 4", "gpt 4 ", "c", "d", "\u00e9", "e\u0301")))
    assert len(found["rows"]) == 6
    said = capsys.readouterr().err
    assert 'counted as 2 systems: "GPT 4", "gpt 4 "' in said and said.count("counted as") == 2
