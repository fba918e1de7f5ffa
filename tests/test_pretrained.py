"""pretrained: reward models as they are, on tiny random ones with transformers itself as the oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from contract_cases import Words
from judge_cases import judgements, save_judge
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import ArtifactError, EncoderError, NotEnoughData, SettingsError
from polypref.features import hf
from polypref.learners import learner, margins
from polypref.learners.pretrained import Pretrained
from polypref.learners.protocol import POPULATION, Scorer
from polypref.scorers import load, save
from test_features_hf import TEMPLATE
from test_features_hf import save as save_model

TEXTS = ["yes", "no .", "the cat sat", "the cat sat </s>", "yes yes no no the cat", "unknown words", ".", "cat no cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def some() -> Comparisons:
    return from_columns(["ann", "bob"] * 4, ["why", "the prompt ."] * 4, TEXTS, TEXTS[4:] + TEXTS[:4])


def fit(model: object, **settings: Any) -> Scorer:
    return Pretrained(str(model), **settings).fit(some(), encoder=Words(), seed=0)


def rewards(model: object, **settings: Any) -> np.ndarray:
    r = some().responses
    return fit(model, **settings).score(r, ["ann"] * len(r)).value_Q


@pytest.mark.parametrize("template", [None, TEMPLATE])
@pytest.mark.parametrize("kind", ["llama-reward", "bert-reward"])
def test_the_reward_is_the_models_own_score_however_it_is_padded(tmp_path, kind, template, monkeypatch):
    """Pad = eos, no pad token, either side, any batch size: what transformers gives for each text alone."""
    import torch

    model = save_model(tmp_path / "m", kind, template=template)
    _, tokenizer = hf.load(tmp_path / "m", "any", "reward", "float32", "cpu")
    plan = hf.HuggingFace(str(tmp_path / "m"), score="only").plan()
    expected = []
    for tokens in hf.tokenise(tokenizer, some().responses, plan):
        types = [int(i >= (tokens.n_head or len(tokens.ids))) for i in range(len(tokens.ids))]
        extra = {"token_type_ids": torch.tensor([types])} if kind.startswith("bert") else {}
        with torch.inference_mode():
            expected.append(model(torch.tensor([tokens.ids]), **extra).logits.item())
    for n, (side, pad, size) in enumerate([("right", "<pad>", 1), ("left", "</s>", 3), ("left", None, 7)]):
        save_model(tmp_path / f"{n}", kind, side, pad, template)
        monkeypatch.setattr(hf.HuggingFace, "batch_size", size)
        np.testing.assert_allclose(rewards(tmp_path / f"{n}"), expected, atol=1e-5)
    assert np.ptp(expected) > 5e-3


def test_sign_turns_a_cost_model_round_and_everybody_gets_the_same(tmp_path):
    save_model(tmp_path / "m", "llama-reward")
    one, other = fit(tmp_path / "m"), fit(tmp_path / "m", sign=-1)
    c = some()
    assert (margins(one, c).value_Q == -margins(other, c).value_Q).all()
    assert (margins(one, c).source_Q == POPULATION).all()
    assert one.serves == "population"
    assert margins(one, c).unanswered_Q is None
    part = one.score(c.responses, ["x", "y"], np.array([5, 2], np.int32)).value_Q
    np.testing.assert_allclose(part, rewards(tmp_path / "m")[[5, 2]], atol=1e-5)
    assert learner(f"pretrained:{tmp_path / 'm'},sign=-1") == Pretrained(str(tmp_path / "m"), sign=-1)
    with pytest.raises(SettingsError, match="sign = 0; expected 1, or -1 for a cost model"):
        learner("pretrained:some/model,sign=0")


def test_labels_are_read_only_to_be_measured(tmp_path):
    save_model(tmp_path / "m", "llama-reward")
    c = some()
    made = Pretrained(str(tmp_path / "m"))
    one = made.fit(c, encoder=Words(), seed=0, valid=c)
    other = made.fit(c.swapped(), encoder=Words(), seed=1, valid=c.swapped())
    assert (margins(one, c).value_Q == margins(other, c).value_Q).all()
    right = (margins(one, c).value_Q > 0).mean()
    assert one.selection["valid_accuracy"] == right
    assert other.selection["valid_accuracy"] == 1 - right


def test_one_of_several_scores_is_named(tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    save_model(tmp_path / "m", "llama-reward")
    config = LlamaConfig.from_pretrained(tmp_path / "m", id2label={0: "helpful", 1: "safe"}, num_labels=2)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "m")
    with pytest.raises(EncoderError, match=r"gives 2 scores, helpful, safe; label = None\. Name one"):
        fit(tmp_path / "m")
    with pytest.raises(EncoderError, match="label = 2"):
        fit(tmp_path / "m", label=2)
    assert (rewards(tmp_path / "m", label="safe") == rewards(tmp_path / "m", label=1)).all()
    assert (rewards(tmp_path / "m", label="safe") != rewards(tmp_path / "m", label="helpful")).all()


def test_scores_are_cached_by_content(tmp_path, monkeypatch):
    save_model(tmp_path / "m", "llama-reward")
    before = rewards(tmp_path / "m")
    monkeypatch.setattr(hf.HuggingFace, "compute", lambda *_: pytest.fail("all scores are there"))
    assert (rewards(tmp_path / "m") == before).all()


def test_a_text_longer_than_the_context_loses_the_prompts_beginning_first(tmp_path):
    save_model(tmp_path / "m", "llama-reward")  # reads 32 tokens
    prompts = ["cat " * n + "why" for n in (27, 100)]
    c = from_columns(["ann"] * 2, prompts, ["yes no"] * 2, ["no yes"] * 2)
    scorer = fit(tmp_path / "m")
    value_N = margins(scorer, c).value_Q
    assert np.isfinite(value_N).all()
    assert value_N[1] != 0  # the responses are still read


def test_a_judge_is_asked_for_its_approval(tmp_path):
    folder = save_judge(tmp_path / "judge")
    value_R = rewards(folder, ask=True)
    assert len(np.unique(value_R)) > len(value_R) / 2
    assert (rewards(folder, ask=True, sign=-1) == -value_R).all()


READ = """
import sys, numpy as np
from contract_cases import Words
from polypref.learners import margins
from polypref.scorers import load
from test_pretrained import some
np.save(sys.argv[2], margins(load(sys.argv[1], Words()), some()).value_Q)
"""


def test_another_process_answers_the_same_and_another_model_is_refused(tmp_path):
    save_model(tmp_path / "m", "llama-reward")
    scorer = fit(tmp_path / "m", sign=-1)
    save(scorer, tmp_path / "scorer")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "POLYPREF_CACHE": str(tmp_path / "other")}
    command = [sys.executable, "-c", READ, str(tmp_path / "scorer"), str(tmp_path / "there.npy")]
    subprocess.run(command, check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), margins(scorer, some()).value_Q, atol=1e-6)
    save_model(tmp_path / "m", "gpt2-reward")
    with pytest.raises(ArtifactError, match="has changed since the scorer was saved"):
        load(tmp_path / "scorer", Words())


def test_what_cannot_work_is_one_line(tmp_path):
    for kind in ("llama", "bert"):
        save_model(tmp_path / kind, kind)
    save_model(tmp_path / "llama", "llama")
    headless = tmp_path / "headless"
    save_model(headless, "llama")
    config = json.loads((headless / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (headless / "config.json").write_text(json.dumps(config))
    for model, settings, match in [
        ("./absent", {}, "there is no such folder"),
        (tmp_path / "llama", {}, "has no reward head .its kind is 'causal'"),
        (tmp_path / "bert", {}, "has no reward head .its kind is 'encoder'"),
        (headless, {}, "lacks score.weight: save it again together with its head"),
        (tmp_path / "bert", {"ask": True}, "a judge must be a causal language model"),
    ]:
        with pytest.raises(EncoderError, match=match) as caught:
            rewards(model, **settings)
        assert "\n" not in str(caught.value)
    save_model(tmp_path / "m", "llama-reward")
    with pytest.raises(NotEnoughData, match="0 training rows"):
        Pretrained(str(tmp_path / "m")).fit(some().take(np.zeros(0, np.int64)), encoder=Words(), seed=0)


def test_a_judge_without_an_answer_gives_no_reward_and_says_so(tmp_path, monkeypatch):
    folder = save_judge(tmp_path / "judge")
    monkeypatch.setattr("polypref.learners.pretrained.ANSWERS", ("Perhaps", "Never"))
    scores = margins(fit(folder, ask=True), replace(judgements(), users=judgements().users))
    assert scores.unanswered_Q is not None
    assert (scores.unanswered_Q == 1).all()
    assert (scores.value_Q == 0).all()
    assert isinstance(scores.value_Q, np.ndarray)
    assert pl.Series(scores.value_Q).is_finite().all()
