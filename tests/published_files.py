"""Files in the shape of published sets, for the tests of their adapters."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from polypref.cli import main


def dump(path: Path, rows: list[dict[str, Any]], lines: bool = True) -> str:
    """Write rows as JSON lines, or as one JSON list."""
    text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows, indent=4)
    path.write_text(text + "\n")
    return str(path)


def converted(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``polypref convert`` prints."""
    assert main(["convert", *shlex.split(command)]) == 0
    return capsys.readouterr().out
