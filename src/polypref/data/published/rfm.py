"""RFM's reward models as users (Barreto et al. 2025): eight public reward models score the answers of UltraFeedback.

google/rfm-rm-as-user-dataset (CC BY 4.0), merged_dedup_reward_model_as_user_train.csv (60,819 prompts) and
merged_reward_model_as_user_test.csv (985). The people are models, named as in
OpenAssistant_reward-model-deberta-v3-large-v2; labels follow from scores, so that everyone is perfectly consistent.
Each model prefers the answer that it scores higher; equal scores are a tie. ``models`` keeps only some.

*The layout is not verified.* The card names the files, their rows, the models and "preference scores and rankings"; no
source that names the columns was found. So a file is read only if it has a column prompt, two columns of texts (chosen
and rejected, or response_a and response_b, or _1 and _2, or _0 and _1, or completion_a and completion_b), and for each
model two columns of numbers whose names are made of the model's and of these two texts' names, as in
{model}_chosen_score and {model}_rejected_score, or chosen_{model} and rejected_{model}. Which columns were read is
printed; every other layout is refused with the columns that were found.

Traps. score_chosen and score_rejected, if there, are UltraFeedback's own scores by GPT-4 and no model of the eight.
chosen is what GPT-4 preferred: the first text wins more often than half. Texts that are lists of messages are read as
their last message. Models come from few families and share training data: eight users like these are no population.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, chats, read_files, stack, typed
from polypref.errors import InputError, unknown_name

SIDES = (
    ("chosen", "rejected"),
    ("response_a", "response_b"),
    ("response_1", "response_2"),
    ("response_0", "response_1"),
    ("completion_a", "completion_b"),
)
OWN = ("score_chosen", "score_rejected")
WORDS = ("score", "reward", "text")  # in a column's name, beside the model and the text


@dataclass(frozen=True)
class RFM:
    """``models`` whose judgements are kept (none: all)."""

    models: tuple[str, ...] = ()

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files in which scores of models cannot be told from their names."""
        files = read_files(paths, limits)
        scored = [_scored(file) for file in files]
        found = sorted({name for one in scored for name in one["user_id"].unique()})
        for name in self.models:
            if name not in found:
                raise unknown_name("reward model of the files", name, found)
        whole = stack(scored)
        selection = Selection(whole)
        if self.models:
            selection.drop("a model that was not asked for", ~pl.col.user_id.is_in(list(self.models)))
        selection.drop("a score missing", pl.any_horizontal(pl.col("one", "other").is_null()))
        first = pl.col.one >= pl.col.other
        selection.frame = selection.frame.with_columns(
            chosen=pl.when(first).then("first").otherwise("second"),
            rejected=pl.when(first).then("second").otherwise("first"),
            tie=pl.col.one == pl.col.other,
        )
        remarks = (
            "simulated people: the labels follow reward models' scores and never contradict themselves",
            "the published layout could not be verified; these columns were read: " + "; ".join(_read(files[0])),
        )
        return selection.finish("RFM, reward models as users", whole.height, remarks, ("tie", "attributes"))


def _read(file: File) -> list[str]:
    texts, scores = _layout(file)
    return [f"texts {texts[0]} and {texts[1]}", *(f"{name} from {one}, {two}" for name, (one, two) in scores.items())]


def _scored(file: File) -> pl.DataFrame:
    """One row for each prompt and model: user_id, prompt, first, second and their scores ``one`` and ``other``."""
    texts, scores = _layout(file)
    numbers = [column for pair in scores.values() for column in pair]
    rows = typed(file, file.frame.select("prompt", *texts, *numbers), dict.fromkeys(numbers, "number"))
    for name in texts:
        cells = rows[name].drop_nulls()
        if rows.schema[name] != pl.String or str(cells[0] if len(cells) else "").startswith("[{"):
            read = chats(File(file.path, rows), name)[name].to_list()
            last = [None if chat is None else json.loads(chat)[-1]["content"] for chat in read]
            rows = rows.with_columns(pl.Series(name, last, dtype=pl.String))
    rows = typed(file, rows, dict.fromkeys(("prompt", *texts), "text"))
    parts = [
        rows.select(
            pl.lit(name).alias("user_id"),
            "prompt",
            pl.col(texts[0]).alias("first"),
            pl.col(texts[1]).alias("second"),
            pl.col(one).alias("one"),
            pl.col(two).alias("other"),
            pl.lit(json.dumps({"model": name})).alias("attributes"),
        )
        for name, (one, two) in scores.items()
    ]
    return pl.concat(parts)


def _layout(file: File) -> tuple[tuple[str, str], dict[str, tuple[str, str]]]:
    """The two columns of texts, and each model's two columns of scores."""
    for texts in SIDES:
        if file.has("prompt", *texts):
            both = [_by_model(file, side) for side in texts]
            scores = {name: (both[0][name], both[1][name]) for name in both[0] if name in both[1]}
            if scores:
                return texts, scores
    columns = ", ".join(file.frame.columns[:20])
    raise InputError(
        f"{file.path}: the layout of RFM's set is not verified, and this one is not understood; found: {columns}. "
        "Expected prompt, chosen, rejected, and for each model NAME_chosen_score and NAME_rejected_score, or another "
        "form in docs/published.md. Rename the columns."
    )


def _by_model(file: File, side: str) -> dict[str, str]:
    """Model -> the column whose name is the model's and the text's: ``X`` -> ``X_chosen_score``."""
    found = {}
    for column in file.frame.columns:
        parts = re.split(rf"(?:^|_){re.escape(side)}(?:_|$)", column)
        if len(parts) != 2 or column in (side, *OWN):
            continue
        name = "_".join(word for part in parts for word in part.split("_") if word and word not in WORDS)
        if name:
            found[name] = column
    return found
