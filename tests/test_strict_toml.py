"""TOML from elsewhere costs little, and is one line where it cannot be used."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from random import Random

import pytest

from polypref.bounds.bounds_file import read_bounds
from polypref.cli import main
from polypref.cli.align import settings_from
from polypref.errors import SettingsError
from polypref.strict_toml import DEEPEST, loads

MANY = 100_000
HOSTILE = {
    "dotted key": "a." * MANY + "a=1",
    "spaced and quoted": "\"a\" . 'b'. " * MANY + "a=1",
    "header": "[" + "a." * MANY + "a]",
    "list header": "[[" + "a." * MANY + "a]]",
    "in a table": "a={b=1," + "a." * MANY + "a=1}",
    "after four quotes": 'a = {b = """x"""", ' + "a." * MANY + 'a=1, c="x"}',
    "after an escape": 'a = {b = "\\\\", ' + "a." * MANY + 'a=1, c="x"}',
    "after a literal": "a = {b = '\\', " + "a." * MANY + "a=1, c='x'}",
    "after a quote in a comment": '# """\n' + "a." * MANY + "a=1",
    "lists": "a = " + "[" * MANY,
    "tables": "a = " + "{a=" * MANY,
    "hexadecimal": "a = 0x" + "f" * 4000,
    "decimal": "a = " + "9" * 5000,
    "64 bits": "a = [[1, {b = 9223372036854775808}]]",
    "quotes": '"""\\' * MANY,
    "one quote": '"\\' * MANY,
    "a list without end": "a = [" + "1," * 1000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_would_cost_much_is_one_line_at_once(tmp_path: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    started = time.perf_counter()
    path = tmp_path / "bounds.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as told:
        loads(text)
    assert "\n" not in str(told.value) and len(str(told.value)) < 200
    with pytest.raises(SettingsError, match="is not TOML"):
        read_bounds(path)
    assert main(["check", "x.jsonl", "--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    settings_from(("a=1", f"b={text[:100]}"))
    assert time.perf_counter() - started < 5


def test_large_values_are_told_where_they_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, text in (("alpha", "0x" + "f" * 4000), ("alpha", "0b" + "1" * 60_000), ("cap", "9" * 5000)):
        (tmp_path / "b.toml").write_text(f'[immutable]\nsafety = "s"\n{name} = {text}\n')
        with pytest.raises(SettingsError, match=r"is not TOML: .*(whole|huge) number"):
            read_bounds(tmp_path / "b.toml")
        (tmp_path / "c.toml").write_text(f"[fit]\nseed = {text}\n")
        assert main(["fit", "x.jsonl", "--config", str(tmp_path / "c.toml")]) == 2
        assert "is not TOML" in capsys.readouterr().err


PARTS = ("a", '"b.c"', "'d.e'", '"\\"."', "1", "-", '"#"', "' \" '")
VALUES = (
    "1.5",
    "-9223372036854775808",
    '"a.b.c.d"',
    "'[{'",
    '"""x\n.[ ""\\""""""',
    "'''\n[.'''''",
    "1979-05-27T07:32:00.999",
    '"\\\\"',
    '""',
    "''",
    '"""' + "." * 99 + '"""',
    '"' + "a." * 99 + '"',
)


def drawn(draw: Random, deep: int = 0) -> str:
    if deep < 5 and draw.random() < 0.4:
        inner = [drawn(draw, deep + 1) for _ in range(draw.randrange(4))]
        if draw.random() < 0.5:
            return "[" + ", # ].]\n".join(inner) + "]"
        return "{" + ", ".join(f"k{n} = {one}" for n, one in enumerate(inner) if "\n" not in one) + "}"
    return draw.choice(VALUES)


def test_ordinary_documents_are_read_as_tomllib_reads_them() -> None:
    read = 0
    for seed in range(400):
        draw = Random(seed)
        lines = []
        for n in range(draw.randrange(1, 9)):
            key = " . ".join([f"k{n}", *draw.choices(PARTS, k=draw.randrange(DEEPEST))])
            lines.append(f"[{key}]" if draw.random() < 0.2 else f"{key} = {drawn(draw)} # {'a.' * 30} '''")
        text = "\n".join(lines)
        try:
            expected = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            with pytest.raises(ValueError):
                loads(text)
            continue
        assert loads(text) == expected
        read += 1
    assert read > 200


def test_the_longest_key_and_one_more() -> None:
    key = ".".join("a" * DEEPEST)
    assert loads(f"{key} = 1") == tomllib.loads(f"{key} = 1")
    with pytest.raises(ValueError, match="more than 16 parts"):
        loads(f"{key}.a = 1")
    assert loads("a = " + "[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match="more than 16 levels"):
        loads("a = [" + "[" * DEEPEST + "]" * DEEPEST + "]")
