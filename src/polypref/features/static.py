"""A fast encoder, about a hundred times faster: token embeddings distilled from MiniLM with model2vec.

Source: Tulkens and van Dongen (2024), Model2Vec. Each token is run through MiniLM once; a text is the mean of its
tokens' vectors, at unit length. Deviation from model2vec's defaults: the vectors are centred and weighted as there
(SIF, 1e-4) but not rotated by PCA. Similarities stay the same, and features are equal on every machine, which an
eigensolver's rotation does not guarantee.

Suffixes here: ``_V`` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polypref import files, strict_json
from polypref.comparisons import IntArray, Responses
from polypref.errors import MissingExtra
from polypref.features import minilm
from polypref.features.cache import ELSEWHERE, Features, cache_root
from polypref.features.encode_missing import Cache, TextMode, batches, cache_in_force, encode_cached, pairs
from polypref.features.protocol import Read
from polypref.features.transformer import sha256_of
from polypref.network_access import Permission, acting_for, present
from polypref.regular_files import content_of
from polypref.terminal import say

if TYPE_CHECKING:
    from model2vec import StaticModel

SIF = 1e-4
CHECKSUMS = "sha256.json"
READ = ("config.json", "model.safetensors", "tokenizer.json")
RECIPE = f"distilled-from={minilm.SHA256} pooling=mean centred sif={SIF} unit-length recipe=1"


@dataclass(frozen=True)
class Static:
    """Static token embeddings of MiniLM (D = 384). Distilled once (about a minute), then kept in the cache folder.

    ``text``  "response": the response alone; "joint": prompt and response as one bag of tokens. No length limit.
    ``batch_size``, ``cache_folder``, ``cache`` affect speed and place, never values; the model is always stored.
    ``features`` as in ``Encoder``.
    """

    text: TextMode = "response"
    batch_size: int = 2048
    cache_folder: str | None = None
    cache: Cache = field(default_factory=cache_in_force, compare=False)
    features: Read = "pair"
    permission: Permission = field(default_factory=present, compare=False, repr=False)

    @property
    def name(self) -> str:
        return "static"

    @property
    def identity(self) -> str:
        return f"static {RECIPE} text={self.text}"

    def encode(self, responses: Responses) -> Features:
        """``features_RD`` (R, 384) of unit length (zero for an empty text); cached.

        Raises MissingExtra without model2vec, EncoderError without MiniLM's weights, CacheError.
        """
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[IntArray, Features]]:
        with acting_for(self.permission):
            model = load(cache_root() if self.cache_folder is None else Path(self.cache_folder))
        texts = ["\n".join(pair) if pair[0] else pair[1] for pair in pairs(responses, self.text)]
        for index_B in batches(responses.lengths_R, self.batch_size):
            chosen = [texts[i] for i in index_B]
            yield index_B, np.asarray(model.encode(chosen, max_length=None, use_multiprocessing=False), np.float32)


@lru_cache(maxsize=1)
def load(root: Path) -> StaticModel:
    """The distilled model, from the cache folder ``root``, or distilled now and stored there."""
    if find_spec("model2vec") is None:
        raise MissingExtra("the static encoder", "static")
    from model2vec import StaticModel

    folder = root / "static" / f"minilm-{minilm.SHA256[:16]}-recipe-1"
    if not _is_whole(folder):
        with files.alone(folder.parent, ELSEWHERE):
            if not _is_whole(folder):  # another process may have distilled it meanwhile
                if folder.exists():
                    say(f"{folder} is damaged, or older than its checksums: distilling again")
                model = _distil()
                with files.new_folder(folder, ELSEWHERE) as partial:
                    model.save_pretrained(partial)
                    files.write_json(partial / CHECKSUMS, _checksums(partial))
    return StaticModel.from_pretrained(folder, normalize=True, max_length=None)


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a distilled model that is read."""
    return {name: sha256_of(folder / name) for name in READ if (folder / name).is_file()}


def _is_whole(folder: Path) -> bool:
    """Whether the files match their checksums."""
    try:
        stated = strict_json.loads(content_of(folder / CHECKSUMS, within=folder))
        return bool(stated) and stated == _checksums(folder)
    except (OSError, ValueError):
        return False


def _distil() -> StaticModel:
    from model2vec.distill import distill_from_model
    from model2vec.distill.inference import compute_weights

    say("distilling MiniLM into static token embeddings: once, about a minute")
    network, tokenizer = minilm.load.__wrapped__("cpu")  # our own copy, because model2vec changes the network
    with redirect_stderr(StringIO()):  # hides model2vec's own progress bar
        model = distill_from_model(
            network,
            tokenizer,
            device="cpu",
            pca_dims=None,
            sif_coefficient=None,
            token_remove_pattern=r"\[unused\d+\]",
            quantize_to="float32",
            pooling="mean",
        )
    model.config.pop("max_length", None)
    model.max_length = None
    vectors_VD = model.embedding.astype(np.float64)  # V tokens, most frequent first
    weight_V = compute_weights(len(vectors_VD), SIF)
    model.embedding = ((vectors_VD - vectors_VD.mean(0)) * weight_V[:, None]).astype(np.float32)
    return model
