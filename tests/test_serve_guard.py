"""Around every request: limits with their statuses, an id, and a log that names nobody."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from polypref.errors import SettingsError
from polypref.serve.app import app_of
from polypref.serve.running.limits import Limits, Rates, TooMany, parse_limits
from polypref.serve.running.log import Log
from polypref.serve.store.contract import Person, StoreError
from polypref.serve.who.person import Key, Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, core, judge, order, running

ASK = {"query": PROMPT, "documents": TEXTS}


@contextmanager
def app(path, own=None, **more):
    served = core(path / "s.db", bounded=True, own=own)
    with TestClient(app_of(served, **more)) as found:
        yield found
    served.store.close()


@contextmanager
def connected(at):
    place = urlsplit(at)
    with socket.create_connection((place.hostname, place.port), timeout=20) as found:
        yield found


def everything(connection):
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


# --- limits


def test_what_is_too_large_is_refused_with_its_own_status(tmp_path):
    limits = Limits(body=2_000, url=300, headers=900)
    with app(tmp_path, limits=limits) as client:
        assert client.post("/rerank", json=ASK).status_code == 200
        assert client.post("/rerank", json={**ASK, "query": "x" * 2_000}).status_code == 413
        assert client.post(f"/u/{'x' * 400}/rerank", json=ASK).status_code == 414
        assert client.post(f"/rerank?{'x' * 400}", json=ASK).status_code == 414
        assert client.post("/rerank", json=ASK, headers={"x-more": "x" * 900}).status_code == 431
        huge = client.post("/rerank", content=b"", headers={"content-length": "9" * 40})
        assert huge.status_code == 413 and huge.json()["error"]["code"] == 413
        told = client.get("/metrics").text
        assert 'polypref_limit{limit="body"} 2000.0' in told
        for limit, many in (("body", 2), ("url", 2), ("headers", 1)):
            assert f'polypref_refused_total{{limit="{limit}"}} {many}.0' in told
        assert 'polypref_requests_total{route="none",status="413"} 2.0' in told


def test_more_than_a_person_or_a_tenant_may_ask_is_refused_until_later(tmp_path):
    with app(tmp_path, limits=Limits(person_rate=5)) as client:
        found = [client.post("/rerank", json={**ASK, "user": "ann"}) for _ in range(40)]
        late = [one for one in found if one.status_code == 429]
        assert 0 < len(late) <= 30 and {one.headers["retry-after"] for one in late} == {"1"}
        assert client.post("/rerank", json={**ASK, "user": "ben"}).status_code == 200
        assert client.post("/rerank", json=ASK).status_code == 200  # nobody is no person
        assert late[0].json()["error"]["type"] == "overloaded" and "ann" not in late[0].text
    rates = Rates(Limits(tenant_rate=2))
    for _ in range(4):
        rates.take(Person("t", "u"))
    with pytest.raises(TooMany) as refused:
        rates.take(Person("t", None))
    assert refused.value.after == 1
    rates.take(Person("other", None))


def test_an_allowance_grows_with_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr("polypref.serve.running.limits.time.monotonic", lambda: now)
    rates, many = Rates(Limits(person_rate=10)), 0
    for _ in range(200):
        now += 0.05  # asks 20 times a second, for ten seconds
        try:
            rates.take(Person("", "u"))
            many += 1
        except TooMany:
            pass
    assert 100 <= many <= 121


class Slow:
    """Rewards of 0 after a while."""

    serves, kind, selection = "population", "slow", {}

    def __init__(self, inner):
        self.inner = inner

    def score(self, responses, user_ids, response_Q=None):
        time.sleep(0.3)
        return self.inner.score(responses, user_ids, response_Q)


def test_more_at_once_than_allowed_is_refused_and_health_is_not(tmp_path):
    from serve_cases import scorer

    served = core(tmp_path / "s.db", own=Slow(scorer()))
    with running(served, limits=Limits(concurrent=3)) as at, ThreadPoolExecutor(12) as many:
        asked = [many.submit(httpx.post, f"{at}/rerank", json=ASK, timeout=60) for _ in range(12)]
        time.sleep(0.2)
        assert httpx.get(f"{at}/health/live").status_code == 200
        found = [one.result() for one in asked]
        assert {one.status_code for one in found} == {200, 429}
        assert all(one.headers["retry-after"] for one in found if one.status_code == 429)
        assert httpx.post(f"{at}/rerank", json=ASK, timeout=60).status_code == 200  # nothing is held for ever
        assert "polypref_requests_in_hand 0.0" in httpx.get(f"{at}/metrics").text


def test_clients_that_are_slow_for_ever_are_cut_off(tmp_path):
    with running(core(tmp_path / "s.db"), limits=Limits(read_seconds=1)) as at:
        with connected(at) as silent, connected(at) as heads, connected(at) as body, connected(at) as chunks:
            heads.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\n")
            body.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            chunks.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
            begun = time.monotonic()
            for _ in range(12):  # a byte now and then does not help
                time.sleep(0.15)
                for one, piece in ((heads, b"X"), (chunks, b"1\r\n \r\n")):
                    try:
                        one.sendall(piece)
                    except OSError:
                        break
            for one in (body, chunks):
                assert b" 408 " in everything_or_reset(one)[:30]
            assert everything_or_reset(silent) == b"" and everything_or_reset(heads) == b""
            assert time.monotonic() - begun < 10
        assert httpx.post(f"{at}/rerank", json=ASK, timeout=60).status_code == 200


def everything_or_reset(connection):
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    "words", [["body"], ["bodies=3"], ["body=0"], ["body=-1"], ["concurrent=1e3"], ["url=" + "9" * 30]]
)
def test_impossible_limits_are_refused(words):
    with pytest.raises(SettingsError, match="--request-limits"):
        parse_limits(words)
    assert parse_limits(["person_rate=0", "body=5"]) == Limits(body=5)


# --- bodies


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"query": "q", "documents": ["a"], "user": "ann", "user": "ben"}', "occurs twice"),
        (b'{"query": "q", "documents": ["a"], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "levels"),
        (b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 6000 + b"}", "huge number"),
        (b'{"query": "q", "documents": ["a"], "x": 1e999}', "too large"),
        (b'{"query": "q", "documents": ["a"], "x": NaN}', "no number"),
        (b'{"query": "q", "documents": ["\\ud800"]}', "UTF-8"),
        (b'{"query": "q", "documents": ["\xff"]}', "UTF-8"),
        (b'{"query": "q", "documents": ["a"]', "no JSON"),
        (b"", "required"),
    ],
)
def test_bodies_that_say_two_things_or_none_are_refused(tmp_path, content, says):
    with app(tmp_path) as client:
        found = client.post("/rerank", content=content, headers={"content-type": "application/json"})
        assert found.status_code == 400 and says in found.json()["message"], found.text
        assert "\n" not in found.json()["message"]


def test_other_kinds_of_content_and_methods_are_refused(tmp_path):
    with app(tmp_path) as client:
        for kind in (
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/json; charset=\xff",
        ):
            found = client.post("/rerank", content=b"<a/>", headers={"content-type": kind.encode("latin-1")})
            assert found.status_code == 400, kind
        assert client.get("/rerank").status_code == 405 and client.get("/nothing").status_code == 404
        assert client.get("/nothing").json()["error"]["code"] == 404


# --- the log


def test_nothing_that_anybody_wrote_is_in_the_log_or_the_metrics(tmp_path):
    names = ["ann@example.org", 'bea\n{"at": 1}', "\u202ecarl", "dora/../x"]
    secret, log = "the key of acme, which is long", Log(tmp_path / "log.jsonl")
    from hashlib import sha256
    from urllib.parse import quote

    keys = Keys({sha256(secret.encode()).hexdigest(): Key("acme-tenant")})
    with app(tmp_path, keys=keys, log=log) as client:
        client.headers["authorization"] = f"Bearer {secret}"
        for name in names:
            order(client, user=name)
            order(client, path=quote(name, safe=""))
            judge(client, name, "a xyzzy by somebody", "another xyzzy by somebody", key=f"idempotent-{quote(name)}")
            client.get(f"/u/{quote(name, safe='')}/v1/users/me")
            client.get(f"/u/{quote(name, safe='')}/v1/users/me/export?note=a+xyzzy+in")
        client.post("/rerank", json={"query": "q", "documents": ["a", UNSAFE]})
        client.request("XYZZY", "/rerank")
        client.get("/xyzzy")
        client.post("/rerank", json=ASK, headers={"authorization": "Bearer a-wrong-key-of-somebody"})
        client.post("/rerank", json=ASK, headers={"x-request-id": "a xyzzy id"})
        client.post("/rerank", content=b"xyzzy")
        metrics = client.get("/metrics").text
    log.close()
    lines = (tmp_path / "log.jsonl").read_bytes()
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o077 == 0
    for kept in (lines.decode(), metrics):
        words = ("somebody", "xyzzy", "XYZZY", secret, "idempotent", "acme", TEXTS[0], PROMPT)
        for wrote in (*names, *map(quote, names), *words):
            assert wrote not in kept, wrote
    told = [json.loads(line) for line in lines.splitlines()]
    assert len(told) == 5 * len(names) + 7
    named = "at request method route dialect status seconds person source blocked"
    assert set(told[0]) == set(named.split())
    assert [one["route"] for one in told[:3]] == ["/rerank", "/u/{user}/rerank", "/v1/feedback"]
    people = [{one["person"] for one in told[5 * at : 5 * at + 5]} for at in range(len(names))]
    assert all(len(one) == 1 for one in people) and len(set.union(*people)) == len(names)
    assert told[-7]["blocked"] == 1 and "person" not in told[-7]
    assert [one["status"] for one in told[-6:]] == [405, 404, 401, 200, 400, 200]
    assert told[-6]["method"] == "other" and told[-5]["route"] == "none"
    again = Log(tmp_path / "other.jsonl")
    assert again.person(Person("acme-tenant", names[0])) not in people[0]  # the hash is of one run
    again.close()


class Breaks:
    """Fails, and its message quotes a text."""

    serves, kind, selection = "population", "breaks", {}

    def score(self, responses, user_ids, response_Q=None):
        raise RuntimeError(f"cannot read {responses.texts_R[0]}")


def test_a_failure_is_one_line_with_its_place_and_without_its_words(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    with app(tmp_path, own=Breaks(), log=log) as client:
        found = client.post("/rerank", json={"query": "q", "texts": ["a private text"]})
        assert found.status_code == 503 and found.json()["error_type"] == "unhealthy"
        assert "RuntimeError" in found.text and "private" not in found.text
        health = client.get("/health")
        assert health.status_code == 503 and health.json() == {"status": "DOWN", "failing": ["encoder"]}
        assert client.get("/health/live").status_code == 200
        client.app.state.rates = None  # a mistake of ours
        assert client.post("/rerank", json=ASK).status_code == 500
    log.close()
    lines = (tmp_path / "log.jsonl").read_text()
    assert "private" not in lines
    assert "RuntimeError test_serve_guard.py:" in json.loads(lines.splitlines()[0])["failed"]
    assert json.loads(lines.splitlines()[-1])["failed"].startswith("AttributeError requests.py:")


def test_every_answer_has_an_id_of_the_servers_own(tmp_path):
    with app(tmp_path, limits=Limits(body=500)) as client:
        given = [
            client.post("/rerank", json=body, headers={"x-request-id": "mine"}).headers.get_list("x-request-id")
            for body in (ASK, {}, {**ASK, "query": "x" * 500})
        ]
        given += [client.get(path).headers.get_list("x-request-id") for path in ("/nothing", "/health", "/metrics")]
        assert all(len(one) == 1 and len(one[0]) == 32 for one in given) and len({one[0] for one in given}) == 6


def test_a_log_that_cannot_be_written_stops_no_request_and_is_counted(tmp_path, monkeypatch):
    log = Log(tmp_path / "log.jsonl")
    monkeypatch.setattr("polypref.serve.running.log.os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with app(tmp_path, log=log) as client:
        assert client.post("/rerank", json=ASK).status_code == 200
        for _ in range(100):
            if log.lost:
                break
            time.sleep(0.02)
        assert client.get("/health").status_code == 200
        assert "polypref_log_lines_lost 0.0" not in client.get("/metrics").text
    log.close()
    for wrong in (tmp_path, tmp_path / "absent" / "log"):
        with pytest.raises(SettingsError, match="--log"):
            Log(wrong)


# --- health


def test_health_says_when_the_store_fails(tmp_path):
    with app(tmp_path) as client:
        assert client.get("/health").status_code == 200
        client.app.state.core.store.close()
        found = client.get("/health")
        assert found.status_code == 503 and found.json()["failing"] == ["store"]
        assert client.get("/health/live").json() == {"status": "UP"}
        with pytest.raises(StoreError):
            client.app.state.core.store.undo(Person("/", "nobody"), "nothing").result()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "\N{LATIN SMALL LETTER A WITH DIAERESIS}"])
def test_a_page_of_another_site_changes_nothing_without_a_key(tmp_path, site):
    served = core(tmp_path / "s.db")
    with TestClient(app_of(served)) as client:
        pause, other = "/v1/users/ann/pause?paused=true", {"sec-fetch-site": site.encode()}
        refused = client.post(pause, headers=other)
        assert refused.status_code == 403 and "another site" in refused.json()["message"]
        assert not client.get("/v1/users/ann").json()["paused"]
        assert client.get("/v1/users/ann", headers=other).status_code == 200, "which it cannot read"
        assert client.post(pause, headers={"sec-fetch-site": "same-origin"}).status_code == 200
        assert client.post(pause, headers=other | {"authorization": "Bearer x"}).status_code == 200
        assert client.get("/v1/users/ann").json()["paused"]
