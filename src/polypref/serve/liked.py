"""What a person's reward likes, in words, as ``GET /v1/users/{user}`` tells it (``traits``).

The first answer after a start encodes the contrasting texts, some hundred short ones; later ones cost milliseconds.
Bounds are not looked at: a liking is the person's, whatever becomes of it.
"""

from __future__ import annotations

from typing import Any

from polypref.errors import EncoderError
from polypref.learners.linear import LinearScorer
from polypref.serve.people import People
from polypref.serve.store.contract import Person
from polypref.traits import describe

LATER = "What you like cannot be said now, since the encoder does not answer; ask again later."


def in_traits(people: People, person: Person) -> dict[str, Any] | None:
    """The person's traits; None while judgements are paused, for strangers, and for scorers that are not linear."""
    in_force = people.in_force
    if not isinstance(in_force.scorer, LinearScorer):
        return None
    try:
        state = people.derived(person, in_force)
        scorer, user = state.scorer, state.user
        if user is None or not isinstance(scorer, LinearScorer):
            return None
        if not any(user_1[0] >= 0 for user_1, _, _ in scorer.tables([user])):
            return None
        told = describe(scorer, [user])[0].as_dict()
    except EncoderError:
        return {"text": LATER, "traits": [], "rests_on": ""}
    return {name: told[name] for name in ("text", "traits", "rests_on")}
