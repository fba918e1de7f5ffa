"""Deletion: bit-identical to a stranger, nothing left in files, others untouched; ``residue`` finds what is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest

from contract_cases import Words, fitted, fresh, small
from polypref.errors import CacheError, SettingsError
from polypref.forgetting import bits_apart, forget, forget_in_history, residue, shared_change, without
from polypref.groups import Grouping, from_mapping
from polypref.learners import LEARNERS, SCORERS
from polypref.learners.linear import Newcomer
from polypref.learners.protocol import POPULATION, Adapts, Forgets, margins
from polypref.policy.advantages import Normalization, Normalizer
from polypref.policy.history_file import save as save_history
from polypref.scorers import load, save

FORGETTING = ("hierarchical", "low-rank", "meta-low-rank", "individual")
each = pytest.mark.parametrize("name", FORGETTING)


def with_newcomers(name: str):
    """Known from the fit, learnt later, and known from both."""
    c = small()
    scorer, rows = fitted(name), [c.take(c.user_N == u) for u in range(3)]
    if not isinstance(scorer, Adapts):
        return replace(scorer, newcomers={"late one": Newcomer(scorer.population_K + 1)})
    return scorer.adapt("late one", rows[0]).adapt(c.users.ids[1], rows[2])


def saved(scorer, folder: Path):
    save(scorer, folder)
    return load(folder, Words())


@each
@pytest.mark.parametrize("gone", ["late one", 0, 1])
def test_who_is_forgotten_is_a_stranger_bit_for_bit_and_nothing_is_left(name, gone, tmp_path):
    scorer, ids = with_newcomers(name), small().users.ids.to_list()
    gone = gone if isinstance(gone, str) else ids[gone]
    others = [one for one in [*ids, "late one"] if one != gone]
    assert bits_apart(scorer, scorer, fresh(), [gone], ["nobody"]) > 1e-3
    saved(scorer, tmp_path / "before")
    assert residue(tmp_path / "before", gone) != []
    less = forget(scorer, gone)
    for told in (less, saved(less, tmp_path / "after")):
        for rows in (fresh(), small()):
            assert bits_apart(told, told, rows, [gone], ["nobody"]) == 0.0
            assert bits_apart(told, scorer, rows, ["nobody"], ["nobody"]) == 0.0
        assert (told.score(fresh().responses, [gone] * len(fresh().responses)).source_Q == POPULATION).all()
    assert bits_apart(less, scorer, fresh(), others, others) == 0.0
    again, before = load(tmp_path / "after", Words()), load(tmp_path / "before", Words())
    assert bits_apart(again, before, small(), others, others) == 0.0
    assert residue(tmp_path / "after", gone) == []
    for kept in others:
        assert residue(tmp_path / "after", kept) != []
    assert gone in set(scorer.users.ids) | set(scorer.newcomers)  # and the old scorer is as it was


@each
def test_all_can_be_forgotten_and_unknown_people_change_nothing(name, tmp_path):
    scorer = with_newcomers(name)
    same = forget(scorer, "never seen")
    ids = [*small().users.ids, "late one"]
    assert bits_apart(same, scorer, fresh(), ids, ids) == 0.0
    for one in ids:
        scorer = forget(scorer, one)
    assert bits_apart(saved(scorer, tmp_path / "none"), fitted(name), fresh(), ["nobody"], ["nobody"]) == 0.0
    assert not len(scorer.users)
    assert not scorer.newcomers


def test_texts_that_only_the_forgotten_judged_leave_no_key():
    c = small()
    scorer = fitted("hierarchical")
    alone = fresh().take(fresh().user_N == 0)
    more = scorer.adapt("late one", alone)
    keys = set(fresh().responses.identity_R[alone.chosen_N]) - set(scorer.effects.key_R)
    assert keys
    if scorer.prior.personal > 0:
        assert keys <= set(more.settled().effects.key_R)
    left = forget(more.settled(), "late one").effects
    assert not keys & set(left.key_R)
    shared = scorer.effects.shared(c.responses.identity_R)
    assert (left.shared(c.responses.identity_R) == shared).all()


def test_standard_errors_of_others_stay(tmp_path):
    scorer, c = with_newcomers("hierarchical"), fresh()
    less = saved(forget(scorer, small().users.ids[0]), tmp_path / "s")
    others_N = c.user_N != 0
    assert (less.margin_sd(c)[others_N] == saved(scorer, tmp_path / "t").margin_sd(c)[others_N]).all()


def test_who_can_forget_is_declared_and_others_refuse():
    forgetting = {scorer.kind for scorer in SCORERS.values() if issubclass(scorer, Forgets)}
    tried_elsewhere = {"population", "few-shot", "persona"}
    assert forgetting - tried_elsewhere == {fitted(name).kind for name in FORGETTING}
    assert not issubclass(SCORERS["similar-user"], Forgets)  # whom it takes in answers with another person's vector
    assert forget(fitted("pooled"), "a") is fitted("pooled")
    with pytest.raises(SettingsError, match=r"kind 'personalized' cannot forget one user; fit it again without 'a'"):
        forget(fitted("personalized"), "a")


def test_the_shared_part_changes_when_fitted_without_a_person():
    """What ``forget`` does not do: strangers' answers still rest on the judgements of who was deleted."""
    c = small()
    whole, less = fitted("pooled"), LEARNERS["pooled"].fit(c.take(c.user_N != 0), encoder=Words(), seed=0)
    change = shared_change(whole, less, fresh())
    had, left = margins(whole, fresh()).value_Q, margins(less, fresh()).value_Q
    assert change == pytest.approx(np.abs(had - left).max() / np.sqrt((left**2).mean()))
    assert change > 0.01
    assert shared_change(whole, whole, fresh()) == 0.0


# --- groupings and histories


def test_a_grouping_forgets_and_keeps_the_others(tmp_path):
    grouping = from_mapping({"ann": "x", "bob": "y", "eve": "x"})
    less = without(grouping, "ann")
    assert less.of(["ann", "bob", "eve"]) == ["unknown", "y", "x"]
    less.save(tmp_path / "g")
    assert residue(tmp_path / "g", "ann") == []
    assert residue(tmp_path / "g", "bob") != []
    assert Grouping.load(tmp_path / "g").of(["ann", "eve"]) == ["unknown", "x"]
    assert grouping.of(["ann"]) == ["x"]


def test_a_history_forgets_a_users_level_and_keeps_the_other_numbers(tmp_path):
    how = Normalization(half_life=50, min_count=3)
    normalizer = Normalizer(how, ("group", "user"))
    rng = np.random.default_rng(0)
    users = np.repeat(["ann", "bob", "eve", "bob"], 4).tolist()
    groups = ["x" if user == "bob" else "y" for user in users]
    for _ in range(3):
        normalizer(rng.standard_normal(16), np.arange(16) // 4, [groups, users])
    save_history(tmp_path / "before" / "pgrpo_history.npz", [normalizer])
    assert residue(tmp_path / "before", "ann") != []
    less = forget_in_history(normalizer, "ann")
    save_history(tmp_path / "after" / "pgrpo_history.npz", [less])
    assert residue(tmp_path / "after", "ann") == []
    assert residue(tmp_path / "after", "bob") != []
    for old, new in zip(normalizer.levels, less.levels, strict=True):
        assert set(new.numbers) == {path for path in old.numbers if "ann" not in path}
        for path, number in new.numbers.items():
            for name in ("count_G", "mean_G", "m2_G"):
                for told in ("rewards", "residuals"):
                    was, now = (getattr(getattr(level, told), name) for level in (old, new))
                    assert now[number] == was[old.numbers[path]]
    less(rng.standard_normal(16), np.arange(16) // 4, [groups, users])  # and it goes on; ann starts anew
    assert ("y", "ann") in less.levels[-1].numbers


def test_forgetting_in_histories_moves_alarms_with_their_groups_and_leaves_the_original():
    how = Normalization(half_life=50, min_count=3, adaptive=True)
    rng = np.random.default_rng(1)
    users = np.repeat(["ann", "bob", "eve"], 8).tolist()
    mean = np.repeat([0.0, 50.0, -50.0], 8)

    def batch():
        return mean + rng.standard_normal(24), np.arange(24) // 2, [["x"] * 24, users]

    normalizer = Normalizer(how, ("group", "user"))
    for _ in range(20):
        normalizer(*batch())
    before = normalizer.alarm.up_G.copy()
    less, later = forget_in_history(normalizer, "ann"), batch()
    assert (normalizer.alarm.up_G == before).all()
    found = less(*later)
    assert not len(found.alarmed)
    whole = normalizer(*later)
    others = np.array(users) != "ann"
    assert len(whole.alarmed) == 0
    assert np.isfinite(found.value_B[others]).all()


def test_a_user_called_like_a_group_and_one_that_is_a_number_are_told_apart(tmp_path):
    normalizer = Normalizer(Normalization(), ("group", "user"))
    normalizer(np.arange(8.0), np.arange(8) // 2, [["1"] * 4 + ["2"] * 4, [9, 9, 8, 8, 1, 1, 3, 3]])
    less = forget_in_history(normalizer, "1")
    assert set(less.levels[-1].numbers) == {("1", 9), ("1", 8), ("2", 3)}
    assert set(less.levels[1].numbers) == {("1",), ("2",)}
    with pytest.raises(SettingsError, match="none is of users"):
        forget_in_history(Normalizer(Normalization(), ("group",)), "1")


# --- residue


def test_residue_finds_ids_as_numbers_bytes_and_within_lists(tmp_path):
    (tmp_path / "a.json").write_text('{"user": 77, "n": true}')
    (tmp_path / "b.jsonl").write_text('{"seen": [77]}\n')
    pl.DataFrame({"user_id": [77, 8]}).write_parquet(tmp_path / "c.parquet")
    pl.DataFrame({"ids": [["77"], ["8"]]}).write_parquet(tmp_path / "d.parquet")
    pl.DataFrame({"raw": [b"77", b"8"]}).write_parquet(tmp_path / "e.parquet")
    np.savez(tmp_path / "f.npz", user_ids=np.array([77, 8]))
    np.savez(tmp_path / "g.npz", names=np.array([b"77", "josé".encode()]))
    assert {place.split(":")[0][0] for place in residue(tmp_path, "77")} == set("abcdefg")
    assert [place.split(":")[0] for place in residue(tmp_path, "josé")] == ["g.npz"]
    assert residue(tmp_path, "1") == []


def test_residue_finds_what_is_planted_in_every_kind_of_file(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "deep").mkdir()
    (tmp_path / "a.json").write_text(json.dumps({"users": ["bob", "jos\u00e9"], "n": {"jos\u00e9": 3}}))
    (tmp_path / "deep" / "b.jsonl").write_text('{"user": "bob"}\n\n{"user": "jos\\u00e9"}\n')
    pl.DataFrame({"user_id": ["bob", "jos\u00e9"], "n": [1, 2]}).write_parquet(tmp_path / "c.parquet")
    pl.DataFrame({"attributes": [{"who": "jos\u00e9"}]}).write_parquet(tmp_path / "c2.parquet")
    np.savez(tmp_path / "d.npz", names=np.array(["bob", "jos\u00e9"]))
    np.savez(tmp_path / "e.npz", about=np.frombuffer(json.dumps([["x", "jos\u00e9"]]).encode(), np.uint8))
    save_file({"w": np.zeros(2)}, tmp_path / "f.safetensors", metadata={"user": "jos\u00e9"})
    save_file({"jos\u00e9": np.zeros(2)}, tmp_path / "g.safetensors")
    save_file({"w": np.frombuffer(b"of jos\xc3\xa9.", np.uint8)}, tmp_path / "h.safetensors")
    (tmp_path / "i.log").write_text("fit of user jos\u00e9, 3 rows")
    (tmp_path / "j.json").write_text("{broken jos\u00e9")
    (tmp_path / "k.npz").write_bytes(b"PK broken jos\xc3\xa9 ")
    found = {place.split(":")[0] for place in residue(tmp_path, "jos\u00e9")}
    assert found == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert residue(tmp_path, "jos") == []  # a part of a word is somebody else
    assert residue(tmp_path, "nobody here") == []
    assert "a.json: .users[]" in residue(tmp_path, "bob")
    with pytest.raises(CacheError, match="is not a folder"):
        residue(tmp_path / "missing", "bob")


@pytest.mark.parametrize("name", ["a b", "zo\u00eb", "x@y.org", 'say "hi"', "a/b"])
def test_an_id_is_found_where_it_is_escaped(name, tmp_path):
    inner = json.dumps({"user": name})
    for at, text in enumerate((inner, json.dumps({"log": inner}), f"GET /users?id={quote(name, safe='')}&x=1")):
        (tmp_path / "left.txt").write_text(text)
        assert residue(tmp_path, name), (at, text)
        assert not residue(tmp_path, f"{name}x")
