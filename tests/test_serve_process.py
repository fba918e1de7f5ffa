"""Processes of ``polypref serve``: stopped in order or at once, killed, several on one socket; nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

import polypref
from polypref.learners.hierarchical import Hierarchical
from polypref.serve.store.contract import Person
from polypref.serve.store.sqlite import Sqlite
from polypref.worlds import simulate

ASK = {"query": "q", "documents": ["a short text", "another, longer text"], "user": "ann"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    world = simulate("two-tastes", users=8, judgements=20, judges=4).comparisons
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    polypref.save(Hierarchical(steps=3).fit(world, encoder=polypref.encoder("static"), seed=0), folder)
    return folder


@contextmanager
def started(*arguments):
    command = [sys.executable, "-m", "polypref", "serve", *map(str, arguments), "--port", "0"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        told = []
        for line in run.stdout:
            told.append(line)
            if line.startswith("listening on "):
                break
        else:
            raise AssertionError(run.communicate()[1])
        yield run, line.split()[-1], told
    finally:
        run.kill()
        run.communicate()


def feedback(key, user="ann"):
    return {"user": user, "prompt": "q", "chosen": f"chosen {key}", "rejected": f"rejected {key}", "id": key}


@contextmanager
def half_sent(at):
    """A connection with the first half of a request, and what completes it."""
    place, body = urlsplit(at), json.dumps(feedback("in-hand")).encode()
    head = "POST /v1/feedback HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((place.hostname, place.port), timeout=30) as found:
        found.sendall(head.encode() + body[:20])
        time.sleep(0.3)
        yield found, body[20:]


def kept(path, user="ann"):
    store = Sqlite(path)
    found = [one.judgement.id for one in store.judgements(Person("", user))]
    store.close()
    return found


def test_stopped_it_answers_what_is_in_hand_and_keeps_what_it_acknowledged(saved, tmp_path):
    acknowledged, stop = [], threading.Event()

    def judges(number):
        for at in range(10_000):
            key = f"{number}-{at}"
            try:
                found = httpx.post(f"{at_}/v1/feedback", json=feedback(key), timeout=30)
            except httpx.TransportError:
                return
            if found.status_code == 200:
                acknowledged.append(key)
            if stop.is_set():
                return

    with (
        started(saved, "--store", tmp_path / "s.db", "--log", tmp_path / "log") as (run, at_, _),
        half_sent(at_) as (
            late,
            rest,
        ),
    ):
        many = [threading.Thread(target=judges, args=(number,)) for number in range(4)]
        for one in many:
            one.start()
        for _ in range(1000):
            if len(acknowledged) > 10:
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        late.sendall(rest)
        assert b"200 OK" in late.recv(65536)[:20]
        assert run.wait(timeout=60) == 0
        stop.set()
        for one in many:
            one.join()
    found = kept(tmp_path / "s.db")
    assert len(found) == len(set(found)) and len(acknowledged) > 10
    assert set(found) >= {*acknowledged, "in-hand"}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(one["status"] == 200 for one in lines) >= len(acknowledged) + 1


def test_the_second_signal_ends_at_once(saved, tmp_path):
    with started(saved, "--store", tmp_path / "s.db") as (run, at, _), half_sent(at):
        assert httpx.post(f"{at}/v1/feedback", json=feedback("1"), timeout=30).status_code == 200
        run.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert run.poll() is None  # it waits for the half-sent request
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=3) == -signal.SIGTERM
    assert kept(tmp_path / "s.db") == ["1"]


def test_workers_share_what_people_said_and_are_started_again(saved, tmp_path):
    with started(saved, "--store", tmp_path / "s.db", "--workers", "2", "--log", tmp_path / "log") as (run, at, told):
        assert any("2 workers, each with" in line for line in told)
        ours = [one for one in psutil.Process(run.pid).children() if "resource_tracker" not in " ".join(one.cmdline())]
        assert len(ours) == 2
        for round_, (answers, sleeps) in enumerate((ours, ours[::-1])):  # what one acknowledged the other knows
            sleeps.suspend()
            assert httpx.post(f"{at}/v1/feedback", json=feedback(str(round_)), timeout=30).status_code == 200
            sleeps.resume()
            answers.suspend()
            found = httpx.post(f"{at}/rerank", json=ASK, timeout=30).json()["personalization"]
            assert (found["judgements"], found["source"]) == (round_ + 1, "personal")
            answers.resume()
        assert 'polypref_judgements_total{kind="pair",seen="new"} 2.0' in httpx.get(f"{at}/metrics").text
        os.kill(ours[0].pid, signal.SIGKILL)
        for _ in range(200):
            now = {one.pid for one in psutil.Process(run.pid).children()} - {one.pid for one in ours}
            if len(now) >= 2:  # the new one, beside Python's resource tracker
                break
            time.sleep(0.05)
        for at_once in range(10):
            assert httpx.post(f"{at}/v1/feedback", json=feedback(f"more {at_once}"), timeout=30).status_code == 200
        told = httpx.get(f"{at}/metrics", timeout=30).text  # counts of the dead one stay
        assert 'polypref_judgements_total{kind="pair",seen="new"} 12.0' in told
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=60) == 0
        more, notes = run.communicate()
        assert "is started again" in notes and more == "stopped\n"  # what is in force is said once
    assert len(kept(tmp_path / "s.db")) == 12
    people = {json.loads(line).get("person") for line in (tmp_path / "log").read_text().splitlines()} - {None}
    assert len(people) == 1  # one hash in all workers


def test_workers_end_with_the_first_process(saved, tmp_path):
    with started(saved, "--store", tmp_path / "s.db", "--workers", "2") as (run, at, _):
        ours = psutil.Process(run.pid).children()
        run.kill()
        gone, alive = psutil.wait_procs(ours, timeout=20)
        assert not alive, gone
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{at}/health/live", timeout=5)


def test_workers_that_cannot_start_say_why_once(saved, tmp_path):
    (tmp_path / "text.db").write_text("this is no store " * 200)
    command = [sys.executable, "-m", "polypref", "serve", str(saved), "--port", "0", "--workers", "2"]
    run = subprocess.run([*command, "--store", str(tmp_path / "text.db")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "not a database" in run.stderr and run.stderr.count("\n") == 1, run.stderr
