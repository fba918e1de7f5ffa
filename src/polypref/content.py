"""Content hashes, and checks of texts and user ids: one hash function for everything that has several parts.

Each part is preceded by its kind and its length, so no two lists of parts give the same bytes: ("ab", "c") and ("a",
"bc") have different hashes, and so do a missing part and an empty one. With 128 bits, finding two contents with the
same hash takes 2^64 tries, finding another content for a given hash 2^128.

Source: BLAKE2 (Aumasson et al. 2013), RFC 7693.

Suffixes here: ``_B`` bytes or texts, ``_K`` known identities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.errors import ArtifactError, InputError

BYTES = 16
Identities = NDArray[np.bytes_]  # 16 bytes each; sorted and compared as bytes
NONE = np.zeros(0, f"S{BYTES}")
BAR = "\0bar"  # stands for a bar (``data.thumbs``); it has a NUL character, so it is nobody's text

FEW, FEW_BYTES = 1024, 1 << 22  # of a column that Python reads sooner than Polars starts; the answers are the same

ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON: an even number of backslashes escape each other

Part = str | bytes | int | NDArray | None
Message = Mapping[str, object]
Key = TypeVar("Key", bound=Hashable)


class Distinct(NamedTuple):
    """Distinct prompts (P) and (prompt, text) (R), in order of appearance; ``code_Q``, which of them each text is."""

    prompts: pl.Series
    chat_P: NDArray[np.bool_]
    prompt_R: NDArray[np.int32]
    texts_R: pl.Series
    code_Q: NDArray[np.int32]


def digest(*parts: Part, size: int = BYTES) -> bytes:
    """Hash of all parts, ``size`` bytes; a text counts as its UTF-8, an array as its type, shape and numbers."""
    state = blake2b(digest_size=size)
    for part in parts:
        state.update(framed(part))
    return state.digest()


def hexdigest(*parts: Part) -> str:
    """``digest`` as 32 hex digits."""
    return digest(*parts).hex()


def of_texts(column: pl.Series) -> bytes:
    """Digest of a text column; missing and empty texts differ."""
    lengths = column.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy()
    return digest(lengths, column.fill_null("").str.join("").cast(pl.Binary)[0])


def framed(part: Part) -> bytes:
    """A part's bytes, preceded by its kind and its length."""
    if isinstance(part, np.ndarray):
        about = f"{part.dtype.str}{part.shape}".encode()
        kind, raw = b"a", len(about).to_bytes(8, "little") + about + np.ascontiguousarray(part).tobytes()
    elif part is None:
        kind, raw = b"-", b""
    elif isinstance(part, bytes):
        kind, raw = b"b", part
    else:
        kind, raw = (b"t", part.encode()) if isinstance(part, str) else (b"i", str(int(part)).encode())
    return kind + len(raw).to_bytes(8, "little") + raw


def identities(digests: bytes | bytearray) -> Identities:
    """Concatenated digests as an array; read-only."""
    return np.frombuffer(bytes(digests), f"S{BYTES}")


def hexes(identity_R: Identities) -> list[str]:
    """Each identity as 32 hex digits."""
    whole = np.ascontiguousarray(identity_R).tobytes().hex()
    return [whole[at : at + 2 * BYTES] for at in range(0, len(whole), 2 * BYTES)]


def packed(identity_R: Identities) -> NDArray[np.uint8]:
    """Identities as bytes (R, 16), which any format of arrays can hold."""
    return np.ascontiguousarray(identity_R).view(np.uint8).reshape(-1, BYTES)


def unpacked(bytes_RB: NDArray) -> Identities:
    """The inverse of ``packed``. Raises ArtifactError for arrays without identities, as written by older versions."""
    if bytes_RB.dtype != np.uint8 or bytes_RB.ndim != 2 or bytes_RB.shape[1] != BYTES:
        raise ArtifactError(
            f"texts are named by {bytes_RB.dtype} numbers of shape {bytes_RB.shape}; expected {BYTES} bytes each. "
            "Another version wrote them: make it again."
        )
    return identities(np.ascontiguousarray(bytes_RB).tobytes())


def places(known_K: Identities, wanted_R: Identities) -> NDArray[np.int64]:
    """The place of each wanted identity in ``known_K``, which is strictly ascending; -1 if absent."""
    if not len(known_K):
        return np.full(len(wanted_R), -1, np.int64)
    known_word_K, wanted_word_R = first_words(known_K), first_words(wanted_R)
    at_R = np.searchsorted(known_word_K, wanted_word_R)
    found_R = np.full(len(wanted_R), -1, np.int64)
    left = np.arange(len(wanted_R))
    while len(left):  # repeats only for identities that share their first half, which happens only on purpose
        at = at_R[left]
        inside = at < len(known_K)
        left, at = left[inside], at[inside]
        same = known_K[at] == wanted_R[left]
        found_R[left[same]] = at[same]
        more = ~same & (known_word_K[at] == wanted_word_R[left])
        left = left[more]
        at_R[left] += 1
    return found_R


def first_words(identity_R: Identities) -> NDArray[np.uint64]:
    """The first half of each, as numbers in the order of the bytes: several times faster to search."""
    raw = np.ascontiguousarray(identity_R, f"S{BYTES}").view(">u8")
    return raw.reshape(-1, 2)[:, 0].astype(np.uint64)


def texts(values: Sequence[str] | pl.Series, what: str) -> pl.Series:
    """``values`` as a column of texts; ``what`` they are ("prompt", "response", "user id") is used in errors.

    Raises InputError for a value that is not text, is missing, or contains a NUL character or half of a surrogate pair:
    neither occurs in any text, and C libraries, databases and JSON readers cut or change strings that contain one.
    """
    return refuse(_column(values, what, _texts_only), what)


def ids(values: Sequence[str] | Sequence[str | None] | pl.Series, *, nobody: bool = False) -> pl.Series:
    """User ids, texts or whole numbers, as a column of texts.

    With ``nobody``, an id may be missing, which requests the population's answer.

    Raises InputError for impossible ids (``reserved``), and for what ``texts`` refuses.
    """
    if isinstance(values, list | tuple | np.ndarray) and not {*map(type, values)} <= {str, type(None)}:
        values = [str(one) if _is_number(one) else one for one in values]
    return refuse(one_form(_column(values, "user id", _numbers_too)), "user id", empty=False, missing=nobody)


def _is_number(value: object) -> bool:
    """Whether a value is a number that can be an id."""
    whole = isinstance(value, int | np.integer | Decimal) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)


def one_form(ids: pl.Series) -> pl.Series:
    """Ids as texts, whole numbers without a fraction of zeros: 7, 7.0, "7" and 7.00 are one person."""
    if are_few(ids) and not any(one is not None and "." in one and one[-1] == "0" for one in ids.to_list()):
        return ids
    return ids.str.replace(r"^(-?\d+)\.0+$", "$1")


def numbers(values: Any, name: str, length: int, fits: Callable[[NDArray], NDArray], expected: str) -> NDArray:
    """A column of ``length`` numbers or booleans. Raises InputError where ``fits`` is false for one of them."""
    try:
        column_N = np.asarray(values)
    except ValueError:  # lists of different lengths
        column_N = np.array(list(values), object)
    if column_N.shape != (length,):
        raise InputError(f"{name} has the shape {column_N.shape}; expected {length} values, one for each judgement.")
    if column_N.dtype.kind not in "biuf":
        if not length:
            return column_N.astype(float)
        at = next((at for at, value in enumerate(column_N) if not isinstance(value, int | float | np.number)), 0)
        raise InputError(f"{name} number {at + 1} of {length} is {excerpt(column_N[at])}; expected {expected}.")
    bad_N = ~fits(column_N)
    if bad_N.any():
        at = int(bad_N.argmax())
        raise InputError(f"{name} number {at + 1} of {length} is {excerpt(column_N[at].item())}; expected {expected}.")
    return column_N


FITS: dict[str, tuple[Callable[[NDArray], NDArray], str]] = {  # the values of optional columns, and in words
    "tie_N": (lambda a_N: (a_N == 0) | (a_N == 1), "True or False"),
    "weight_N": (lambda a_N: np.isfinite(a_N) & (a_N >= 0), "a finite number from 0"),
    "time_N": (lambda a_N: ~np.isinf(a_N), "seconds since 1970, or NaN if unknown"),
    "pair_N": (lambda a_N: (a_N >= -1) & (a_N < 2**31) & (a_N == np.floor(a_N)), "a whole number, or -1 if unknown"),
}


def optional(name: str, values: object, n: int) -> NDArray:
    """An optional column of n judgements as an array of its type. Raises InputError for another length or value."""
    kinds = {"tie_N": np.bool_, "pair_N": np.int32}
    return numbers(values, name, n, *FITS[name]).astype(kinds.get(name, np.float64), copy=False)


def one_id(user_id: str) -> str:
    """A single user's id; raises InputError for an impossible one: empty, or with a NUL character."""
    return ids([user_id])[0]


def strangers(many: int) -> pl.Series:
    """The ids of ``many`` unknown people: missing ids, which no data contain and no scorer knows."""
    return pl.Series("id", [None], dtype=pl.String).new_from_index(0, many)


def refuse(
    column: pl.Series, what: str, *, empty: bool = True, missing: bool = False, spare: str | None = None
) -> pl.Series:
    """``column`` itself. Raises InputError if a text has a NUL character, or is missing or empty and must not be.

    ``spare`` is the one text that may have a NUL character.
    """
    if are_few(column) and _fine(column.to_list(), empty, missing):
        return column
    broken = column.str.contains("\0", literal=True).fill_null(False)
    bad = {"holds a NUL character; remove it": broken if spare is None else broken & (column != spare)}
    if not missing and column.null_count():
        bad["is missing; give it"] = column.is_null()
    if not empty:
        bad["is empty, which names nobody; give another"] = (column == "").fill_null(False)
    for why, bad_B in bad.items():
        if bad_B.any():
            at = int(bad_B.arg_max() or 0)
            raise InputError(f"{what} number {at + 1} of {len(column)} ({excerpt(column[at])}) {why}.")
    return column


def _fine(values: Sequence[str | None], empty: bool, missing: bool) -> bool:
    """Whether nothing is to be said against any of the texts; False: look closer."""
    return all((missing if one is None else bool(one) or empty) and "\0" not in (one or "") for one in values)


def are_few(column: pl.Series) -> bool:
    """Whether a column is so small that Python reads it faster: ten texts by a hundred times."""
    return len(column) <= FEW and column.estimated_size() <= FEW_BYTES


def utf8(column: pl.Series) -> Iterable[bytes]:
    """Each text as UTF-8."""
    return [text.encode() for text in column.to_list()] if are_few(column) else column.cast(pl.Binary)


def distinct(prompt_N: pl.Series, chat_N: NDArray[np.bool_], sides: Sequence[pl.Series]) -> Distinct:
    """The distinct texts of N prompts and, on each side, N responses to them."""
    if all(map(are_few, (prompt_N, *sides))):
        return _distinct_of_few(prompt_N.to_list(), chat_N.tolist(), [side.to_list() for side in sides])
    prompt_rows = pl.DataFrame({"prompt": prompt_N, "chat": chat_N})
    rows = pl.concat([prompt_rows.with_columns(side.alias("text")) for side in sides])
    prompt_table = rows.select("prompt", "chat").unique(maintain_order=True).with_row_index("p")
    rows = rows.join(prompt_table, on=["prompt", "chat"], how="left", maintain_order="left", nulls_equal=True)
    pool = rows.select("p", "text").unique(maintain_order=True).with_row_index("r")
    code_Q = rows.join(pool, on=["p", "text"], how="left", maintain_order="left")["r"].to_numpy().astype(np.int32)
    prompt_R, chat_P = pool["p"].to_numpy().astype(np.int32), prompt_table["chat"].to_numpy()
    return Distinct(prompt_table["prompt"], chat_P, prompt_R, pool["text"], code_Q)


def _distinct_of_few(prompt_N: list[str], chat_N: list[bool], sides: Sequence[list[str]]) -> Distinct:
    asked, number_N = numbered(zip(prompt_N, chat_N, strict=True))
    pool, code_Q = numbered((p, text) for side in sides for p, text in zip(number_N, side, strict=True))
    return Distinct(
        pl.Series("prompt", [prompt for prompt, _ in asked], dtype=pl.String),
        np.array([chat for _, chat in asked], bool),
        np.array([p for p, _ in pool], np.int32),
        pl.Series("text", [text for _, text in pool], dtype=pl.String),
        np.array(code_Q, np.int32),
    )


def numbered(keys: Iterable[Key]) -> tuple[list[Key], list[int]]:
    """The distinct keys in order of appearance, and the number of each key among them; for few keys."""
    place: dict[Key, int] = {}
    number = [place.setdefault(key, len(place)) for key in keys]
    return list(place), number


def refuse_escaped(json_N: pl.Series, what: str) -> None:
    """Raise InputError for JSON that contains an escaped NUL character."""
    for text in json_N.filter(json_N.str.contains("\\u0000", literal=True)):
        if ESCAPED_NUL.search(text):
            raise InputError(f"a {what} ({excerpt(text)}) holds a NUL character; remove it.")


def _column(values: Any, what: str, kind: Callable[[pl.DataType], bool]) -> pl.Series:
    """A text column; one of another type is cast if ``kind`` allows it."""
    if not isinstance(values, pl.Series):
        if isinstance(values, str | bytes | Mapping):
            raise InputError(f"{what}s are {excerpt(values)}; expected a list of texts.")
        try:
            return pl.Series(what, values, dtype=pl.String)
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            values = list(values) if isinstance(values, Iterable) else [values]
            for at, value in enumerate(values):
                if not isinstance(value, str):
                    raise InputError(
                        f"{what} number {at + 1} of {len(values)} is {excerpt(value)}; expected a text."
                    ) from None
                if any("\ud800" <= character <= "\udfff" for character in value):
                    why = "holds half of a surrogate pair, which is no character; remove it"
                    raise InputError(f"{what} number {at + 1} of {len(values)} ({excerpt(value)}) {why}.") from None
            raise InputError(f"{what}s are {excerpt(values)}; expected a list of texts.") from None
    if values.dtype == pl.String:
        return values
    if not kind(values.dtype) and len(values):
        raise InputError(f"{what}s are a column of {values.dtype}; expected texts.")
    return values.cast(pl.String)


def _texts_only(kind: pl.DataType) -> bool:
    return kind in (pl.Categorical, pl.Enum, pl.Null)


def _numbers_too(kind: pl.DataType) -> bool:
    return _texts_only(kind) or kind.is_integer() or kind.is_decimal()


def excerpt(value: object) -> str:
    """At most 60 characters of a value, on one line, without control characters."""
    shown = repr(value[:60] if isinstance(value, str) else value)
    return shown if len(shown) <= 64 else shown[:61] + "..."


def canonical_chat(messages: Iterable[Message]) -> str:
    """One chat prompt as the canonical JSON string that ``Responses.prompts`` stores.

    The order of keys, and keys without a value (which Parquet has and JSON lacks), do not matter; texts are unchanged.
    Raises InputError for anything but a list of messages of JSON values.
    """
    try:
        without_nulls = [{key: value for key, value in dict(one).items() if value is not None} for one in messages]
        return json.dumps(without_nulls, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        found = excerpt(messages)
        raise InputError(f"a prompt is {found}; expected a text or a list of chat messages ({error}).") from None
