"""Chatbot Arena (Zheng et al. 2023): 33,000 battles between two models, judged by the person who asked.

lmsys/chatbot_arena_conversations: question_id, judge (the person), winner (model_a, model_b, tie, tie (bothbad)),
conversation_a and conversation_b (lists of {role, content} with the same questions), tstamp. Later releases have
judge_hash, or only evaluation_session_id, in place of judge. Both kinds of tie are kept as ties. The common start of
both conversations is the prompt; the rest of a longer conversation is the response. Most of the 13,000 judges gave one
or two judgements: use --min-judgements to select users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, chats, read_files, stack, typed
from polypref.errors import InputError
from polypref.wording import are, counted

COLUMNS = ("winner", "conversation_a", "conversation_b")
PERSON = ("judge", "judge_hash", "evaluation_session_id")  # a session is no person, but all that later releases give
QUESTION, TIME = ("question_id", "id"), ("tstamp", "timestamp")
TIES = ("tie", "tie (bothbad)", "tie (both_bad)", "both_bad", "bothbad")


@dataclass(frozen=True)
class Arena:
    """All rows with a winner or a tie."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form."""
        files = read_files(paths, limits)
        whole = stack([_battles(file) for file in files])
        selection = Selection(whole)
        selection.drop("no judge", pl.col.judge.is_null())
        selection.drop("no winner", ~pl.col.winner.is_in(["model_a", "model_b", *TIES]))
        first = pl.col.winner != "model_b"
        selection.frame = selection.frame.with_columns(
            user_id=pl.col.judge,
            prompt=pl.col.a.str.json_path_match("$[0].content"),
            chosen=pl.when(first).then("a").otherwise("b"),
            rejected=pl.when(first).then("b").otherwise("a"),
            tie=pl.col.winner.is_in(TIES),
        )
        ties = int(selection.frame["tie"].sum())
        judges = selection.frame["user_id"].value_counts()["count"]
        remarks = (
            f"{counted(ties, 'ties')} {are(ties)} kept",
            *([SESSIONS] if any(_first(file, PERSON) == PERSON[-1] for file in files) else []),
            f"{int((judges >= 5).sum()):,} of {len(judges):,} judges gave five judgements or more",
        )
        return selection.finish("Chatbot Arena", whole.height, remarks, ("tie", "pair_id", "timestamp"))


SESSIONS = "a session stands for a person: whoever came back counts as another one"


def _first(file: File, names: Sequence[str]) -> str | None:
    return next((name for name in names if file.has(name)), None)


def _battles(file: File) -> pl.DataFrame:
    """The columns judge, winner, a, b, pair_id and timestamp of any of the published releases."""
    person, question, time = (_first(file, names) for names in (PERSON, QUESTION, TIME))
    if person is None:
        found = ", ".join(file.frame.columns[:20])
        raise InputError(
            f"{file.path}: no column says who judged (expected one of {', '.join(PERSON)}); found: {found}. Without "
            "people there is nothing to personalise."
        )
    file.need("Chatbot Arena", *COLUMNS)
    rows = chats(file, "conversation_a", "conversation_b")
    texts = [name for name in (person, question, "winner") if name is not None]
    rows = typed(file, rows, dict.fromkeys(texts, "text"))
    when = pl.lit(None) if time is None else pl.col(time)
    if time is not None and rows.schema[time].is_temporal():
        when = pl.col(time).dt.epoch("ms") / 1000
    return rows.select(
        pl.col(person).alias("judge"),
        "winner",
        pl.col.conversation_a.alias("a"),
        pl.col.conversation_b.alias("b"),
        (pl.lit(None, pl.String) if question is None else pl.col(question)).alias("pair_id"),
        when.alias("timestamp"),
    )
