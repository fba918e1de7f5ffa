"""The last letters of an array's name say what it is indexed by: the table of CONTRIBUTING, or the head of the file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "polypref"
FIXED = set("NRPUQGHSJ")  # these have one meaning in the whole package
SUFFIXED = re.compile(r"_*[a-z]\w*_(\d?[A-Za-z]?[A-Z][A-Z\d]*[a-z]?)")
HEAD, MEANING = "Suffixes here: ", re.compile(r"``_([A-Z])`` ([^`.]*[^`., ])(?:, |\.$)")


def table(text: str) -> dict[str, str]:
    """Meanings by letter: cells `_X` and the cell that follows."""
    return dict(re.findall(r"\| `_([A-Z])` \| ([^|]+?) (?=\|)", text))


def names(tree: ast.AST) -> Iterator[str]:
    """All identifiers of a file, and all words of its strings (keys of dictionaries, saved arrays, docstrings)."""
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name", "asname"):
            if isinstance(found := getattr(node, field, None), str):
                yield found
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value)


def used(tree: ast.AST) -> dict[str, str]:
    """Letters of the suffixes, each with a name that has it. Small letters and digits are sizes, not letters."""
    found = {}
    for name in names(tree):
        if match := SUFFIXED.fullmatch(name):
            found |= dict.fromkeys(re.sub(r"[^A-Z]", "", match[1]), name)
    return found


def head(tree: ast.Module) -> dict[str, str]:
    """What the last sentence of a module's docstring says of its own letters."""
    _, found, said = (ast.get_docstring(tree) or "").rpartition(HEAD)
    if not found:
        return {}
    said = " ".join(said.split())
    meanings = MEANING.findall(said)
    assert "".join(f"``_{letter}`` {meaning}, " for letter, meaning in meanings)[:-2] + "." == said, said
    assert len(dict(meanings)) == len(meanings), said
    return dict(meanings)


def faults(source: str, known: dict[str, str]) -> list[str]:
    """What is wrong with the letters of one file, a line each."""
    tree = ast.parse(source)
    letters, own = used(tree), head(tree)
    return [
        *(f"_{x} of {letters[x]} is explained nowhere" for x in sorted(letters.keys() - own.keys() - known.keys())),
        *(f"_{x} is explained and not used" for x in sorted(own.keys() - letters.keys())),
        *(f"_{x} means {known[x]} in every file" for x in sorted(own.keys() & FIXED)),
        *(f"_{x} is explained as in CONTRIBUTING" for x in sorted(own.keys() & known.keys()) if own[x] == known[x]),
    ]


KNOWN = table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def test_the_table_is_read():
    assert KNOWN.keys() >= FIXED
    assert KNOWN["H"] == "held-out rows"
    assert KNOWN["G"] == "groups"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_suffix_is_explained(path):
    assert faults(path.read_text(encoding="utf-8"), KNOWN) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x_RO = 1", "_O of x_RO is explained nowhere"),
        ("f(x_2O=1)", "_O of x_2O is explained nowhere"),
        ("a.x_O", "_O of x_O is explained nowhere"),
        ("from m import x_O", "_O of x_O is explained nowhere"),
        ("def f(x_O): ...", "_O of x_O is explained nowhere"),
        ('def f(): "Gives ``x_O``."', "_O of x_O is explained nowhere"),
        ("{'net.x_O': 1}", "_O of x_O is explained nowhere"),
        ('"""Suffixes here: ``_O`` orders."""', "_O is explained and not used"),
        ('"""Suffixes here: ``_G`` gaps."""\nx_G = 1', "_G means groups in every file"),
        ('"""Suffixes here: ``_T`` tokens."""\nx_T = 1', "_T is explained as in CONTRIBUTING"),
    ],
)
def test_faults_are_seen(source, fault):
    assert faults(source, KNOWN) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        '"""Heads.\n\nSuffixes here: ``_O`` orders\n(as given), ``_T`` rounds.\n"""\nx_OT = y_NO1 = 1',
        "X_O = HTTP_OK = 1",
        "x_2N = split_jN = moved_Nn = 1",
        "x_one = x_2 = 1",
    ],
)
def test_what_is_explained_or_no_suffix_passes(source):
    assert faults(source, KNOWN) == []


@pytest.mark.parametrize("said", ["`_O` orders.", "``_O`` orders", "``_O`` orders, ``_O`` others.", "``_O`` a. More."])
def test_a_head_has_one_form(said):
    with pytest.raises(AssertionError):
        head(ast.parse(f'"""Suffixes here: {said}"""'))
