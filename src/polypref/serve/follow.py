"""Follows the scorer that the store says is in force: the servers of a store have another one within seconds.

Each server looks once a second, beside its requests, which never wait for it. The new scorer is loaded by its hash,
tried on two texts, and then takes the old one's place between two requests, within the same bounds. One that cannot be
loaded or tried is refused: the old one stays, which is said once and shown by ``/health``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from polypref.bounds.safety import IN_A_NAME, SafetyFailed, answered_by_population
from polypref.learners.protocol import Scorer
from polypref.serve.core import Core, pool_of
from polypref.serve.in_force import InForce, NoReward
from polypref.terminal import say

EVERY_S = 1.0
AGAIN_S = 10.0  # after a refusal
TRIED = ("a first text to try a scorer on", "a second one, which is longer than the first")


class Follower:
    """Puts in force in ``core`` what its store names; ``load`` gets a scorer by its hash."""

    def __init__(self, core: Core, load: Callable[[str], Scorer]) -> None:
        self.core, self.load = core, load
        self.refused: str | None = None
        self._again = 0.0

    async def run(self) -> None:
        """Look until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY_S)
            await loop.run_in_executor(None, self.look)

    def look(self) -> None:
        """Take what the store says is in force, if it is another one than here."""
        if self.refused is not None and time.monotonic() < self._again:
            return
        wanted = None
        try:
            wanted = self.core.store.in_force()
            if wanted is not None and wanted != self.core.in_force.hash:
                successor = self.core.in_force.succeeded(self.load(wanted), wanted)
                tried(successor)
                self.core.put_in_force(successor)
                say(f"scorer {wanted[:16]} is in force")
            self.refused = None
        except Exception as error:  # whatever a folder holds: requests go on with the scorer that they have
            told = f"scorer {(wanted or 'in the store')[:16]} is not put in force: {type(error).__name__}: {error}"
            if told != self.refused:
                say(told)
            self.refused, self._again = told, time.monotonic() + AGAIN_S


def tried(successor: InForce) -> None:
    """Raise NoReward or SafetyFailed for a scorer that gives no rewards, or none that everybody shares."""
    pool, place = pool_of("a prompt", TRIED)
    found = successor.scorer.score(pool, None, place)
    if not np.isfinite(found.value_Q).all():
        raise NoReward("the scorer gave a reward that is no number.")
    if successor.bounded is not None and not answered_by_population(found, len(place), len(place)):
        raise SafetyFailed(f"the shared reward {IN_A_NAME}.")
