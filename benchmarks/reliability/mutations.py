"""Ways to spoil a file: its values, its columns, its bytes, or what lies in its place; drawn from a seed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
from hostile import BYTES, DTYPES, MARK, NAMES, RAW, VALUES

Row = dict[str, Any]


# --- rows


def hostile(draw: Random) -> Any:
    """A value that was not expected."""
    return MARK.format(draw.randrange(len(RAW))) if draw.random() < 0.4 else draw.choice(VALUES)


def spoil_values(rows: list[Row], draw: Random) -> list[Row]:
    """One column takes one hostile value, or several, in one row or in all."""
    column = draw.choice(list(rows[0]))
    many = draw.choice((1, 1, 2, len(rows) // 3, len(rows)))
    at, same, value = (
        set(draw.sample(range(len(rows)), max(1, min(many, len(rows))))),
        draw.random() < 0.5,
        hostile(draw),
    )
    return [row | {column: value if same else hostile(draw)} if n in at else row for n, row in enumerate(rows)]


def spoil_inside(rows: list[Row], draw: Random) -> list[Row]:
    """A hostile value or name somewhere inside a nested value."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict) and value:
            key = draw.choice(list(value))
            if draw.random() < 0.2:
                return {draw.choice(NAMES) if name == key else name: one for name, one in value.items()}
            return value | {key: changed(value[key])}
        if isinstance(value, list) and value:
            at = draw.randrange(len(value))
            return [changed(one) if n == at else one for n, one in enumerate(value)]
        return hostile(draw)

    nested = [name for name, value in rows[0].items() if isinstance(value, dict | list)] or list(rows[0])
    column, share = draw.choice(nested), draw.choice((0.05, 0.5, 1.0))
    return [row | {column: changed(row.get(column))} if draw.random() < share else row for row in rows]


def spoil_columns(rows: list[Row], draw: Random) -> list[Row]:
    """Columns that are missing, too many, renamed, or called by one another's names."""
    column, what = draw.choice(list(rows[0])), draw.randrange(5)
    if what == 0:
        return [{name: value for name, value in row.items() if name != column} for row in rows]
    if what == 1:
        return [row | {draw.choice(NAMES): hostile(draw)} for row in rows]
    if what == 2:
        new = draw.choice(NAMES)
        return [{new if name == column else name: value for name, value in row.items()} for row in rows]
    if what == 3:
        other = draw.choice(list(rows[0]))
        return [row | {column: row.get(other), other: row.get(column)} for row in rows]
    return [{name: value for name, value in row.items() if draw.random() > 0.2} for row in rows]


def spoil_count(rows: list[Row], draw: Random) -> list[Row]:
    """None, one, copies, another order, or somebody with an odd id."""
    what = draw.randrange(5)
    if what == 0:
        return rows[: draw.choice((0, 1, 2))]
    if what == 1:
        return rows * 3
    if what == 2:
        return draw.sample(rows, len(rows))
    key = next((name for name in ("user_id", "worker", "judge", "slate", "prompt") if name in rows[0]), None)
    if key is None:
        return rows
    ids = draw.choice((VALUES, ("\0nobody", "nobody", "???", "", "u0\0"), (True, 1, 1.0, "1")))
    return (
        [row | {key: draw.choice(ids)} for row in rows] if what == 3 else [row | {key: n} for n, row in enumerate(rows)]
    )


# --- bytes


def encoded(rows: list[Row], form: str, draw: Random) -> bytes:
    """The rows in a format; ``MARK`` becomes what it stands for."""
    kind = form.split(".")[0]
    if kind == "parquet":
        return _parquet(rows, draw)
    if kind in ("jsonl", "ndjson", "json"):
        texts = [json.dumps(row, ensure_ascii=draw.random() < 0.3) for row in rows]
        content = "[" + ",\n".join(texts) + "]" if kind == "json" else "\n".join(texts) + "\n"
    else:
        out = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["user_id"]
        writer = csv.writer(out, delimiter="\t" if kind == "tsv" else draw.choice(",,,;"), escapechar="\\")
        writer.writerow(names)
        writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
        content = out.getvalue()
    for number, raw in enumerate(RAW):
        mark = MARK.format(number)
        content = content.replace(f'"{mark}"', raw).replace(mark, raw)
    return compressed(content.encode("utf-8", "surrogatepass"), form)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def compressed(content: bytes, form: str) -> bytes:
    if form.endswith(".gz"):
        return gzip.compress(content)
    if form.endswith(".zst"):
        import zstandard

        return zstandard.compress(content)
    return content


def _parquet(rows: list[Row], draw: Random) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            column = pl.Series(_clean(name), values, strict=True)
        except Exception:  # of several types: as text
            column = pl.Series(
                _clean(name), [None if one is None else _clean(_cell(one)) for one in values], dtype=pl.String
            )
        if draw.random() < 0.08:
            column = _cast(column, draw)
        if column.name not in [one.name for one in columns]:
            columns.append(column)
    out = io.BytesIO()
    try:
        pl.DataFrame(columns).write_parquet(out)
    except pl.exceptions.PolarsError:  # objects without keys cannot be written: as text
        texts = [[_clean(str(one)) for one in column.to_list()] for column in columns]
        out = io.BytesIO()
        pl.DataFrame(dict(zip([column.name for column in columns], texts, strict=True))).write_parquet(out)
    return out.getvalue()


def _cast(column: pl.Series, draw: Random) -> pl.Series:
    kind = draw.choice(DTYPES)
    try:
        return column.cast(kind, strict=False)
    except Exception:  # this type does not come from that one: nothing but nulls, or a plain one
        return pl.Series(column.name, [None] * len(column), dtype=kind)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def spoil_bytes(content: bytes, draw: Random) -> bytes:
    """Bytes flipped, put in, taken out, cut off, in another encoding, or others altogether."""
    at, many = draw.randrange(len(content) + 1), draw.choice((1, 1, 2, 8, 64))
    ways: list[Callable[[], bytes]] = [
        lambda: _flipped(content, many, draw),
        lambda: content[:at] + bytes(draw.randrange(256) for _ in range(many)) + content[at:],
        lambda: content[:at] + content[at + many :],
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + draw.choice(BYTES) + content[at:],
        lambda: draw.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\n\n", b"#")) + content,
        lambda: _text(content).encode(draw.choice(("utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252")), "replace"),
        lambda: content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"", "\u2028".encode()))),
        lambda: content + draw.choice((content, content[:at], b"\0" * 1000, b"{", b'"', b"\x1a")),
        lambda: draw.choice(
            (b"", b"\n", b"\0", b"{}", b"[]", b"null", b'"', b"PAR1", b"PAR1PAR1", b"\x1f\x8b", b"(\xb5/\xfd")
        ),
        lambda: compressed(content, draw.choice((".gz", ".zst"))),
    ]
    return draw.choice(ways)()


def _flipped(content: bytes, many: int, draw: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(many if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


# --- what lies in a file's place


def put(path: Path, content: bytes, other: Path, draw: Random) -> None:
    """Something that is no such file: a folder, a pipe, a link, a device, another file."""
    what = draw.choice(
        ("folder", "pipe", "loop", "dangling", "zero", "null", "random", "other", "link", "socketless", "full")
    )
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "other":
        path.write_bytes(other.read_bytes())
    elif what == "link":
        kept = path.with_name("kept")
        kept.write_bytes(content)
        path.symlink_to(kept)
    else:
        targets = {
            "loop": path,
            "dangling": path.with_name("nowhere"),
            "zero": Path("/dev/zero"),
            "null": Path("/dev/null"),
        }
        targets |= {"random": Path("/dev/urandom"), "full": Path("/dev/full")}
        path.symlink_to(targets.get(what, Path("/proc/self/mem")))
