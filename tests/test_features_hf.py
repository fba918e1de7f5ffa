"""Any transformers model as an encoder: tiny random models, and transformers itself as the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from polypref.comparisons import Responses
from polypref.content import canonical_chat
from polypref.errors import EncoderError, SettingsError
from polypref.features import encoder
from polypref.features import hf as module
from polypref.features.hf import HuggingFace, tokenise

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<user>", "<bot>", "yes", "no", "the", "cat", "sat", "why", "prompt", "."]
TEMPLATE = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} </s>"
    "{% elif m.role == 'assistant' %}<bot> {{ m.content }} </s>{% else %}{{ raise_exception('no role ' ~ m.role) }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)
KINDS = ["llama", "gpt2", "bert", "llama-reward", "gpt2-reward", "bert-reward"]
RESPONSES = ["yes", "no .", "the cat sat", "", "the cat sat </s>", "yes yes no no the cat", "unknown words here", "."]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


def save_tokenizer(folder: Path, bert: bool, side: str, pad: str | None, template: str | None) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = "<s> $A </s>" if bert else "<s> $A"
    core.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 2), ("</s>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side=side,
        model_max_length=32,
        model_input_names=["input_ids", *(["token_type_ids"] if bert else []), "attention_mask"],
        additional_special_tokens=["<user>", "<bot>"],
        **({"pad_token": pad} if pad else {}),
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, kind: str, pad: int | None) -> Any:
    import torch
    import transformers as tf

    torch.manual_seed(0)
    size = {"vocab_size": len(WORDS), "pad_token_id": None, "eos_token_id": 3, "bos_token_id": 2}
    name, _, reward = kind.partition("-")
    if name == "gpt2":
        config: Any = tf.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **size)
        classes = tf.GPT2LMHeadModel, tf.GPT2ForSequenceClassification
    else:
        size |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        size |= {"max_position_embeddings": 32}
        config = tf.LlamaConfig(num_key_value_heads=2, **size) if name == "llama" else tf.BertConfig(**size)
        classes = (
            (tf.LlamaForCausalLM, tf.LlamaForSequenceClassification)
            if name == "llama"
            else (tf.BertForMaskedLM, tf.BertForSequenceClassification)
        )
    if reward:
        config.num_labels = 1
    model = classes[bool(reward)](config).eval()
    for parameter in model.parameters():  # spread the scores: random heads start near zero
        parameter.data = parameter.data * 3
    model.config.pad_token_id = pad  # after the weights were drawn, so that they do not depend on it
    model.save_pretrained(folder)
    return model


def save(folder: Path, kind: str, side: str = "right", pad: str | None = "<pad>", template: str | None = None) -> Any:
    save_tokenizer(folder, kind.startswith("bert"), side, pad, template)
    return save_model(folder, kind, WORDS.index(pad) if pad else None)


def responses_of(texts: list[str], prompts: list[str] | None = None) -> Responses:
    prompts = prompts or ["why", "the prompt ."]
    prompt_R = (np.arange(len(texts)) % len(prompts)).astype(np.int32)
    return Responses(pl.Series(prompts), prompt_R, pl.Series(texts, dtype=pl.String))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_size_padding_side_and_pad_token_change_nothing(tmp_path: Path, kind: str) -> None:
    runs = []
    variants = [("right", "<pad>", (1, 3, 7)), ("left", "</s>", (3, 7)), ("left", None, (3,))]
    for n, (side, pad, batch_sizes) in enumerate(variants):
        folder = tmp_path / f"model-{n}"
        save(folder, kind, side, pad)
        for batch_size in batch_sizes:
            settings = {
                "batch_size": batch_size,
                "score": "reward" in kind,
                "cache_folder": str(tmp_path / f"{n}-{batch_size}"),
            }
            runs.append(encoder(f"hf:{folder}", **settings).encode(responses_of(RESPONSES)))
    assert runs[0].shape == (len(RESPONSES), 16 + ("reward" in kind))
    assert np.ptp(runs[0], axis=0).min() > 1e-3, "the texts are told apart"
    for run in runs[1:]:
        np.testing.assert_allclose(run, runs[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["llama-reward", "gpt2-reward", "bert-reward"])
def test_scores_equal_transformers_own_on_single_texts(tmp_path: Path, kind: str) -> None:
    import torch

    model = save(tmp_path / "m", kind)
    settings = HuggingFace(str(tmp_path / "m"), score=True, device="cpu")
    responses = responses_of(RESPONSES)
    _, tokenizer = module.load(settings.plan().folder, "any", "reward", "float32", "cpu")
    features = settings.encode(responses)
    for tokens, row in zip(tokenise(tokenizer, responses, settings.plan()), features, strict=True):
        types = [int(i >= (tokens.n_head or len(tokens.ids))) for i in range(len(tokens.ids))]
        extra = {"token_type_ids": torch.tensor([types])} if kind.startswith("bert") else {}
        with torch.inference_mode():
            expected = model(torch.tensor([tokens.ids]), output_hidden_states=True, **extra)
        assert row[-1] == pytest.approx(expected.logits.item(), abs=1e-4)
        place = 0 if kind.startswith("bert") else -1
        np.testing.assert_allclose(row[:-1], expected.hidden_states[-1][0, place], atol=1e-4)


def test_transformers_own_batches_would_score_pad_equals_eos_wrongly(tmp_path: Path) -> None:
    """Why this module pools by mask: the library looks for the last token that is not padding."""
    import torch

    model = save(tmp_path / "m", "llama-reward", pad="</s>")
    ids = [2, 8, 9, 3]  # ends in the end-of-text token, as every chat turn does
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits.item()
        right = model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).item()
    assert abs(theirs - right) > 1e-3
    ours = encoder(f"hf:{tmp_path / 'm'}", score=True).encode(responses_of(["the cat </s>"], [""]))
    assert ours[0, -1] != pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", ("causal", "last", "joint")),
        ("gpt2", ("causal", "last", "joint")),
        ("bert", ("encoder", "mean", "response")),
        ("llama-reward", ("reward", "last", "joint")),
        ("bert-reward", ("reward", "first", "joint")),
    ],
)
def test_what_the_settings_leave_open_is_decided_by_the_model_and_stated(
    tmp_path: Path, kind: str, expected: tuple[str, str, str]
) -> None:
    save(tmp_path / "m", kind)
    made = HuggingFace(str(tmp_path / "m"))
    plan = made.plan()
    assert (plan.kind, plan.pooling, plan.text) == expected
    assert plan.max_length == 32
    for stated in (
        f"kind={plan.kind}",
        f"pooling={plan.pooling}",
        f"text={plan.text}",
        "max_length=32",
        "dtype=float32",
    ):
        assert stated in made.identity


def test_identity_follows_the_files_content_and_not_the_folders_place(tmp_path: Path) -> None:
    for place in ("a", "b", "c"):
        save(tmp_path / place / "m", "llama", template=TEMPLATE if place == "c" else None)
    one, same, other = (HuggingFace(str(tmp_path / place / "m")).identity for place in ("a", "b", "c"))
    assert one == same
    assert one != other


def test_pooling_that_a_sentence_transformers_folder_states_is_used(tmp_path: Path) -> None:
    save(tmp_path / "m", "bert")
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (tmp_path / "m" / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    plan = HuggingFace(str(tmp_path / "m")).plan()
    assert (plan.pooling, plan.max_length) == ("first", 20)


def decoded(folder: Path, responses: Responses, **settings: Any) -> list[str]:
    made = HuggingFace(str(folder), **settings)
    _, tokenizer = module.load(made.plan().folder, made.plan().weights, made.plan().kind, "float32", "cpu")
    return [" ".join(WORDS[i] for i in tokens.ids) for tokens in tokenise(tokenizer, responses, made.plan())]


def test_prompts_go_through_the_chat_template(tmp_path: Path) -> None:
    save(tmp_path / "m", "llama", template=TEMPLATE)
    chat = canonical_chat([{"role": "user", "content": "why"}, {"role": "assistant", "content": "no"}])
    responses = replace(responses_of(["yes", "the cat"], [chat, "prompt"]), chat_P=np.array([True, False]))
    assert decoded(tmp_path / "m", responses) == [
        "<s> <user> why </s> <bot> no </s> <bot> yes </s>",
        "<s> <user> prompt </s> <bot> the cat </s>",
    ]


def test_without_a_template_prompt_and_response_stand_one_after_the_other(tmp_path: Path) -> None:
    save(tmp_path / "m", "llama")
    save(tmp_path / "b", "bert")
    assert decoded(tmp_path / "m", responses_of(["yes"], ["why"])) == ["<s> why yes"]
    assert decoded(tmp_path / "b", responses_of(["yes"], ["why"]), text="joint") == ["<s> why </s> yes </s>"]
    assert decoded(tmp_path / "b", responses_of(["yes"], ["why"])) == ["<s> yes </s>"]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_the_response_survives_truncation(tmp_path: Path, template: str | None) -> None:
    save(tmp_path / "m", "llama", template=template)
    responses = responses_of(["yes the cat sat", "no the cat sat"], ["prompt " * 1000])
    rows = decoded(tmp_path / "m", responses)
    assert all(len(row.split()) == 32 for row in rows)
    assert "yes the cat sat" in rows[0]
    assert "no the cat sat" in rows[1]
    features = encoder(f"hf:{tmp_path / 'm'}").encode(responses)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def refuse(name: str, match: str, responses: Responses | None = None, **settings: Any) -> None:
    with pytest.raises((EncoderError, SettingsError), match=match) as caught:
        encoder(name, **settings).encode(responses or responses_of(["yes"]))
    assert "\n" not in str(caught.value)


def test_what_cannot_work_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    import transformers as tf

    refuse("hf:./absent", "there is no such folder")
    (tmp_path / "empty").mkdir()
    refuse(f"hf:{tmp_path / 'empty'}", "holds no model that transformers knows")
    save(tmp_path / "m", "llama", template=TEMPLATE)
    refuse(f"hf:{tmp_path / 'm'}", "is of kind 'causal' and has no score", score=True)
    refuse(f"hf:{tmp_path / 'm'}", "reads at most 32 tokens; max_length = 64", max_length=64)
    chat = canonical_chat([{"role": "tool", "content": "why"}])
    responses = replace(responses_of(["yes"], [chat]), chat_P=np.array([True]))
    refuse(f"hf:{tmp_path / 'm'}", "chat template refuses the prompt .*no role tool", responses)
    tf.T5Config(d_model=8, num_layers=1, num_heads=1, d_ff=8, vocab_size=9).save_pretrained(tmp_path / "t5")
    refuse(f"hf:{tmp_path / 't5'}", "encoder-decoder")

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refuse("hf:some/model", "cannot be had from the hub: no route")


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    save(tmp_path / "m", "llama")
    (tmp_path / "m" / "model.safetensors").unlink()
    refuse(f"hf:{tmp_path / 'm'}", "cannot be loaded")


def test_a_model_that_overflows_names_the_text(tmp_path: Path) -> None:
    model = save(tmp_path / "m", "llama")
    model.model.embed_tokens.weight.data[WORDS.index("sat")] = float("inf")
    model.save_pretrained(tmp_path / "m")
    refuse(f"hf:{tmp_path / 'm'}", "NaN or infinite features for the response 'the cat sat", responses_of(RESPONSES))
