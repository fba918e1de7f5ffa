"""A maker for the runner's own test: cases that end well, never, or with the process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from runner import Outcome


def prepare(arguments: list[str]) -> Callable[[str], Outcome]:
    def run(case: str) -> Outcome:
        if case == "hang":
            time.sleep(60)
        if case == "death":
            os.abort()
        return Outcome(code=0)

    return run
