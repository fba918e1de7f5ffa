"""Forgetting: after a deletion a person is a stranger, bit for bit, and no file names them.

Source: our own. ``forget`` removes a person from a scorer, ``without`` from a grouping, ``forget_in_history`` from
P-GRPO's histories; ``residue`` searches the files of a folder for remaining traces.

Covered: scorers that keep people in separate rows (``learners.protocol.Forgets``); JSON, JSON lines, text, safetensors,
npz, npy and parquet files, and any other file byte by byte. Not covered, but measured by ``shared_change``: the shared
part was fitted with the person's judgements and stays unchanged. From it and the rows of all who stay, the row of a
*single* deleted person can be reconstructed (low-rank: exactly, because it is part of the mean; hierarchical: nearly).
If that must be impossible, fit again without them. Also not covered: copies elsewhere, caches of texts, file names,
compressed files, and hashed ids.

Suffixes here: ``_K`` groups that are kept.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, quote_plus

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Users
from polypref.errors import CacheError, SettingsError
from polypref.learners.protocol import Forgets, Scorer, population_margins
from polypref.policy.advantages import Level, Normalizer
from polypref.policy.drift import DriftAlarm
from polypref.policy.history import RewardHistory
from polypref.regular_files import content_of, ensure_within, memory

SHORT = 3  # characters; a shorter id is a common word
# The end of a place under a name of users or ids, such as ".config.state.users[]" or "column user_id".
NAMED = re.compile(
    r"(?:user|annotator|worker|rater|judge|participant|labeler|person|people|id)s?(?:\[\])*$", re.IGNORECASE
)


def forget(scorer: Scorer, user_id: str) -> Scorer:
    """A scorer that answers ``user_id`` as it answers a stranger, bit for bit; other users' scores do not change.

    A scorer that answers everyone alike has no user data and is returned unchanged. Raises SettingsError for one that
    cannot forget, InputError for an impossible id.
    """
    user_id = content.one_id(user_id)
    if scorer.serves == "population":
        return scorer
    if isinstance(scorer, Forgets):
        return scorer.forget(user_id)
    raise SettingsError(
        f"a scorer of kind {scorer.kind!r} cannot forget one user; fit it again without {user_id!r}'s judgements."
    )


class Grouped(Protocol):
    """The part of a grouping, a dataclass, that ``without`` needs: one row per user."""

    @property
    def users(self) -> Users: ...
    @property
    def share_UG(self) -> NDArray[np.float64]: ...
    @property
    def group_U(self) -> IntArray: ...


AnyGrouping = TypeVar("AnyGrouping", bound=Grouped)


def without(grouping: AnyGrouping, user_id: str) -> AnyGrouping:
    """The grouping of everybody else; ``user_id`` is then unknown."""
    kept_U = np.flatnonzero((grouping.users.ids != user_id).to_numpy())
    return replace(
        grouping,  # type: ignore[type-var]
        users=Users(grouping.users.ids.gather(kept_U)),
        share_UG=grouping.share_UG[kept_U],
        group_U=grouping.group_U[kept_U],
    )


def forget_in_history(normalizer: Normalizer, user_id: str) -> Normalizer:
    """A normalizer without the user's own histories at the finest level; all others keep theirs bit for bit.

    Users given as whole numbers are matched by their digits. The user's contribution to the histories of larger groups
    stays: it is a sum that cannot be separated. Raises SettingsError if no level is of users.
    """
    if len(normalizer.names) < 2:
        raise SettingsError(f"the histories' levels are {', '.join(normalizer.names)}; none is of users below groups.")
    left = normalizer.copy()
    finest = len(normalizer.levels) - 1
    for at, level in enumerate(normalizer.levels):
        kept = [path for path in level.numbers if at < finest or str(path[-1]) != user_id]
        number_K = np.array([level.numbers[path] for path in kept], np.int64)
        histories = [_rows(history, number_K) for history in (level.rewards, level.residuals)]
        left.levels[at] = Level(histories[0], histories[1], {path: number for number, path in enumerate(kept)})
        if at == finest:
            left.alarm = _watched(left.alarm, number_K)
    return left


def _watched(alarm: DriftAlarm, number_K: NDArray[np.int64]) -> DriftAlarm:
    """The alarm's rows of the groups that stay; groups added after its last batch have none yet."""
    seen_K = number_K[number_K < len(alarm.up_G)]
    prompts = _rows(alarm.prompts, seen_K)
    return replace(alarm, prompts=prompts, up_G=alarm.up_G[seen_K], down_G=alarm.down_G[seen_K])


def _rows(history: RewardHistory, number_K: NDArray[np.int64]) -> RewardHistory:
    return RewardHistory.from_arrays(
        {name: array[number_K] for name, array in history.arrays().items()}, history.half_life
    )


def shared_change(scorer: Scorer, refit: Scorer, rows: Comparisons) -> float:
    """Largest change of a stranger's margin of ``rows`` between a scorer and one fitted without a person.

    In units of the margins' root mean square under ``refit``. It is the person's remaining influence on the shared
    part, for equal seed and settings; refits that choose other settings also differ by that.
    """
    had_N, left_N = population_margins(scorer, rows).value_Q, population_margins(refit, rows).value_Q
    return float(np.abs(had_N - left_N).max() / np.sqrt((left_N**2).mean()))


def residue(folder: Path | str, user_id: str) -> list[str]:
    """Places, as ``file: where``, at which ``user_id`` occurs in the files below ``folder``; empty if there are none.

    An id counts if it is a separate word, as it is or escaped as in JSON or in an address (``%20``), so a short one
    ("7") may be found where it means something else; ``traces`` tells these places apart. Other ways to write it, such
    as base64, are not searched. Raises CacheError if the folder does not exist or a file cannot be read.
    """
    return [f"{file}: {one.where}" for file, found in traces(folder, [user_id]).items() for one in found]


class Trace(NamedTuple):
    """A place in a file at which an id occurs; ``sure``: it can hardly mean anything but the person."""

    where: str
    sure: bool


def traces(folder: Path | str, user_ids: Sequence[str]) -> dict[str, list[Trace]]:
    """Places at which any of ``user_ids`` occurs, by file below ``folder``; see ``residue``.

    An id of digits alone or of one or two characters is a common word. It is a person for sure only where it is all of
    a value under a name of users or ids, or a key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CacheError(f"{folder} is not a folder; give one that a scorer, a grouping or a history was saved to.")
    words = [(_word(user_id), len(user_id) < SHORT or user_id.isdigit()) for user_id in user_ids]
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            ensure_within(path, folder)
            places = dict[str, bool]()  # where -> sure
            for where, text in _texts(path):
                hits = [
                    word.fullmatch(text) and _is_name(where) if common else True
                    for word, common in words
                    if word.search(text)
                ]
                if hits:
                    places[where] = places.get(where, False) or any(hits)
        except OSError as error:
            raise CacheError(f"{path} cannot be read ({error.strerror}), so it cannot be checked.") from error
        if places:
            found[str(path.relative_to(folder))] = [Trace(*place) for place in places.items()]
    return found


def _is_name(where: str) -> bool:
    """Whether a place is a key, or a value under a name of users or ids."""
    return where.endswith(" key") or NAMED.search(where) is not None


def _word(user_id: str) -> re.Pattern[str]:
    """Finds an id as a separate word, as it is or escaped."""
    escaped = json.dumps(user_id)[1:-1]
    twice = json.dumps(escaped)[1:-1]  # JSON within JSON, as in logs
    forms = {user_id, escaped, twice, quote(user_id, safe=""), quote(user_id), quote_plus(user_id)}
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(forms)))})(?!\w)")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Every text in a file and its place; a file whose content does not match its name is read as bytes."""
    readers = {".json": _of_json, ".jsonl": _of_lines, ".parquet": _of_parquet, ".npz": _of_numpy, ".npy": _of_numpy}
    reader = {**readers, ".safetensors": _of_safetensors}.get(path.suffix, _of_bytes)
    try:
        found = list(reader(path))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError):
        found = list(_of_bytes(path))
    yield from found


def _content(path: Path) -> bytes:
    return content_of(path, memory())


def _of_bytes(path: Path) -> Iterator[tuple[str, str]]:
    yield "bytes", _content(path).decode("utf-8", "replace")


def _of_json(path: Path) -> Iterator[tuple[str, str]]:
    yield from _in_value(_parsed(_content(path).decode()), "")


def _of_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_content(path).decode().split("\n"), 1):
        if line.strip():
            yield from ((f"line {number}{where}", text) for where, text in _in_value(_parsed(line), ""))


def _parsed(text: str | bytes) -> Any:
    """A JSON value in which every value of a key that occurs twice is found."""
    return json.loads(text, object_pairs_hook=_all_of)


def _all_of(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if len(found) == len(pairs) else [{key: value} for key, value in pairs]


def _in_value(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, bytes):
        yield where, value.decode("utf-8", "replace")
    elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        yield where, str(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{where} key", str(key)
            yield from _in_value(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _in_value(inner, f"{where}[]")


def _of_parquet(path: Path) -> Iterator[tuple[str, str]]:
    table = pl.read_parquet(BytesIO(_content(path)))
    for column in table:
        yield f"name of column {column.name}", column.name
        for value in (column if column.dtype.is_nested() else column.unique()).to_list():
            yield from ((f"column {column.name}", text) for _, text in _in_value(value, ""))


def _of_numpy(path: Path) -> Iterator[tuple[str, str]]:
    loaded = np.load(BytesIO(_content(path)), allow_pickle=False)
    arrays = {"array": loaded} if isinstance(loaded, np.ndarray) else loaded
    for name in arrays:
        yield f"name of array {name}", name
        yield from _in_array(name, arrays[name])


def _of_safetensors(path: Path) -> Iterator[tuple[str, str]]:
    from safetensors.numpy import load

    content = _content(path)
    size = int.from_bytes(content[:8], "little")
    header = _parsed(content[8 : 8 + size])
    about = (
        header.get("__metadata__") if isinstance(header, dict) else header
    )  # names apart, the rest is shapes and offsets
    yield from ((f"header{where}", text) for where, text in _in_value(about, ""))
    yield from ((f"name of array {name}", name) for name in header if isinstance(name, str))
    try:
        arrays = load(content)
    except Exception as error:  # safetensors' own error derives directly from Exception
        raise ValueError(str(error)) from error
    for name, array in arrays.items():
        yield from _in_array(name, array)


def _in_array(name: str, array: NDArray) -> Iterator[tuple[str, str]]:
    """Strings, bytes that may be text, and the whole numbers of arrays named after users."""
    if array.dtype.kind in "US":
        texts = np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
        yield from ((f"array {name}", str(text)) for text in np.unique(texts))
    elif array.dtype == np.uint8:
        text = array.tobytes().decode("utf-8", "replace")
        try:
            yield from ((f"array {name}", inner) for _, inner in _in_value(_parsed(text), ""))
        except ValueError:
            yield f"array {name}", text
    elif re.search("user|id$|ids$", name) and array.dtype.kind in "iu":
        yield from ((f"array {name}", str(number)) for number in np.unique(array).tolist())


def bits_apart(
    one: Scorer, other: Scorer, rows: Comparisons, one_ids: Sequence[str], other_ids: Sequence[str]
) -> float:
    """Largest absolute difference of two scorers' rewards of every text of ``rows``; 0: bit-identical.

    ``one`` is scored for ``one_ids``, ``other`` for ``other_ids``: equally many, or a single one for all.
    """
    value = [
        np.stack([scorer.score(rows.responses, [user_id] * len(rows.responses)).value_Q for user_id in ids])
        for scorer, ids in ((one, one_ids), (other, other_ids))
    ]
    return float(np.abs(value[0] - value[1]).max())
