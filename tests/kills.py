"""Kills a process at every call that changes the disk, one after the other: is the old or the new still there?

    for moment in kills(save, folder, 2):   # save(folder, 2) in a process that dies before its n-th call
        assert load(folder) in (1, 2)

``arm(n)`` alone does it in any process: ``python -c "from kills import arm; arm(9); import polypref..."``
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

CALLS = ("open", "replace", "rename", "fsync", "unlink", "mkdir", "rmdir")


def arm(moment: int) -> None:
    """SIGKILL this process before its call number ``moment`` (from 0) of CALLS."""
    left = [moment]

    def armed(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args, **kwargs)

        return counted

    for name in CALLS:
        setattr(os, name, armed(getattr(os, name)))


def kills(work: Callable[..., object], *args: Any, most: int = 200) -> Iterator[int]:
    """Yields after each killed run, and once more after one that came to its end; the test judges what is there."""
    for moment in range(most):
        died = killed(moment, work, *args)
        yield moment
        if not died:
            assert moment, "it calls nothing that changes the disk"
            return
    raise AssertionError(f"more than {most} calls")


def killed(moment: int, work: Callable[..., object], *args: Any) -> bool:
    """Whether ``work(*args)``, in a fork of this process, was killed before it came to its end.

    Not for work that needs the threads of Polars or PyTorch, which a fork does not have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be there; this work asks none of them
        child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(moment)
            work(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"it failed at moment {moment}"
    return code != 0
