"""A small server in OpenAI's form around a causal language model, run as a process of its own by the judge's tests.

    python judge_server.py MODEL_FOLDER        prints the port

``POST /v1/chat/completions`` and ``/v1/completions`` answer with the model's first token. ``POST /plan`` takes a list
of what the next requests get instead: ``{"status": 429, "headers": {...}}``, ``{"sleep": s}``, ``{"close": true}``,
``{"body": text}``, ``{"say": text}`` (a word without log-probabilities), ``{"listed": [[token, logprob], ...]}``;
``{"always": ...}`` is that for all to come. ``GET /seen`` gives the bodies and keys of all requests.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLANNED: list[dict[str, Any]] = []
SEEN: list[dict[str, Any]] = []
LOCK = threading.Lock()


def likeliest(body: dict[str, Any], chat: bool) -> list[tuple[str, float]]:
    """The model's first tokens, computed one question at a time and without the code under test."""
    import torch

    if chat:
        text = TOKENIZER.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    else:
        ids = TOKENIZER(body["prompt"])["input_ids"]
    with torch.inference_mode(), LOCK:
        chances = MODEL(torch.tensor([ids])).logits[0, -1].log_softmax(0)
    top = chances.topk(body["top_logprobs"] if chat else body["logprobs"])
    return [(TOKENIZER.decode([i]), p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def answer(listed: list[tuple[str, float]], chat: bool) -> dict[str, Any]:
    if not chat:
        return {"text": listed[0][0], "logprobs": {"top_logprobs": [dict(listed)]}}
    top = [{"token": token, "logprob": p} for token, p in listed]
    return {"message": {"content": listed[0][0]}, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(200, json.dumps(SEEN))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/plan":
            PLANNED[:], SEEN[:] = body, []
            self._send(200, "{}")
            return
        SEEN.append({"path": self.path, "body": body, "key": self.headers.get("Authorization")})
        chat = self.path.endswith("/chat/completions")
        with LOCK:
            plan: dict[str, Any] = PLANNED[0].get("always") or PLANNED.pop(0) if PLANNED else {}
        time.sleep(plan.get("sleep", 0))
        if plan.get("close"):
            self.connection.close()
        elif "status" in plan or "body" in plan:
            self._send(plan.get("status", 200), plan.get("body", ""), plan.get("headers", {}))
        elif "say" in plan:
            choice: dict[str, Any] = {"message": {"content": plan["say"]}} if chat else {"text": plan["say"]}
            self._send(200, json.dumps({"choices": [choice]}))
        else:
            choice = answer(plan.get("listed") or likeliest(body, chat), chat)
            self._send(200, json.dumps({"choices": [choice]}))

    def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        content = text.encode()
        try:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the other side no longer waits
            pass

    def log_message(self, format: str, *_: object) -> None:
        pass


if __name__ == "__main__":
    from transformers import AutoModelForCausalLM, AutoTokenizer

    MODEL = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
    TOKENIZER = AutoTokenizer.from_pretrained(sys.argv[1])
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{http.server_port}\n")
    sys.stdout.flush()
    http.serve_forever()
