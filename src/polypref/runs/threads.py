"""Limits numerical libraries to one thread: sums of floats depend on the number of threads, so all cells use one.

Worker processes start with the environment of ONE_THREAD; work in the caller's process runs within ``one_thread``.
Polars sets its threads once, at import, and no learner sums with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(NAMES, "1")


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread within the block, also for libraries loaded in it; then restore the previous limits."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    os.environ.update(ONE_THREAD)
    try:
        with threadpool_limits(1):
            if torch is not None:
                torch.set_num_threads(1)
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if (loaded := sys.modules.get("torch")) is not None:
            loaded.set_num_threads(threads or _allowed())


def _allowed() -> int:
    """PyTorch's default number of threads."""
    given = os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS") or ""
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1
