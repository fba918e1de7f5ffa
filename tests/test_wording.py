"""How numbers and texts from outside are shown: one way, everywhere, with nothing in it that a terminal obeys."""

from __future__ import annotations

import ast
import html
import io
import json
import re
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from polypref import terminal
from polypref.wording import are, counted, html_text, json_text, markdown_line, markdown_text, shortened, shown, visible

SOURCE = Path(__file__).parent.parent / "src" / "polypref"
DANGEROUS = (
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),  # C0, DEL, C1
    *"\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2060\ufeff\u00ad",
    *"\u2028\u2029\ud800\udcff\ue000\U000f0000\U0010fffd\U000e0041\U000e0101\u034f\u3164\u115f\uffa0\u180e\ufff9\u0378",
)
HARMLESS = (
    "naïve Ünïcode 中文 日本語 العربية हिन्दी ไทย 한국어 ❤️ 😀 – − × “q” \u00a0\u3000 <b> [red] | ` \\ $ & % # _ { } ~ ^"
)

texts = st.text(st.characters() | st.sampled_from(DANGEROUS), max_size=30)


@pytest.mark.parametrize("character", DANGEROUS, ids=lambda c: f"U+{ord(c):04X}")
def test_what_a_terminal_obeys_or_nobody_sees_is_escaped(character):
    text = visible(f"a{character}b")
    assert character not in text and text.isprintable() and text.isascii()
    assert text[0] == "a" and text[-1] == "b"
    assert json.loads(json_text({character: character})) == {character: character}
    assert character not in json_text(character)


def test_what_people_read_stays():
    assert visible(HARMLESS) == HARMLESS
    assert json.loads(json_text(HARMLESS)) == HARMLESS and "中文" in json_text(HARMLESS)


@settings(deadline=None, max_examples=60)
@given(texts)
def test_any_text_becomes_visible_and_any_json_stays_equal(text):
    seen = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in seen)
    assert visible(seen) == seen
    assert visible(text, keep="\n").count("\n") == text.count("\n")
    written = json_text([text, {text: 1}], indent=1)
    assert json.loads(written) == [text, {text: 1}]
    assert visible(written, keep="\n") == written
    written.encode()  # also where it holds lone surrogates


def test_long_values_are_cut_and_say_how_much():
    assert (
        shown("x" * 100, 10) == f'"{"x" * 10}..."' and shown("\x1b[2J") == r'"\x1b[2J"' and shown(b"\xff") == r'"\xff"'
    )
    cut = shortened("begin" + "x" * 10_000 + "end", 100)
    assert cut.startswith("begin") and cut.endswith("end") and "9,908 characters" in cut and len(cut) < 150


@settings(deadline=None, max_examples=60)
@given(texts)
def test_whatever_is_printed_holds_no_control_character(text):
    for ascii_only in (False, True):
        code = "ascii" if ascii_only else "utf-8"
        streams = [io.TextIOWrapper(io.BytesIO(), code, how) for how in ("strict", "backslashreplace")]  # as Python's
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = streams
        try:
            terminal.out(text)
            terminal.tabbed([text, text])
            terminal.columns([text], [[text]])
            terminal.document(f"{markdown_text(text)}\n| a |\n|---|\n{markdown_line([markdown_text(text)])}")
            terminal.framed([text], [[text]])
            terminal.out_json(text)
            terminal.block(text.replace("\n", ""))
            terminal.say(text)
            with terminal.visible_warnings():
                sys.stderr.write(warnings.formatwarning(UserWarning(text), UserWarning, text, 1, text))
        finally:
            sys.stdout, sys.stderr = before
        out, err = (s.buffer.getvalue().decode() for s in streams if not s.flush())
        assert visible(out, keep="\n\t") == out and visible(err, keep="\n") == err
        assert err.count("\n") == 2


SIGNS, PIECES = "\\`*_[]()<>|~&#;!-+=$a1 \n\u202e", ("&lt;", "<b>", "](x)")
SPECIAL = st.lists(st.sampled_from([*SIGNS, *PIECES]), max_size=12).map("".join)


@settings(deadline=None, max_examples=200)
@given(SPECIAL, SPECIAL)
def test_markdown_and_html_show_just_the_text(one, other):
    """Read by parsers that are not ours: a table keeps its cells, and each holds the text and nothing else."""
    texts = [f"a{text}z" for text in (one, other)]
    row = markdown_line(map(markdown_text, texts))
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(f"| a | b |\n|---|---|\n{row}\n")
    cells = [token for token in tokens if token.type == "inline"][2:]
    found = [[(child.type, child.content) for child in cell.children] for cell in cells]
    assert {kind for cell in found for kind, _ in cell} <= {"text", "text_special"}
    assert ["".join(text for _, text in cell) for cell in found] == [visible(text) for text in texts]
    assert html.unescape(html_text(one)) == visible(one, keep="\n\t") and not set("<>\"'") & set(html_text(one))


def test_markup_in_a_name_is_a_name(capsys):
    name = "[red]Ann[/red] [link=http://evil.example]x[/link] :smile:"
    terminal.framed(["user"], [[name]])
    assert name in capsys.readouterr().out


def printing(tree: ast.AST) -> set[str]:
    """What of a module can reach a terminal past ``terminal``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.add("print")
        if isinstance(node, (ast.ImportFrom, ast.Import)):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found |= {"rich"} if any(name.split(".")[0] == "rich" for name in names) else set()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = f"{node.value.id}.{node.attr}"
            found |= {dotted} & {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "os.write"}
    return found


def test_nobody_prints_but_the_terminal():
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if ways := printing(ast.parse(path.read_text())) - ALLOWED.get(name, set()):
            found[name] = ways
    assert found == {}


ALLOWED = {
    "terminal.py": {"print", "rich", "sys.stdout", "sys.stderr"},
    "progress.py": {"rich", "sys.stderr"},  # the bar, where somebody watches
    "cli/__init__.py": {"sys.stdout", "sys.stderr"},  # flushes, closes
    "cli/settings.py": {"sys.stdout"},  # the usage line
    "cli/score.py": {"sys.stdout"},  # rows as JSON
    "runs/worker.py": {"print"},  # JSON to the parent
    "finetune/tuning.py": {"sys.stderr"},  # isatty
    "serve/running/log.py": {"os.write"},  # lines of the request log: JSON, each character escaped
}


@pytest.mark.parametrize(
    "line",
    ["print('x')", "from rich.console import Console", "import rich", "import sys; sys.stdout.write('x')"],
)
def test_a_planted_print_is_seen(line):
    assert printing(ast.parse(line))


# --- numbers and verbs


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("users", "user"), ("people", "person"), ("ties", "tie"), ("categories", "category"), ("data sets", "data set")],
)
def test_words_agree_with_their_number(plural, singular):
    for n in (0, 1, 2, 3, 10, 1000):
        assert counted(n, plural) == (f"1 {singular}" if n == 1 else f"{n:,} {plural}")
        assert are(n) == ("is" if n == 1 else "are")


def disagreeing(tree: ast.AST) -> list[int]:
    """Lines on which a text has a fixed verb behind ``counted``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, after in zip(node.values, node.values[1:], strict=False):
                call = isinstance(value, ast.FormattedValue) and ast.unparse(value.value).startswith("counted(")
                if (
                    call
                    and isinstance(after, ast.Constant)
                    and re.match(r" (are|is|were|was|have|has) ", str(after.value))
                ):
                    found.append(node.lineno)
    return found


def numbered(tree: ast.AST) -> list[int]:
    """Lines on which an OSError is printed whole: with its number, and with the path again."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type and "OSError" in ast.unparse(node.type):
            for value in ast.walk(node):
                if isinstance(value, ast.FormattedValue) and ast.unparse(value.value) == node.name:
                    found.append(value.lineno)
    return found


@pytest.mark.parametrize("rule", [disagreeing, numbered])
def test_messages_follow_the_rules(rule):
    found = {path.name: lines for path in SOURCE.rglob("*.py") if (lines := rule(ast.parse(path.read_text())))}
    assert found == {}


def test_planted_messages_are_seen():
    assert disagreeing(ast.parse("f'{counted(n, \"rows\")} are used'")) == [1]
    assert disagreeing(ast.parse("f'{counted(n, \"rows\")} {are(n)} used'")) == []
    handler = "try:\n    pass\nexcept (OSError, ValueError) as error:\n    raise X(f'no ({%s})')"
    assert numbered(ast.parse(handler % "error")) == [4]
    assert numbered(ast.parse(handler % "reason(error)")) == []


OTHER_NAMES = re.compile(r"worst[- ](served )?(tenth|10 ?%)|worst-served decile|(lowest|bottom) (tenth|decile)", re.I)


def test_the_worst_decile_has_one_name() -> None:
    root = SOURCE.parent.parent
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.j2"), *(root / "docs").rglob("*.md"), root / "README.md"]
    assert len(files) > 200
    assert [(path.name, found[0]) for path in files if (found := OTHER_NAMES.search(path.read_text("utf-8")))] == []
    assert all(OTHER_NAMES.search(text) for text in ("the worst tenth", "its worst-served decile", "worst 10 %"))
    assert not OTHER_NAMES.search("the worst decile; the worst-served group")
