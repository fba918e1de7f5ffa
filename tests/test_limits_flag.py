"""``--limits`` holds for every file from elsewhere, in every command that reads one, and stands once in its help."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from polypref.bounds.slates import read_slates
from polypref.cli import COMMANDS, main
from polypref.cli.settings import command_class
from polypref.data.benchmarks import read_suite
from polypref.data.files import textfiles
from polypref.data.files.limits import Limits
from polypref.errors import InputError

PAIR = {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}
SCORED = {"user_id": "u", "prompt": "p", "response": "x"}
LABELLED = {"prompt": "p", "response": "x", "unsafe": True}
ITEM = {"prompt": "p", "chosen": "x", "rejected": "y", "subset": "donotanswer", "section": "s"}
OWN_FILES = (
    "simulate",
    "bench-policy",
    "table",
    "forget",
    "demo",
    "serve",
    "lm",
    "describe",
)  # read nothing, or what a command wrote

READS = [  # a row, and the words of a command that reads a file of such rows
    *(
        (PAIR, name)
        for name in ("check FILE", "profile FILE", "compare FILE", "adapt FILE --out o", "fit FILE --out o")
    ),
    (PAIR, "groups FILE --out o"),
    (PAIR, "leaderboard FILE"),
    (PAIR, "align FILE --model m --scorer s --groups g"),
    (PAIR, "tax suite.jsonl --prefs FILE"),
    (PAIR, "refit --with FILE"),
    (PAIR, "check ok.jsonl --ties FILE"),
    (PAIR, "audit s --bounds b.toml --slates slates.jsonl --held-out FILE"),
    (ITEM, "tax FILE --prefs ok.jsonl"),
    (ITEM, "tax suite.jsonl --prefs ok.jsonl --sycophancy FILE"),
    (SCORED, "score s FILE"),
    (SCORED, "bounds explain b.toml --scorer s --questions FILE"),
    *((LABELLED, f"bounds {action} b.toml --slates FILE") for action in ("detector", "calibrate", "certify")),
    (LABELLED, "audit s --bounds b.toml --slates FILE"),
    (ITEM, "bounds detector b.toml --slates FILE"),
    ({"question_id": 1}, "convert arena FILE --out o.jsonl"),
    ({"question_id": 1}, "reproduce paper --tldr FILE --out o"),
    (ITEM, "reproduce paper --psoups mirror.jsonl --suite FILE --out o"),
    ({"traceId": "t", "name": "n", "value": 1, "source": "API"}, "convert langfuse FILE --out o.jsonl"),
]


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("row", "words"), READS)
def test_every_file_from_elsewhere_is_held_to_them(tmp_path, monkeypatch, capsys, row, words):
    """A long line, or a published set that is read whole, is refused by the command's own reading of that file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.toml").write_text('[immutable]\nsafety = "safety"\nalpha = 0.1\n')
    write(tmp_path / "FILE.jsonl", [row, row | {"prompt": "p" * 9000}])
    write(tmp_path / "ok.jsonl", [PAIR])
    write(tmp_path / "suite.jsonl", [ITEM])
    write(tmp_path / "slates.jsonl", [LABELLED])
    known = SimpleNamespace(bind=lambda *_: None, file=None)
    for name in ("scorers.load", "bounds.bounds_file.load_bounds"):
        monkeypatch.setattr(f"polypref.{name}", lambda *_, **__: known)
    monkeypatch.setattr("polypref.bounds.load_safety.safety_from", lambda *_: None)
    monkeypatch.setattr("polypref.bounds.bounds_file.refuse_seen", lambda *_: None)
    write(tmp_path / "mirror.jsonl", [{"uid": 1, "prompt": "p", "chosen": "x", "rejected": "y"}])
    limit = "whole_bytes" if "convert arena" in words or "--tldr" in words else "line_bytes"
    told = words.replace("FILE", "FILE.jsonl").split()
    assert main([*told, "--limits", f"{limit}=4000"]) == 2
    said = capsys.readouterr().err
    assert "FILE.jsonl" in said and re.search(rf"more than 4,000\..* --limits {limit}=NUMBER raises the limit", said)


def test_every_command_that_reads_files_is_tried_above():
    tried = {words.split()[0] for _, words in READS}
    assert tried == set(COMMANDS) - set(OWN_FILES)
    assert all("limits" in command_class(name).__dataclass_fields__ for name in tried)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in OWN_FILES])
def test_the_help_lists_them_once(name, capsys):
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.count("--limits") == 1


@pytest.mark.parametrize(("read", "row"), [(read_suite, ITEM), (read_slates, LABELLED)])
def test_files_read_whole_are_bounded(tmp_path, monkeypatch, read, row):
    monkeypatch.setattr(textfiles, "BLOCK", 4096)
    path = tmp_path / "f.jsonl"
    write(path, [row | {"prompt": f"p{n}"} for n in range(1000)])
    with pytest.raises(InputError, match=r"f\.jsonl holds at least 2.,... bytes, more than 20,000\."):
        read(str(path), limits=Limits(whole_bytes=20_000))
    assert read(str(path))


@pytest.mark.parametrize("read", [read_suite, read_slates])
def test_a_late_column_is_read_or_refused_and_never_overlooked(tmp_path, monkeypatch, read):
    monkeypatch.setattr(textfiles, "HEAD_LINES", 5)
    path = tmp_path / "f.jsonl"
    if read is read_slates:
        rows = [LABELLED | {"prompt": f"p{n}"} for n in range(9)]
        write(path, [*rows, LABELLED | {"category": "late"}])
        assert read_slates(str(path)).category_L.to_list() == [""] * 9 + ["late"]
    else:
        rows = [{name: ITEM[name] for name in ("chosen", "rejected")} | {"prompt": f"p{n}"} for n in range(9)]
        write(path, [*rows, ITEM])
        with pytest.raises(
            InputError, match=r'line 1 of /.*/f\.jsonl: "subset" is missing; expected a name in every row'
        ):
            read_suite(str(path))
