"""A folder with a finished result of other settings is not replaced unasked, by whatever command that fills one."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from polypref.cli import COMMANDS, finished, main
from polypref.cli.places import names_place
from polypref.cli.settings import command_class, parse, read_toml
from polypref.cli.shared import WritesFolder
from polypref.errors import SettingsError
from polypref.files import MARK
from polypref.worlds import simulate

FOLDERS = [name for name in COMMANDS if issubclass(command_class(name), WritesFolder)]
NEEDED = {  # the least that each of these commands is given
    "adapt": ["prefs.csv", "--out", "o"],
    "align": ["prefs.csv", "--model", "m", "--scorer", "s", "--groups", "g"],
    "audit": ["s", "--bounds", "b.toml", "--slates", "slates.csv"],
    "bench-policy": [],
    "compare": ["prefs.csv"],
    "demo": [],
    "fit": ["prefs.csv", "--out", "o"],
    "groups": ["prefs.csv", "--out", "o"],
    "leaderboard": ["prefs.csv"],
    "table": ["a", "b"],
    "tax": ["suite.csv", "--prefs", "prefs.csv"],
    "reproduce": ["paper", "--psoups", "prefs.csv"],
}


def written(path: Path, seed: int = 0) -> str:
    simulate("two-tastes", seed=seed, users=12, judgements=20).table().drop("attributes").write_csv(path)
    return path.name


def error(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def command(name: str, arguments: list[str]) -> WritesFolder:
    found = parse(command_class(name), name, arguments)
    assert isinstance(found, WritesFolder)
    return found


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Commands do nothing, so that the rule alone is tried; returns the names of those that ran."""
    monkeypatch.chdir(tmp_path)
    did: list[str] = []

    def runs(self: WritesFolder) -> int:
        did.append(next(name for name in FOLDERS if type(self) is command_class(name)))
        (self.out / "done").write_text("")
        return 0

    for name in FOLDERS:
        monkeypatch.setattr(command_class(name), "run", runs)
    for file in ("prefs.csv", "suite.csv", "slates.csv", "b.toml"):
        (tmp_path / file).write_text("")
    return did


@pytest.mark.parametrize("name", FOLDERS)
def test_every_command_that_fills_a_folder_follows_the_rule(name: str, ran: list[str], capsys) -> None:
    same = [name, *NEEDED[name]]
    out = command(name, NEEDED[name]).out
    seeded = ("bench-policy", "demo", "compare", "adapt", "reproduce")
    other = [*same, "--seeds", "4"] if name in seeded else [*same, "--seed", "4"]
    other = [*same, "--intervals"] if name == "table" else other
    assert main(same) == main(same) == main([*same, "--quiet"]) == 0
    line = error(other, capsys)
    flag = next(word for word in reversed(other) if word.startswith("--"))
    assert line.startswith(f"polypref: error: {out} holds a finished {name} of other settings: {flag} was")
    assert line.endswith(f"or replace it: {shlex.join(['polypref', *other])} --force")
    assert ran == [name] * 3
    assert main(shlex.split(line.partition("replace it: polypref ")[2])) == 0
    assert main(other) == 0 and len(ran) == 5, "now it holds the other one"
    assert main(same) == 2


@pytest.mark.parametrize("setting", [f.name for f in fields(command_class("compare"))])  # type: ignore[arg-type]
def test_every_setting_that_decides_a_figure_counts_and_no_other(setting: str, ran: list[str]) -> None:
    one = command("compare", ["prefs.csv"])
    was = finished.settings_of(one)
    assert (setting in was) == (setting not in finished.UNDECIDING)
    if setting in was:
        now = {**was, setting: [["x", "1"]] if setting in ("files", "ties") else ["x"]}
        flag = "the file" if setting == "files" else f"--{setting.replace('_', '-')}"
        finished.record(one, "compare", now)
        with pytest.raises(SettingsError, match=f"of other settings: {flag} "):
            finished.ensure_same(one, "compare", was, "polypref compare")


def test_the_content_of_a_file_counts_and_not_its_name(ran: list[str], tmp_path: Path, capsys) -> None:
    written(tmp_path / "prefs.csv")
    written(tmp_path / "copy.csv")
    written(tmp_path / "other.csv", seed=1)
    for files in (["prefs.csv"], ["copy.csv"], [str(tmp_path / "prefs.csv")], ["./cop*.csv"]):
        assert main(["compare", *files]) == 0
    assert "the file was ./cop*.csv, now other.csv. Choose" in error(["compare", "other.csv"], capsys)
    written(tmp_path / "prefs.csv", seed=1)
    assert "the file was ./cop*.csv, now prefs.csv" in error(["compare", "prefs.csv"], capsys)
    assert main(["compare", "other.csv", "--force"]) == 0
    written(tmp_path / "other.csv", seed=2)
    assert "the file other.csv has another content than then" in error(["compare", "other.csv"], capsys)


def test_a_failed_run_leaves_no_record_and_two_commands_may_share_a_folder(ran, tmp_path, monkeypatch, capsys) -> None:
    assert main(["compare", "prefs.csv", "--out", "o"]) == main(["adapt", "prefs.csv", "--out", "o"]) == 0
    assert set(json.loads((tmp_path / "o" / MARK).read_text())["finished"]) == {"compare", "adapt"}
    assert main(["adapt", "prefs.csv", "--out", "o", "--seeds", "2"]) == 2

    def fails(self: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command_class("compare"), "run", fails)
        assert main(["compare", "prefs.csv", "--out", "p", "--seeds", "2"]) == 130
    assert main(["compare", "prefs.csv", "--out", "p"]) == 0, "what did not finish is nothing to lose"


def test_what_is_being_replaced_by_force_has_no_record(ran, tmp_path, monkeypatch, capsys) -> None:
    """A run that is killed leaves files of both; that the old result is finished would then be wrong."""
    first, second = (["compare", "prefs.csv", "--out", "o", "--seeds", seeds] for seeds in ("2", "3"))
    assert main(first) == main(["adapt", "prefs.csv", "--out", "o"]) == 0
    before = (tmp_path / "o" / MARK).read_bytes()
    during = []

    def stops(self: object) -> int:
        during.append(set(json.loads((tmp_path / "o" / MARK).read_text())["finished"]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command_class("compare"), "run", stops)
        assert main([*second, "--force"]) == 130
    assert during == [{"adapt"}]
    assert (tmp_path / "o" / MARK).read_bytes() == before, "a run that ended by itself"
    assert main(second) == 2 and main([*second, "--force"]) == 0 and main(second) == 0


def test_a_mark_that_cannot_be_read_is_no_record(ran: list[str], tmp_path: Path) -> None:
    for mark in (
        "",
        "[]",
        '{"finished": 3}',
        '{"finished": {"compare": []}}',
        '{"finished": {"compare": {"seeds": 3}}}',
    ):
        (tmp_path / "polypref-report").mkdir(exist_ok=True)
        (tmp_path / "polypref-report" / MARK).write_text(mark)
        assert main(["compare", "prefs.csv"]) == 0
    assert main(["compare", "prefs.csv", "--seeds", "2"]) == 2


def test_real_runs_are_kept_and_resumed(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "prefs.csv")
    fit = ["fit", "prefs.csv", "--learner", "length", "--out", "scorer", "--quiet"]
    assert main(fit) == main(fit) == 0
    assert "--learner was length, now pooled" in error([*fit, "--learner", "pooled"], capsys)
    taught = ["adapt", "prefs.csv", "--scorer", "scorer", "--out", "scorer"]
    assert "cannot learn new users" in error(taught, capsys), "a scorer that is read may be replaced"


# --- paths in settings files


def places() -> list[tuple[str, str]]:
    found = []
    for name in COMMANDS:
        kind = command_class(name)
        hints = get_type_hints(kind, include_extras=True)
        found += [(name, f.name) for f in fields(kind) if names_place(hints[f.name])]  # type: ignore[arg-type]
    return found


def test_settings_that_name_places_are_known() -> None:
    found = places()
    wanted = {
        *((name, "out") for name in FOLDERS),
        *(("tax", one) for one in ("suite", "prefs", "scorer", "pooled", "base", "sycophancy", "ties")),
        *(("bounds", one) for one in ("file", "slates", "safe", "scorer", "questions")),
        *(("align", one) for one in ("model", "scorer", "groups", "judge")),
        *(("score", one) for one in ("scorer", "file", "out", "bounds")),
        *(("forget", one) for one in ("scorer", "out", "search")),
        *((("audit", one)) for one in ("scorer", "bounds", "slates", "held_out", "aggregated")),
    }
    assert wanted <= set(found)
    assert {one for _, one in found} & {"encoder", "learner", "labels", "columns", "attribute", "world"} == set()


@pytest.mark.parametrize(("name", "setting"), places())
def test_a_path_in_a_settings_file_is_relative_to_the_file(
    name: str, setting: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.csv").write_text("")
    config = tmp_path / "deep" / "s.toml"
    monkeypatch.chdir(tmp_path)
    several = command_class(name).__dataclass_fields__[setting].type  # type: ignore[attr-defined]
    absolute = str(tmp_path / "deep" / "x.csv")
    for written, expected in (("x.csv", "deep/x.csv"), (absolute, absolute)):
        value = json.dumps([written]) if "tuple" in str(several) else json.dumps(written)
        config.write_text(f"[{name}]\n{setting} = {value}\n")
        found = read_toml(Path("deep/s.toml"), command_class(name), name)[setting]  # type: ignore[arg-type]
        assert str(found[0] if isinstance(found, tuple) else found) == expected


def test_names_and_addresses_stay(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    config = tmp_path / "s.toml"

    def read(name: str, text: str) -> dict[str, object]:
        config.write_text(f"[{name}]\n{text}\n")
        return read_toml(config, command_class(name), name)

    assert read("compare", 'files = ["hf://datasets/a/b"]')["files"] == ("hf://datasets/a/b",)
    assert read("compare", 'encoder = "static"')["encoder"] == "static"
    assert read("compare", 'encoder = "hf:m+static"')["encoder"] == f"hf:{tmp_path}/m+static"
    assert read("compare", 'encoder = "hf:org/model"')["encoder"] == "hf:org/model"
    assert read("compare", 'learners = ["pretrained:m"]')["learners"] == (f"pretrained:{tmp_path}/m",)
    assert read("table", 'folders = ["psoups=m"]')["folders"] == (f"psoups={tmp_path}/m",)
    assert read("align", 'groups = "country"')["groups"] == "country"
    assert read("align", 'groups = "m"')["groups"] == f"{tmp_path}/m"
    assert read("tax", 'base = "hf:org/model"')["base"] == "hf:org/model"
