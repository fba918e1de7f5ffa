"""Text files as blocks of whole lines: plain, .gz or .zst, in bounded memory, without a byte order mark.

Incomplete compressed files are refused, and so are files whose lines are longer than ``Limits`` allows.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.files.encodings import as_utf8
from polypref.data.files.limits import Limits, over
from polypref.errors import InputError

BLOCK = 16 << 20
HEAD_LINES, HEAD_BYTES = 1000, 16 << 20
ZSTD_PIECE = 1 << 10  # compressed bytes at a time, which expand to at most 32 MiB
ROWS, PIECE = 1 << 20, 1 << 20  # blocks of more lines are split into pieces of a MiB
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # what such files begin with, whatever their names
ZSTD_WINDOW = 128 << 20  # the window that zstd accepts by default


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a file: B rows of columns, and the 1-based line (Parquet: row) each came from.

    ``rows``  number of rows read for it, including unusable ones. ``empty``: empty lines between them.
    ``size``  bytes of all of them. ``nested``: columns of lists or objects, which are JSON here.
    ``untyped``  every cell is a text, also one that stands for nothing.
    """

    frame: pl.DataFrame
    line_B: NDArray[np.int64]
    rows: int
    empty: int
    size: int
    nested: frozenset[str] = frozenset()
    untyped: bool = False


def chunks(path: str) -> Iterator[bytes]:
    """The file's bytes, decompressed, without a byte order mark.

    UTF-16 becomes UTF-8. Raises InputError if the file cannot be opened, is empty, is no text or its compressed data
    are incomplete or damaged.
    """
    first = True
    try:
        for chunk in as_utf8(path, _raw_chunks(path)):
            if first:
                chunk = chunk.removeprefix(b"\xef\xbb\xbf")
            first = first and not chunk
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        test = "zstd -t" if path.endswith(".zst") else "gzip -t"
        raise InputError(
            f"{path}: the compressed data are cut short or damaged ({error}). Copy the file again; {test} tests it."
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    if first:
        raise InputError(f"{path} is empty; expected rows of preferences.")


def _raw_chunks(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as handle:
        magic = handle.read(4)
        handle.seek(0)
        if path.endswith(".gz") or magic[:2] == GZIP:
            handle = gzip.GzipFile(fileobj=handle)
        if path.endswith(".zst") or magic == ZSTD:
            yield from _zstd_chunks(handle, path)
            return
        while chunk := handle.read(BLOCK):
            yield chunk


def _zstd_chunks(handle: io.BufferedIOBase, path: str) -> Iterator[bytes]:
    import zstandard

    opener = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame, begun = opener.decompressobj(), False
    held: list[bytes] = []
    size = 0
    try:
        while compressed := handle.read(ZSTD_PIECE):
            while compressed:
                held.append(frame.decompress(compressed))
                size += len(held[-1])
                begun, compressed = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = opener.decompressobj()
            if size >= BLOCK:
                yield b"".join(held)
                held, size = [], 0
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise InputError(
                f"{path} was compressed with a window above {ZSTD_WINDOW >> 20} MiB; compress it without --long."
            ) from error
        raise EOFError(str(error)) from error
    if held:
        yield b"".join(held)
    if begun:
        raise EOFError("the last frame is not complete")


def whole(path: str, limits: Limits | None = None) -> bytes:
    """All bytes of a file, decompressed. Raises InputError as ``chunks`` does, and if there are too many."""
    limits = limits or Limits()
    parts, size = [], 0
    for chunk in chunks(path):
        parts.append(chunk)
        size += len(chunk)
        if size > limits.whole_bytes:
            raise over(f"{path} holds at least {size:,} bytes", limits.whole_bytes, "whole_bytes")
    return b"".join(parts)


def blocks(path: str, limits: Limits, returns: bool = False) -> Iterator[tuple[int, bytes]]:
    """Whole lines in blocks, each with the 1-based number of its first line; the last line may lack its end.

    With ``returns`` lines end in CR, which is read as LF.

    Raises InputError for a line, or space between two rows, beyond ``limits.line_bytes``.
    """
    line, parts, held, blank = 1, [], 0, 0
    for chunk in chunks(path):
        chunk = chunk.replace(b"\r", b"\n") if returns else chunk
        cut = chunk.rfind(b"\n") + 1
        held += (chunk.find(b"\n") if cut else len(chunk)) + 1
        if held > limits.line_bytes:
            raise too_long(path, line, held, limits)
        if not cut:
            parts.append(chunk)
            continue
        block = b"".join([*parts, chunk[:cut]])
        parts, held = [chunk[cut:]], len(chunk) - cut
        for piece in _pieces(block):
            if len(piece) > limits.line_bytes:
                _refuse_long(piece, path, line, limits)
            blank = blank + len(piece) if piece.isspace() else 0
            if blank > limits.line_bytes:
                what = f"line {line} of {path} follows {blank:,} bytes of space"
                raise over(what, limits.line_bytes, "line_bytes")
            yield line, piece
            line += piece.count(b"\n")
    if held > limits.line_bytes:
        raise too_long(path, line, held, limits)
    if rest := b"".join(parts):
        yield line, rest


def _refuse_long(block: bytes, path: str, line: int, limits: Limits) -> None:
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    sizes = np.diff(ends, prepend=-1)
    if len(long := np.flatnonzero(sizes > limits.line_bytes)):
        raise too_long(path, line + int(long[0]), int(sizes[long[0]]), limits)


def _pieces(block: bytes) -> Iterator[bytes]:
    """A block of complete lines unchanged, or in small pieces if it has very many short lines."""
    if block.count(b"\n") <= ROWS:
        yield block
        return
    start = 0
    while start < len(block):
        end = block.find(b"\n", start + PIECE) + 1 or len(block)
        yield block[start:end]
        start = end


def too_long(path: str, line: int, size: int, limits: Limits) -> InputError:
    """The error for a line or record that is longer than any row of preferences."""
    what = f"line {line} of {path} is {size:,} bytes long or longer"
    return over(what, limits.line_bytes, "line_bytes", "Is it a text file of rows?")


def first_lines(path: str, limits: Limits, returns: bool = False) -> list[tuple[int, bytes]]:
    """The non-empty lines, with their numbers, among the first thousand or the first block, whichever ends earlier."""
    return head_lines(blocks(path, limits, returns))


def head_lines(stream: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """``first_lines`` of blocks."""
    found: list[tuple[int, bytes]] = []
    size = 0
    for first, block in stream:
        size += len(block)
        lines = block.split(b"\n", HEAD_LINES)[:HEAD_LINES]
        found += [(number, line) for number, line in enumerate(lines, first) if line.strip()]
        if found and (first + len(lines) > HEAD_LINES or size >= HEAD_BYTES):
            break
    return found[:HEAD_LINES]
