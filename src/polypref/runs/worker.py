"""A worker process: reads the job and then cell numbers from standard input, runs them, answers with a JSON line each.

    python -m polypref.runs.worker

It does not use ``multiprocessing``, for three reasons: it never imports the caller's main script (which needs no
guard); a worker that dies loses one cell and not the pool; and it stops at once if the parent is gone for any reason,
because its standard input then ends and a separate thread waits for that.
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
    """An exception in the form that the parent reports: one line, and the traceback if the cause is not user input."""
    known = isinstance(error, PolyprefError)
    line = str(error) if known else f"{type(error).__name__}: {error}"
    return {
        "error": " ".join(line.split()),
        "traceback": "" if known else "".join(traceback.format_exception(error)),
    }


def main() -> None:
    """Answer until standard input ends, which stops the process even in the middle of a cell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # if the parent could not block it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a learner's output must not mix with the answers
    size = int(sys.stdin.buffer.readline() or b"0")
    content = sys.stdin.buffer.read(size)
    if not size or len(content) < size:  # the parent is gone
        return
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(numbers,), daemon=True).start()
    # Sent by the parent to this process only; artifacts that outlive a run are never pickled.
    job, cells, run = pickle.loads(content)  # imports the job's modules, which may take a while
    del content
    while True:
        cell = cells[numbers.get()]
        try:
            with visible_warnings():
                run(job, cell)
            answer = {}
        except Exception as error:
            answer = failure(error)
        print(json.dumps(answer), file=answers, flush=True)


def _listen(numbers: queue.SimpleQueue[int]) -> None:
    """Pass on the numbers, and end the process when the input ends. A cell's stored folder appears atomically."""
    for line in sys.stdin.buffer:
        numbers.put(int(line))
    os._exit(0)


if __name__ == "__main__":
    main()
