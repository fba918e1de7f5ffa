"""Settings of a comparison, shared by the command line and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from polypref.errors import SettingsError, unknown_name
from polypref.runs.settings import Workers

Budget = Literal["total", "per-user"]


@dataclass(frozen=True, kw_only=True)
class GridSettings(Workers):
    """Settings shared by the grid of ``compare`` and that of new people."""

    split: Literal["auto", "pair", "prompt", "response", "own-response"] = "auto"
    """What is held out together; auto chooses from the data and says why."""
    min_judgements: int = 1
    """Leave out users with fewer judgements."""
    seeds: int = 5
    """Number of random splits."""


@dataclass(frozen=True, kw_only=True)
class Settings(GridSettings):
    """The settings that affect a comparison's figures, and how it is run."""

    sizes: tuple[int, ...] = ()
    """Training sizes (comparisons) to measure besides all the data."""
    budget: Budget = "total"
    """What the sizes count: comparisons in total, or per user; users with fewer keep all of theirs."""
    placebo: bool = True
    """Also train personal learners on shuffled users, where they must gain nothing."""


AnySettings = TypeVar("AnySettings", bound=GridSettings)


def replaced(settings: AnySettings, overrides: Mapping[str, Any]) -> AnySettings:
    """The settings with some replaced by name. Raises SettingsError for an unknown name or impossible runs."""
    known = [field.name for field in fields(settings)]
    for name in overrides:
        if name not in known:
            raise unknown_name("setting", name, known)
    settings = replace(settings, **overrides)
    if settings.seeds < 1:
        raise SettingsError(f"--seeds {settings.seeds} measures nothing; expected 1 or more.")
    if settings.workers < 0:
        raise SettingsError(f"--workers {settings.workers} is not possible; expected 0 (one per core) or more.")
    return settings


def with_overrides(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """The settings with some replaced by name. Raises SettingsError for an unknown name or impossible value."""
    settings = replaced(settings, overrides)
    if settings.budget not in get_args(Budget):
        raise unknown_name("budget", settings.budget, get_args(Budget))
    return settings
