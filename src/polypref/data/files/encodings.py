"""What a file's first bytes say: UTF-16 and UTF-32 become UTF-8, and files that are no text are refused by name."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from polypref.errors import InputError

ORDERS = {  # the longer marks first: that of UTF-32 begins as that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
AS_CSV = 'save it as "CSV UTF-8", or give the table to polypref in Python: polypref.read(pandas.read_excel(...))'
KINDS = (  # the first bytes of files that are no text, what they are, and what to do
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"PK\x03\x04", "a workbook or another zip archive", f"unpack it, or, of a workbook, {AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", AS_CSV),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow file", "give the table to polypref in Python: polypref.read(polars.read_ipc(...))"),
    (b"version https://git-lfs", "the pointer to a file in Git LFS", "fetch the file itself: git lfs pull"),
    (b"<!doctype html", "a web page", "download the file itself (was it behind a login?)"),
    (b"<html", "a web page", "download the file itself (was it behind a login?)"),
    (b"%PDF-", "a PDF", "export the table as CSV"),
)
LONGEST = max(len(magic) for magic, _, _ in KINDS)


def as_utf8(path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a text file in UTF-8. Raises InputError for files that are no text, and for damaged ones."""
    decoder: codecs.IncrementalDecoder | None = None
    order = ""
    for at, chunk in enumerate(chunks):
        if at == 0:
            refuse_other_kinds(path, chunk)
            mark, order = _byte_order(chunk)
            chunk = chunk[len(mark) :]
            decoder = codecs.getincrementaldecoder(order)() if order else None
        if decoder is None:
            yield chunk
            continue
        yield _decoded(path, order, decoder, chunk)
    if decoder is not None:
        _decoded(path, order, decoder, b"", final=True)


def refuse_other_kinds(path: str, head: bytes) -> None:
    """Raise InputError for a file that begins as one that is no text."""
    start = head[:LONGEST].lstrip().lower()
    for magic, kind, advice in KINDS:
        if start.startswith(magic.lower()):
            raise InputError(f"{path} is {kind}; expected rows of text. Next: {advice}.")


def _byte_order(head: bytes) -> tuple[bytes, str]:
    """The mark and the encoding of a file in UTF-16 or UTF-32, "" of others: by the mark, or by NULs of ASCII."""
    for mark, order in ORDERS.items():
        if head.startswith(mark):
            return mark, order
    nul = "".join("0" if byte == 0 else "x" for byte in head[:4])
    without = {"x0x0": "utf-16-le", "0x0x": "utf-16-be", "x000": "utf-32-le", "000x": "utf-32-be"}
    return b"", without.get(nul, "")


def _decoded(path: str, order: str, decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bytes:
    try:
        return decoder.decode(chunk, final).encode()
    except UnicodeError as error:
        begins = f"{path} begins as {order[:6].upper()} and is damaged"
        raise InputError(f"{begins} ({error}). Write it again as UTF-8.") from error
