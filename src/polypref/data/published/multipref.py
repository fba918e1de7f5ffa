"""MultiPref (Miranda et al. 2024): 10,000 comparisons, each judged by two crowd workers and two experts.

allenai/multipref, config default (ODC-BY), JSON lines or Parquet: comparison_id, prompt_id, text (the prompt),
completion_a, completion_b, model_a, model_b, and normal_worker_annotations and expert_worker_annotations, lists of
{evaluator, overall_pref, helpful_pref, truthful_pref, harmless_pref, ...}. A preference is A-is-clearly-better,
A-is-slightly-better, Tie, B-is-slightly-better or B-is-clearly-better. The person is evaluator. Judgements are of

    people  all, normal (the crowd workers) or expert
    pairs   overall, helpful, truthful or harmless: which of the four questions

Written beside the judgements: strength (2 clearly, 1 slightly or a tie; --columns weight=strength counts clear
preferences more), chosen_model and rejected_model (the systems that wrote the answers), and in attributes whether the
person is a crowd worker or an expert.

Traps. The four questions are about one pair: judgements of several of them are not independent, so one file has one.
The configs *_binarized hold one label of each pair and no people (one of them is GPT-4's), and are refused. A tie is
frequent for harmless, and is kept. Who is in both lists of annotations is told, and counts as one person.

Columns: verified by public loaders of several projects, and files and licence by the set's page. That evaluator is the
same person in all rows is what those projects assume; the set's card could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, one_of, read_files, stack, structured, typed
from polypref.errors import InputError
from polypref.wording import are, counted

TEXTS = ("comparison_id", "text", "completion_a", "completion_b")
MODELS = ("model_a", "model_b")
LISTS = {"normal": "normal_worker_annotations", "expert": "expert_worker_annotations"}
ASPECTS = ("overall", "helpful", "truthful", "harmless")
STRENGTH = {
    "A-is-clearly-better": -2,
    "A-is-slightly-better": -1,
    "Tie": 0,
    "B-is-slightly-better": 1,
    "B-is-clearly-better": 2,
}


@dataclass(frozen=True)
class MultiPref:
    """``people`` all, normal or expert; ``pairs`` overall, helpful, truthful or harmless."""

    people: str = "all"
    pairs: str = "overall"

    def __post_init__(self) -> None:
        one_of("kind of people of multipref", self.people, ("all", *LISTS))
        one_of("kind of pairs of multipref", self.pairs, ASPECTS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form, and for a preference in other words."""
        kinds = LISTS if self.people == "all" else {self.people: LISTS[self.people]}
        files = read_files(paths, limits)
        whole = stack([self._judged(file, kind, name) for file in files for kind, name in kinds.items()])
        selection = Selection(whole)
        selection.drop("no evaluator", pl.col.user_id.is_null())
        selection.drop(f"no {self.pairs} preference", pl.col.score.is_null())
        first = pl.col.score <= 0
        selection.frame = selection.frame.with_columns(
            chosen=pl.when(first).then("completion_a").otherwise("completion_b"),
            rejected=pl.when(first).then("completion_b").otherwise("completion_a"),
            tie=pl.col.score == 0,
            strength=pl.max_horizontal(pl.col.score.abs(), pl.lit(1)),
            chosen_model=pl.when(first).then("model_a").otherwise("model_b"),
            rejected_model=pl.when(first).then("model_b").otherwise("model_a"),
            attributes=pl.struct("worker").struct.json_encode(),
        )
        ties = int(selection.frame["tie"].sum())
        remarks = [f"{counted(ties, 'ties')} {are(ties)} kept"]
        both = whole.group_by("user_id").agg(pl.col.worker.n_unique()).filter(pl.col.worker > 1)["user_id"].drop_nulls()
        if len(both):
            remarks.append(
                f"{counted(len(both), 'evaluators')} {are(len(both))} among the crowd workers and the experts, as "
                f"{both.sort()[0]}: each counts as one person"
            )
        systems = ["chosen_model", "rejected_model"] if any(file.has(*MODELS) for file in files) else []
        columns = ("pair_id", "tie", "strength", *systems, "attributes")
        return selection.finish(f"MultiPref, {self.people} people, {self.pairs}", whole.height, remarks, columns)

    def _judged(self, file: File, kind: str, name: str) -> pl.DataFrame:
        """One row for each annotation in a list."""
        field = f"{self.pairs}_pref"
        file.need("MultiPref", *TEXTS, name)
        structured(file, file.frame, name, ("evaluator", field), listed=True)
        there = [model for model in MODELS if file.has(model)]
        rows = typed(file, file.frame, dict.fromkeys((*TEXTS, *there), "text"))
        rows = rows.with_columns(row=pl.int_range(1, pl.len() + 1)).explode(name).filter(pl.col(name).is_not_null())
        said = rows.select("row", pl.col(name).struct.field(field).alias("said"))
        odd = said.filter(pl.col.said.is_not_null() & ~pl.col.said.is_in(list(STRENGTH)))
        if not odd.is_empty():
            raise InputError(
                f'row {odd["row"][0]} of {file.path}: "{field}" in {name} is {odd["said"][0]!r}; expected one of '
                f"{', '.join(STRENGTH)}."
            )
        return rows.select(
            pl.col(name).struct.field("evaluator").cast(pl.String).alias("user_id"),
            pl.lit(kind).alias("worker"),
            pl.col.comparison_id.alias("pair_id"),
            pl.col.text.alias("prompt"),
            "completion_a",
            "completion_b",
            *(pl.col(model) if model in there else pl.lit(None, pl.String).alias(model) for model in MODELS),
            score=pl.col(name)
            .struct.field(field)
            .cast(pl.String)
            .replace_strict(STRENGTH, default=None, return_dtype=pl.Int64),
        )
