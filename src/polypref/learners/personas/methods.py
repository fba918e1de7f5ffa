"""The three ways to write a profile from one person's judgements: tested hypotheses, Fermi, SynthesizeMe.

Suffixes here: ``_A`` profiles that are tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import IntArray
from polypref.learners.judge_prompts import Choice
from polypref.learners.personas.evidence import Asking, Person, Trials, chance
from polypref.learners.personas.profile import Profile, Support
from polypref.learners.personas.proposers import Proposer, Tried
from polypref.learners.personas.traits import joined

Parts = Literal["persona", "demonstrations", "both"]


# --- hypotheses


@dataclass(frozen=True)
class Hypotheses:
    """Statements that pass an exact test on held-out choices. Source: our own; HyPerAlign (2505.00038) has the idea.

    ``proposals`` statements come from one part of the judgements, and are ordered by how well they foretell it. In this
    order they are tried on the other part, until the first that fails. Of the distinct pairs on which the judge takes a
    side with the statement, the number foretold rightly is Binomial(n, 1/2) if the statement says nothing. As the order
    is fixed before and testing ends with the first failure, the probability of keeping any such statement of a person
    is at most ``alpha`` (fixed-sequence testing, Maurer et al. 1995), however many are proposed.
    """

    proposals: int
    alpha: float
    held_out: float

    def write(self, person: Person, trials: Trials, proposer: Proposer, rng: np.random.Generator) -> Asking[Profile]:
        """The statements that were kept, the most promising first."""
        writing, held = (person.take(rows) for rows in person.halves(self.held_out, rng))
        statements = proposer.hypotheses(writing, self.proposals)
        if not statements or not len(held):
            return Profile()
        promise_A = chance((yield from trials.margins(statements, writing)))
        support = list[Support]()
        for statement in (statements[a] for a in np.argsort(-promise_A, kind="stable").tolist()):
            right, of = sides((yield from trials.margins([statement], held))[0], held.unit_N)
            p = tail(right, of)
            if p > self.alpha:
                break
            without, _ = sides((yield from trials.margins([""], held))[0], held.unit_N)
            support.append(Support(statement, right, of, without, p))
        return Profile((joined([one.statement for one in support]),), support=tuple(support))


def sides(margin_N: NDArray[np.float64], unit_N: IntArray) -> tuple[int, int]:
    """Units whose choices are foretold rather rightly than wrongly, and units on which a side is taken."""
    balance = np.bincount(unit_N, np.sign(np.nan_to_num(margin_N)))
    return int((balance > 0).sum()), int((balance != 0).sum())


def tail(right: int, of: int) -> float:
    """P(X >= right) for X ~ Binomial(of, 1/2)."""
    from scipy.special import bdtrc  # scipy.stats takes half a second to load

    return float(bdtrc(right - 1, of, 0.5)) if right else 1.0


# --- Fermi


@dataclass(frozen=True)
class Fermi:
    """Prompt optimisation with the mis-answered cases: Kim & Yang (2406.18678), derived again from the paper.

    ``rounds`` times, the proposer sees the memory of the ``memory`` best profiles in ascending score, each with the
    judgements that it gets wrong, and writes ``prompts`` new ones. What we changed: a score is the mean probability of
    the person's choice, both orders averaged, instead of the share of equal answers; and a share of the judgements is
    held out to choose among the memory, since the best of many noisy means is not the best profile.
    """

    prompts: int
    rounds: int
    memory: int
    held_out: float

    def write(self, person: Person, trials: Trials, proposer: Proposer, rng: np.random.Generator) -> Asking[Profile]:
        """The memory, the best on held-out judgements last, and how well each foretells every judgement."""
        writing, held = (person.take(rows) for rows in person.halves(self.held_out, rng))
        first = proposer.first(writing)
        kept = (yield from self._tried([first], writing, trials)) if first else []
        for _ in range(self.rounds if kept else 0):
            known = {one.profile for one in kept}
            new = [profile for profile in proposer.better(kept, self.prompts) if profile not in known]
            kept += yield from self._tried(new, writing, trials)
            kept = sorted(kept, key=lambda one: one.score)[-self.memory :]
        if not kept:
            return Profile()
        texts = [one.profile for one in kept]
        if len(held):
            chance_A = chance((yield from trials.margins(texts, held)))
            texts = [texts[a] for a in np.argsort(chance_A, kind="stable").tolist()]
        margin_AN = yield from trials.margins(texts, person)
        agreement_AN = 1 / (1 + np.exp(-np.nan_to_num(margin_AN)))
        return Profile(tuple(texts), tuple(map(tuple, agreement_AN.round(6).tolist())))

    def _tried(self, profiles: list[str], person: Person, trials: Trials) -> Asking[list[Tried]]:
        if not profiles:
            return []
        margin_AN = yield from trials.margins(profiles, person)
        missed = [[person.judged[n] for n in np.flatnonzero(margin_N < 0).tolist()] for margin_N in margin_AN]
        return list(map(Tried, profiles, chance(margin_AN).tolist(), missed))


# --- SynthesizeMe


@dataclass(frozen=True)
class Synthesize:
    """Verified reasonings, then a persona, then demonstrations: SynthesizeMe (Ryan et al. 2025), each stage by itself.

    A reasoning about a judgement is kept if the judge, given it alone, foretells that choice; the persona sums up what
    was kept; of ``candidates`` random sets of at most ``demonstrations`` judgements, that with the highest mean
    probability on held-out judgements is shown. What we changed: the released code verifies by the writer's own answer
    in one order and counts a tie as wrong; here the judge that will read the persona verifies, in both orders, and
    candidates are compared by probability.
    """

    parts: Parts
    demonstrations: int
    candidates: int
    held_out: float

    def write(self, person: Person, trials: Trials, proposer: Proposer, rng: np.random.Generator) -> Asking[Profile]:
        """The persona, the examples to show, or both."""
        writing_N, held_N = person.halves(self.held_out, rng)
        writing, held = person.take(writing_N), person.take(held_N)
        persona = "" if self.parts == "demonstrations" else (yield from self._persona(writing, trials, proposer))
        if self.parts == "persona" or not len(held):
            return Profile((persona,))
        size = min(self.demonstrations, len(writing))
        drawn = [np.sort(rng.permutation(len(writing))[:size]) for _ in range(self.candidates)]
        shown = [[writing.cases[n] for n in rows.tolist()] for rows in drawn]
        best = int(np.argmax(chance((yield from trials.margins([persona] * len(shown), held, shown)))))
        return Profile((persona,), shown=tuple(writing_N[drawn[best]].tolist()))

    def _persona(self, person: Person, trials: Trials, proposer: Proposer) -> Asking[str]:
        reasons = proposer.reasons(person)
        each = [(reason, one) for one, some in zip(person.judged, reasons, strict=True) for reason in some]
        margin_N = yield from trials.of([Choice(one.asked(), (), trials.characters, reason) for reason, one in each])
        verified = [reason for (reason, _), margin in zip(each, margin_N, strict=True) if margin > 0]
        return proposer.summary(verified) if verified else ""


Method = Hypotheses | Fermi | Synthesize
