"""Objects that stay as long as the server are left out of Python's search for garbage.

Now and then Python looks at every object for cycles that nobody uses. With an encoder loaded there are hundreds of
thousands, and for a tenth of a second nobody gets an answer. What is loaded, code and weights, never becomes garbage:
it is set apart before the first request, and again once more code was loaded, as for the first judgement. The first
time, garbage is removed before; later that would stop requests, so the little of that moment is kept.
"""

from __future__ import annotations

import gc
import sys

MORE = 20  # modules: an encoder brings hundreds


class SetApart:
    """Sets apart what is there, when asked at a moment at which nothing is being loaded."""

    def __init__(self) -> None:
        self.apart = self._before = 0  # modules

    def begin(self) -> None:
        """Set apart what is there before requests come."""
        gc.collect()
        gc.freeze()
        self.apart = self._before = len(sys.modules)

    def look(self) -> bool:
        """Set apart what has been loaded since, if that is much and loading has ended; whether it was."""
        loaded = len(sys.modules)
        ended, self._before = loaded == self._before, loaded
        if not ended or loaded < self.apart + MORE:
            return False
        gc.freeze()
        self.apart = loaded
        return True
