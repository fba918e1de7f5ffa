"""What the parts of ``run.py`` share: where they run, one stored JSON for each, and the lines of the table.

A part's file is named by the part. It holds its settings, versions and card, its figures and its lines, and is written
whole or not at all: a killed run loses the part in hand and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polypref.artifact import is_sealed, sealed
from polypref.errors import ArtifactError, SettingsError
from polypref.files import write_json
from polypref.regular_files import content_of
from polypref.runs.machine import machine, versions
from polypref.stats.cluster_robust import mean_with_half
from polypref.strict_json import parse

PACKAGES = ("trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Place:
    """Where the parts run and how large they are.

    ``shape``      of the random Llama: "tiny" or "7b".
    ``miniature``  on the CPU and so small that all of it takes three minutes.
    """

    out: Path
    shape: str
    miniature: bool
    seed: int = 0

    @property
    def device(self) -> str:
        return "cpu" if self.miniature else "cuda"

    def settings(self) -> dict[str, Any]:
        """All that decides a figure and is not a part's own."""
        return {"shape": self.shape, "miniature": self.miniature, "seed": self.seed, "device": self.device}


@dataclass(frozen=True)
class Line:
    """A line of the table. ``met`` is "yes", "no", "open" (the interval has both) or "" where nothing is asked."""

    line: str
    reached: str
    asked: str = ""
    met: str = ""


@dataclass(frozen=True)
class Found:
    """What a part came to: figures as they were measured, and what the table says of them."""

    figures: dict[str, Any]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Part:
    """A part: its settings, minutes and work, each from the place where it runs.

    ``minutes``  an estimate; those for a card were never measured.
    """

    name: str
    title: str
    settings: Callable[[Place], dict[str, Any]]
    minutes: Callable[[Place], float]
    run: Callable[[Place], Found]

    def path(self, place: Place) -> Path:
        """Its file."""
        return place.out / f"{self.name}.json"

    def identity(self, place: Place) -> dict[str, Any]:
        """What a stored part must have been measured with, to be taken for this one."""
        settings = place.settings() | self.settings(place)
        return {"settings": settings, "versions": versions(PACKAGES), "card": card(place)}


def card(place: Place) -> dict[str, Any]:
    """The card, or the machine where there is none."""
    if place.miniature:
        return {"name": "none", **machine()}
    import torch

    found = torch.cuda.get_device_properties(0)
    cuda = {"name": found.name, "memory_gib": round(found.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return {**cuda, "host": machine()}


def stored(part: Part, place: Place) -> dict[str, Any] | None:
    """A finished part, or None. Raises ArtifactError if it was changed, SettingsError if it is of other settings."""
    path = part.path(place)
    if not path.exists():
        return None
    content = parse(content_of(path), str(path))
    if not isinstance(content, dict) or not is_sealed(content):
        raise ArtifactError(f"{path} was changed after it was written; remove it, or give --force to measure again.")
    for name, value in part.identity(place).items():
        if content[name] != value:
            raise SettingsError(
                f"{path} was measured with other {name} ({_difference(content[name], value)}); "
                "choose another --out, or give --force to measure again."
            )
    return content


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    first = next(key for key in sorted({*there, *here}) if there.get(key) != here.get(key))
    return f"{first}: {there.get(first)}, now {here.get(first)}"


def store(part: Part, place: Place, found: Found, seconds: float) -> None:
    """Write a finished part."""
    lines = [asdict(line) for line in found.lines]
    content = {"part": part.name, **part.identity(place), "seconds": round(seconds, 1)}
    write_json(part.path(place), sealed({**content, "figures": found.figures, "lines": lines}))


def ratio(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Ratio of paired figures: the geometric mean with its 95 % t interval."""
    mean, half = mean_with_half(np.log(np.divide(ours, others)))
    return {"value": float(np.exp(mean)), "lo": float(np.exp(mean - half)), "hi": float(np.exp(mean + half))}


def verdict(lo: float, hi: float, asked: float, *, at_least: bool) -> str:
    """Whether an interval is on the asked side: "yes", "no" or "open"."""
    inside, outside = (lo >= asked, hi < asked) if at_least else (hi < asked, lo >= asked)
    return "yes" if inside else "no" if outside else "open"
