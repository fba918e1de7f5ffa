"""Shared by the local transformer encoders: tokenisation, batches of similar length, pooling by attention mask.

A text is a pair ``(head, tail)``: the prompt, which loses its beginning if both are too long, and the response, which
is never cut in favour of the prompt. Batches are padded on the right with our own mask, so neither the tokenizer's
padding side nor its padding token (which may be the end-of-text token, or missing) can change a feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from polypref.comparisons import IntArray
from polypref.errors import CacheError, EncoderError
from polypref.features.cache import cache_root
from polypref.features.encode_missing import batches
from polypref.files import write
from polypref.regular_files import content_of, opened

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "last", "first"]
Pair = tuple[str, str]

LARGE_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Tokens:
    """One text as token ids, special tokens included; the first ``n_head`` are the prompt's.

    ``cut`` says that the text was longer than the model reads.
    """

    ids: Sequence[int]
    n_head: int
    cut: bool = False


class Framer:
    """Puts a tokenizer's special tokens around a pair of texts and makes it fit ``max_length`` tokens.

    Special tokens come from the tokenizer itself: what it puts before and after a text and, for tokenizers that close a
    text (``[SEP]``), the same closing token between prompt and response.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self.max_length = tokenizer, max_length
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self.before, self.after = full[:at], full[at + len(bare) :]
        self._nothing = [tokenizer.bos_token_id or tokenizer.eos_token_id or 0]  # a model must read something
        if max_length <= len(self.before) + 2 * len(self.after):
            raise EncoderError(f"max_length = {max_length} leaves no space for a text; use 16 or more.")

    def frame(self, pairs: Sequence[Pair], special: bool = True) -> list[Tokens]:
        """Token ids of each pair. ``special=False`` is for texts already framed by a chat template."""
        tails = self._ids([tail for _, tail in pairs])
        if not any(head for head, _ in pairs):
            return [self._join([], tail, special) for tail in tails]
        distinct = list(dict.fromkeys(head for head, _ in pairs))
        heads = dict(zip(distinct, self._ids(distinct), strict=True))
        return [self._join(heads[head], tail, special) for (head, _), tail in zip(pairs, tails, strict=True)]

    def windows(self, texts: Sequence[str]) -> tuple[list[Tokens], IntArray]:
        """Each text in as few parts as fit, of nearly equal size, and the number of each part's text."""
        room = self.max_length - len(self.before) - len(self.after)
        parts: list[Tokens] = []
        owner: list[int] = []
        for number, ids in enumerate(self._ids(list(texts))):
            many = max(-(-len(ids) // room), 1)
            edges = [at * len(ids) // many for at in range(many + 1)]
            parts += [self._join([], ids[low:high], True) for low, high in pairwise(edges)]
            owner += [number] * many
        return parts, np.array(owner, np.int32)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _join(self, head: list[int], tail: list[int], special: bool) -> Tokens:
        before, after = (self.before, self.after) if special else ([], [])
        between = after if head else []
        whole = len(before) + len(head) + len(between) * bool(head) + len(tail) + len(after)
        tail = tail[: self.max_length - len(before) - len(after)]
        room = self.max_length - len(before) - len(between) - len(tail) - len(after)
        head = [*head[-room:], *between] if head and room > 0 else []
        ids = [*before, *head, *tail, *after]
        return Tokens(ids or self._nothing, len(before) + len(head) if head else 0, whole > self.max_length)


def inputs_of(
    tokens: Sequence[Tokens], batch_size: int, device: Any, token_types: bool = False
) -> Iterator[tuple[IntArray, dict[str, torch.Tensor]]]:
    """A network's inputs ``(index_B, {"input_ids": (B, T), "attention_mask": (B, T), ...})``, longest texts first."""
    import torch

    for index_B in batches(np.array([len(t.ids) for t in tokens], np.int64), batch_size):
        chosen = [tokens[i] for i in index_B]
        ids_BT = np.zeros((len(chosen), max(len(t.ids) for t in chosen)), np.int64)
        mask_BT, type_BT = np.zeros_like(ids_BT), np.zeros_like(ids_BT)
        for row, text in enumerate(chosen):
            ids_BT[row, : len(text.ids)] = text.ids
            mask_BT[row, : len(text.ids)] = 1
            type_BT[row, text.n_head or len(text.ids) : len(text.ids)] = 1
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if token_types:
            inputs["token_type_ids"] = type_BT
        yield index_B, {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}


def pool(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector per text (B, D, float32) from the tokens that the mask keeps, on whichever side the padding is."""
    import torch

    hidden_BTD = hidden_BTD.float()
    if pooling == "mean":
        weight_BT1 = mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
        return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    if pooling == "last":
        at_B = torch.where(mask_BT > 0, place_T, -1).amax(1)
    else:
        at_B = torch.where(mask_BT > 0, place_T, mask_BT.shape[1]).amin(1)
    return hidden_BTD[torch.arange(len(at_B), device=at_B.device), at_B]


def default_device() -> str:
    """``cuda`` or ``mps`` if available, else ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Options for every model and tokenizer read from a folder: its own code is never run, and nothing is downloaded."""

WEIGHTS: dict[str, Any] = {**LOCAL, "use_safetensors": True}
"""For networks: weights are read from safetensors alone, which hold no code."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' load report and progress bars; the caller's settings are restored."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def stamp_of(path: Path) -> str:
    """A file's place, size and times: equal for as long as nobody changes it. Nobody can set the last time."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; that of a large one is noted in the cache folder, for as long as the file stays the same."""
    note = cache_root() / "sha256" / blake2b(stamp_of(path).encode(), digest_size=16).hexdigest()
    large = path.stat().st_size >= LARGE_FILE_BYTES
    if large and note.exists():
        return content_of(note).decode()
    with opened(path) as file:
        digest = file_digest(file, "sha256").hexdigest()
    if large:
        with suppress(CacheError):  # this only saves time; the cache itself reports a disk that cannot be written
            write(note, digest)
    return digest
