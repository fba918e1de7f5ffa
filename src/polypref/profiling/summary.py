"""``profile(comparisons)``: the four dimensions of a preference data set, and what aggregation hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polypref.arguments import Seed, expect
from polypref.comparisons import Comparisons
from polypref.data.derived import Origin, origin
from polypref.data.given import comparisons_of
from polypref.data.thumbs import bar_N
from polypref.data.zero_weight import counted
from polypref.profiling import formatting
from polypref.profiling.consistency import Consistency, consistency
from polypref.profiling.disagreement import Disagreement, disagreement
from polypref.profiling.groups import Groups, groups
from polypref.profiling.minorities import Minorities, minorities
from polypref.profiling.room import Room, majority_accuracy, room
from polypref.profiling.social_choice import SocialChoice, social_choice
from polypref.profiling.votes import PairKey, Votes
from polypref.profiling.votes import votes as as_votes
from polypref.wording import markdown_line, markdown_text

MAJORITY = "majority of the judges"
THUMBS = (
    "Disagreement, minorities, room, cycles and groups are unknown: a like or dislike is against the person's own bar, "
    "so people of one taste may like and dislike the same answer."
)


@dataclass(frozen=True)
class Profile:
    """The profile of a data set.

    ``sizes`` counts judgements (``thumbs`` of them of single responses; ``typical`` is the median of a user), ties,
    users, pairs, prompts, responses, rows left out.
    """

    sizes: dict[str, int]
    origin: Origin
    disagreement: Disagreement
    consistency: Consistency
    minorities: Minorities
    room: Room
    social_choice: SocialChoice
    groups: Groups

    def as_dict(self) -> dict[str, object]:
        """JSON-able: no NaN, unknown is None."""
        parts = ("origin", "disagreement", "consistency", "minorities", "room", "social_choice", "groups")
        content: dict[str, object] = {part: getattr(self, part).as_dict() for part in parts}
        return {"sizes": self.sizes, **content, "sentences": self.sentences(), "table2": self.table2()}

    def sentences(self) -> dict[str, str]:
        """One sentence for each dimension."""
        if self.only_thumbs:
            return {
                "origin": formatting.of_origin(self.origin),
                "disagreement": THUMBS,
                "consistency": formatting.of_consistency(self.consistency),
            }
        return {
            "origin": formatting.of_origin(self.origin),
            "disagreement": formatting.of_disagreement(self.disagreement),
            "consistency": formatting.of_consistency(self.consistency),
            "minorities": formatting.of_minorities(self.minorities),
            "room": formatting.of_room(self.room),
            "aggregation": formatting.of_social_choice(self.social_choice),
            "groups": formatting.of_groups(self.groups),
        }

    @property
    def only_thumbs(self) -> bool:
        """Whether every judgement is a like or dislike of a single response."""
        return self.sizes["thumbs"] == self.sizes["judgements"]

    def rows(self) -> list[formatting.Row]:
        """Every quantity as (dimension, name, value, interval, what it was counted over)."""
        return [
            *formatting.disagreement_rows(self.disagreement),
            *formatting.consistency_rows(self.consistency),
            *formatting.minority_rows(self.minorities),
            *formatting.room_rows(self.room),
            *formatting.aggregation_rows(self.social_choice, self.groups),
        ]

    def table2(self, name: str = "data", header: bool = True) -> str:
        """One Markdown row like those of the evaluation paper's Table 2; ``header=False`` leaves out its header."""
        low, high, _ = self.minorities.mv_acc_range
        cells = (
            markdown_text(name),
            f"{self.sizes['judgements']:,}",
            f"{self.sizes['users']:,}",
            formatting.percent(self.disagreement.contested.value),
            formatting.percent(self.disagreement.highly_contested.value),
            formatting.between(low, high, 2) or formatting.UNKNOWN,
            formatting.share(self.consistency.retest.value),
        )
        row = markdown_line(cells)
        if not header:
            return row
        titles = ("data", "#samples", "#users", "contested", "highly contested", "MV-ACC", "consistency")
        return "\n".join((markdown_line(titles), "|---|" + "---:|" * (len(titles) - 1), row))


def profile(comparisons: Comparisons, *, seed: int = 0, pairs: PairKey = "text") -> Profile:
    """Profile any comparisons; what they cannot show is None with n = 0.

    ``pairs`` "text" counts the same two texts as one pair whatever their pair id; "id" uses the data's own pair ids for
    disagreement, minorities and room (repeats, cycles and groups always use the texts).
    """
    comparisons = comparisons_of(comparisons)
    expect("seed", seed, Seed)
    expect("pairs", pairs, PairKey)
    from threadpoolctl import threadpool_limits

    # thousands of small matrices: BLAS threads slow this down, up to fifty times on a busy machine
    with threadpool_limits(1, user_api="blas"):
        return _profile(counted(comparisons), seed, pairs)


def _profile(comparisons: Comparisons, seed: int, pairs: PairKey) -> Profile:
    by_text = as_votes(comparisons)
    by_choice = by_text if pairs == "text" else as_votes(comparisons, pairs)
    all_by_text = as_votes(comparisons, thumbs=True)  # one person has one bar, so answers given twice can be compared
    made = origin(comparisons)
    differing = disagreement(by_choice, seed, derived=made.dependent)
    consistent = consistency(all_by_text, differing)
    return Profile(
        sizes=_sizes(comparisons, by_choice, all_by_text),
        origin=made,
        disagreement=differing,
        consistency=consistent,
        minorities=minorities(by_choice),
        room=room(majority_accuracy(by_choice), consistent, MAJORITY),
        social_choice=social_choice(by_text, seed),
        groups=groups(by_text, derived=made.dependent, seed=seed),
    )


def _sizes(comparisons: Comparisons, votes: Votes, all_votes: Votes) -> dict[str, int]:
    own_U = np.unique(comparisons.user_N, return_counts=True)[1]
    return {
        "judgements": len(comparisons),
        "ties": 0 if comparisons.tie_N is None else int(comparisons.tie_N.sum()),
        "users": len(own_U),
        "typical": int(np.median(own_U)) if len(own_U) else 0,
        "pairs": votes.n_pairs,
        "shared_pairs": int((votes.decided.panel_Y >= 2).sum()),
        "prompts": len(np.unique(all_votes.prompt_Y)),
        "responses": int((~comparisons.responses.bar_R[np.union1d(all_votes.first_Y, all_votes.second_Y)]).sum()),
        "same_text": votes.same_text,
        "thumbs": int(bar_N(comparisons).sum()),
    }
