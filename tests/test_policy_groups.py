"""Groups of users: planted ones are found, none are not, people join and move, names last, folders are read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from polypref.cli import main
from polypref.comparisons import Comparisons, Users
from polypref.data.derived import origin
from polypref.errors import ArtifactError, NotEnoughData, SettingsError
from polypref.groups import Discovery, Grouping, discover, from_attribute, from_mapping
from polypref.groups.mixture import Problem, Scales, Votes, worth
from polypref.groups.number_of_groups import Row, choose
from recovery_worlds import Normal, judged

USERS, EACH = 60, 30
OWN_GD = np.array([[2.0, 0, 0, 0, 0, 0, 0, 0], [-1.0, 1.7, 0, 0, 0, 0, 0, 0], [-1.0, -1.7, 0, 0, 0, 0, 0, 0]])
ALL_D = np.array([0, 0, 1.0, -1.0, 0, 0, 0, 0])
QUICK = Discovery(most=4, restarts=2, folds=2)


def planted(groups: int, users: int = USERS, each: int = EACH, seed: int = 0) -> Comparisons:
    """User u is in group u modulo ``groups``."""
    return judged(users, each, lambda u, x: ((ALL_D + OWN_GD[u % groups]) * x).sum(axis=1), seed)


@pytest.fixture(scope="module")
def data() -> Comparisons:
    return planted(3)


@pytest.fixture(scope="module")
def found(data) -> Grouping:
    return discover(data, encoder=Normal(), seed=0, how=QUICK)


def agree(grouping: Grouping, ids: list[str], groups: int = 3) -> float:
    """Share of users who are with the group that most of their planted group are in."""
    planted_U = np.array([int(name[1:]) % groups for name in ids])
    names_U = np.array(grouping.of(ids))
    kept = [pl.Series(names_U[planted_U == g]).value_counts(sort=True).row(0) for g in range(groups)]
    assert len({name for name, _ in kept}) == groups, "two planted groups became one"
    return sum(count for _, count in kept) / len(ids)


def test_planted_groups_are_found(data, found):
    assert len(found.names) == 3
    assert agree(found, data.users.ids.to_list()) >= 0.95
    assert np.allclose(found.share_UG.sum(axis=1), 1)
    assert found.names == ("group 1", "group 2", "group 3")
    assert sum(found.sizes().values()) == USERS
    assert "3 groups predict held-out judgements better than one" in found.finding()


@pytest.mark.parametrize("each", [10, 40])
def test_where_nothing_is_planted_nothing_is_found(each):
    grouping = discover(planted(1, each=each), encoder=Normal(), seed=0, how=QUICK)
    assert grouping.names == ("group 1",)
    assert grouping.finding().startswith("no groups found")


def test_users_dealt_anew_have_no_groups(data):
    shuffled = replace(data, user_N=np.random.default_rng(0).permutation(data.user_N))
    assert len(discover(shuffled, encoder=Normal(), seed=0, how=QUICK).names) == 1


def test_the_order_of_rows_changes_nothing(data, found):
    again = discover(data.take(np.random.default_rng(1).permutation(len(data))), encoder=Normal(), seed=0, how=QUICK)
    assert again.of(data.users.ids) == found.of(data.users.ids)
    assert np.allclose(again.share_of(data.users.ids), found.share_of(data.users.ids), atol=1e-6)


def test_the_same_seed_gives_the_same(data, found):
    again = discover(data, encoder=Normal(), seed=0, how=QUICK)
    assert np.array_equal(again.share_UG, found.share_UG)


def test_swapped_judgements_give_the_same_groups(data, found):
    """Everybody's taste turned round: who belongs together stays."""
    swapped = discover(data.swapped(), encoder=Normal(), seed=0, how=QUICK)
    pairs = pl.DataFrame({"one": found.of(data.users.ids), "other": swapped.of(data.users.ids)})
    assert pairs.filter(pl.any_horizontal(pl.all() == "unknown")).height <= 3
    assert pairs.filter(~pl.any_horizontal(pl.all() == "unknown")).unique().height == 3


def test_opposed_camps_of_one_size_are_found():
    """The mean of all tastes is nothing: what groups have is not measured by what all share."""
    camps = judged(40, 30, lambda u, x: np.where(u % 2, 2.0, -2.0) * x[:, 0], 0)
    grouping = discover(camps, encoder=Normal(), seed=0, how=QUICK)
    assert agree(grouping, camps.users.ids.to_list(), 2) >= 0.95


def test_ties_and_weights_are_heard(data):
    n = len(data)
    known = replace(data, tie_N=np.zeros(n, bool), weight_N=np.ones(n))
    assert discover(known, encoder=Normal(), seed=0, groups=3, how=QUICK).sizes() == (
        discover(data, encoder=Normal(), seed=0, groups=3, how=QUICK).sizes()
    )
    silent = replace(data, tie_N=np.ones(n, bool))
    assert len(discover(silent, encoder=Normal(), seed=0, how=QUICK).names) == 1


def test_new_users_are_assigned_from_few_comparisons(found):
    right = []
    for user in range(12):
        few = planted(3, users=3, each=15, seed=50 + user)
        mine = few.take(np.flatnonzero(few.user_N == user % 3))
        joined = found.assign("new", mine)
        right.append(joined.of(["new"]) == found.of([f"u{user % 3:03d}"]))
        assert joined.of(found.users.ids) == found.of(found.users.ids)
        assert joined.share_of(["new"]).sum() == pytest.approx(1)
    assert np.mean(right) >= 0.75
    again = joined.assign("new", mine)
    assert len(again.users) == len(joined.users)


def test_little_evidence_and_no_evidence_are_unknown(found):
    assert found.of(["never seen"]) == ["unknown"]
    assert np.isnan(found.share_of(["never seen"])).all()
    one = planted(3, users=1, each=1, seed=9)
    strict = replace(found, certainty=0.999).assign("new", one)
    assert strict.of(["new"]) == ["unknown"]
    assert strict.sizes()["unknown"] >= 1
    with pytest.raises(NotEnoughData, match="'new'"):
        found.assign("new", one.take(np.zeros(0, np.int64)))


def pair(share: float) -> Grouping:
    users = Users(pl.Series("id", ["ann", "bob"]))
    share_UG = np.array([[share, 1 - share], [1 - share, share]])
    return Grouping(("group 1", "group 2"), users, share_UG, np.array([0, 1], np.int32), "a mapping")


def test_hysteresis_keeps_and_changes():
    was = pair(0.9)
    close, clear = 1 / (1 + np.exp(1.9)), 1 / (1 + np.exp(2.1))  # shares of the present group at 1.9 and 2.1 log-odds
    assert was.reassigned({"ann": [close, 1 - close]}, margin=2.0).of(["ann", "bob"]) == ["group 1", "group 2"]
    moved = was.reassigned({"ann": [clear, 1 - clear]}, margin=2.0)
    assert moved.of(["ann", "bob"]) == ["group 2", "group 2"]
    assert moved.share_of(["ann"])[0].tolist() == [clear, 1 - clear]
    assert moved.reassigned({"ann": [1 - close, close]}).of(["ann"]) == ["group 2"]
    assert was.reassigned({"ann": [close, 1 - close]}, margin=0).of(["ann"]) == ["group 2"]


def test_those_who_are_unknown_join_when_they_are_certain():
    was = pair(0.9).reassigned({"eve": [0.5, 0.5]})
    assert was.of(["eve"]) == ["unknown"]
    assert was.reassigned({"eve": [0.61, 0.39]}).of(["eve"]) == ["group 1"]
    assert was.reassigned({"ann": [0.5, 0.5]}).of(["ann"]) == ["group 1"], "nobody goes back to unknown"


def test_recent_judgements_move_those_whose_taste_changed(data, found):
    changed = replace(data, users=Users(pl.concat([data.users.ids[1:], data.users.ids[:1]])))  # all one group on
    moved = found.reassigned(changed)
    assert np.mean([a != b for a, b in zip(found.of(data.users.ids), moved.of(data.users.ids), strict=True)]) > 0.9
    assert found.reassigned(data).of(data.users.ids) == found.of(data.users.ids)
    assert found.reassigned(changed, margin=1e6).of(data.users.ids) == found.of(data.users.ids)


@pytest.mark.parametrize("news", [{"ann": [0.5, 0.6]}, {"ann": [1.0]}, {"ann": [np.nan, 1.0]}, {"ann": [-1.0, 2.0]}])
def test_shares_that_are_none_are_refused(news):
    with pytest.raises(SettingsError, match="'ann'"):
        pair(0.9).reassigned(news)
    with pytest.raises(SettingsError, match="margin is -1"):
        pair(0.9).reassigned({}, margin=-1)


def test_names_stay_with_their_groups_after_a_new_fit(data, found):
    fresh = discover(planted(3, seed=7), encoder=Normal(), seed=3, how=QUICK)
    turned = replace(fresh, share_UG=fresh.share_UG[:, [2, 0, 1]], group_U=((fresh.group_U + 1) % 3).astype(np.int32))
    for new in (fresh, turned):
        renewed = found.renewed(new)
        assert set(renewed.names) == set(found.names)
        same = [a == b for a, b in zip(found.of(data.users.ids), renewed.of(data.users.ids), strict=True)]
        assert np.mean(same) >= 0.95


def test_a_new_group_gets_a_name_that_was_never_used():
    was = pair(0.99)
    users = Users(pl.Series("id", ["ann", "bob", "eve"]))
    fresh = Grouping(("group 1", "group 2", "group 3"), users, np.eye(3)[[2, 0, 1]], np.array([2, 0, 1], np.int32), "x")
    renewed = was.renewed(fresh)
    assert renewed.of(["ann", "bob", "eve"]) == ["group 1", "group 2", "group 3"]
    alone = Grouping(("group 1",), Users(pl.Series("id", ["bob", "zoe"])), np.ones((2, 1)), np.zeros(2, np.int32), "x")
    fewer = renewed.renewed(alone)
    assert fewer.names == ("group 2",)
    assert set(fewer.retired) == {"group 1", "group 3"}
    assert fewer.of(["bob", "ann"]) == ["group 2", "unknown"], "ann's group is no more"
    two = replace(fresh, users=Users(pl.Series("id", ["bob", "kim", "tom"])))
    assert fewer.renewed(two).of(["bob", "kim", "tom"]) == ["group 2", "group 4", "group 5"]


def test_saved_and_loaded_it_says_the_same(tmp_path, data, found):
    found.save(tmp_path / "groups")
    loaded = Grouping.load(tmp_path / "groups", Normal())
    assert loaded.of(data.users.ids) == found.of(data.users.ids)
    assert np.array_equal(loaded.share_UG, found.share_UG)
    assert (loaded.tried, loaded.names, loaded.certainty) == (found.tried, found.names, found.certainty)
    few = planted(3, users=1, each=5, seed=3)
    assert np.array_equal(loaded.assign("n", few).share_of(["n"]), found.assign("n", few).share_of(["n"]))
    named = from_mapping({"ann": "a", "bob": "b"})
    named.save(tmp_path / "named")
    assert Grouping.load(tmp_path / "named").of(["ann", "bob", "eve"]) == ["a", "b", "unknown"]


@dataclass(frozen=True)
class Other(Normal):
    identity: str = "another"


def test_another_encoder_is_refused(tmp_path, found):
    found.save(tmp_path / "groups")
    with pytest.raises(SettingsError, match="another"):
        Grouping.load(tmp_path / "groups", Other())


@pytest.mark.parametrize("damage", ["absent", "changed", "cut", "key", "number", "shape", "kind"])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, damage):
    folder = tmp_path / "groups"
    pair(0.9).save(folder)
    manifest, numbers = folder / "manifest.json", next(folder.glob("arrays-*"))
    content = json.loads(manifest.read_text())
    match damage:
        case "absent":
            numbers.unlink()
        case "changed":
            numbers.write_bytes(numbers.read_bytes()[:-1] + b"!")
        case "cut":
            manifest.write_text(manifest.read_text()[:40])
        case "key":
            del content["config"]["names"]
        case "number":
            content["config"]["names"] = 7
        case "shape":
            content["config"]["users"].append("eve")
        case "kind":
            content["kind"] = "scorer"
    if damage in ("key", "number", "shape", "kind"):
        manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="groups") as told:
        Grouping.load(folder)
    assert "\n" not in str(told.value)


def test_groups_from_an_attribute():
    users = Users(pl.Series("id", ["a", "b", "c", "d"]), pl.DataFrame({"land": ["x", "y", "y", None]}))
    grouping = from_attribute(users, "land")
    assert grouping.of(["a", "b", "c", "d", "e"]) == ["x", "y", "y", "unknown", "unknown"]
    assert grouping.names == ("y", "x"), "the larger first"
    with pytest.raises(SettingsError, match="Known: land"):
        from_attribute(users, "country")
    with pytest.raises(SettingsError, match="no attribute 'land'"):
        from_attribute(Users(users.ids), "land")
    with pytest.raises(SettingsError, match="attribute land cannot assign"):
        grouping.assign("e", planted(3, users=1, each=1))
    assert grouping.reassigned({"e": [1.0, 0.0]}).of(["e"]) == ["y"]


def test_a_mapping_may_hold_nothing_and_unknown():
    assert from_mapping({}).of(["a"]) == ["unknown"]
    grouping = from_mapping({"a": None, "b": "", "c": "unknown", "d": "x"})
    assert grouping.names == ("x",)
    assert grouping.of(["a", "b", "c", "d"]) == ["unknown", "unknown", "unknown", "x"]


def test_one_user_is_one_group_and_nobody_is_an_error(data):
    alone = data.take(np.flatnonzero(data.user_N == 0))
    assert discover(alone, encoder=Normal(), seed=0).sizes() == {"group 1": 1}
    with pytest.raises(NotEnoughData, match="0 rows"):
        discover(data.take(np.zeros(0, np.int64)), encoder=Normal(), seed=0)
    with pytest.raises(SettingsError, match="groups is 2; expected a number from 1 to 1"):
        discover(alone, encoder=Normal(), seed=0, groups=2)
    with pytest.raises(SettingsError, match="groups is 9; expected a number from 1 to 8: of 40 users, 5 for each"):
        discover(planted(1, users=40, each=3), encoder=Normal(), seed=0, groups=9)


def test_users_with_one_judgement_each_are_one_group():
    assert len(discover(planted(3, users=30, each=1), encoder=Normal(), seed=0, how=QUICK).names) == 1


@pytest.mark.parametrize("bad", [{"most": 0}, {"restarts": 0}, {"folds": 0}, {"certainty": 1.5}])
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(SettingsError, match=next(iter(bad))):
        Discovery(**bad)


def test_more_groups_have_to_be_sure_and_worth_it():
    one = Row(1, -0.6, 0.0, 0.0)
    assert choose([one]) == 1
    assert choose([one, Row(2, -0.5, 0.1, 0.06)]) == 1, "not two standard errors"
    assert choose([one, Row(2, -0.6, 0.0005, 1e-9)]) == 1, "sure, and of no use"
    assert choose([one, Row(2, -0.5, 0.1, 0.01), Row(3, -0.4, 0.2, 0.02), Row(4, -0.39, 0.21, 0.02)]) == 3


def test_judgements_made_from_votes_count_as_less():
    """Two texts liked, two not: four pairs, three answers' worth; and a pair apart, one."""
    chosen, rejected = np.array([0, 0, 1, 1, 4, 0]), np.array([2, 3, 2, 3, 5, 1])
    user = np.array([0, 0, 0, 0, 0, 1])
    assert worth(user, chosen, rejected, (3, 6)).tolist() == [4 / 5, 1.0, 0.0]


def votes_world(groups: int) -> Comparisons:
    """40 users like half of 24 texts, by their group or by chance; pairs are what was liked over what was not."""
    rng = np.random.default_rng(3)
    like_GR = rng.random((groups, 24)) < 0.5
    base = judged(40, 144, lambda u, x: x[:, 0], 0)
    responses = base.responses.take(np.arange(24))
    responses = replace(responses, prompt_R=np.zeros(24, np.int32))
    user, chosen, rejected = [], [], []
    for u in range(40):
        liked = np.where(rng.random(24) < 0.9, like_GR[u % groups], ~like_GR[u % groups]) if groups > 1 else None
        liked = rng.random(24) < 0.5 if liked is None else liked
        for c, r in np.stack(np.meshgrid(np.flatnonzero(liked), np.flatnonzero(~liked)), -1).reshape(-1, 2).tolist():
            user.append(u), chosen.append(c), rejected.append(r)
    columns = (np.array(column, np.int32) for column in (user, chosen, rejected))
    return Comparisons(responses, base.users, *columns, lists="ratings")


def test_votes_are_seen_as_such_and_their_groups_found():
    """What features do not tell is told by which texts were liked; chance alone does not make groups."""
    liked = votes_world(2)
    assert origin(liked).derived
    assert not origin(planted(3, users=6)).derived
    grouping = discover(liked, encoder=Normal(), seed=0, how=QUICK)
    assert len(grouping.names) == 2
    assert agree(grouping, liked.users.ids.to_list(), 2) >= 0.95
    assert len(discover(votes_world(1), encoder=Normal(), seed=0, how=QUICK).names) == 1


def test_the_gradient_is_that_of_the_loss():
    data = planted(3, users=6, each=8)
    texts = np.arange(len(data.responses))
    shared = replace(data, user_N=np.arange(len(data)) % 6)
    both = replace(
        shared,
        **{n: np.tile(getattr(shared, n), 2) for n in ("chosen_N", "rejected_N")},
        user_N=np.concatenate([shared.user_N, (shared.user_N + 1) % 6]),
    )
    votes = Votes.of(both, both.user_N, 6, (texts, Normal().encode(data.responses).astype(float)), False)
    assert len(votes.shared_T) == len(texts)
    problem = Problem(votes, Scales(2.0, 0.5, 1.5, 0.7), 3)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=problem.ends[-1])
    heard_2YG = votes.heard_2YU @ rng.dirichlet(np.ones(3), 6)
    _, gradient = problem.loss(theta, heard_2YG)
    for at in rng.integers(0, len(theta), 20).tolist():
        step = np.zeros_like(theta)
        step[at] = 1e-5
        slope = (problem.loss(theta + step, heard_2YG)[0] - problem.loss(theta - step, heard_2YG)[0]) / 2e-5
        assert gradient[at] == pytest.approx(slope, abs=1e-5)


def test_the_command_writes_what_python_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "two-tastes", "--users", "12", "--judgements", "20", "--out", "p.jsonl"]) == 0
    assert main(["groups", "p.jsonl", "--attribute", "group", "--out", "told"]) == 0
    assert main(["groups", "p.jsonl", "--groups", "2", "--out", "found"]) == 0
    assert "2 groups" in capsys.readouterr().out
    told, found = ((tmp_path / name / "groups.jsonl").read_text().splitlines() for name in ("told", "found"))
    rows = [{**json.loads(a), "found": json.loads(b)["group"]} for a, b in zip(told, found, strict=True)]
    assert len({(row["group"], row["found"]) for row in rows}) == 2
    assert set(rows[0]) == {"user_id", "group", "share", "found"}
    assert Grouping.load("found").of([rows[0]["user_id"]]) == [rows[0]["found"]]
    assert main(["groups", "p.jsonl", "--attribute", "land", "--out", "x"]) == 2
    assert "Known: group" in capsys.readouterr().err
    assert main(["groups", "p.jsonl", "--attribute", "group", "--groups", "2", "--out", "x"]) == 2
