"""TL;DR (Stiennon et al. 2020, Learning to summarize from human feedback): real people judge summaries of posts.

openai/summarize_from_feedback, config comparisons: info {post, title, subreddit, ...; post is null for news articles},
summaries [{text, policy, ...} twice], choice, worker, split; 92,858 rows of split train, 86,086 of valid1 and valid2.
Three protocols go by this name, and their figures cannot be compared:

    S  the evaluation paper: the workers with most rows in train (5), counted before filtering, their own labels,
       posts only
    L  P-RLHF (also PAL, CoPL): workers (10) and rows by policy (both summaries from "sup" policies, none from ppo or
       cnn), labels *simulated from length*: by rank, each worker prefers the longer (.7) or the shorter summary, drawn
       with numpy's RandomState(3456)
    R  LoRe, MRM: every worker who judged in both splits, with their own labels, posts only

Changed: under L two summaries of equal length are a tie, while P-RLHF prefers the first; it also leaves out texts above
4,800 characters (with equal texts, 7 of 23,299 rows). Workers with equally many rows are ranked by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, one_of, read_files, stack, structured, typed
from polypref.errors import NotEnoughData, SettingsError

INFO = ("post", "article", "title", "subreddit")
WORKERS = {"S": 5, "L": 10}
SEED, SHORTER = 3456, 0.3
COLUMNS = ("info", "summaries", "choice", "worker", "split")
TITLES = {
    "S": "TL;DR, protocol S: real labels of the busiest workers",
    "L": "TL;DR, protocol L: labels SIMULATED from the length of the summaries, not given by people",
    "R": "TL;DR, protocol R: real labels of all workers in both splits",
}


@dataclass(frozen=True)
class TLDR:
    """``protocol`` S, L or R; number of ``workers`` kept under S and L (0: as published, 5 and 10)."""

    protocol: str = "S"
    workers: int = 0

    def __post_init__(self) -> None:
        one_of("protocol of tldr", self.protocol, tuple(TITLES))
        if self.workers and self.protocol == "R":
            raise SettingsError("--workers is for protocols S and L; R keeps every worker in both splits.")

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form, NotEnoughData without train rows to rank the workers."""
        whole = stack([_flat(file) for file in read_files(paths, limits)])
        selection = Selection(whole)
        selection.drop("no worker", pl.col.worker.is_null())
        remarks = (_SIMULATED,) if self.protocol == "L" else ()
        keep = {"S": self._busiest, "L": self._by_length, "R": _in_both_splits}[self.protocol]
        columns = keep(selection)
        return selection.finish(TITLES[self.protocol], whole.height, remarks, columns)

    def _busiest(self, selection: Selection) -> tuple[str, ...]:
        top = _ranked(selection.frame)[: self.workers or WORKERS["S"]]
        selection.drop("not one of the busiest workers", ~pl.col.worker.is_in(top))
        return _own_labels(selection)

    def _by_length(self, selection: Selection) -> tuple[str, ...]:
        bad = [
            ~pl.col(side).str.contains("sup", literal=True) | pl.col(side).str.contains("ppo|cnn")
            for side in ("policy_0", "policy_1")
        ]
        selection.drop("a summary of another policy", pl.any_horizontal(bad))
        ranked = _ranked(selection.frame)
        shorter = np.random.RandomState(SEED).random_sample(len(ranked)) >= 1 - SHORTER
        top = ranked[: self.workers or WORKERS["L"]]
        selection.drop("not one of the busiest workers", ~pl.col.worker.is_in(top))
        prefers = dict(zip(ranked, np.where(shorter, "shorter", "longer").tolist(), strict=True))
        selection.frame = selection.frame.with_columns(
            prefers=pl.col.worker.replace_strict(prefers, default=None, return_dtype=pl.String)
        )
        length_0, length_1 = pl.col.text_0.str.len_chars(), pl.col.text_1.str.len_chars()
        first = pl.when(pl.col.prefers == "longer").then(length_0 >= length_1).otherwise(length_0 <= length_1)
        text = pl.coalesce("post", "article")
        _label(selection, first, pl.format("SUBREDDIT: r/{}\nTITLE: {}\nPOST: {}\nTL;DR: ", "subreddit", "title", text))
        simulated = pl.struct(pl.lit("simulated from length").alias("labels"), "prefers").struct.json_encode()
        selection.frame = selection.frame.with_columns(tie=length_0 == length_1, attributes=simulated)
        return "tie", "attributes"


_SIMULATED = (
    "the labels follow the length of the summaries and nothing else, not the workers' choices: figures on this file "
    "show how well a learner finds lengths, not people"
)


def _flat(file: File) -> pl.DataFrame:
    """Flattens nested columns; a missing field is null."""
    rows = typed(file, file.need("TL;DR", *COLUMNS), {"choice": "number", "worker": "text", "split": "text"})
    structured(file, rows, "info", ())
    known = {name for name, _ in rows.schema["info"]} & set(INFO)  # type: ignore[attr-defined]
    structured(file, rows, "info", sorted(known))
    structured(file, rows, "summaries", ("text", "policy"), listed=True)
    info = (
        (pl.col.info.struct.field(name) if name in known else pl.lit(None)).cast(pl.String).alias(name) for name in INFO
    )
    sides = (
        pl.col.summaries.list.get(side, null_on_oob=True).struct.field(name).alias(f"{name}_{side}")
        for side in (0, 1)
        for name in ("text", "policy")
    )
    train = pl.col.split.str.starts_with("train").alias("train")
    return rows.select(*info, *sides, "choice", "worker", train)


def _ranked(frame: pl.DataFrame) -> list[str]:
    """All workers, most rows in train first."""
    counts = frame.group_by("worker").agg(rows=pl.col.train.sum())
    if not counts["rows"].sum():
        raise NotEnoughData("no row of TL;DR is of split train, by which workers are ranked; give the train files too.")
    return counts.sort("rows", "worker", descending=[True, False])["worker"].to_list()


def _in_both_splits(selection: Selection) -> tuple[str, ...]:
    both = pl.col.train.any().over("worker") & (~pl.col.train).any().over("worker")
    selection.drop("a worker of one split only", ~both)
    return _own_labels(selection)


def _own_labels(selection: Selection) -> tuple[str, ...]:
    """The workers' own choices on posts."""
    selection.drop("a news article, not a post", pl.col.post.is_null())
    selection.drop("no choice", ~pl.col.choice.is_in([0.0, 1.0]))
    _label(selection, pl.col.choice == 0, pl.format("Summarize the following text:\n{}", "post"))
    return ()


def _label(selection: Selection, first: pl.Expr, prompt: pl.Expr) -> None:
    selection.frame = selection.frame.with_columns(
        user_id=pl.col.worker,
        prompt=prompt,
        chosen=pl.when(first).then("text_0").otherwise("text_1"),
        rejected=pl.when(first).then("text_1").otherwise("text_0"),
    )
