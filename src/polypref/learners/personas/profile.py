"""What was written about one person, as it is kept and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Support:
    """A statement that was kept, and the held-out choices that it rests on.

    ``right`` of ``of`` choices were foretold with the statement alone, and ``without`` of them with no profile at all;
    ``p`` is exact. For everybody's profile they are people instead of choices.
    """

    statement: str
    right: int
    of: int
    without: int
    p: float


@dataclass(frozen=True)
class Profile:
    """What was written about one person.

    ``texts``      the profiles to choose from, the best on held-out judgements last; the last is empty if none is.
    ``agreement``  for each of them, the probability of the person's choice in each remembered judgement; only Fermi's.
    ``support``    of each statement; only of tested hypotheses.
    ``shown``      the person's judgements that are shown as examples, by their place; only SynthesizeMe's.
    ``calls``, ``tokens``  what writing it cost the judge (``evidence.Trials``).
    """

    texts: tuple[str, ...] = ("",)
    agreement: tuple[tuple[float, ...], ...] = ()
    support: tuple[Support, ...] = ()
    shown: tuple[int, ...] = ()
    calls: int = 0
    tokens: int = 0

    @property
    def silent(self) -> bool:
        """Whether it says and shows nothing."""
        return not (self.texts[-1] or self.shown)

    def lines(self) -> list[str]:
        """What the judge reads, each statement with its support where it has been tested."""
        if not self.support:
            return [line for line in self.texts[-1].splitlines() if line]
        return [f"{s.statement} ({s.right} of {s.of}, without it {s.without}; p = {s.p:.2g})" for s in self.support]

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``."""
        agreement = tuple(map(tuple, saved["agreement"]))
        support = tuple(Support(**one) for one in saved["support"])
        lists = {"texts": tuple(saved["texts"]), "shown": tuple(saved["shown"])}
        return cls(**{**saved, **lists, "agreement": agreement, "support": support})
