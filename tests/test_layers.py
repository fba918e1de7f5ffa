"""Imports point downward only; packages of one floor do not import each other. CONTRIBUTING.md shows the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"

FLOORS: dict[int, str] = {
    12: "cli testing",
    11: "report serve studies",
    10: "align newcomers tax experiments leaderboard",
    9: "evaluation bounds groups forgetting traits",
    8: "scorers",
    7: "finetune",
    6: "learners",
    5: "judges runs",
    4: "features profiling policy",
    3: "data worlds",
    2: "artifact stats http progress comparisons",
    1: "answers arguments files regular_files terminal strict_json strict_toml schema content control_tokens "
    "network_access notebook",
    0: "errors wording",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
TOP = ("__init__", "__main__")  # the public names and the command stand above everything; nothing imports them

# Top-level modules named like a public function would replace it once they are loaded.
RESERVED = {"load", "read", "save", "lint", "clean", "encoder", "simulate", "fit", "compare", "profile", "forget"}


def module_name(path: Path) -> str:
    names = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imported(tree: ast.AST, path: Path, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of each import anywhere in a file, including those within functions and those named in strings."""
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base
        elif isinstance(node, ast.Constant) and node.value in modules and node.value != "polypref":
            yield node.lineno, node.value


def package_of(module: str) -> str:
    """``polypref.learners.pooled`` -> ``learners``; the root itself is ``__init__``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def violations(path: Path, text: str, modules: frozenset[str]) -> list[str]:
    importer = module_name(path)
    package = package_of(importer)
    if package in TOP:
        return []
    found = []
    for line, target in imported(ast.parse(text), path, modules):
        if target.split(".")[0] != "polypref":
            continue
        other = package_of(target)
        where = f"{path.relative_to(SOURCE)}:{line}: {importer} imports {target}"
        if package not in FLOOR or other not in FLOOR:
            found.append(f"{where}, and {importer if package not in FLOOR else target} is not in the table")
        elif package != other and FLOOR[package] <= FLOOR[other]:
            found.append(f"{where}, from floor {FLOOR[package]} to floor {FLOOR[other]}")
    return found


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = frozenset(map(module_name, FILES))


def circles(files: dict[Path, str]) -> list[str]:
    """Modules that import one another, directly or through others; a package's ``__init__`` is no module here, since a
    name taken from it is a name of the module that defines it."""
    modules = frozenset(map(module_name, files))
    arrows = {
        module_name(path): {
            target
            for _, target in imported(ast.parse(text), path, modules)
            if target in modules and target != module_name(path)
        }
        for path, text in files.items()
        if path.name != "__init__.py"
    }
    found, done, stack = [], set(), []

    def visit(module: str) -> None:
        if module in stack:
            found.append(" -> ".join([*stack[stack.index(module) :], module]))
            return
        if module in done:
            return
        stack.append(module)
        for target in sorted(arrows.get(module, ())):
            visit(target)
        stack.pop()
        done.add(module)

    for module in arrows:
        visit(module)
    return found


def test_every_import_points_downward():
    assert len(FILES) >= 10
    found = [v for path in FILES for v in violations(path, path.read_text(), MODULES)]
    assert not found, "\n".join(found)


def test_no_module_imports_itself_through_others():
    assert not circles({path: path.read_text() for path in FILES})


def test_a_planted_circle_is_seen():
    texts = {"a": "from polypref.data import b", "b": "from polypref.data.c import x", "c": "import polypref.data.a"}
    planted = {SOURCE / f"polypref/data/{name}.py": text for name, text in texts.items()}
    assert circles(planted) == ["polypref.data.a -> polypref.data.b -> polypref.data.c -> polypref.data.a"]


def test_no_package_takes_the_place_of_a_public_function():
    import polypref

    names = {path.stem for path in (SOURCE / "polypref").iterdir()}
    assert not names & (RESERVED | set(polypref.PUBLIC))


def test_the_page_shows_this_table():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = {int(floor): names.split() for floor, names in re.findall(r"(?m)^ ?(\d+)  ([a-z_ ]+)$", page)}
    assert shown == {floor: names.split() for floor, names in FLOORS.items()}


def test_the_files_of_the_reading_guide_are_there():
    guide = (ROOT / "CONTRIBUTING.md").read_text().partition("### Reading the house")[2].partition("\nBudgets")[0]
    named = re.findall(r"(?m)\| `([a-z_/]+\.py)` \|$", guide)
    assert len(named) >= 10
    assert [name for name in named if not (SOURCE / "polypref" / name).is_file()] == []


def test_the_arrows_are_seen():
    """The parser finds imports that are known to be there."""
    path = SOURCE / "polypref/learners/protocol.py"
    assert {"polypref.comparisons", "polypref.features.protocol"} <= {
        target for _, target in imported(ast.parse(path.read_text()), path, MODULES)
    }


@pytest.mark.parametrize(
    ("path", "planted"),
    [
        ("data/read.py", "import polypref.learners.protocol"),
        ("data/read.py", "from polypref.worlds import people"),  # the same floor
        ("data/read.py", "from ..features.protocol import Encoder"),
        ("learners/x.py", "def fit():\n    from polypref.evaluation import compare"),
        ("learners/x.py", "from polypref.finetune import LEARNERS"),
        ("learners/x.py", "if TYPE_CHECKING:\n    from polypref import cli"),
        ("learners/x.py", "MODULE = 'polypref.evaluation'"),
        ("learners/x.py", "from polypref import read"),
        ("learners/x.py", "from polypref import __version__"),
        ("groups/x.py", "from polypref.align import align"),
        ("bounds/x.py", "from polypref.evaluation.cells import Cell"),
        ("stats/x.py", "from polypref.artifact import save"),
        ("comparisons.py", "from polypref.artifact import save"),
        ("elsewhere.py", "from polypref.errors import PolyprefError"),  # not in the table at all
    ],
)
def test_a_planted_arrow_is_caught(path, planted):
    assert len(violations(SOURCE / "polypref" / path, planted, MODULES)) == 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("data/read.py", "from polypref.errors import InputError\nimport polars, polyprefix"),
        ("learners/x.py", "from polypref.features.protocol import Encoder\nfrom polypref.learners import protocol"),
        ("finetune/x.py", "from polypref.learners import validation\nfrom polypref.learners.protocol import Scorer"),
        ("cli/x.py", "from polypref.evaluation import compare"),
        ("policy/trl.py", "from polypref.policy.history import History"),
    ],
)
def test_a_downward_arrow_is_not(path, allowed):
    assert violations(SOURCE / "polypref" / path, allowed, MODULES) == []
