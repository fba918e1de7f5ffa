"""``profile(comparisons)``: the four dimensions of a preference data set, and what aggregation hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.comparisons import Comparisons
from polypref.profile.consistency import Consistency, consistency
from polypref.profile.disagreement import Disagreement, disagreement
from polypref.profile.minorities import Minorities, minorities
from polypref.profile.room import Room, majority_accuracy, room
from polypref.profile.votes import PairKey
from polypref.profile.votes import votes as as_votes

MAJORITY = "majority of the judges"


@dataclass(frozen=True)
class Profile:
    """What the data say. ``sizes`` counts judgements, ties, users, pairs, prompts, responses and what was set aside."""

    sizes: dict[str, int]
    disagreement: Disagreement
    consistency: Consistency
    minorities: Minorities
    room: Room

    def as_dict(self) -> dict[str, object]:
        """JSON-able: no NaN, unknown is None."""
        parts = ("disagreement", "consistency", "minorities", "room")
        content: dict[str, object] = {part: getattr(self, part).as_dict() for part in parts}
        return {"sizes": self.sizes, **content}


def profile(comparisons: Comparisons, *, seed: int = 0, pairs: PairKey = "text") -> Profile:
    """Profile any comparisons; whatever cannot be said of them is None with n = 0.

    ``pairs`` "text" counts the same two texts as one pair whatever their pair id, "id" goes by the data's pair ids.
    """
    votes = as_votes(comparisons, pairs)
    differing = disagreement(votes, seed)
    consistent = consistency(votes, differing)
    return Profile(
        sizes={
            "judgements": len(comparisons),
            "ties": 0 if comparisons.tie_N is None else int(comparisons.tie_N.sum()),
            "users": len(np.unique(comparisons.user_N)),
            "pairs": votes.n_pairs,
            "shared_pairs": int((votes.decided.panel_Q >= 2).sum()),
            "prompts": len(np.unique(votes.prompt_Q)),
            "responses": len(np.unique(np.concatenate([votes.first_Q, votes.second_Q]))),
            "same_text": votes.same_text,
        },
        disagreement=differing,
        consistency=consistent,
        minorities=minorities(votes),
        room=room(majority_accuracy(votes), consistent, MAJORITY),
    )
