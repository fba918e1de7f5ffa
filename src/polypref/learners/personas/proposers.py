"""Who writes: the contract of a proposer of profiles, and one that needs no language model.

``Templates`` puts profiles together from the statements of ``traits``. It looks at the texts by rough measures, and
changes profiles as a language model would be asked to: by what the mis-answered judgements have in common, and by
crossing good ones.

Suffixes here: ``_Z`` traits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polypref.learners.personas.evidence import Judged, Person
from polypref.learners.personas.traits import STRENGTHS, TRAITS, contrast, joined, meaning, sentences

MOST = 4  # statements of a profile
FIRST = 2  # statements of the first one
REASONS = 2  # traits that a reasoning about one judgement names


@dataclass(frozen=True)
class Tried:
    """A profile, how well it foretells the judgements it was written from, and those that it gets wrong."""

    profile: str
    score: float
    missed: Sequence[Judged]


class Proposer(Protocol):
    """Writes profiles of one person. Everything it returns is tried on judgements before it is used."""

    def hypotheses(self, person: Person, n: int) -> list[str]:
        """At most ``n`` different statements of the form "Prefers the answer that ..."."""
        ...

    def first(self, person: Person) -> str:
        """A profile to begin with."""
        ...

    def better(self, tried: Sequence[Tried], n: int) -> list[str]:
        """At most ``n`` new profiles; ``tried`` are in ascending score."""
        ...

    def reasons(self, person: Person) -> list[list[str]]:
        """For each judgement, what may decide it; the proposer must not look at which response was chosen."""
        ...

    def summary(self, verified: Sequence[str]) -> str:
        """A profile out of reasonings that foretold the choices they are about."""
        ...


@dataclass(frozen=True, eq=False)
class Templates:
    """Profiles of at most ``MOST`` statements; ``rng`` draws the changes."""

    rng: np.random.Generator

    def hypotheses(self, person: Person, n: int) -> list[str]:
        """The traits by which chosen and rejected responses differ most consistently."""
        lean_Z = _lean(person.judged)
        order = np.argsort(-np.abs(lean_Z), kind="stable")[:n]
        return [TRAITS[z].statement(int(np.sign(lean_Z[z]))) for z in order.tolist() if lean_Z[z]]

    def first(self, person: Person) -> str:
        """The two most consistent traits."""
        return joined(self.hypotheses(person, FIRST))

    def better(self, tried: Sequence[Tried], n: int) -> list[str]:
        """Crosses two profiles, the better ones more often, then takes up a trait of a missed case or changes one."""
        share = np.arange(1, len(tried) + 1) / (len(tried) * (len(tried) + 1) / 2)
        found = list[str]()
        for _ in range(n):
            one, other = (tried[at] for at in self.rng.choice(len(tried), 2, p=share))
            child = self._crossed(one.profile, other.profile)
            missed = _lean(one.missed)
            if missed.any() and self.rng.random() < 0.7:
                z = int(self.rng.choice(len(TRAITS), p=np.abs(missed) / np.abs(missed).sum()))
                child[z] = (int(np.sign(missed[z])), self._strength())
            elif child:
                z = int(self.rng.choice(list(child)))
                child[z] = (child[z][0], self._strength())
                if len(child) > 1 and self.rng.random() < 0.3:
                    del child[z]
            kept = list(child.items())[-MOST:]
            found.append(joined([TRAITS[z].statement(sign, strength) for z, (sign, strength) in kept]))
        return [profile for profile in dict.fromkeys(found) if profile]

    def reasons(self, person: Person) -> list[list[str]]:
        """Both directions of the traits in which the two responses differ most."""
        found = []
        for one in person.judged:
            apart_Z = np.abs(contrast(one.chosen, one.rejected))  # without a sign, so the choice is not seen
            most = np.argsort(-apart_Z, kind="stable")[:REASONS]
            found.append([TRAITS[z].statement(sign) for z in most.tolist() if apart_Z[z] for sign in (1, -1)])
        return found

    def summary(self, verified: Sequence[str]) -> str:
        """The traits named most often, less the times that their opposite was named."""
        net = Counter[int]()
        for meant in map(meaning, verified):
            if meant is not None:
                net[meant[0]] += meant[1]
        most = sorted(net, key=lambda z: (-abs(net[z]), z))[:MOST]
        return joined([TRAITS[z].statement(1 if net[z] > 0 else -1) for z in most if net[z]])

    def _strength(self) -> int:
        return int(self.rng.choice(list(STRENGTHS)))

    def _crossed(self, one: str, other: str) -> dict[int, tuple[int, int]]:
        """Statements of two profiles: each of them with probability one half, and all of the first if none."""
        read = [[meant for text in sentences(profile) if (meant := meaning(text))] for profile in (one, other)]
        both = [meant for meant in read[0] + read[1] if self.rng.random() < 0.5] or read[0]
        return {z: (sign, strength) for z, sign, strength in both}


def _lean(judged: Sequence[Judged]) -> NDArray[np.float64]:
    """How consistently the chosen responses have more (1) or less (-1) of each trait, (Z,)."""
    if not judged:
        return np.zeros(len(TRAITS))
    return np.mean([np.sign(contrast(one.chosen, one.rejected)) for one in judged], axis=0)
