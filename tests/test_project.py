"""The project's own files agree: what is declared is what is imported, and what is pinned is what is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.split(r"[\s\[<>=!~;]", name, maxsplit=1)[0].replace("_", "-").lower()


CORE = {normal(name) for name in PROJECT["dependencies"]}
EXTRAS = {extra: {normal(name) for name in names} for extra, names in PROJECT["optional-dependencies"].items()}


NAMED = {"jwt": "pyjwt"}  # packages with another name than their module


def third_party(text: str) -> Iterator[str]:
    """Packages of others that a file imports anywhere."""
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            top = name.split(".")[0]
            if top and top != "polypref" and top not in sys.stdlib_module_names:
                yield normal(NAMED.get(top, top))


IMPORTED = {name for path in (ROOT / "src").rglob("*.py") for name in third_party(path.read_text())}


def test_the_parser_sees_imports_within_functions():
    assert set(third_party("import os, a.b\ndef f():\n    from c_d import e\n    from . import g\n")) == {"a", "c-d"}
    assert {"numpy", "polars", "torch"} <= IMPORTED


ENGINES = {"verl"}  # wants an environment of its own, with other versions than the extras'


def test_what_is_imported_is_declared():
    users = set().union(*(names for extra, names in EXTRAS.items() if extra != "dev"))
    assert IMPORTED - CORE - users == ENGINES


def test_what_is_declared_is_imported():
    assert IMPORTED >= CORE


def test_every_declared_package_is_pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    pinned = {normal(line) for line in lines}
    declared = CORE.union(*EXTRAS.values())
    assert declared - pinned == set()


def test_the_version_is_said_once_more_only_in_the_package():
    from polypref import __version__

    assert PROJECT["version"] == __version__


def test_the_tests_that_make_quick_names_are_there():
    line = re.search(r"^QUICK := (.*)$", (ROOT / "Makefile").read_text().replace("\\\n", ""), flags=re.MULTILINE)
    assert line is not None and len(names := line[1].split()) >= 10
    assert [name for name in names if not (ROOT / "tests" / f"{name}.py").is_file()] == []
