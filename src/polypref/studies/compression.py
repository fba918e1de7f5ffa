"""A study, not a product: a person's judgements in a few compressed tokens of a language model.

Source: Kim, Yeom, Yun and Song 2024, "Compressed Context Memory for Online Language Model Interaction" (arXiv
2312.03414). After each judgement (a chunk) come m compression tokens; their keys and values are what is remembered:

    concat  Mem(t) = [Mem(t-1); h(t)]
    merge   Mem(t) = (1 - 1/t) Mem(t-1) + (1/t) h(t), the mean of all

A low-rank update of q, k, v and o acts at the compression tokens alone, so the model is itself everywhere else. All
chunks are read in one forward pass under a block mask: a chunk's tokens see their own chunk and the memory before it,
the compression tokens also see their chunk, the target sees the memory and itself.

Ours: positions are slots: all memory stands before all text, and merged tokens of one slot share a position, so the
mean of their rotated keys is a key; merged memory is appended to the keys (``attention``), so a compression token still
sees its own. The compression tokens' vectors are trained as well. Not covered: streaming one chunk at a time, which
gives the same memory; models that do not call an attention function of transformers' interface.

Suffixes here: ``_L`` keys: tokens, and after them the slots of the merged memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Memory = Literal["concat", "merge"]
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
TEXT, COMPRESSION = 0, 1


@dataclass(frozen=True, eq=False)
class Layout:
    """One sequence: chunk after chunk, each with its compression tokens, and then the target.

    ``chunk_T``     the chunk of each token; the target's is the number of chunks.
    ``slot_T``      which compression token it is; -1 for text.
    ``position_T``  positions for the rotary embedding.
    ``slots``       compression tokens of a chunk.
    """

    chunk_T: np.ndarray
    slot_T: np.ndarray
    position_T: np.ndarray
    slots: int
    memory: Memory

    @classmethod
    def of(cls, chunk_sizes: Sequence[int], target: int, slots: int, memory: Memory) -> Layout:
        """For chunks of these many tokens, and a target."""
        chunk, slot, position = [], [], []
        before = slots * (len(chunk_sizes) if memory == "concat" else 1)
        for at, size in enumerate([*chunk_sizes, target]):
            own = slots if at < len(chunk_sizes) else 0
            chunk += [at] * (size + own)
            slot += [-1] * size + list(range(own))
            offset = at * slots if memory == "concat" else 0
            position += [*range(before, before + size), *range(offset, offset + own)]
        return cls(np.array(chunk), np.array(slot), np.array(position), slots, memory)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return int(self.chunk_T[-1])

    def seen_TL(self) -> np.ndarray:
        """Which keys each token sees; with ``merge`` the last ``chunks * slots`` keys are Mem(1), Mem(2), ..."""
        chunk_T, text_T = self.chunk_T, self.slot_T < 0
        order_T = np.arange(len(chunk_T))
        own_TT = (chunk_T[:, None] == chunk_T) & (order_T[:, None] >= order_T)
        if self.memory == "concat":
            return own_TT | ((chunk_T[:, None] > chunk_T) & ~text_T)
        remembered_TL = chunk_T[:, None] - 1 == np.repeat(np.arange(self.chunks), self.slots)
        return np.concatenate([own_TT, remembered_TL], axis=1)

    def merging_LT(self) -> np.ndarray:
        """Weights of the tokens in each slot of Mem(1), Mem(2), ...: the mean over the chunks so far."""
        chunk_L = np.repeat(np.arange(self.chunks), self.slots)
        slot_L = np.tile(np.arange(self.slots), self.chunks)
        used_LT = (self.slot_T == slot_L[:, None]) & (self.chunk_T <= chunk_L[:, None])
        return used_LT / (chunk_L[:, None] + 1)


def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **more: Any) -> Any:
    """An attention function of transformers' interface that appends the merged memory to keys and values."""
    import torch

    merging_LT = more.get("merging_LT")
    if merging_LT is not None:
        key = torch.cat([key, merging_LT.to(key.dtype) @ key], 2)
        value = torch.cat([value, merging_LT.to(value.dtype) @ value], 2)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
    return found.transpose(1, 2).contiguous(), None


def compressing(model: Any, slots: int, rank: int = 8, alpha: int = 16, seed: int = 0) -> Compressor:
    """The model with conditional low-rank updates and vectors of the compression tokens; the base is frozen."""
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register("compressed memory", attention)
    model.set_attn_implementation("compressed memory")
    model.requires_grad_(False)
    draw = torch.Generator().manual_seed(seed)
    size = model.config.hidden_size
    mean_D = model.get_input_embeddings().weight.float().mean(0)
    start_ND = mean_D + 0.02 * torch.randn(slots, size, generator=draw)
    updates = []
    for layer in model.model.layers:
        for name in TARGETS:
            base = getattr(layer.self_attn, name)
            down = torch.randn(rank, base.in_features, generator=draw) / base.in_features**0.5
            updates.append(Update(base, down, torch.zeros(base.out_features, rank), alpha / rank))
    return Compressor(model, start_ND.requires_grad_(), updates)


class Update:
    """A low-rank update of one linear layer that acts at marked tokens alone."""

    def __init__(self, base: Any, down: torch.Tensor, up: torch.Tensor, scale: float):
        self.down, self.up, self.scale = down.requires_grad_(), up.requires_grad_(), scale
        self.marked_BT: torch.Tensor | None = None
        base.register_forward_hook(self._added)

    def _added(self, _: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        import torch

        if self.marked_BT is None:
            return output
        delta = (inputs[0].float() @ self.down.T @ self.up.T * self.scale).to(output.dtype)
        return torch.where(self.marked_BT[..., None], output + delta, output)


class Compressor:
    """A frozen model with what is trained: ``slot_ND``, the compression tokens' vectors, and ``updates``."""

    def __init__(self, model: Any, slot_ND: torch.Tensor, updates: list[Update]):
        self.model, self.slot_ND, self.updates = model, slot_ND, updates

    def parameters(self) -> list[torch.Tensor]:
        """What is trained."""
        return [self.slot_ND, *(part for one in self.updates for part in (one.down, one.up))]

    def hidden(self, ids_BT: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The last hidden states (B, T, D) of sequences of one layout; ids at compression tokens do not matter."""
        import torch

        slot_T = torch.as_tensor(layout.slot_T)
        vectors = self.model.get_input_embeddings()(ids_BT)
        own_TD = self.slot_ND.to(vectors.dtype)[slot_T.clamp(min=0)]
        marked_T = slot_T >= 0
        more = {"merging_LT": torch.as_tensor(layout.merging_LT())} if layout.memory == "merge" else {}
        with self._marked(marked_T.expand(ids_BT.shape)):
            return self.model.model(
                inputs_embeds=torch.where(marked_T[:, None], own_TD, vectors),
                attention_mask=torch.as_tensor(layout.seen_TL())[None, None].expand(len(ids_BT), 1, -1, -1),
                position_ids=torch.as_tensor(layout.position_T).expand(ids_BT.shape),
                use_cache=False,
                **more,
            ).last_hidden_state

    @contextmanager
    def _marked(self, marked_BT: torch.Tensor) -> Iterator[None]:
        for one in self.updates:
            one.marked_BT = marked_BT
        yield
        for one in self.updates:
            one.marked_BT = None
