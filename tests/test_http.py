"""Servers that fail, never end, or answer with more than was asked for: one line, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from polypref import http
from polypref.errors import EncoderError, SettingsError
from polypref.http import Server, parsed

Answer = Callable[[BaseHTTPRequestHandler], None]
FINE = json.dumps({"data": "é" * 1000}).encode()


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, list[float]]]:
    """A server here that gives ``answers`` in turn, the last one for ever: its address, and the times of requests."""
    times: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            times.append(time.monotonic())
            try:
                answers[min(len(times), len(answers)) - 1](self)
            except OSError:  # the client has hung up
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", times
    finally:
        server.shutdown()
        server.server_close()


def says(body: bytes, code: int = 200, **headers: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def streams(first: bytes, then: bytes, pause: float = 0.0, **headers: str) -> Answer:
    """A body that never ends."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        for name, value in headers.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.close_connection = True
        to.wfile.write(first)
        while True:
            to.wfile.write(then)
            time.sleep(pause)

    return answer


def endless_head(to: BaseHTTPRequestHandler) -> None:
    to.close_connection = True
    to.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        to.wfile.write(b"x")
        time.sleep(0.05)


def bomb(size: int) -> bytes:
    """Zeros as gzip."""
    packer = zlib.compressobj(9, wbits=31)
    piece = bytes(1 << 20)
    return b"".join([*(packer.compress(piece) for _ in range(size >> 20)), packer.flush()])


def refusal(url: str, **settings: float) -> str:
    with pytest.raises(EncoderError) as caught:
        Server(url, **({"timeout": 1.0, "retries": 0, "pause": 0.01} | settings)).post({})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


# --- tries


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_tries_are_as_many_as_said(retries):
    with serving(says(b"busy", 503)) as (url, times):
        said = refusal(url, retries=retries)
    assert len(times) == retries + 1
    assert f"gives no answer in {retries + 1} tries (HTTP 503" in said


def test_no_try_begins_after_the_longest_time(monkeypatch):
    monkeypatch.setattr(http, "LONGEST_SECONDS", 0.5)
    with serving(says(b"busy", 503)) as (url, times):
        began = time.monotonic()
        refusal(url, retries=100, pause=0.1)
        assert time.monotonic() - began < 2
    assert 2 <= len(times) <= 4
    with serving(says(b"busy", 429, Retry_After="60"), says(FINE)) as (url, times):
        assert "in 1 tries" in refusal(url, retries=5)


def test_a_pause_is_no_longer_than_the_longest(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("polypref.http.time.sleep", pauses.append)
    busy = [says(b"", 429, Retry_After=stated) for stated in ("7", "9" * 30, "Fri, 31 Dec 9999 23:59:59 GMT")]
    with serving(*busy, says(FINE)) as (url, _):
        assert Server(url).post({}) == FINE
    assert pauses == [7.0, 60.0, 60.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"retries": 101},
        {"retries": -1},
        {"timeout": 0.0},
        {"timeout": 1e300},
        {"timeout": float("nan")},
        {"pause": 61.0},
    ],
)
def test_settings_without_end_are_refused(settings):
    with pytest.raises(SettingsError, match=r"of http://h/v1 is .*; expected 0 to \d+\.$"):
        Server("http://h/v1", **settings)


# --- answers that never end


@pytest.mark.parametrize(
    "answer",
    [
        endless_head,
        streams(b'{"data": "', b"x", pause=0.05),
        streams(b"1\r\nx\r\n", b"1\r\nx\r\n", pause=0.05, Transfer_Encoding="chunked"),
        streams(b"\x1f\x8b\x08\x08\0\0\0\0\0\xff", b"endless name", Content_Encoding="gzip"),
        streams(b"\x1f\x8b\x08\x00\0\0\0\0\0\xff", b"\x00\x00\x00\xff\xff", Content_Encoding="gzip"),
    ],
    ids=["head", "drops", "chunks", "name of the gzip", "blocks of nothing"],
)
def test_an_answer_that_never_ends_times_out(answer):
    with serving(answer) as (url, times):
        began = time.monotonic()
        said = refusal(url, retries=1, timeout=0.6)
        assert time.monotonic() - began < 6
    assert len(times) == 2
    assert "gives no answer in 2 tries" in said and "timed out" in said


STORED = b"\x00\xff\xff\x00\x00" + b"x" * 65535  # a block of gzip that is not compressed


@pytest.mark.parametrize(
    "answer",
    [streams(b"", b"x" * 65536), streams(b"\x1f\x8b\x08\x00\0\0\0\0\0\xff", STORED, Content_Encoding="gzip")],
    ids=["plain", "gzip"],
)
def test_an_answer_without_end_is_too_large(answer, monkeypatch):
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1 << 20)
    with serving(answer) as (url, times):
        assert "answers with more than 1 MiB" in refusal(url, timeout=20.0, retries=3)
    assert len(times) == 1


# --- packed answers


def test_a_packed_answer_is_unpacked():
    for body in (FINE, b"", b"x" * (5 << 20)):
        with serving(says(gzip.compress(body), Content_Encoding="gzip")) as (url, _):
            assert Server(url).post({}) == body


@pytest.mark.parametrize("code", [200, 400])
def test_a_bomb_is_one_line_in_little_memory(code):
    body = bomb(512 << 20)
    assert len(body) < 1 << 20
    with serving(says(body, code, Content_Encoding="gzip")) as (url, times):
        tracemalloc.start()
        try:
            said = refusal(url, timeout=60.0, retries=3)
            assert tracemalloc.get_traced_memory()[1] < 5 * http.LARGEST_ANSWER
        finally:
            tracemalloc.stop()
    assert len(times) == 1
    assert ("answers with more than 64 MiB" in said) if code == 200 else ("refuses the request (HTTP 400" in said)


@pytest.mark.parametrize(
    ("body", "packing", "said"),
    [
        (gzip.compress(FINE)[:-9], "gzip", "the answer is damaged: its gzip ends early"),
        (gzip.compress(FINE)[:-8] + bytes(8), "gzip", "the answer is damaged: .*incorrect data check"),
        (gzip.compress(FINE) + b"more", "gzip", "the answer is damaged: something follows its gzip"),
        (b"no gzip", "gzip", "the answer is damaged: .*incorrect header check"),
        (FINE, "zstd", r"packs its answer by 'zstd'; gzip was asked for"),
        (FINE, "gzip, gzip", r"packs its answer by 'gzip, gzip'; gzip was asked for"),
    ],
)
def test_a_damaged_answer_is_one_line(body, packing, said):
    with serving(says(body, Content_Encoding=packing)) as (url, _), pytest.raises(EncoderError, match=said):
        Server(url, retries=0).post({})


def test_a_damaged_answer_is_asked_for_again():
    with serving(says(gzip.compress(FINE)[:-9], Content_Encoding="gzip"), says(FINE)) as (url, times):
        assert Server(url, pause=0.01).post({}) == FINE
    assert len(times) == 2


def test_an_answer_of_many_parts_is_no_answer():
    with pytest.raises(ValueError, match="too many lists and objects"):
        parsed(b"[" + b"[]," * http.MOST_CONTAINERS + b"[]]")
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed(b"[" * 100_000 + b"]" * 100_000)
    assert parsed(FINE) == json.loads(FINE)
