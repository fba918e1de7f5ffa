"""A program: `polypref align` in two processes, killed after its first checkpoint, whole, and the killed one resumed.

Run in the folder of the configurations killed.toml and whole.toml. The processes are forked after everything is
imported, each with the variables that torchrun would set; importing once instead of six times is most of the time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

SEEN = Path("killed/checkpoints/checkpoint-2/trainer_state.json")


def forked(out: str, said: str) -> list[int]:
    """The ids of two processes that train together by ``out``.toml and write what they say to the file ``said``."""
    from polypref.cli import main

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ids = []
    for rank in ("0", "1"):
        if not (process := os.fork()):
            os.environ.update(address, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE="2")
            to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(to, 1)
            os.dup2(to, 2)
            code = main(["align", "--config", f"{out}.toml"])
            sys.stdout.flush()
            os._exit(code)
        ids.append(process)
    return ids


def waited(ids: list[int]) -> list[int]:
    """The exit codes; below 0 for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in ids]


if __name__ == "__main__":
    import datasets  # noqa: F401
    import peft  # noqa: F401

    import polypref.align.trainer
    import polypref.cli.align
    import polypref.policy.trl  # noqa: F401

    ids = forked("killed", "killed.txt")
    while not SEEN.exists():
        if os.waitpid(ids[0], os.WNOHANG)[0]:
            sys.exit("the first run ended before its checkpoint: " + Path("killed.txt").read_text())
        time.sleep(0.01)
    for process in ids:
        os.kill(process, signal.SIGKILL)
    print(waited(ids), Path("killed/align.json").exists())
    print(waited(forked("whole", "whole.txt")), waited(forked("killed", "resumed.txt")))
