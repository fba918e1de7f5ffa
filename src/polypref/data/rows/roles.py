"""The roles that columns play, the names by which they are found, and what each shape of file needs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Literal

Shape = Literal["pairs", "labels", "ratings", "rankings", "thumbs"]

CHATS = ("messages", "conversations", "conversation")  # prompts, or prompts and the response where there is no other

# The names of the two responses of one row: one word, numbered or lettered in two ways that belong together.
TEXT_NAMES = ("response", "answer", "output", "completion", "reply", "generation", "candidate", "option", "summary")
TEXT_NAMES += ("conversation",)
ENDINGS = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"))
PAIRED = tuple(
    (f"{name}{gap}{one}", f"{name}{gap}{other}") for one, other in ENDINGS for name in TEXT_NAMES for gap in ("_", "")
)
PAIRED += (("human_ref_a", "human_ref_b"), ("first_response", "second_response"), ("left_response", "right_response"))
COUNTED = (("0", "1", "2", "3"), ("a", "b", "c"))  # of one word with more than two of these endings, none is meant

RATED = tuple(  # ratings of the two responses of one row
    (f"{name}{gap}{one}", f"{name}{gap}{other}")
    for one, other in ENDINGS
    for name in ("score", "rating", "grade", "stars", "points")
    for gap in ("_", "")
)
WON = ("won_a", "won_b", "won_tie")  # a column for each outcome, in place of a label
LABELS = ("label", "winner", "preference", "choice")
# Role -> the column names understood without --columns, the most specific first.
ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("user_id", "uid", "user", "userid", "worker_id", "worker", "workerid", "annotator_id", "annotator"),
        *("rater_id", "rater", "judge", "participant_id", "participant", "labeler"),
    ),
    "prompt": ("prompt", "instruction", "question", "query", "context", *CHATS, "history", "input"),
    "input": ("input",),
    "chosen": ("chosen", "preferred", "chosen_response", "preferred_response", "preferred_output"),
    "rejected": (
        *("rejected", "dispreferred", "rejected_response", "dispreferred_response"),
        *("dispreferred_output", "non_preferred_output"),
    ),
    "response_a": tuple(one for one, _ in PAIRED),
    "response_b": tuple(other for one, other in PAIRED if not one.endswith("0")),
    "label": (
        *(*LABELS, "verdict", "judgement", "judgment", "better", "vote"),
        *("overall_preference", "preference_strength", "overall_pref", "better_response", "better_response_id"),
        *("labels", "winner_index", "chosen_index", "preferred_index"),
    ),
    "won_a": ("winner_model_a", "winner_a", "winner_response_a", "a_wins", "model_a_wins"),
    "won_b": ("winner_model_b", "winner_b", "winner_response_b", "b_wins", "model_b_wins"),
    "won_tie": ("winner_tie", "winner_is_tie"),
    "response": ("response", "completion", "answer", "output", *CHATS),
    "rating": ("rating", "score", "stars"),
    "thumb": ("thumb", "thumbs", "thumbs_up", "thumb_up", "feedback", "liked", "like", "reaction"),
    "rating_a": ("rating_a",),
    "rating_b": ("rating_b",),
    "responses": ("responses", "completions", "answers", "outputs", "generations", "candidates"),
    "ratings": ("ratings", "scores"),
    "ranking": ("ranking", "ranks", "rank"),
    "tie": ("tie", "is_tie"),
    "pair_id": ("pair_id", "pairid", "comparison_id"),
    "time": ("timestamp", "time", "created_at", "date"),
    "seconds": ("seconds", "duration", "duration_seconds", "response_time", "elapsed"),
    "weight": ("weight", "sample_weight"),
    "chosen_pos": ("chosen_pos", "chosen_position"),
    "shown_first": ("shown_first",),
    "attributes": ("attributes", "user_attributes", "demographics"),
}
NEEDS: dict[Shape, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "labels": ("response_a", "response_b"),
    "ratings": ("response", "rating"),
    "rankings": ("responses", "ranking"),
    "thumbs": ("response", "thumb"),
}
ONLY_IN: dict[str, tuple[Shape, ...]] = {
    role: tuple(shape for shape, roles in NEEDS.items() if role in roles) for role in chain(*NEEDS.values())
}
ONLY_IN |= {
    "label": ("pairs", "labels", "rankings"),
    "rating_a": ("labels",),
    "rating_b": ("labels",),
    "ratings": ("rankings",),
    "label_too": ("labels",),
    "won_a": ("labels",),
    "won_b": ("labels",),
    "won_tie": ("labels",),
    "tie": ("pairs", "labels"),
    "chosen_pos": ("pairs",),
    "shown_first": ("pairs",),
}
TEXTS = ("prompt", "input", "chosen", "rejected", "response_a", "response_b", "response")
READABLE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(TEXTS, ("text", "list", "object")),
    "user_id": ("text", "number"),
    "responses": ("list", "text"),
    "ranking": ("list", "text"),
    "rating": ("number", "text", "boolean"),
    "ratings": ("list", "text"),
    "rating_a": ("number", "text"),
    "rating_b": ("number", "text"),
    "thumb": ("number", "text", "boolean"),
    "weight": ("number", "text"),
    "seconds": ("number", "text", "time"),
    "attributes": ("object", "text"),
}
