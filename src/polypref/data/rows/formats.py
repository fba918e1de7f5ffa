"""Rows of any layout to one canonical frame of comparisons, vectorised; problems go to the problem log.

The canonical frame has ``line``, ``user_id``, ``prompt``, ``chat`` (is the prompt chat JSON?), then ``chosen``,
``rejected`` and ``tie`` for judgements, ``response`` and ``rating`` or ``up`` for single responses, and of the
optional columns those that the file has: ``pair_id``, ``time``, ``seconds``, ``weight``, ``shown_first``,
``attributes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from polypref.content import one_form
from polypref.data.files.limits import Limits
from polypref.data.files.textfiles import Batch
from polypref.data.linting.problems import ProblemLog
from polypref.data.rows import chat, thumbs, values
from polypref.data.rows.convert import explode_several
from polypref.data.rows.layouts import Layout
from polypref.data.rows.ranked import explode_rankings
from polypref.data.rows.roles import WON
from polypref.data.rows.rows import Reader, Rows
from polypref.data.rows.survey import MODELS, SIDES, Meanings, label_text, sides_by_text

OPTIONAL: dict[str, tuple[Reader, str]] = {
    "time": (values.as_time, "a date (ISO 8601) or seconds since 1970"),
    "seconds": (values.as_number, "a number of seconds"),
    "shown_first": (values.as_shown_first, "chosen or rejected"),
}


def canonical(
    batch: Batch, layout: Layout, file: str, problem_log: ProblemLog, limits: Limits, meanings: Meanings
) -> pl.DataFrame:
    """The batch's usable rows in canonical form; ``meanings`` are those of the whole file."""
    rows = Rows(batch, layout, file, problem_log, limits)
    _read_users(rows)
    if layout.shape == "rankings":
        rows.frame = explode_rankings(rows, meanings.ranked)
    if layout.shape == "pairs":
        explode_several(rows)
    _read_texts(rows)
    if layout.shape in ("pairs", "rankings"):
        _read_pairs(rows, meanings)
    if layout.shape == "labels":
        _read_labels(rows, meanings)
    if layout.shape == "ratings":
        rating, bad = meanings.ratings.read(rows.frame["rating"])
        rows.set(_rating=rating)
        rows.drop("unreadable rating", bad, "rating", "a number written as the others are")
        rows.drop("no rating", rows.frame["_rating"].is_null(), "rating", "a number")
        rows.set(rating=rows.frame["_rating"])
    if layout.shape == "thumbs":
        thumbs.read_thumbs(rows, meanings.thumbs)
    _read_optional(rows)
    return rows.frame


def response_rows(batch: Batch, names: Mapping[str, str], file: str, problem_log: ProblemLog) -> pl.DataFrame:
    """Rows of ``user_id``, ``prompt`` and ``response`` without a judgement, read as those of preferences are."""
    rows = Rows(batch, Layout("ratings", names), file, problem_log)
    _read_users(rows)
    _read_texts(rows)
    return rows.frame.select("user_id", "prompt", "chat", "response")


def text_rows(batch: Batch, names: Mapping[str, str], file: str, problem_log: ProblemLog) -> pl.DataFrame:
    """Rows of ``prompt``, ``chat`` and ``response`` of nobody in particular; a prompt is "" where the file has none."""
    rows = Rows(batch, Layout("ratings", names), file, problem_log)
    _read_texts(rows)
    return rows.frame.select("prompt", "chat", "response")


def _read_users(rows: Rows) -> None:
    ids = one_form(values.as_text(rows.frame["user_id"]))
    rows.set(user_id=ids)
    absent = ids.is_null() | ids.is_in(["", *(values.NOBODY if rows.untyped else ())])
    rows.drop("missing user_id", absent, "user_id", "the id of the person who judged")
    broken = rows.frame["user_id"].str.contains("\0", literal=True)
    rows.drop("NUL character", broken, "user_id", "an id without NUL characters")


def _read_texts(rows: Rows) -> None:
    """Bring prompt and responses to text or canonical chat JSON."""
    sides = [role for role in ("chosen", "rejected", "response_a", "response_b", "response") if rows.has(role)]
    for role in [*sides, "prompt"]:
        if rows.has(role):
            column = values.as_text(rows.frame[role])
            rows.set(**{role: column})
            broken = column.str.contains("\0", literal=True).fill_null(False)
            rows.drop("NUL character", broken, role, "text without NUL characters (half an emoji reads as one)")
    if rows.has("input"):
        rows.set(prompt=_with_input(rows.frame["prompt"], values.as_text(rows.frame["input"])))
    chat.read_chats(rows, sides)
    rows.set(**{role: rows.frame[role].fill_null("") for role in [*sides, "prompt"]})


def _with_input(prompt: pl.Series, given: pl.Series) -> pl.Series:
    """Instructions, each followed by the text it is about."""
    frame = pl.DataFrame({"prompt": prompt.fill_null(""), "given": given.fill_null("").str.strip_chars()})
    both = pl.concat_str("prompt", pl.lit("\n\n"), "given").str.strip_chars_start()
    return frame.select(pl.when(pl.col.given == "").then("prompt").otherwise(both)).to_series()


def _read_pairs(rows: Rows, meanings: Meanings) -> None:
    tie = pl.Series("tie", np.full(rows.frame.height, rows.layout.all_ties))
    if rows.has("label") and meanings.labels is not None:  # beside chosen and rejected only ties say more
        share, _, _ = meanings.labels.read(values.as_text(rows.frame["label"]))
        tie |= (share == 0.5).fill_null(False)
    if rows.layout.shape == "rankings":
        tie |= rows.frame["tie"]
    elif rows.has("tie"):
        flag, bad = values.as_flag(rows.frame["tie"])
        rows.set(_tie=tie | flag)
        rows.drop("unreadable tie", bad, "tie", "true or false")
        tie = rows.frame["_tie"]
    rows.set(tie=tie)
    if rows.has("chosen_pos"):
        reader = partial(values.as_position, meanings.positions)
        rows.read_optional("chosen_pos", reader, "the position of the chosen response: 0 or 1, or 1 or 2")
        rows.set(shown_first=1 - rows.frame["chosen_pos"])


def _read_labels(rows: Rows, meanings: Meanings) -> None:
    """Labels over response_a and response_b to chosen, rejected and tie, and their grade to ``_grade``."""
    rows.set(_label=pl.Series(np.full(rows.frame.height, 0.5 if rows.layout.all_ties else None, float)))
    role = next((one for one in ("label", WON[0]) if rows.has(one)), SIDES[0])
    if rows.has(SIDES[0]):
        _read_sides(rows, meanings)
    if (labels := meanings.labels) is not None:
        text = label_text(rows.frame)
        if labels.by is not None:
            text = sides_by_text(text, *(rows.frame[one] for one in labels.by))
        share, grade, bad = labels.read(text)
        rows.set(_label=share, _grade=grade)
        rows.drop("unreadable label", bad, role, "one of the labels that say who won")
    if rows.has("label_too") and meanings.labels_too is not None:
        other, _, _ = meanings.labels_too.read(values.as_text(rows.frame["label_too"]))
        against = (other != rows.frame["_label"]).fill_null(False)
        rows.drop("contradictory label", against, "label_too", f"what the column {rows.layout.names['label']} says")
    if rows.has("tie"):
        tie, bad = values.as_flag(rows.frame["tie"])
        rows.set(_tie=tie)
        rows.drop("unreadable tie", bad, "tie", "true or false")
        against = (rows.frame["_tie"] & (rows.frame["_label"] != 0.5)).fill_null(False)
        rows.drop("contradictory label", against, "label", "a tie, as the column for ties says")
        rows.set(_label=rows.frame.select(pl.when("_tie").then(0.5).otherwise("_label")).to_series())
    known_as = role if rows.has(role) else "tie"
    rows.drop("no label", rows.frame["_label"].is_null(), known_as, "a label that says who won, or a tie")
    first = rows.frame["_label"] >= 0.5
    rows.frame = rows.frame.with_columns(
        chosen=pl.when(first).then("response_a").otherwise("response_b"),
        rejected=pl.when(first).then("response_b").otherwise("response_a"),
        tie=pl.col("_label") == 0.5,
        shown_first=first.cast(pl.Int8),  # response_a is what was shown first
    )


def _read_sides(rows: Rows, meanings: Meanings) -> None:
    """The label that a rating of each of the two responses gives."""
    for role in SIDES:
        rating, bad = meanings.ratings.read(rows.frame[role])
        rows.set(**{f"_{role}": rating})
        rows.drop("unreadable rating", bad, role, "a number written as the others are")
    one, other = (pl.col(f"_{role}") for role in SIDES)
    label = pl.when(one > other).then(1.0).when(one < other).then(0.0).when(one == other).then(0.5)
    rows.set(_label=rows.frame.select(label).to_series())


def _read_optional(rows: Rows) -> None:
    for role, (reader, expected) in OPTIONAL.items():
        if rows.has(role) and not (role == "shown_first" and rows.frame[role].dtype == pl.Int8):
            rows.read_optional(role, reader, expected)
    if rows.has("weight"):
        weight, bad = values.as_number(rows.frame["weight"])
        rows.set(_weight=weight.fill_null(1.0))
        rows.drop("unreadable weight", bad | (weight < 0).fill_null(False), "weight", "a number, 0 or more")
        rows.set(weight=rows.frame["_weight"])
    if rows.has("_grade") and (rows.frame["_grade"] != 1.0).any():
        rows.set(weight=rows.frame["_grade"] * (rows.frame["weight"] if rows.has("weight") else 1.0))
    for role in ("pair_id", "attributes"):
        if rows.has(role):
            text = values.as_text(rows.frame[role])
            rows.set(**{role: pl.select(pl.when(text.str.strip_chars() != "").then(text)).to_series()})
    gone = [name for name in rows.frame.columns if name.startswith("_")]
    done = ("input", "response_a", "response_b", "label", "label_too", "chosen_pos", *WON, *SIDES, *MODELS)
    rows.frame = rows.frame.drop(*gone, *done, strict=False)
