"""The static encoder, and encoders side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from polypref.comparisons import Responses
from polypref.errors import MissingExtra, SettingsError
from polypref.features import Joined, encoder, minilm, static

needs_model2vec = pytest.mark.skipif(find_spec("model2vec") is None, reason="model2vec is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def pool_of(texts: Sequence[str], prompts: Sequence[str] = ("Why?",)) -> Responses:
    prompt_R = (np.arange(len(texts)) % len(prompts)).astype(np.int32)
    return Responses(pl.Series(list(prompts)), prompt_R, pl.Series(list(texts), dtype=pl.String))


def tiny_network() -> tuple[Any, Any]:
    """A random two-layer BERT and a word-piece tokenizer of a few words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "yes", "no", "prompt", "answer", "##s", "."]
    words += [chr(letter) for letter in range(ord("b"), ord("z") + 1)]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    return BertModel(config).eval(), PreTrainedTokenizerFast(tokenizer_object=core, **names)


@pytest.fixture
def distilled_from_tiny(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Static embeddings distilled from a tiny network; returns a list that grows by one per distillation."""
    times: list[int] = []

    def load(device: str) -> tuple[Any, Any]:
        times.append(1)
        return tiny_network()

    monkeypatch.setattr(minilm, "load", SimpleNamespace(__wrapped__=load))
    static.load.cache_clear()
    return times


@needs_model2vec
def test_static_is_the_weighted_mean_of_token_vectors(distilled_from_tiny: list[int], tmp_path: Path) -> None:
    texts = ["the answers.", "yes", "no", "", "answer the"]
    features = encoder("static").encode(pool_of(texts))
    model = static.load(tmp_path / "cache")
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0, 1], atol=1e-6)
    vocabulary = model.tokenizer.get_vocab()
    expected = model.embedding[[vocabulary["answer"], vocabulary["the"]]].mean(0)
    np.testing.assert_allclose(features[4], expected / np.linalg.norm(expected), atol=1e-6)


@needs_model2vec
def test_static_is_distilled_once_and_kept(
    distilled_from_tiny: list[int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = encoder("static").encode(pool_of(["yes the answer"]))
    told = [line for line in capfd.readouterr().err.splitlines() if "encoding with static" not in line]  # if it is slow
    assert told == ["polypref: distilling MiniLM into static token embeddings: once, about a minute"]
    static.load.cache_clear()  # another process
    joint = encoder("static", text="joint").encode(pool_of(["yes the answer"], ["no prompt"]))
    assert capfd.readouterr().err == ""
    assert distilled_from_tiny == [1]
    assert np.abs(first - joint).max() > 1e-3
    (kept,) = (path for path in (tmp_path / "cache" / "static").iterdir() if path.is_dir())
    assert json.loads((kept / "config.json").read_text())["normalize"] is True


@needs_model2vec
def test_static_reads_long_texts_to_their_end(distilled_from_tiny: list[int]) -> None:
    long = "yes " * 3000
    features = encoder("static").encode(pool_of([long + "no " * 3000, long]))
    assert np.abs(features[0] - features[1]).max() > 1e-2


def test_static_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "find_spec", lambda name: None)
    static.load.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'polypref\[static\]'"):
        encoder("static").encode(pool_of(["yes"]))


# side by side


@dataclass(frozen=True)
class Lengths:
    """An encoder of one number."""

    name: str = "lengths"
    identity: str = "lengths"

    def encode(self, responses: Responses) -> np.ndarray:
        return responses.lengths_R.astype(np.float32)[:, None]


def test_joined_encoders_are_found_by_their_names() -> None:
    for name in ("minilm+static", "static+hf:some/a+b+minilm", "hf:./minilm+statics+static"):
        assert encoder(name).name == name
    joined = encoder("static+hf:some/a+b+minilm")
    assert isinstance(joined, Joined)
    assert [part.name for part in joined.parts] == ["static", "hf:some/a+b", "minilm"]
    assert [part.name for part in encoder("hf:./minilm+statics+static").parts] == ["hf:./minilm+statics", "static"]  # type: ignore[attr-defined]


def test_what_cannot_be_joined_is_one_line() -> None:
    with pytest.raises(SettingsError, match="has static twice"):
        encoder("static+minilm+static")
    with pytest.raises(SettingsError, match="takes no settings"):
        encoder("static+minilm", text="joint")
    with pytest.raises(SettingsError, match="at least two parts"):
        Joined((encoder("static"),))


def test_joined_features_stand_one_after_the_other(distilled_from_tiny: list[int], tmp_path: Path) -> None:
    alone, both = encoder("static"), encoder("static", text="joint")
    responses = pool_of(["fine words", "fine", ""])
    joined = Joined((alone, Lengths(), both))
    features = joined.encode(responses)
    assert features.shape == (3, 17)
    assert features[:, 8].tolist() == [10, 4, 0]
    np.testing.assert_array_equal(features[:, :8], alone.encode(responses))
    np.testing.assert_array_equal(features[:, 9:], both.encode(responses))
    assert features is joined.encode(responses), "a pool is put together once"
    assert joined.identity == f"{alone.identity} + lengths + {both.identity}"
