"""A causal language model in this process as the upstream: chats on a laptop, without another server.

One thread of its own writes, one request after the other, on one core: the event loop and the scorer stay free. A
conversation is read once, in pieces, whatever the number of candidates, and all candidates are then sampled together.
Each token asks whether the answer is still wanted, so a time-out, a client that leaves, and the end of the server stop
the work within a token or a piece. OpenAI's ``max_tokens``, ``temperature``, ``top_p`` and ``seed`` are followed, with
OpenAI's defaults but for the length (``LONGEST``); one seed, conversation and number of candidates give the same texts.

Covered: what would change the texts and is not followed is refused, never ignored; a conversation longer than the
model's context; memory that runs out; control tokens that a client spells out in a message, which stay text. Not
covered: ``stop`` and penalties; models whose memory is no cache of keys and values (Mamba).

Suffixes here: ``_C`` candidates.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypref import content
from polypref.control_tokens import chat
from polypref.errors import EncoderError, InputError, SettingsError
from polypref.features.hf import inspect
from polypref.features.memory import ran_out
from polypref.features.model_folder import line, locate
from polypref.judges.local import load
from polypref.serve.dialects.conversation import text_of
from polypref.serve.dialects.upstream import Candidate, Reply, TooLong, Upstream, UpstreamFailed, usable

if TYPE_CHECKING:
    import torch

LONGEST = 256  # tokens of a candidate, unless the request says otherwise
PIECE = 128  # tokens of the conversation that are read between two looks whether to go on
HIGHEST_TEMPERATURE = 2.0
LARGEST_SEED = 2**63 - 1
NOT_FOLLOWED = ("stop", "frequency_penalty", "presence_penalty", "logit_bias", "response_format", "prediction")


class Stopped(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Sampling:
    """What a request says about its texts; ``tokens`` None: it does not say how long."""

    tokens: int | None
    temperature: float
    top_p: float
    seed: int | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Sampling:
        """Raises InputError for values that mean nothing, and for fields that are not followed."""
        for name in NOT_FOLLOWED:
            if body.get(name) and body[name] != {"type": "text"}:
                raise InputError(f"{name}: the model in this server does not follow it; leave it out.")
        tokens = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
        return cls(
            _number(body, tokens, 1, None, whole=True),
            float(_number(body, "temperature", 0, HIGHEST_TEMPERATURE, 1.0)),
            float(_number(body, "top_p", 0, 1, 1.0)),
            _number(body, "seed", -LARGEST_SEED, LARGEST_SEED, whole=True),
        )


def _number(
    body: Mapping[str, Any], name: str, low: float, high: float | None, usual: Any = None, whole: bool = False
) -> Any:
    given = body.get(name)
    if given is None:
        return usual
    kinds = (int,) if whole else (int, float)
    if type(given) not in kinds or not low <= given <= (float("inf") if high is None else high):
        upto = f"of at least {low}" if high is None else f"from {low} to {high}"
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {content.excerpt(given)}; expected {kind} {upto}.")
    return given


class LocalUpstream(Upstream):
    """The model ``named``: a folder, or a name that ``locate`` knows, asked for ``candidates`` texts.

    Raises EncoderError if it cannot be had, SettingsError if it has no chat template.
    """

    def __init__(self, named: str, candidates: int = 4, timeout: float = 60.0) -> None:
        import torch

        super().__init__(candidates, timeout)
        folder, weights = locate(named, None)
        kind, _, self.context = inspect(folder, weights)
        if kind != "causal":
            raise EncoderError(f"--upstream {named} is a model of kind {kind!r}; expected a causal language model.")
        self._network, self._tokenizer = load(folder, weights, "float32", "cpu")
        if not self._tokenizer.chat_template:
            raise SettingsError(f"--upstream {named} has no chat template; give an instructed model (smollm2).")
        self.model = Path(named).resolve().name if Path(named).is_dir() else named
        self.shown = f"{self.model}, in this process"
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, "upstream", initializer=partial(torch.set_num_threads, 1))

    async def write(self, body: Mapping[str, Any], many: int) -> Reply:
        work = _Work(self, Sampling.of(body), body["messages"], many)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Stopped:
            raise UpstreamFailed("the server stops; ask again in a moment.") from None
        except RuntimeError as error:
            if not self._stopping:
                raise
            raise UpstreamFailed("the server stops; ask again in a moment.") from error
        finally:
            work.wanted = False

    def stop(self) -> None:
        self._stopping = True
        self._thread.shutdown(wait=False)

    async def close(self) -> None:
        self.stop()

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        own = self._network.generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own]
        return sorted({one for one in (*listed, self._tokenizer.eos_token_id) if one is not None})

    def read(self, messages: list[Mapping[str, Any]]) -> list[int]:
        """The tokens of a conversation. Raises InputError if the model's template refuses it."""
        from jinja2 import TemplateError

        texts = [text_of(one.get("content"), f"message number {number}") for number, one in enumerate(messages, 1)]
        plain = [{"role": one.get("role"), "content": text} for one, text in zip(messages, texts, strict=True)]
        try:
            text = chat(self._tokenizer, plain)
        except TemplateError as error:
            raise InputError(f"the chat template of {self.model} refuses the messages: {line(error)}.") from error
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def sample(self, ids: list[int], sampling: Sampling, many: int, work: _Work) -> torch.Tensor:
        """The new tokens (C, T) after ``ids``, padded behind the ends. Raises Stopped."""
        import torch
        from transformers import DynamicCache, GenerationConfig, StoppingCriteriaList

        ids_1T = torch.tensor([ids])
        cache = DynamicCache(config=self._network.config)
        for at in range(0, len(ids) - 1, PIECE):
            work.ensure_wanted()
            piece_1T = ids_1T[:, at : min(at + PIECE, len(ids) - 1)]
            self._network(input_ids=piece_1T, past_key_values=cache, use_cache=True, logits_to_keep=1)
        if len(ids) > 1:
            cache.batch_repeat_interleave(many)
        chance: dict[str, Any] = {"do_sample": False}
        if sampling.temperature and sampling.top_p:
            chance = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        ids_CT = ids_1T.expand(many, -1)
        generation = GenerationConfig(
            max_new_tokens=sampling.tokens,
            eos_token_id=self.ends or None,
            pad_token_id=(self.ends or [0])[0],
            use_cache=True,
            **chance,
        )
        written_CT = self._network.generate(
            input_ids=ids_CT,
            attention_mask=torch.ones_like(ids_CT),
            past_key_values=cache,
            generation_config=generation,
            stopping_criteria=StoppingCriteriaList([work.over]),  # type: ignore[list-item]
        )
        work.ensure_wanted()
        return written_CT[:, len(ids) :]

    def text(self, tokens: list[int]) -> str:
        """Tokens as a text, without control tokens."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


class _Work:
    """One request, done when it is called, in the upstream's thread; ``wanted`` is taken back by those who wait."""

    def __init__(self, upstream: LocalUpstream, sampling: Sampling, messages: list[Any], many: int) -> None:
        self.upstream, self.sampling, self.messages, self.many = upstream, sampling, messages, many
        self.wanted = True

    def __call__(self) -> Reply:
        import torch

        self.ensure_wanted()
        ids = self.upstream.read(self.messages)
        sampling = self._within(len(ids))
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        try:
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                torch.manual_seed(seed)
                written_CT = self.upstream.sample(ids, sampling, self.many, self)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise UpstreamFailed(f"memory ran out with {self.many} candidates; lower --candidates.") from error
        return self._reply(len(ids), written_CT.tolist())

    def ensure_wanted(self) -> None:
        """Raises Stopped if nobody waits."""
        if not self.wanted or self.upstream.stopping:
            raise Stopped

    def over(self, ids_CT: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        """Whether each candidate is over (C); asked between two tokens."""
        import torch

        return torch.full((len(ids_CT),), not self.wanted or self.upstream.stopping)

    def _within(self, read: int) -> Sampling:
        """The settings, with a length. Raises TooLong if conversation and answer are more than the context."""
        context, asked = self.upstream.context, self.sampling.tokens
        if read + (asked or 1) > context:
            answer = f" and max_tokens {asked:,}" if asked else ""
            raise TooLong(
                f"this model's maximum context length is {context:,} tokens; the messages take {read:,}{answer}. "
                "Shorten them."
            )
        given = self.sampling
        return Sampling(asked or min(LONGEST, context - read), given.temperature, given.top_p, given.seed)

    def _reply(self, read: int, written: list[list[int]]) -> Reply:
        candidates, used = [], 0
        for tokens in written:
            end = next((at for at, token in enumerate(tokens) if token in self.upstream.ends), None)
            used += len(tokens) if end is None else end + 1
            text = self.upstream.text(tokens[:end])
            if usable(text):
                candidates.append(Candidate(text, "length" if end is None else "stop"))
        usage = {"prompt_tokens": read, "completion_tokens": used, "total_tokens": read + used}
        return Reply(tuple(candidates), len(written), usage, self.upstream.model)
