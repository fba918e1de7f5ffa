"""Settings of the new-users grid, shared by the command line and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from polypref.errors import SettingsError
from polypref.evaluation.settings import GridSettings, replaced


@dataclass(frozen=True, kw_only=True)
class NewSettings(GridSettings):
    """The settings that affect the figures, and how the grid is run; each seed has different new people."""

    sizes: tuple[int, ...] = (0, 3, 10, 30, 100, 300)
    """Comparisons of each new person to learn from; people with fewer are left out at that size."""
    share: float = 0.25
    """Share of the users that are held out as new people under each seed, at least three."""
    seeds: int = 8
    """Number of random splits."""
    asked: bool = True
    """Also give comparisons in the order in which a posterior would ask for them."""


def with_overrides(settings: NewSettings, overrides: Mapping[str, Any]) -> NewSettings:
    """The settings with some replaced by name. Raises SettingsError for an unknown name or impossible value."""
    settings = replaced(settings, overrides)
    if not settings.sizes:
        raise SettingsError("--sizes is empty; expected at least one number of comparisons, as in --sizes 3 30.")
    if min(settings.sizes) < 0:
        raise SettingsError(f"--sizes {min(settings.sizes)} cannot be given; expected 0 or more comparisons.")
    if not 0 < settings.share < 1:
        raise SettingsError(f"--share {settings.share} cannot be held out; expected a number between 0 and 1.")
    return replace(settings, sizes=tuple(sorted(set(settings.sizes))))
