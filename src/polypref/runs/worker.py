"""One worker process: reads the job, then cell numbers, from standard input, runs them, answers one JSON line each.

    python -m polypref.runs.worker

A process of its own rather than one of ``multiprocessing``: it never imports the caller's main script (which need not
be guarded), one that dies takes one cell with it and not the pool, and it stops at once when the parent is gone, in
whatever way: its standard input ends then, and a thread of its own waits for that.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import sys
import threading
import traceback

from polypref.errors import PolyprefError
from polypref.terminal import visible_warnings


def failure(error: BaseException) -> dict[str, str]:
    """An exception as what the parent reports: one line, and the traceback where the error is nobody's input."""
    known = isinstance(error, PolyprefError)
    line = str(error) if known else f"{type(error).__name__}: {error}"
    return {
        "error": " ".join(line.split()),
        "traceback": "" if known else "".join(traceback.format_exception(error)),
    }


def main() -> None:
    """Answer until standard input ends, which ends the process even in the middle of a cell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the parent could not block it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a learner prints must not end up among the answers
    size = int(sys.stdin.buffer.readline() or b"0")
    content = sys.stdin.buffer.read(size)
    if not size or len(content) < size:  # the parent is gone
        return
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    # Sent by the parent for this process alone; artifacts that outlive a run are never pickled.
    job, cells, run = pickle.loads(content)  # imports what the job needs, which may take a while
    del content
    while True:
        cell = cells[asked.get()]
        try:
            with visible_warnings():
                run(job, cell)
            answer = {}
        except Exception as error:
            answer = failure(error)
        print(json.dumps(answer), file=answers, flush=True)


def _listen(asked: queue.SimpleQueue[int]) -> None:
    """Pass on the numbers; end the process with the input. What a cell stores appears whole or not at all."""
    for line in sys.stdin.buffer:
        asked.put(int(line))
    os._exit(0)


if __name__ == "__main__":
    main()
