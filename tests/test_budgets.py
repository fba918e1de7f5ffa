"""Budgets that keep the code readable: file <= 400 lines, function <= 60, signature <= 7; importing does nothing.

When a file outgrows its budget, split it along the domain, not along the line count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 7
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "model2vec", "plotly", "scipy.stats")

FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

ASSIGN = (ast.Assign, ast.AnnAssign, ast.AugAssign)
SETUP = (ast.Import, ast.ImportFrom, *ASSIGN, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assert)


def over_budget(where: str, text: str) -> Iterator[str]:
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{where}: {lines} lines, at most {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            yield f"{where}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len(named) - (bool(named) and named[0].arg in ("self", "cls"))
        if count > PARAMETERS:
            yield f"{where}:{node.lineno}: {node.name} has {count} parameters, at most {PARAMETERS}"


def side_effects(where: str, text: str) -> Iterator[str]:
    """Statements at the top of a module that do something when it is imported."""
    for node in ast.parse(text).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        optional = isinstance(node, ast.Try) and all(isinstance(inner, ast.ImportFrom) for inner in node.body)
        if not (isinstance(node, SETUP) or docstring or guard or optional):
            yield f"{where}:{node.lineno}: {type(node).__name__} runs on import"


def test_files_functions_and_signatures_are_within_budget():
    assert len(FILES) >= 10
    found = [v for path in FILES for v in over_budget(str(path.relative_to(ROOT)), path.read_text())]
    assert not found, "\n".join(found)


def test_modules_do_nothing_when_imported():
    sources = [path for path in FILES if path.is_relative_to(ROOT / "src")]
    found = [v for path in sources for v in side_effects(str(path.relative_to(ROOT)), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("planted", "count"),
    [
        ("x = 1\n" * 401, 1),
        ("x = 1\n" * 400, 0),
        ("def f():\n" + "    x = 1\n" * 60, 1),
        ("def f():\n" + "    x = 1\n" * 59, 0),
        ("class C:\n    async def f(self):\n" + "        x = 1\n" * 60, 1),
        ("def f(a, b, c, d, e, f, g, h): ...\n", 1),
        ("class C:\n    def f(self, a, b, c, /, d, *, e, f, g): ...\n", 0),
        ("class C:\n    def f(self, a, b, c, /, d, *, e, f, g, h): ...\n", 1),
    ],
)
def test_a_planted_excess_is_caught(planted, count):
    assert len(list(over_budget("planted.py", planted))) == count


@pytest.mark.parametrize(
    "planted", ["try: f()\nexcept E: pass", "print('hello')", "for x in y: pass", "with a: pass", "if DEBUG: x = 1"]
)
def test_a_planted_side_effect_is_caught(planted):
    assert len(list(side_effects("planted.py", f'"""Doc."""\nimport os\n{planted}\n'))) == 1


def heavy_after(statement: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_no_module_loads_a_heavy_package_when_imported():
    # these may: what they extend is TRL's and verl's
    names = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.is_relative_to(ROOT / "src")
        and path.name not in ("__main__.py", "trl.py", "trl_bounded.py", "verl.py")
        and path.relative_to(ROOT / "src") != Path("polypref/policy/trainer.py")
    ]
    assert len(names) >= 10
    assert heavy_after("\n".join(f"import {name}" for name in names)) == []


def test_a_heavy_import_would_be_seen():
    assert heavy_after("import scipy.stats") == ["scipy.stats"]
