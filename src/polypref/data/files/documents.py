"""JSON files that are not one object on each line, as blocks of such lines: lists, wrapped lists, objects over lines.

A list of objects, an object whose one list of objects stands under a usual name (``{"data": [...]}``), and objects that
follow each other with commas or line breaks anywhere. Such files are read whole. NaN, which Python and pandas write for
nothing, is read as null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import msgspec

from polypref.data.files import textfiles
from polypref.data.files.limits import Limits
from polypref.data.files.textfiles import blocks, first_lines, too_long, whole
from polypref.errors import InputError
from polypref.wording import shown

WRAPPERS = ("data", "rows", "records", "examples", "items", "results", "preferences", "comparisons", "judgements")
WRAPPED = re.compile(rb'^\s*\{[^\[]*"(?:%s)"\s*:\s*\[\s*\{' % "|".join(WRAPPERS).encode())
HEAD = 1 << 16  # bytes in which the list of a wrapped list begins
BETWEEN = re.compile(r"[\s,\x1e]*")  # what stands between objects; 1E as in RFC 7464
BREAKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\r\n]+', re.DOTALL)  # texts, and line breaks outside of them
NAN = re.compile(rb"[:,\[]\s*NaN\s*[,}\]]")
NANS = re.compile(rb'"(?:[^"\\\n]|\\.)*"|\bNaN\b')
RULE = "the file is one JSON document; its rows are numbered as lines"


def json_blocks(path: str, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """A JSON file as blocks of lines with the number of the first: those of the file, or one for each object in it."""
    stream = _of_document(path, limits) if is_document(first_lines(path, limits)) else blocks(path, limits)
    for line, block in stream:
        yield line, without_nan(block)


def is_document(lines: Sequence[tuple[int, bytes]]) -> bool:
    """Whether a file with these first lines is a list, a wrapped list, or has objects over several lines."""
    if not lines or lines[0][1].lstrip()[:1] not in (b"[", b"{", b"\x1e"):
        return False
    if lines[0][1].lstrip()[:1] == b"[":
        return True
    found = [row for _, line in lines if (row := _object(line)) is not None]
    if found:
        return len(lines) == 1 and any(bytes(found[0][key])[:1] == b"[" for key in WRAPPERS if key in found[0])
    head = b"\n".join(line for _, line in lines)
    return WRAPPED.search(head[:HEAD]) is not None or _begins_with_object(head)


def without_nan(block: bytes) -> bytes:
    """JSON with null for NaN; texts are unchanged."""
    if b"NaN" not in block or not NAN.search(block):  # the first look is the fast one
        return block
    return NANS.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], block)


def _begins_with_object(head: bytes) -> bool:
    text = head.decode(errors="replace")
    try:
        return isinstance(json.JSONDecoder().raw_decode(text, _next(text, 0))[0], dict)
    except (ValueError, RecursionError):
        return False


def _object(line: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(without_nan(line), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _of_document(path: str, limits: Limits) -> Iterator[tuple[int, bytes]]:
    held: list[bytes] = []
    size, row = 0, 0
    for one in _rows(path, whole(path, limits)):
        row += 1
        if len(one) > limits.line_bytes:
            raise too_long(path, row, len(one), limits)
        held.append(_on_one_line(one))
        size += len(one)
        if size >= textfiles.BLOCK:
            yield row - len(held) + 1, b"\n".join([*held, b""])
            held, size = [], 0
    if held:
        yield row - len(held) + 1, b"\n".join([*held, b""])


def _on_one_line(row: bytes) -> bytes:
    """JSON without line breaks between its parts; one within a text, which is no JSON, stays."""
    if b"\n" not in row and b"\r" not in row:
        return row
    return BREAKS.sub(lambda found: b" " if found[0][:1] in b"\r\n" else found[0], row)


def _rows(path: str, content: bytes) -> Iterator[bytes]:
    content = without_nan(content)
    try:
        if content.lstrip()[:1] == b"[":
            yield from map(bytes, msgspec.json.decode(content, type=list[msgspec.Raw]))
            return
        found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield from _in_sequence(path, content)
        return
    lists = [key for key in WRAPPERS if key in found and bytes(found[key])[:1] == b"["]
    if lists and (keys := _keys_of_first(found[lists[0]])):  # rows of the same kind would not be read
        lists += [key for key in found if key not in lists and _keys_of_first(found[key]) == keys]
    if len(lists) > 1:
        raise InputError(
            f"{path} is one JSON object with several lists: {', '.join(lists)}; expected one object on each line. "
            f"Write one of them to a file of its own: jq -c '.{lists[0]}[]'."
        )
    rows = [content] if not lists else map(bytes, msgspec.json.decode(found[lists[0]], type=list[msgspec.Raw]))
    yield from rows


def _keys_of_first(value: msgspec.Raw) -> set[str]:
    """The keys of the first object of a list; none where the value is something else."""
    if bytes(value)[:1] != b"[":
        return set()
    rows = msgspec.json.decode(value, type=list[msgspec.Raw])
    return set(_object(bytes(rows[0])) or ()) if rows else set()


def _in_sequence(path: str, content: bytes) -> Iterator[bytes]:
    """Objects one after another. Raises InputError where something else follows."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8; expected JSON in UTF-8.") from error
    decoder = json.JSONDecoder()
    at = _next(text, 0)
    listed = text[at : at + 1] == "["
    at = _next(text, at + 1) if listed else at
    while at < len(text) and not (text[at] == "]" and _next(text, at + 1) == len(text)):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            why = str(error) if isinstance(error, ValueError) else "nested too deep"
            raise InputError(
                f"line {line} of {path}: {shown(text[at : at + 200])} ({why}); expected one JSON object on each "
                "line, or one JSON list of objects."
            ) from error
        yield text[at:end].encode()
        at = _next(text, end)
    if listed and at == len(text):
        raise InputError(f"{path} is cut short: its list is not closed by ]. Write it again.")


def _next(text: str, at: int) -> int:
    """Where the next object or bracket begins."""
    return BETWEEN.match(text, at).end()  # type: ignore[union-attr]
