"""What becomes of work that does not fit into memory: it is done in smaller pieces, and that is said.

Covered: memory that PyTorch asks for in vain, on a GPU or the CPU. Not covered: a process that the system kills for its
memory, as Linux does on the CPU; several processes, of which only one may have run out, so the pieces are not cut anew.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from polypref.errors import EncoderError
from polypref.terminal import say

ADVICE = "lower recipe.max_length or recipe.rank, or set recipe.bf16 or recipe.gradient_checkpointing"
SCORING = "lower recipe.max_length or set recipe.bf16"


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the CPU."""
    said = str(error)
    return isinstance(error, MemoryError) or " out of memory" in said or "can't allocate memory" in said


def trained_within(train: Callable[[int], None], size: int, whole: int, processes: int) -> None:
    """``train`` with pieces of ``size`` comparisons, or the largest smaller size that fits and divides ``whole``.

    Raises EncoderError if one at a time is too much, or if several processes train together.
    """
    while True:
        try:
            train(size)
            return
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if size == 1 or processes > 1:
                many = "" if processes == 1 else f" in one of {processes} processes"
                less = ADVICE if processes == 1 else f"lower recipe.micro_batch, or {ADVICE}"
                raise EncoderError(f"memory ran out with {size} comparisons at a time{many}; {less}.") from error
        smaller = next(divisor for divisor in range(size // 2, 0, -1) if whole % divisor == 0)
        say(f"memory ran out with {size} comparisons at a time; going on with {smaller}, which gives the same result.")
        size = smaller
        release()


def answered_within(
    answer: Callable[[NDArray[np.int64]], NDArray], rows_B: NDArray[np.int64], advice: str = SCORING
) -> NDArray:
    """``answer(rows_B)``, joined from halves if memory runs out. Raises EncoderError if one row is too much."""
    try:
        return answer(rows_B)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        if len(rows_B) == 1:
            raise EncoderError(f"memory ran out with one text; {advice}.") from error
    say(f"memory ran out with {len(rows_B)} texts at a time; they are read in halves.")
    release()
    return np.concatenate([answered_within(answer, half, advice) for half in np.array_split(rows_B, 2)])


def release() -> None:
    """Return what the failed try held; the error that holds its tensors must be gone."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
