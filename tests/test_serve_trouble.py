"""A store in trouble: a full disk, a read-only file, a failing writer; what was not kept is never acknowledged."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from polypref.serve.app import app_of
from polypref.serve.store.contract import StoreError
from polypref.serve.store.sqlite import Sqlite
from serve_cases import PROMPT, TEXTS, core, judge

NOBODY = 65534


@pytest.fixture
def served(tmp_path):
    found = core(tmp_path / "s.db")
    yield found
    found.store.close()


@pytest.fixture
def client(served):
    with TestClient(app_of(served)) as found:
        yield found


def pages(store, most=None):
    """Let the file grow no further than it is; or to ``most`` pages."""
    if most is None:
        most = store.writer.submit(lambda to: to.execute("PRAGMA page_count").fetchone()[0]).result()
    store.writer.submit(lambda to: to.execute(f"PRAGMA max_page_count = {most}"), alone=True).result()


def not_stored(client):
    lines = client.get("/metrics").text.splitlines()
    return [float(line.split()[1]) for line in lines if line.startswith("polypref_answers_not_stored_total")]


def test_on_a_full_disk_nothing_is_acknowledged_and_answers_say_that_they_cannot_be_judged(
    client, served, capfd, monkeypatch
):
    monkeypatch.setattr("polypref.serve.routes.feedback.WAIT_S", 0.1)
    assert judge(client, "lea", "a", "b", key="before").json()["new"]
    assert not_stored(client) == [0.0]
    pages(served.store)
    refused = judge(client, "lea", "x" * 50_000, "b", key="large")
    assert refused.status_code == 503 and "full" in refused.json()["message"] and refused.headers["retry-after"] == "1"
    long = [text + " long" * 3000 for text in TEXTS]
    for _ in range(3):
        found = client.post("/rerank", json={"query": PROMPT, "documents": long, "user": "lea"})
        assert found.status_code == 200
    told = capfd.readouterr().err
    assert told.count("answers are given and not stored") == 1 and "full" in told
    assert not_stored(client) == [3.0]
    body = {"user": "lea", "request": found.json()["id"], "chosen": 0, "rejected": 1}
    unknown = client.post("/v1/feedback", json=body)
    assert unknown.status_code == 400 and "no answer" in unknown.json()["message"]
    assert [one["id"] for one in client.get("/v1/users/lea/export").json()["judgements"]] == ["before"]
    pages(served.store, 1_000_000)
    assert judge(client, "lea", "x" * 50_000, "b", key="large").json()["new"]
    found = client.post("/rerank", json={"query": PROMPT, "documents": long, "user": "lea"})
    assert client.post("/v1/feedback", json=body | {"request": found.json()["id"]}).json()["new"]
    assert not_stored(client) == [3.0]


@pytest.fixture
def readable():
    """A folder that its owner may write to, and others read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_that_cannot_be_written_to_is_refused(readable):
    Sqlite(readable / "s.db").close()
    for path in readable.iterdir():
        path.chmod(0o444)
    if os.geteuid() != 0:
        readable.chmod(0o555)
    else:  # who may write anywhere: be somebody else for a moment
        os.seteuid(NOBODY)
    try:
        with pytest.raises(StoreError, match=r"s\.db.*(readonly|unable to open|attempt to write)"):
            Sqlite(readable / "s.db")
    finally:
        readable.chmod(0o755) if os.getuid() else os.seteuid(0)
        for path in readable.iterdir():
            path.chmod(0o644)
    Sqlite(readable / "s.db").close()  # and is as it was


def test_a_full_writer_says_so_instead_of_waiting(served, monkeypatch):
    monkeypatch.setattr("polypref.serve.store.writer.MOST_WAITING", 0)
    with TestClient(app_of(served)) as client:
        refused = judge(client, "lea", "a", "b")
        assert refused.status_code == 503 and "too slow" in refused.json()["message"]
