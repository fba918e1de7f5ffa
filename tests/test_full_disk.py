"""Commands on a disk that is full, at once or after a while: one line, exit code 2, and what was there stays."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from polypref import features
from polypref.cli import main
from polypref.evaluation import grid_setup
from toy_learners import LengthEncoder

SMALL = ("--seeds", "1", "--workers", "1", "--min-judgements", "5", "--quiet")
COMMANDS = {
    "fit": ("fit", "prefs.jsonl", "--learner", "individual", "--out", "out"),
    "groups": ("groups", "prefs.jsonl", "--attribute", "land", "--out", "out"),
    "simulate": ("simulate", "two-tastes", "--users", "20", "--judgements", "6", "--out", "out/world.jsonl"),
    "compare": ("compare", "prefs.jsonl", "--learners", "individual", *SMALL, "--no-placebo", "--out", "out"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "encoder", lambda name: LengthEncoder())
    monkeypatch.setattr(grid_setup, "encoder_by_name", lambda name: LengthEncoder())
    rng = np.random.default_rng(0)
    with Path("prefs.jsonl").open("w") as file:
        for user in range(8):
            for _ in range(20):
                texts = [f"{word} {rng.integers(1000)}" for word in ("please", "now")]
                row = dict(zip(("chosen", "rejected"), texts[:: 1 if user < 6 else -1], strict=True))
                row |= {"user_id": f"u{user}", "prompt": "boil it", "attributes": {"land": "ab"[user % 2]}}
                file.write(json.dumps(row) + "\n")
    return tmp_path


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 300])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line(here, command, size, capsys):
    with no_file_longer_than(size):
        code = main(list(COMMANDS[command]))
    told = capsys.readouterr().err
    assert code == 2, told
    lines = [line for line in told.splitlines() if line.startswith("polypref: error")]
    assert len(lines) == 1 and "Traceback" not in told
    assert re.search(r"cannot write .*File too large\..*Free the space or ", lines[0])
    assert not list(here.rglob(".*.partial"))


@pytest.mark.skipif(os.geteuid() != 0, reason="skipped: only root can mount a small disk")
def test_a_small_disk_that_fills_up(here, capsys):
    Path("out").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "out"], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"skipped: no disk can be mounted here ({mounted.stderr.strip()})")
    try:
        assert main(list(COMMANDS["simulate"])) == 2
        assert "cannot write out/world.jsonl: No space left on device. Free the space" in capsys.readouterr().err
        assert not list(Path("out").iterdir())
        subprocess.run(["mount", "-o", "remount,ro", "out"], check=True)
        assert main(list(COMMANDS["groups"])) == 2
        assert "Read-only file system. Make it writable or choose another folder." in capsys.readouterr().err
    finally:
        subprocess.run(["umount", "out"], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_where_a_folder_is_needed_is_one_line(here, command, capsys):
    arguments = [
        word.replace("out", "prefs.jsonl/x", 1) if word.startswith("out") else word for word in COMMANDS[command]
    ]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "cannot write prefs.jsonl/x" in error and "Not a directory" in error and "Traceback" not in error


def test_standard_output_that_is_full_is_one_line(here):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "polypref", "check", "prefs.jsonl"]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("polypref: error: cannot write standard output: No space left")
    assert found.stderr.count("\n") == 1
