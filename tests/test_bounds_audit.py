"""The audit finds what is unsafe without bounds, and says so when it could not have."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bounds_cases import Table, Whole, random_slates
from polypref.bounds import cap
from polypref.bounds.adversaries import pairs_of, taught, vectors
from polypref.bounds.audit import _file, audit
from polypref.bounds.audit_setup import AuditSettings, Case, Stage
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.rewriting import REWRITINGS
from polypref.bounds.safety_cache import Safety
from polypref.bounds.slates import Slates, part_of, read_slates
from polypref.cli import main
from polypref.comparisons import from_columns
from polypref.errors import NotEnoughData, SettingsError
from polypref.report.audit import _trade, page, summary
from polypref.scorers import load

ROOT = Path(__file__).parent.parent
PENALISED = "with the safety penalty"
SMALL = AuditSettings(sizes=(1, 8), tested=4000, recalibrations=60, vectors=1000, tries=25)


class Taught(Table):
    """Adapts: the new person likes the texts that they chose, and nothing else differs."""

    def adapt(self, user_id, few):
        own = self.shared.copy()
        chosen = few.responses.texts_R.gather(few.chosen_N).cast(pl.Int64).to_numpy()
        own[chosen] += 100
        return Personal(self.shared, own, user_id)


class Personal(Table):
    def __init__(self, shared, own, user_id):
        super().__init__(shared)
        self.mine, self.user_id = own, user_id

    def score(self, responses, user_ids, response_Q=None):
        one = user_ids is not None and len(user_ids) > 0 and pl.Series(user_ids)[0] == self.user_id
        return Table(self.mine if one else self.shared).score(responses, user_ids, response_Q)


def case(share=0.2, slates=600, **changes) -> Case:
    whole, safety = random_slates(np.random.default_rng(0), slates, 4, share)
    scorer = Taught(np.random.default_rng(1).standard_normal(len(safety)))
    bounded = Bounded(
        scorer, Safety(Whole(safety * 3)), Gate({"": 3.0}), Limits(cap=1.0, most_candidates=4), policy_hash="abc"
    )
    return replace(Case(bounded, whole, alpha=0.02, delta=0.05, people=("u",), settings=SMALL), **changes)


def rows_of(found, **wanted):
    return [row for row in found["rows"] if all(row[name] == value for name, value in wanted.items())]


def test_slates_of_one_prompt_are_one_observation_of_a_leak():
    """The same slates twice make nothing surer, whether they hold or leak."""
    once = case(slates=200)
    twice = once.slates.slate_C + len(once.slates)
    both = Slates(
        once.slates.responses,
        np.concatenate([once.slates.slate_C, twice]),
        np.tile(once.slates.response_C, 2),
        np.tile(once.slates.unsafe_C, 2),
        pl.concat([once.slates.category_L] * 2),
    )
    for bounded in (once.bounded, replace(once.bounded, gate=Gate({"": 0.0}))):
        found = [_file(Stage(replace(once, slates=slates, bounded=bounded))) for slates in (once.slates, both)]
        assert found[0][:3] == found[1][:3] and found[0][0]["n"] == 200


def test_bounds_hold_against_everyone_and_the_control_fails_without_them():
    found = audit(case())
    assert found["control"]["holds"]
    through = {row["arm"]: row["value"] for row in rows_of(found, part="rewritten texts")}
    assert through.keys() == {"as they are", *REWRITINGS, "searched"}
    assert through["as they are"] < 0.01 < through["base64"] == 1, (
        "a control: this scorer calls safe what it cannot read"
    )
    for size in SMALL.sizes:
        off = rows_of(found, part="recalibrations", arm="oracle", size=size, bounds="off")[0]
        assert off["value"] == pytest.approx(1 - 0.8**size, abs=0.02)
        mean = rows_of(found, arm="oracle, calibrated on average", size=size)[0]
        assert mean["lo"] <= 0.02
        exceeds = rows_of(found, arm="oracle, high probability", metric="exceeds alpha", size=size)[0]
        assert exceeds["lo"] <= 0.05
        for row in rows_of(
            found, part="best of N", metric="unsafe returned", size=size, bounds="calibrated for this size"
        ):
            assert row["lo"] <= 0.02, row
    assert rows_of(found, part="best of N", metric="unsafe returned", size=1, bounds="on")
    assert not rows_of(found, part="best of N", metric="unsafe returned", size=8, bounds="on")
    assert found["leaks"]["holds"]
    moved = rows_of(found, metric="largest change of others' scores")
    assert len(moved) == 3
    assert all(row["value"] == 0 for row in moved)
    sure = rows_of(found, metric="certified safety accuracy")[0]
    assert sure["value"] < rows_of(found, arm="shared reward")[0]["value"]
    json.dumps(found, allow_nan=False)
    told = summary(found | {"settings": {"alpha": 0.02}})
    assert "Without bounds" in told
    facts = {"inputs": {}, "data": {}, "settings": {"alpha": 0.02}, "versions": {}, "seconds": 1.0}
    html = page(found | facts)
    assert "<h1>What no user can move</h1>" in html
    assert "proves nothing" not in html


def test_the_curve_goes_from_everybody_shared_to_no_cap_and_agrees_with_the_certificate():
    rng = np.random.default_rng(5)
    shared, own = rng.standard_normal((2, 2400))
    left = rng.integers(0, 2400, 500)
    right = (left + rng.integers(1, 2400, 500)) % 2400
    users = [f"u{n % 10}" for n in range(500)]
    liked = shared + own
    better, worse = np.where(liked[left] > liked[right], [left, right], [right, left])
    benign = from_columns(users, ["p"] * 500, better.astype(str).tolist(), worse.astype(str).tolist())
    limits = Limits(cap=0.5, safety_weight=4.0, ample=2.0, most_candidates=4)
    honest = case()
    bounded = replace(honest.bounded, scorer=Table(shared, liked), limits=limits)
    found = audit(replace(honest, bounded=bounded, benign=benign))
    arms = {arm: [row for row in found["curve"] if row["arm"] == arm] for arm in ("people's rewards alone", PENALISED)}
    for rows in arms.values():
        assert rows[0]["cap"] == 0
        assert rows[-1]["cap"] is None
        sure = [row["certified"] for row in rows]
        assert sure == sorted(sure, reverse=True)
        assert sure[0] == pytest.approx(rows[0]["shared"])
        assert sure[-1] == 0
    free = arms["people's rewards alone"]
    assert free[-1]["accuracy"]["value"] == 1, "their own rewards are what they judged by"
    assert free[-1]["lost"]["value"] == 0
    assert free[0]["accuracy"]["value"] == rows_of(found, arm="shared by all")[0]["value"] < 0.9
    assert free[0]["lost"]["lo"] > 0
    here = [row for row in found["curve"] if row["in_force"]]
    assert [(row["arm"], row["cap"]) for row in here] == [(PENALISED, 0.5)]
    assert here[0]["certified"] == rows_of(found, metric="certified safety accuracy")[0]["value"]
    assert here[0]["accuracy"]["value"] == rows_of(found, arm="within the bounds")[0]["value"]
    assert arms[PENALISED][0]["shared"] > free[0]["shared"] + 0.2
    html = page(found | {"inputs": {}, "data": {}, "settings": {"alpha": 0.02}, "versions": {}, "seconds": 1.0})
    assert html.count("50% of deviations are smaller") == 2
    assert re.search(r"The cap [0-9.e-]+ loses least \(", html)
    assert html.count("<polyline") == 2
    assert html.count('r="7"') == 1


def test_without_a_penalty_missing_safety_scores_count_in_the_curve_as_in_the_certificate():
    _, safety = random_slates(np.random.default_rng(0), 600, 4, 0.2)
    told = np.where(np.arange(2400) % 3 == 0, np.nan, safety * 3)
    texts = np.random.default_rng(6).permutation(2400)[:400].astype(str)
    benign = from_columns([f"u{n % 5}" for n in range(200)], ["p"] * 200, texts[:200].tolist(), texts[200:].tolist())
    honest = case(benign=benign)
    bounded = replace(honest.bounded, safety=Safety(Whole(told)), limits=Limits(cap=0.1, most_candidates=4))
    found = audit(replace(honest, bounded=bounded))
    here = [row for row in found["curve"] if row["in_force"]]
    assert len(here) == 1
    assert here[0]["certified"] == rows_of(found, metric="certified safety accuracy")[0]["value"]
    assert here[0]["shared"] == rows_of(found, arm="shared reward")[0]["value"]
    assert here[0]["accuracy"]["value"] == rows_of(found, arm="within the bounds")[0]["value"]


def test_everybody_whom_a_mixture_can_hold_is_certified_by_its_basis(folder, tmp_path, capsys):
    small = ["--users", "12", "--judgements", "24"]
    assert main(["simulate", "two-tastes", *small, "--out", str(tmp_path / "prefs.jsonl")]) == 0
    words = ["fit", tmp_path / "prefs.jsonl", "--learner", "low-rank", "--encoder", "static", "--out", tmp_path / "mix"]
    assert main([str(word) for word in words]) == 0
    scorer: Any = load(tmp_path / "mix")
    slates = read_slates(str(folder / "labelled.jsonl"))
    pairs = pairs_of(slates)
    basis_RC = scorer.basis_rewards(slates.responses)
    weights_VC = np.random.default_rng(0).dirichlet(np.full(basis_RC.shape[1], 0.2), 500)
    sure = cap.certified_mixture(pairs.margins(basis_RC))
    worst = min((pairs.margins(basis_RC @ weights_C) > 0).mean() for weights_C in weights_VC)
    assert 0 <= sure <= worst
    known = scorer.score(slates.responses, [scorer.users.ids[0]] * len(slates.responses)).value_Q
    assert (pairs.margins(known) > 0).mean() >= sure
    capsys.readouterr()
    words = ["--slates", folder / "labelled.jsonl", "--scorer", tmp_path / "mix"]
    code, told = said(capsys, "bounds", "certify", folder / "bounds.toml", *words)
    assert code == 0
    line = next(line for line in told.out.splitlines() if "without any cap" in line)
    assert line.endswith(f"mixtures of its {basis_RC.shape[1]} basis rewards) prefers the safe one in {sure:.3f}")


@pytest.mark.parametrize(("lo", "hi"), [(1.0, 1.0), (0.0, 0.0), (0.62, 0.71)])
def test_the_axis_of_accuracy_ends_where_accuracies_do(lo, hi):
    told = {"lo": None, "hi": None, "n": 2}
    curve = [
        {
            "arm": "a",
            "cap": cap,
            "what": "",
            "certified": 0.5,
            "shared": 0.5,
            "in_force": False,
            "lost": {"value": 0.0, **told},
        }
        | {"accuracy": {"value": value, **told}}
        for cap, value in ((0.0, lo), (None, hi))
    ]
    drawn = _trade(curve)
    assert drawn is not None
    ticks = [int(tick["text"].removesuffix(" %").replace("−", "-")) for tick in drawn["across"]]
    assert 100 * lo >= ticks[0]
    assert 100 * hi <= ticks[-1] <= 100


def test_a_gate_that_drops_nothing_fails_its_audit_and_a_cap_that_is_not_there_certifies_nothing():
    honest = case()
    bounded = replace(honest.bounded, gate=Gate({"": -1e9}), limits=Limits())
    found = audit(replace(honest, bounded=bounded))
    assert not found["leaks"]["holds"]
    assert "the gate FAILS" in summary(found)
    assert rows_of(found, metric="certified safety accuracy")[0]["value"] == 0
    assert rows_of(found, metric="cap")[0]["value"] is None


def test_an_audit_that_could_not_fail_says_that_it_proves_nothing():
    rare = case(share=0.02, slates=1500, settings=replace(SMALL, sizes=(1,)))
    found = audit(replace(rare, alpha=0.05))
    assert not found["control"]["holds"]
    assert "proves nothing" in summary(found)


def test_too_few_unsafe_responses_are_refused():
    with pytest.raises(NotEnoughData, match="an audit needs 20 of each"):
        audit(case(share=0.01, slates=60))


def test_taught_people_prefer_what_is_unsafe_in_their_share_of_pairs():
    slates = random_slates(np.random.default_rng(2), 300, 4)[0]
    pairs = pairs_of(slates)
    assert slates.unsafe_C[pairs.unsafe_I].all()
    assert not slates.unsafe_C[pairs.safe_I].any()
    for name, judged in taught(slates, pairs, 0):
        share = slates.unsafe_C[judged.chosen_N].mean()
        assert f"{share:.0%}" in name


def test_climbed_tastes_come_near_the_certificate_and_never_beat_it():
    """T4, with features that allow nearly any deviation: the climb is strong, and the certificate still holds."""
    rng = np.random.default_rng(3)
    margin = np.abs(rng.standard_normal(40)) * 2
    features = rng.standard_normal((2, 40, 200))
    drawn, climbed = vectors(margin, (features[0], features[1]), 0.5, 1000, seed=0)
    sure = cap.certified(margin, 0.5)
    assert 0.05 < sure < 0.95
    assert climbed.min() >= sure
    assert climbed.min() < drawn.min()
    assert climbed.min() <= sure + 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bounds with a detector and a calibration, made by the commands."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("bounds")
    subprocess.run([sys.executable, ROOT / "examples/labelled_slates.py", folder / "labelled.jsonl"], check=True)
    (folder / "bounds.toml").write_text('[immutable]\nsafety = "safety"\nalpha = 0.1\ndelta = 0.1\n')
    for action, part in (("detector", "1/3"), ("calibrate", "2/3")):
        told = ["bounds", action, folder / "bounds.toml", "--slates", folder / "labelled.jsonl", "--part", part]
        assert main([str(word) for word in told]) == 0
    return folder


def said(capsys, *words):
    code = main([str(word) for word in words])
    return code, capsys.readouterr()


def test_the_commands_check_and_refuse(folder, capsys):
    code, told = said(capsys, "bounds", "check", folder / "bounds.toml")
    assert code == 0
    assert "policy hash" in told.out
    asked = ["bounds", "calibrate", folder / "bounds.toml"]
    for words, complaint in (
        ([*asked], "needs labelled slates: --slates FILE"),
        ([*asked, "--slates", folder / "labelled.jsonl", "--part", "3/2"], "--part 3/2: expected K/N"),
        ([*asked, "--slates", folder / "labelled.jsonl", "--part", "1/3"], "too well to be judged"),
        (["audit", folder, "--bounds", folder / "bounds.toml", "--slates", folder / "labelled.jsonl"], "too well"),
        (
            [
                "audit",
                folder,
                "--bounds",
                folder / "bounds.toml",
                "--slates",
                folder / "labelled.jsonl",
                "--part",
                "2/3",
            ],
            "were calibrated on",
        ),
        (["bounds", "check", folder / "bounds.toml", "--pin", "0123"], "other bounds"),
        (["bounds", "explain", folder / "bounds.toml"], "--questions FILE"),
        (["bounds", "check", folder / "none.toml"], "cannot be read"),
    ):
        code, told = said(capsys, *words)
        assert code == 2
        assert complaint in told.err
        assert "Traceback" not in told.err


def test_a_folder_of_another_kind_is_not_replaced(folder, tmp_path, capsys):
    small = ["--users", "12", "--judgements", "24"]
    assert main(["simulate", "two-tastes", *small, "--out", str(tmp_path / "prefs.jsonl")]) == 0
    shutil.copytree(folder, tmp_path / "b")
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "b" / "safety").iterdir())
    for words in (["fit", "--learner", "pooled"], ["groups", "--attribute", "group"]):
        told = [words[0], tmp_path / "prefs.jsonl", *words[1:], "--out", tmp_path / "b" / "safety"]
        code, out = said(capsys, *told)
        assert code == 2
        assert "safety exists and holds a detector, not a" in out.err
    assert sorted((path, path.read_bytes()) for path in (tmp_path / "b" / "safety").iterdir()) == before
    assert main(["fit", str(tmp_path / "prefs.jsonl"), "--learner", "pooled", "--out", str(tmp_path / "scorer")]) == 0
    (tmp_path / "b" / "bounds.toml").write_text('[immutable]\nsafety = "../scorer"\n')
    words = ["detector", tmp_path / "b" / "bounds.toml", "--slates", folder / "labelled.jsonl"]
    code, out = said(capsys, "bounds", *words)
    assert code == 2
    assert "scorer exists and holds a scorer, not a detector" in out.err


def test_explain_names_the_line_that_decides(folder, capsys, tmp_path):
    small = ["--users", "12", "--judgements", "24"]
    assert main(["simulate", "two-tastes", *small, "--out", str(tmp_path / "prefs.jsonl")]) == 0
    assert main(["fit", str(tmp_path / "prefs.jsonl"), "--learner", "pooled", "--out", str(tmp_path / "scorer")]) == 0
    slates = part_of(read_slates(str(folder / "labelled.jsonl")), 3, 3, 3)
    texts = slates.responses.texts_R.gather(slates.response_C)
    prompts = [slates.responses.prompt_text(p) for p in slates.responses.prompt_R[slates.response_C].tolist()]
    rows = pl.DataFrame({"user_id": "u", "prompt": prompts, "response": texts})
    rows.write_ndjson(tmp_path / "questions.jsonl")
    capsys.readouterr()
    rows.rename({"response": "what_it_said"}).write_ndjson(tmp_path / "questions.jsonl")
    words = ["--scorer", tmp_path / "scorer", "--questions", tmp_path / "questions.jsonl"]
    assert said(capsys, "bounds", "explain", folder / "bounds.toml", *words)[0] == 2
    words += ["--columns", "response=what_it_said"]
    code, told = said(capsys, "bounds", "explain", folder / "bounds.toml", *words)
    assert code == 0
    found = [json.loads(line) for line in told.out.splitlines()]
    assert len(found) == len(rows)
    dropped = [row for row in found if not row["returned"]]
    assert dropped
    assert all("line 3, [immutable]" in row["reason"] and row["score"] is None for row in dropped)
    assert {row["policy_hash"] for row in found} == {found[0]["policy_hash"]}
    unsafe = slates.unsafe_C
    assert np.mean([not row["returned"] for row, bad in zip(found, unsafe, strict=True) if bad]) > 0.8
    assert np.mean([row["returned"] for row, bad in zip(found, unsafe, strict=True) if not bad]) > 0.8


def test_another_detector_than_the_calibrated_one_is_refused(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    told = ["bounds", "detector", copy / "bounds.toml", "--slates", copy / "labelled.jsonl", "--part", "1-2/3"]
    assert main([str(word) for word in told]) == 0
    from polypref.bounds.bounds_file import load_bounds
    from polypref.bounds.detector import Detector

    with pytest.raises(SettingsError, match="is another one than was calibrated"):
        load_bounds(copy / "bounds.toml")
    with pytest.raises(SettingsError, match="is another one than"):
        load_bounds(folder / "bounds.toml").bind(Table([0.0]), Detector.load(copy / "safety"))
