"""How the numbers of a rating column are written: one notation for the whole column, or a refusal.

4.5, 4,5 (decimal comma), 1,600 and 1.600,5 (thousands), 4/5, 80 %, "5 (excellent)", ★★★★☆. Where two notations fit and
give different numbers, as for 1,600, and nothing in the column decides, the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from polypref.data.rows import values
from polypref.data.rows.vocabulary import Told, Vocabulary, are_slips, mapping
from polypref.data.rows.words import Nothing, meaning
from polypref.errors import InputError
from polypref.wording import shown

LISTED = 6  # values in a rule
OFFERED = 8  # values for which a mapping is offered
COMMA_FLAG, THOUSANDS_FLAG = "decimal-comma", "thousands"


def _to_point(text: pl.Expr) -> pl.Expr:
    return text.str.replace(",", ".", literal=True)


def _first_number(text: pl.Expr) -> pl.Expr:
    return _to_point(text.str.extract(r"^([+-]?\d+(?:[.,]\d+)?)"))


@dataclass(frozen=True)
class Notation:
    """A way to write numbers: its name, the form of all texts written so, and how they become what Polars reads."""

    name: str
    form: str
    change: Callable[[pl.Expr], pl.Expr]

    def fits(self, value: str) -> bool:
        """Whether a text is written so."""
        return re.fullmatch(self.form, value) is not None


PLAIN = Notation(
    "numbers",
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[Tt]rue|[Ff]alse|TRUE|FALSE",
    lambda text: text.str.to_lowercase().replace({"true": "1", "false": "0"}),
)
DECIMAL_COMMA = Notation("a comma before decimals", r"[+-]?\d*,\d+|[+-]?\d+", _to_point)
THOUSANDS = Notation(
    "a comma between thousands",
    r"[+-]?\d{1,3}(?:,\d{3})*(?:\.\d+)?",
    lambda text: text.str.replace_all(",", "", literal=True),
)
POINT_THOUSANDS = Notation(
    "a point between thousands",
    r"[+-]?\d{1,3}(?:\.\d{3})*(?:,\d+)?",
    lambda text: _to_point(text.str.replace_all(".", "", literal=True)),
)
PERCENT = Notation("percent", r"[+-]?\d+(?:[.,]\d+)?\s*%", _first_number)
OUT_OF = Notation(
    "a rating out of the highest one", r"\d+(?:[.,]\d+)?\s*(?:/|of|out of|von|sur|de)\s*\d+", _first_number
)
STARS = Notation("stars", r"[★⭐]+[☆✩]*", lambda text: text.str.count_matches("[★⭐]").cast(pl.String))
WITH_REMARK = Notation(
    "a number and a remark",
    r"[+-]?\d+(?:[.,]\d{1,2})?(?:\s*[-–—:(★⭐][^\d%/]*|\s+[A-Za-zÀ-ÿ][^\d%/]{2,})?",
    _first_number,
)
NOTATIONS = (PLAIN, DECIMAL_COMMA, THOUSANDS, POINT_THOUSANDS, PERCENT, OUT_OF, STARS, WITH_REMARK)
BY_FLAG = {COMMA_FLAG: DECIMAL_COMMA, THOUSANDS_FLAG: THOUSANDS}


@dataclass(frozen=True)
class Ratings:
    """How a file's ratings are read: a notation, and ``numbers`` for values outside it (None: no rating)."""

    notation: Notation = PLAIN
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    rule: str = ""

    def read(self, column: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Finite numbers (null: absent or unreadable), and which values are neither absent nor such a number."""
        if column.dtype != pl.String:
            return values.as_number(column)
        text = pl.DataFrame({"text": column.str.strip_chars().fill_null("")})
        told = list(self.numbers)
        fits = pl.col.text.str.contains(f"^(?:{self.notation.form})$")
        found = text.select(
            number=pl.when(fits).then(self.notation.change(pl.col.text).cast(pl.Float64, strict=False)),
            told=pl.col.text.replace_strict(told, list(self.numbers.values()), default=None, return_dtype=pl.Float64),
            absent=pl.col.text.is_in([*told, ""]),
        ).select("absent", number=pl.coalesce("told", "number"))
        finite = found["number"].is_finite().fill_null(False)
        return found.select(pl.when(finite).then("number")).to_series(), ~finite & ~found["absent"]


def decide_ratings(seen: Vocabulary, path: str, column: str, said: Told) -> Ratings:
    """The notation of all of a file's ratings. Raises InputError where none fits, or two that differ."""
    numbers: dict[str, float | None] = {}
    for value in seen.counts:
        meant = said.of(value)
        if meant == "skip" or isinstance(meant, float):
            numbers[value] = meant if isinstance(meant, float) else None
        elif value.casefold() == "none" or isinstance(meaning(value), Nothing):
            numbers[value] = None
    counts = {value: count for value, count in seen.counts.items() if value not in numbers}
    whole = [one for one in NOTATIONS if counts and all(map(one.fits, counts))]
    fitting = whole or [one for one in NOTATIONS if _covers(one, counts)]
    if said.kind in BY_FLAG:
        fitting = [one for one in fitting if one is BY_FLAG[said.kind]]
    else:
        fitting = _the_likelier(fitting, [value for value in counts if any(one.fits(value) for one in fitting)])
    if not counts and not seen.others:
        fitting = [PLAIN]
    if not fitting:
        raise _refusal(seen, path, column, counts)
    if len(fitting) > 1:
        example = next(value for value in counts if "," in value or "." in value)
        flags = f"--labels {THOUSANDS_FLAG} or --labels {COMMA_FLAG}"
        if "," not in example:
            flags = "write it without the point"
        raise InputError(
            f'{path}: column "{column}" holds {seen}; {shown(example)} may be thousands or have decimals. Say it: '
            f"{flags}."
        )
    return Ratings(fitting[0], numbers, _rule(column, fitting[0], counts, numbers))


def _covers(notation: Notation, counts: Mapping[str, int]) -> bool:
    """Whether all values are written so, but for slips."""
    unread = [count for value, count in counts.items() if not notation.fits(value)]
    read = sum(counts.values()) - sum(unread)
    return read > 0 and are_slips(unread, read)


def _the_likelier(fitting: list[Notation], found: list[str]) -> list[Notation]:
    """One of the notations that fit all of a column, if that is certain; all that are possible if not."""
    large = any(re.fullmatch(r"[+-]?[1-9]\d\d", value) for value in found)
    if PLAIN in fitting:
        pointed = [value for value in found if "." in value]
        thousands = pointed and large and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}", value) for value in pointed)
        return [PLAIN, POINT_THOUSANDS] if thousands else [PLAIN]
    if DECIMAL_COMMA in fitting and THOUSANDS in fitting:
        if any(value.count(",") > 1 for value in found):
            return [THOUSANDS]
        if any(re.match(r"[+-]?0?,", value) for value in found):
            return [DECIMAL_COMMA]
        return [THOUSANDS] if large else [DECIMAL_COMMA, THOUSANDS]
    best = fitting[:1]
    if best == [OUT_OF] and len({re.split(r"[^\d]+", value)[-1] for value in found}) > 1:
        return []
    if best == [WITH_REMARK] and all(any(mark in value.split("(")[0] for value in found) for mark in ",."):
        return []
    return best


def _rule(column: str, notation: Notation, counts: Iterable[str], numbers: Mapping[str, float | None]) -> str:
    parts = []
    if notation is not PLAIN:
        example = next(value for value in counts if notation.fits(value) and not PLAIN.fits(value))
        parts.append(f"{notation.name}, as {shown(example, 30)}")
    told = [f"{shown(value, 30)}: {number:g}" for value, number in numbers.items() if number is not None]
    parts += [", ".join(told[:LISTED])] * bool(told)
    absent = [shown(value, 30) for value, number in numbers.items() if number is None]
    parts += [f"{', '.join(absent[:LISTED])}: no rating"] * bool(absent)
    return f'ratings in "{column}": {"; ".join(parts)}' if parts else ""


def _refusal(seen: Vocabulary, path: str, column: str, counts: Mapping[str, int]) -> InputError:
    unread = sorted((value for value in counts if not PLAIN.fits(value)), key=lambda value: (-counts[value], value))
    offer = "--labels VALUE=NUMBER,VALUE=NUMBER"
    if unread and len(unread) <= OFFERED and not seen.others:
        offer = mapping((value, str(number)) for number, value in enumerate(unread, 1))
    return InputError(
        f'{path}: column "{column}" holds {seen}, which are not numbers in one notation. Say what each is: {offer} '
        "with the numbers that are right (VALUE=skip leaves its rows out)."
    )
