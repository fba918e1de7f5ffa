"""Settings of the simulations that measure the slow risks; no paper."""

from __future__ import annotations

from dataclasses import dataclass, field

from polypref.experiments.closed_loop import Life
from polypref.worlds.community import Community

Found = dict[tuple[str, str, str], float]
"""One seed's figures by (risk, measure, arm)."""


@dataclass(frozen=True)
class SlowRisks:
    """Settings of ``summary.slow_risks``.

    ``seeds``, ``life``          communities and people are drawn again for each seed; see ``closed_loop``.
    ``views``, ``game``          communities for sycophancy and for manipulation; the other risks use a plain one.
    ``memory``                   number of answers that the forgetful arm remembers.
    ``confirming``               answers before the contrary ones, for inertia.
    ``private_users``, ``each``  users of the privacy world, and judgements of each.
    ``pairs``                    pairs of refits of the membership attack.
    ``attacked``                 learners whose shared part is attacked, by name.
    ``epsilons``, ``delta``, ``clip``  of user-level differential privacy.
    """

    seeds: int = 5
    life: Life = field(default_factory=Life)
    views: Community = field(default_factory=lambda: Community(agree=1.5, truth=1.0))
    game: Community = field(default_factory=lambda: Community(gameable=0.02, pull=4.0))
    memory: int = 10
    confirming: tuple[int, ...] = (5, 10, 20)
    private_users: int = 120
    each: int = 40
    pairs: int = 6
    attacked: tuple[str, ...] = ("pooled", "pooled-effects", "hierarchical")
    epsilons: tuple[float, ...] = (1.0, 4.0, 16.0)
    delta: float = 1e-5
    clip: float = 1.0
