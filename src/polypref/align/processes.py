"""Several processes that train one model, as ``torchrun`` and ``accelerate launch`` start them.

Each process reads the same data, holds the same histories and computes the same gradient; only the main one locks,
writes and prints results. What depends on files is decided by the main process and told to the others. If one process
fails, its launcher ends the rest.

Two gaps of the libraries are filled on CPUs: transformers passes no timeout on to a group without accelerators, and
loads the optimizer to a device "cpu:0", which ``torch.load`` does not know. Covered: DDP, FSDP2, one or several hosts
that share the folder. Not covered: a change of the number of processes within a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

T = TypeVar("T")


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process; 0 for one alone, whatever a cluster has set."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


@contextmanager
def together(timeout_s: float) -> Iterator[None]:
    """Within the block, the processes can tell each other things; a wait longer than the timeout is an error."""
    if count() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    if torch.cuda.is_available():
        PartialState(timeout=timedelta(seconds=timeout_s))
    else:
        torch.serialization.register_package(
            0, lambda _: None, lambda storage, name: storage if name.startswith("cpu:") else None
        )
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
        PartialState(cpu=True)
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # or gloo's threads may abort the process while Python ends


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` answers in the main process, in every process."""
    if count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    return cast(T, broadcast_object_list([make() if is_main() else None])[0])


def gathered(own: list[T]) -> list[list[T]]:
    """The list of every process, in the order of the processes."""
    if count() == 1:
        return [own]
    from accelerate.utils import gather_object

    return gather_object([own])
