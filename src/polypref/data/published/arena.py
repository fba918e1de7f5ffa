"""Chatbot Arena (Zheng et al. 2023): 33,000 battles between two models, judged by the person who asked.

lmsys/chatbot_arena_conversations: question_id, judge (the person), winner (model_a, model_b, tie, tie (bothbad)),
conversation_a and conversation_b (lists of {role, content} with the same questions), tstamp. Both kinds of tie are kept
as ties. The common start of both conversations is the prompt; the rest of a longer conversation is the response. Most
of the 13,000 judges gave one or two judgements: use --min-judgements to select users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, Selection, messages, read_files, stack

COLUMNS = ("question_id", "judge", "winner", "conversation_a", "conversation_b", "tstamp")
TIES = ("tie", "tie (bothbad)")


@dataclass(frozen=True)
class Arena:
    """All rows with a winner or a tie."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form."""
        files = [file.need("Chatbot Arena", *COLUMNS) for file in read_files(paths, limits)]
        whole = stack([rows.with_columns(a=messages("conversation_a"), b=messages("conversation_b")) for rows in files])
        selection = Selection(whole)
        selection.drop("no judge", pl.col.judge.is_null())
        selection.drop("no winner", ~pl.col.winner.is_in(["model_a", "model_b", *TIES]))
        first = pl.col.winner != "model_b"
        opening = pl.col.conversation_a.list.get(0, null_on_oob=True).struct.field("content")
        selection.frame = selection.frame.with_columns(
            user_id=pl.col.judge,
            prompt=opening,
            chosen=pl.when(first).then("a").otherwise("b"),
            rejected=pl.when(first).then("b").otherwise("a"),
            tie=pl.col.winner.is_in(TIES),
            pair_id=pl.col.question_id,
            timestamp=pl.col.tstamp,
        )
        ties = int(selection.frame["tie"].sum())
        judges = selection.frame["user_id"].value_counts()["count"]
        remarks = (
            f"{ties:,} ties are kept as ties",
            f"{int((judges >= 5).sum()):,} of {len(judges):,} judges gave five judgements or more",
        )
        return selection.finish("Chatbot Arena", whole.height, remarks, ("tie", "pair_id", "timestamp"))
