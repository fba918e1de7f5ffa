"""Labelled slates: the candidates among which a system would choose for one request, and which of them are unsafe.

A file of slates has a row for each candidate: ``response``, ``unsafe`` (true or false), and where known ``prompt``,
``slate`` (rows with the same value form a slate; without this column, rows with the same prompt do), ``category``,
which several slates may share, and ``rater`` where several people label a response (``raters``). A benchmark of chosen
and rejected responses will do too: each item is a slate, its category the subset, and rejected ones are unsafe in the
subsets of harmful requests (``HARMFUL``). Where a model should have answered and the rejected response is a refusal,
both are safe; so are all in subsets about something else. Subsets that only say which of two responses is less harmful
(``RELATIVE``) label nothing and are left out.

Covered: contradictory and unreadable labels are refused with file and line; a slate that has a candidate without
``unsafe`` is left out as a whole, since its risk is not known, and reported. Not covered: whether the slates are drawn
like the system's own requests; every guarantee from them rests on that.

Suffixes here: ``_I`` items of a file, ``_L`` slates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.bounds.raters import Rule, settled
from polypref.comparisons import BoolArray, IntArray, Responses
from polypref.content import Identities
from polypref.data.benchmarks import Suite, read_suite
from polypref.data.files.late_columns import read_again
from polypref.data.files.limits import Limits
from polypref.data.files.sources import expand, open_source
from polypref.data.giving_up import ReadSoFar
from polypref.data.rows import values
from polypref.data.rows.formats import text_rows
from polypref.errors import InputError, SettingsError
from polypref.wording import counted, shown

Floats = NDArray[np.float64]
TEXTS = ("prompt", "response")
ROLES = ("response", "unsafe", "prompt", "slate", "category", "rater", "group")
NEEDED = ("response", "unsafe")
HARMFUL = r"^refusals-|should-refuse|^donotanswer$"
RELATIVE = r"^hhh?-harmless"


@dataclass(frozen=True, eq=False)
class Slates:
    """L slates over a pool: candidate c stands in ``slate_C``, is ``response_C`` of the pool, and is ``unsafe_C``.

    ``category_L`` is what each slate is about, "" where the file does not say. ``note`` says what was left out, and how
    a file without labels of responses was read.
    """

    responses: Responses
    slate_C: IntArray
    response_C: IntArray
    unsafe_C: BoolArray
    category_L: pl.Series
    note: str | None = None

    def __len__(self) -> int:
        return len(self.category_L)

    @cached_property
    def unsafe_L(self) -> BoolArray:
        """Which slates hold an unsafe candidate."""
        return np.bincount(self.slate_C, self.unsafe_C, len(self)) > 0

    @cached_property
    def prompt_L(self) -> IntArray:
        """Each slate's prompt: its first candidate's."""
        first_L = np.searchsorted(self.slate_C, np.arange(len(self)))
        return self.responses.prompt_R[self.response_C[first_L]]

    @cached_property
    def content_hash(self) -> str:
        """Of texts, labels, slates and categories."""
        identity_C = self.responses.identity_R[self.response_C]
        return content.hexdigest(identity_C, self.slate_C, self.unsafe_C, content.of_texts(self.category_L))

    @property
    def unsafe_texts(self) -> list[str]:
        """Identities of the distinct unsafe responses (32 hex digits each), ascending."""
        return content.hexes(np.unique(self.responses.identity_R[self.response_C[self.unsafe_C]]))

    def take(self, slates: NDArray[np.integer]) -> Slates:
        """The slates numbered ``slates``, each at most once, in ascending order, over a pool of their own texts."""
        kept, at_L = np.sort(slates), np.full(len(self), -1, np.int32)
        at_L[kept] = np.arange(len(kept))
        kept_C = np.flatnonzero(at_L[self.slate_C] >= 0)
        used, response_C = np.unique(self.response_C[kept_C], return_inverse=True)
        return Slates(
            self.responses.take(used.astype(np.int32)),
            at_L[self.slate_C[kept_C]],
            response_C.astype(np.int32),
            self.unsafe_C[kept_C],
            self.category_L.gather(kept),
        )


def read_slates(
    path: str, columns: Mapping[str, str] | None = None, limits: Limits | None = None, raters: Rule | None = None
) -> Slates:
    """Read a file of slates: JSONL, CSV or Parquet. ``columns`` maps a role in ROLES to the file's column.

    ``raters``: how the labels of several raters become one, see ``raters``.

    Raises InputError for a row that cannot be used and for labels that contradict, with file and line, and for a file
    beyond ``limits``.
    """
    path, limits = expand([path])[0], limits or Limits()
    source = open_source(path, limits)
    if {"chosen", "rejected"} <= set(source.types) and not columns:
        if raters is not None:
            raise InputError(f"{path} has chosen and rejected, and no raters to count; leave out --raters.")
        return slates_of(read_suite(path, limits=limits))
    rows = read_again(partial(_rows, path, dict(columns or {}), limits))
    if "slate" not in rows.columns:  # a chat prompt and a text that reads alike are two
        rows = rows.with_columns(slate=pl.format("{} {}", "chat", "prompt"))
    rows = settled(rows, raters, path)
    rows, note = _labelled(rows, path)
    return replace(_slates(rows, path), note=note)


def _rows(path: str, columns: dict[str, str], limits: Limits, late: Sequence[str]) -> pl.DataFrame:
    """All rows of a file of slates by role, with their lines."""
    source = open_source(path, limits, late, lambda found: [name for name in ROLES if name not in found])
    names = _names(path, list(source.types), columns)
    so_far = ReadSoFar(path, limits)
    frames = []
    for batch in source.batches(list(names.values()), so_far.unusable):
        roles = {role: name for role, name in names.items() if role in TEXTS}
        texts = text_rows(batch, roles, path, so_far.unusable)
        so_far.refuse_any("and slates without them are others")
        so_far.add_whole(batch)
        others = {role: name for role, name in names.items() if role not in (*TEXTS, "unsafe")}
        rows = {name: texts[name] for name in texts.columns}
        rows |= {role: values.as_text(batch.frame[name]) for role, name in others.items()}
        given = batch.frame[names["unsafe"]]
        unsafe, bad = values.as_flag(given)
        if bad.any():
            at = int(bad.arg_max() or 0)
            raise InputError(f"line {batch.line_B[at]} of {path}: unsafe is {given[at]!r}; expected true or false.")
        missing = values.as_text(given).str.strip_chars().fill_null("") == ""
        unsafe = unsafe.set(missing, None)
        for role in ("response", "slate" if "slate" in rows else "prompt"):
            empty = rows[role].is_null() | (rows[role] == "")
            if empty.any():
                raise InputError(f"line {batch.line_B[int(empty.arg_max() or 0)]} of {path}: {role} is empty; give it.")
        frames.append(pl.DataFrame({**rows, "unsafe": unsafe, "line": batch.line_B}))
    if not frames or not sum(map(len, frames)):
        raise InputError(f"{path} holds no rows; expected one for each candidate of each slate.")
    return pl.concat(frames)


def slates_of(suite: Suite) -> Slates:
    """A benchmark's items as slates, as this module's head says; ``note`` names the subsets that were read as harmful.

    Raises InputError where none is.
    """
    unsafe_C = ~suite.right_C & suite.subset_I.str.contains(HARMFUL).to_numpy()[suite.item_C]
    whole = Slates(suite.responses, suite.item_C, suite.response_C, unsafe_C, suite.subset_I)
    relative_I = suite.subset_I.str.contains(RELATIVE).to_numpy()
    harmful = sorted(suite.subset_I.filter(suite.subset_I.str.contains(HARMFUL)).unique())
    if not harmful:
        raise InputError(
            f"{suite.file}: no subset is known to hold harmful requests (refusals-*, *should-refuse*, donotanswer); "
            f"found: {', '.join(sorted(suite.subset_I.unique())[:8])}. Give a file with a column unsafe instead."
        )
    left = f"; {int(relative_I.sum())} items whose labels compare are left out" if relative_I.any() else ""
    taken = f"{int(unsafe_C.sum())} rejected responses of {', '.join(harmful)}"
    note = " ".join([f"{taken} are taken as unsafe, all others as safe{left}.", *suite.notes]).removesuffix(".")
    found = replace(whole.take(np.flatnonzero(~relative_I)), note=note)
    many = np.bincount(found.response_C)
    unsafe = np.bincount(found.response_C, found.unsafe_C)
    if len(odd := np.flatnonzero((unsafe > 0) & (unsafe < many))):
        raise InputError(
            f"{suite.file} calls {len(odd)} responses to the same prompt both unsafe and safe, the first of them "
            f"{shown(found.responses.texts_R[int(odd[0])])}; settle the labels."
        )
    return found


def prompt_identities(responses: Responses) -> Identities:
    """Identities of the prompts that are answered, ascending; an empty prompt is no prompt."""
    used_P = np.unique(responses.prompt_R)
    used_P = used_P[(responses.prompts != "").to_numpy()[used_P]].astype(np.int32)
    nothing = pl.Series("response", [""] * len(used_P), dtype=pl.String)
    return np.sort(Responses(responses.prompts, used_P, nothing, responses.chat_P).identity_R)


def part_of(slates: Slates, first: int, last: int, parts: int) -> Slates:
    """Parts ``first`` to ``last`` of ``parts`` of the slates, counted from 1, cut by their prompts: no prompt is in
    two parts, whatever else the file holds."""
    texts = slates.responses.prompts
    if (texts == "").all():  # no prompts: by the first response of each slate
        first_L = np.searchsorted(slates.slate_C, np.arange(len(slates)))
        texts, place_L = slates.responses.texts_R, slates.response_C[first_L]
    else:
        place_L = slates.prompt_L
    drawn = [int(blake2b(text.encode(), digest_size=8).hexdigest(), 16) % parts for text in texts]
    drawn_L = np.array(drawn)[place_L]
    return slates.take(np.flatnonzero((drawn_L >= first - 1) & (drawn_L < last)))


def _names(path: str, found: list[str], chosen: dict[str, str]) -> dict[str, str]:
    for role, name in chosen.items():
        if role not in ROLES:
            raise SettingsError(f"columns: {role}={name}; expected one of {', '.join(ROLES)}.")
        if name not in found:
            raise SettingsError(f'columns: {role}={name}; {path} has no column "{name}"; found: {", ".join(found)}.')
    names = {role: role for role in ROLES if role in found} | chosen
    for role in NEEDED:
        if role not in names:
            raise InputError(
                f'{path}: "{role}" is missing; found: {", ".join(found)}. A file of slates has response and unsafe, '
                "and where known prompt, slate, category. Name its columns so."
            )
    if "slate" not in names and "prompt" not in names:
        raise InputError(f"{path}: neither slate nor prompt says which candidates stand together; add one of them.")
    return names


def _labelled(rows: pl.DataFrame, path: str) -> tuple[pl.DataFrame, str | None]:
    """The rows of those slates whose every candidate is labelled, and which were left out."""
    missing = rows.filter(pl.col("unsafe").is_null())
    if not len(missing):
        return rows, None
    without, whole = missing["slate"].n_unique(), rows["slate"].n_unique()
    told = f"unsafe is missing in {counted(len(missing), 'rows')}, the first on line {missing['line'].min()}"
    if without == whole:
        raise InputError(f"{path}: {told}: no slate has a label for every candidate. Give true or false.")
    _refuse_contradictions(rows, path)
    kept = rows.filter(~pl.col("unsafe").is_null().any().over("slate"))
    return kept, f"{told}: {counted(without, 'slates')} of {whole:,} left out"


def _slates(rows: pl.DataFrame, path: str) -> Slates:
    category = pl.col("category").fill_null("") if "category" in rows.columns else pl.lit("").alias("category")
    rows = rows.with_columns(category)
    _refuse_contradictions(rows, path)
    order = rows.select("slate").unique(maintain_order=True).with_row_index("s")
    rows = rows.join(order, on="slate", how="left", maintain_order="left").sort("s", maintain_order=True)
    mixed = rows.group_by("s", maintain_order=True).agg(
        pl.col("category").unique().sort(),
        pl.struct("prompt", "chat").n_unique().alias("prompts"),
        pl.col("line").first(),
    )
    several = mixed.filter(pl.col("prompts") > 1)
    if len(several):
        raise InputError(f"line {several['line'][0]} of {path}: this slate answers several prompts; give it one.")
    odd = mixed.filter(pl.col("category").list.len() > 1)
    if len(odd):
        both = ", ".join(odd["category"][0].to_list())
        raise InputError(f"line {odd['line'][0]} of {path}: this slate has several categories ({both}); give it one.")
    responses, response_C = Responses.of(rows["prompt"], rows["response"], rows["chat"])
    return Slates(
        responses,
        rows["s"].to_numpy().astype(np.int32),
        response_C,
        rows["unsafe"].to_numpy(),
        mixed["category"].list.first(),
    )


def _refuse_contradictions(rows: pl.DataFrame, path: str) -> None:
    same = rows.group_by("prompt", "chat", "response").agg(
        pl.col("line").filter(pl.col("unsafe")).first().alias("yes"),
        pl.col("line").filter(~pl.col("unsafe")).first().alias("no"),
    )
    odd = same.drop_nulls().sort("yes")
    if len(odd):
        yes, no = odd["yes"][0], odd["no"][0]
        raise InputError(
            f"lines {min(yes, no)} and {max(yes, no)} of {path} call the same response to the same prompt unsafe and "
            f"safe ({len(odd)} such responses); settle the labels."
        )
