"""Best of n under each user's true utility, in simulated worlds: what a policy gains by picking with a learned reward.

Accuracy on pairs of judged responses says little about what a reward picks out of many; here the truth is known. For
each user and prompt, the scorer picks one of n fresh responses. The figure is the share of the attainable gain,

    (utility(picked) - mean utility) / (utility(best) - mean utility)

with numerator and denominator summed over prompts: 0 is a random pick, 1 the best response every time, below 0 harm.

Suffixes here: ``_M`` prompts of a user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypref.learners.protocol import Scorer
from polypref.worlds.simulation import Candidates, SimulatedWorld


@dataclass(frozen=True, eq=False)
class BestOfN:
    """Each user's share of the attainable gain, ``share_U``, and its standard error over prompts, ``se_U``."""

    share_U: NDArray[np.float64]
    se_U: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over users."""
        return float(self.share_U.mean())

    @property
    def se(self) -> float:
        """Standard error of ``mean`` over prompts, for the given users."""
        return float(np.sqrt((self.se_U**2).sum()) / len(self.se_U))


def best_of_n(scorer: Scorer, world: SimulatedWorld, candidates: Candidates) -> BestOfN:
    """How well ``scorer`` picks among ``candidates`` for every user of ``world``."""
    users, many = len(world.comparisons.users), len(candidates.responses)
    prompt_Q = np.tile(np.arange(many, dtype=np.int32), users)
    ids = world.comparisons.users.ids.gather(np.repeat(np.arange(users), many))
    value_UMC = scorer.score(candidates.responses, ids, prompt_Q).value_Q.reshape(users, -1, candidates.n)
    true_UMC = candidates.reward_UR.reshape(value_UMC.shape)
    picked_UM = np.take_along_axis(true_UMC, value_UMC.argmax(axis=2)[..., None], axis=2)[..., 0]
    mean_UM = true_UMC.mean(axis=2)
    gained_UM, there_UM = picked_UM - mean_UM, true_UMC.max(axis=2) - mean_UM
    share_U = gained_UM.sum(axis=1) / there_UM.sum(axis=1)
    # of a ratio of sums, by the delta method
    residual_UM = (gained_UM - share_U[:, None] * there_UM) / there_UM.mean(axis=1, keepdims=True)
    return BestOfN(share_U, residual_UM.std(axis=1, ddof=1) / np.sqrt(residual_UM.shape[1]))
