"""The dispatcher: fast help, one-line errors with their exit codes, settings from flags and TOML alike."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from polypref import __version__, simulate
from polypref.cli import COMMANDS, main, settings
from polypref.errors import InputError, SettingsError
from polypref.runs.settings import Quiet


@dataclass(frozen=True)
class Fake(Quiet):
    """Do nothing in particular."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files."""
    sizes: tuple[int, ...] = ()
    """Sizes."""
    seed: int = 0
    """Seed."""
    columns: tuple[str, ...] = ()
    """Mapping."""
    fast: bool = False
    """Hurry."""


@dataclass(frozen=True)
class Needy:
    """Has a setting without a default."""

    out: Path
    """Where."""
    seed: int = 0
    """Seed."""


LEARNING = ("torch", "transformers", "tokenizers", "sklearn", "model2vec", "accelerate", "peft", "trl", "httpx")
TABLES = ("polars", "numpy", "scipy", "rich", "msgspec", "filelock", "safetensors")


def loaded_by(code: str, names: tuple[str, ...]) -> tuple[str, list[str]]:
    """What a fresh interpreter prints, and which of ``names`` it has loaded in the end."""
    code = f"import sys; from polypref.cli import main\n{code}\n"
    code += f"print('loaded:', *[name for name in {names} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    said, _, found = shown.rpartition("loaded:")
    return said, found.split()


def test_help_loads_nothing_heavy():
    said, found = loaded_by("assert main(['--help']) == 0", (*LEARNING, *TABLES, "tyro", "asyncio"))
    assert found == []
    assert all(f"  {name}" in said for name in COMMANDS)


def test_the_help_of_no_command_loads_what_computes():
    said, found = loaded_by(f"for name in {[*COMMANDS]}: assert main([name, '--help']) == 0", (*LEARNING, *TABLES))
    assert found == []
    assert all(f"polypref {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("name", ["check", "profile"])
def test_reading_and_describing_load_nothing_that_learns(name, tmp_path):
    """Nor the slow parts of SciPy; ``scipy.special`` and the graphs of ``scipy.sparse`` are what they compute with.

    MiniLM's tokenizer, without its network, says which texts are longer than the encoder reads.
    """
    file = tmp_path / "prefs.parquet"
    simulate("two-tastes", seed=0, users=8, judgements=20).table().write_parquet(file)
    slow = ("scipy.stats", "scipy.optimize", "scipy.ndimage", "scipy.interpolate", "scipy.integrate")
    learning = [one for one in LEARNING if one != "tokenizers"]
    said, found = loaded_by(f"assert main([{name!r}, {str(file)!r}]) == 0", (*learning, *slow))
    assert said and found == []
    _, found = loaded_by(f"import scipy.stats; assert main([{name!r}, {str(file)!r}]) == 0", (*learning, *slow))
    assert found == [*slow], "what is loaded is seen"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"polypref {__version__}\n"


def test_no_command_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage: polypref" in capsys.readouterr().err


def test_unknown_command_names_the_nearest(capsys):
    assert main(["comparre"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "unknown command 'comparre'. Did you mean 'compare'?" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_each_setting(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: polypref {name}" in shown
    assert f"--config FILE reads settings from the table [{name}] of a TOML file" in shown
    cls = settings.command_class(name)
    assert (cls.__doc__ or "").strip().split("\n")[0] in shown
    for field in cls.__dataclass_fields__:  # type: ignore[attr-defined]
        assert tyro_help(cls, field), f"{name}: setting {field} has no help"


@pytest.mark.parametrize("setting", ["files", "ties", "columns", "encoder", "seed"])
def test_a_setting_is_written_the_same_way_in_every_command(setting):
    classes = [settings.command_class(name) for name in COMMANDS]
    found = {
        cls.__name__: str(typing.get_type_hints(cls, include_extras=True)[setting])
        for cls in classes
        # score, serve and describe: named at fit; convert reads other files, and its settings default to its set's
        if setting in cls.__dataclass_fields__ and cls.__name__ not in ("Score", "Serve", "Describe", "Convert")
    }
    assert len(found) >= 2
    assert len(set(found.values())) == 1, found


def tyro_help(cls: type, setting: str) -> str | None:
    """The help of a setting: its docstring, or that of the shared annotation."""
    annotation = typing.get_type_hints(cls, include_extras=True)[setting]
    shared = [getattr(part, "help", None) for part in getattr(annotation, "__metadata__", ())]
    return next(filter(None, shared), None) or tyro._docstrings.get_field_docstring(cls, setting, ())


def run_fake(monkeypatch: pytest.MonkeyPatch, run: Callable[[Fake], int], *arguments: str) -> int:
    monkeypatch.setattr(settings, "command_class", lambda name: type("Fake", (Fake,), {"run": run}))
    return main(["demo", *arguments])


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (InputError("line 4 of x:\n  bad\n"), 2, "polypref: error: line 4 of x: bad\n"),
        (KeyboardInterrupt(), 130, "polypref: interrupted; run the same command again to resume.\n"),
    ],
)
def test_an_error_is_one_line_and_a_code(monkeypatch, capsys, raised, code, line):
    def run(self):
        raise raised

    assert run_fake(monkeypatch, run) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", line)


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_fake(monkeypatch, lambda self: 1 // 0)


def test_exit_code_of_the_command_is_returned(monkeypatch):
    assert run_fake(monkeypatch, lambda self: 1) == 1


@pytest.mark.skipif(os.name != "posix", reason="skipped: needs a POSIX shell's pipe")
def test_a_reader_that_leaves_is_no_error():
    code = "import polypref.cli as c; c.overview = lambda: 'x' * 10_000_000; raise SystemExit(c.main(['--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sises", "1"], ["Unrecognized options: --sises", "Did you mean --sizes?"]),
        (["--sizes", "many"], ["--sizes: expected a whole number each, found 'many'."]),
        (["--seed", "two"], ["--seed: expected a whole number, found 'two'."]),
        (["--seed", "2.5"], ["--seed: expected a whole number, found '2.5'."]),
        (["--config"], ["--config needs a file"]),
        (["--config", "absent.toml"], ["absent.toml", "No such file"]),
    ],
)
def test_a_bad_flag_is_one_short_line(monkeypatch, capsys, arguments, words):
    assert run_fake(monkeypatch, lambda self: 0, *arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 300
    assert all(word in err for word in words)
    assert not set("╭│─╰") & set(err)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("colour", [True, False])
def test_a_bad_flag_is_one_line_on_every_terminal(monkeypatch, capsys, encoding, colour):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal.isatty = lambda: colour  # type: ignore[method-assign]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run_fake(monkeypatch, lambda self: 0, "--sizes", "many") == 2
    assert capsys.readouterr().err == (
        "polypref: error: polypref demo: --sizes: expected a whole number each, found 'many'.\n"
    )


def test_flags_and_toml_give_the_same_settings(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        '[fake]\nfiles = ["a", "b c"]\nsizes = [10, 20]\nfast = true\ncolumns = {user_id = "who", chosen = "better"}\n'
    )
    flags = ["a", "b c", "--sizes", "10", "20", "--fast", "--columns", "user_id=who", "chosen=better"]
    columns = ("user_id=who", "chosen=better")
    expected = Fake(("a", "b c"), (10, 20), columns=columns, fast=True)
    assert settings.parse(Fake, "fake", flags) == expected
    assert settings.parse(Fake, "fake", ["--config", str(config)]) == expected
    assert settings.parse(Fake, "fake", [f"--config={config}", "--sizes", "5", "--no-fast"]) == Fake(
        ("a", "b c"), (5,), columns=columns
    )


def test_a_required_setting_may_come_from_either(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("[needy]\nseed = 3\n")
    assert settings.parse(Needy, "needy", ["--config", str(config), "--out", "x"]) == Needy(Path("x"), 3)
    with pytest.raises(SettingsError, match="out"):
        settings.parse(Needy, "needy", ["--config", str(config)])
    config.write_text("[needy]\nout = 'y'\n")
    assert settings.parse(Needy, "needy", ["--config", str(config)]) == Needy(tmp_path / "y"), "beside the file"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fake]\nsizes = ['many']", ["run.toml, [fake] sizes = ['many']: expected a whole number each"]),
        ("[fake]\nseed = 'two'", ["run.toml, [fake] seed = 'two': expected a whole number, found 'two'."]),
        ("[fake]\nseed = [1, 2]", ["run.toml, [fake] seed = [1, 2]: one value too many: 2"]),
        ("[fake]\nsises = [1]", ["unknown setting", "Did you mean 'sizes'?"]),
        ("[other]\nsizes = [1]", ["no table [fake]", "found: other"]),
        ("[fake\n", ["is not TOML"]),
    ],
)
def test_a_bad_settings_file_is_one_error(tmp_path, text, words):
    config = tmp_path / "run.toml"
    config.write_text(text)
    with pytest.raises((SettingsError, InputError)) as caught:
        settings.parse(Fake, "fake", ["--config", str(config)])
    assert all(word in str(caught.value) for word in words)


SEVERAL = [
    (command, field.name)
    for command in ("check", "profile", "compare", "adapt", "fit", "groups")
    for field in dataclasses.fields(settings.command_class(command))  # type: ignore[arg-type]
    if isinstance(field.default, tuple) and field.name not in ("files", "sizes")
]


@pytest.mark.parametrize(("command", "name"), SEVERAL)
def test_a_flag_that_takes_the_files_is_named(command, name, capsys):
    flag = f"--{name.replace('_', '-')}"
    out = [] if command in ("check", "profile") else ["--out", "o"]
    for file in ("prefs.jsonl", "a/b.CSV", "x.parquet", "x.jsonl.gz", "hf://datasets/a/b.parquet"):
        assert main([command, *out, flag, "one", file]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{flag} took {file}. Files go first: polypref {command} FILE ... {flag} ..." in said
    assert main([command, *out, flag, "one"]) == 2
    assert "needs at least one preference file: polypref" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_has_files_before_options(name, capsys):
    assert main([name, "--help"]) == 0
    usage = capsys.readouterr().out.strip().splitlines()[0]
    assert usage.startswith(f"usage: polypref {name} ")
    assert usage.endswith(("[OPTIONS]", "[--quiet | --no-quiet]"))
