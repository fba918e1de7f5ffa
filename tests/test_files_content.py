"""Files of settings and results are read within bounds: no pipe is waited for, nothing without an end is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref.bounds.bounds_file import read_bounds
from polypref.cli import main
from polypref.comparisons import Responses
from polypref.errors import CacheError, InputError, SettingsError
from polypref.evaluation.results_schema import CompareContents
from polypref.features import cache
from polypref.features.encode_missing import encode_cached
from polypref.files import write
from polypref.regular_files import content_of


@dataclass(frozen=True)
class Numbers:
    """An encoder: the length of each text, and one."""

    cache_folder: Path
    cache = "disk"
    name: str = "numbers"
    identity: str = "numbers v1"

    def compute(self, responses):
        lengths_R = responses.lengths_R.astype(np.float32)
        yield np.arange(len(responses)), np.stack([lengths_R, np.ones_like(lengths_R)], axis=1)


def test_a_file_is_read_whole_also_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b") == b"abc"
    with pytest.raises(OSError, match="3 bytes; expected at most 2"):
        content_of(tmp_path / "a", 2)


@pytest.fixture(params=["pipe", "zero", "folder"])
def endless(tmp_path, request):
    path = tmp_path / "endless.toml"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_what_is_no_file_is_refused_at_once(endless, capsys):
    with pytest.raises(OSError):
        content_of(endless)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_bounds(endless)
    with pytest.raises(InputError, match="cannot be read"):
        CompareContents.read(endless)
    assert main(["check", "--config", str(endless)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, "9" * 5000, '"\\ud800"'])
def test_toml_that_its_parser_gives_up_on_is_one_line(tmp_path, capsys, value):
    path = tmp_path / "settings.toml"
    path.write_text(f"[immutable]\nsafety = {value}\n[check]\nfiles = {value}\n")
    with pytest.raises(SettingsError, match="not TOML"):
        read_bounds(path)
    assert main(["check", "--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["prefs.jsonl", "prefs.csv.gz", "prefs.parquet"])
def test_pipes_and_devices_are_no_preference_files(tmp_path, capsys, name):
    pipe, device = tmp_path / name, tmp_path / f"device.{name}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/full")
    for path in (pipe, device):
        for words in (["check", path], ["convert", "arena", path, "--out", tmp_path / "out.csv"]):
            assert main([str(word) for word in words]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert "is not a regular file" in said


def test_a_published_set_with_columns_of_another_type_is_one_line(tmp_path, capsys):
    path = tmp_path / "arena.jsonl"
    path.write_text(
        '{"conversation_a": "x", "conversation_b": 1, "judge": "j", "winner": "model_a", "tstamp": 1, "turn": 1}\n'
    )
    assert main(["convert", "arena", str(path), "--out", str(tmp_path / "out.csv")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "arena.jsonl" in said


def test_bytes_in_a_published_set_are_one_line_without_a_panic(tmp_path, capfd):
    path = tmp_path / "prism.parquet"
    pl.DataFrame({"user_id": ["u"], "user_prompt": [{"a": b"x"}]}).write_parquet(path)
    assert main(["convert", "prism", str(path), "--out", str(tmp_path / "out.csv")]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and 'column "user_prompt" holds bytes' in said


def test_a_pipe_that_nobody_reads_is_no_place_to_write_to(tmp_path):
    os.mkfifo(tmp_path / "out")
    with pytest.raises(CacheError, match="cannot write"):
        write(tmp_path / "out", "x")


@pytest.mark.parametrize("name", ["index.bin", "rows.f32", "meta.json"])
@pytest.mark.parametrize("kind", ["pipe", "zero"])
def test_a_cache_file_that_is_a_pipe_or_has_no_end_is_made_again(tmp_path, capsys, name, kind):
    def features():
        texts = Responses.of(["p", "p"], ["one", "another"])[0]  # a pool remembers what it was given
        return encode_cached(Numbers(tmp_path), "response", texts)

    before = features().tolist()
    (path,) = tmp_path.glob(f"features/*/{name}")
    path.unlink()
    cache._INDEXES.clear()  # as another process finds it
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    assert features().tolist() == before
    assert "encoded again" in capsys.readouterr().err
    assert features().tolist() == before
    assert capsys.readouterr().err == ""
