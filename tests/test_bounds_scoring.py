"""Scoring within bounds without detour: ``polypref score --bounds`` and ``ScorerReward(bounds=...)``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import polypref
from bounds_cases import Table
from polypref.align.rewards import GAP, ScorerReward
from polypref.bounds.bounds_file import load_bounds
from polypref.bounds.detector import Detector
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.safety_cache import Safety
from polypref.cli import main
from polypref.errors import SettingsError

ROOT = Path(__file__).parent.parent
SAFETY = [1.0, -1, 1, np.nan]


def reward(**limits):
    scorer = Table([5.0, 9.0, -3.0, 7.0])
    bounded = Bounded(scorer, Safety(Table(SAFETY)), Gate({"": 0.0}), Limits(**limits), {"ann": Limits(floor=2.0)})
    return ScorerReward(scorer, bounds=bounded)


def asked(reward, texts, user="bob"):
    return reward(prompts=["p"] * len(texts), completions=texts, user_id=[user] * len(texts))


def test_a_dropped_completion_is_rewarded_less_than_all_others():
    assert asked(reward(), ["0", "1", "2", "3"]) == [5, -3 - GAP, -3, -3 - GAP]
    assert asked(reward(), ["1", "3"]) == [-GAP, -GAP], "nothing is left to compare with"
    assert asked(reward(safety_weight=2.0, ample=2.0), ["0", "1"]) == [3, 3 - GAP]
    assert asked(ScorerReward(reward().scorer), ["0", "1"]) == [5, 9], "a control: without bounds it wins"


def test_the_gate_is_a_safety_function_and_knows_a_users_own_floor():
    assert asked(reward().passes, ["0", "1", "2", "3"]) == [1, 0, 1, 0]
    assert asked(reward().passes, ["0", "2"], "ann") == [0, 0]
    with pytest.raises(SettingsError, match="there are no bounds"):
        asked(ScorerReward(Table([1.0])).passes, ["0"])
    with pytest.raises(SettingsError, match="bounds are of another scorer"):
        ScorerReward(Table([1.0]), bounds=reward().bounds)


def test_the_command_scores_within_bounds(tmp_path, capsys):
    subprocess.run([sys.executable, ROOT / "examples/labelled_slates.py", tmp_path / "labelled.jsonl"], check=True)
    (tmp_path / "bounds.toml").write_text('[immutable]\nsafety = "safety"\nalpha = 0.1\ndelta = 0.1\n')

    def run(*words):
        code = main([str(word) for word in words])
        return code, capsys.readouterr()

    assert run("simulate", "two-tastes", "--out", tmp_path / "prefs.jsonl")[0] == 0
    made = ("--learner", "pooled", "--encoder", "static", "--out", tmp_path / "scorer")
    assert run("fit", tmp_path / "prefs.jsonl", *made)[0] == 0
    for action, part in (("detector", "1/3"), ("calibrate", "2/3")):
        cut = ("--slates", tmp_path / "labelled.jsonl", "--part", part, "--encoder", "static")
        assert run("bounds", action, tmp_path / "bounds.toml", *cut)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "labelled.jsonl").read_text().splitlines()][:40]
    texts = [{"user_id": "u", "prompt": row["prompt"], "response": row["response"]} for row in rows]
    other = {"user_id": "u", "prompt": rows[0]["prompt"], "response": "\u0445\u043e\u0440\u043e\u0448\u043e"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, [*texts, other])))
    words = ("score", tmp_path / "scorer", tmp_path / "rows.jsonl")
    code, told = run(*words, "--bounds", tmp_path / "bounds.toml")
    assert code == 0, told.err
    *found, last = [json.loads(line) for line in told.out.splitlines()]
    assert (last["score"], last["unknown_script"]) == (None, "Cyrillic")
    assert not any("unknown_script" in row for row in found)
    assert "1 row with a script that the calibration did not hold: dropped" in told.err
    told = run("bounds", "check", tmp_path / "bounds.toml")[1].out
    assert "  unknown = 'drop', [immutable, by default]" in told
    assert "scripts held: Latin; texts in others are dropped" in told and "  Latin: in " in told
    calibrated = load_bounds(tmp_path / "bounds.toml")
    scorer = polypref.load(tmp_path / "scorer")
    bounded = calibrated.bind(scorer, Detector.load(tmp_path / "safety"))
    pool, at = polypref.Responses.of([row["prompt"] for row in rows], [row["response"] for row in rows])
    expected = bounded.score(pool, ["u"] * len(rows), at)
    assert [row["score"] for row in found] == [None if one == -np.inf else round(one, 6) for one in expected]
    assert {row["score"] is None for row in found} == {True, False}
    assert {row["policy_hash"] for row in found} == {calibrated.policy_hash}
    assert "policy_hash" not in run(*words)[1].out
    assert "other bounds" in run(*words, "--bounds", tmp_path / "bounds.toml", "--pin", "0" * 64)[1].err
    code, told = run(*words, "--pin", "0" * 64)
    assert (code, "add --bounds" in told.err) == (2, True)
