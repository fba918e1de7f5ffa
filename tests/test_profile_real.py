"""The figures of the real sets' README, computed once by other code, and how long they take."""

from __future__ import annotations

import json
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from polypref.cli import main
from polypref.data.read import ReadOptions, read
from polypref.profiling import profile
from polypref.profiling.disagreement import disagreement
from polypref.profiling.minorities import minorities
from polypref.profiling.votes import votes

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data, ../shared/data, are not here")

# contested, highly contested, lowest and highest MV-ACC; pairs are told apart by their pair_id
README = {
    "llmfao": (0.53, 0.31, 0.61, 1.0),
    "ukpconvarg1": (0.52, 0.27, 0.50, 1.0),
    "polis_opendata": (0.67, 0.30, 0.02, 1.0),
    "pandalm": (0.08, 0.08, 0.97, 0.98),
    "squality_humaneval": (0.19, 0.19, 0.91, 0.96),
}


@cache
def comparisons(name: str, ties: bool = False):
    companion = (str(DATA / f"{name}.ties.parquet"),) if ties else ()
    return read([str(DATA / f"{name}.parquet")], ReadOptions(ties=companion)).comparisons


@cache
def profiled(name: str, ties: bool = False):
    return profile(comparisons(name, ties))


@pytest.mark.parametrize("name", README)
def test_readme_table(name, monkeypatch):
    # the raw rates need no bootstrap
    monkeypatch.setattr(import_module("polypref.profiling.disagreement"), "BOOTSTRAPS", 2)
    seen = votes(comparisons(name), "id")
    d, m = disagreement(seen), minorities(seen)
    low, high, _ = m.mv_acc_range
    assert (d.contested.value, d.highly_contested.value, low, high) == pytest.approx(README[name], abs=0.0051)


def test_counting_by_texts_instead_of_pair_ids_is_another_figure():
    assert disagreement(votes(comparisons("llmfao"))).contested.value == pytest.approx(0.569, abs=0.001)


@pytest.mark.parametrize(
    ("name", "agree", "repeats", "without_ties"), [("llmfao", 0.893, 262, 0.906), ("ukpconvarg1", 0.698, 172, 0.895)]
)
def test_readme_consistency(name, agree, repeats, without_ties):
    c = profiled(name, ties=True).consistency
    assert (c.retest.value, c.retest.n) == (pytest.approx(agree, abs=0.0005), repeats)
    assert c.retest_no_ties.value == pytest.approx(without_ties, abs=0.0005)
    assert c.retest.lo < agree < c.retest.hi


def test_readme_cyclic_triads_are_the_users_own():
    own = profiled("ukpconvarg1", ties=True).consistency.cyclic_triads
    assert own.value == pytest.approx(0.036, abs=0.001) and own.n == pytest.approx(8872, rel=0.01)
    assert profiled("pandalm").consistency.cyclic_triads.value == pytest.approx(0.011, abs=0.0005)


def test_ukpconvarg1_has_no_more_cycles_than_chance_in_seconds():
    data = comparisons("ukpconvarg1", ties=True)
    profiled.cache_clear()
    start = time.process_time()
    p = profiled("ukpconvarg1", ties=True)
    assert time.process_time() - start < 15  # 2 s on an idle machine
    assert len(data) == p.sizes["judgements"]
    assert p.social_choice.cyclic_triads.value > 0.03 and p.social_choice.cyclic_triads.p > 0.05
    assert p.origin.derived is False


def test_derived_sets_are_recognised():
    for name, derived in (("squality_humaneval", True), ("wmt23_mqm_zhen", True), ("pandalm", False)):
        assert profiled(name).origin.derived is derived


def test_command_prints_table_and_json(capsys):
    path, ties = str(DATA / "llmfao.parquet"), str(DATA / "llmfao.ties.parquet")
    assert main(["profile", path, "--ties", ties, "--raw"]) == 0
    table = capsys.readouterr().out
    assert "test-retest, ties a label" in table and "0.893" in table and "| llmfao | 8,931 | 124 |" in table
    assert main(["profile", path, "--ties", ties, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rows_read"] == 8931 and content["sizes"]["judgements"] < 8931  # empty responses are dropped
    assert content["minorities"]["n_minority"] == 0 and content["table2"].startswith("| data |")
