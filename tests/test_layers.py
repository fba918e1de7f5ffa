"""Imports point downward only; siblings do not import each other. The table is CONTRIBUTING.md's, held as data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

LAYERS: dict[int, tuple[str, ...]] = {
    7: ("polypref", "polypref.__main__"),  # the public names; below, only its __version__ may be imported
    6: ("polypref.cli", "polypref.serve"),
    5: ("polypref.report", "polypref.policy.align"),
    4: ("polypref.evaluation", "polypref.bounds", "polypref.policy.groups", "polypref.policy.rewards"),
    3: ("polypref.learners", "polypref.finetune", "polypref.profile", "polypref.policy.bounded_trainer"),
    2: ("polypref.data", "polypref.features", *(f"polypref.policy.{name}" for name in ("trainer", "slime", "verl"))),
    1: ("polypref.comparisons", "polypref.artifact", "polypref.policy"),
    0: ("polypref.errors",),
}
# The one exception among siblings: finetune keeps the learners' contract, and numbers and cuts rows as they do.
CONTRACT = {f"polypref.learners.{name}" for name in ("protocol", "numbering", "validation")}
LEVEL = {part: level for level, parts in LAYERS.items() for part in parts}


def part_of(module: str) -> str | None:
    """The part of the table that a module belongs to: its longest prefix there, the root only by its own name."""
    prefix = module
    while prefix not in LEVEL:
        prefix, dot, _ = prefix.rpartition(".")
        if not dot:
            return None
    return prefix if prefix != "polypref" or module == "polypref" else None


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
                if (base, alias.name) != ("polypref", "__version__"):
                    yield node.lineno, inner if inner in modules else base
        elif isinstance(node, ast.Constant) and node.value in modules and node.value != "polypref":
            yield node.lineno, node.value


def violations(path: Path, text: str, modules: frozenset[str]) -> list[str]:
    importer = module_name(path)
    part = part_of(importer)
    found = []
    for line, target in imported(ast.parse(text), path, modules):
        if target.split(".")[0] != "polypref":
            continue
        other = part_of(target)
        if part == "polypref.finetune" and target in CONTRACT:
            continue
        where = f"{path.relative_to(SOURCE)}:{line}: {importer} imports {target}"
        if part is None or other is None:
            found.append(f"{where}, and {importer if part is None else target} is not in the layer table")
        elif part != other and LEVEL[part] <= LEVEL[other]:
            found.append(f"{where}, from layer {LEVEL[part]} to layer {LEVEL[other]}")
    return found


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = frozenset(map(module_name, FILES))


def test_every_import_points_downward():
    assert len(FILES) >= 10
    found = [v for path in FILES for v in violations(path, path.read_text(), MODULES)]
    assert not found, "\n".join(found)


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
        ("data/read.py", "from polypref.features import protocol"),  # a sibling
        ("data/read.py", "from ..features.protocol import Encoder"),
        ("learners/x.py", "def fit():\n    from polypref.evaluation import compare"),
        ("learners/x.py", "from polypref.finetune import METHODS"),
        ("finetune/x.py", "from polypref.learners import LEARNERS"),
        ("learners/x.py", "if TYPE_CHECKING:\n    from polypref import cli"),
        ("learners/x.py", "MODULE = 'polypref.evaluation'"),
        ("learners/x.py", "from polypref import read"),
        ("policy/groups.py", "from polypref.policy.align import align"),
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
        ("cli/x.py", "from polypref import __version__\nfrom polypref.evaluation import compare"),
        ("policy/trainer.py", "from polypref.policy.history import History"),
    ],
)
def test_a_downward_arrow_is_not(path, allowed):
    assert violations(SOURCE / "polypref" / path, allowed, MODULES) == []
