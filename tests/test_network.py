"""What an artifact names starts no network traffic without the caller's word, and never gets the caller's key."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from contract_cases import Words, small
from polypref import artifact, features, network_access
from polypref.bounds.detector import KIND, Detector
from polypref.bounds.windowed import READS
from polypref.cli import main
from polypref.errors import PolyprefError, SettingsError
from polypref.features import model_folder
from polypref.groups.grouping import from_mapping
from polypref.learners import LEARNERS
from polypref.learners.pretrained import Pretrained
from polypref.learners.retrieval_judge import RetrievalJudge
from polypref.scorers import load, save

URL = "http://models.example.invalid/v1"
NAMES = [f"endpoint:{URL}#m", "hf:some-hub/model-that-is-not-here", f"minilm+endpoint:{URL}"]
MODELS = [f"{URL}#judge", "some-hub/model-that-is-not-here"]


@pytest.fixture
def denied(monkeypatch):
    """Sockets that fail, and a list of what was tried."""
    tried: list[object] = []

    def refuse(*arguments: object, **named: object) -> None:
        tried.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("POLYPREF_API_KEY", "secret")
    return tried


def named(folder, name):
    """A saved linear scorer whose manifest names ``name`` as its encoder."""
    save(LEARNERS["individual"].fit(small(), encoder=Words(), seed=0), folder)
    config, arrays = artifact.load(folder, "scorer")
    artifact.save(folder, "scorer", config | {"encoder": {"name": name, "identity": "words v1"}}, arrays)
    return folder


def model_scorer(folder, kind, settings):
    """A saved scorer that names a model or a server."""
    state = {"settings": settings, "identity": "any", "selection": {}}
    arrays = {}
    if kind == "retrieval-judge":
        scorer = RetrievalJudge(f"{URL}#m").fit(small(), encoder=Words(), seed=0)
        state, arrays = scorer.state()
        state["settings"] = settings
    encoder = {"name": "minilm", "identity": features.encoder("minilm").identity} if arrays else None
    artifact.save(folder, "scorer", {"scorer": kind, "state": state, "encoder": encoder, "fitted": None}, arrays)
    return folder


def foreign(tmp_path):
    """Folders of every kind of artifact, each with another name of something elsewhere."""
    folders = {f"linear {name}": named(tmp_path / f"linear{at}", name) for at, name in enumerate(NAMES)}
    for at, model in enumerate(MODELS):
        for ask in (False, True):
            settings = asdict(Pretrained(model, ask=ask))
            folders[f"pretrained {model} {ask}"] = model_scorer(tmp_path / f"p{at}{ask}", "pretrained", settings)
        settings = asdict(RetrievalJudge(model))
        folders[f"judge {model}"] = model_scorer(tmp_path / f"j{at}", "retrieval-judge", settings)
    return folders


def test_no_foreign_scorer_starts_anything(tmp_path, denied, capsys, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"user_id": "u", "prompt": "p", "response": "r"}) + "\n")
    for what, folder in foreign(tmp_path).items():
        with pytest.raises(PolyprefError) as told:
            load(folder)
        assert "--allow-network" in str(told.value) or "reward head" in str(told.value), (what, told.value)
        assert main(["score", str(folder), str(rows)]) == 2, what
        assert capsys.readouterr().err.count("\n") == 1
    assert not denied


def test_no_foreign_detector_or_grouping_starts_anything(tmp_path, denied):
    for name in NAMES:
        config = {"encoder": name, "identity": "x", "intercept": 0.0, "ridge": 1.0, "auc": 0.5, "reads": READS}
        arrays = {"weights_D": np.zeros(4), "trained_on": np.zeros((0, 16), np.uint8)}
        arrays["prompts_trained_on"] = np.zeros((0, 16), np.uint8)
        artifact.save(tmp_path / "detector", KIND, config, arrays)
        with pytest.raises(SettingsError, match="--allow-network"):
            Detector.load(tmp_path / "detector")
        grouping = from_mapping({"ann": "a", "bob": "b"})
        grouping.save(tmp_path / "grouping")
        config, arrays = artifact.load(tmp_path / "grouping", "grouping")
        config["model"] = {"evidence": 1.0, "derived": False, "encoder": name, "identity": "x"}
        inputs = {"center_D": np.zeros(3), "directions_DK": np.zeros((3, 2))}
        inputs |= {"length_center": np.zeros(2), "length_scale": np.ones(2)}
        arrays |= {f"model.inputs.{key}": value for key, value in inputs.items()}
        arrays |= {"model.weights_KG": np.zeros((4, 2)), "model.key_T": np.zeros((0, 16), np.uint8)}
        arrays |= {"model.text_TG": np.zeros((0, 2)), "model.size_G": np.full(2, 0.5)}
        artifact.save(tmp_path / "grouping", "grouping", config, arrays)
        with pytest.raises(SettingsError, match="--allow-network"):
            type(grouping).load(tmp_path / "grouping")
    assert not denied


def test_the_denial_would_be_noticed(tmp_path, denied):
    """With the caller's word something is tried, and so seen."""
    model_folder._downloaded.cache_clear()
    with pytest.raises(PolyprefError):
        load(named(tmp_path / "s", "hf:some-hub/model-that-is-not-here"), allow_network=True)
    assert denied


@pytest.fixture
def server():
    """A local embeddings server, its address and the authorisations that it was sent."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(self.headers.get("Authorization"))
            rows = [{"index": at, "embedding": [1.0, float(len(text))]} for at, text in enumerate(body["input"])]
            content = json.dumps({"data": rows}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/v1", seen
    serving.shutdown()
    serving.server_close()


def test_a_key_goes_only_where_the_caller_says(tmp_path, server, monkeypatch):
    address, seen = server
    monkeypatch.setenv("POLYPREF_API_KEY", "secret")
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    name = f"endpoint:{address}"
    made = features.encoder(name)
    folder = tmp_path / "s"
    save(LEARNERS["pooled"].fit(small(), encoder=made, seed=0), folder)
    assert set(seen) == {"Bearer secret"}, "the caller's own encoder has the key"
    fresh = replace(small().responses, texts_R=(small().responses.texts_R + "!").alias("text"))

    seen.clear()
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1"):
        load(folder)
    assert not seen, "nothing was asked"
    load(folder, allow_network=True).score(fresh, ["u"] * len(fresh))
    assert set(seen) == {None}, "asked, without the key"

    seen.clear()
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "other"))
    load(folder, name).score(fresh, ["u"] * len(fresh))
    assert set(seen) == {"Bearer secret"}

    seen.clear()
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "third"))
    monkeypatch.setenv(network_access.VARIABLE, f"https://elsewhere.invalid, {address}")
    load(folder).score(fresh, ["u"] * len(fresh))
    assert set(seen) == {"Bearer secret"}, "the environment is the caller's word"


def test_an_empty_or_broken_variable_allows_nothing(monkeypatch):
    denied = network_access.Permission("x", network=False)
    for value in ("", ",", "localhost", "http://", "http://[", "models.example.invalid"):
        monkeypatch.setenv(network_access.VARIABLE, value)
        for address in (URL, "the model a/b", "http://["):
            with pytest.raises(SettingsError):
                denied.ensure(address)
