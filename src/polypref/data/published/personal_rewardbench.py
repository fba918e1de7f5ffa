"""PersonalRewardBench (Ryan et al. 2025, SynthesizeMe): people of Chatbot Arena and PRISM with enough judgements.

MichaelR207/chatbot_arena_personalized_0125 and MichaelR207/prism_personalized_0125, 854 people together: user_id,
context (a list of {role, content}), chosen and rejected ({role, content} each), split. Other columns are not read.
Changed: the set's own split of each person's rows is not used; polypref splits by pair or prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, messages, read_files, stack, structured, typed

COLUMNS = ("user_id", "context", "chosen", "rejected")


@dataclass(frozen=True)
class PersonalRewardBench:
    """All rows of the given files."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form."""
        whole = stack([_rows(file) for file in read_files(paths, limits)])
        selection = Selection(whole)
        selection.drop("no user", pl.col.user_id.is_null())
        return selection.finish("PersonalRewardBench", whole.height, ())


def _rows(file: File) -> pl.DataFrame:
    rows = typed(file, file.need("PersonalRewardBench", *COLUMNS), {"user_id": "text"})
    structured(file, rows, "context", ("role", "content"), listed=True)
    for side in ("chosen", "rejected"):
        structured(file, rows, side, ("content",))
    answers = (pl.col(side).struct.field("content").alias(side) for side in ("chosen", "rejected"))
    return rows.select("user_id", messages("context").alias("prompt"), *answers)
