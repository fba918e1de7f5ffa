"""Write the generated pages: cli.md from --help, learners.md from LEARNERS, python.md from the public names.

``python docs/generate.py`` writes them again; with ``--check`` it fails, naming each page that is not up to date.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from textwrap import wrap

DOCS = Path(__file__).parent
WIDTH = "110"  # of the help texts; tyro reads it from the environment

# One runnable example of each command, each reading what those before wrote; tests/test_docs.py runs them in order.
EXAMPLES: dict[str, str] = {
    "simulate": "polypref simulate two-tastes --out prefs.jsonl",
    "check": "polypref check prefs.jsonl",
    "profile": "polypref profile prefs.jsonl",
    "compare": "polypref compare prefs.jsonl --learners pooled hierarchical --seeds 2 --out report",
    "table": "polypref table report --out tables",
    "convert": "polypref convert psoups P1A.json P1B.json --out psoups.parquet",
    "fit": "polypref fit prefs.jsonl --learner hierarchical --out scorer",
    "score": "polypref score scorer questions.jsonl --out scores.jsonl",
    "demo": "polypref demo --seeds 1 --out demo",
}


def cli_page() -> str:
    """docs/cli.md."""
    from polypref.cli import COMMANDS, overview

    parts = [
        "# The commands",
        "",
        "Written by `make docs` from `--help`. The examples run in this order, each on the files of those before;",
        "`questions.jsonl` is shown under [score](#score), `P1A.json` and `P1B.json` under [convert](#convert).",
        "",
        _block(overview()),
    ]
    for name in [*EXAMPLES, *(name for name in COMMANDS if name not in EXAMPLES)]:
        parts += ["", f"## {name}", "", f"Example: `{EXAMPLES.get(name, 'missing')}`", "", _block(help_text(name))]
        if name == "score":
            parts += ["", "`questions.jsonl`, and what `score` answers:", "", _block(QUESTIONS, "json")]
            parts += ["", _block(ANSWERS, "json")]
        if name == "convert":
            parts += ["", "`P1A.json` and `P1B.json`, two of the six files of the set:", "", _block(P1A, "json")]
            parts += ["", _block(P1B, "json")]
    return "\n".join(parts) + "\n"


class _Printed(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]  # tyro draws frames as the terminal's encoding allows


QUESTIONS = """\
{"user_id": "u0", "prompt": "How do I boil an egg?", "response": "Put it in boiling water for seven minutes."}
{"user_id": "x", "prompt": "How do I boil an egg?", "response": "It depends on how you like it."}"""
ANSWERS = """\
{"user_id": "u0", "prompt": "How do I boil an egg?", "response": "Put ...", "score": 0.41, "source": "personal"}
{"user_id": "x", "prompt": "How do I boil an egg?", "response": "It ...", "score": -0.2, "source": "population"}"""

P1A = """\
[
  {"user_input": "What is rain? Generate a response that can be easily understood by an elementary school student.",
   "completion_a": "Water that falls from clouds.", "completion_b": "Precipitated atmospheric vapour."}
]"""
P1B = """\
[
  {"user_input": "What is rain? Generate a response that only a PhD Student in that specific field could understand.",
   "completion_a": "Precipitated atmospheric vapour.", "completion_b": "Water that falls from clouds."}
]"""
FILES = {"questions.jsonl": QUESTIONS, "P1A.json": P1A, "P1B.json": P1B}  # what the examples read besides


def help_text(command: str) -> str:
    """What ``polypref COMMAND --help`` prints."""
    from polypref.cli import main

    os.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    printed = _Printed()
    with redirect_stdout(printed):
        code = main([command, "--help"])
    assert code == 0, f"polypref {command} --help exits with {code}"
    lines = [line.rstrip() for line in printed.getvalue().strip().splitlines()]
    return "\n".join("\n".join(wrap(line, int(WIDTH))) if len(line) > int(WIDTH) else line for line in lines)


def learners_page() -> str:
    """docs/learners.md."""
    from polypref.learners import LEARNERS

    parts = [
        "# The learners",
        "",
        "Written by `make docs` from `polypref.learners.LEARNERS`, whose settings `compare` and `fit` use.",
        "",
        "| name | what it is | settings |",
        "|---|---|---|",
    ]
    files: dict[str, str] = {}  # file name -> its docstring; learners of one file share a section
    for name, learner in LEARNERS.items():
        source = inspect.getmodule(type(learner))
        assert source is not None
        file = source.__name__.rsplit(".", 1)[-1].replace("_", "-")
        files[file] = inspect.getdoc(source) or ""
        settings = ", ".join(f"`{f.name}={getattr(learner, f.name)!r}`" for f in fields(learner))  # type: ignore[arg-type]
        parts.append(f"| [`{name}`](#{file}) | {_first_line(source)} | {settings or 'none'} |")
    for file, text in files.items():
        parts += ["", f"## {file}", "", _block(text)]
    return "\n".join(parts) + "\n"


def python_page() -> str:
    """docs/python.md."""
    import polypref

    example = (DOCS.parent / "examples" / "five_lines.py").read_text()
    parts = [
        "# The same in Python",
        "",
        "Written by `make docs` from the public names of `polypref`. They are imported when first used.",
        "",
        _block(example.split('"""', 2)[2].strip(), "python"),
        "",
        "| name | module | what it is |",
        "|---|---|---|",
    ]
    for name, module in polypref.PUBLIC.items():
        value = getattr(polypref, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            what = _first_line(value)
        else:
            what = ", ".join(f"`{key}`" for key in value)
        parts.append(f"| `{name}` | `{module}` | {what} |")
    return "\n".join(parts) + "\n"


def published_page() -> str:
    """docs/published.md."""
    from polypref.data.published import PUBLISHED

    parts = [
        "# Published sets",
        "",
        "Written by `make docs` from `polypref.data.published`. `polypref convert NAME FILE... --out FILE` brings a",
        "set's own files, from disk or `hf://datasets/...`, to a preference file that `check`, `profile` and `compare`",
        "read, and prints how many rows were left out, why, and what to know before using it. No set comes with",
        "polypref, and each keeps its own licence. The adapters are tested on small files in the published shape.",
        "",
        "| name | what it is | settings |",
        "|---|---|---|",
    ]
    for name, adapter in PUBLISHED.items():
        source = inspect.getmodule(adapter)
        assert source is not None
        settings = ", ".join(f"`--{f.name} {_shown(f.default)}`" for f in fields(adapter))  # type: ignore[arg-type]
        parts.append(f"| [`{name}`](#{name}) | {_first_line(source)} | {settings or 'none'} |")
    for name, adapter in PUBLISHED.items():
        parts += ["", f"## {name}", "", _block(inspect.getdoc(inspect.getmodule(adapter)) or "")]
    return "\n".join(parts) + "\n"


def _shown(default: object) -> str:
    return str(default) if default not in ((), "") else "..."


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "learners.md": learners_page,
    "published.md": published_page,
    "python.md": python_page,
}


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def main(arguments: list[str]) -> int:
    """Write or check every page; returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(f"docs/{name}")
    if stale:
        print(f"not up to date: {', '.join(stale)}. Run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
