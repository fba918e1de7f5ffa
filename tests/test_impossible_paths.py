"""A path at which nothing can be, and a number that no reward can be, are one line wherever they come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from polypref import artifact
from polypref.bounds.bounds_file import read_bounds
from polypref.bounds.load_safety import safety_from
from polypref.cli import main
from polypref.errors import PolyprefError, SettingsError
from polypref.features import encoder
from polypref.features.cache import cache_root
from polypref.regular_files import expanded
from polypref.scorers import load

LONG = "m" * 5000


@pytest.fixture
def prefs(tmp_path: Path) -> str:
    rows = [
        {"user_id": f"u{n % 3}", "prompt": f"p{n}", "chosen": f"a {'so ' * n}", "rejected": f"b {'no ' * (n % 7)}"}
        for n in range(40)
    ]
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "prefs.jsonl")


def one_line(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    errors = [line for line in told if line.startswith("polypref: error: ")]
    assert len(errors) == 1 and told[-1] == errors[0], told
    return errors[0]


COMMANDS = [
    ["score", LONG, "FILE"],
    ["table", LONG, "--out", "OUT"],
    ["table", f"a={LONG}", "--out", "OUT"],
    ["tax", "SUITE", "--prefs", "FILE", "--scorer", LONG, "--pooled", LONG, "--out", "OUT"],
    ["adapt", "FILE", "--scorer", LONG, "--out", "OUT"],
    ["fit", "FILE", "--out", LONG],
    ["fit", LONG, "--out", "OUT"],
    ["check", "FILE", "--config", LONG],
    ["bounds", "explain", "BOUNDS", "--scorer", LONG, "--questions", "ROWS"],
    ["bounds", "explain", LONG, "--scorer", "OUT", "--questions", "ROWS"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(word[:12] for word in command))
def test_a_name_too_long_is_one_line(
    tmp_path: Path, prefs: str, command: list[str], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "bounds.toml").write_text(f'[immutable]\nsafety = "{LONG}"\n')
    places = {"FILE": prefs, "OUT": str(tmp_path / "out"), "BOUNDS": str(tmp_path / "bounds.toml")}
    (tmp_path / "suite.jsonl").write_text(
        '{"prompt": "p", "chosen": "a", "rejected": "b", "subset": "x", "section": "y"}\n'
    )
    (tmp_path / "rows.jsonl").write_text('{"user_id": "u1", "prompt": "p", "response": "a"}\n')
    places |= {"SUITE": str(tmp_path / "suite.jsonl"), "ROWS": str(tmp_path / "rows.jsonl")}
    assert "name too long" in one_line(capsys, *(places.get(word, word) for word in command)).lower()


def test_what_an_artifact_names_is_one_line(tmp_path: Path, prefs: str, capsys: pytest.CaptureFixture) -> None:
    folder = str(tmp_path / "s")
    assert main(["fit", prefs, "--learner", "pooled", "--encoder", "static", "--out", folder]) == 0
    config, arrays = artifact.load(folder, "scorer")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user_id": "u1", "prompt": "p", "response": "a"}\n')
    capsys.readouterr()
    for name in (f"hf:{LONG}", "hf:~nouser/x", f"hf:/{LONG}", f"hf:{LONG}/x"):
        artifact.save(folder, "scorer", {**config, "encoder": {**config["encoder"], "name": name}}, arrays)
        one_line(capsys, "score", folder, str(rows))
    huge = {name: np.full_like(one, 1e308) if one.dtype == np.float64 else one for name, one in arrays.items()}
    artifact.save(folder, "scorer", config, huge)
    assert "not a finite number" in one_line(capsys, "score", folder, str(rows), "--out", str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.toml").write_text(f'[immutable]\nsafety = "{LONG}"\n')
    with pytest.raises(SettingsError, match="name too long"):
        safety_from(read_bounds(tmp_path / "b.toml"))
    for call in (lambda: load(LONG), lambda: encoder(f"hf:{LONG}").identity, lambda: encoder("hf:~nouser/x").identity):
        with pytest.raises(PolyprefError):
            call()
    monkeypatch.setenv("POLYPREF_CACHE", "~nouser/x")
    with pytest.raises(SettingsError, match="~nouser/x: the home folder"):
        cache_root()
    assert expanded("~") == Path.home()
