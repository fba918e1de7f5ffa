"""retrieval-judge behind a real server: a process of its own that serves a tiny model in OpenAI's form, and fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from contract_cases import Words
from judge_cases import judgements, save_judge
from polypref.comparisons import Comparisons
from polypref.errors import EncoderError, SettingsError
from polypref.judges.ask import WORD
from polypref.learners import margins
from polypref.learners.pretrained import Pretrained
from polypref.learners.protocol import Scores
from polypref.learners.retrieval_judge import RetrievalJudge


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path

    def plan(self, *what: dict[str, Any]) -> None:
        urlopen(Request(self.url.replace("/v1", "/plan"), json.dumps(what).encode()), timeout=10).close()

    def seen(self) -> list[dict[str, Any]]:
        with urlopen(self.url, timeout=10) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_judge(tmp_path_factory.mktemp("served") / "model")
    command = [sys.executable, str(Path(__file__).with_name("judge_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield Server(f"http://127.0.0.1:{int(running.stdout.readline())}/v1", folder)
        running.kill()


@pytest.fixture
def server(process: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYPREF_API_KEY", raising=False)
    process.plan()
    return process


C, QUERIES = judgements(), judgements(seed=1)


def judged(server: Server, queries: Comparisons = QUERIES, path: str = "", **settings: Any) -> Scores:
    made = RetrievalJudge(f"{server.url}{path}#tiny", **{"pause": 0.01, "timeout": 30.0, **settings})
    return margins(made.fit(C, encoder=Words(), seed=0), queries)


def unanswered(scores: Scores) -> list[float]:
    assert scores.unanswered_Q is not None
    return scores.unanswered_Q.tolist()


def refusal(server: Server, **settings: Any) -> str:
    with pytest.raises(EncoderError) as caught:
        judged(server, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_says_what_the_same_model_says_here(server):
    here = margins(RetrievalJudge(str(server.folder)).fit(C, encoder=Words(), seed=0), QUERIES)
    there = judged(server)
    np.testing.assert_allclose(there.value_Q, here.value_Q, atol=1e-3)
    assert np.abs(there.value_Q).min() > 1e-3
    seen = server.seen()
    assert len(seen) == 2 * len(QUERIES)
    assert {request["path"] for request in seen} == {"/v1/chat/completions"}
    assert all(request["body"]["model"] == "tiny" and request["body"]["max_tokens"] == 1 for request in seen)


def test_plain_completions_are_asked_where_the_address_says_so(server):
    server.plan({"always": {"listed": [[" A", -0.5], [" B", -2.5]]}})
    assert judged(server, path="/completions").value_Q.tolist() == [0.0] * len(QUERIES)
    assert {request["path"] for request in server.seen()} == {"/v1/completions"}
    server.plan()
    judged(server, QUERIES.take(np.arange(1)), path="/completions", neighbours=0)
    assert server.seen()[0]["body"]["prompt"].endswith("Preferred:")


def test_a_liking_for_one_letter_cancels(server):
    server.plan({"always": {"listed": [["A", -0.1], ["B", -3.0]]}})
    scores = judged(server)
    assert scores.value_Q.tolist() == [0.0] * len(QUERIES)
    assert unanswered(scores) == [0.0] * len(QUERIES)


def test_nonsense_counts_one_half_and_is_counted_apart(server):
    server.plan({"always": {"listed": [["Apple", -0.1], ["banana", -3.0]]}})
    scores = judged(server)
    assert scores.value_Q.tolist() == [0.0] * len(QUERIES)
    assert unanswered(scores) == [1.0] * len(QUERIES)


def test_an_answer_in_one_order_counts_half(server):
    server.plan({"listed": [["A", -1.0], ["B", -3.0]]}, {"say": "Apple"})
    scores = judged(server, QUERIES.take(np.arange(1)))
    assert np.abs(scores.value_Q).tolist() == [1.0]
    assert unanswered(scores) == [0.5]


def test_a_server_without_log_probabilities_has_its_word(server):
    server.plan({"say": "A"}, {"say": "B."})
    assert np.abs(judged(server, QUERIES.take(np.arange(1))).value_Q) == pytest.approx(WORD)
    server.plan({"always": {"say": ""}})
    assert unanswered(judged(server, QUERIES.take(np.arange(1, 2)))) == [1.0]


def test_a_busy_server_is_asked_again(server, capsys):
    busy = [{"status": 429, "headers": {"Retry-After": "0"}, "body": "slow down"}, {"status": 503}, {"close": True}]
    server.plan(*busy)
    one = QUERIES.take(np.arange(1))
    value_N = judged(server, one).value_Q
    assert len(server.seen()) == 2 + len(busy)
    assert "HTTP 429 Too Many Requests: 'slow down'; trying again in" in capsys.readouterr().err
    here = margins(RetrievalJudge(str(server.folder)).fit(C, encoder=Words(), seed=0), one)
    np.testing.assert_allclose(value_N, here.value_Q, atol=1e-3)


def test_a_pause_that_the_server_asks_for_is_made(server, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("polypref.http.time.sleep", pauses.append)
    server.plan({"status": 429, "headers": {"Retry-After": "7"}}, {"status": 429, "headers": {"Retry-After": "9999"}})
    judged(server, QUERIES.take(np.arange(1)))
    assert sorted(pause for pause in pauses if pause >= 1) == [7.0, 60.0]  # other threads wait shorter


def test_a_server_that_is_too_slow_is_asked_again(server):
    server.plan({"sleep": 3.0})
    assert np.isfinite(judged(server, QUERIES.take(np.arange(1)), timeout=1.5).value_Q).all()
    assert len(server.seen()) == 3
    server.plan({"always": {"sleep": 1.0}})
    assert "gives no answer in 2 tries (timed out)" in refusal(server, timeout=0.3, retries=1, neighbours=1)


def test_what_was_answered_before_a_failure_is_kept(server):
    server.plan(*[{"listed": [["A", -1.0], ["B", -2.0]]}] * 9, {"always": {"status": 500}})
    assert "gives no answer in 2 tries (HTTP 500" in refusal(server, retries=1)
    server.plan()
    judged(server)
    assert len(server.seen()) == 2 * len(QUERIES) - 9
    server.plan({"always": {"status": 500}})
    judged(server)  # all is there: nobody is asked
    assert server.seen() == []


def test_a_question_longer_than_the_servers_context_is_one_line(server):
    server.plan({"always": {"status": 400, "body": "This model's maximum context length is 512 tokens"}})
    said = refusal(server)
    assert "HTTP 400" in said and "maximum context length is 512 tokens" in said and "its length limit" in said


def test_a_dead_server_is_one_line(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EncoderError, match=r"gives no answer in 3 tries .*refused.*; is the server running\?$"):
        margins(RetrievalJudge(dead, retries=2, pause=0.01).fit(C, encoder=Words(), seed=0), QUERIES)


@pytest.mark.parametrize("body", ["<html>", "{}", '{"choices": []}', '{"choices": [{"logprobs": {"content": [7]}}]}'])
def test_what_is_not_openais_form_is_one_line(server, body):
    server.plan({"always": {"body": body}})
    assert "does not answer in the form of OpenAI's completions: found" in refusal(server)


def test_a_key_is_sent_and_never_told(server, monkeypatch):
    monkeypatch.setenv("POLYPREF_API_KEY", "secret-key-123")
    server.plan({"always": {"status": 401, "body": "no such key: secret-key-123"}})
    said = refusal(server)
    assert "set the environment variable POLYPREF_API_KEY to a valid key" in said
    assert "secret" not in said
    assert {request["key"] for request in server.seen()} == {"Bearer secret-key-123"}
    assert "secret" not in RetrievalJudge(f"{server.url}#tiny").identity
    with pytest.raises(SettingsError, match="put the key into the environment variable"):
        RetrievalJudge("http://me:secret@localhost/v1").fit(C, encoder=Words(), seed=0)


def test_pretrained_asks_the_same_server(server):
    server.plan({"always": {"listed": [["Yes", -0.5], ["No", -2.0]]}})
    scorer = Pretrained(f"{server.url}#tiny", ask=True, sign=-1).fit(C, encoder=Words(), seed=0)
    scores = scorer.score(QUERIES.responses, None)
    assert scores.value_Q == pytest.approx([-1.5] * len(QUERIES.responses))
    assert "Answer with one word, Yes or No." in server.seen()[0]["body"]["messages"][0]["content"]
