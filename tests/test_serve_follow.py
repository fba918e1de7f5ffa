"""Servers follow the scorer that the store names: under load, several on one file; one that was changed is refused."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

import polypref
from polypref import artifact, scorers
from polypref.cli import main
from polypref.errors import ArtifactError
from polypref.learners.hierarchical import Hierarchical
from polypref.serve.refitting.folders import Folders, beside
from polypref.serve.store.contract import InForceRow
from polypref.serve.store.sqlite import Sqlite
from polypref.worlds import simulate
from serve_cases import started

TEXTS = ["a short text", "another, longer text", "a third one with several more words in it"]
ASK = {"query": "q", "documents": TEXTS, "user": "ann"}
SOON_S = 30


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    folder = tmp_path_factory.mktemp("saved")
    fitted = Hierarchical(steps=3).fit(world, encoder=polypref.encoder("static"), seed=0)
    polypref.save(fitted, folder / "first")
    strangers = fitted.strangers and replace(fitted.strangers, weights_K=-fitted.strangers.weights_K)
    polypref.save(replace(fitted, population_K=-fitted.population_K, strangers=strangers), folder / "second")
    return folder


def start(*arguments):
    """A server that has answered once."""
    run, address = started(*arguments)
    httpx.get(f"{address}/health", timeout=60)
    return run, address


def stop(*runs):
    for run in runs:
        run.send_signal(signal.SIGTERM)
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), said
    return said


def until(found, wanted):
    end = time.monotonic() + SOON_S
    while (value := found()) != wanted:
        assert time.monotonic() < end, value
        time.sleep(0.05)


def put(store, folder, why="refit"):
    """Put a folder's scorer in force, as ``polypref refit`` does; returns its hash."""
    digest = Folders(beside(store)).add(folder)
    opened = Sqlite(store)
    opened.put_in_force(InForceRow(hash=digest, why=why, before=opened.in_force())).result()
    opened.close()
    return digest


class Asks(threading.Thread):
    """Asks without a pause, and keeps who answered."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stops, self.found, self.failed = address, threading.Event(), [], []
        self.start()

    def run(self):
        with httpx.Client(timeout=60) as client:
            while not self.stops.is_set():
                answer = client.post(f"{self.address}/rerank", json=ASK)
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    continue
                order = [one["index"] for one in answer.json()["results"]]
                self.found.append((answer.json()["personalization"]["scorer"], order))


def test_two_servers_of_one_store_follow_under_load_and_no_request_fails(saved, tmp_path):
    store = tmp_path / "s.db"
    first = artifact.digest_of(saved / "first", scorers.KIND)
    one, at_one = start(saved / "first", "--store", store)
    two, at_two = start(saved / "first", "--store", store)
    asking = [Asks(at_one), Asks(at_two)]
    until(lambda: all(len(one.found) > 20 for one in asking), True)
    second = put(store, saved / "second")
    for at in (at_one, at_two):
        until(lambda at=at: httpx.get(f"{at}/health").json()["scorer"], second)
    more = [len(one.found) + 20 for one in asking]
    until(lambda: all(len(one.found) > many for one, many in zip(asking, more, strict=True)), True)
    for one_of in asking:
        one_of.stops.set()
        one_of.join()
        answered = [digest for digest, _ in one_of.found]
        assert not one_of.failed
        assert answered == [first] * answered.count(first) + [second] * answered.count(second)  # it changes once
        orders = dict(one_of.found)
        assert orders[first] == orders[second][::-1]
        assert all(order == orders[digest] for digest, order in one_of.found)
    stop(one, two)
    again, at = start(saved / "first", "--store", store)  # the folder on the command line was replaced
    assert httpx.get(f"{at}/health").json()["scorer"] == second
    assert "took the place of" in stop(again)[0]


def test_a_folder_that_was_changed_is_refused_and_the_old_scorer_stays(saved, tmp_path):
    store = tmp_path / "s.db"
    run, at = start(saved / "first", "--store", store)
    first = httpx.get(f"{at}/health").json()["scorer"]
    before = httpx.post(f"{at}/rerank", json=ASK, timeout=60).json()["results"]
    folder = beside(store) / artifact.digest_of(saved / "second", scorers.KIND)
    Folders(beside(store)).add(saved / "second")
    arrays = next(folder.glob("arrays-*"))
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    put(store, saved / "second")
    until(lambda: "refused" in httpx.get(f"{at}/health").json(), True)
    health = httpx.get(f"{at}/health").json()
    assert health["scorer"] == first and "changed after they were saved" in health["refused"]
    assert httpx.post(f"{at}/rerank", json=ASK, timeout=60).json()["results"] == before
    (said,) = stop(run)
    assert said.count("is not put in force") == 1


def test_a_start_with_a_changed_folder_in_force_is_refused_in_one_line(saved, tmp_path, capsys):
    store = tmp_path / "s.db"
    run, _ = start(saved / "first", "--store", store)
    stop(run)
    folder = beside(store) / put(store, saved / "second")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["scorer"] = "pooled"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["serve", str(saved / "first"), "--store", str(store), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "manifest.json was changed after it was saved" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["../../etc", "", "a" * 63, "A" * 64, f"{'a' * 64}/..", "refit"])
def test_a_name_in_the_store_is_no_path(tmp_path, name):
    with pytest.raises(ArtifactError, match="is no hash"):
        Folders(tmp_path).at(name)


def test_a_folder_with_another_scorers_name_is_refused(saved, tmp_path):
    folders = Folders(tmp_path / "s")
    digest = folders.add(saved / "first")
    assert folders.add(saved / "first") == digest and folders.hashes() == [digest]
    other = artifact.digest_of(saved / "second", scorers.KIND)
    Path(folders.at(digest)).rename(folders.at(other))
    with pytest.raises(ArtifactError, match="its hash is"):
        folders.load(other)
    with pytest.raises(ArtifactError):
        folders.load(digest)


def test_copies_answer_as_the_original(saved, tmp_path):
    copy = Folders(tmp_path / "s")
    digest = copy.add(saved / "first")
    one, other = polypref.load(saved / "first"), copy.load(digest)
    found = [[scorer.reward("u0", "q", text) for text in TEXTS] for scorer in (one, other)]
    assert np.array_equal(*found)
