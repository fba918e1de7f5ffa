"""Single columns to numbers and flags: times, labels, positions. Each returns a column and marks unreadable values."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

TRUE = ("true", "1", "yes", "y", "t", "tie", "tied", "draw", "equal")
FALSE = ("false", "0", "no", "n", "f", "")
NOBODY = ("NaN", "nan", "NA", "N/A", "#N/A", "<NA>", "NaT", "None", "NULL", "null", "undefined", "\\N")  # no id
DECIMAL_COMMA = r"^([+-]?0?),(\d+)$|^([+-]?\d+),(\d{1,2}|\d{4,})$"  # and not 1,250, which may be thousands
PER_SECOND = {"ms": 1e3, "us": 1e6, "ns": 1e9}
YEAR_1, YEAR_10000 = -62135596800.0, 253402300800.0  # seconds since 1970


def as_text(column: pl.Series) -> pl.Series:
    """Ids as text: 1, 1.0 and "1" are the same id, and so are 0 and -0; NaN is null."""
    if column.dtype.is_float():
        whole = column.is_finite() & (column == column.round()) & (column.abs() < 2.0**53)
        numbers = pl.DataFrame({"v": column, "whole": whole.fill_null(False)})
        integer = pl.when(pl.col.whole).then(pl.col.v).cast(pl.Int64).cast(pl.String)
        other = pl.when(pl.col.v.is_nan()).then(None).otherwise(pl.col.v.cast(pl.String))
        return numbers.select(pl.coalesce(integer, other).alias(column.name)).to_series()
    return column.cast(pl.String)


def as_number(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Finite numbers (null where absent), and which values are neither absent nor a finite number."""
    if column.dtype == pl.Duration:
        column = column.dt.total_microseconds() / 1e6
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = pl.select(pl.when(text != "").then(text)).to_series()
        text = text.str.replace(DECIMAL_COMMA, "${1}${3}.$2$4")
        words = {"true": "1", "false": "0"}
        number = text.str.to_lowercase().replace(words).cast(pl.Float64, strict=False)
        absent = text.is_null()
    else:
        number, absent = column.cast(pl.Float64), column.is_null()
        absent |= number.is_nan().fill_null(False)  # how data frames write an absent number
    finite = number.is_finite().fill_null(False)
    return pl.select(pl.when(finite).then(number)).to_series(), ~finite & ~absent


def as_time(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Seconds since 1970 UTC, from dates, ISO 8601 texts (UTC if no zone is given) or epoch numbers (s, ms, us, ns)."""
    if column.dtype.is_temporal():
        if column.dtype in (pl.Time, pl.Duration):  # not on any day
            return pl.Series(column.name, [None] * len(column), dtype=pl.Float64), column.is_not_null()
        unit = 86400.0 if column.dtype == pl.Date else 1.0 / PER_SECOND[column.dtype.time_unit]  # type: ignore[attr-defined]
        return _in_calendar(column.to_physical().cast(pl.Float64) * unit, column.is_null() & False)
    number, bad = as_number(column)
    for unit, least in ((1e9, 1e17), (1e6, 1e14), (1e3, 1e11)):  # 1e11 seconds is the year 5138
        number = pl.select(pl.when(number.abs() >= least).then(number / unit).otherwise(number)).to_series()
    if not bad.any():
        return _in_calendar(number, bad)
    text = column.str.strip_chars().str.replace(r" ?(UTC|GMT|Z)$", "+00:00").str.replace(" ", "T", literal=True)
    text = text.str.replace(r"([T ]\d\d:\d\d)($|[+-])", "$1:00$2").str.replace(r"([+-]\d\d)(\d\d)$", "$1:$2")
    zoned = text.str.contains(r"T.*[+-]\d\d:\d\d$")
    text = pl.select(pl.when(zoned).then(text).when(text.str.contains("T")).then(text + "+00:00").otherwise(
        text + "T00:00:00+00:00")).to_series()  # fmt: skip
    moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False, time_zone="UTC")
    seconds = moment.dt.epoch("us").cast(pl.Float64) / 1e6
    number = pl.select(pl.coalesce(number, seconds)).to_series()
    return _in_calendar(number, bad & number.is_null())


def _in_calendar(seconds: pl.Series, bad: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Times of the years 1 to 9999, and unreadable values, which include all other times."""
    outside = ~seconds.is_between(YEAR_1, YEAR_10000, closed="left").fill_null(True)
    return pl.select(pl.when(~outside).then(seconds)).to_series(), bad | outside


def as_flag(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """True / False (absent is False), and which values are neither."""
    if column.dtype == pl.Boolean:
        return column.fill_null(False), column.is_null() & False
    text = as_text(column).str.strip_chars().str.to_lowercase().fill_null("")
    yes = text.is_in(TRUE)
    return yes, ~yes & ~text.is_in(FALSE)


def as_shown_first(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """1 where the chosen response was shown first, 0 where the rejected one was, null where unknown."""
    text = as_text(column).str.strip_chars().str.to_lowercase()
    meaning = {"chosen": 1, "true": 1, "1": 1, "rejected": 0, "false": 0, "0": 0}
    value = text.replace_strict(meaning, default=None, return_dtype=pl.Int8)
    return value, value.is_null() & text.is_not_null() & (text != "")


def as_position(positions: Mapping[str, int | None], column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Position of the chosen response, 0 (first) or 1, by ``positions`` of the file's values; null where unknown."""
    text = as_text(column).str.strip_chars().str.to_lowercase()
    value = text.replace_strict(list(positions), list(positions.values()), default=None, return_dtype=pl.Int8)
    return value, ~text.is_in([*positions, ""]).fill_null(True)
