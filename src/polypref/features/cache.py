"""The on-disk cache of features: one folder per encoder identity, keyed by content, memory-mapped, append-only.

    <root>/features/<encoder>-<hash of identity>/
        meta.json    the identity in full, number of features D
        rows.f32     features, row after row (little-endian float32, n x D)
        index.bin    one record per row: identity of the text (16 bytes), checksum of the row (little-endian uint64)
        lock         held by the one process that is filling

Covered: a row counts once its index record is complete, and records are written after their rows. So a killed process,
a full disk or a power cut leaves at most an incomplete tail, which the next writer cuts off: at most one batch is lost.
Only one process writes at a time, so two never encode the same text; any number may read without a lock. Damaged rows
are reported, dropped and encoded again. Not covered: a cache folder on a network file system that lacks locks.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.content import Identities
from polypref.errors import ArtifactError, CacheError, reason
from polypref.files import write_json
from polypref.regular_files import content_of, expanded, memory
from polypref.schema import conform
from polypref.strict_json import parse
from polypref.terminal import say

FORMAT = 2  # part of the folder's name, so that features of an older version are recomputed in another folder
GATHER = 2048  # rows copied and checked together, few enough for the processor's cache
ELSEWHERE = "set POLYPREF_CACHE to another folder, and run again"
RECORD = np.dtype([("key", f"S{content.BYTES}"), ("check", "<u8")])

T = TypeVar("T")
MOST_FEATURES = 1 << 24  # numbers in a row

RowArray = NDArray[np.int64]
Features = NDArray[np.float32]


def cache_root() -> Path:
    """The folder of all caches: ``$POLYPREF_CACHE``, or ``polypref`` in the platform's cache folder."""
    if chosen := os.environ.get("POLYPREF_CACHE"):
        return expanded(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = os.environ.get("XDG_CACHE_HOME") or "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(base) / "polypref"


def checksums(keys_B: Identities, features_BD: Features) -> NDArray[np.uint64]:
    """Checksum of each row together with its key: xor and sum of its 32-bit words (vectorised; not cryptographic)."""
    words_BD = np.ascontiguousarray(features_BD, "<f4").view("<u4")
    xor_B = np.bitwise_xor.reduce(words_BD, axis=1).astype(np.uint64)
    sum_B = np.add.reduce(words_BD, axis=1, dtype=np.uint32).astype(np.uint64)
    return ((xor_B << np.uint64(32)) | sum_B) ^ content.first_words(keys_B)


@dataclass(frozen=True, eq=False)
class Index:
    """A process's view of a store: its sorted keys, the row of each, and which rows it has verified."""

    stamp: tuple[int, int, int, int]
    dim: int = 0
    sorted_keys: Identities = field(default_factory=lambda: content.NONE)
    row_of_sorted: RowArray = field(default_factory=lambda: np.empty(0, np.int64))
    checks: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    verified: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))

    def rows(self, keys_R: Identities) -> RowArray:
        """Row of each key, -1 if it is not stored."""
        at_R = content.places(self.sorted_keys, keys_R)
        return np.where(at_R >= 0, np.append(self.row_of_sorted, -1)[at_R], -1)


_INDEXES: dict[Path, Index] = {}


class Damaged(CacheError):
    """The stored data differ from what was written; they can be recomputed."""


class _Meta(TypedDict):
    format: int
    identity: str
    dim: int


class Store:
    """The features of one encoder on disk."""

    def __init__(self, identity: str, root: Path | str | None = None) -> None:
        root = cache_root() if root is None else expanded(root)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.split(" ")[0])[:60].strip("-.")
        digest = content.hexdigest(FORMAT, identity)[:16]  # short, since meta.json has the full identity
        self.identity = identity
        self.folder = root / "features" / f"{slug}-{digest}"

    # reading: no lock

    def index(self) -> Index:
        """The current index on disk; read again only if the file changed."""
        try:
            status, rows_status = (self.folder / "index.bin").stat(), (self.folder / "rows.f32").stat()
        except FileNotFoundError:
            return Index((0, 0, 0, 0))
        except OSError as error:
            raise self._cannot("read", error) from error
        for name, one in (("index.bin", status), ("rows.f32", rows_status)):
            if not stat.S_ISREG(one.st_mode):
                raise Damaged(f"{self.folder / name} is not a regular file")
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, rows_status.st_size)
        known = _INDEXES.get(self.folder)
        if known is None or known.stamp != stamp:
            known = _INDEXES[self.folder] = self._read_index(stamp, known)
        return known

    def _read_index(self, stamp: tuple[int, int, int, int], before: Index | None) -> Index:
        dim = self._dim()
        try:
            raw = content_of(self.folder / "index.bin", memory())
            whole = min(len(raw) // RECORD.itemsize, (self.folder / "rows.f32").stat().st_size // (4 * dim))
        except OSError as error:
            raise self._cannot("read", error) from error
        records = np.frombuffer(raw, RECORD, count=whole)
        order = np.argsort(records["key"], kind="stable")
        checks, verified = records["check"].astype(np.uint64), np.zeros(whole, bool)
        if before is not None and before.stamp[0] == stamp[0]:
            same = min(whole, len(before.checks))
            verified[:same] = before.verified[:same] & (before.checks[:same] == checks[:same])
        return Index(stamp, dim, np.ascontiguousarray(records["key"])[order], order, checks, verified)

    def _dim(self) -> int:
        path = self.folder / "meta.json"
        try:
            meta = parse(content_of(path), str(path))
            conform(meta, _Meta, str(path))
        except (OSError, ArtifactError) as error:
            raise Damaged(f"{path} cannot be read ({reason(error)})") from error
        if meta["format"] != FORMAT or meta["identity"] != self.identity or not 0 < meta["dim"] <= MOST_FEATURES:
            raise Damaged(f"{path} belongs to another encoder or version")
        return meta["dim"]

    def read(self, index: Index, keys_R: Identities, rows_R: RowArray) -> Features:
        """Features (R, D) of the rows; raises Damaged if a row does not match its checksum."""
        if not len(rows_R):
            return np.empty((0, index.dim), np.float32)
        shape = (len(index.checks), index.dim)
        stored = np.memmap(self.folder / "rows.f32", np.dtype("<f4"), "r", shape=shape)
        features_RD = np.empty((len(rows_R), index.dim), np.float32)
        for start in range(0, len(rows_R), GATHER):
            part = slice(start, start + GATHER)
            rows, block = rows_R[part], features_RD[part]
            np.take(stored, rows, axis=0, out=block, mode="clip")
            fresh = np.flatnonzero(~index.verified[rows])
            if len(fresh):
                self._verify(index, keys_R[part][fresh], rows[fresh], block[fresh])
        return features_RD

    def _verify(self, index: Index, keys: Identities, rows: RowArray, features: Features) -> None:
        wrong = np.flatnonzero(checksums(keys, features) != index.checks[rows])
        if len(wrong):
            raise Damaged(f"row {rows[wrong[0]]} of {self.folder / 'rows.f32'} does not match its checksum")
        index.verified[rows] = True

    # repair

    def repaired(self, ask: Callable[[], T]) -> T:
        """What ``ask`` returns for this store.

        A damaged store is reported, its damaged rows are dropped, and ``ask``, which encodes missing rows, is called
        once more.
        """
        try:
            return ask()
        except Damaged as damage:
            say(f"{damage}: damaged rows are dropped and encoded again")
        self._drop_damaged()
        return ask()

    def _drop_damaged(self) -> None:
        """Rewrite the rows that match their checksums, and drop the others."""
        with self.filling() as writer:
            _INDEXES.pop(self.folder, None)
            try:
                index = self.index()
                shape = (len(index.checks), index.dim)
                stored: NDArray = np.zeros((0, index.dim), "<f4")
                if shape[0]:
                    stored = np.memmap(self.folder / "rows.f32", np.dtype("<f4"), "r", shape=shape)
            except Damaged:
                index, stored = Index((0, 0, 0, 0)), np.zeros((0, 0), "<f4")
            try:
                for name in ("index.bin", "rows.f32", "meta.json"):  # mapped data stay until they are released
                    (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise self._cannot("write", error) from error
            _INDEXES.pop(self.folder, None)
            for start in range(0, len(stored), GATHER * 32):
                rows = index.row_of_sorted[start : start + GATHER * 32]
                keys, features = index.sorted_keys[start : start + GATHER * 32], np.asarray(stored[rows])
                whole = checksums(keys, features) == index.checks[rows]
                writer.append(keys[whole], features[whole])

    # writing: under the lock

    @contextmanager
    def filling(self) -> Iterator[Writer]:
        """Hold the lock and yield a writer. Waits, with a message, while another process fills this store."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                say(f"waiting for another process that is filling {self.folder}")
                lock.acquire()
        except OSError as error:
            raise self._cannot("write", error) from error
        try:
            yield Writer(self)
        finally:
            lock.release()

    def ensure_same(self, stored: int, given: int) -> None:
        """Raise CacheError if the encoder gives rows of another length than the stored ones."""
        if stored != given:
            raise CacheError(
                f"{self.folder} holds features of {stored} numbers and the encoder now gives {given}: "
                "its model has changed; remove the folder to encode again."
            )

    def _cannot(self, verb: str, error: OSError, kept: str = "") -> CacheError:
        return CacheError(
            f"cannot {verb} the cache folder {self.folder}: {error.strerror or error}.{kept} "
            "Free the space or set POLYPREF_CACHE to another folder, and run again."
        )


class Writer:
    """Appends rows to a store whose lock is held."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, keys_B: Identities, features_BD: Features) -> None:
        """Add one batch; raises CacheError if it cannot be written (earlier batches are kept)."""
        store, dim = self._store, features_BD.shape[1]
        features_BD = np.ascontiguousarray(features_BD, "<f4")
        records = np.empty(len(keys_B), RECORD)
        records["key"], records["check"] = keys_B, checksums(keys_B, features_BD)
        try:
            if not (store.folder / "meta.json").exists():
                write_json(store.folder / "meta.json", {"format": FORMAT, "identity": store.identity, "dim": dim})
            store.ensure_same(store._dim(), dim)
            paths = store.folder / "rows.f32", store.folder / "index.bin"
            with _open_to_append(paths[0]) as rows, _open_to_append(paths[1]) as index:
                whole = min(rows.tell() // (4 * dim), index.tell() // RECORD.itemsize)
                rows_end, index_end = whole * 4 * dim, whole * RECORD.itemsize
                for file, end in ((rows, rows_end), (index, index_end)):  # cut off what a killed writer left
                    file.seek(end)
                    file.truncate()
                try:
                    write(rows, features_BD.tobytes())
                    write(index, records.tobytes())
                except OSError:
                    rows.truncate(rows_end)
                    index.truncate(index_end)
                    raise
        except OSError as error:
            raise store._cannot("write", error, " Texts encoded before are kept.") from error


def _open_to_append(path: Path) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    file.seek(0, os.SEEK_END)
    return file


def write(file: BinaryIO, block: bytes) -> None:
    """Write all of ``block`` and sync it to disk: rows must be there before the index refers to them."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())
