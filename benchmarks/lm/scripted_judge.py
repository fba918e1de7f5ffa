"""A judge of known skill behind OpenAI's chat completions: it follows the choices that it is shown.

    python scripted_judge.py [--skill 0.8] [--nonsense]        prints the port

It answers the questions of ``retrieval-judge``. The taste that it knows is for length: it counts the words of both
responses of each choice shown, and takes what most of them preferred, the longer or the shorter. With the chance
``skill`` it names the response that this taste prefers, else the other one. Chance is a hash of the question, so the
same question gets the same answer. Without choices, or if as many speak for either, a coin answers. It likes the letter
A, which asking in both orders must cancel. ``--nonsense`` answers with a fruit.

What to expect with three choices shown of a person who chooses by length but errs with the chance e: the shown taste is
theirs with the chance q = (1 - e)^3 + 3 e (1 - e)^2, the judge follows theirs with s' = s q + (1 - s)(1 - q), and
agrees with a judgement with the chance s' (1 - e) + (1 - s') e (``expected``). The two orders err separately; one right
and one wrong is a tie and counts one half, so the expectation is the same.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SURE, LIKES_A = 2.0, 1.0  # log-odds
CASE = re.compile(r"Response A: (.*?)\n\nResponse B: (.*?)\n\nPreferred:(?: (A|B))?", re.DOTALL)


def expected(skill: float, errs: float, shown: bool = True) -> float:
    """Agreement with a person who errs with this chance; ``shown``: three of their choices are."""
    theirs = (1 - errs) ** 3 + 3 * errs * (1 - errs) ** 2
    follows = skill * theirs + (1 - skill) * (1 - theirs) if shown else 0.5
    return follows * (1 - errs) + (1 - follows) * errs


def odds_of_a(text: str, skill: float) -> float:
    """Log-odds of A against B for a question of ``retrieval-judge``."""
    *shown, (first, second, _) = CASE.findall(text)
    longer = sum(1 if (letter == "A") == (words(a) > words(b)) else -1 for a, b, letter in shown)
    chance = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
    if longer == 0:
        says_a = chance < 0.5
    else:
        says_longer = (longer > 0) == (chance < skill)
        says_a = says_longer == (words(first) > words(second))
    return LIKES_A + (SURE if says_a else -SURE)


def words(text: str) -> int:
    return len(text.split())


def answer(text: str, skill: float, nonsense: bool) -> dict[str, Any]:
    """One choice of a chat completion, with log-probabilities."""
    odds = odds_of_a(text, skill)
    letters = sorted([("A", min(0.0, odds) - 0.2), ("B", min(0.0, -odds) - 0.2)], key=lambda one: -one[1])
    likely = [("plum", -0.2), ("pear", -2.0)] if nonsense else letters
    top = [{"token": token, "logprob": p} for token, p in likely]
    listed = [{**top[0], "top_logprobs": top}]
    return {"message": {"role": "assistant", "content": likely[0][0]}, "logprobs": {"content": listed}}


def server(skill: float, nonsense: bool = False) -> ThreadingHTTPServer:
    """A server at a free port of this machine; ``serve_forever`` starts it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.path.endswith("/chat/completions"):
                self.send_error(404)
                return
            choice = answer(body["messages"][-1]["content"], skill, nonsense)
            content = json.dumps(
                {"object": "chat.completion", "model": body.get("model"), "choices": [choice]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skill", type=float, default=0.8)
    parser.add_argument("--nonsense", action="store_true")
    arguments = parser.parse_args()
    running = server(arguments.skill, arguments.nonsense)
    sys.stdout.write(f"{running.server_port}\n")
    sys.stdout.flush()
    running.serve_forever()
