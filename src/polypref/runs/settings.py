"""Settings of long runs, inherited by the command line's commands and by Python's functions."""

from __future__ import annotations

from dataclasses import dataclass

from polypref.arguments import Processes, check_settings


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Settings of every command and every grid."""

    quiet: bool = False
    """Print only failures to standard error."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class Workers(Quiet):
    """Settings of runs in several processes."""

    workers: Processes = 0
    """Worker processes; 0: one per core."""
