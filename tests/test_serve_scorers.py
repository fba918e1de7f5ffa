"""What a store says of scorers: which is in force, which were before, and who was in their fits."""

from __future__ import annotations

import pytest

from polypref.serve.leaving import leave
from polypref.serve.store.contract import Conflict, InForceRow, Judgement, Person
from polypref.serve.store.opened import opened

ANN, BEN = Person("acme", "ann-the-first"), Person("", "ben-the-second")


def pair(key):
    return Judgement(id=key, kind="pair", prompt="p", chosen="a", rejected="b")


def row(digest, before, why="refit", **more):
    return InForceRow(hash=digest, why=why, before=before, **more)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path):
    """Where a new store may be: everything below is true of both."""
    return tmp_path / "store.db" if request.param == "sqlite" else request.getfixturevalue("postgres").database()


@pytest.fixture
def store(address):
    found = opened(address)
    yield found
    found.close()


def test_the_last_one_put_in_force_is_in_force_and_the_history_stays(store, address):
    assert store.in_force() is None and store.scorers() == []
    store.put_in_force(row("one", None, "served")).result()
    other = opened(address)
    assert other.in_force() == "one"
    other.put_in_force(row("two", "one", data={"judgements": 3}, report={"gain": 0.5})).result()
    store.put_in_force(row("one", "two", "rollback")).result()
    assert other.in_force() == "one"
    history = other.scorers()
    assert [(one.hash, one.before, one.why) for one in history] == [
        ("one", None, "served"),
        ("two", "one", "refit"),
        ("one", "two", "rollback"),
    ]
    assert history[1].data == {"judgements": 3} and history[1].report == {"gain": 0.5}
    assert 0 < history[0].at <= history[1].at <= history[2].at
    other.close()


def test_who_looked_at_another_state_puts_nothing_in_force(store):
    store.put_in_force(row("one", None)).result()
    for before in (None, "two"):
        with pytest.raises(Conflict, match="another scorer"):
            store.put_in_force(row("three", before), ["ann"]).result()
    assert store.in_force() == "one" and store.fitted_with("ann") == []


def test_who_leaves_is_told_the_scorers_fitted_with_them_and_is_in_none_of_the_rows(store):
    store.put_in_force(row("one", None), ["acme/ann-the-first", "ben-the-second"]).result()
    store.put_in_force(row("two", "one"), ["acme/ann-the-first"]).result()
    store.judge(ANN, pair("1")).result()
    embedded = any(path.exists() for path in store.files())  # the bytes of a database on a server are not at hand
    assert not embedded or any(b"ann-the-first" in path.read_bytes() for path in store.files())  # the control
    assert store.held(["ann-the-first"]) == {"ann-the-first"}
    left = leave(ANN, store)
    assert left.scorers == ["one", "two"] and left.residue == [] and not left.pending
    assert not any(b"ann-the-first" in path.read_bytes() for path in store.files() if path.exists())
    assert not store.held(["ann-the-first"])
    assert store.fitted_with("acme/ann-the-first") == [] and store.fitted_with("ben-the-second") == ["one"]
    assert leave(ANN, store).scorers == []


def test_a_scorer_without_somebody_takes_the_place_of_the_one_with_them(store):
    store.put_in_force(row("one", None), ["ann", "ben"]).result()
    store.put_in_force(row("two", "one"), ["ben"]).result()
    store.forgotten({"one": "one without ann"}, ["ann"]).result()
    assert [one.hash for one in store.scorers()] == ["one without ann", "two"]
    assert store.scorers()[0].data == {"was": ["one"]}
    assert store.fitted_with("ann") == [] and store.fitted_with("ben") == ["one without ann", "two"]


def test_everybodys_judgements_come_in_order_and_without_those_who_paused(store):
    for at in range(10):
        store.judge(ANN if at % 3 else BEN, pair(str(at))).result()
    store.pause(BEN, True).result()
    after, upto = store.newest(100)
    assert (after, upto) == (0, 10) and store.newest(4) == (6, 10)
    found = store.everybodys(0, 10, 4)
    assert [(person, one.judgement.id) for person, one in found] == [(ANN, str(at)) for at in (1, 2, 4, 5)]
    found = store.everybodys(found[-1][1].seq, 8, 100)
    assert [one.judgement.id for _, one in found] == ["7"]
    store.pause(BEN, False).result()
    assert len(store.everybodys(0, 10, 100)) == 10
