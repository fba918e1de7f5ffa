"""Stores in SQLite and PostgreSQL: what was acknowledged is there once, whatever happens; what was removed is gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polypref.serve.leaving import leave
from polypref.serve.store import held_open
from polypref.serve.store.contract import Conflict, Judgement, Offer, Person, Standing, StoreError
from polypref.serve.store.opened import opened
from polypref.serve.store.sqlite import Sqlite

CHARACTERS = st.characters(exclude_categories=["Cs"])
IDS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANN, BEN = Person("", "ann-the-first"), Person("", "ben")


def pair(key, chosen="a", rejected="b", **more):
    return Judgement(id=key, kind="pair", prompt="p", chosen=chosen, rejected=rejected, **more)


def offer(request, texts=("a", "b"), prompt="p"):
    about = {"rewards": (0.5, 0.1), "source": "population", "scorer": "s", "policy": None, "route": "rerank"}
    return Offer(request=request, prompt=prompt, texts=texts, order=(0, 1), blocked=(), **about)


@pytest.fixture(params=["sqlite", "postgres", "encrypted"])
def address(request, tmp_path, monkeypatch):
    """Where a new store may be: everything below is true of all."""
    if request.param == "encrypted":
        monkeypatch.setenv("POLYPREF_MASTER_KEY", "a key that was drawn at random for this test")
        opened(tmp_path / "store.db", encrypt=True).close()
    if request.param != "postgres":
        return tmp_path / "store.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def store(address):
    found = opened(address)
    yield found
    found.close()


@pytest.fixture
def embedded(tmp_path):
    found = Sqlite(tmp_path / "store.db")
    yield found
    found.close()


def test_a_judgement_is_kept_once_and_another_with_its_id_is_refused(store):
    assert store.judge(ANN, pair("k")).result() is True
    assert store.judge(ANN, pair("k", context={"seconds": 2.0})).result() is False  # what the server adds may differ
    with pytest.raises(Conflict, match="'k'"):
        store.judge(ANN, pair("k", "b", "a")).result()
    assert [one.judgement for one in store.judgements(ANN)] == [pair("k")]
    assert store.standing(ANN).judgements == 1 and store.standing(BEN) == Standing()


def test_people_do_not_meet_in_an_id(store):
    """Whatever one does with an id, others with the same one neither notice nor lose anything."""
    people = (ANN, BEN, Person("other", ANN.user))
    for at, person in enumerate(people):
        assert store.judge(person, pair("k", f"text {at}")).result() is True
    assert store.replace(BEN, pair("k", "replaced")).result() is True and store.undo(people[2], "k").result() is True
    assert [[one.judgement.chosen for one in store.judgements(person)] for person in people] == [
        ["text 0"],
        ["replaced"],
        [],
    ]
    assert [store.standing(person).judgements for person in people] == [1, 1, 0]
    assert store.made("", "k") == [(person, store.judgements(person)[0]) for person in (ANN, BEN)]
    assert leave(ANN, store).rows["judgements"] == 1
    assert [whose for whose, _ in store.made("", "k")] == [BEN] and store.made("other", "k") == []


def test_every_change_of_a_person_is_a_version_that_nobody_had_before(store):
    seen = set()
    for change in (
        lambda: store.judge(ANN, pair("1")).result(),
        lambda: store.judge(BEN, pair("2")).result(),
        lambda: store.undo(ANN, "1").result(),
        lambda: store.forget(ANN),
        lambda: store.judge(ANN, pair("1")).result(),
        lambda: store.pause(ANN, True).result(),
    ):
        change()
        seen.add(store.standing(ANN))
    assert len(seen) == 5  # Ben's is no change of Ann's
    assert store.standing(ANN).paused


def test_a_judgement_can_be_found_by_its_id_and_replaced(store):
    assert store.made("", "1") == []
    assert store.replace(ANN, pair("1")).result() is True
    before = store.standing(ANN)
    assert store.replace(ANN, pair("1")).result() is False and store.standing(ANN) == before
    assert store.replace(ANN, pair("1", "b", "a")).result() is True
    assert [one.judgement for one in store.judgements(ANN)] == [pair("1", "b", "a")]
    assert store.standing(ANN).judgements == 1 and store.standing(ANN).version != before.version
    assert [(whose, one.judgement) for whose, one in store.made("", "1")] == [(ANN, pair("1", "b", "a"))]
    assert store.made("other", "1") == []


def test_taking_back_one_judgement(store):
    store.judge(ANN, pair("1")).result()
    assert store.undo(BEN, "1").result() is False
    assert store.undo(ANN, "1").result() is True
    assert store.undo(ANN, "1").result() is False
    assert store.judgements(ANN) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(CHARACTERS, max_size=200), st.text(IDS))
def test_any_text_comes_back_as_it_was(store, text, user):
    tenant = uuid.uuid4().hex  # of this example alone
    person = Person(tenant, user)
    store.judge(person, pair("k", text, "other", comment=text)).result()
    store.offered(person, offer("r", (text, user), text)).result()
    assert store.judgements(person)[0].judgement == pair("k", text, "other", comment=text)
    assert store.offer(tenant, "r") == (person, offer("r", (text, user), text))
    assert store.people(tenant) == [user]


def test_one_failing_judgement_of_a_group_fails_alone(store):
    store.judge(ANN, pair("0")).result()
    found = [store.judge(ANN, pair(str(at), "b" if at == 0 else "a", "c")) for at in range(100)]
    assert isinstance(found[0].exception(), Conflict)
    assert all(one.result() for one in found[1:])
    assert len(store.judgements(ANN)) == 100


def test_many_writers_lose_nothing(store):
    with ThreadPoolExecutor(16) as many:
        done = list(many.map(lambda at: store.judge(Person("", f"u{at % 7}"), pair(f"k{at}")).result(), range(700)))
    assert all(done)
    assert sum(store.standing(Person("", f"u{at}")).judgements for at in range(7)) == 700


def test_settings_are_read_back_and_a_wrong_file_is_refused(tmp_path, monkeypatch):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (a)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        Sqlite(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be looked at as a header" * 20)
    with pytest.raises(StoreError, match="not a database"):
        Sqlite(tmp_path / "text.db")
    with pytest.raises(StoreError, match="unable to open"):
        Sqlite(tmp_path / "absent" / "s.db")
    monkeypatch.setattr("polypref.serve.store.sqlite.SETTINGS", {"synchronous": 7})
    with pytest.raises(StoreError, match="keeps synchronous at"):
        Sqlite(tmp_path / "lax.db")


def test_what_cannot_be_kept_fails_alone_and_the_writer_goes_on(store):
    """A broken text, and work that has an error: not the database's failures, and nobody else's."""
    found = [store.judge(ANN, pair(str(at))) for at in range(50)]
    inner = getattr(store, "store", store)  # what an encrypted one is around
    broken = [inner.undo(Person("", "half \ud800"), "broken"), inner.writer.submit(lambda to: 1 / 0)]
    broken.append(inner.writer.submit(lambda to: {}["absent"], alone=True))
    after = [store.judge(ANN, pair(str(at))) for at in range(50, 100)]
    for one, why in zip(broken, ("surrogates", "division by zero", "absent"), strict=True):
        with pytest.raises(StoreError, match=why):
            one.result(timeout=30)
    assert all(one.result(timeout=30) for one in found + after)
    assert len(store.judgements(ANN)) == 100


def test_a_clock_that_goes_back_changes_no_order(store, monkeypatch):
    store.pause(ANN, False).result()  # an encrypted store makes Ann's key
    clock = iter([1000.0, 900.0, -5.0, 2000.0])
    monkeypatch.setattr("polypref.serve.store.rows.time.time", lambda: next(clock))
    for key in "abcd":
        store.judge(ANN, pair(key)).result()
    assert [(one.judgement.id, one.at) for one in store.judgements(ANN)] == [
        *(("a", 1000.0), ("b", 900.0), ("c", -5.0), ("d", 2000.0))
    ]


def test_who_gives_up_waiting_stops_nobody_else(store):
    waiting = [store.judge(ANN, pair(str(at))) for at in range(200)]
    gone = {at for at, one in enumerate(waiting) if one.cancel()}
    assert store.judge(BEN, pair("after")).result(timeout=30)
    kept = {int(one.judgement.id) for one in store.judgements(ANN)}
    assert kept == {*range(200)} - gone


def test_a_closed_store_accepts_nothing_and_finishes_what_it_accepted(address):
    store = opened(address)
    accepted = [store.judge(ANN, pair(str(at))) for at in range(300)]
    store.close()
    assert all(one.result(timeout=0) for one in accepted)
    assert isinstance(store.judge(ANN, pair("late")).exception(timeout=0), StoreError)
    with pytest.raises(StoreError, match="closed"):
        store.standing(ANN)


def test_a_full_disk_acknowledges_nothing(embedded):
    store = embedded
    store.judge(ANN, pair("before")).result()
    limit = store.writer.submit(lambda to: to.execute("PRAGMA page_count").fetchone()[0]).result()
    store.writer.submit(lambda to: to.execute(f"PRAGMA max_page_count = {limit}"), alone=True).result()
    with pytest.raises(StoreError, match="full"):
        store.judge(ANN, pair("large", "x" * 100_000)).result()
    store.writer.submit(lambda to: to.execute("PRAGMA max_page_count = 1000000"), alone=True).result()
    assert store.judge(ANN, pair("large", "x" * 100_000)).result()
    assert [one.judgement.id for one in store.judgements(ANN)] == ["before", "large"]


# --- leaving


def test_who_leaves_is_in_no_file_and_others_stay(embedded):
    store = embedded
    own = [f"only Ann ever wrote sentence number {at} of these" for at in range(40)]
    for at, text in enumerate(own):
        store.judge(ANN, pair(f"a{at}", text + "!" * 5000 * (at % 3), "a text that both have judged", comment=text))
        store.judge(BEN, pair(f"b{at}", f"Ben's own text {at}", "a text that both have judged"))
        store.offered(ANN, offer(f"r{at}", (text, "another")))
    store.judge(BEN, pair("last")).result()
    before = store.judgements(BEN)
    assert any(b"only Ann ever wrote" in path.read_bytes() for path in store.files() if path.exists())  # the control
    left = leave(ANN, store)
    assert left.rows == {"judgements": 40, "answers": 40, "people": 1}
    assert left.residue == [] and not left.pending and left.searched > 40
    for path in store.files():
        if path.exists():
            assert b"only Ann ever wrote" not in path.read_bytes()
            assert b"ann-the-first" not in path.read_bytes()
    assert store.judgements(BEN) == before
    assert store.standing(ANN) == Standing() and store.people("") == ["ben"]
    assert leave(ANN, store).rows == {"judgements": 0, "answers": 0, "people": 0}  # again is no error


def test_after_a_leaving_no_other_process_takes_the_log_away_into_which_this_one_writes(embedded):
    """Reading a file past SQLite must not give up SQLite's locks; another process would think itself the last one."""
    store = embedded
    store.judge(ANN, pair("a", "only Ann ever wrote this sentence")).result()
    assert leave(ANN, store).rows["judgements"] == 1
    store.judge(BEN, pair("before")).result()
    log = store.files()[1]
    number = log.stat().st_ino
    for at in range(2):
        elsewhere(store, "SELECT count(*) FROM judgements")
        assert log.exists() and log.stat().st_ino == number, "the log is gone"
        assert store.judge(BEN, pair(f"after {at}")).result()
    assert elsewhere(store, "SELECT count(*) FROM judgements") == "3"


def elsewhere(store, query):
    """What another process finds in the store, which then closes it."""
    code = (
        "import sqlite3, sys; to = sqlite3.connect(sys.argv[1]); print(*to.execute(sys.argv[2]).fetchone()); to.close()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(store.path), query], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_lies_across_two_pieces_of_a_file_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(held_open, "CHUNK", 64)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 50 + b"the text that is searched for, which is long" + b"y" * 300)
    assert any(b"the text that is searched for, which is long" in one for one in held_open.pieces(path, 43))
    assert b"".join(held_open.pieces(path, 0)) == path.read_bytes()
    assert list(held_open.pieces(tmp_path / "absent", 3)) == []


def test_copies_that_sqlite_left_when_it_moved_rows_go_too(embedded, monkeypatch):
    """Answers lie in the order of their ids, which are random; what moved to another page may stay behind, unused."""
    store = embedded
    people = [Person("", f"person-{at:04d}-who-leaves") for at in range(120)]

    def arrive():
        kept = []
        for at in range(4 * len(people)):
            request, own = sha256(b"%d" % at).hexdigest(), "a long answer " * (at % 40)
            kept.append(store.offered(people[at % len(people)], offer(request, (own, f"another {at}"))))
        assert all(one.exception() is None for one in kept)

    arrive()
    monkeypatch.setattr("polypref.serve.store.sqlite.MOST_REWRITTEN", 0)
    found = [leave(person, store).residue for person in people]
    assert any(found)  # the control: told, not hidden
    monkeypatch.undo()
    arrive()
    assert not any(leave(person, store).residue for person in people)


def test_while_somebody_reads_an_older_state_the_receipt_says_pending(embedded, monkeypatch):
    store = embedded
    monkeypatch.setattr("polypref.serve.store.sqlite.LEAVE_S", 0.1)
    store.judge(ANN, pair("1", "a text of Ann's that is long enough")).result()
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM judgements").fetchone()
    left = leave(ANN, store)
    assert left.pending and left.residue  # told, not hidden
    reader.execute("COMMIT")
    reader.close()
    assert store.emptied()
    assert leave(ANN, store).residue == []


# --- killed

WRITES = """
import sys
from polypref.serve.store.opened import opened
from polypref.serve.store.contract import Judgement, Person
store = opened(sys.argv[1])
for at in range(int(sys.argv[2]), 10**6):
    one = Judgement(id=str(at), kind="pair", prompt="p", chosen="a" * 300, rejected="b")
    store.judge(Person("", "ann"), one).result()
    print(at, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged_and_keeps_nothing_twice(address):
    acknowledged = []
    for kill in range(4):
        begun = len(acknowledged)
        run = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(address), str(begun)], stdout=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        for line in run.stdout:
            acknowledged.append(int(line))
            if len(acknowledged) - begun == 20 + 13 * kill:
                os.kill(run.pid, signal.SIGKILL)
                break
        acknowledged += [int(line) for line in run.stdout.read().split()]
        run.wait()
        store = opened(address)
        assert store.pause(Person("", "ben"), False).result() is None  # what was under way is over
        ids = [int(one.judgement.id) for one in store.judgements(Person("", "ann"))]
        assert len(ids) == len(set(ids)) and set(acknowledged) <= set(ids)
        assert store.standing(Person("", "ann")).judgements == len(ids)
        store.close()
        acknowledged = ids
