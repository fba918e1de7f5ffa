"""What is written: whole or not at all, nothing left behind, one line when the disk cannot be written."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kills import killed, kills
from polypref import artifact, errors, files
from polypref.errors import ArtifactError, CacheError
from polypref.files import locks

SOURCE = Path(errors.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow: every write of this process fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- whole or not at all


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: bringing a thousand files to a disk takes a while."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def save(folder: Path, seed: int) -> None:
    artifact.save(folder, "thing", {"seed": seed}, {"x": np.full(3, float(seed))})


def saved(folder: Path) -> int | None:
    if artifact.kind_of(folder) is None:
        return None
    config, arrays = artifact.load(folder, "thing")
    assert arrays["x"].tolist() == [config["seed"]] * 3
    return config["seed"]


def test_a_killed_save_leaves_the_old_artifact_or_the_new_and_the_next_leaves_nothing_else(memory):
    folder = memory / "deep" / "scorer"
    seen = []
    for seed in (1, 2):  # the first save, and one over it
        for _ in kills(save, folder, seed):
            seen.append(saved(folder))
            save(folder, seed - 1)  # never refused, whatever the killed one left
            assert saved(folder) == seed - 1
            assert len(names(memory)) == 4, "deep, scorer, manifest and arrays: no leftovers"
            if seed == 1:
                (folder / "manifest.json").unlink()
                next(folder.glob("arrays-*")).unlink()
    assert {None, 0, 1, 2} == {*seen, 0}
    assert len(seen) > 15


def write_both(folder: Path, content: str) -> None:
    files.write_json(folder / "a.json", content)
    files.write(folder / "deep" / "b", content)


def test_a_killed_writer_leaves_each_file_old_or_new(memory):
    write_both(memory, "old")
    seen = set()
    for _ in kills(write_both, memory, "new"):
        now = json.loads((memory / "a.json").read_text()), (memory / "deep" / "b").read_text()
        seen.add(now)
        write_both(memory, "old")
        assert names(memory) == ["a.json", "deep", "deep/b"]
    assert seen == {("old", "old"), ("new", "old"), ("new", "new")}


def fill(folder: Path, content: str) -> None:
    with files.new_folder(folder) as partial:
        (partial / "x").write_text(content)


def test_a_killed_maker_of_a_folder_leaves_it_old_or_new_or_none(memory):
    fill(memory / "model", "old")
    for _ in kills(fill, memory / "model", "new"):
        path = memory / "model" / "x"
        assert not path.exists() or path.read_text() in ("old", "new")
        fill(memory / "model", "old")
        assert names(memory) == ["model", "model/x"]


def use(root: Path) -> None:
    tempfile.tempdir = str(root)
    with files.temporary() as folder:
        (folder / "x").write_text("")


def test_a_killed_user_of_a_temporary_folder_leaves_it_to_the_next(memory):
    for _ in kills(use, memory):
        assert killed(1000, use, memory) is False
        assert names(memory) == []


def test_what_a_living_writer_holds_is_left_alone(tmp_path):
    with files.writing(tmp_path / "a") as output:
        output.write("one")
        files.write(tmp_path / "a", "two")
        files.write(tmp_path / "b", "three")
        assert sum(name.endswith(".partial") for name in names(tmp_path)) == 1
    assert (tmp_path / "a").read_text() == "one"
    assert names(tmp_path) == ["a", "b"]


def test_partial_files_and_folders_of_the_dead_are_removed_and_nothing_else(tmp_path):
    dead = [f".x.{'0' * 16}.partial", f".y\n.{'f' * 16}.partial"]
    (tmp_path / dead[0]).write_text("")
    (tmp_path / dead[1]).mkdir()
    (tmp_path / dead[1] / "z").write_text("")
    mine = ["notes.partial", f".x.{'0' * 15}.partial", f"x.{'0' * 16}.partial", f".l.{'0' * 16}.partial"]
    for name in mine[:-1]:
        (tmp_path / name).write_text("")
    (tmp_path / mine[-1]).symlink_to(tmp_path / mine[0])
    files.write(tmp_path / "a", "")
    assert names(tmp_path) == sorted([*mine, "a"])


def test_where_locks_do_not_work_a_day_must_pass(tmp_path, monkeypatch):
    def nowhere(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "flock", nowhere)
    partial = tmp_path / f".x.{'0' * 16}.partial"
    partial.write_text("")
    files.write(tmp_path / "a", "")
    assert partial.exists()
    os.utime(partial, (0, 0))
    files.write(tmp_path / "a", "")
    assert names(tmp_path) == ["a"]


def test_a_failure_between_writes_leaves_the_old_file(tmp_path):
    files.write(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), files.writing(tmp_path / "a") as output:
        output.write("new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@given(text=st.text(st.characters()))
def test_text_is_written_as_it_is(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "text"
    files.write(path, text)
    assert path.read_bytes() == text.encode("utf-8", "backslashreplace")


def test_json_keeps_lone_surrogates_and_refuses_what_is_no_number(tmp_path):
    files.write_json(tmp_path / "a", {"x": "\ud800\u2028"})
    assert json.loads((tmp_path / "a").read_text()) == {"x": "\ud800\u2028"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", float("nan"))


@pytest.mark.parametrize(
    ("suffix", "read"), [(".jsonl", pl.read_ndjson), (".csv", pl.read_csv), (".parquet", pl.read_parquet)]
)
def test_tables(tmp_path, suffix, read):
    table = pl.DataFrame({"a": [1, 2], "b": ["x", 'y"\n']})
    files.write_table(tmp_path / f"t{suffix}", table)
    assert read(tmp_path / f"t{suffix}").equals(table)


# --- folders


def test_a_new_folder_takes_the_old_ones_place(tmp_path):
    for content in ("old", "new"):
        with files.new_folder(tmp_path / "model") as folder:
            (folder / content).write_text(content)
    assert names(tmp_path) == ["model", "model/new"]
    with pytest.raises(ZeroDivisionError), files.new_folder(tmp_path / "model"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["model", "model/new"]


def test_a_temporary_folder_is_private_and_ends_with_its_owner(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "polypref-mine").mkdir()
    abandoned = tmp_path / f"polypref-{'0' * 16}"
    abandoned.mkdir()
    with files.temporary() as one, files.temporary() as other:
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        assert len({one, other, *tmp_path.iterdir()}) == 3, "two that are held, and one of another name"
    assert names(tmp_path) == ["polypref-mine"]


def test_the_users_own_files_stay_in_an_artifacts_folder(tmp_path):
    save(tmp_path / "a", 1)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    save(tmp_path / "a", 2)
    assert saved(tmp_path / "a") == 2
    assert len(names(tmp_path / "a")) == 3
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not a polypref artifact; choose another path or remove it"):
        save(tmp_path / "b", 1)


# --- one line


def test_a_full_disk_is_one_line_and_leaves_the_old(tmp_path):
    save(tmp_path / "scorer", 1)
    files.write(tmp_path / "a", "old")
    before = names(tmp_path)
    for work in (lambda: save(tmp_path / "scorer", 2), lambda: files.write(tmp_path / "a", "new")):
        with full_disk(), pytest.raises(CacheError) as told:
            work()
        assert str(told.value).endswith(": File too large. Free the space or choose another folder.")
        assert str(told.value).startswith(f"cannot write {tmp_path}/")
    assert (tmp_path / "a").read_text() == "old"
    assert saved(tmp_path / "scorer") == 1
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/x", "Not a directory. Choose another folder."),
        ("folder", "Is a directory. Choose another folder."),
        ("n" * 300, "File name too long. Choose a shorter name."),
        ("a\0b", "it is not a file name. Choose another one."),
        ("a\ud800", "it is not a file name. Choose another one."),
    ],
)
def test_paths_that_cannot_be(tmp_path, place, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for write in (files.write, files.write_json):
        with pytest.raises(CacheError, match=r"^cannot write ") as told:
            write(tmp_path / place, "x")
        assert str(told.value).endswith(f": {reason}")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match=r"denied\. Make it writable or choose another folder."):
        files.write(tmp_path / "a", "x")


def test_what_libraries_say_of_the_disk_is_one_line_and_nothing_else_is(tmp_path):
    from safetensors.numpy import save_file

    with full_disk(), pytest.raises(CacheError, match=r": File too large. Free the space"), files.writable(tmp_path):
        save_file({"x": np.zeros(100)}, tmp_path / "x")
    with pytest.raises(RuntimeError, match="shapes differ"), files.writable(tmp_path):
        raise RuntimeError("shapes differ")


def test_a_device_is_written_to_and_stays_one(tmp_path):
    files.write("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(CacheError, match=r"^cannot write /dev/full: No space left on device. Free the space or"):
        files.write("/dev/full", "x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "results.json").symlink_to(tmp_path / "precious")
    files.write(tmp_path / "results.json", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "results.json").read_text() == "new"


def polypref(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polypref", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **how)


def test_standard_output_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("w") as full:
        found = polypref("--help", stdout=full)
    assert found.returncode == 2
    assert found.stderr.startswith("polypref: error: cannot write standard output: No space left on device. Free the ")
    assert found.stderr.count("\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    found = polypref("--help", stdout=writing)
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")
    found = polypref("--help", preexec_fn=lambda: os.close(1))
    assert (found.returncode, found.stderr) == (0, "")


# --- nobody else

WRITES = {"write_text", "write_bytes", "mkdir", "makedirs", "touch", "symlink_to", "rmtree", "mkdtemp", "FileLock"}
WRITES |= {"TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile"}
WRITES |= {"write_parquet", "write_csv", "write_ndjson", "save_file", "savez", "savez_compressed"}
OF = {("os", "replace"), ("os", "rename"), ("np", "save"), ("pickle", "dump")}
REASONS = {
    "files/__init__.py": "the one place",
    "files/locks.py": "folders to lock",
    "features/cache.py": "appends to files of its own format, under a lock of its own",
    **dict.fromkeys(("features/encode_once.py", "testing.py"), "into a temporary folder"),
    "policy/history_file.py": "into memory",
    "serve/refitting/folders.py": "removes a refit that is over",
    **dict.fromkeys(("align/run.py", "finetune/tuning.py", "runs/cell_store.py"), "removes what is made again"),
    "cli/__init__.py": "the null device",
    "runs/execute.py": "into a file without a name",
    "serve/running/log.py": "a log is appended to, line by line, by several processes",
}


def writes(text: str) -> Iterator[str]:
    """Calls in a source file that write to the disk, with their lines."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        call = node.func
        name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
        owner = call.value.id if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) else ""
        given = [one.value for one in [*node.args, *(k.value for k in node.keywords)] if isinstance(one, ast.Constant)]
        if (owner, name) == ("os", "open"):
            opens = re.search("O_WRONLY|O_RDWR|O_CREAT", ast.unparse(node))
        else:
            opens = name == "open" and any(re.fullmatch("[rbt]*[wxa+][wxabt+]*", str(mode)) for mode in given)
        if name in WRITES or (owner, name) in OF or opens:
            yield f"{node.lineno}: {ast.unparse(call)}"


def test_nobody_else_writes():
    paths = sorted(SOURCE.rglob("*.py"))
    assert len(paths) > 100
    found = {str(path.relative_to(SOURCE)): list(writes(path.read_text())) for path in paths}
    strangers = [f"{name}:{one}" for name, ones in found.items() for one in ones if name not in REASONS]
    assert not strangers, "\n".join(strangers)
    assert all(found[name] for name in REASONS), "a reason that is needed no more"


@pytest.mark.parametrize(
    "planted",
    [
        "p.write_text(x)",
        "open(p, 'w')",
        "p.open(mode='ab')",
        "os.replace(a, b)",
        "np.save(p, x)",
        "shutil.rmtree(p)",
        "os.open(p, os.O_WRONLY)",
    ],
)
def test_a_planted_write_is_seen(planted):
    assert len(list(writes(planted))) == 1
    assert not list(
        writes("open(p); os.open(p, os.O_RDONLY); p.open('rb'); name.replace('w', 'x'); p.open(encoding='utf-8')")
    )
