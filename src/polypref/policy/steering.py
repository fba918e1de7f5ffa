"""Context steering: how strongly a language model follows a persona in its context, set by a dial while it writes.

Source: He et al. 2024, "CoS: Enhancing Personalization and Mitigating Bias with Context Steering" (arXiv 2405.01768).
At each token, of what is written so far y and the prompt x, with the persona c and without,

    log p_dial(y_t) = log p(y_t | x, y) + dial [log p(y_t | c, x, y) - log p(y_t | x, y)]  + a constant.

Dial 0 is the plain model, 1 the model with the persona in its context, more than 1 exaggerates it, below 1 tones it
down. The paper counts from the model with the context: its lambda is ``dial - 1``.

Ours: the plain side is the model's own generation with its own cache; this processor keeps a second cache for the side
with the persona, so a token costs two forward passes. Covered: batches of prompts of different lengths with a persona
each, several sequences for a prompt, beams (a row whose past changed is read anew), tokens that other processors
excluded stay excluded. A dial of 0 changes no bit. Not covered: assisted generation; a persona that contradicts bounds:
a gate has to judge the text. No dial above ``most`` is built: 2, or what ``BoundsFile.steering`` says.

Suffixes here: ``_V`` tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polypref.control_tokens import chat
from polypref.errors import SettingsError

if TYPE_CHECKING:
    import torch

MOST = 2.0  # the largest dial, unless bounds say otherwise


class ContextSteering:
    """A logits processor for ``generate``: one for each call.

    ``persona_BT``, ``mask_BT``  tokens of persona and prompt, padded on the left, and which of them are no padding.
    ``plain_length``             tokens of the padded prompts that ``generate`` gets.
    ``most``                     the largest dial: ``BoundsFile.steering``.
    """

    def __init__(
        self,
        model: Any,
        persona_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        plain_length: int,
        dial: float,
        most: float = MOST,
    ):
        if not (math.isfinite(dial) and dial >= 0):
            raise SettingsError(f"the dial is {dial}; expected a number of at least 0, as in dial=1.5.")
        if not dial <= most:
            raise SettingsError(
                f"the dial {dial:g} is above {most:g}, the largest; ask for less, or have the bounds say more."
            )
        self.model, self.persona_BT, self.mask_BT = model, persona_BT, mask_BT
        self.plain_length, self._dial = plain_length, dial
        self._cache: Any = None
        self._read_BT: torch.Tensor | None = None

    @property
    def dial(self) -> float:
        """As it was asked for."""
        return self._dial

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The steered scores (B, V) of the next token; excluded tokens stay at minus infinity."""
        import torch

        if self.dial == 0:
            return scores
        persona_BV = self._log_probabilities(input_ids[:, self.plain_length :])
        plain_BV = scores.float().log_softmax(-1)
        steered_BV = (1 - self.dial) * plain_BV + self.dial * persona_BV
        return torch.where(torch.isneginf(scores), scores, steered_BV.to(scores.dtype))

    def _log_probabilities(self, written_BT: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, V) of the token after ``written_BT``, with the persona in the context."""
        import torch

        rows, personas = len(written_BT), len(self.persona_BT)
        if rows % personas:
            raise SettingsError(
                f"{rows} sequences are written for {personas} personas; give one persona to each prompt."
            )
        mask_BT = self.mask_BT.repeat_interleave(rows // personas, 0)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(written_BT.shape)], 1)
        read_BT, goes_on = self._read_BT, False
        if read_BT is not None and read_BT.shape == written_BT[:, :-1].shape:
            goes_on = bool((read_BT == written_BT[:, :-1]).all())
        new_BT = written_BT[:, -1:]
        if not goes_on:
            self._cache = None
            new_BT = torch.cat([self.persona_BT.repeat_interleave(rows // personas, 0), written_BT], 1)
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, -new_BT.shape[1] :]
        with torch.no_grad():
            found = self.model(
                input_ids=new_BT,
                attention_mask=mask_BT,
                position_ids=position_BT,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache, self._read_BT = found.past_key_values, written_BT.clone()
        return found.logits[:, -1].float().log_softmax(-1)


def steering(
    model: Any, tokenizer: Any, prompts: Sequence[str], personas: Sequence[str], dial: float, most: float = MOST
) -> tuple[dict[str, torch.Tensor], ContextSteering]:
    """What ``generate`` takes to answer each prompt under its persona: its inputs, and the processor.

    The persona is the chat's system message; control tokens that a text spells out stay text. ``most`` is the largest
    dial, ``BoundsFile.steering``. Raises SettingsError for a dial above it, a tokenizer without chat template,
    different numbers of prompts and personas, and contexts that are longer than the model's.
    """
    if len(prompts) != len(personas) or not prompts:
        raise SettingsError(
            f"{len(prompts)} prompts and {len(personas)} personas; expected one persona for each prompt."
        )
    if not tokenizer.chat_template:
        raise SettingsError(
            "the model's tokenizer has no chat template, which tells it where the persona goes; give another."
        )
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    told = [[{"role": "system", "content": persona}, *one] for persona, one in zip(personas, asked, strict=True)]
    plain_BT, plain_mask_BT = _padded(model, tokenizer, asked)
    persona_BT, mask_BT = _padded(model, tokenizer, told)
    processor = ContextSteering(model, persona_BT, mask_BT, plain_BT.shape[1], dial, most)
    return {"input_ids": plain_BT, "attention_mask": plain_mask_BT}, processor


def _padded(model: Any, tokenizer: Any, chats: Sequence[list[dict[str, str]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The chats' tokens, padded on the left, and which of them are no padding (B, T)."""
    import torch

    texts = [chat(tokenizer, one) for one in chats]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    longest, most = max(map(len, ids)), getattr(model.config, "max_position_embeddings", None)
    if most is not None and longest >= most:
        raise SettingsError(f"a prompt with its persona has {longest} tokens and the model reads {most}; shorten it.")
    pad = next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)
    padded_BT = torch.tensor([[pad] * (longest - len(one)) + one for one in ids], device=model.device)
    mask_BT = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids], device=model.device)
    return padded_BT, mask_BT
