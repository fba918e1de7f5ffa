"""A run replaces its own results and nobody else's files."""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

from polypref import artifact
from polypref.cli import COMMANDS, main
from polypref.cli.settings import command_class
from polypref.cli.shared import WritesFolder
from polypref.errors import ArtifactError, SettingsError
from polypref.files import MARK, owned

ARTIFACTS = ("fit", "groups")  # their folders are artifacts, which ``artifact.save`` keeps from other files


@pytest.fixture
def prefs(tmp_path: Path) -> Path:
    rows = []
    for user in range(6):
        for at in range(12):
            texts = sorted([f"{'so ' * ((at + side * 3) % 5 + 1)}{user} {at} {side}" for side in range(2)], key=len)
            texts = texts if user % 2 else texts[::-1]
            rows.append({"user_id": f"u{user}", "prompt": "p", "chosen": texts[0], "rejected": texts[1]})
    path = tmp_path / "prefs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def folders() -> list[str]:
    return [name for name in COMMANDS if issubclass(command_class(name), WritesFolder)]


@pytest.mark.parametrize("name", folders())
def test_every_command_names_what_it_writes(name: str) -> None:
    kind = command_class(name)
    if name in ARTIFACTS:
        assert kind.writes is WritesFolder.writes
        return
    assert kind.writes is not WritesFolder.writes


@pytest.mark.parametrize("name", ["results.json", "report.html", "users.parquet"])
def test_a_file_of_somebody_else_stays(tmp_path: Path, prefs: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"my": "precious"}')
    run = ["compare", str(prefs), "--out", str(folder), "--encoder", "static", "--seeds", "1", "--learners", "pooled"]
    assert main(run) == 2
    assert f"{folder / name} exists and polypref did not write it" in capsys.readouterr().err
    assert [one.name for one in folder.iterdir()] == [name]
    assert (folder / name).read_text() == '{"my": "precious"}'
    (folder / name).rename(folder / "mine.txt")
    assert main(run) == 0  # other files in the folder do no harm
    assert main(run) == 0  # its own results are replaced
    assert (folder / "mine.txt").read_text() == '{"my": "precious"}'
    assert main(["table", str(folder), "--out", str(folder)]) == 0
    assert main(["table", str(folder), "--out", str(folder)]) == 0


def test_a_table_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "tables.md").write_text("mine")
    assert main(["table", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "polypref did not write it" in capsys.readouterr().err
    assert (tmp_path / "tables.md").read_text() == "mine"


def test_scores_never_replace_a_file_unasked(tmp_path: Path, prefs: Path, capsys: pytest.CaptureFixture) -> None:
    fit = ["fit", str(prefs), "--out", str(tmp_path / "s"), "--encoder", "static", "--learner", "pooled"]
    assert main(fit) == 0
    before = prefs.read_bytes()
    score = ["score", str(tmp_path / "s"), str(prefs), "--columns", "response=chosen", "--out"]
    assert main([*score, str(prefs)]) == 2
    assert main([*score, str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert prefs.read_bytes() == before
    assert main([*score, str(tmp_path / "new.jsonl")]) == 0
    assert main([*score, str(tmp_path / "new.jsonl")]) == 2
    assert main([*score, str(tmp_path / "new.jsonl"), "--force"]) == 0
    assert main([*score, "/dev/null"]) == 0


def test_the_mark_goes_with_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), owned(tmp_path, ["a"]):
        assert (tmp_path / MARK).exists()
        raise KeyError
    assert not list(tmp_path.iterdir())
    with owned(tmp_path, ["a"]):
        (tmp_path / "a").write_text("")
    with owned(tmp_path, ["a"]):
        pass
    (tmp_path / MARK).unlink()
    with pytest.raises(SettingsError, match="did not write it"), owned(tmp_path, ["b", "a"]):
        pass


WHOLE = to_bytes({"x": np.zeros(2)})
OWN = f"arrays-{sha256(WHOLE).hexdigest()}.safetensors"
MANIFESTS = {
    "none": None,
    "foreign": '{"kind": "thing"}',
    "of no hash": json.dumps({"kind": "thing", "format": 3, "config": {}, "arrays": "0" * 64, "sha256": "0" * 64}),
    "changed": json.dumps({**artifact.sealed({"kind": "thing", "format": 3, "config": {}}), "config": {"a": 1}}),
    "other kind": json.dumps(artifact.sealed({"kind": "other", "format": 3, "config": {}, "arrays": "0" * 64})),
    "no JSON": "mine",
}
NAMES = ("arrays.safetensors", f"arrays-{'0' * 64}.safetensors", OWN, "weights.bin", ".lock2")
FOREIGN = [case for case in product(MANIFESTS, (*NAMES, None)) if case != ("none", None)]


@pytest.mark.parametrize(("manifest", "name"), FOREIGN)
def test_what_polypref_did_not_write_is_never_replaced_or_removed(tmp_path: Path, manifest: str, name: str) -> None:
    text = MANIFESTS[manifest]
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    if name is not None:
        (tmp_path / name).write_bytes(b"MINE")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    for attempt in (artifact.ensure_replaceable, lambda path, kind: artifact.save(path, kind, {}, {"x": np.ones(2)})):
        with pytest.raises(ArtifactError) as told:
            attempt(tmp_path, "thing")
        assert "\n" not in str(told.value) and "choose another path or remove it" in str(told.value)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("link", [False, True])
def test_foreign_files_in_an_artifact_stay_and_its_own_go(tmp_path: Path, name: str, link: bool) -> None:
    folder, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    artifact.save(folder, "thing", {}, {"x": np.ones(2)})
    (first,) = folder.glob("arrays*")
    elsewhere.write_bytes(WHOLE)
    if link:
        (folder / name).symlink_to(elsewhere)
    else:
        (folder / name).write_bytes(b"MINE")
    artifact.save(folder, "thing", {}, {"x": np.full(2, 2.0)})
    assert not first.exists()
    if name == OWN:
        with pytest.raises(ArtifactError, match="did not write it"):
            artifact.save(folder, "thing", {}, {"x": np.zeros(2)})
    assert (folder / name).read_bytes() == (WHOLE if link else b"MINE")
    (folder / name).unlink()
    artifact.save(folder, "thing", {}, {"x": np.zeros(2)})
    assert sorted(one.name for one in folder.iterdir()) == [OWN, "manifest.json"]


@pytest.mark.parametrize("marked", [False, True])
def test_a_link_never_decides_where_results_go(tmp_path: Path, prefs: Path, marked: bool) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    folder.mkdir()
    (victim / "failed.txt").write_text("notes")
    if marked:
        (folder / MARK).write_text("")
    (folder / "cells").symlink_to(victim)
    assert main(["compare", str(prefs), "--out", str(folder), "--encoder", "static", "--seeds", "1"]) == 2
    assert [one.name for one in victim.iterdir()] == ["failed.txt"]


def test_folders_of_somebody_else_stay(tmp_path: Path) -> None:
    for name in ("model", "checkpoints", "cells", "arms"):
        (tmp_path / name).mkdir(parents=True)
        with pytest.raises(SettingsError, match="did not write it"), owned(tmp_path, [name]):
            pass
        (tmp_path / name).rmdir()
