"""People learn which group they judge like: planted groups are told, and where there are none, none is told."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi.testclient import TestClient

import polypref
from polypref.cli import main
from polypref.comparisons import from_columns
from polypref.groups import Discovery, Grouping, discover, from_mapping
from polypref.learners.pooled import Pooled
from polypref.learners.protocol import SOURCES
from polypref.serve.app import app_of
from polypref.serve.placing import Placing, loaded
from polypref.serve.remembered import Remembered
from polypref.serve.store.contract import Person
from recovery_worlds import Normal, judged
from serve_cases import core, scorer

TASTES_GD = np.array([[2.0, 1.0, 0, 0, 0, 0, 0, 0], [-2.0, 1.0, 0, 0, 0, 0, 0, 0]])
QUICK = Discovery(most=2, restarts=1, folds=2)


def world(groups, seed=0):
    """User u has taste u modulo ``groups``."""
    return judged(30, 25, lambda u, x: (TASTES_GD[u % groups] * x).sum(axis=1), seed)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    found = discover(world(2), encoder=Normal(), seed=0, how=QUICK)
    assert len(found.names) == 2
    return found


@pytest.fixture(scope="module")
def one():
    return discover(world(1), encoder=Normal(), seed=0, how=QUICK)


def judgements(taste, count, seed=5):
    """A person of this taste judges pairs that nobody else saw: (prompt, chosen, rejected)."""
    pairs = [(f"one {seed} {at}", f"other {seed} {at}") for at in range(count)]
    pool = from_columns(["n"] * count, ["p"] * count, *zip(*pairs, strict=True))
    x_RD = Normal().encode(pool.responses)
    margin_N = (x_RD[pool.chosen_N] - x_RD[pool.rejected_N]) @ TASTES_GD[taste]
    return [("p", *(pair if margin > 0 else pair[::-1])) for pair, margin in zip(pairs, margin_N, strict=True)]


def judge(client, user, rows):
    for prompt, chosen, rejected in rows:
        body = {"user": user, "prompt": prompt, "chosen": chosen, "rejected": rejected}
        assert client.post("/v1/feedback", json=body).status_code == 200


def told(client, user):
    found = client.get(f"/v1/users/{user}")
    assert found.status_code == 200, found.text
    return found.json()["group"]


@pytest.fixture
def served(tmp_path, two):
    held = core(tmp_path / "s.db")
    with TestClient(app_of(held, placing=Placing(two, held.store))) as client:
        yield client, held
    held.store.close()


def test_new_people_are_placed_by_their_judgements(served, two):
    client, held = served
    names = [two.of([f"u{taste:03d}"])[0] for taste in (0, 1)]
    assert sorted(names) == ["group 1", "group 2"], "the planted groups are told apart"
    for taste, user in ((0, "ann"), (1, "bob")):
        before = told(client, user)
        assert before["group"] == "unknown" and not before["known_from_the_groups"]
        assert "Nothing is known" in before["text"]
        assert np.allclose([*before["probabilities"].values()], two.model.size_G)
        judge(client, user, judgements(taste, 12, seed=taste))
        found = told(client, user)
        assert found["group"] == names[taste] and found["from_judgements"] == 12
        assert found["probabilities"][names[taste]] > 0.95 and sum(found["probabilities"].values()) == pytest.approx(1)
        assert "100%" not in found["text"]
        assert f"you judge most like {names[taste]}" in found["text"] and "12 of your comparisons" in found["text"]
    # another process over the same store, which has asked for nothing before
    assert Placing(two, held.store).place(Person("", "ann")).told() == told(client, "ann")
    client.post("/v1/users/ann/pause")
    assert told(client, "ann")["group"] == "unknown"
    client.delete("/v1/users/bob")
    assert told(client, "bob") == before | {"probabilities": told(client, "ann")["probabilities"]}


def test_a_group_never_answers_and_every_place_says_so(served):
    client, _ = served
    judge(client, "ann", judgements(0, 12))
    body = {"user": "ann", "query": "p", "documents": ["a", "b", "c"]}
    assert client.post("/rerank", json=body).json()["personalization"]["source"] == "personal"
    body["user"] = "u000"  # the grouping knows this person, the scorer does not
    assert told(client, "u000")["known_from_the_groups"]
    answer = client.post("/rerank", json=body).json()
    asked = client.post("/rerank", json={**body, "user": None}).json()
    assert answer["personalization"]["source"] == "population" != SOURCES[1]
    assert answer["results"] == asked["results"]
    assert "changes no answer" in told(client, "u000")["text"]


def test_what_the_groups_know_and_what_is_judged_here_are_one_posterior(two):
    rows = world(2)
    own = rows.take(rows.user_N == 0)
    half = len(own) // 2
    stranger, _ = two.placed("nobody", own)
    assert np.allclose(stranger, two.assign("nobody", own).share_of(["nobody"])[0])
    first = two.assign("new", own.take(np.arange(half)))
    both, group = first.placed("new", own.take(np.arange(half, len(own))))
    assert np.allclose(both, stranger) and group == two.of(["u000"])[0]
    assert np.array_equal(two.placed("u000")[0], two.share_of(["u000"])[0])


def test_contrary_judgements_move_a_member_only_when_they_are_ahead(two):
    member, other = two.of(["u000"])[0], two.of(["u001"])[0]
    rows = world(2, seed=9)
    contrary = rows.take(rows.user_N == 1)
    assert two.placed("u000", contrary.take(np.arange(1)))[1] == member
    assert two.placed("u000", contrary.take(np.tile(np.arange(len(contrary)), 3)))[1] == other


def test_where_nobody_differs_everybody_is_in_one_group(one, tmp_path):
    assert len(one.names) == 1, "the placebo has no groups"
    held = core(tmp_path / "s.db")
    with TestClient(app_of(held, placing=Placing(one, held.store))) as client:
        judge(client, "ann", judgements(1, 6))
        found = told(client, "ann")
    held.store.close()
    assert found["probabilities"] == {"group 1": 1.0} and "No groups were found" in found["text"]


def test_groups_of_an_attribute_know_their_people_and_no_others(tmp_path):
    grouping = from_mapping({"ann": "north", "bob": "south"}, "attribute land")
    held = core(tmp_path / "s.db")
    with TestClient(app_of(held, placing=Placing(grouping, held.store))) as client:
        judge(client, "eve", judgements(0, 3))
        ann, eve = told(client, "ann"), told(client, "eve")
    held.store.close()
    assert ann["group"] == "north" and ann["probabilities"] == {"north": 1.0, "south": 0.0}
    assert eve["group"] == "unknown" and eve["probabilities"] == {} and eve["from_judgements"] == 0
    assert "judgements do not tell it" in eve["text"]


def test_without_groups_nothing_is_told(tmp_path):
    held = core(tmp_path / "s.db")
    with TestClient(app_of(held)) as client:
        assert told(client, "ann") is None
    held.store.close()


def test_what_is_no_folder_of_groups_is_refused_in_one_line(tmp_path, capsys):
    polypref.save(Pooled().fit(world(1), encoder=polypref.encoder("static"), seed=0), tmp_path / "scorer")
    for wrong in (tmp_path / "absent", tmp_path / "scorer"):
        asked = [tmp_path / "scorer", "--store", tmp_path / "s.db", "--port", 0, "--groups", wrong]
        assert main(["serve", *map(str, asked)]) == 2
        said = capsys.readouterr().err
        assert [line for line in said.splitlines() if "error" in line] == said.splitlines()[-1:], said
        assert str(wrong) in said


def test_few_places_are_kept_and_none_is_stale(two, tmp_path):
    held = core(tmp_path / "s.db")
    placing = Placing(two, held.store, most=2)
    with TestClient(app_of(held, placing=placing)) as client:
        for user in ("ann", "bob", "eve"):
            told(client, user)
        assert len(placing._kept) == 2
        judge(client, "eve", judgements(0, 12))
        assert told(client, "eve")["from_judgements"] == 12
    held.store.close()


def test_groups_are_read_with_the_features_that_the_scorer_has(two, tmp_path, monkeypatch):
    two.save(tmp_path / "groups")
    plain = Grouping.load
    monkeypatch.setattr(Grouping, "load", lambda path, encoder=None, **more: plain(path, encoder or Normal(), **more))

    class Reads:
        encoder = Remembered(Normal())

    found = loaded(tmp_path / "groups", Reads())
    assert found.model.inputs.encoder is Reads.encoder and np.array_equal(found.share_UG, two.share_UG)
    other = loaded(tmp_path / "groups", scorer()).model.inputs.encoder
    assert isinstance(other, Remembered) and other is not scorer().encoder and other.identity == Normal().identity
