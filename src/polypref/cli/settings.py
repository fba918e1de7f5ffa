"""A command's settings from flags and a TOML file: one frozen dataclass is the only source of truth.

tyro reads the dataclass. A value in the file goes through the parser of the flag of that name, so both accept the same
values and give the same errors.
"""

from __future__ import annotations

import inspect
import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO, cast, get_type_hints

from polypref import strict_toml
from polypref.arguments import WrongValue
from polypref.cli import COMMANDS
from polypref.cli.places import beside
from polypref.errors import InputError, SettingsError, unknown_name
from polypref.regular_files import content_of

CONFIG_HELP = (
    "--config FILE reads settings from the table [{name}] of a TOML file; a flag overrides the file. Paths in the file "
    "are relative to it."
)


class Command(Protocol):
    """Settings of one command; ``run`` runs it, quietly if wanted, and returns the exit code."""

    @property
    def quiet(self) -> bool: ...

    def run(self) -> int: ...


def command_class(name: str) -> type[Command]:
    """The settings class of command ``name``: ``BenchPolicy`` in ``polypref.cli.bench_policy`` for ``bench-policy``."""
    module, _ = COMMANDS[name]
    return getattr(import_module(module), name.title().replace("-", ""))


def parse(cls: type[Command], name: str, arguments: Sequence[str]) -> Command | None:
    """Settings of command ``name`` from its arguments; None if they ask for help, which is then printed.

    Raises SettingsError, in one line, for an invalid flag or value.
    """
    arguments, config = _take_config(list(arguments))
    known: dict[str, Any] = {} if config is None else {"default": _from_file(config, cls, name)}
    try:
        about = f"{inspect.getdoc(cls)}\n\n{CONFIG_HELP.format(name=name)}"
        return _tyro(cls, f"polypref {name}", arguments, description=about, **known)
    except _HelpShown:
        return None
    except WrongValue as wrong:
        raise SettingsError(f"--{wrong.name.replace('_', '-')} {wrong.value}: expected {wrong.expected}.") from None


def _from_file(config: Path, cls: type[Command], name: str) -> Any:
    """The settings of a file, and the defaults."""
    try:
        return _with_defaults(cls, read_toml(config, cls, name))
    except WrongValue as wrong:
        raise SettingsError(f"{config}, [{name}] {wrong}") from None


def read_toml(path: Path, cls: type[Command], name: str) -> dict[str, Any]:
    """Values of the table ``[name]`` of a TOML file, each parsed like its flag; paths are relative to the file."""
    try:
        document = strict_toml.loads(content_of(path, strict_toml.MOST).decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read settings file {path}: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"settings file {path} is not TOML: {error}.") from error
    table = document.get(name)
    if not isinstance(table, dict):
        found = ", ".join(sorted(document)) or "nothing"
        raise SettingsError(
            f"settings file {path} has no table [{name}]; found: {found}. Put the settings under [{name}]."
        )
    hints = get_type_hints(cls, include_extras=True)
    values = {}
    for key, value in table.items():
        setting = key.replace("-", "_")
        if setting not in hints:
            raise unknown_name(f"setting in [{name}] of {path}", key, hints)
        if setting in values:
            raise SettingsError(f"{path}, [{name}] gives {setting} twice, with - and with _; give it once.")
        words = [beside(path.parent, hints[setting], word) for word in _tokens(value)]
        values[setting] = _tyro(hints[setting], f"{path}, [{name}] {key} = {value!r}", words)
    return values


class _HelpShown(Exception):
    """Not an error: help was requested and printed."""


class _FilesFirst:
    """Standard output whose usage line has files before options: a flag of several values takes what follows it."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.output, name)

    def write(self, text: str) -> int:
        return self.output.write(re.sub(r"\[-h\] \[OPTIONS\] ([^\n]+)", r"\1 [OPTIONS]", text))


def _tyro(what: Any, who: str, arguments: Sequence[str], **known: Any) -> Any:
    import tyro

    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint), redirect_stdout(cast(TextIO, _FilesFirst(sys.stdout))):
            return tyro.cli(what, prog=who, args=list(arguments), **known)
    except SystemExit as stop:
        if not stop.code:
            raise _HelpShown from None
    raise SettingsError(f"{who}: {_one_line(complaint.getvalue())}")


def _one_line(complaint: str) -> str:
    """Tyro's framed error as one sentence: its first paragraph and the nearest flag, without frame or help text.

    The frame is drawn with box characters or dashes, in colour or not, depending on the terminal.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", complaint).strip()
    lines = [line.strip("│ ") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    sections = re.split(r"^(?:─|-){9,}$", "\n".join(lines), flags=re.MULTILINE)
    titled = not plain.startswith("╭") and len(sections) > 1  # else the title is in the frame
    first = " ".join(sections[titled].split())
    first = _plainer(first, "a whole number each" if "INT" in plain else "other values")
    near = re.search(r"Perhaps you meant:\s+(--[\w-]+)", plain.replace("│", ""))
    return first + (f". Did you mean {near[1]}?" if near else "")


WANTED = {"int()": "a whole number", "float": "a number"}


def _plainer(complaint: str, several: str) -> str:
    """An error of Python or tyro about an invalid value, rewritten as the flag, the expected and the found value.

    ``several``: what a flag with several values expects, which the error does not say.
    """
    flag = r"Error parsing (?P<flag>.+?): "
    if found := re.match(flag + r".*(?P<kind>int\(\)|float)[^:]*: (?P<value>.*)$", complaint):
        detail = f"expected {WANTED[found['kind']]}, found {found['value']}"
    elif found := re.match(flag + r"Could not find valid parse for arguments: \[(?P<value>.*)\]$", complaint):
        detail = f"expected {several}, found {found['value']}"
    elif found := re.match(r"(?P<flag>Unrecognized options): (?P<value>[^-].*)$", complaint):
        return f"one value too many: {found['value']}"
    elif found := re.match(
        r"invalid choice (?P<value>.*) for argument '(?P<flag>[^']*)'\. Expected (?P<of>.*)\.$", complaint
    ):
        names = sorted(set(re.findall(r"'([^']*)'", found["of"])) - {"None"})  # in no order; None: not given
        detail = f"expected {'one of ' + ', '.join(names) if names else found['of']}, found {found['value']}"
    else:
        return complaint
    return f"{found['flag']}: {detail}." if found["flag"].startswith("--") else f"{detail}."


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    for at, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("--config="):
            return arguments[:at] + arguments[at + 1 :], Path(argument.removeprefix("--config="))
        if argument == "--config":
            if at + 1 == len(arguments):
                raise SettingsError("--config needs a file: --config FILE.")
            return arguments[:at] + arguments[at + 2 :], Path(arguments[at + 1])
    return arguments, None


def _with_defaults(cls: Any, values: dict[str, Any]) -> Any:
    """An instance whose required settings must come from the flags if the file does not give them."""
    import tyro

    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    return cls(**dict.fromkeys(required, tyro.MISSING) | values)


def _tokens(value: Any) -> Sequence[str]:
    """A TOML value as the words to type after the flag."""
    if isinstance(value, bool):
        return [str(value)]
    if isinstance(value, dict):  # {user_id = "annotator"} equals --columns user_id=annotator
        return [f"{key}={word}" for key, one in value.items() for word in _tokens(one)]
    if isinstance(value, list):
        return [word for one in value for word in _tokens(one)]
    return [str(value)]
