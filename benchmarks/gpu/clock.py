"""Seconds of a trainer's steps and its peak memory, in the same way for every trainer built on transformers'."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Steps:
    """What was seen of a training: ends of its steps, comparisons at a time, peak memory of the card in GiB."""

    ends: list[float] = field(default_factory=list)
    piece: int = 0
    memory_gib: float | None = None

    @property
    def seconds(self) -> float:
        """Of a step: the median, the first aside."""
        return median(later - earlier for earlier, later in zip(self.ends[:-1], self.ends[1:], strict=True))


@contextmanager
def clocked(most: int | None = None) -> Iterator[Steps]:
    """Every trainer made within the block is timed. ``most``: larger pieces run out of memory, as if on a card."""
    import torch
    from transformers import TrainerCallback, trainer

    seen, cuda = Steps(), torch.cuda.is_available()

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
            seen.ends, seen.piece = [], args.per_device_train_batch_size

        def on_step_begin(self, args: Any, *_: Any, **__: Any) -> None:
            if most is not None and args.per_device_train_batch_size > most:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            seen.ends.append(time.perf_counter())

    clock: Any = Clock()
    trainer.DEFAULT_CALLBACKS.append(clock)
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        yield seen
    finally:
        trainer.DEFAULT_CALLBACKS.remove(clock)
    if cuda:
        seen.memory_gib = torch.cuda.max_memory_allocated() / 2**30
