"""Settings of the new-users grid, shared by the command line and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from polypref.arguments import AtLeastZero, ProperShare, Seeds
from polypref.errors import SettingsError
from polypref.evaluation.settings import GridSettings, replaced


@dataclass(frozen=True, kw_only=True)
class NewSettings(GridSettings):
    """The settings that affect the figures, and how the grid is run; each seed has different new people."""

    sizes: tuple[AtLeastZero, ...] = (0, 3, 10, 30, 100, 300)
    """Comparisons of each new person to learn from; people with fewer are left out at that size."""
    share: ProperShare = 0.25
    """Share of the users that are held out as new people under each seed, at least three."""
    seeds: Seeds = 8
    """Number of random splits."""
    asked: bool = True
    """Also give comparisons in the order in which a posterior would ask for them."""


def with_overrides(settings: NewSettings, overrides: Mapping[str, Any]) -> NewSettings:
    """The settings with some replaced by name. Raises SettingsError for an unknown name or impossible value."""
    settings = replaced(settings, overrides)
    if not settings.sizes:
        raise SettingsError("--sizes is empty; expected at least one number of comparisons, as in --sizes 3 30.")
    return replace(settings, sizes=tuple(sorted(set(settings.sizes))))
