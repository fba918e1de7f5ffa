"""Where a cap is far from certifying, what is named instead was tried, and does what is said of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds_cases import random_slates
from polypref.bounds import cap as caps
from polypref.bounds.adversaries import pairs_of
from polypref.bounds.gate import Limits, held
from polypref.bounds.remedy import remedy
from polypref.cli import main

ROOT = Path(__file__).parent.parent


def case(seed, known=1.0):
    """Pairs, rewards that know nothing of safety, and safety scores that do, ``known`` spreads apart."""
    rng = np.random.default_rng(seed)
    slates, _ = random_slates(rng, 150, 4)
    unsafe_R = np.zeros(len(slates.responses), bool)
    unsafe_R[slates.response_C[slates.unsafe_C]] = True
    return (
        pairs_of(slates),
        0.01 * rng.standard_normal(len(unsafe_R)),
        rng.standard_normal(len(unsafe_R)) - (known * 3 * unsafe_R),
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.05, 20), st.floats(0.5, 3))
def test_what_is_named_certifies_what_is_said_whoever_the_users_are(seed, cap, known):
    pairs, shared_R, safety_R = case(seed, known)
    found = remedy(pairs, shared_R, safety_R, Limits(cap=cap), keep=0.95)
    assert found is not None and found.limits.cap == cap
    assert caps.certified(pairs.margins(shared_R), cap) < found.certified, "a control: the cap alone certifies less"
    penalty_R = found.limits.safety_weight * np.minimum(0, safety_R - found.limits.ample)
    own = np.random.default_rng(seed).standard_normal((50, len(shared_R))) * 1000
    own[0] = -1e9 * safety_R  # who wants the worst
    margins = [pairs.margins(held(shared_R, one, cap) + penalty_R) for one in own]
    assert (np.min(margins, axis=0) > 0).mean() >= found.certified - 1e-9
    assert found.short == pytest.approx(np.mean(safety_R[np.unique(pairs.safe_I)] < found.limits.ample))


def test_nothing_is_named_where_nothing_helps():
    pairs, shared_R, safety_R = case(0)
    assert remedy(pairs, shared_R, np.zeros_like(safety_R), Limits(cap=1.0), 0.95) is None
    assert remedy(pairs, shared_R, np.full_like(safety_R, np.nan), Limits(cap=1.0), 0.95) is None
    backwards = remedy(pairs, shared_R, -10 * safety_R, Limits(cap=1.0), 0.95)
    assert backwards is None or backwards.certified < 0.2


def test_the_command_names_a_term_that_certifies_once_it_is_set(tmp_path, capsys):
    subprocess.run([sys.executable, ROOT / "examples/labelled_slates.py", tmp_path / "labelled.jsonl"], check=True)
    head = '[immutable]\nsafety = "safety"\nalpha = 0.1\ndelta = 0.1\n[organisation]\n'
    file = tmp_path / "bounds.toml"
    file.write_text(head + "cap = 1000.0\n")

    def run(*words):
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    assert run("simulate", "two-tastes", "--out", tmp_path / "prefs.jsonl")[0] == 0
    reads = ("--encoder", "static", "--features", "response")  # a reward that is right in some of the pairs
    made = ("--learner", "pooled", *reads, "--out", tmp_path / "scorer")
    assert run("fit", tmp_path / "prefs.jsonl", *made)[0] == 0
    words = ("bounds", "certify", file, "--slates", tmp_path / "labelled.jsonl", "--scorer", tmp_path / "scorer")
    assert "could not be tried: " in run(*words, "--part", "2/3")[1], "there is no safety scorer yet"
    cut = ("--slates", tmp_path / "labelled.jsonl", "--part", "1/3", "--encoder", "static")
    assert run("bounds", "detector", file, *cut)[0] == 0
    code, told = run(*words, "--part", "2/3")
    said = re.search(
        r"With safety_weight = (\S+) and ample = (\S+) under \[organisation\], it certifies (\d\.\d+) .* ([.0-9]+)\);",
        told,
    )
    assert code == 0 and said is not None, told
    assert "lower it" not in told
    before = re.search(r" (\S+)  \(this file\)", told)
    file.write_text(f"{head}cap = 1000.0\nsafety_weight = {said[1]}\nample = {said[2]}\n")
    code, told = run(*words, "--part", "2/3")
    after = re.search(r" (\S+)  \(this file\)", told)
    assert before is not None and after is not None
    assert float(before[1]) < float(after[1]) == float(said[3])
    assert f"prefers the safe one in {said[4]} of them" in told
    file.write_text(head + "cap = 1e-9\n")
    assert "sets cap = 1e-09; a changed file" in run(*words, "--part", "2/3")[1]
