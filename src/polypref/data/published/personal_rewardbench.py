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
from polypref.data.published.rows import Converted, Selection, messages, read_files, stack

COLUMNS = ("user_id", "context", "chosen", "rejected")


@dataclass(frozen=True)
class PersonalRewardBench:
    """All rows of the given files."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form."""
        rows = [
            file.need("PersonalRewardBench", *COLUMNS).select(
                pl.col.user_id.cast(pl.String),
                messages("context").alias("prompt"),
                pl.col.chosen.struct.field("content"),
                pl.col.rejected.struct.field("content").alias("other"),
            )
            for file in read_files(paths, limits)
        ]
        whole = stack(rows).rename({"content": "chosen", "other": "rejected"})
        selection = Selection(whole)
        selection.drop("no user", pl.col.user_id.is_null())
        return selection.finish("PersonalRewardBench", whole.height, ())
