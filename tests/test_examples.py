"""The examples of docs/cli.md run as they stand, on smaller worlds than the ones a user gets."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from polypref import worlds
from polypref.cli import COMMANDS, main
from polypref.studies.policy.arms import QUICK
from test_docs import ROOT, generate

ALONE = ("demo", "bench-policy")  # read nothing that others wrote
ENDLESS = ("serve", "refit")  # run until stopped, or on what a server stored: test_serve_cli.py, test_serve_refit.py


def test_every_command_has_an_example():
    assert set(generate.EXAMPLES) == set(COMMANDS)
    page = (ROOT / "docs" / "cli.md").read_text()
    assert all(f"Example: `{example}`" in page for example in generate.EXAMPLES.values())


@pytest.fixture
def small(tmp_path, monkeypatch, one_core):
    """Few people who judge little, and short runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worlds, "simulate", partial(worlds.simulate, users=12, judgements=24))
    monkeypatch.setitem(QUICK, "language model", replace(QUICK["language model"], steps=4))


def run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in generate.EXAMPLES[name].split(" && "):
        program, *arguments = shlex.split(command)
        assert program == "polypref"
        assert main(arguments) == 0, f"{name}: {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_an_example_that_reads_nothing_runs(name, small, capsys):
    run(name, capsys)


@pytest.mark.slow
def test_the_examples_run(small, monkeypatch, capsys):
    """The others in the page's order, each on what those before have written."""
    for name, text in generate.FILES.items():
        Path(name).write_text(text + "\n")
    for name in [name for name in generate.EXAMPLES if name not in (*ALONE, *ENDLESS)]:
        if name in generate.PREPARE:
            program, script, *arguments = shlex.split(generate.PREPARE[name])
            assert program == "python"
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(str(ROOT / script), run_name="__main__")
        run(name, capsys)
    answers = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    shown = [json.loads(line) for line in generate.ANSWERS.splitlines()]
    assert [a["user_id"] for a in answers] == [s["user_id"] for s in shown]
    assert [a["source"] for a in answers] == [s["source"] for s in shown]
    assert [set(a) for a in answers] == [set(s) for s in shown]
