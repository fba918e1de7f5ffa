"""The benchmark for a card, in miniature on the CPU: parts are stored, resumed, refused, dropped and told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_without_a_card_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import run

    assert run.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said == "polypref: there is no CUDA device; give --miniature to run every part in small on the CPU.\n"
    assert not (tmp_path / "out").exists()


def test_reward_models_are_measured_and_a_step_larger_than_memory_is_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run

    given = ["--out", str(tmp_path), "--miniature", "--parts", "1"]
    assert run.main(given) == 0
    said = capsys.readouterr()
    assert "memory ran out with 32 comparisons at a time; going on with 16" in said.err
    assert "32 comparisons a step, 8 at a time (simulated)" in said.out
    found = json.loads((tmp_path / "1-reward.json").read_text())
    assert found["figures"]["large"] == {"comparisons": 32, "at_a_time": 8, "simulated": True}
    assert min(map(min, found["figures"]["tokens_a_second"].values())) > 0
    assert found["settings"]["seed"] == 0 and found["settings"]["dtype"] == "bfloat16"
    assert found["versions"]["trl"] and found["card"]["name"] == "none"

    was = (tmp_path / "1-reward.json").read_bytes()
    assert run.main(given) == 0
    assert "stored: 1-reward" in capsys.readouterr().err
    assert (tmp_path / "1-reward.json").read_bytes() == was


STUBS = """
import sys, time
sys.path[:0] = sys.argv[2:]
import run
from part import Found, Part

def long(place):
    print("begun", file=sys.__stdout__, flush=True)
    time.sleep(600)

run.PARTS = {"a": "a", "b": "b"}
works = {"a": lambda place: Found({}, []), "b": long}
parts = {name: Part(name, name, lambda _: {"own": 1}, lambda _: 1.0, work) for name, work in works.items()}
run.import_module = lambda name: type("Module", (), {"PART": parts[name]})
run.main(["--out", sys.argv[1], "--miniature"])
"""


def test_a_killed_run_goes_on_after_the_stored_parts(parts: Any, tmp_path: Path) -> None:
    put, told = parts
    command = [sys.executable, "-c", STUBS, str(tmp_path), str(FOLDER), str(FOLDER.parents[1] / "src")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
    finally:
        process.kill()
        process.communicate()
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json"]
    was = (tmp_path / "a.json").read_bytes()
    assert put(part("a", told), part("b", told)).main(["--out", str(tmp_path), "--miniature"]) == 0
    assert told == ["b"]
    assert (tmp_path / "a.json").read_bytes() == was


# --- the command, with parts that take no time


def part(name: str, told: list[str], minutes: float = 1.0, error: Exception | None = None, own: int = 1) -> Any:
    from part import Found, Line, Part

    def work(_: Any) -> Any:
        told.append(name)
        if error is not None:
            raise error
        return Found({"value": 1}, [Line(f"line of {name}", "2.0", ">= 1.0", "yes")])

    return Part(name, f"title of {name}", lambda _: {"own": own}, lambda _: minutes, work)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """The command with the given parts in place of the real ones, and the names of those that ran."""
    import run

    told: list[str] = []

    def put(*parts: Any) -> Any:
        monkeypatch.setattr(run, "PARTS", {part.name: part.name for part in parts})
        by_name = {part.name: SimpleNamespace(PART=part) for part in parts}
        monkeypatch.setattr(run, "import_module", by_name.__getitem__)
        return run

    return put, told


def test_a_budget_drops_the_rest_in_order(parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put, told = parts
    command = put(part("a", told), part("b", told, 60), part("c", told))
    given = ["--out", str(tmp_path), "--miniature"]
    assert command.main([*given, "--budget-minutes", "5"]) == 0
    assert told == ["a"]
    said = capsys.readouterr()
    assert "dropped, since they would not end within the 5.0 minutes that are left: b, c." in said.err
    assert "| b | title of b | not run |" in said.out
    assert command.main(given) == 0
    assert told == ["a", "b", "c"]


def test_a_part_that_fails_is_told_and_the_next_one_runs(parts: Any, tmp_path: Path, capsys: Any) -> None:
    put, told = parts
    command = put(part("a", told, error=ValueError("no such thing")), part("b", told))
    assert command.main(["--out", str(tmp_path), "--miniature"]) == 1
    assert told == ["a", "b"]
    assert "| a | title of a | ValueError: no such thing |" in capsys.readouterr().out
    assert not (tmp_path / "a.json").exists() and (tmp_path / "b.json").exists()


def test_parts_of_other_settings_or_that_were_changed_are_refused(parts: Any, tmp_path: Path, capsys: Any) -> None:
    put, told = parts
    command = put(part("a", told))
    given = ["--out", str(tmp_path), "--miniature"]
    assert command.main(given) == 0
    put(part("a", told, own=2))
    assert command.main(given) == 2
    assert "a.json was measured with other settings (own: 1, now 2); choose another --out" in capsys.readouterr().err
    put(part("a", told))
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace('"2.0"', '"9.0"'))
    assert command.main(given) == 2
    assert "a.json was changed after it was written" in capsys.readouterr().err
    assert told == ["a"]
    assert command.main([*given, "--force"]) == 0
    assert told == ["a", "a"]


@pytest.mark.parametrize(
    ("given", "message"),
    [(["fetch"], "is not empty; remove it or choose another folder."), (["install"], "holds no wheels; fill it first")],
)
def test_a_folder_that_cannot_be_carried_is_refused(
    given: list[str], message: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import carry

    (tmp_path / "note.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["carry.py", *given, str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        carry.main()
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_what_is_carried_is_installed_without_network(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    import carry

    commands: list[list[str]] = []

    def ran(command: list[str]) -> None:
        commands.append(command)
        if "wheel" in command:
            (tmp_path / "wheels").mkdir()
            (tmp_path / "wheels" / "polypref-0.1.0-py3-none-any.whl").touch()
            (tmp_path / "wheels" / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()

    monkeypatch.setattr(carry, "done", ran)
    for step in ("fetch", "install"):
        monkeypatch.setattr(sys, "argv", ["carry.py", step, str(tmp_path)])
        assert carry.main() == 0
    assert "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl has no CUDA" in capsys.readouterr().err
    downloads = [command for command in commands if "download" in command]
    installs = [command for command in commands if "install" in command]
    assert len(downloads) == len(installs) == 2
    assert all("--no-index" in command and "--find-links" in command for command in installs)
    for download, install in zip(downloads, installs, strict=True):
        asked = [name.partition(" @ ")[0] for name in download[download.index("--dest") + 2 :] if name[0].isalpha()]
        assert set(install[install.index("--find-links") + 2 :]) - {"--no-deps"} <= set(asked)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--parts", "9"], "--parts has '9'; there are: "),
        (["--budget-minutes", "0"], "expected a number above 0"),
        (["--miniature", "--shape", "7b"], "--miniature has tiny shapes"),
    ],
)
def test_bad_arguments_are_refused(given: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    import run

    with pytest.raises(SystemExit) as stopped:
        run.main(["--out", str(tmp_path), *given])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
