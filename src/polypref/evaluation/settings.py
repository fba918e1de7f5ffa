"""Settings of a comparison, shared by the command line and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from polypref.arguments import AtLeastOne, Seeds
from polypref.errors import unknown_name
from polypref.runs.settings import Workers

Budget = Literal["total", "per-user"]


@dataclass(frozen=True, kw_only=True)
class GridSettings(Workers):
    """Settings shared by the grid of ``compare`` and that of new people."""

    split: Literal["auto", "pair", "prompt", "response", "own-response"] = "auto"
    """What is held out together; auto chooses from the data and says why."""
    min_judgements: AtLeastOne = 1
    """Leave out users with fewer judgements."""
    seeds: Seeds = 5
    """Number of random splits."""


@dataclass(frozen=True, kw_only=True)
class Settings(GridSettings):
    """The settings that affect a comparison's figures, and how it is run."""

    sizes: tuple[AtLeastOne, ...] = ()
    """Training sizes (comparisons) to measure besides all the data."""
    budget: Budget = "total"
    """What the sizes count: comparisons in total, or per user; users with fewer keep all of theirs."""
    placebo: bool = True
    """Also train personal learners on shuffled users, where they must gain nothing."""


AnySettings = TypeVar("AnySettings", bound=GridSettings)


def replaced(settings: AnySettings, overrides: Mapping[str, Any]) -> AnySettings:
    """The settings with some replaced by name. Raises SettingsError for an unknown name or impossible value."""
    known = [field.name for field in fields(settings)]
    for name in overrides:
        if name not in known:
            raise unknown_name("setting", name, known)
    return replace(settings, **overrides)
