"""Every malformed artifact is one ArtifactError, or loads as what was saved; nothing else is raised, nothing is waited
for. What can be made again is made again."""

from __future__ import annotations

import json
import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

from contract_cases import LEARNERS, NAMES, Words, answers, fitted, fresh, small
from polypref import artifact
from polypref.bounds.detector import KIND, Detector
from polypref.bounds.windowed import READS
from polypref.errors import ArtifactError, PolyprefError, SettingsError
from polypref.evaluation import cells
from polypref.groups.grouping import Grouping, from_mapping
from polypref.learners import SCORERS
from polypref.learners.new_user_baselines import ROUTES
from polypref.learners.protocol import by_kind, scorer_class
from polypref.scorers import load, metadata, save

ONE_OF_EACH = {
    kind: name for kind in SCORERS for name in NAMES if scorer_class(LEARNERS[name]).kind == kind
}  # learners by the kind of their scorers


@cache
def scorer_of(kind: str):
    if kind in ONE_OF_EACH:
        return fitted(ONE_OF_EACH[kind])
    route = next(route for route in ROUTES.values() if scorer_class(route).kind == kind)
    return route.fit(small(), encoder=Words(), seed=0)


KINDS = [*ONE_OF_EACH, *by_kind(ROUTES.values())]
each_kind = pytest.mark.parametrize("kind", KINDS)


def write(folder: Path, body: object, payload: bytes) -> None:
    """An artifact whose hashes fit, whatever it says."""
    digest = sha256(payload).hexdigest()
    folder.mkdir(exist_ok=True)
    (folder / f"arrays-{digest}.safetensors").write_bytes(payload)
    if isinstance(body, dict):
        body = artifact.sealed({**{k: v for k, v in body.items() if k != "sha256"}, "arrays": digest})
    (folder / "manifest.json").write_text(json.dumps(body))


# --- one hash


def test_any_change_of_a_manifest_is_refused(tmp_path):
    """Users reversed gave people one another's rewards."""
    save(fitted("individual"), tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    manifest["config"]["state"]["users"].reverse()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="its hash does not fit"):
        load(tmp_path / "s", Words())
    path.write_text(json.dumps(json.loads(text)))  # another layout of the same JSON is the same artifact
    assert (answers(load(tmp_path / "s", Words()), fresh()) == answers(fitted("individual"), fresh())).all()


def test_the_digest_covers_settings_and_arrays(tmp_path):
    digests = set()
    for config, array in (({"a": 1}, [1.0]), ({"a": 2}, [1.0]), ({"a": 1}, [2.0]), ({"a": 1.0}, [1.0])):
        artifact.save(tmp_path / "x", "thing", config, {"x": np.array(array)})
        digests.add(artifact.digest_of(tmp_path / "x", "thing"))
    assert len(digests) == 4
    assert all(len(one) == 64 for one in digests)


def test_an_artifact_of_an_earlier_format_says_to_fit_again(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": 1, "kind": "scorer", "sha256": "0", "config": {}}')
    (folder / "arrays.safetensors").write_bytes(to_bytes({}))
    with pytest.raises(ArtifactError, match=r"format 1.*fit and save it again"):
        load(folder)


# --- what is read


@pytest.mark.parametrize("what", ["link out", "endless", "pipe", "folder", "huge", "missing"])
@pytest.mark.parametrize("which", ["manifest", "arrays"])
def test_only_regular_files_of_the_folder_are_read(tmp_path, what, which):
    save(fitted("individual"), tmp_path / "s")
    (path,) = (tmp_path / "s").glob(f"{which}*")
    content = path.read_bytes()
    path.unlink()
    if what == "link out":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(ArtifactError):
        load(tmp_path / "s", Words())


def test_arrays_of_another_size_than_their_header_states_are_not_read(tmp_path, monkeypatch):
    """A sparse file of any size takes no room on disk."""
    artifact.save(
        tmp_path / "s", "thing", {}, {"x": np.ones((3, 4)), "none": np.zeros((0, 2)), "flags": np.ones(5, bool)}
    )
    (path,) = (tmp_path / "s").glob("arrays*")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    monkeypatch.setattr(artifact, "sha256", lambda _: pytest.fail("all of it was read"))
    draw = Random(0)
    sizes = [
        0,
        7,
        8,
        8 + length,
        len(content) - 1,
        len(content) + 1,
        6 << 30,
        *(draw.randrange(1 << 34) for _ in range(20)),
    ]
    starts = [
        content,
        content[:8] + b"{" * length,
        b"",
        (1 << 40).to_bytes(8, "little"),
        b"\xff" * 8,
        b"\2" + bytes(7) + b"{}",
    ]
    starts += [b"\x0e" + bytes(7) + b'{"x":{"a":[]}}', b"\x05" + bytes(7) + b"[[]]]"]
    for start in starts:
        for size in sizes:
            with path.open("wb") as file:
                file.write(start)
                file.truncate(size)
            monkeypatch.setattr(artifact, "is_sealed", lambda _: True)
            with pytest.raises(ArtifactError) as told:
                artifact.load(tmp_path / "s", "thing")
            assert "\n" not in str(told.value) and len(str(told.value)) < 400


# --- mutated

ODD = [None, True, 0, -1, 2**70, 1e300, 0.5, "", "x", "\0", [], {}, [None], ["a", "a"], {"a": 1}, "9" * 1000]


def places(value: object, at: tuple = ()) -> list[tuple]:
    """Paths to everything in a JSON value."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        found += places(one, (*at, key))
    return found


def mutated(manifest: dict, draw: Random) -> dict:
    manifest = json.loads(json.dumps(manifest))
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.choice(places(manifest["config"]))
        inner = manifest["config"]
        for key in at[:-1]:
            inner = inner[key]
        way = draw.choice(("odd", "odd", "remove", "add", "double", "reverse", "nest"))
        old = inner[at[-1]]
        if way == "remove":
            del inner[at[-1]]
        elif way == "add" and isinstance(old, dict):
            old[draw.choice(("x", "users", "__class__"))] = draw.choice(ODD)
        elif way == "double" and isinstance(old, list):
            inner[at[-1]] = old + old[:1]
        elif way == "reverse" and isinstance(old, list):
            inner[at[-1]] = old[::-1]
        elif way == "nest":
            for _ in range(40):
                old = [old]
            inner[at[-1]] = old
        else:
            inner[at[-1]] = draw.choice(ODD)
    return manifest


def spoiled(arrays: dict[str, np.ndarray], draw: Random) -> dict[str, np.ndarray]:
    arrays = dict(arrays)
    if not arrays:
        return {"extra": np.zeros(2)}
    name = draw.choice(sorted(arrays))
    one = arrays[name]
    ways = {
        "short": lambda: one[:-1],
        "long": lambda: np.concatenate([one, one]),
        "flat": lambda: one.reshape(-1)[None],
        "none": lambda: np.zeros(0, one.dtype),
        "type": lambda: one.astype(np.float16 if one.dtype.kind == "f" else np.int16),
        "nan": lambda: (
            np.full_like(one, np.nan)
            if one.dtype.kind == "f"
            else np.full_like(one, -1 if one.dtype.kind == "i" else 0)
        ),
        "large": lambda: np.full_like(one, np.inf if one.dtype.kind == "f" else np.iinfo(one.dtype).max),
        "mixed": lambda: one[::-1].copy(),
    }
    way = draw.choice([*ways, "remove", "rename", "add"])
    if way in ways and one.dtype != bool:
        with np.errstate(all="ignore"):
            arrays[name] = ways[way]()
    elif way == "rename":
        arrays[name + "x"] = arrays.pop(name)
    elif way == "add":
        arrays["extra"] = np.zeros(1)
    else:
        del arrays[name]
    return arrays


def try_all(folder: Path, draw: Random, read, times: int) -> int:
    """Load mutants of the artifact in ``folder``; how many were refused. Any other exception fails the test."""
    manifest = json.loads((folder / "manifest.json").read_text())
    _, arrays = artifact.load(folder, manifest["kind"])
    refused, other = 0, folder.with_name("mutant")
    for at in range(times):
        body = mutated(manifest, draw) if at % 2 else manifest
        payload = to_bytes(arrays if at % 2 else spoiled(arrays, draw))
        if at % 11 == 10:
            payload = draw.choice((payload[: draw.randrange(len(payload))], b"\xff" * 8 + payload[8:], b""))
        write(other, body, payload)
        try:
            read(other)
        except PolyprefError as error:
            assert isinstance(error, (ArtifactError, SettingsError)), error
            assert "\n" not in str(error)
            assert len(str(error)) < 1500
            refused += 1
    return refused


@each_kind
def test_a_mutated_scorer_is_refused_in_one_line_or_answers(kind, tmp_path):
    """What is loaded after all (other numbers of the right shape) answers without an exception."""
    save(scorer_of(kind), tmp_path / "s")

    def read(folder: Path) -> None:
        with np.errstate(all="ignore"):
            answers(load(folder, Words()), fresh())

    refused = try_all(tmp_path / "s", Random(kind), read, 16)
    assert refused > (5 if scorer_of(kind).state()[1] else 2)


def test_mutated_detectors_and_groupings_are_refused_in_one_line(tmp_path):
    config = {"encoder": "words", "identity": "words v1", "intercept": 0.0, "ridge": 1.0, "auc": 0.5, "reads": READS}
    arrays = {"weights_D": np.ones(24), "trained_on": np.zeros((3, 16), np.uint8)}
    arrays["prompts_trained_on"] = np.zeros((2, 16), np.uint8)
    artifact.save(tmp_path / "d", KIND, config, arrays)
    assert Detector.load(tmp_path / "d", Words()).state()[0] == config
    assert try_all(tmp_path / "d", Random(1), lambda path: Detector.load(path, Words()), 40) > 15
    from_mapping({"ann": "a", "bob": "b", "eve": "a"}).save(tmp_path / "g")
    assert try_all(tmp_path / "g", Random(2), lambda path: Grouping.load(path).of(["ann", "x"]), 40) > 15


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"format": 3}', "[" * 100_000, '{"a":' * 100_000),
        *('{"kind": "scorer", "kind": "scorer"}', '{"kind": "scorer", "format": NaN}', '{"kind": "\\ud800"}'),
        *('{"kind": 1e999}', '{"kind": ' + "9" * 9999 + "}"),
    ],
)
def test_what_is_no_manifest_is_one_line(tmp_path, text):
    save(fitted("length"), tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError) as told:
        load(tmp_path / "s")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_swapped_users_and_bytes_are_seen_without_a_new_hash(tmp_path):
    save(fitted("individual"), tmp_path / "s")
    (path,) = (tmp_path / "s").glob("arrays*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="were changed after they were saved"):
        load(tmp_path / "s", Words())


# --- provenance


def test_a_scorer_knows_its_data_wherever_it_is_saved_from(tmp_path):
    save(fitted("hierarchical"), tmp_path / "s")
    known = metadata(tmp_path / "s")
    assert known is not None
    assert known.data == [small().content_hash]
    assert (known.learner, known.encoder_identity, known.seed) == ("Hierarchical", "words v1", 0)
    again = load(tmp_path / "s", Words())
    taught = again.adapt("eve", small().take(np.arange(12)))
    save(taught, tmp_path / "t")
    assert metadata(tmp_path / "t").adapted == {"eve": 12}
    assert metadata(tmp_path / "t").data == known.data
    save(load(tmp_path / "t", Words()).forget("eve"), tmp_path / "t")
    assert metadata(tmp_path / "t").adapted == {}


def test_another_encoder_is_refused_after_save_in_python(tmp_path):
    save(fitted("pooled"), tmp_path / "s")
    with pytest.raises(SettingsError, match=r"\[words v1\].*\[words v2\]"):
        load(tmp_path / "s", Words(identity="words v2"))


# --- made again


@pytest.mark.parametrize("spoil", ["manifest", "arrays", "no arrays", "other kind", "other shape"])
def test_a_damaged_cell_is_made_again_and_said(tmp_path, capsys, spoil):
    job = cells.Job(small(), Words(), {"length": LEARNERS["length"]}, "pair", tmp_path)
    cell = cells.Cell("length", None, 0)
    cells.run(job, cell)
    assert job.is_stored(cell)
    before = cells.read(job, cell).margin_H
    folder = job.path(cell)
    if spoil == "manifest":
        (folder / "manifest.json").write_text('{"kind": "cell"}')
    elif spoil == "arrays":
        (next(folder.glob("arrays*"))).write_bytes(b"x")
    elif spoil == "no arrays":
        (next(folder.glob("arrays*"))).unlink()
    else:
        config, arrays = job.load(cell)
        (folder / "manifest.json").unlink()
        kind = "cell" if spoil == "other shape" else "scorer"
        artifact.save(folder, kind, config, arrays | {"margin_H": arrays["margin_H"][:-1]})
    assert not job.is_stored(cell)
    assert "a finished cell is computed again (length, all data, seed 0)" in capsys.readouterr().err
    cells.run(job, cell)
    assert job.is_stored(cell)
    assert (cells.read(job, cell).margin_H == before).all()
    assert capsys.readouterr().err == ""
