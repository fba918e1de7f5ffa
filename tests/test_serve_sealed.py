"""An encrypted store: its files say nothing, who left is in no old copy, and it keeps what any store keeps."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from fastapi.testclient import TestClient

from polypref.errors import SettingsError
from polypref.serve.app import app_of
from polypref.serve.core import Core
from polypref.serve.leaving import leave
from polypref.serve.store import schema
from polypref.serve.store.contract import InForceRow, Judgement, Offer, Person, Standing, Store, StoreError
from polypref.serve.store.opened import opened
from polypref.serve.store.sealed import Sealed
from serve_cases import PROMPT, TEXTS, judge, order, scorer

ANN, BEN = Person("a-tenant", "ann-the-first"), Person("a-tenant", "ben-the-second")
MASTER = "a key that was drawn at random for these tests"
WRITTEN = (
    "ann-the-first",
    "a-tenant",
    "Ann's own prompt",
    "Ann's chosen text",
    "Ann's comment",
    "idempotent-1",
    "arm-7",
)


@pytest.fixture(autouse=True)
def master(monkeypatch):
    monkeypatch.setenv("POLYPREF_MASTER_KEY", MASTER)


def said(key="idempotent-1", **more):
    own = {
        "chosen": "Ann's chosen text",
        "rejected": "another",
        "comment": "Ann's comment",
        "context": {"arm": "arm-7"},
    }
    return Judgement(id=key, kind="pair", prompt="Ann's own prompt", **{**own, **more})


def given(request="r1"):
    about = {"rewards": (0.5, None), "source": "population", "scorer": "s", "policy": None, "route": "rerank"}
    texts = ("Ann's chosen text", "another")
    return Offer(request=request, prompt="Ann's own prompt", texts=texts, order=(0,), blocked=(1,), **about)


def filled(path, encrypt=True):
    store = opened(path, encrypt)
    assert store.judge(ANN, said()).result() and store.judge(BEN, said("2", comment="Ben's")).result()
    store.offered(ANN, given()).result()
    row = InForceRow(hash="h", why="first", before=None)
    store.put_in_force(row, ["a-tenant/ann-the-first"]).result()
    return store


def found(store):
    whole = b"".join(path.read_bytes() for path in store.files() if path.exists())
    return [one for one in WRITTEN if one.encode() in whole]


def test_files_hold_nothing_that_anybody_wrote_and_no_names(tmp_path):
    plain, store = filled(tmp_path / "plain.db", encrypt=False), filled(tmp_path / "s.db")
    assert set(found(plain)) == set(WRITTEN)  # the control
    assert found(store) == []
    assert store.judgements(ANN)[0].judgement == said() and store.offer("a-tenant", "r1") == (ANN, given())
    assert store.made("a-tenant", "2") == [(BEN, store.judgements(BEN)[0])]
    assert store.people("a-tenant") == ["ann-the-first", "ben-the-second"] and store.people("") == []
    assert [person for person, _ in store.everybodys(0, 10**9, 10)] == [ANN, BEN]
    assert store.fitted_with("a-tenant/ann-the-first") == ["h"]
    assert leave(ANN, store).scorers == ["h"]
    for one in (plain, store):
        one.close()


def test_an_encrypted_store_of_an_older_version_keeps_all_that_it_held(tmp_path, monkeypatch):
    """Ids were unique in a tenant; now Ben may use Ann's."""
    monkeypatch.setattr(schema, "STEPS", schema.STEPS[:2])
    old = filled(tmp_path / "s.db")
    before = old.everybodys(0, 100, 100)
    old.close()
    monkeypatch.undo()
    monkeypatch.setenv("POLYPREF_MASTER_KEY", MASTER)
    now = opened(tmp_path / "s.db")
    assert now.everybodys(0, 100, 100) == before and len(before) == 2
    assert not now.judge(ANN, said()).result() and now.judge(BEN, said()).result()
    assert [whose for whose, _ in now.made("a-tenant", said().id)] == [ANN, BEN]
    now.close()


def test_it_is_a_store_whole():
    wanted = {name for name in vars(Store) if not name.startswith("_")}
    assert len(wanted) > 15 and {name for name in wanted if name not in vars(Sealed)} == set()


def test_who_left_is_in_no_old_copy_of_the_store(tmp_path):
    filled(tmp_path / "s.db").close()
    shutil.copy(tmp_path / "s.db", tmp_path / "backup")
    shutil.copy(tmp_path / "s.db.keys", tmp_path / "backup.keys-of-then")
    store = opened(tmp_path / "s.db")
    left = leave(ANN, store)
    assert left.rows["keys"] == 1 and left.rows["judgements"] == 1 and left.residue == [] and not left.pending
    assert {"s.db", "s.db.keys"} <= set(left.files)
    store.close()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"s.db{end}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", tmp_path / "s.db")  # restored, with the keys of today
    store = opened(tmp_path / "s.db")
    assert store.standing(ANN) == Standing() and store.judgements(ANN) == [] and store.offer("a-tenant", "r1") is None
    assert len(store.judgements(BEN)) == 1 and store.people("a-tenant") == ["ben-the-second"]
    assert store.made("a-tenant", "idempotent-1") == [] != store.made("a-tenant", "2")
    assert [person for person, _ in store.everybodys(0, 10**9, 1)] == [BEN]  # after two rows that nobody can read
    assert store.judge(ANN, said("new")).result()  # Ann is back, and still only what is new can be read
    assert [one.judgement.id for one in store.judgements(ANN)] == ["new"]
    assert [person for person, _ in store.everybodys(0, 10**9, 10)] == [BEN, ANN]
    store.close()
    shutil.copy(tmp_path / "backup", tmp_path / "old.db")
    shutil.copy(tmp_path / "backup.keys-of-then", tmp_path / "old.db.keys")
    store = opened(tmp_path / "old.db")  # the control, and the reason why keys have backups of their own
    assert len(store.judgements(ANN)) == 1
    store.close()


def test_a_wrong_or_missing_key_and_a_plain_store_are_refused(tmp_path, monkeypatch):
    filled(tmp_path / "s.db").close()
    filled(tmp_path / "plain.db", encrypt=False).close()
    with pytest.raises(StoreError, match="plain text"):
        opened(tmp_path / "plain.db", encrypt=True)
    plain = opened(tmp_path / "plain.db")
    assert len(plain.judgements(ANN)) == 1
    plain.close()
    monkeypatch.setenv("POLYPREF_MASTER_KEY", "another key that was drawn at random for these tests")
    with pytest.raises(StoreError, match="another master key"):
        opened(tmp_path / "s.db")
    monkeypatch.setenv("POLYPREF_MASTER_KEY", "short")
    with pytest.raises(SettingsError, match="fewer than 32") as told:
        opened(tmp_path / "s.db")
    assert "short" not in str(told.value)
    monkeypatch.delenv("POLYPREF_MASTER_KEY")
    with pytest.raises(SettingsError, match="needs its master key"):
        opened(tmp_path / "s.db")
    monkeypatch.setenv("POLYPREF_MASTER_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="cannot be read"):
        opened(tmp_path / "s.db")
    (tmp_path / "master").write_text(MASTER + "\n")
    monkeypatch.setenv("POLYPREF_MASTER_KEY_FILE", str(tmp_path / "master"))
    opened(tmp_path / "s.db").close()
    shutil.copy(tmp_path / "plain.db", tmp_path / "s.db.keys")  # keys of nobody
    store = opened(tmp_path / "s.db")
    assert store.judgements(ANN) == []
    store.close()


@pytest.mark.parametrize("what", ["changed", "swapped", "context", "key"])
def test_rows_that_were_changed_are_no_rows(tmp_path, what):
    store = filled(tmp_path / "s.db")
    store.judge(ANN, said("3", chosen="a third")).result()
    store.close()
    file = sqlite3.connect(tmp_path / ("s.db.keys" if what == "key" else "s.db"))
    rows = dict(file.execute("SELECT seq, body FROM judgements ORDER BY seq").fetchall())
    whose = dict(file.execute("SELECT seq, user FROM judgements").fetchall())
    first, *_, last = [seq for seq in rows if whose[seq] == whose[max(rows)]] if what != "key" else sorted(rows)
    if what == "swapped" or what == "key":  # the content of one row under the id of another
        one, other = (msgspec.json.decode(rows[seq]) for seq in (first, last))
        one["chosen"], other["chosen"] = other["chosen"], one["chosen"]
        rows[first], rows[last] = msgspec.json.encode(one), msgspec.json.encode(other)
    else:
        at = rows[first].find(b'"sealed"' if what == "context" else b".") + 40
        rows[first] = rows[first][:at] + bytes([rows[first][at] ^ 1]) + rows[first][at + 1 :]
    for seq, body in rows.items():
        file.execute("UPDATE judgements SET body = ? WHERE seq = ?", (body, seq))
    file.commit()
    file.close()
    store = opened(tmp_path / "s.db")
    with pytest.raises(StoreError, match="changed"):
        store.judgements(ANN)
    store.close()


def test_what_is_acknowledged_can_be_read_though_the_person_left_in_between(tmp_path):
    one, other = filled(tmp_path / "s.db"), opened(tmp_path / "s.db")
    inner, left = one.store.judge, []

    def late(person, judgement):  # the person leaves at another process while the row is on its way
        if not left:
            left.append(other.forget(ANN))
        return inner(person, judgement)

    one.store.judge = late
    assert one.judge(ANN, said("late")).result(timeout=30) is True
    for store in (one, other):
        assert [row.judgement for row in store.judgements(ANN)] == [said("late")]
    assert left[0].rows["judgements"] == 1
    other.forget(ANN)
    assert one.judgements(ANN) == [] and one.standing(ANN) == Standing()
    one.close()
    other.close()
    assert isinstance(one.judge(ANN, said("closed")).exception(timeout=30), StoreError)


def test_two_processes_make_one_key_for_a_new_person(tmp_path):
    stores = [opened(tmp_path / "s.db", encrypt=True) for _ in range(2)]
    people = [Person("", f"person {at}") for at in range(30)]
    with ThreadPoolExecutor(8) as many:
        done = [
            many.submit(lambda store, person, key: store.judge(person, said(key)).result(timeout=60), store, one, key)
            for one in people
            for store, key in zip(stores, (f"{one.user} 1", f"{one.user} 2"), strict=True)
        ]
        assert all(one.result() for one in done)
    for store in stores:
        assert all(len(store.judgements(one)) == 2 == store.standing(one).judgements for one in people)
    for store in stores:
        store.close()


def test_over_postgresql_keys_are_in_another_database(postgres, monkeypatch):
    where, keys = postgres.database(), postgres.database()
    with pytest.raises(SettingsError, match="POLYPREF_KEY_STORE"):
        opened(where, encrypt=True)
    monkeypatch.setenv("POLYPREF_KEY_STORE", keys)
    one = filled(where)
    other = opened(where)
    assert other.judgements(ANN)[0].judgement == said() and other.offer("a-tenant", "r1") == (ANN, given())
    assert other.people("a-tenant") == ["ann-the-first", "ben-the-second"] and not other.held(list(WRITTEN))
    assert leave(ANN, one).rows["keys"] == 1
    assert other.judgements(ANN) == [] and other.standing(ANN) == Standing() and len(other.judgements(BEN)) == 1
    one.close()
    other.close()


def test_served_it_learns_and_forgets_as_any_other(tmp_path):
    served = Core(scorer(), "scorer-1", opened(tmp_path / "s.db", encrypt=True))
    with TestClient(app_of(served)) as client:
        before = order(client, user="ann")
        for at in range(4):
            assert judge(client, "ann", TEXTS[before[0][-1]], TEXTS[before[0][0]], key=f"k{at}").json()["new"]
        assert not judge(client, "ann", TEXTS[before[0][-1]], TEXTS[before[0][0]], key="k0").json()["new"]
        conflict = judge(client, "ann", TEXTS[before[0][0]], TEXTS[before[0][-1]], key="k0")
        assert conflict.status_code == 409 and "'k0'" in conflict.text
        assert order(client, user="ann")[1] == "personal" and order(client, user="ben") == before
        answer = client.post("/rerank", json={"query": PROMPT, "documents": TEXTS, "user": "ann"}).json()
        by_number = {"user": "ann", "request": answer["id"], "chosen": 0, "rejected": 1}
        assert client.post("/v1/feedback", json=by_number).json()["new"]
        assert len(client.get("/v1/users/ann/export").json()["judgements"]) == 5
        assert client.delete("/v1/users/ann").json()["rows"]["judgements"] == 5
        assert order(client, user="ann") == before
        assert client.get("/health").status_code == 200
    served.store.close()


def test_the_command_says_that_a_key_is_missing(tmp_path, monkeypatch):
    import polypref
    from polypref.learners.hierarchical import Hierarchical
    from polypref.worlds import simulate

    monkeypatch.delenv("POLYPREF_MASTER_KEY")
    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    polypref.save(Hierarchical(steps=3).fit(world, encoder=polypref.encoder("static"), seed=0), tmp_path / "scorer")
    command = [sys.executable, "-m", "polypref", "serve", str(tmp_path / "scorer"), "--port", "0", "--encrypt"]
    run = subprocess.run([*command, "--store", str(tmp_path / "s.db")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "POLYPREF_MASTER_KEY" in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert Path(tmp_path / "s.db").exists()


def test_a_store_whose_keys_are_not_at_their_place_is_refused_until_they_are_back(tmp_path):
    """An empty store of keys in their place would make a stranger of everybody, without a word."""
    path, keys, away = tmp_path / "s.db", tmp_path / "s.db.keys", tmp_path / "away"
    opened(path, encrypt=True).close()
    keys.unlink()
    filled(path).close()  # nobody was in it yet
    keys.rename(away)
    with pytest.raises(SettingsError, match=r"s\.db\.keys is not there"):
        opened(path)
    assert not keys.exists()
    away.rename(keys)
    store = opened(path)
    assert [one.judgement.chosen for one in store.judgements(ANN)]
    store.close()
