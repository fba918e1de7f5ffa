"""The on-disk cache: content-keyed, filled batch by batch, safe against kill -9, a full disk and a second process."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl
import pytest

from polypref.comparisons import Responses
from polypref.errors import CacheError, EncoderError
from polypref.features import cache, encode_missing
from polypref.features.encode_missing import batches, encode_cached

DIM = 5


@dataclass(frozen=True)
class Fake:
    """An encoder whose features are known: derived from the text's checksum. Remembers what it was asked."""

    cache_folder: str
    text: encode_missing.TextMode = "response"
    batch_size: int = 4
    seen: list[str] = field(default_factory=list)
    poison: str | None = None
    name: str = "fake"
    cache: encode_missing.Cache = "disk"

    @property
    def identity(self) -> str:
        return f"fake text={self.text}"

    def encode(self, responses: Responses) -> np.ndarray:
        return encode_cached(self, self.text, responses)

    def compute(self, responses: Responses) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in batches(responses.lengths_R, self.batch_size):
            texts = [responses.texts_R[int(i)] for i in index]
            self.seen.extend(texts)
            features = truth(texts)
            if self.poison in texts:
                features[texts.index(self.poison), 2] = np.inf
            yield index, features


def truth(texts: list[str]) -> np.ndarray:
    return np.array([np.random.default_rng(crc32(t.encode())).normal(size=DIM) for t in texts], np.float32)


def pool(texts: list[str], n_prompts: int = 1) -> Responses:
    prompts = pl.Series([f"prompt {p}" for p in range(n_prompts)])
    prompt_R = (np.arange(len(texts)) % n_prompts).astype(np.int32)
    return Responses(prompts, prompt_R, pl.Series(texts, dtype=pl.String))


TEXTS = [f"text {i} " + "word " * (i * 7 % 13) for i in range(30)]


def store_of(folder: Path) -> cache.Store:
    return cache.Store(Fake(str(folder)).identity, folder)


def test_features_are_right_and_in_the_pools_order(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path))
    got = fake.encode(pool(TEXTS))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, truth(TEXTS))
    assert sorted(fake.seen) == sorted(TEXTS)
    order = np.random.default_rng(0).permutation(30).astype(np.int32)
    np.testing.assert_array_equal(fake.encode(pool(TEXTS).take(order)), truth(TEXTS)[order])
    assert len(fake.seen) == 30, "everything was cached"


def test_only_what_is_missing_is_encoded(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path))
    fake.encode(pool(TEXTS[:10]))
    fake.seen.clear()
    np.testing.assert_array_equal(fake.encode(pool(TEXTS[5:15])), truth(TEXTS[5:15]))
    assert sorted(fake.seen) == sorted(TEXTS[10:15])


@pytest.mark.parametrize("stored", [0, 10, 30])
def test_texts_in_passing_are_encoded_once_and_not_stored(tmp_path: Path, stored: int) -> None:
    fake = Fake(str(tmp_path))
    if stored:
        fake.encode(pool(TEXTS[:stored]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fake.seen.clear()
    shuffled = np.random.default_rng(1).permutation(np.repeat(TEXTS, 2)).tolist()
    with encode_missing.no_store():
        np.testing.assert_array_equal(fake.encode(pool(shuffled)), truth(shuffled))
        assert sorted(fake.seen) == sorted(TEXTS[stored:])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    fake.encode(pool(TEXTS))
    assert len(store_of(tmp_path).index().checks) == 30, "afterwards all is as before"


@dataclass(frozen=True)
class Wider(Fake):
    """The same encoder after its model has changed."""

    def compute(self, responses: Responses) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((index, np.concatenate([features, features], axis=1)) for index, features in super().compute(responses))


@pytest.mark.parametrize("some", [0, 5])
def test_in_passing_a_changed_encoder_is_refused_too(tmp_path: Path, some: int) -> None:
    Fake(str(tmp_path)).encode(pool(TEXTS[:10]))
    with encode_missing.no_store(), pytest.raises(CacheError, match="of 5 numbers and the encoder now gives 10"):
        Wider(str(tmp_path)).encode(pool(TEXTS[10 - some : 20]))


@pytest.mark.parametrize(("text", "times"), [("response", 1), ("joint", 3)])
def test_equal_texts_under_several_prompts_are_encoded_once_when_read_alone(
    tmp_path: Path, text: encode_missing.TextMode, times: int
) -> None:
    fake = Fake(str(tmp_path), text=text)
    texts = ["same", "same", "same", "other", "other", "one more"]
    np.testing.assert_array_equal(fake.encode(pool(texts, n_prompts=3)), truth(texts))
    assert fake.seen.count("same") == times


def test_chunks_cover_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_missing, "CHUNK", 7)
    fake = Fake(str(tmp_path))
    texts = [*TEXTS, *TEXTS[:9]]  # under another prompt
    responses = Responses(pl.Series(["a", "b"]), np.array([0] * 30 + [1] * 9, np.int32), pl.Series(texts))
    np.testing.assert_array_equal(fake.encode(responses), truth(texts))
    assert sorted(fake.seen) == sorted(TEXTS)


def test_the_same_pool_object_is_gathered_once_and_freed_with_it(tmp_path: Path) -> None:
    fake, responses = Fake(str(tmp_path)), pool(TEXTS)
    first = fake.encode(responses)
    assert fake.encode(responses) is first
    assert fake.encode(replace(responses)) is not first
    assert not first.flags.writeable
    del first, responses
    gc.collect()
    assert len(encode_missing._GATHERED) == 0


def test_an_empty_pool(tmp_path: Path) -> None:
    assert Fake(str(tmp_path)).encode(pool([])).shape[0] == 0


def test_identities_do_not_mix(tmp_path: Path) -> None:
    Fake(str(tmp_path)).encode(pool(TEXTS))
    other = Fake(str(tmp_path), text="joint")
    other.encode(pool(TEXTS))
    assert len(other.seen) == 30
    assert len(list((tmp_path / "features").iterdir())) == 2


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_changes_nothing(tmp_path: Path, batch_size: int) -> None:
    np.testing.assert_array_equal(Fake(str(tmp_path), batch_size=batch_size).encode(pool(TEXTS)), truth(TEXTS))


# damage


def test_a_torn_tail_is_cut_off_and_the_rest_kept(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path))
    fake.encode(pool(TEXTS[:10]))
    folder = store_of(tmp_path).folder
    with (folder / "rows.f32").open("ab") as rows, (folder / "index.bin").open("ab") as index:
        rows.write(b"\1" * (DIM * 4 + 3))  # one row and a bit, and half a record
        index.write(b"\2" * 7)
    fake.seen.clear()
    np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    assert sorted(fake.seen) == sorted(TEXTS[10:])
    np.testing.assert_array_equal(Fake(str(tmp_path)).encode(pool(TEXTS[::-1])), truth(TEXTS[::-1]))


def test_records_without_their_rows_do_not_count(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path))
    fake.encode(pool(TEXTS[:10]))
    os.truncate(store_of(tmp_path).folder / "rows.f32", 8 * DIM * 4 - 1)  # as after a power cut
    fake.seen.clear()
    np.testing.assert_array_equal(fake.encode(pool(TEXTS[:10])), truth(TEXTS[:10]))
    assert len(fake.seen) == 3


@pytest.mark.parametrize("at", [0, 77, 10 * DIM * 4 - 1])
def test_a_flipped_bit_is_named_and_its_row_made_again(
    tmp_path: Path, at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake(str(tmp_path))
    before = fake.encode(pool(TEXTS[:10])).copy()
    path = store_of(tmp_path).folder / "rows.f32"
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    cache._INDEXES.clear()  # a new process has verified nothing
    np.testing.assert_array_equal(fake.encode(pool(TEXTS[:10])), before)
    said = capsys.readouterr().err
    assert re.search(rf"row {at // (DIM * 4)} of .*rows\.f32 does not match its checksum", said)
    assert said.count("encoded again") == 1
    cache._INDEXES.clear()
    np.testing.assert_array_equal(Fake(str(tmp_path)).encode(pool(TEXTS[:10])), before)
    assert "encoded again" not in capsys.readouterr().err
    index = store_of(tmp_path).index()
    assert len(index.checks) == 10, "the nine other rows were kept"


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', "[" * 100_000, '{"dim": NaN}'])
def test_a_broken_description_is_made_again(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Fake(str(tmp_path)).encode(pool(TEXTS[:10])).copy()
    (store_of(tmp_path).folder / "meta.json").write_text(content)
    cache._INDEXES.clear()
    np.testing.assert_array_equal(Fake(str(tmp_path)).encode(pool(TEXTS[:10])), before)
    assert "meta.json cannot be read" in capsys.readouterr().err


def test_a_foreign_folder_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fake(str(tmp_path)).encode(pool(TEXTS[:10]))
    meta = store_of(tmp_path).folder / "meta.json"
    meta.write_text(meta.read_text().replace("fake text", "another"))
    cache._INDEXES.clear()
    Fake(str(tmp_path)).encode(pool(TEXTS[:10]))
    assert "meta.json belongs to another encoder or version" in capsys.readouterr().err


def test_a_model_that_changed_its_dimension_is_refused(tmp_path: Path) -> None:
    Fake(str(tmp_path)).encode(pool(TEXTS[:10]))
    with store_of(tmp_path).filling() as writer, pytest.raises(CacheError, match=r"of 5 numbers .* now gives 6"):
        writer.append(np.array([1], np.uint64), np.zeros((1, 6), np.float32))


def test_non_finite_features_name_the_text_and_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"fake gives NaN or infinite features for the response 'text 11"):
        Fake(str(tmp_path), poison=TEXTS[11], batch_size=1).encode(pool(TEXTS))
    healthy = Fake(str(tmp_path))
    np.testing.assert_array_equal(healthy.encode(pool(TEXTS)), truth(TEXTS))
    assert TEXTS[11] in healthy.seen


# disks


def test_a_full_disk_is_one_line_and_what_was_encoded_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write, calls = cache.write, []

    def write(file: object, content: bytes) -> None:
        calls.append(len(content))
        if len(calls) > 4:  # two batches fit, then half of the third one's rows
            whole_write(file, content[: len(content) // 2])  # type: ignore[arg-type]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole_write(file, content)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "write", write)
    fake = Fake(str(tmp_path))
    with pytest.raises(CacheError, match=r"cannot write .*No space left.* are kept.*POLYPREF_CACHE") as caught:
        fake.encode(pool(TEXTS))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(cache, "write", whole_write)
    fake.seen.clear()
    np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    assert len(fake.seen) == 30 - 2 * 4


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody, root included, can write below ``folder`` within the block."""
    root = os.geteuid() == 0
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if root:
            os.seteuid(65534)  # permissions do not bind root
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in paths:
            path.chmod(stat.S_IRWXU)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no POSIX permissions here")
def test_a_read_only_cache_serves_what_it_has_and_refuses_the_rest_in_one_line() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents only their owner may enter
        Path(name).chmod(0o755)
        fake = Fake(name)
        fake.encode(pool(TEXTS[:10]))
        fake.seen.clear()
        with read_only(Path(name)):
            np.testing.assert_array_equal(fake.encode(pool(TEXTS[2:8])), truth(TEXTS[2:8]))
            with pytest.raises(CacheError, match=r"cannot write the cache folder .*denied.*POLYPREF_CACHE"):
                fake.encode(pool(TEXTS))
        assert fake.seen == [], "refused before any work was done"


def test_a_cache_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot (read|write) the cache folder"):
        Fake(str(tmp_path / "file")).encode(pool(TEXTS))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", "/a/b")
    assert cache.cache_root() == Path("/a/b")
    monkeypatch.delenv("POLYPREF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_root() == Path("/x/polypref")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_root() == Path.home() / ".cache/polypref"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_root() == Path.home() / "Library/Caches/polypref"


# other processes

CHILD = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_cache import Fake, TEXTS, batches, pool

    class Slow(Fake):
        def compute(self, responses):
            for index, features in super().compute(responses):
                with open({log!r}, "a") as log:
                    log.write(f"{{len(index)}}\\n")
                time.sleep({pause})
                yield index, features

    print(Slow({folder!r}).encode(pool(TEXTS)).sum(), flush=True)
"""


def start_child(folder: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent), log=str(log), pause=pause, folder=str(folder))
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_kill_9_loses_at_most_one_batch(tmp_path: Path) -> None:
    log, index = tmp_path / "log", store_of(tmp_path).folder / "index.bin"
    child = start_child(tmp_path, log, pause=0.3)
    wait_for(lambda: index.exists() and index.stat().st_size >= 3 * 4 * cache.RECORD.itemsize)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = index.stat().st_size // cache.RECORD.itemsize
    started = sum(map(int, log.read_text().split()))
    assert 12 <= kept < 30, "killed in the middle"
    assert started - kept <= 4, "one batch at most"
    fake = Fake(str(tmp_path))
    np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    assert len(fake.seen) == 30 - kept, "nothing that was kept is encoded again"


def test_two_processes_that_fill_at_once_share_the_work(tmp_path: Path) -> None:
    log = tmp_path / "log"
    children = [start_child(tmp_path, log, pause=0.25) for _ in range(2)]
    answers = [child.communicate(timeout=120) for child in children]
    sums = [float(out) for out, _ in answers]
    np.testing.assert_allclose(sums, truth(TEXTS).sum(), rtol=1e-5)
    assert sum(map(int, log.read_text().split())) == 30, "each text once over both processes"
    assert any("waiting for another process" in err for _, err in answers)
    fake = Fake(str(tmp_path))
    np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    assert fake.seen == []


def test_a_reader_sees_what_another_process_added(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path))
    fake.encode(pool(TEXTS[:3]))
    child = start_child(tmp_path, tmp_path / "log", pause=0)
    child.communicate(timeout=60)
    fake.seen.clear()
    np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    assert fake.seen == []
