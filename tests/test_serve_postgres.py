"""PostgreSQL as the store: several servers on one database, its restarts, and what is refused; with a real cluster."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import psycopg
import pytest
from fastapi.testclient import TestClient

import polypref
from polypref.cli import main
from polypref.learners.hierarchical import Hierarchical
from polypref.serve.app import app_of
from polypref.serve.core import Core
from polypref.serve.leaving import leave
from polypref.serve.store import schema
from polypref.serve.store.contract import Judgement, Person, Standing, StoreError
from polypref.serve.store.postgres import KEPT, Database, Postgres
from polypref.serve.store.schema import STEPS, Step
from polypref.worlds import simulate
from serve_cases import judge, order, scorer, started

ANN, BEN = Person("", "ann-the-first"), Person("", "ben")


def pair(key, chosen="a", rejected="b", **more):
    return Judgement(id=key, kind="pair", prompt="p", chosen=chosen, rejected=rejected, **more)


@pytest.fixture
def address(postgres):
    return postgres.database()


@pytest.fixture
def store(address):
    found = Postgres(address)
    yield found
    found.close()


@pytest.fixture(scope="module")
def saved_scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    polypref.save(Hierarchical(steps=3).fit(world, encoder=polypref.encoder("static"), seed=0), folder)
    return folder


def tables(postgres, address):
    with postgres.connect(address) as to:
        columns = to.execute(
            "SELECT table_name, column_name, data_type, collation_name, is_nullable, is_identity "
            "FROM information_schema.columns WHERE table_schema = 'polypref' ORDER BY 1, 2"
        ).fetchall()
        indexes = to.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'polypref' ORDER BY 1").fetchall()
        return columns, indexes, to.execute("SELECT version FROM polypref.store").fetchall()


# --- opening


def test_an_older_store_is_migrated_a_newer_one_and_a_strangers_schema_are_refused(postgres, address, monkeypatch):
    monkeypatch.setattr(schema, "STEPS", STEPS[:1])
    first = Postgres(address)
    first.judge(ANN, pair("old")).result()
    first.close()
    later = Step(
        STEPS[-1].number + 1, "CREATE TABLE moods (tenant {text}, mood {bytes}); CREATE INDEX m ON moods (mood)"
    )
    monkeypatch.setattr(schema, "STEPS", (*STEPS, later))
    now = Postgres(address)
    assert [one.judgement for one in now.judgements(ANN)] == [pair("old")] and now.standing(ANN) == Standing(1, 1)
    now.close()
    new = postgres.database()
    Postgres(new).close()
    assert tables(postgres, address) == tables(postgres, new)
    monkeypatch.setattr(schema, "STEPS", STEPS)
    with pytest.raises(StoreError, match=f"version {later.number}; this polypref knows {STEPS[-1].number}"):
        Postgres(address)
    other = postgres.database()
    with postgres.connect(other) as to:
        to.execute("CREATE SCHEMA polypref")
        to.execute("CREATE TABLE polypref.judgements (mine text)")
    with pytest.raises(StoreError, match="of another program"):
        Postgres(other)


def test_ids_that_were_unique_in_a_tenant_are_so_for_a_person(address, monkeypatch):
    monkeypatch.setattr(schema, "STEPS", STEPS[:2])
    old = Postgres(address)
    for at in range(20):
        old.judge(ANN if at % 2 else BEN, pair(f"k{at}")).result()
    old.undo(ANN, "k19").result()
    before = old.everybodys(0, 100, 100), old.standing(ANN), old.standing(BEN)
    old.close()
    monkeypatch.setattr(schema, "STEPS", STEPS)
    now = Postgres(address)
    assert (now.everybodys(0, 100, 100), now.standing(ANN), now.standing(BEN)) == before and len(before[0]) == 19
    assert not now.judge(BEN, pair("k0")).result() and now.judge(ANN, pair("k0", "b", "a")).result()
    assert now.judgements(ANN)[-1].seq == 21 and len(now.made("", "k0")) == 2
    now.close()


def test_a_step_that_fails_changes_nothing(postgres, address, monkeypatch):
    Postgres(address).close()
    before = tables(postgres, address)
    wrong = Step(STEPS[-1].number + 1, "CREATE TABLE moods (mood {text}); CREATE TABLE people (tenant {text})")
    monkeypatch.setattr(schema, "STEPS", (*STEPS, wrong))
    with pytest.raises(StoreError, match="already exists"):
        Postgres(address)
    assert tables(postgres, address) == before


def test_many_processes_may_make_the_tables_at_once(address):
    made, failed = [], []

    def make():
        try:
            made.append(Postgres(address))
        except StoreError as error:
            failed.append(error)

    at_once = [threading.Thread(target=make) for _ in range(6)]
    for one in at_once:
        one.start()
    for one in at_once:
        one.join()
    assert not failed and len(made) == 6
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "setting, why",
    [("synchronous_commit = off", "synchronous_commit off"), ("default_transaction_read_only = on", "on")],
)
def test_a_database_that_could_lose_what_it_acknowledges_or_is_read_only_is_refused(postgres, address, setting, why):
    with postgres.connect() as to:
        to.execute(f"ALTER DATABASE {address.split('/')[3].split('?')[0]} SET {setting}")
    with pytest.raises(StoreError, match=why):
        Postgres(address)


def test_another_encoding_is_refused(postgres):
    with pytest.raises(StoreError, match="encoding LATIN1"):
        Postgres(postgres.database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"))


def test_no_password_is_told(postgres, capsys, tmp_path):
    assert Database("postgresql://ann:s3cret@db:5433/prefs").name == "postgresql://ann@db:5433/prefs"
    for wrong in (
        "postgresql://ann:s3cret@[::1/prefs",
        "postgresql://ann:s3cret@host/prefs?nonsense=1",
        f"postgresql://ann:s3cret@/absent?host={postgres.folder}",
        f"postgresql://ann:s3cret@/postgres?host={tmp_path}",
    ):
        with pytest.raises(StoreError) as refused:
            Postgres(wrong)
        assert "s3cret" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_database_that_cannot_be_reached_is_one_line(capsys, tmp_path, saved_scorer):
    found = main(["serve", str(saved_scorer), "--port", "0", "--store", f"postgresql://ann:s3cret@/d?host={tmp_path}"])
    said = capsys.readouterr()
    assert found == 2 and said.err.startswith("polypref: error: ") and said.err.count("\n") == 1
    assert "No such file" in said.err and "s3cret" not in said.err + said.out


# --- several servers


def test_an_id_is_stored_once_however_many_servers_get_it(address):
    """The same judgements, in another order, at four stores at once: each is new at one of them."""
    stores = [Postgres(address) for _ in range(4)]
    keys = [f"k{at}" for at in range(120)]
    futures = [
        [store.judge(Person("", f"u{hash(key) % 5}"), pair(key)) for key in (keys if at % 2 else keys[::-1])]
        for at, store in enumerate(stores)
    ]
    assert sum(one.result(timeout=60) for row in futures for one in row) == len(keys)
    people = stores[0].people("")
    assert sum(stores[0].standing(Person("", one)).judgements for one in people) == len(keys)
    versions = [stores[0].standing(Person("", one)).version for one in people]
    assert len(set(versions)) == len(versions) and max(versions) == len(keys)
    for store in stores:
        store.close()


def test_a_server_that_stops_within_its_turn_loses_it(address, store, monkeypatch):
    monkeypatch.setattr("polypref.serve.store.postgres.TURN_S", 1)
    stuck = Postgres(address)
    held = threading.Event()

    def work(to):
        to.execute("UPDATE changes SET number = number + 1000")
        held.set()
        time.sleep(3)

    lost = stuck.writer.submit(work)
    held.wait()
    assert store.judge(BEN, pair("waited")).result(timeout=10)  # whose lock_timeout is the usual one
    with pytest.raises(StoreError):
        lost.result(timeout=10)
    assert store.standing(BEN).version == 1  # nothing of the lost turn was kept
    assert stuck.judge(BEN, pair("again")).result(timeout=10)
    stuck.close()


def test_two_servers_know_the_same_and_one_that_is_killed_loses_nothing(address, saved_scorer):
    """Real processes: what one acknowledged the other's next answer knows; then one is killed while it is judged to."""
    (one, at_one), (two, at_two) = (started(saved_scorer, "--store", address) for _ in range(2))
    try:
        ask = {"query": "q", "documents": ["a short text", "another, longer text"], "user": "ann"}
        worst = httpx.post(f"{at_two}/rerank", json=ask, timeout=60).json()["results"][-1]["index"]
        body = {
            "user": "ann",
            "prompt": "q",
            "chosen": ask["documents"][worst],
            "rejected": ask["documents"][1 - worst],
        }
        for at in range(4):
            assert httpx.post(f"{at_one}/v1/feedback", json=body, timeout=60).json()["new"]
            found = httpx.post(f"{at_two}/rerank", json=ask, timeout=60).json()
            assert found["personalization"]["judgements"] == at + 1
        assert found["results"][0]["index"] == worst
        acknowledged: list[str] = []

        def load(own):
            with httpx.Client(base_url=at_one, timeout=60) as client:
                for at in range(10_000):
                    try:
                        told = client.post("/v1/feedback", json={**body, "user": own, "id": f"{own}-{at}"})
                    except httpx.TransportError:
                        return
                    if told.status_code == 200:
                        acknowledged.append(f"{own}-{at}")

        loads = [threading.Thread(target=load, args=(f"u{at}",)) for at in range(4)]
        for thread in loads:
            thread.start()
        while len(acknowledged) < 60:
            time.sleep(0.01)
        one.kill()
        for thread in loads:
            thread.join()
        kept = [
            row["id"]
            for at in range(4)
            for row in httpx.get(f"{at_two}/v1/users/u{at}/export", timeout=60).json()["judgements"]
        ]
        assert len(kept) == len(set(kept)) and set(acknowledged) <= set(kept)
    finally:
        one.kill()
        two.send_signal(signal.SIGTERM)
    assert two.wait(timeout=60) == 0


# --- restarts


def test_postgresql_restarted_is_a_503_and_then_as_before(postgres, store):
    with TestClient(app_of(Core(scorer(), "scorer-1", store))) as client:
        assert judge(client, "lea", "a", "b", key="k0").json()["new"]
        before = order(client, user="lea")
        postgres.stop()
        try:
            for refused in (judge(client, "lea", "a", "c", key="k1"), client.get("/v1/users/lea")):
                assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
                assert "the store postgresql://" in refused.json()["message"]
        finally:
            postgres.start()
        until = time.monotonic() + 5
        while client.get("/v1/users/lea").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert order(client, user="lea") == before
        assert judge(client, "lea", "a", "c", key="k1").json()["new"]  # nothing of it was kept before
        assert not judge(client, "lea", "a", "b", key="k0").json()["new"]


def test_restarted_under_load_loses_nothing_acknowledged(postgres, address, store):
    acknowledged, failed, ends = [], [], threading.Event()

    def load(own):
        at = 0
        while not ends.is_set():
            try:
                store.judge(Person("", own), pair(f"{own}-{at}")).result(timeout=60)
                acknowledged.append(f"{own}-{at}")
            except StoreError as error:
                failed.append(error)
                time.sleep(0.02)
            at += 1

    loads = [threading.Thread(target=load, args=(f"u{at}",)) for at in range(8)]
    for one in loads:
        one.start()
    for mode in ("fast", "immediate"):  # as an operator does, and as a crash
        time.sleep(0.3)
        postgres.stop(mode)
        postgres.start()
    until, many = time.monotonic() + 5, len(acknowledged)
    while len(acknowledged) < many + 20 and time.monotonic() < until:
        time.sleep(0.02)
    ends.set()
    for one in loads:
        one.join()
    assert failed and len(acknowledged) >= many + 20
    ids = [one.judgement.id for at in range(8) for one in store.judgements(Person("", f"u{at}"))]
    assert len(ids) == len(set(ids)) and set(acknowledged) <= set(ids)
    assert sum(store.standing(Person("", f"u{at}")).judgements for at in range(8)) == len(ids)


# --- leaving


def test_who_leaves_is_in_no_row_and_the_receipt_says_what_postgresql_keeps(postgres, address, store):
    own = [f"only Ann ever wrote sentence number {at} of these" for at in range(20)]
    for at, text in enumerate(own):
        store.judge(ANN, pair(f"a{at}", text, "a text that both have judged", comment=text)).result()
        store.judge(BEN, pair(f"b{at}", f"Ben's own text {at}", "a text that both have judged")).result()
    before = store.judgements(BEN)
    assert store.held([own[0], "nobody wrote this", "ann-the-first"]) == {own[0], "ann-the-first"}  # the control
    left = leave(ANN, store)
    assert left.rows == {"judgements": 20, "answers": 0, "people": 1} and not left.pending
    assert left.files == [] and left.stays.endswith(KEPT)
    assert store.held([*own, "ann-the-first"]) == set() and store.held([before[0].judgement.chosen])
    assert store.judgements(BEN) == before and store.people("") == ["ben"]
    with postgres.connect(address) as to:
        for table in schema.OF_A_PERSON:
            assert to.execute(f"SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = '{table}'").fetchone() == (
                0,
            )


def test_while_somebody_reads_an_older_state_the_receipt_says_pending(postgres, address, store, monkeypatch):
    monkeypatch.setattr("polypref.serve.store.postgres.LEAVE_S", 0.1)
    store.judge(ANN, pair("1", "a text of Ann's that is long enough")).result()
    reader = psycopg.connect(address)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM polypref.judgements")
    assert leave(ANN, store).pending
    reader.rollback()
    reader.close()
    assert not leave(ANN, store).pending


def test_a_table_that_somebody_holds_is_pending_and_no_failure(postgres, address, store, monkeypatch):
    monkeypatch.setattr("polypref.serve.store.postgres.LEAVE_S", 0.1)
    monkeypatch.setattr("polypref.serve.store.postgres.TURN_S", 1)
    store.judge(ANN, pair("1", "a text of Ann's that is long enough")).result()
    with psycopg.connect(address) as holds:
        holds.execute("LOCK TABLE polypref.answers IN SHARE UPDATE EXCLUSIVE MODE")
        left = leave(ANN, store)
        assert left.pending and left.rows["judgements"] == 1
    assert store.judgements(ANN) == [] and not leave(ANN, store).pending
