"""The endpoint encoder against a real HTTP server."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import pytest

from polypref.comparisons import Responses
from polypref.errors import EncoderError, SettingsError
from polypref.features import encoder
from polypref.features.endpoint import Endpoint
from polypref.http import Server as Asked

Answer = tuple[int, dict[str, str], bytes]


def vector(text: str) -> list[float]:
    return np.random.default_rng(crc32(text.encode())).normal(size=6).round(4).tolist()


def well_formed(body: dict[str, Any]) -> Answer:
    data = [{"index": i, "embedding": vector(text), "object": "embedding"} for i, text in enumerate(body["input"])]
    return 200, {}, json.dumps({"object": "list", "data": data[::-1], "model": body.get("model")}).encode()


@dataclass
class Server:
    """Remembers requests; gives the planned answers first, then well-formed ones."""

    url: str = ""
    planned: list[Answer | Callable[[dict[str, Any]], Answer]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            state.paths.append(self.path)
            state.keys.append(self.headers.get("Authorization"))
            answer = state.planned.pop(0) if state.planned else well_formed
            status, headers, content = answer(body) if callable(answer) else answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:  # where a followed redirect would arrive
            state.paths.append(f"GET {self.path}")
            state.keys.append(self.headers.get("Authorization"))
            self.send_error(404)

        def log_message(self, format: str, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYPREF_API_KEY", raising=False)


TEXTS = ["one", "", "three three three", "two two", "\U0001f600"]


def pool_of(texts: list[str]) -> Responses:
    return Responses(pl.Series(["Why?"]), np.zeros(len(texts), np.int32), pl.Series(texts, dtype=pl.String))


def quick(server: Server, **settings: Any) -> Any:
    return encoder(f"endpoint:{server.url}#a-model", pause=0.01, **settings)


def test_vectors_come_in_batches_in_the_pools_order_and_only_once(server: Server) -> None:
    made = quick(server, batch_size=2)
    features = made.encode(pool_of(TEXTS))
    np.testing.assert_allclose(features, np.array([vector(text or " ") for text in TEXTS], np.float32))
    assert [len(body["input"]) for body in server.bodies] == [2, 2, 1]
    assert {body["model"] for body in server.bodies} == {"a-model"}
    assert set(server.paths) == {"/v1/embeddings"}
    made.encode(pool_of(TEXTS[::-1]))
    assert len(server.bodies) == 3


def test_the_prompt_is_sent_only_when_asked(server: Server) -> None:
    quick(server, text="joint").encode(pool_of(["Because."]))
    assert server.bodies[0]["input"] == ["Why?\n\nBecause."]


def test_a_busy_server_is_asked_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.planned = [(429, {"Retry-After": "0"}, b"slow down"), (503, {}, b""), (500, {}, b"oops")]
    features = quick(server).encode(pool_of(TEXTS))
    assert features.shape == (5, 6)
    assert len(server.bodies) == 4
    lines = capsys.readouterr().err.splitlines()
    assert "HTTP 429 Too Many Requests: 'slow down'; trying again in 0.01 s" in lines[0]
    assert lines[2].endswith("trying again in 0.04 s")


def refusal(made: Any, match: str) -> str:
    with pytest.raises(EncoderError, match=match) as caught:
        made.encode(pool_of(TEXTS))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_keeps_failing_is_one_line_and_what_came_before_stays(server: Server) -> None:
    server.planned = [well_formed, *[(500, {}, b"")] * 3]
    refusal(quick(server, batch_size=2, retries=2), "gives no answer in 3 tries .HTTP 500")
    server.bodies.clear()
    quick(server, batch_size=2).encode(pool_of(TEXTS))
    assert [len(body["input"]) for body in server.bodies] == [2, 1]


def test_a_dead_server_is_one_line(server: Server) -> None:
    made = encoder("endpoint:http://127.0.0.1:9/v1", pause=0.01, retries=1)
    refusal(made, r"http://127\.0\.0\.1:9/v1/embeddings gives no answer in 2 tries .*is the server running")


def test_a_server_that_hangs_is_one_line(server: Server) -> None:
    release = threading.Event()

    def hang(body: dict[str, Any]) -> Answer:
        release.wait(10)
        return well_formed(body)

    server.planned = [hang]
    refusal(quick(server, timeout=0.2, retries=0), "gives no answer in 1 tries .*timed out")
    release.set()


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "POLYPREF_API_KEY to a valid key"), (404, "the model's name"), (400, "length limit")]
)
def test_a_refusal_is_not_tried_again(server: Server, status: int, advice: str) -> None:
    server.planned = [(status, {}, b'{"error": "no"}')]
    refusal(quick(server), rf"refuses the request .HTTP {status} .*{advice}")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<html>hello</html>", "<html>hello"),
        (b"[1, 2]", "1, 2"),
        (b'{"data": {"a": 1}}', "data"),
        (b'{"data": [{"embedding": "AAAA"}]}', "AAAA"),
        (b'{"data": [{"embedding": [1, 2]}]}', "1 vectors for 5 texts"),
        (b'{"data": []}', "0 vectors for 5 texts"),
        (b"\xff\xfe\x00", "found"),
        (json.dumps({"data": [{"embedding": [1.0] * (1 + i % 2)} for i in range(5)]}).encode(), "embedding"),
        (json.dumps({"data": [{"embedding": []} for _ in range(5)]}).encode(), "vectors of no numbers"),
    ],
)
def test_a_malformed_answer_is_one_line(server: Server, content: bytes, found: str) -> None:
    server.planned = [(200, {}, content)]
    refusal(quick(server), f"does not answer in the form of OpenAI's.*{found}")


def test_a_null_in_a_vector_names_the_text(server: Server) -> None:
    content = json.dumps({"data": [{"embedding": [1.0, None if i == 1 else 2.0]} for i in range(5)]}).encode()
    server.planned = [(200, {}, content)]
    refusal(quick(server), "NaN or infinite features for the response 'two two'")


def test_vectors_of_changing_length_are_refused(server: Server) -> None:
    server.planned = [well_formed, (200, {}, json.dumps({"data": [{"embedding": [1, 2]}] * 2}).encode())]
    refusal(quick(server, batch_size=2), "vectors of 2 numbers after vectors of 6")


def test_the_key_is_sent_and_appears_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYPREF_API_KEY", "secret-key-123 ")
    made = quick(server)
    server.planned = [(429, {}, b"secret-key-123 is over its limit")]
    made.encode(pool_of(TEXTS))
    assert server.keys == ["Bearer secret-key-123"] * 2
    server.planned = [(401, {}, b"wrong key secret-key-123")]
    line = refusal(quick(server, text="joint"), "wrong key ")
    files = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    for shown in (line, repr(made), made.identity, made.name, capsys.readouterr().err, files.decode("latin-1")):
        assert shown
        assert "secret-key" not in shown


def test_a_key_that_cannot_be_one_is_refused_unseen(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_API_KEY", "bad\nkey")
    with pytest.raises(SettingsError, match="POLYPREF_API_KEY contains characters that no API key has") as caught:
        quick(server).encode(pool_of(TEXTS))
    assert "bad" not in str(caught.value)


def test_a_redirect_is_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_API_KEY", "k")
    server.planned = [(302, {"Location": f"{server.url}/elsewhere"}, b"")]
    refusal(quick(server), "redirects to .*/elsewhere")
    assert server.paths == ["/v1/embeddings"]


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:80", "ftp://x/v1", "http://", "http://user:pw@host/v1", "http://host/v1?key=x"),
        *("http://[::1/v1", "http://h:x/v1", "http://h/\x1b[2J", "http://h/\u202e", "http://h /v1"),
    ],
)
def test_addresses_that_cannot_work_are_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(SettingsError, match="endpoint") as caught:
        Endpoint(url)
    assert "pw" not in str(caught.value)
    assert "key=x" not in str(caught.value)


def test_identity_is_the_address_and_the_model() -> None:
    one, other = Endpoint("http://h/v1#m"), Endpoint("http://h/v1#n")
    assert one.identity != other.identity
    assert one.identity == Endpoint("http://h/v1/embeddings#m", batch_size=3, timeout=1).identity


def test_a_connection_is_used_again() -> None:
    """Twenty requests, one connection: a server that speaks HTTP/1.1 counts who connects."""
    peers = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            peers.add(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        asked = Asked(f"http://127.0.0.1:{http.server_port}/v1")
        assert [asked.post({}) for _ in range(20)] == [b"{}"] * 20
        http.shutdown()
    assert len(peers) == 1


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b" " * 65536)


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)


def packed(connection: socket.socket) -> None:
    content = gzip.compress(bytes(3 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)


def no_http(connection: socket.socket) -> None:
    connection.sendall(b"\x1b[2J\xff\xfe no http\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (endless, "answers with more than 1 MiB"),
        (packed, "answers with more than 1 MiB"),
        (dripping, "timed out"),
        (no_http, "gives no answer in 1 tries"),
    ],
)
def test_an_answer_is_bounded_in_size_and_time(answer, said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polypref.http.LARGEST_ANSWER", 1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        asked = Asked(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", timeout=0.5, retries=0)
        started = time.monotonic()
        with pytest.raises(EncoderError, match=said):
            asked.post({})
        assert time.monotonic() - started < 10
        thread.join(5)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"data": [{"embedding": [1' + b"0" * 500 + b"]}]}"])
def test_json_that_cannot_be_held_is_malformed(server: Server, content: bytes) -> None:
    server.planned = [(200, {}, content)]
    refusal(quick(server), "does not answer in the form of OpenAI's")


@pytest.mark.parametrize("asked_for", ["0", "\u00b2", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_strange_retry_after_is_no_pause(server: Server, asked_for: str) -> None:
    server.planned = [(503, {"Retry-After": asked_for}, b"")]
    quick(server).encode(pool_of(["one"]))
    assert len(server.bodies) == 2


def test_the_key_is_the_callers_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_API_KEY", "secret-key-123")
    Asked(f"{server.url}/embeddings").post({"input": []})
    keyed = Asked(f"{server.url}/embeddings", key="given")
    keyed.post({"input": []})
    assert server.keys == [None, "Bearer given"] and "given" not in repr(keyed)
