"""PRISM (Kirk et al. 2024): 1,396 people from many countries talk with language models and rate the answers.

HannahRoseKirk/prism-alignment: utterances.jsonl has one row for each rated answer (conversation_id, user_id, turn,
within_turn_id, user_prompt, model_response, score 1 to 100, if_chosen), survey.jsonl each person's statements about
themselves. The prompt of a turn is the conversation so far, with the answers that the person chose. Pairs are

    chosen  the chosen answer of a turn against each other answer, as in P-RLHF
    rated   every two answers of a turn, the higher score preferred, equal scores a tie

Human texts are CC BY, model texts CC BY-NC. Changed: P-RLHF also leaves out texts above 2,300 characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, Selection, message, one_of, read_files, stack, typed
from polypref.errors import InputError

COLUMNS = (
    *("conversation_id", "user_id", "turn", "within_turn_id"),
    *("user_prompt", "model_response", "score", "if_chosen"),
)
KINDS = {
    **dict.fromkeys(("conversation_id", "user_id", "user_prompt", "model_response"), "text"),
    **dict.fromkeys(("turn", "within_turn_id", "score"), "number"),
    "if_chosen": "flag",
}
SURVEY = ("age", "gender", "education", "employment_status", "marital_status", "english_proficiency")
TURN = ("conversation_id", "turn")


@dataclass(frozen=True)
class Prism:
    """``pairs`` chosen or rated."""

    pairs: str = "chosen"

    def __post_init__(self) -> None:
        one_of("kind of pairs of prism", self.pairs, ("chosen", "rated"))

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError without utterances, or for a file that is neither utterances nor the survey."""
        files = read_files(paths, limits)
        surveys = [file for file in files if not file.has("model_response") and file.has("user_id", "age")]
        others = [file for file in files if file not in surveys]
        wrong = next((file for file in others if file.has("conversation_history")), None)
        if wrong is not None or not others:
            raise InputError(
                f"{(wrong or files[0]).path} holds no utterances of PRISM; give utterances.jsonl (one row for each "
                f"rated answer of the same conversations), and survey.jsonl for what people said about themselves."
            )
        rows = stack([typed(file, file.need("PRISM", *COLUMNS), KINDS) for file in others])
        selection = Selection(rows.unique(maintain_order=True))
        selection.count("copy of an earlier row", rows.height - selection.frame.height)
        history = _history(selection)
        if self.pairs == "rated":
            unrated = pl.col.score.is_null() & pl.col.model_response.is_not_null()
            selection.drop("answers without a score", unrated)
        selection.frame = self._paired(selection.frame).join(history, on=TURN, how="left", maintain_order="left")
        columns = ["tie"] if self.pairs == "rated" else []
        if surveys:
            selection.frame = selection.frame.join(
                _survey(surveys[0].frame), on="user_id", how="left", maintain_order="left"
            )
            columns.append("attributes")
        return selection.finish(f"PRISM, {self.pairs} answers", rows.height, (), columns)

    def _paired(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Two answers of a turn in each row: ``chosen``, ``rejected`` and, of ratings, ``tie``."""
        each = rows.select(*TURN, "user_id", "within_turn_id", "model_response", "score", "if_chosen")
        other = each.select(
            *TURN, pl.col("within_turn_id", "model_response", "score", "if_chosen").name.suffix("_other")
        )
        both = each.join(other, on=TURN, how="inner", maintain_order="left_right")
        if self.pairs == "chosen":
            found = both.filter(pl.col.if_chosen & ~pl.col.if_chosen_other)
        else:
            ordered = pl.col.within_turn_id < pl.col.within_turn_id_other
            tied = (pl.col.score == pl.col.score_other) & ordered
            found = both.filter((pl.col.score > pl.col.score_other) | tied)
        return found.with_columns(
            chosen=pl.col.model_response, rejected=pl.col.model_response_other, tie=pl.col.score == pl.col.score_other
        )


def _history(selection: Selection) -> pl.DataFrame:
    """``conversation_id``, ``turn`` and the ``prompt`` of each turn as chat JSON.

    Turns after one without a chosen answer are left out, since their context is unknown.
    """
    picked = selection.frame.sort("within_turn_id").group_by(TURN, maintain_order=True)
    turns = picked.agg(
        asked=pl.col.user_prompt.first(), answer=pl.col.model_response.filter(pl.col.if_chosen).first()
    ).sort(TURN)
    before = pl.col.answer.is_not_null().cast(pl.Int64).cum_prod().shift(1, fill_value=1).over("conversation_id")
    turns = turns.with_columns(
        known=before == 1, user=message("user", pl.col.asked), model=message("assistant", pl.col.answer)
    )
    lost = turns.filter(~pl.col.known).select(TURN)
    kept = selection.frame.join(lost, on=TURN, how="anti", maintain_order="left")
    selection.count("answers after a turn in which none was chosen", selection.frame.height - kept.height)
    selection.frame = kept
    earlier = turns.select("conversation_id", "turn", pl.format("{},{},", "user", "model").alias("said"))
    said = (
        turns.filter("known")
        .select(TURN)
        .join(earlier, on="conversation_id", suffix="_before")
        .filter(pl.col.turn_before < pl.col.turn)
        .sort("conversation_id", "turn", "turn_before")
        .group_by(TURN)
        .agg(pl.col.said.str.join(""))
    )
    known = turns.filter("known").join(said, on=TURN, how="left")
    return known.select(*TURN, pl.format("[{}{}]", pl.col.said.fill_null(""), "user").alias("prompt"))


def _survey(rows: pl.DataFrame) -> pl.DataFrame:
    known = [name for name in SURVEY if name in rows.columns]
    return rows.select(
        pl.col.user_id.cast(pl.String), pl.struct(known).struct.json_encode().alias("attributes")
    ).unique("user_id")
