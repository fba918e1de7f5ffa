"""Whether a scorer was fitted on some judgements: in any order, by any way of saving it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polypref
from contract_cases import Words, small
from polypref.cli import main
from polypref.data.data_hash import added, judged_hash
from polypref.learners.provenance import fitted_on
from polypref.scorers import metadata
from test_bounds_audit import folder  # noqa: F401  # a fixture


@settings(max_examples=30)
@given(st.permutations(range(40)), st.integers(1, 39))
def test_hashes_of_parts_add_up_to_that_of_all_in_any_order(order, first):
    all_of_them = small().take(np.arange(40))
    shuffled = all_of_them.take(np.array(order))
    assert judged_hash(shuffled) == judged_hash(all_of_them)
    parts = [judged_hash(all_of_them.take(np.array(rows))) for rows in (order[:first], order[first:])]
    assert added(parts) == judged_hash(all_of_them)
    assert len({*parts, judged_hash(all_of_them)}) == 3


def test_what_is_another_judgement():
    c = small().take(np.arange(40))
    tied = replace(c, tie_N=np.ones(40, bool))
    others = [c.swapped(), tied, replace(c, user_N=np.roll(c.user_N, 1)), c.take(np.r_[0, np.arange(40)])]
    assert len({judged_hash(other) for other in (c, *others)}) == 5
    assert judged_hash(tied.swapped()) == judged_hash(tied)
    assert judged_hash(replace(c, weight_N=np.full(40, 2.0))) == judged_hash(c)


def test_a_saved_scorer_knows_its_judgements_whatever_their_order(tmp_path):
    c = small()
    train, valid, others = c.take(np.arange(60)), c.take(np.arange(60, 80)), c.take(np.arange(80, 120))
    scorer = polypref.LEARNERS["pooled"].fit(train, encoder=Words(), seed=0, valid=valid)
    polypref.save(scorer, tmp_path / "s")
    for known in (fitted_on(scorer), metadata(tmp_path / "s")):
        assert known is not None
        for seen in (train, valid, c.take(np.arange(80)), c.take(np.arange(80)[::-1])):
            assert known.saw(seen)
        for unseen in (others, c, train.take(np.arange(30))):
            assert not known.saw(unseen)


@pytest.mark.parametrize("valid", [True, False])
def test_an_audit_refuses_what_polypref_save_fitted_on(folder, tmp_path, capsys, valid):  # noqa: F811
    """The same judgements in another order, in a file: they say nothing of what the cap costs."""
    file = tmp_path / "prefs.jsonl"
    assert main(["simulate", "two-tastes", "--users", "8", "--judgements", "20", "--out", str(file)]) == 0
    reading = polypref.read([str(file)])
    c = polypref.clean(reading, polypref.lint(reading))
    rows = np.random.default_rng(0).permutation(len(c))
    parts = {"valid": c.take(rows[:20])} if valid else {}
    scorer = polypref.LEARNERS["pooled"].fit(
        c.take(rows[20:] if valid else rows), encoder=polypref.encoder("static"), seed=0, **parts
    )
    polypref.save(scorer, tmp_path / "scorer")
    turned = pl.read_ndjson(file).reverse()
    turned.write_ndjson(tmp_path / "turned.jsonl")
    words = ["audit", tmp_path / "scorer", "--bounds", folder / "bounds.toml", "--slates", folder / "labelled.jsonl"]
    words += ["--part", "3/3", "--held-out", tmp_path / "turned.jsonl", "--out", tmp_path / "audit"]
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    assert "was fitted on the judgements of --held-out" in capsys.readouterr().err
