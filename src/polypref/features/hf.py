"""Any transformers model as an encoder: sentence encoders, causal language models, reward models.

The features of a text, by kind of model (``pooling`` overrides):

    encoder    mean of the last hidden states
    causal     last hidden state of the last token
    reward     the score head's input: the last token's hidden state (the first token's in BERT-like networks); with
               ``score=True`` the model's own score is one more feature, the last

Prompts go through the tokenizer's chat template if it has one. Texts that are too long lose the beginning of the prompt
first and the end of the response last. Not covered: encoder-decoders, quantised weights, models whose code is not in
transformers.

Suffixes here: ``_C`` scores of the network's own head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polypref.comparisons import IntArray, Responses
from polypref.errors import EncoderError, SettingsError
from polypref.features.cache import Features
from polypref.features.encode_missing import Cache, TextMode, cache_in_force, encode_cached, pairs
from polypref.features.model_folder import json_of, line, locate
from polypref.features.protocol import Read
from polypref.features.transformer import (
    LOCAL,
    WEIGHTS,
    Framer,
    Pooling,
    Tokens,
    default_device,
    inputs_of,
    pool,
    quiet,
)
from polypref.network_access import Permission, present
from polypref.regular_files import expanded

if TYPE_CHECKING:
    import torch

    Forward = Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, torch.Tensor | None]]

Kind = Literal["encoder", "causal", "reward"]

MAX_LENGTH = 2048  # tokens, unless the model reads fewer or the settings say otherwise
POSITIONS_AFTER_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "roberta-prelayernorm"}


@dataclass(frozen=True)
class HuggingFace:
    """A model by hub name or local folder.

    ``text``       "response" or "joint"; None: the response alone for an encoder, prompt and response for the others.
    ``pooling``    "mean", "last", "first"; None: see the top of this file.
    ``score``      reward models only: append the model's own score (scores, if it gives several), or give it "only".
    ``max_length`` tokens read; None: the model's limit, at most 2,048.
    ``dtype``      "float32", "bfloat16", "float16": of the network; features are float32.
    ``revision``   of the hub; None: the newest.
    ``batch_size``, ``device``, ``cache_folder`` affect speed and place, never values; ``features`` as in ``Encoder``.
    """

    model: str
    text: TextMode | None = None
    pooling: Pooling | None = None
    score: bool | Literal["only"] = False
    max_length: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    revision: str | None = None
    batch_size: int = 16
    device: str | None = None
    cache_folder: str | None = None
    cache: Cache = field(default_factory=cache_in_force, compare=False)
    features: Read = "pair"
    permission: Permission = field(default_factory=present, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"hf:{self.model}"

    @property
    def identity(self) -> str:
        plan = self.plan()
        return (
            f"hf:{plan.short_name} weights={plan.weights} kind={plan.kind} pooling={plan.pooling} score={self.score} "
            f"text={plan.text} max_length={plan.max_length} dtype={self.dtype}"
        )

    @property
    def reads_prompt(self) -> bool:
        """See ``protocol.reads_prompt``."""
        return self.plan().text == "joint"

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` (R, hidden size, plus the number of scores with ``score``); cached.

        Raises EncoderError if the model is not available or cannot be used, CacheError.
        """
        return encode_cached(self, self.plan().text, responses)

    def plan(self) -> Plan:
        """The settings with everything that depends on the model resolved."""
        folder, weights = locate(self.model, self.revision, self.permission)
        kind, pooling, limit = inspect(folder, weights)
        if self.score and kind != "reward":
            raise SettingsError(f"{self.name} is of kind {kind!r} and has no score; score=True needs a reward model.")
        if self.max_length is not None and self.max_length > limit:
            raise SettingsError(f"{self.name} reads at most {limit} tokens; max_length = {self.max_length}.")
        return Plan(
            folder=folder,
            short_name=folder.name if expanded(self.model).is_dir() else self.model,
            weights=weights,
            kind=kind,
            pooling=self.pooling or pooling,
            text=self.text or ("response" if kind == "encoder" else "joint"),
            max_length=self.max_length or min(limit, MAX_LENGTH),
        )

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        import torch

        plan = self.plan()
        network, tokenizer = load(plan.folder, plan.weights, plan.kind, self.dtype, self.device or default_device())
        forward = _with_score(network) if self.score else _without_score(network, plan.kind)
        tokens = tokenise(tokenizer, responses, plan)
        types = getattr(network.config, "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names
        for index_B, inputs in inputs_of(tokens, self.batch_size, network.device, types):
            with torch.inference_mode():
                hidden_BTD, score_BC = forward(inputs)
                parts = []
                if self.score != "only":
                    parts.append(pool(hidden_BTD, inputs["attention_mask"], plan.pooling))
                if score_BC is not None:
                    parts.append(score_BC.float())
                features_BD = torch.cat(parts, 1)
            yield index_B, features_BD.cpu().numpy()


@dataclass(frozen=True)
class Plan:
    """A HuggingFace encoder's resolved settings. ``weights`` names the content of the model's files."""

    folder: Path
    short_name: str
    weights: str
    kind: Kind
    pooling: Pooling
    text: TextMode
    max_length: int


@lru_cache(maxsize=8)
def inspect(folder: Path, weights: str) -> tuple[Kind, Pooling, int]:
    """Kind, its pooling, and the most tokens it reads, from the model's own files, which ``weights`` names."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder} holds no model that transformers knows: {line(error)}.") from error
    if config.is_encoder_decoder:
        raise EncoderError(
            f"{folder} holds an encoder-decoder ({config.model_type}); give an encoder or a causal model."
        )
    masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked
    architecture = (config.architectures or [""])[0]
    kind: Kind = "causal" if causal else "encoder"
    pooling: Pooling = "last" if causal else "mean"
    if architecture.endswith("ForSequenceClassification"):
        kind, pooling = "reward", "last" if causal else "first"
    elif stated := _sentence_transformers_pooling(folder):
        pooling = stated
    limits = [
        json_of(folder, "tokenizer_config.json").get("model_max_length"),
        json_of(folder, "sentence_bert_config.json").get("max_seq_length"),
        (getattr(config, "max_position_embeddings", None) or MAX_LENGTH)
        - (2 if config.model_type in POSITIONS_AFTER_PADDING else 0),
    ]
    return kind, pooling, int(min(limit for limit in limits if limit))


def score_names(folder: Path) -> list[str]:
    """The names of a reward model's scores, in order; ``LABEL_0``, ... if they have none."""
    from transformers import AutoConfig

    with quiet():
        named: dict[int, str] = AutoConfig.from_pretrained(folder, **LOCAL).id2label or {}
    return [named[at] for at in sorted(named)]


def _sentence_transformers_pooling(folder: Path) -> Pooling | None:
    """Pooling that a sentence-transformers folder states, None where it states none that we know."""
    stated = json_of(folder, "1_Pooling/config.json")
    if stated.get("pooling_mode_cls_token"):
        return "first"
    if stated.get("pooling_mode_lasttoken"):
        return "last"
    return "mean" if stated.get("pooling_mode_mean_tokens") else None


@lru_cache(maxsize=1)
def load(folder: Path, weights: str, kind: Kind, dtype: str, device: str) -> tuple[Any, Any]:
    """The network, in evaluation mode, and its tokenizer; ``weights`` names the content of the folder.

    Raises EncoderError if they cannot be loaded, or if a reward model's files lack its head, which transformers would
    initialise at random.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    network_class = AutoModelForSequenceClassification if kind == "reward" else AutoModel
    try:
        with quiet():
            network, info = network_class.from_pretrained(
                folder, **WEIGHTS, dtype=getattr(torch, dtype), output_loading_info=True
            )
            network, tokenizer = network.eval().to(device), AutoTokenizer.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise EncoderError(f"the model in {folder} cannot be loaded: {line(error)}.") from error
    if kind == "reward" and info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"]))
        raise EncoderError(f"the reward model in {folder} lacks {lacking}: save it again together with its head.")
    return network, tokenizer


def _without_score(network: Any, kind: Kind) -> Forward:
    base = network.base_model if kind == "reward" else network
    return lambda inputs: (base(**inputs).last_hidden_state, None)


def _with_score(network: Any) -> Forward:
    """Hidden states and scores. A causal model's head is applied here: transformers would look for padding tokens."""
    if not hasattr(network, "score"):

        def whole(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            output = network(**inputs, output_hidden_states=True)
            return output.hidden_states[-1], output.logits

        return whole

    def base_then_head(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_BTD = network.base_model(**inputs).last_hidden_state
        last_BD = pool(hidden_BTD, inputs["attention_mask"], "last")
        return hidden_BTD, network.score(last_BD.to(hidden_BTD.dtype))

    return base_then_head


def tokenise(tokenizer: Any, responses: Responses, plan: Plan) -> list[Tokens]:
    """Token ids of each response, with its prompt where the plan says so."""
    framer = Framer(tokenizer, plan.max_length)
    if plan.text == "joint" and tokenizer.chat_template:
        return framer.frame(_chat_pairs(tokenizer, responses), special=False)
    if plan.text == "joint" and not framer.after:  # the tokenizer puts no token between the two
        return framer.frame([(prompt + "\n\n", text) for prompt, text in pairs(responses, "joint")])
    return framer.frame(pairs(responses, plan.text))


def _chat_pairs(tokenizer: Any, responses: Responses) -> list[tuple[str, str]]:
    """(rendered prompt, rendered response) under the tokenizer's chat template."""
    from jinja2 import TemplateError

    rendered: list[tuple[str, str]] = []
    opening: dict[int, str] = {}
    for p, text in zip(responses.prompt_R.tolist(), responses.texts_R, strict=True):
        messages = responses.messages(p)
        try:
            if p not in opening:
                opening[p] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            turn = [*messages, {"role": "assistant", "content": text}]
            whole = tokenizer.apply_chat_template(turn, tokenize=False)
        except TemplateError as error:
            excerpt = repr(responses.prompts[p][:60])
            raise EncoderError(f"the chat template refuses the prompt {excerpt}: {line(error)}.") from error
        cut = len(opening[p])
        if not whole.startswith(opening[p]):  # the generation prompt is not the start of an answer
            cut = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(opening[p], whole, strict=False)))
        rendered.append((whole[:cut], whole[cut:]))
    return rendered
