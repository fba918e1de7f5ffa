"""Several raters' labels as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.bounds.raters import Rule
from polypref.bounds.slates import read_slates
from polypref.errors import InputError, SettingsError

TEXTS, RATERS = 4, 6


def written(path: Path, unsafe_RC: np.ndarray, seed: int = 0, **columns: list) -> str:
    """A row for each rater of each text, in a random order."""
    rater, text = (axis.ravel() for axis in np.indices(unsafe_RC.shape))
    table = pl.DataFrame(
        {
            "prompt": [f"q{at}" for at in text],
            "response": [f"a{at}" for at in text],
            "unsafe": unsafe_RC.ravel().tolist(),
            "rater": [f"r{at}" for at in rater],
            "group": ["few" if at < 2 else "many" for at in rater],
            "category": [f"c{at % 2}" for at in text],
        }
        | columns
    )
    order = np.random.default_rng(seed).permutation(len(table))
    table[order].write_parquet(path / "s.parquet")
    return str(path / "s.parquet")


@given(st.lists(st.booleans(), min_size=TEXTS * RATERS, max_size=TEXTS * RATERS), st.integers(1, 20), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_rules(tmp_path_factory: pytest.TempPathFactory, labels: list[bool], twentieths: int, seed: int) -> None:
    unsafe_RC, share = np.array(labels).reshape(RATERS, TEXTS), twentieths / 20
    path = written(tmp_path_factory.mktemp("r"), unsafe_RC, seed)
    expected = {
        "majority": unsafe_RC.mean(0) >= 0.5,
        f"share={share}": unsafe_RC.mean(0) >= share - 1e-9,
        f"group={share}": np.maximum(unsafe_RC[:2].mean(0), unsafe_RC[2:].mean(0)) >= share - 1e-9,
    }
    for rule, unsafe_C in expected.items():
        slates = read_slates(path, raters=Rule.of(rule))
        texts = slates.responses.texts_R.gather(slates.response_C).to_list()
        assert len(slates) == TEXTS
        assert dict(zip(texts, slates.unsafe_C.tolist(), strict=True)) == {
            f"a{at}": bool(unsafe) for at, unsafe in enumerate(unsafe_C)
        }
        category = dict(zip(texts, slates.category_L.gather(slates.slate_C).to_list(), strict=True))
        assert category == {f"a{at}": f"c{at % 2}" for at in range(TEXTS)}


def test_who_abstains_does_not_count(tmp_path: Path) -> None:
    labels = [True, None, None, False, None, None]
    path = written(tmp_path, np.zeros((RATERS, 1), bool), unsafe=labels)
    assert read_slates(path, raters=Rule.of("share=.5")).unsafe_C.tolist() == [True]
    nobody = written(tmp_path, np.zeros((RATERS, 2), bool), unsafe=[None, True] * RATERS)
    slates = read_slates(nobody, raters=Rule.of("majority"))
    assert len(slates) == 1 and "1 slate" in str(slates.note)


@pytest.mark.parametrize("rule", ["share=0", "share=1.1", "share=x", "group", "any", "share=nan", "", "median=.5"])
def test_rules_that_are_none(rule: str) -> None:
    with pytest.raises(SettingsError, match="expected majority, share=S or group=S"):
        Rule.of(rule)


def test_files_that_do_not_fit_the_rule(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros((RATERS, TEXTS), bool))
    with pytest.raises(InputError, match="--raters share="):
        read_slates(path)
    empty = written(tmp_path, np.zeros((RATERS, 1), bool), rater=["a", "b", "", "c", "d", "e"])
    with pytest.raises(InputError, match="rater is empty; give it"):
        read_slates(empty, raters=Rule.of("majority"))
    again = written(tmp_path, np.zeros((RATERS, 1), bool), rater=["a", "b", "c", "d", "e", "a"])
    with pytest.raises(InputError, match="rater 'a' labels this response more than once"):
        read_slates(again, raters=Rule.of("majority"))
    pl.read_parquet(path).drop("group").write_parquet(path)
    with pytest.raises(InputError, match='no column "group"'):
        read_slates(path, raters=Rule.of("group=.5"))
    pl.read_parquet(path).drop("rater").unique(["prompt", "response"]).write_parquet(path)
    with pytest.raises(InputError, match='no column "rater"'):
        read_slates(path, raters=Rule.of("majority"))
    benchmark = tmp_path / "benchmark.jsonl"
    row = {"prompt": "p", "chosen": "safe", "rejected": "unsafe", "subset": "donotanswer"}
    benchmark.write_text(json.dumps(row) + "\n", "utf-8")
    assert read_slates(benchmark.as_posix()).unsafe_C.tolist().count(True) == 1
    with pytest.raises(InputError, match="no raters to count; leave out --raters"):
        read_slates(benchmark.as_posix(), raters=Rule.of("majority"))
