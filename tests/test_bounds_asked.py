"""What is asked of the gate: which responses, who asks, in which category; anything odd is refused in one line."""

from __future__ import annotations

import json
import time

import httpx
import numpy as np
import polars as pl
import pytest

from bounds_cases import Table, pool
from polypref.bounds.bounds_file import SCHEMA, _hash, load_bounds, read_bounds
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.safety_cache import Safety
from polypref.bounds.tiers import lines_of
from polypref.bounds.windowed import READS
from polypref.errors import ArtifactError, InputError, SettingsError
from polypref.http import _client
from polypref.learners.protocol import resolved

ODD_PLACES = [
    np.array([True, False, False, False]),
    [True, False, False, False],
    [True, 1],
    pl.Series([True, False, False, False]),
    pl.Series([0, None]),
    np.array([0.0, 1.0]),
    [0.5],
    np.array([0, 1], object),
    np.array([[0, 1], [2, 3]]),
    np.array([[0], [1]]),
    [[0, 1], [2]],
    np.array([0, 4]),
    np.array([-1, -4]),
    np.array([2**32], np.uint64),
    [2**70],
    np.array(0),
    np.array([], float),
    (0, 1),
    slice(0, 2),
    "0",
    0,
]


@pytest.mark.parametrize("odd", ODD_PLACES, ids=repr)
def test_only_whole_numbers_of_the_pool_say_which_responses_are_asked(odd):
    bounded = Bounded(Table([0.0, 1, 2, 3]), Safety(Table([5.0, -5, -5, -5])), Gate({"": 0.0}))
    texts = pool(["0", "1", "2", "3"])
    for ask in (
        lambda: bounded.rank_slate(texts, "bob", odd),
        lambda: bounded.rank_slate(texts, None, odd),
        lambda: bounded.score(texts, None, odd),
        lambda: bounded.score(texts, ["bob"], odd),
        lambda: resolved(texts, None, odd),
    ):
        with pytest.raises(InputError, match=r"^response_Q.*expected whole numbers from 0 to 3"):
            ask()


@pytest.mark.parametrize("plain", [[0, 3], np.array([0, 3]), np.array([0, 3], np.uint8), pl.Series([0, 3])], ids=repr)
def test_whole_numbers_of_any_type_say_which_responses_are_asked(plain):
    bounded = Bounded(Table([0.0, 1, 2, 3]), Safety(Table([5.0, -5, -5, -5])), Gate({"": 0.0}))
    ranking = bounded.rank_slate(pool(["0", "1", "2", "3"]), "bob", plain)
    assert (ranking.order, ranking.dropped) == ((0,), (1,))
    assert bounded.rank_slate(pool(["0"]), None, []).abstains


class Sly(str):
    """Equal to nothing: no look-up finds it."""

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return False


@pytest.mark.parametrize("asked", [Sly("ann"), np.str_("ann"), "ann"], ids=lambda one: type(one).__name__)
def test_a_users_own_limits_hold_under_any_kind_of_text(asked):
    limits = {Sly("ann"): Limits(floor=1.0, most_candidates=2)}
    bounded = Bounded(Table([0.0, 1, 2]), Safety(Table([0.5, 5, 5])), Gate({"": 0.0}), user_limits=limits)
    with pytest.raises(SettingsError, match="a slate of 3 candidates, and the bounds allow 2"):
        bounded.rank_slate(pool(["0", "1", "2"]), asked)
    assert bounded.rank_slate(pool(["0", "1"]), asked).dropped == (0,)
    assert bounded.limits_of(asked).floor == 1.0


@pytest.mark.parametrize("odd", [["ann"], {"ann": 1}, True, b"ann", ("ann",), 1.5, "", np.array(["ann"])], ids=repr)
def test_a_user_or_category_of_another_type_is_one_line(odd):
    bounded = Bounded(Table([0.0, 1]), Safety(Table([5.0, 5])), Gate({"": 0.0}), user_limits={"ann": Limits(floor=1.0)})
    texts = pool(["0", "1"])
    asks = [lambda: bounded.rank_slate(texts, odd), lambda: bounded.limits_of(odd)]
    if odd != "":
        asks += [lambda: bounded.rank_slate(texts, None, None, odd), lambda: bounded.score(texts, None, None, odd)]
    if isinstance(odd, dict | bytes | int | float):
        asks.append(lambda: bounded.score(texts, odd))
    for ask in asks:
        with pytest.raises(InputError) as refused:
            ask()
        assert "\n" not in str(refused.value)


def test_a_text_is_no_list_of_users():
    with pytest.raises(InputError, match="user ids are 'ann'; expected a list of texts"):
        resolved(pool(["0", "1", "2"]), "ann", None)


def test_lines_of_blanks_are_read_in_linear_time():
    text = "[" + " " * 100_000 + "x\n" + " " * 100_000 + "[ immutable ]  # ]\nsafety = 1\n" + "a" * 100_000
    started = time.perf_counter()
    assert lines_of(text) == {("immutable", "safety"): 3}
    assert time.perf_counter() - started < 1


FACTS = {"value": 0.0, "slates": 9, "unsafe": 9, "lost": 0, "largest": 4, "safe_kept": None, "abstains": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {}},
        {"thresholds": []},
        {"thresholds": {"": {}}},
        {"thresholds": {"": {**FACTS, "value": "0"}}},
        {"thresholds": {"": {**FACTS, "largest": 0}}},
        {"probe": None},
        {"target": 1},
        {"more": 1},
        {"reads": "whole texts"},
    ],
    ids=repr,
)
def test_a_calibration_sealed_again_with_odd_content_is_one_line(tmp_path, change):
    path = tmp_path / "bounds.toml"
    path.write_text('[immutable]\nsafety = "nowhere"\n')
    file = read_bounds(path)
    told = {
        "schema": SCHEMA,
        "bounds": file.digest,
        "target": {"alpha": 0.01, "delta": 0.05, "by_category": False, "rewritings": []},
    }
    told |= {
        "thresholds": {"": FACTS},
        "slates": "",
        "unsafe": [],
        "scripts": {},
        "probe": [],
        "safety": None,
        "artifact": None,
    }
    told |= {"reads": READS, "versions": {}}
    file.calibration.write_text(json.dumps({**told, "hash": _hash(told)}))
    assert load_bounds(path).largest == 4
    told |= change
    file.calibration.write_text(json.dumps({**told, "hash": _hash(told)}))
    with pytest.raises(ArtifactError) as refused:
        load_bounds(path)
    assert "\n" not in str(refused.value)


def test_no_cookie_is_kept():
    client = _client.__wrapped__(0)
    answer = httpx.Response(200, headers={"Set-Cookie": "a=b"}, request=httpx.Request("GET", "http://a.example/"))
    client.cookies.extract_cookies(answer)
    assert not client.cookies
