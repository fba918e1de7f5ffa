"""A process that has everything imported and forks one child for each run, so that a run starts in milliseconds.

Its standard input gives a run a line, {"words", "folder", "environment", "out"}; it answers {"pid"} at the start and
{"pid", "status"} at the end. A child leads a session of its own: whoever is left of it can be found.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib import import_module

import killer


def child(run: dict) -> None:
    """Run the command and leave without a word to the parent's buffers."""
    os.setsid()
    os.chdir(run["folder"])
    os.environ.update(run["environment"])
    opened = os.open(run["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(opened, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    killer.install()
    from polypref.cli import main

    code = 99
    try:
        code = main(run["words"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def serve(modules: list[str]) -> None:
    for module in modules:
        import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        run = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(run)
        answers.write(json.dumps({"pid": pid}) + "\n")
        answers.flush()
        _, status = os.waitpid(pid, 0)
        answers.write(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
