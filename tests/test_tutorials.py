"""The tutorials run: their commands are the examples of docs/cli.md, which a test runs, or are run here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from polypref.cli import main
from test_docs import ROOT, generate, load

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
RUN_HERE = ("chat_log",)


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in one language, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every command line of a tutorial, in order."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_is_run_somewhere(page):
    examples = {part for example in generate.EXAMPLES.values() for part in example.split(" && ")}
    examples |= set(generate.PREPARE.values())
    assert len(commands(page)) >= 3
    if page.stem not in RUN_HERE:
        assert [line for line in commands(page) if line not in examples] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_tutorial_runs(name, tmp_path, monkeypatch, one_core, capsys):
    """Its commands, on a third of its log."""
    monkeypatch.chdir(tmp_path)
    for line in commands(ROOT / "docs" / "tutorials" / f"{name}.md"):
        program, *arguments = shlex.split(line)
        if program == "python":
            script, *rest = arguments
            (table,) = rest
            load(ROOT / script).rows().gather_every(3).write_csv(table)
        else:
            assert program == "polypref"
            assert main(arguments) == 0, f"{line}: {capsys.readouterr().err}"


def test_the_files_that_tutorials_show_are_those_of_the_examples():
    shown = blocks(ROOT / "docs" / "tutorials" / "reward_models.md", "json")
    assert [block.strip() for block in shown] == [generate.QUESTIONS]
    shown = blocks(ROOT / "docs" / "tutorials" / "bounds.md", "toml")
    assert [block.strip() for block in shown] == [generate.BOUNDS]


def test_the_python_of_a_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "two-tastes", "--users", "8", "--judgements", "20", "--out", "prefs.jsonl"]) == 0
    assert main(["fit", "prefs.jsonl", "--learner", "individual", "--out", "scorer"]) == 0
    capsys.readouterr()
    (code,) = blocks(ROOT / "docs" / "tutorials" / "reward_models.md", "python")
    exec(compile(code, "reward_models.md", "exec"), {})
    assert capsys.readouterr().out
