"""Settings of whatever runs for a while: the command line's commands and Python's functions inherit them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Every command and every grid."""

    quiet: bool = False
    """Nothing on standard error but failures."""


@dataclass(frozen=True, kw_only=True)
class Workers(Quiet):
    """What runs in several processes."""

    workers: int = 0
    """Worker processes; 0: one per core."""
