"""The lean engine on a tiny random Llama: its chances are those of transformers, its gradient is TRL's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from judge_cases import save_judge
from polypref.studies.policy.lean import ALPHA, MATRICES, RANK, Batch, Engine, Factors, Trunk, fresh_lora, parameters

UPPER, END, MOST = 2, 3, 5
PROMPTS = [(2, 18, 11), (2, 18, 12, 13, 14), (2, 17)]
OF_B = np.repeat([0, 1, 2], 4)
PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@pytest.fixture(scope="module")
def llama() -> Any:
    """Three layers, in which two query heads share a key."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    known: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": END, "pad_token_id": 0, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=32, **size, **heads, **known))
    for parameter in model.parameters():
        parameter.data = parameter.data * 4
    return model.eval()


@pytest.fixture
def engine(llama: Any) -> Engine:
    return Engine(Trunk.of(llama, UPPER, torch.float32), END, MOST)


def moved(engine: Engine) -> Factors:
    """A LoRA that changes the model."""
    lora, draw = fresh_lora(engine.trunk, 1), torch.Generator().manual_seed(2)
    for factor in parameters(lora):
        with torch.no_grad():
            factor += 0.1 * torch.randn(factor.shape, generator=draw)
    return lora


def sampled(engine: Engine, lora: Factors | None) -> Batch:
    return engine.sample(PROMPTS, OF_B, np.random.default_rng(4).random((len(OF_B), MOST)), lora)


def with_peft(llama: Any, lora: Factors) -> Any:
    """The same model and LoRA, by peft."""
    from copy import deepcopy

    from peft import LoraConfig, get_peft_model

    names = [name for parts in PARTS.values() for name in parts]
    layers = list(range(len(llama.model.layers) - UPPER, len(llama.model.layers)))
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=[n.split(".")[1] for n in names], layers_to_transform=layers
    )
    model: Any = get_peft_model(deepcopy(llama), config)
    for pairs, at in zip(lora, layers, strict=True):
        for matrix, (a, b) in pairs.items():
            start = 0
            for place in of_layer(model, at, matrix):
                place.lora_A["default"].weight.data = a.detach().clone()
                rows = place.lora_B["default"].weight.shape[0]
                place.lora_B["default"].weight.data = b.detach()[start : start + rows].clone()
                start += rows
    return model


def of_layer(model: Any, at: int, matrix: str) -> list[Any]:
    """peft's modules of what we join."""
    return [model.get_submodule(f"base_model.model.model.layers.{at}.{name}") for name in PARTS[matrix]]


def as_trl(batch: Batch) -> dict[str, Any]:
    """The batch in TRL's form: prompts padded on the left."""
    longest = max(map(len, PROMPTS))
    prompt = torch.tensor([[0] * (longest - len(PROMPTS[p])) + list(PROMPTS[p]) for p in OF_B])
    mask = torch.tensor([[0] * (longest - len(PROMPTS[p])) + [1] * len(PROMPTS[p]) for p in OF_B])
    said = batch.said_BT.long()
    return {"prompt_ids": prompt, "prompt_mask": mask, "completion_ids": batch.token_BT, "completion_mask": said}


def chances(model: Any, batch: Batch) -> Any:
    """Log-probabilities of a batch's tokens by transformers, where they are said."""
    trl = as_trl(batch)
    whole = torch.cat([trl["prompt_ids"], batch.token_BT], 1)
    mask = torch.cat([trl["prompt_mask"], trl["completion_mask"]], 1)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=whole, attention_mask=mask, position_ids=place).logits
    start = trl["prompt_ids"].shape[1]
    found = torch.log_softmax(logits[:, start - 1 : -1].float(), -1).gather(2, batch.token_BT[..., None])[..., 0]
    return found * batch.said_BT


def test_chances_with_and_without_the_lora_are_those_of_transformers(llama: Any, engine: Engine) -> None:
    pytest.importorskip("peft")
    lora = moved(engine)
    batch = sampled(engine, lora)
    assert not batch.said_BT.all(), "no completion ended early, so that case was not tested"
    with torch.no_grad():
        own, theirs = engine.log_chances(batch, lora) * batch.said_BT, chances(with_peft(llama, lora), batch)
        assert torch.allclose(own, theirs, atol=1e-5)
        plain = engine.log_chances(batch, None) * batch.said_BT
        assert torch.allclose(plain, chances(llama, batch), atol=1e-5)
        assert not torch.allclose(plain, own, atol=1e-2)


def test_samples_follow_the_chances(engine: Engine) -> None:
    """First two tokens of many completions, against the exact chances of pairs."""
    lora, many = moved(engine), 20_000
    draw = np.random.default_rng(0).random((many, 2))
    short = Engine(engine.trunk, END, 2)
    batch = short.sample(PROMPTS[:1], np.zeros(many, int), draw, lora)
    with torch.no_grad():
        log_B = (short.log_chances(batch, lora) * batch.said_BT).sum(1)
    told = [tuple(token[said].tolist()) for token, said in zip(batch.token_BT, batch.said_BT, strict=True)]
    counted, chance = Counter(told), dict(zip(told, log_B.exp().tolist(), strict=True))
    for pair, count in counted.most_common(10):
        assert abs(count / many - chance[pair]) < 5 * (chance[pair] / many) ** 0.5


def test_gradient_is_that_of_trl(llama: Any, engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("trl")
    from transformers import AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from policy_cases import rows

    lora, kl = moved(engine), 0.3
    batch, advantage_B = sampled(engine, lora), np.random.default_rng(6).standard_normal(len(OF_B))
    loss, _ = engine.loss(batch, advantage_B, kl, lora)
    loss.backward()

    folder = save_judge(tmp_path / "m", template=None, pad="<pad>", side="left")
    settings: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
    settings |= {"loss_type": "dapo", "use_bias_correction_kl": False}
    args = GRPOConfig(str(tmp_path / "out"), beta=kl, per_device_train_batch_size=8, **settings)
    model = with_peft(llama, lora)
    trainer: Any = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=rows(),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    model = trainer.model.float()
    with torch.no_grad(), model.disable_adapter():
        reference = chances(model, batch)
    inputs = as_trl(batch) | {
        "advantages": torch.tensor(advantage_B, dtype=torch.float32),
        "ref_per_token_logps": reference,
        "num_items_in_batch": batch.said_BT.sum(),
    }
    for parameter in model.parameters():
        parameter.grad = None
    theirs = trainer._compute_loss(model, inputs)
    theirs.backward()
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    first = len(llama.model.layers) - UPPER
    for at, pairs in enumerate(lora):
        for matrix in MATRICES:
            places, (a, b) = of_layer(model, first + at, matrix), pairs[matrix]
            down = torch.stack([place.lora_A["default"].weight.grad for place in places]).sum(0)
            up = torch.cat([place.lora_B["default"].weight.grad for place in places])
            for own, other in ((a.grad, down), (b.grad, up)):
                assert own is not None and own.abs().max() > 1e-4
                assert torch.allclose(own, other, atol=1e-5, rtol=1e-4)


def test_a_lora_is_where_its_model_is(engine: Engine) -> None:
    elsewhere = replace(engine.trunk, head=engine.trunk.head.to("meta"))
    assert {factor.device.type for factor in parameters(fresh_lora(elsewhere, 0))} == {"meta"}
    assert {factor.device.type for factor in parameters(fresh_lora(engine.trunk, 0))} == {"cpu"}
