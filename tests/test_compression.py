"""The study of compressed memory: who sees whom, and that the model is itself where no compression token is."""

from __future__ import annotations

import numpy as np
import pytest

from judge_cases import save_judge
from polypref.studies.compression import Layout, compressing


@pytest.fixture
def model(tmp_path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(save_judge(tmp_path)).eval()


@pytest.mark.parametrize("memory", ["concat", "merge"])
def test_the_mask_is_that_of_the_definition(memory):
    layout = Layout.of([3, 1, 2], 4, 2, memory)
    seen = layout.seen_TL()
    kinds = list(zip(layout.chunk_T.tolist(), layout.slot_T.tolist(), strict=True))
    assert len(kinds) == 3 + 1 + 2 + 3 * 2 + 4 and layout.chunks == 3
    for t, (chunk, _) in enumerate(kinds):
        for s, (other, slot) in enumerate(kinds):
            own = chunk == other and s <= t
            earlier = memory == "concat" and other < chunk and slot >= 0
            assert seen[t, s] == (own or earlier), (t, s)
        if memory == "merge":
            assert seen[t, len(kinds) :].reshape(3, 2).all(axis=1).tolist() == [at == chunk - 1 for at in range(3)]
            assert seen[t, len(kinds) :].sum() == (2 if chunk else 0)


def test_merged_memory_is_the_running_mean():
    layout = Layout.of([2, 2, 2], 1, 2, "merge")
    value_TD = np.random.default_rng(0).normal(size=(len(layout.chunk_T), 5))
    h = np.stack([[value_TD[(layout.chunk_T == c) & (layout.slot_T == k)][0] for k in range(2)] for c in range(3)])
    memory = h[0]
    for t in (2, 3):
        memory = (1 - 1 / t) * memory + h[t - 1] / t
    assert np.allclose((layout.merging_LT() @ value_TD)[-2:], memory)


@pytest.mark.parametrize("memory", ["concat", "merge"])
def test_the_base_is_itself_to_the_bit_where_no_compression_token_acts(model, memory):
    import torch

    layout = Layout.of([4, 3], 3, 2, memory)
    ids = torch.randint(4, 20, (2, len(layout.chunk_T)))
    first, later = layout.chunk_T == 0, layout.chunk_T == 2
    found = compressing(model, 2)
    with torch.no_grad():
        before = found.hidden(ids, layout)
        for one in found.updates:
            one.up.copy_(torch.randn(one.up.shape))
        after = found.hidden(ids, layout)
    text = first & (layout.slot_T < 0)
    assert torch.equal(before[:, text], after[:, text])  # they see nothing of the memory
    assert not torch.allclose(before[:, layout.slot_T >= 0], after[:, layout.slot_T >= 0])
    assert not torch.allclose(before[:, later], after[:, later])  # the target sees it


def test_without_memory_the_model_is_that_of_transformers(model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.randint(4, 20, (2, 6))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval().model(ids).last_hidden_state
    layout = Layout.of([], 6, 2, "concat")
    assert torch.allclose(compressing(model, 2).hidden(ids, layout), plain, atol=1e-5)


@pytest.mark.parametrize("memory", ["concat", "merge"])
def test_the_target_knows_a_chunk_through_its_compression_tokens_alone(model, memory):
    """Streaming: the chunk is gone when the target is read, and only keys and values of the memory are left."""
    import torch

    layout = Layout.of([4], 3, 2, memory)
    ids = torch.randint(4, 20, (1, len(layout.chunk_T)))
    changed = ids.clone()
    changed[:, 0] = (ids[:, 0] - 4 + 7) % 16 + 4
    found, target = compressing(model, 2), layout.chunk_T == 1
    with torch.no_grad():
        assert not torch.allclose(found.hidden(ids, layout)[:, target], found.hidden(changed, layout)[:, target])
        blind = layout.seen_TL()
        blind[np.ix_(layout.slot_T >= 0, (layout.slot_T < 0).tolist() + [False] * (blind.shape[1] - len(target)))] = (
            False
        )
        cut = Cut(**vars(layout), blind_TL=blind)
        assert torch.equal(found.hidden(ids, cut)[:, target], found.hidden(changed, cut)[:, target])


class Cut(Layout):
    """A layout with another mask."""

    def __init__(self, blind_TL, **layout):
        super().__init__(**layout)
        object.__setattr__(self, "blind_TL", blind_TL)

    def seen_TL(self):
        return self.blind_TL


def test_it_learns_and_one_chunk_is_alike_in_both_memories(model):
    import torch

    found = compressing(model, 1)
    layouts = [Layout.of([3], 2, 1, memory) for memory in ("concat", "merge")]
    ids = torch.randint(4, 20, (4, len(layouts[0].chunk_T)))
    with torch.no_grad():
        both = [found.hidden(ids, layout) for layout in layouts]
    assert torch.allclose(*both, atol=1e-5)
    optimizer, losses = torch.optim.AdamW(found.parameters(), 0.05), []
    frozen = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(40):
        logits = model.lm_head(found.hidden(ids, layouts[1])[:, -1])
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 0])  # what the first token of the chunk was
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters())
