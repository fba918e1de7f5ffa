"""Which group of people somebody judges like, from a folder of ``polypref groups``, and how sure that is.

A place is computed from the grouping and the person's stored judgements, and from nothing else, so that every process
tells the same. It changes no answer: no scorer of this version has rewards of groups.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from polypref import scorers
from polypref.groups.grouping import UNKNOWN, Grouping
from polypref.learners.protocol import Scorer
from polypref.serve.people import MOST_KEPT, judged
from polypref.serve.remembered import Remembered
from polypref.serve.store.contract import Person, Standing, Store
from polypref.serve.who.person import scorer_id

SAME = "It changes no answer: this server has no rewards of groups."


@dataclass(frozen=True)
class Place:
    """The group, or "unknown", the probability of each (none: nothing can be said), and in words what it rests on."""

    group: str
    probabilities: dict[str, float]
    judgements: int
    known: bool
    text: str

    def told(self) -> dict[str, Any]:
        """As ``GET /v1/users/{user}`` has it."""
        return {
            "group": self.group,
            "probabilities": self.probabilities,
            "from_judgements": self.judgements,
            "known_from_the_groups": self.known,
            "text": f"{self.text} {SAME}",
        }


class Placing:
    """People's places in a grouping, with the most recently asked ones in memory."""

    def __init__(self, grouping: Grouping, store: Store, most: int = MOST_KEPT) -> None:
        self.grouping, self.store, self.most = grouping, store, most
        self._kept: OrderedDict[Person, tuple[Standing, Place]] = OrderedDict()

    def place(self, person: Person) -> Place:
        """Where this person belongs; this takes as long as encoding the new texts."""
        now = self.store.standing(person)
        then, found = self._kept.get(person, (None, None))
        if found is None or then != now:
            found = self._derived(person, now)
        self._kept[person] = now, found
        self._kept.move_to_end(person)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return found

    def _derived(self, person: Person, now: Standing) -> Place:
        grouping, user = self.grouping, scorer_id(person)
        assert user is not None, "nobody has no place"
        read = grouping.model is not None and now.judgements > 0 and not now.paused
        few = judged(person, self.store.judgements(person)) if read else None
        if few is not None and grouping.model is not None and grouping.model.derived:
            few = replace(few, weight_N=None)  # such a grouping weighs the pairs of lists itself
        share_G, group = grouping.placed(user, few)
        known = bool(len(grouping.users)) and int(grouping.users.index([user])[0]) >= 0
        share = dict(zip(grouping.names, map(float, share_G), strict=True)) if np.isfinite(share_G).all() else {}
        used = 0 if few is None else len(few)
        return Place(group, share, used, known, in_words(grouping, group, share, (used, known)))


def in_words(grouping: Grouping, group: str, share: dict[str, float], rests_on: tuple[int, bool]) -> str:
    """A place in a sentence; ``rests_on``: comparisons that were read, and whether the grouping knows the person."""
    used, known = rests_on
    if grouping.model is None:
        place = f"you are in {group}" if known else "your group is not known, and judgements do not tell it"
        return f"By {grouping.origin} {place}."
    if len(grouping.names) == 1:
        return "No groups were found among these people: all of them are in one."
    if not known and not used:
        return "Nothing is known of your group yet."
    what = ["the judgements that the groups were made from"] if known else []
    what += [f"{used} of your comparisons here"] if used else []
    sure = ", ".join(f"{name} {_percent(share[name])}" for name in sorted(share, key=lambda name: (-share[name], name)))
    where = f"you judge most like {group}: {sure}"
    if group == UNKNOWN:
        where = f"you are between groups: {sure}; a group needs {grouping.certainty:.0%}"
    return f"By {' and '.join(what)}, {where}."


def _percent(share: float) -> str:
    """A probability, which is never none and never all."""
    return "under 1%" if share < 0.01 else "over 99%" if share > 0.99 else f"{share:.0%}"


def loaded(folder: Path, scorer: Scorer, allow_network: bool = False) -> Grouping:
    """The grouping; it shares the scorer's features in memory where both read the same encoder.

    Raises ArtifactError, SettingsError.
    """
    grouping = Grouping.load(folder, allow_network=allow_network)
    if grouping.model is None:
        return grouping
    own, encoder = scorers.encoder_of(scorer), grouping.model.inputs.encoder
    same = own is not None and own.identity == encoder.identity
    return Grouping.load(folder, own if same else Remembered(encoder), allow_network=allow_network)
