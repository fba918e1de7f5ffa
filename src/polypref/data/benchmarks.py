"""Reads benchmarks with known right answers: items of candidate responses, with the right ones marked.

Three forms are recognised by their columns: RewardBench (Lambert et al. 2024: prompt, chosen, rejected, subset, id),
RewardBench 2 (Malik et al. 2025: chosen and rejected are lists), Personalized RewardBench (arXiv 2604.07343: question,
profile, chosen, rejected, category). A ``section`` column gives each row's section, for files with their own sections.
JSONL, CSV (not for lists) and Parquet; a prompt may be a list of chat messages.

Covered: a file is read completely or refused with the line, since a score without some rows is another score; a
repeated item of a subset counts once, and contradicting items are kept, both with a note. Not covered: whether the
subsets are those of the benchmark; see ``tax.rewardbench``.

Suffixes here: ``_I`` items.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import BoolArray, IntArray, Responses
from polypref.data.files.late_columns import read_again
from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source, expand, open_source, readable
from polypref.data.giving_up import ReadSoFar
from polypref.errors import InputError
from polypref.wording import counted, shown

ROLES: dict[str, tuple[str, ...]] = {  # role -> possible columns, the first that exists is used
    "prompt": ("prompt", "question"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "subset": ("subset", "category"),
    "section": ("section", "category"),
    "id": ("id",),
    "profile": ("profile",),
}
NEEDED = ("prompt", "chosen", "rejected")
Lines = NDArray[np.int64]
WHOLE = "all"  # the subset of a file that names none


@dataclass(frozen=True, eq=False)
class Suite:
    """I items with C candidate responses, grouped by item, the right ones of an item first.

    ``item_C``      the item of each candidate, ascending; ``response_C`` its number in the pool ``responses``.
    ``right_C``     which candidates are right: at least one and not all of each item.
    ``subset_I``    name of each item's subset; ``section_I`` its section, None if the file has only subsets, which
                    should then be a benchmark's own.
    ``id_I``        the file's own ids, or the line numbers; ``line_I`` the line (Parquet: row) of each item.
    ``lists``       whether the file's candidates are lists, as in RewardBench 2, instead of pairs.
    ``notes``       which items are repeated, and which contradict others.
    """

    file: str
    responses: Responses
    item_C: IntArray
    response_C: IntArray
    right_C: BoolArray
    subset_I: pl.Series
    section_I: pl.Series | None
    id_I: pl.Series
    line_I: NDArray[np.int64]
    lists: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.subset_I)

    def where(self, item: int) -> str:
        """The place of an item, for messages."""
        return f"line {self.line_I[item]} of {self.file}"

    @cached_property
    def content_hash(self) -> str:
        """Hash of the prompts, the right answers and the grouping of items (32 hex digits)."""
        identity_C = self.responses.identity_R[self.response_C]
        names = [None if column is None else content.of_texts(column) for column in (self.subset_I, self.section_I)]
        return content.hexdigest(self.item_C, identity_C, self.right_C, *names)


def read_suite(path: str, *, profile: bool = False, limits: Limits | None = None) -> Suite:
    """Read a benchmark file; with ``profile`` the text of that column is put before each question.

    Raises InputError, with the line, for a row without prompt or candidates, for a file of another form, and for one
    beyond ``limits``.
    """
    files = expand([path])
    if len(files) != 1:
        raise InputError(f"{path} stands for {len(files)} files; expected one benchmark file.")
    with readable(path):
        source, columns, frame, line_I = read_again(partial(_rows, files[0], profile, limits or Limits()))
    prompts = _prompts(frame, line_I, source, columns)
    lists = source.types[columns["chosen"]] == "list"
    sides = [_candidates(frame[side], lists, line_I, source.path) for side in ("chosen", "rejected")]
    kept, notes = _once(frame, prompts, sides, line_I)
    frame, line_I, prompts = frame[kept], line_I[kept], [prompts[i] for i in kept]
    sides = [[side[i] for i in kept] for side in sides]
    count_2I = np.array([[len(texts) for texts in side] for side in sides])
    item_C = np.concatenate([np.repeat(np.arange(len(frame)), count_I) for count_I in count_2I]).astype(np.int32)
    order = np.argsort(item_C, kind="stable")
    item_C, right_C = item_C[order], np.repeat([True, False], count_2I.sum(axis=1))[order]
    texts = pl.Series([text for side in sides for texts in side for text in texts], dtype=pl.String).gather(order)
    bare = "subset" in columns and "section" not in columns
    responses, response_C = Responses.of([prompts[i] for i in item_C], texts)
    return Suite(
        file=path,
        responses=responses,
        item_C=item_C,
        response_C=response_C,
        right_C=right_C,
        subset_I=_names(frame, "subset", line_I, source.path, WHOLE),
        section_I=None if bare else _names(frame, "section", line_I, source.path, WHOLE),
        id_I=frame["id"].cast(pl.String) if "id" in columns else pl.Series(line_I).cast(pl.String),
        line_I=line_I,
        lists=lists,
        notes=notes,
    )


def _once(
    frame: pl.DataFrame, prompts: Sequence[Any], sides: list[list[list[str]]], line_I: NDArray[np.int64]
) -> tuple[list[int], tuple[str, ...]]:
    """Numbers of the items that copy no earlier one of their subset, in the order of their sections, subsets and texts,
    and notes of copies and contradictions.
    """
    columns = [frame[name].cast(pl.String).fill_null("") for name in ("section", "subset") if name in frame.columns]
    places = list(zip(*columns, strict=True))
    seen: dict[tuple, int] = {}
    labels: dict[tuple, tuple[int, tuple]] = {}
    copies, against = [], []
    for i, prompt in enumerate(prompts):
        asked, right, wrong = json.dumps(prompt, sort_keys=True), *(tuple(sorted(side[i])) for side in sides)
        first, told = labels.setdefault((asked, tuple(sorted(right + wrong))), (i, (right, wrong)))
        if told != (right, wrong):
            against.append((line_I[first], line_I[i]))
        first = seen.setdefault((places[i] if places else (), asked, right, wrong), i)
        copies += [] if first == i else [(line_I[first], line_I[i])]
    found = [
        (copies, "occurred before, with the same labels in the same subset; each counts once"),
        (against, "have the prompt and candidates of others but other labels, and are kept; resolve them"),
    ]
    return [seen[key] for key in sorted(seen)], tuple(
        f"{counted(len(pairs), 'items')} {text} (first: lines {pairs[0][0]} and {pairs[0][1]})."
        for pairs, text in found
        if pairs
    )


def _columns(source: Source, profile: bool) -> dict[str, str]:
    """The column of each role."""
    found = {role: next((n for n in names if n in source.types), None) for role, names in ROLES.items()}
    if not profile:
        found["profile"] = None
    if "user_id" in source.types:
        raise InputError(
            f"{source.path} has a column user_id: these are people's preferences. Expected a benchmark, whose right "
            "answers are the same for everybody: prompt, chosen, rejected, subset, id."
        )
    needed = (*NEEDED, "profile") if profile else NEEDED
    for role in needed:
        if found[role] is None:
            wanted = " or ".join(f'"{name}"' for name in ROLES[role])
            raise InputError(
                f"{source.path} has no column {wanted}; found: {', '.join(source.types)}. Expected the columns of "
                "RewardBench: prompt, chosen, rejected, subset, id."
            )
    kinds = [source.types[str(found[side])] for side in ("chosen", "rejected")]
    for role in ("prompt", "chosen", "rejected", *(["profile"] if profile else [])):
        kind = source.types[str(found[role])].removesuffix(" and null")
        if kind not in (("text", "number") if role == "profile" else ("text", "number", "list")):
            raise InputError(
                f'{source.path}: column "{found[role]}" holds {kind} values; expected texts, or lists, in every row.'
            )
    if profile and source.types[str(found["prompt"])] == "list":
        raise InputError(f"{source.path}: prompts are chat messages, which cannot be preceded by a profile.")
    if (kinds[0] == "list") != (kinds[1] == "list"):
        raise InputError(f'{source.path}: "chosen" is {kinds[0]} and "rejected" {kinds[1]}; expected both alike.')
    return {role: name for role, name in found.items() if name is not None}


def _rows(path: str, profile: bool, limits: Limits, late: Sequence[str]) -> tuple[Source, dict, pl.DataFrame, Lines]:
    """The file, the column of each role, all rows with columns named by role, and their lines."""
    source = open_source(path, limits, late, lambda found: [n for names in ROLES.values() for n in names])
    columns = _columns(source, profile)
    so_far = ReadSoFar(source.path, limits)
    batches = []
    for batch in source.batches(list(dict.fromkeys(columns.values())), so_far.unusable):
        so_far.refuse_any("and a score without them is another score")
        so_far.add_whole(batch)
        batches.append(batch)
    if not batches or not sum(len(batch.frame) for batch in batches):
        raise InputError(f"{source.path} holds no rows; expected items with prompt, chosen and rejected.")
    frame = pl.concat([batch.frame for batch in batches])
    line_I = np.concatenate([batch.line_B for batch in batches])
    return source, columns, frame.select(pl.col(name).alias(role) for role, name in columns.items()), line_I


def _names(frame: pl.DataFrame, role: str, line_I: NDArray[np.int64], path: str, default: str) -> pl.Series:
    """A column of names, none of them missing; ``default`` in every row if the file has no such column."""
    if role not in frame.columns:
        return pl.Series(role, [default]).new_from_index(0, len(frame))
    names = frame[role].cast(pl.String)
    absent = names.is_null() | (names == "")
    if absent.any():
        line = line_I[absent.arg_max() or 0]
        raise InputError(f'line {line} of {path}: "{role}" is missing; expected a name in every row.')
    return names


def _prompts(
    frame: pl.DataFrame, line_I: NDArray[np.int64], source: Source, columns: dict[str, str]
) -> Sequence[str | list[dict[str, Any]]]:
    """Each item's prompt, a text or chat messages, preceded by the profile if requested."""
    texts = _present(frame["prompt"], "prompt", line_I, source.path)
    if "profile" in columns:
        about = _present(frame["profile"], "profile", line_I, source.path)
        return [f"{one}\n\n{text}" for one, text in zip(about, texts, strict=True)]
    if source.types[columns["prompt"]] != "list":
        return texts
    return [_parsed(text, "prompt", dict, line, source.path) for text, line in zip(texts, line_I, strict=True)]


def _candidates(column: pl.Series, lists: bool, line_I: NDArray[np.int64], path: str) -> list[list[str]]:
    """The texts of one side, item by item."""
    texts = _present(column, column.name, line_I, path)
    if not lists:
        return [[text] for text in texts]
    return [_parsed(text, column.name, str, line, path) for text, line in zip(texts, line_I, strict=True)]


def _present(column: pl.Series, role: str, line_I: NDArray[np.int64], path: str) -> list[str]:
    absent = column.is_null()
    if absent.any():
        line = line_I[absent.arg_max() or 0]
        raise InputError(f'line {line} of {path}: "{role}" is missing; expected it in every row.')
    return column.cast(pl.String).to_list()


def _parsed(text: str, role: str, kind: type, line: int, path: str) -> list[Any]:
    """A list that was read as JSON text. Raises InputError for an empty one and for elements of another kind."""
    try:
        found = msgspec.json.decode(text) if text.lstrip().startswith("[") else None
    except (msgspec.DecodeError, RecursionError):
        found = None
    if kind is dict and isinstance(found, list) and not all(_is_message(one) for one in found):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, kind) for one in found):
        what = "chat messages" if kind is dict else "texts"
        raise InputError(f'line {line} of {path}: "{role}" is {shown(text)}; expected a list of {what}.')
    return found


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
