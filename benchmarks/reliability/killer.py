"""Kills a run at its n-th system call that changes a disk: what is loaded into the process, and into its workers.

Python reports these calls to audit hooks (open for writing, rename, unlink, mkdir, rmdir, link, truncate, the start of
a process); ``fsync`` is wrapped. Calls outside of the watched folder do not count. The environment says what to do:

    POLYPREF_KILL   {"counter": file, "at": n, "who": "main" | "self" | "group", "root": folder}; at 0: only count
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

VARIABLE, MAIN = "POLYPREF_KILL", "POLYPREF_KILL_MAIN"
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "subprocess.Popen"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install() -> None:
    """Watch this process, as the environment says; nothing without it."""
    told = os.environ.get(VARIABLE)
    if not told:
        return
    plan = json.loads(told)
    os.environ.setdefault(MAIN, str(os.getpid()))
    counter = os.open(plan["counter"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def happened() -> None:
        os.write(counter, b".")  # one file for all processes of the run: its size is the number of calls so far
        if plan["at"] and os.fstat(counter).st_size == plan["at"]:
            _kill(plan["who"])

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and _within(path, plan["root"]):
                happened()
        elif event in CHANGES and (event == "subprocess.Popen" or _within(arguments[0], plan["root"])):
            happened()

    sync = os.fsync

    def fsync(descriptor: Any) -> None:
        happened()
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(watch)


def _within(path: Any, root: str) -> bool:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    return isinstance(path, str) and str(Path(path).absolute()).startswith(root)


def _kill(who: str) -> None:
    if who == "group":
        os.killpg(os.getpgid(int(os.environ[MAIN])), signal.SIGKILL)
    os.kill(int(os.environ[MAIN]) if who == "main" else os.getpid(), signal.SIGKILL)
