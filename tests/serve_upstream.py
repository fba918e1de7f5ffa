"""An OpenAI-compatible server for tests: real sockets, and every way in which an upstream can go wrong."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from openai import OpenAI

from polypref.comparisons import Responses
from polypref.serve.dialects.upstream_http import HttpUpstream
from polypref.serve.store.contract import Person
from serve_cases import PROMPT, TEXTS, core, running, scorer

ASK = {"model": "polypref", "messages": [{"role": "user", "content": PROMPT}]}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def message(text, **more):
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **more}}


class Script:
    """How the server behaves; ``texts`` are handed out in order, and ``asked`` keeps what it was asked."""

    def __init__(self, texts, **more):
        self.texts, self.asked, self.headers, self.left = texts, [], [], 0
        self.knows_n = True  # False: it ignores n; "refuses": it answers 400 to it
        self.wait, self.status, self.raw, self.choices = 0, 200, None, None  # seconds before it answers, and with what
        self.cut, self.drips = 0, False  # bytes after which it drops the connection; whether it sends one at a time
        self.usage, self.reply = USAGE, {}
        self.lock, self.next = threading.Lock(), 0
        self.__dict__.update(more)

    def some(self, many):
        """The next texts, over and over."""
        with self.lock:
            found = [self.texts[(self.next + at) % len(self.texts)] for at in range(many)]
            self.next += many
        return found


def _handler(script):
    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            script.asked.append(body)
            script.headers.append(dict(self.headers) | {"path": self.path})
            until = time.monotonic() + script.wait
            while time.monotonic() < until:
                if self._gone():
                    script.left += 1
                    return
                time.sleep(0.02)
            status, answer = self._answer(body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in script.reply.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if script.cut:
                self.wfile.write(content[: script.cut])
                self.wfile.flush()
                self.close_connection = True
                return
            if not script.drips:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)

        def _gone(self):
            self.connection.setblocking(False)
            try:
                return self.connection.recv(1, 2) == b""  # MSG_PEEK
            except BlockingIOError:
                return False
            finally:
                self.connection.setblocking(True)

        def _answer(self, body):
            if script.raw is not None:
                return script.status, script.raw
            if script.status != 200:
                return script.status, {"error": {"message": f"status {script.status}"}}
            many = body.get("n", 1)
            if script.knows_n == "refuses" and "n" in body:
                return 400, {"error": {"message": "n must be 1"}}
            choices = script.choices
            if choices is None:
                choices = [message(text) for text in script.some(many if script.knows_n is True else 1)]
            return 200, {"id": "up", "model": "up-model", "choices": choices, "usage": script.usage}

    return Handler


@contextmanager
def upstream(texts=(), **more):
    """A running server that writes these texts: its script and its address."""
    script = Script(list(texts), **more)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield script, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def best(texts, user, prompt=PROMPT):
    """The texts, best first, by the scorer itself."""
    pool, place = Responses.of([prompt] * len(texts), texts)
    value = scorer().score(pool, [user] * len(texts), place).value_Q
    return [texts[at] for at in np.argsort(-value, kind="stable")]


@contextmanager
def serving(path, texts=TEXTS, bounded=False, keys=None, timeout=20.0, candidates=None, **script):
    """What the upstream is asked, the server's address, and the server itself."""
    with upstream(texts, **script) as (asked, url):
        served = core(path / "s.db", bounded=bounded)
        many = candidates or max(1, len(texts))
        with running(served, keys, upstream=HttpUpstream(f"{url}#up-model", many, timeout)) as at:
            yield asked, at, served


def client(at, path="", **more):
    return OpenAI(base_url=f"{at}{path}/v1", max_retries=0, **({"api_key": "k"} | more))


def offers(served, user, tenant=""):
    """What was offered to a person; a later commit says that earlier ones are done."""
    served.store.pause(Person(tenant, "somebody else"), False).result()
    return served.store.offers(Person(tenant, user))
