"""Two runs never write one folder: the second is refused in one line, and a killed run holds nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextvars import Context
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from polypref import artifact, simulate
from polypref.cli import COMMANDS
from polypref.cli.settings import command_class
from polypref.cli.shared import Replaces, WritesFolder
from polypref.errors import ArtifactError, SettingsError
from polypref.files import alone, held_for_run, locks

REFUSED = (
    r"polypref: error: another run \(process {pid}, since 20\d\d-\d\d-\d\d [\d:]{{8}}\) is writing {out}; wait for it"
)
SMALL = ("--encoder", "static", "--learners", "pooled", "--seeds", "1", "--no-placebo", "--workers", "1", "--quiet")

# What a run writes goes through ``files``; this one stops in its first such write until it is told to go on.
PAUSED = """
import sys
from pathlib import Path
from polypref import files
from polypref.cli import main
begun, ready = files._begun, []
def pause(path):
    if not ready and str(path).startswith(sys.argv[1]):
        ready.append(path)
        print("writes", flush=True)
        sys.stdin.readline()
    return begun(path)
files._begun = pause
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def prefs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prefs") / "prefs.csv"
    simulate("two-tastes", seed=0, users=12, judgements=20).table().drop("attributes").write_csv(path)
    return path


def commands(prefs: Path, out: Path) -> dict[str, list[str]]:
    """Runs of a second or two; what they write does not matter here."""
    return {
        "compare": ["compare", str(prefs), *SMALL, "--out", str(out)],
        "fit": ["fit", str(prefs), "--learner", "pooled", "--encoder", "static", "--out", str(out)],
        "groups": ["groups", str(prefs), "--groups", "2", "--encoder", "static", "--out", str(out)],
        "bench-policy": [
            "bench-policy",
            "--learners",
            "bandit",
            "--quick",
            "--seeds",
            "2",
            "--workers",
            "1",
            "--out",
            str(out),
        ],
    }


def started(words: list[str], out: Path) -> subprocess.Popen[str]:
    """A run that has begun to write ``out`` and waits in the midst of it."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PAUSED, str(out), *words]
    run = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert run.stdout is not None
    line = run.stdout.readline()
    assert line == "writes\n", run.communicate()
    return run


def ended(words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polypref", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["compare", "fit", "groups", "bench-policy"])
def test_the_second_run_is_refused_and_a_killed_one_holds_nothing(name, prefs, tmp_path):
    out = tmp_path / "deep" / "out"
    words = commands(prefs, out)[name]
    first = started(words, out)
    before = contents(out)
    second = ended(words)
    assert second.returncode == 2
    assert re.match(REFUSED.format(pid=first.pid, out=re.escape(str(out))), second.stderr), second.stderr
    assert second.stderr.count("\n") == 1
    assert contents(out) == before
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = ended(words)
    assert third.returncode == 0, third.stderr
    assert contents(out)
    assert not [path for path in contents(out) if "lock" in path or path.endswith(".partial")]


def test_the_first_run_goes_on_undisturbed(prefs, tmp_path):
    out = tmp_path / "out"
    words = commands(prefs, out)["compare"]
    first = started(words, out)
    assert ended(words).returncode == 2
    assert ended(commands(prefs, out)["fit"]).returncode == 2, "whatever the other command is"
    _, said = first.communicate("go on\n")
    assert first.returncode == 0, said
    assert json.loads((out / "results.json").read_text())["rows"]
    again = ended(words)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("runs", [6])
def test_of_many_at_once_exactly_the_holder_writes(runs, tmp_path):
    """Each holder writes two files that must agree, and a journal of who wrote."""
    code = f"""
import os, sys, time
from polypref.errors import SettingsError
from polypref.files import held_for_run, write
sys.stdin.readline()
try:
    with held_for_run({str(tmp_path / "out")!r}):
        for name in "ab":
            write({str(tmp_path / "out")!r} + "/" + name, str(os.getpid()))
            time.sleep(.05)
except SettingsError as error:
    sys.exit(f"{{error}}")
"""
    many = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(runs)
    ]
    said = []
    for run in many:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    for run in many:
        said.append(run.communicate()[1])
    codes = [run.returncode for run in many]
    assert 0 in codes
    assert all(code == 0 or "is writing" in text for code, text in zip(codes, said, strict=True)), said
    found = {name: (tmp_path / "out" / name).read_text() for name in "ab"}
    assert found["a"] == found["b"]


def test_every_command_with_a_folder_says_so():
    """A command that has --out fills a folder, or replaces a file at once; another kind would be locked by nothing."""
    found = {name: command_class(name) for name in COMMANDS}
    with_out = {name: one for name, one in found.items() if "out" in {field.name for field in fields(one)}}  # type: ignore[arg-type]
    folders = {name for name, one in with_out.items() if issubclass(one, WritesFolder)}
    files = {name for name, one in with_out.items() if issubclass(one, Replaces)} | {"score", "forget"}
    assert folders | files == set(with_out)
    assert not folders & files
    assert folders == {
        *("compare", "adapt", "fit", "groups", "align", "audit", "bench-policy", "tax", "table", "demo", "reproduce"),
        "leaderboard",
    }


# --- the lock itself


def test_one_process_alone_holds_a_folder(tmp_path):
    held = f"with held_for_run({str(tmp_path)!r}): print(flush=True); time.sleep(60)"
    code = f"import time; from polypref.files import held_for_run\n{held}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(SettingsError, match=rf"^another run \(process {other.pid}, since 20[-0-9: ]+\) is writing"):
            _enter(tmp_path)
        other.send_signal(signal.SIGKILL)
    _enter(tmp_path)
    assert not list(tmp_path.iterdir()), "a killed one leaves nothing"


def test_a_folder_left_empty_is_removed_and_others_stay(tmp_path):
    (tmp_path / "there").mkdir()
    with held_for_run(tmp_path / "there" / "a" / "b"):
        assert (tmp_path / "there" / "a" / "b").is_dir()
    assert not list((tmp_path / "there").iterdir())
    with held_for_run(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()
    with pytest.raises(ZeroDivisionError), held_for_run(tmp_path / "x" / "y"):
        (tmp_path / "x" / "kept").write_text("")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["kept"]


def test_another_name_of_the_folder_is_the_same_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with held_for_run(tmp_path / "out"), pytest.raises(SettingsError, match=rf"process {os.getpid()}, since"):
        Context().run(_enter, tmp_path / "link")
    _enter(tmp_path / "link" / ".." / "out")


def _enter(folder: Path) -> None:
    with held_for_run(folder):
        pass


def test_a_save_waits_for_the_holder_even_if_the_folder_is_removed(tmp_path):
    """A save is a matter of a moment: it waits, and makes the folder again where its last holder left it empty."""
    code = f"""
import numpy as np
from polypref import artifact
print(flush=True)
artifact.save({str(tmp_path / "out")!r}, "thing", {{}}, {{"x": np.zeros(2)}})
"""
    with held_for_run(tmp_path / "out"):
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(0.5)
        assert other.poll() is None
    assert other.communicate()[1] == ""
    assert artifact.load(tmp_path / "out", "thing")[1]["x"].tolist() == [0.0, 0.0]


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a file system whose folders cannot be locked."""

    def nowhere(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "flock", nowhere)
    yield


@pytest.mark.usefixtures("without_locks")
def test_where_folders_cannot_be_locked_a_file_is(tmp_path):
    with held_for_run(tmp_path / "out"):
        with pytest.raises(SettingsError, match=rf"^another run is writing {tmp_path / 'out'}; wait for it, or choose"):
            Context().run(_enter, tmp_path / "out")
        with alone(tmp_path / "out"):  # what holds a folder may lock it again
            pass
        artifact.ensure_replaceable(tmp_path / "out", "thing")
        artifact.save(tmp_path / "out", "thing", {}, {"x": np.zeros(2)})
    (tmp_path / "out" / "other").write_text("")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="is not a polypref artifact"):
        artifact.ensure_replaceable(tmp_path / "out", "thing")
