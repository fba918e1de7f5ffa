"""A store of an older version becomes one of this version, in one transaction, with all that it held."""

from __future__ import annotations

import sqlite3
import threading

import msgspec
import pytest

from polypref.serve.store import schema
from polypref.serve.store.contract import Judgement, Person, Standing, StoreError
from polypref.serve.store.schema import STEPS, Step
from polypref.serve.store.sqlite import APPLICATION, Sqlite

VERSION_1 = """
CREATE TABLE people (tenant TEXT, user TEXT, version INTEGER NOT NULL DEFAULT 0, judgements INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, user)) WITHOUT ROWID;
CREATE TABLE judgements (seq INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, user TEXT NOT NULL,
    id TEXT NOT NULL, at REAL NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (tenant, id));
CREATE INDEX judgements_of ON judgements (tenant, user, seq);
CREATE TABLE answers (tenant TEXT, request TEXT, user TEXT, at REAL NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (tenant, request)) WITHOUT ROWID;
CREATE INDEX answers_of ON answers (tenant, user);
CREATE TABLE changes (number INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""  # as it was released; never to be changed
OLD = Judgement(id="old", kind="pair", prompt="p", chosen="a", rejected="b")


@pytest.fixture
def first(tmp_path):
    """A store as the first version left it, with a judgement in it."""
    path = tmp_path / "s.db"
    to = sqlite3.connect(path)
    to.executescript(VERSION_1)
    to.execute("INSERT INTO judgements VALUES (1, '', 'ann', 'old', 5.0, x'00', ?)", (msgspec.json.encode(OLD),))
    to.execute("INSERT INTO people VALUES ('', 'ann', 1, 1, 0)")
    to.execute("UPDATE changes SET number = 1")
    to.execute(f"PRAGMA application_id = {APPLICATION}")
    to.execute("PRAGMA user_version = 1")
    to.commit()
    to.close()
    return path


def tables(path):
    """Columns and keys of every table and index; how the SQL was spelt does not matter."""
    to = sqlite3.connect(path)
    names = [name for (name,) in to.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")]
    found = {
        name: (*to.execute(f"PRAGMA table_xinfo({name})"), *to.execute(f"PRAGMA index_xinfo({name})")) for name in names
    }
    version = to.execute("PRAGMA user_version").fetchone()[0]
    to.close()
    return found, version


def test_the_first_step_makes_the_first_versions_tables(first, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "STEPS", STEPS[:1])
    Sqlite(tmp_path / "new.db").close()
    assert tables(tmp_path / "new.db") == tables(first)


def test_a_store_of_the_first_version_becomes_one_of_this_version(first, tmp_path, monkeypatch):
    later = Step(
        STEPS[-1].number + 1, "CREATE TABLE moods (tenant {text}, mood {bytes}); CREATE INDEX m ON moods (mood)"
    )
    monkeypatch.setattr(schema, "STEPS", (*STEPS, later))
    store = Sqlite(first)
    assert [one.judgement for one in store.judgements(Person("", "ann"))] == [OLD]
    assert store.standing(Person("", "ann")) == Standing(1, 1)
    assert store.judge(Person("", "ben"), msgspec.structs.replace(OLD, id="new")).result()
    store.close()
    Sqlite(tmp_path / "new.db").close()
    assert tables(first) == tables(tmp_path / "new.db")
    assert "moods" in tables(first)[0] and tables(first)[1] == later.number


def test_ids_that_were_unique_in_a_tenant_are_so_for_a_person(tmp_path, monkeypatch):
    """All rows and their numbers stay, a number that was given is not given again, and no copy of a row is left."""
    path, people = tmp_path / "s.db", [Person("", "ann"), Person("", "ben"), Person("t", "ann")]
    texts = [f"text number {at} of those that were judged {'x' * (at % 7) * 900}." for at in range(300)]
    judged = [msgspec.structs.replace(OLD, id=f"k{at}", chosen=text) for at, text in enumerate(texts)]
    monkeypatch.setattr(schema, "STEPS", STEPS[:2])
    old = Sqlite(path)
    for at, one in enumerate(judged):
        old.judge(people[at % 3], one).result()
    old.undo(people[2], "k299").result()
    before = [old.everybodys(0, 1000, 1000), *map(old.judgements, people), *map(old.standing, people)]
    old.close()
    monkeypatch.setattr(schema, "STEPS", STEPS)
    now = Sqlite(path)
    after = [now.everybodys(0, 1000, 1000), *map(now.judgements, people), *map(now.standing, people)]
    assert after == before and len(after[0]) == 299
    assert not now.judge(people[0], judged[0]).result()  # it is there
    assert now.judge(people[1], judged[0]).result()
    assert now.judgements(people[1])[-1].seq == 301
    now.close()
    held = path.read_bytes()
    assert [held.count(text[:30].encode()) for text in texts] == [2] + [1] * 298 + [0]


def test_a_server_waits_while_another_one_brings_the_store_to_this_version(first, monkeypatch):
    monkeypatch.setattr("polypref.serve.store.sqlite.WAIT_MS", 50)
    other = sqlite3.connect(first, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode = wal")
    other.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
    later.start()
    Sqlite(first).close()
    later.join()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        Sqlite(first)
    other.close()


def test_a_step_that_fails_changes_nothing(first, monkeypatch):
    before = tables(first)
    wrong = Step(STEPS[-1].number + 1, "CREATE TABLE moods (mood {text}); CREATE TABLE people (tenant {text})")
    monkeypatch.setattr(schema, "STEPS", (*STEPS, wrong))
    with pytest.raises(StoreError, match="people already exists"):
        Sqlite(first)
    assert tables(first) == before


def test_a_newer_store_is_refused(tmp_path):
    path = tmp_path / "newer.db"
    Sqlite(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="version 99; this polypref knows"):
        Sqlite(path)


def test_steps_are_numbered_from_one_and_whose_rows_they_hold_is_known(tmp_path):
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))
    Sqlite(tmp_path / "s.db").close()
    columns = {name: {row[1] for row in rows} for name, rows in tables(tmp_path / "s.db")[0].items()}
    to = sqlite3.connect(tmp_path / "s.db")
    names = {name for (name,) in to.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in names & columns.keys() if "user" in columns[name]} == set(schema.OF_A_PERSON)
