"""What one ranking for everyone hides: Condorcet cycles and Borda contradictions beyond a Bradley-Terry null.

Source: SC2 and SC4 of the social-choice list (Condorcet; Borda; Siththaranjan et al. 2312.08358; Ge et al. 2405.14758).
Covered: the majority's tournament per prompt, over pairs that at least two people judged. Not covered: pairs that
nobody compared, users who judged several pairs of one prompt (the null draws the judges of every pair independently).
Small panels have cycles by chance: with identical people and five judges, a fifth of all prompts have one. So a raw
share means nothing; the excess over the null and its p-value do.

Suffixes here: ``_E`` edges: pairs of responses compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.profiling import bradley_terry
from polypref.profiling.tournament import count, design
from polypref.profiling.votes import Votes
from polypref.stats.estimate import NOT_TESTED, Tested, against_null

NULL_DRAWS = 99


@dataclass(frozen=True)
class SocialChoice:
    """Aggregation paradoxes with their Bradley-Terry null; ``n`` is the denominator of each share.

    ``cyclic_triads``   closed triads of majorities that are cyclic (a > b > c > a).
    ``cyclic_prompts``  prompts with any Condorcet cycle, of those whose pairs close a loop.
    ``borda_pairs``     majority decisions that the Borda order contradicts.
    ``borda_winners``   prompts with a Condorcet winner that is not the Borda winner.
    ``spread``          standard deviation of the fitted strengths in logits; None if nothing could be fitted.
    """

    cyclic_triads: Tested = NOT_TESTED
    cyclic_prompts: Tested = NOT_TESTED
    borda_pairs: Tested = NOT_TESTED
    borda_winners: Tested = NOT_TESTED
    spread: float | None = None

    def as_dict(self) -> dict[str, object]:
        names = ("cyclic_triads", "cyclic_prompts", "borda_pairs", "borda_winners")
        shares: dict[str, object] = {name: getattr(self, name).as_dict() for name in names}
        return {**shares, "spread": self.spread}


def social_choice(votes: Votes, seed: int = 0) -> SocialChoice:
    """Cycles and Borda contradictions of the majorities, each against ``NULL_DRAWS`` Bradley-Terry data sets."""
    graph, wins_E = design(votes)
    if len(graph.a_E) == 0:
        return SocialChoice()
    seen = count(graph, wins_E)
    posterior = bradley_terry.fit(graph, wins_E)
    rng = np.random.default_rng(seed)
    null = [count(graph, drawn_E) for drawn_E in posterior.draws(NULL_DRAWS, rng)]

    def against(name: str, n: int) -> Tested:
        return against_null(getattr(seen, name), np.array([getattr(draw, name) for draw in null]), n)

    return SocialChoice(
        cyclic_triads=against("cyclic_triads", seen.triads),
        cyclic_prompts=against("cyclic_prompts", int(graph.cyclable_P.sum())),
        borda_pairs=against("borda_pairs", seen.majorities),
        borda_winners=against("borda_winners", seen.condorcet_prompts),
        spread=posterior.spread,
    )
