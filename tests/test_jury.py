"""``jury``: a stated composition of people, whoever judged most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.cli import main
from polypref.comparisons import Comparisons, concat
from polypref.errors import NotEnoughData, PolyprefError, SettingsError
from polypref.learners import learner
from polypref.learners.jury import Jury, group_losses, weighed
from polypref.learners.protocol import margins
from recovery_worlds import Normal, judged

NORTH, SOUTH = 3, 5


def town(busy: int = 1) -> Comparisons:
    """Three of the north, who judge ``busy`` times as much, like what five of the south dislike."""
    users = NORTH + SOUTH
    taste_UD = np.where(np.arange(users)[:, None] < NORTH, 1.5, -1.5) * np.eye(1, 8)
    rows = judged(users, 40 * busy, lambda user_N, x_ND: (taste_UD[user_N] * x_ND).sum(axis=1))
    kept = (rows.user_N < NORTH) | (np.arange(len(rows)) % (40 * busy) < 40)
    regions = pl.DataFrame({"region": ["north"] * NORTH + ["south"] * SOUTH})
    return replace(rows.take(kept), users=replace(rows.users, attributes=regions))


def north_wins(name: str, rows: Comparisons) -> float:
    """Share of the north's judgements that the learner gets right."""
    scorer = learner(name).fit(rows, encoder=Normal(), seed=0)
    north = rows.take(rows.user_N < NORTH)
    return float((margins(scorer, north).value_Q > 0).mean())


def test_who_judges_most_decides_pooled_and_not_a_jury() -> None:
    rows = town(busy=6)
    assert north_wins("pooled", rows) > 0.7
    assert north_wins("jury", rows) < 0.3  # three of eight people
    assert north_wins("jury:region,shares=north:.8/south:.2", rows) > 0.7
    assert north_wins("jury:region,shares=north:1/south:4", rows) < 0.3
    assert north_wins("jury:region,shares=north:1", rows) > 0.7  # only the north is on the jury


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_people_of_a_group_count_alike_and_groups_by_their_share(data: st.DataObject) -> None:
    rows = town()
    each = data.draw(st.lists(st.integers(1, 40), min_size=8, max_size=8))
    kept = [np.flatnonzero(rows.user_N == user)[:many] for user, many in enumerate(each)]
    weights = np.array(data.draw(st.lists(st.floats(0.1, 9), min_size=sum(each), max_size=sum(each))))
    some = replace(rows.take(np.concatenate(kept)), weight_N=weights)
    share = data.draw(st.floats(0.05, 0.95))
    group_U = np.repeat([0, 1], [NORTH, SOUTH]).astype(np.int32)
    weight_N = weighed(some, group_U, np.array([share, 1 - share])).weights_N
    total_U = np.bincount(some.user_N, weight_N) / weight_N.sum()
    np.testing.assert_allclose(total_U[:NORTH], share / NORTH)
    np.testing.assert_allclose(total_U[NORTH:], (1 - share) / SOUTH)
    assert weight_N.sum() == pytest.approx(some.weights_N.sum())


def test_judging_everything_twice_moves_nothing() -> None:
    rows = town()
    twice = concat(rows, rows.take(rows.user_N < 2))
    none = rows.take(np.zeros(0, int))
    for one in (Jury(), Jury("region")):
        a, b = (one.fit(data, encoder=Normal(), seed=0, valid=none) for data in (rows, twice))
        found = [margins(scorer, rows).value_Q for scorer in (a, b)]
        assert np.corrcoef(*found)[0, 1] > 0.999  # the prior's part is smaller where rows are more


def test_maxmin_serves_the_worst_group_better() -> None:
    rows = town(busy=6)
    none, group_U = rows.take(np.zeros(0, int)), np.repeat([0, 1], [NORTH, SOUTH]).astype(np.int32)
    worst = []
    for name in ("pooled", "jury:region,rule=maxmin"):
        scorer = learner(name).fit(rows, encoder=Normal(), seed=0, valid=none)
        worst.append(group_losses(margins(scorer, rows).value_Q, rows, group_U, 2).max())
    assert worst[1] < worst[0] - 0.2
    shares = learner("jury:region,rule=maxmin").fit(rows, encoder=Normal(), seed=0).selection
    assert shares["share of north"] + shares["share of south"] == pytest.approx(1)


@pytest.mark.parametrize(
    "name, words",
    [
        ("jury:", "needs an attribute"),
        ("jury:region,shares=.5/.5", "not a share above 0 of a group"),
        ("jury:region,shares=north", "has no share"),
        ("jury:region,shares=north:0/south:1", "not a share above 0"),
        ("jury:region,shares=north:.5/north:.5", "names a group twice"),
        ("jury:region,shares=north:nan", "not a share above 0"),
        ("jury:region,rule=median", "median"),
        ("jury:region,rule=maxmin,shares=north:.5", "leave out shares"),
        ("jury:region,model=x", "setting of jury"),
    ],
)
def test_settings_that_cannot_be(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        learner(name)


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("jury:regoin", SettingsError, "region"),
        ("jury:region,shares=north:.5/soth:.5", SettingsError, "south"),
        ("jury:region,shares=east:1", NotEnoughData, "no judgements"),
    ],
)
def test_data_without_the_group(name: str, error: type[PolyprefError], words: str) -> None:
    rows = town()
    regions = pl.DataFrame({"region": [*rows.users.attributes["region"][:-1], "east"]})  # type: ignore[index]
    kept = replace(rows, users=replace(rows.users, attributes=regions)).take(rows.user_N < len(rows.users) - 1)
    with pytest.raises(error, match=words):
        learner(name).fit(kept, encoder=Normal(), seed=0)


def test_the_command_fits_it_and_compare_has_it_among_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rng, lines = np.random.default_rng(0), []
    for user in range(8):
        for at in range(30):
            texts = [f"{'yes ' * rng.integers(1, 4)}{user} {at} {side}" for side in "ab"]
            texts.sort(key=len, reverse=user < 3)
            lines.append({"user_id": f"u{user}", "prompt": "p", "chosen": texts[0], "rejected": texts[1]})
            lines[-1]["attributes"] = {"region": "north" if user < 3 else "south"}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fit = ["fit", str(tmp_path / "p.jsonl"), "--encoder", "static", "--out", str(tmp_path / "s")]
    assert main([*fit, "--learner", "jury:region,shares=north:.5/south:.5"]) == 0
    assert main([*fit, "--learner", "jury:country"]) == 2
    assert "region" in capsys.readouterr().err
    compare = [
        "compare",
        str(tmp_path / "p.jsonl"),
        "--encoder",
        "static",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main([*compare, "--learners", "jury", "jury:region", "--workers", "1"]) == 0
    rows = json.loads((tmp_path / "r" / "results.json").read_text())["rows"]
    assert {"jury", "jury:region"} <= {row["learner"] for row in rows}
