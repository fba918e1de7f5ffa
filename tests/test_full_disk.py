"""Commands on a disk that is full, at once or after a while: one line, exit code 2, and what was there stays."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import table_example
from judge_cases import save_judge
from polypref import cli, features
from polypref.cli import main
from polypref.evaluation import grid_setup
from test_published import tldr_row
from toy_learners import LengthEncoder

pytest.importorskip("trl")  # for align

SMALL = ("--seeds", "1", "--workers", "1", "--min-judgements", "5", "--quiet")
SLATES = ("--slates", "slates.jsonl")
COMMANDS = {
    "fit": ("fit", "prefs.jsonl", "--learner", "individual", "--out", "out"),
    "groups": ("groups", "prefs.jsonl", "--attribute", "land", "--out", "out"),
    "leaderboard": ("leaderboard", "battles.jsonl", "--out", "out"),
    "simulate": ("simulate", "two-tastes", "--users", "20", "--judgements", "6", "--out", "out/world.jsonl"),
    "compare": ("compare", "prefs.jsonl", "--learners", "individual", *SMALL, "--no-placebo", "--out", "out"),
    "adapt": ("adapt", "prefs.jsonl", "--learners", "individual", *SMALL, "--sizes", "3", "--out", "out"),
    "adapt a scorer": ("adapt", "more.jsonl", "--scorer", "hierarchical", "--user", "new", "--out", "out"),
    "convert": ("convert", "tldr", "tldr.jsonl", "--protocol", "R", "--out", "out/tldr.jsonl"),
    "forget": ("forget", "hierarchical", "u0", "--out", "out"),
    "score": ("score", "length", "asked.jsonl", "--out", "out/scores.jsonl"),
    "table": ("table", "results", "--out", "out"),
    "tax": (
        "tax",
        "suite.jsonl",
        "--prefs",
        "prefs.jsonl",
        "--learner",
        "individual",
        "--draws",
        "100",
        "--out",
        "out",
    ),
    "reproduce": (
        *("reproduce", "paper", "--psoups", "mirror.jsonl", "--suite", "suite.jsonl", "--scale", "0.002"),
        *("--learners", "individual", "--seeds", "1", "--workers", "1", "--out", "out"),
    ),
    "bench-policy": ("bench-policy", "--learners", "bandit", "--quick", "--workers", "1", "--out", "out"),
    "bounds detector": ("bounds", "detector", "bounds/bounds.toml", *SLATES, "--part", "1/3"),
    "bounds calibrate": ("bounds", "calibrate", "bounds/bounds.toml", *SLATES, "--part", "2/3"),
    "audit": (
        *("audit", "hierarchical", "--bounds", "calibrated/bounds.toml", *SLATES, "--part", "3/3", "--tested", "200"),
        *("--recalibrations", "100", "--vectors", "100", "--out", "out"),
    ),
    "align": (
        *("align", "prefs.jsonl", "--model", "model", "--scorer", "length", "--groups", "land", "--samples", "2"),
        *("--trainer", "max_steps=1", "max_completion_length=4", "use_cpu=true", "bf16=false", "--out", "out"),
    ),
    "demo": ("demo", "--seeds", "1", "--workers", "1", "--out", "out"),
}
NOTHING = {"check", "profile", "describe", "lm"}  # commands that write to standard output only, or a cache
STORE = {"serve", "refit"}  # writes through SQLite: test_serve_store.py fills its disk


def test_every_command_that_writes_is_here():
    assert {words[0] for words in COMMANDS.values()} == cli.COMMANDS.keys() - NOTHING - STORE


def lines(path: str, rows: list[dict[str, object]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands read."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(features, "encoder", lambda name, **_: LengthEncoder())
        prefs = []
        for user in range(8):
            for at in range(20):
                texts = [f"{word} {rng.integers(1000)}" for word in ("please", "now")]
                row = dict(zip(("chosen", "rejected"), texts[:: 1 if user < 6 else -1], strict=True))
                row |= {"user_id": f"u{user}", "prompt": f"boil it {at}", "attributes": {"land": "ab"[user % 2]}}
                prefs.append(row)
        lines("prefs.jsonl", prefs)
        named = [row | {"chosen_model": "ab"[at % 2], "rejected_model": "ba"[at % 2]} for at, row in enumerate(prefs)]
        lines("battles.jsonl", named)
        lines("more.jsonl", [row | {"user_id": "new"} for row in prefs[:20]])
        mirrored = ({"uid": row["user_id"], **{k: row[k] for k in ("prompt", "chosen", "rejected")}} for row in prefs)
        lines("mirror.jsonl", list(mirrored))
        lines("asked.jsonl", [{"user_id": "u0", "prompt": "p", "response": f"r {at}"} for at in range(40)])
        lines(
            "suite.jsonl",
            [{"prompt": f"p {at}", "chosen": f"good {at}", "rejected": f"b {at}", "section": "s"} for at in range(20)],
        )
        lines(
            "slates.jsonl",
            [
                {"prompt": f"p {at}", "response": f"{'long ' * (9 if unsafe else 1)}{at}", "unsafe": unsafe}
                for at in range(240)
                for unsafe in (True, False)
            ],
        )
        lines(
            "tldr.jsonl", [tldr_row(f"w{n % 3}", n, choice=n % 2, split=("train", "valid1")[n % 2]) for n in range(60)]
        )
        table_example.folder(folder / "results", table_example.content(table_example.FIGURES, 1000), users=4)
        for name in ("hierarchical", "length"):
            assert main(["fit", "prefs.jsonl", "--learner", name, "--out", name]) == 0
        for name in ("bounds", "calibrated"):
            Path(name).mkdir()
            Path(name, "bounds.toml").write_text('[immutable]\nsafety = "safety"\nalpha = 0.2\ndelta = 0.2\n')
        for action, part in (("detector", "1/3"), ("calibrate", "2/3")):
            assert main(["bounds", action, "calibrated/bounds.toml", *SLATES, "--part", part]) == 0
        shutil.copytree("calibrated/safety", "bounds/safety")
        save_judge(folder / "model")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(features, "encoder", lambda name, **_: LengthEncoder())
    monkeypatch.setattr(grid_setup, "encoder_by_name", lambda name: LengthEncoder())
    return tmp_path / "here"


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::polypref.errors.NotConverged")
@pytest.mark.parametrize(
    ("command", "size"),
    [*((command, size) for command in COMMANDS for size in (0, 300, 3000)), ("align", 20_000), ("align", 60_000)],
)
def test_a_full_disk_is_one_line(here, command, size, capsys):
    with no_file_longer_than(size):
        code = main(list(COMMANDS[command]))
    told = capsys.readouterr().err
    assert not list(here.rglob(".*.partial"))
    if code == 0 and size > 300:
        return  # what it writes fits
    assert code == 2, told
    found = [line for line in told.splitlines() if line.startswith("polypref: error")]
    assert len(found) == 1 and "Traceback" not in told
    assert re.search(r"cannot write .*(File too large|No space left on device)\..*Free the space or ", found[0])


@pytest.mark.filterwarnings("ignore::polypref.errors.NotConverged")
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
        subprocess.run(["mount", "-o", "remount,size=8m", "out"], check=True)
        shutil.copytree("bounds", "out/bounds")
        subprocess.run(["mount", "-o", "remount,ro", "out"], check=True)
        for name, words in COMMANDS.items():
            moved = [re.sub("^out", "out/new", word) for word in words]
            assert main([word.replace("bounds/bounds", "out/bounds/bounds", 1) for word in moved]) == 2, name
            error = capsys.readouterr().err
            assert "Read-only file system. Make it writable or " in error, name
            assert "Traceback" not in error and error.count("polypref: error") == 1, name
    finally:
        subprocess.run(["umount", "out"], check=True)


@pytest.mark.parametrize("command", [name for name, words in COMMANDS.items() if "--out" in words])
def test_a_file_where_a_folder_is_needed_is_one_line(here, command, capsys):
    *words, out = COMMANDS[command]
    assert main([*words, out.replace("out", "prefs.jsonl/x", 1)]) == 2
    error = capsys.readouterr().err
    assert "cannot write prefs.jsonl/x" in error and "Not a directory" in error and "Traceback" not in error


@pytest.mark.parametrize(
    "words", [("check", "prefs.jsonl"), ("profile", "prefs.jsonl"), ("score", "length", "asked.jsonl")]
)
def test_standard_output_that_is_full_is_one_line(here, words):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "polypref", *words]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("polypref: error: cannot write standard output: No space left")
    assert found.stderr.count("\n") == 1
