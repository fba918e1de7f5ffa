"""What the records of feedback say, collected: comparisons of two answers, and values of single ones.

A record is used, or left out for one reason: ``read`` is the sum of both. Values (thumbs and ratings) become
comparisons by the rule of ``data.preferred``. Those without a partner are judgements of single answers, which
``form="single"`` writes for the rule of the reader (docs/data.md, likes and dislikes of single answers). So a record is
in one of the two files, never in both.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl

from polypref.data.preferred import preferred
from polypref.data.published.rows import Converted
from polypref.data.rows.thumbs import meaning_of_thumb
from polypref.errors import InputError, NotEnoughData
from polypref.wording import counted, listed, shown

SINGLE = "a like, dislike or rating of one answer; --form single writes these"
PAIRED = "in a comparison of two answers; --form pairs writes these"
LATEST = "replaced by a later one"
AGAIN = "the same record again"
NO_USER, NO_PROMPT, NO_ANSWER = "no user", "no prompt", "no answer"
NO_VALUE = "a value that is no number, like or dislike"
SAME = "both answers are the same text"
MOST = 6  # odd values that are named
MILLISECONDS = 1e11  # times above are in thousandths of a second


@dataclass(frozen=True, slots=True)
class Value:
    """One person's value of one answer: ``name`` is what was valued, as the product calls it."""

    record: int
    user: str
    prompt: str
    answer: str
    name: str
    value: float | str | None
    time: str | None = None


class Pair(NamedTuple):
    """A comparison of two answers, as a row of the table."""

    record: int
    user_id: str
    prompt: str
    chosen: str
    rejected: str
    tie: bool = False
    pair_id: str | None = None
    timestamp: str | None = None
    seconds: float | None = None
    shown_first: str | None = None


@dataclass(eq=False)
class Judgements:
    """Collects what records say. ``next`` begins a record; ``leave`` counts it as left out.

    ``partners``  records that are in a pair under the number of another record. ``odd``: values that say nothing.
    """

    read: int = 0
    pairs: list[Pair] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    partners: set[int] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    _texts: dict[str, str] = field(default_factory=dict)

    def next(self) -> int:
        """The number of the record that begins."""
        self.read += 1
        return self.read

    def leave(self, reason: str) -> None:
        """Count the record as left out."""
        self.left_out[reason] += 1

    def replaced(self, *, same: bool) -> None:
        """Leave out the earlier record of one judgement, or a repetition of it."""
        self.leave(AGAIN if same else LATEST)

    def lacking(self, user: str | None, prompt: str | None, *answers: str | None) -> bool:
        """Whether the user, the prompt or an answer is missing; the record is then left out."""
        reasons = (NO_USER, user), (NO_PROMPT, prompt), *((NO_ANSWER, one) for one in answers)
        missing = next((reason for reason, one in reasons if one is None or not one.strip()), None)
        if missing is not None:
            self.leave(missing)
        return missing is not None

    def pair(self, record: int, user: str, prompt: str, better: str, worse: str, **more: Any) -> bool:
        """One comparison, with the other fields of a ``Pair`` if they are known; False for equal texts."""
        if better == worse:
            return False
        same = self._same
        self.pairs.append(Pair(record, same(user), same(prompt), same(better), same(worse), **more))
        return True

    def value(
        self, record: int, answer: tuple[str, str, str], name: str, value: float | str | None, time: str | None = None
    ) -> None:
        """The value of one answer, which is told as its user, its prompt and its text."""
        user, prompt, text = map(self._same, answer)
        self.values.append(Value(record, user, prompt, text, name, value, time))

    def _same(self, text: str) -> str:
        """Equal texts as one object: a prompt is often that of many records."""
        return self._texts.setdefault(text, text)

    def used(self, form: str) -> tuple[pl.DataFrame, set[int]]:
        """The rows of one form, and the records in them; the others are counted as left out. Without a form: pairs if
        there are any, else single answers."""
        values = self._latest(self._numbers())
        in_pairs, rows = _paired(values)
        in_pairs |= self.partners | {row.record for row in self.pairs}
        alone = [one for one in values if one.record not in in_pairs]
        if form == "pairs" or (not form and in_pairs):
            self.left_out[SINGLE] += len(alone)
            return _frame([*self.pairs, *rows], PAIR_COLUMNS), in_pairs
        self.left_out[PAIRED] += len(in_pairs)
        return _singles(alone, self.left_out)

    def _numbers(self) -> list[Value]:
        """Values as numbers: likes are 1, dislikes 0. Others are left out."""
        found = []
        for one in self.values:
            number = as_value(one.value)
            if number is None:
                self.leave(NO_VALUE)
                self.odd[shown(one.value, 20)] += 1
            else:
                found.append(Value(one.record, one.user, one.prompt, one.answer, one.name, number, one.time))
        return found

    def _latest(self, values: Sequence[Value]) -> list[Value]:
        """The last value of each answer by each person, in order of time if all have one."""
        timed = all(one.time is not None for one in values)
        ordered = sorted(values, key=lambda one: one.time or "") if timed else values
        last = {(one.user, one.prompt, one.name, one.answer): one for one in ordered}
        self.left_out[LATEST] += len(values) - len(last)
        return list(last.values())


PAIR_COLUMNS = {
    "record": pl.Int64,
    **dict.fromkeys(("user_id", "prompt", "chosen", "rejected"), pl.String),
    "tie": pl.Boolean,
    **dict.fromkeys(("pair_id", "timestamp"), pl.String),
    "seconds": pl.Float64,
    "shown_first": pl.String,
}
SINGLE_COLUMNS = {"record": pl.Int64, **dict.fromkeys(("user_id", "prompt", "response", "timestamp"), pl.String)}
OPTIONAL = ("pair_id", "timestamp", "seconds", "shown_first")


def _frame(rows: Sequence[tuple[Any, ...]], kinds: dict[str, Any]) -> pl.DataFrame:
    """Rows as a table, without optional columns of which no row has a value."""
    columns = enumerate(kinds.items())
    frame = pl.DataFrame([pl.Series(name, [row[at] for row in rows], dtype=kind) for at, (name, kind) in columns])
    empty = [name for name in OPTIONAL if name in kinds and frame[name].null_count() == frame.height]
    return frame.drop(empty)


def as_value(value: Any) -> float | None:
    """A value as a number; 1 for a like in words, 0 for a dislike; None for anything else."""
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        up = meaning_of_thumb(value) if isinstance(value, str) else None
        return None if up is None else float(up)
    return number if math.isfinite(number) else None


def _paired(values: Sequence[Value]) -> tuple[set[int], list[Pair]]:
    """The records that have a partner, and the comparisons that they give."""
    of: defaultdict[tuple[str, str, str], dict[str, Value]] = defaultdict(dict)
    for one in values:
        of[one.user, one.prompt, one.name][one.answer] = one
    used: set[int] = set()
    rows = []
    for (user, prompt, _), answers in of.items():
        for better, worse in preferred({text: one.value for text, one in answers.items()}):  # type: ignore[misc]
            both = answers[better], answers[worse]
            times = [one.time for one in both if one.time is not None]
            time = max(times) if len(times) == 2 else None
            rows.append(Pair(both[0].record, user, prompt, better, worse, timestamp=time))
            used |= {one.record for one in both}
    return used, rows


def _singles(values: Sequence[Value], left_out: Counter[str]) -> tuple[pl.DataFrame, set[int]]:
    """Judgements of single answers: thumbs where all values are of likes and dislikes, else ratings."""
    levels = {one.value for one in values}
    if levels <= {0.0, 1.0} or levels <= {-1.0, 0.0, 1.0}:
        neither = 0.0 if -1.0 in levels else None
        left_out["neither a like nor a dislike"] += sum(one.value == neither for one in values)
        values = [one for one in values if one.value != neither]
        name, kind = "thumb", pl.String
        read = {1.0: "up", 0.0: "down", -1.0: "down"}
    else:
        name, kind, read = "rating", pl.Float64, {}
    rows = [
        (one.record, one.user, one.prompt, one.answer, one.time, read.get(one.value, one.value))  # type: ignore[call-overload, arg-type]
        for one in values
    ]
    return _frame(rows, {**SINGLE_COLUMNS, name: kind}), {one.record for one in values}


def one_name(values: Iterable[Value], names: Sequence[str], what: str) -> None:
    """Raise InputError where values of several names would be mixed, and nobody said that they may be."""
    counts = Counter(one.name for one in values if as_value(one.value) is not None)
    if len(counts) > 1 and not names:
        told = listed([f"{shown(name, 30)} ({count:,})" for name, count in counts.most_common(8)])
        raise InputError(
            f"{what} of several names: {told}. Say which of them is what a person prefers, "
            f"as in --names {shlex.quote(counts.most_common(1)[0][0])}."
        )


def finished(title: str, found: Judgements, form: str, remarks: Sequence[str] = ()) -> Converted:
    """The table of what was collected. Without a form: pairs if there are any, else single answers.

    Raises NotEnoughData if nothing is left.
    """
    frame, used = found.used(form)
    left_out = {reason: count for reason, count in found.left_out.most_common() if count}
    assert len(used) + sum(left_out.values()) == found.read, (len(used), left_out, found.read)
    if not found.read:
        raise NotEnoughData(f"{title}: nobody has judged anything in what was given.")
    if frame.is_empty():
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise NotEnoughData(f"{title}: nothing is left of {counted(found.read, 'judgements')} ({reasons}).")
    if "thumb" in frame.columns and frame["thumb"].n_unique() == 1:
        side = {"up": "like", "down": "dislike"}[frame["thumb"][0]]
        remarks = [*remarks, f"every thumb is a {side}: the reader needs both kinds, since one alone shows no taste"]
    if found.odd:
        told = [f"{value} ({count:,})" for value, count in found.odd.most_common(MOST)]
        remarks = [*remarks, f"values that are no number, like or dislike: {', '.join(told)}"]
    kind = "comparisons of two answers" if "chosen" in frame.columns else "judgements of single answers"
    return Converted(f"{title}, {kind}", frame.drop("record"), found.read, left_out, tuple(remarks), used=len(used))


def time_of(value: Any) -> str | None:
    """A time in ISO 8601: of one as a text, or of seconds or thousandths of a second since 1970."""
    if isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit():
        return value.strip() or None
    try:
        number = float(value)
        number = number / 1000 if number > MILLISECONDS else number
        return datetime.fromtimestamp(number, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
