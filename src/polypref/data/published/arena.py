"""Chatbot Arena (Zheng et al. 2023): 33,000 battles between two models, judged by whoever asked.

lmsys/chatbot_arena_conversations: question_id, judge (the person), winner (model_a, model_b, tie, tie (bothbad)),
conversation_a and conversation_b (lists of {role, content} with the same questions), tstamp. Both kinds of tie are kept
as ties. What both conversations share at the start is the prompt; of a longer conversation the rest is the response.
Most of the 13,000 judges gave one judgement or two: --min-judgements says who is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, Sieve, messages, read_files, stack

COLUMNS = ("question_id", "judge", "winner", "conversation_a", "conversation_b", "tstamp")
TIES = ("tie", "tie (bothbad)")


@dataclass(frozen=True)
class Arena:
    """Everything that has a winner or is a tie."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another shape."""
        files = [file.need("Chatbot Arena", *COLUMNS) for file in read_files(paths, limits)]
        whole = stack([rows.with_columns(a=messages("conversation_a"), b=messages("conversation_b")) for rows in files])
        sieve = Sieve(whole)
        sieve.drop("no judge", pl.col.judge.is_null())
        sieve.drop("no winner", ~pl.col.winner.is_in(["model_a", "model_b", *TIES]))
        first = pl.col.winner != "model_b"
        opening = pl.col.conversation_a.list.get(0, null_on_oob=True).struct.field("content")
        sieve.frame = sieve.frame.with_columns(
            user_id=pl.col.judge,
            prompt=opening,
            chosen=pl.when(first).then("a").otherwise("b"),
            rejected=pl.when(first).then("b").otherwise("a"),
            tie=pl.col.winner.is_in(TIES),
            pair_id=pl.col.question_id,
            timestamp=pl.col.tstamp,
        )
        ties = int(sieve.frame["tie"].sum())
        judges = sieve.frame["user_id"].value_counts()["count"]
        remarks = (
            f"{ties:,} ties are kept as ties",
            f"{int((judges >= 5).sum()):,} of {len(judges):,} judges gave five judgements or more",
        )
        return sieve.finish("Chatbot Arena", whole.height, remarks, ("tie", "pair_id", "timestamp"))
