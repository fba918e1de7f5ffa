"""Features in memory: the same values, nothing on disk, nothing encoded twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import polypref
from polypref.cli import main
from polypref.errors import SettingsError
from polypref.features import encode_missing
from polypref.testing import people
from test_cache import TEXTS, Fake, pool, truth


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(encode_missing, "_KEPT", {})


def test_values_are_the_same_and_the_disk_stays_as_it_was(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path), cache="memory")
    assert fake.encode(pool([])).shape[0] == 0
    np.testing.assert_array_equal(fake.encode(pool(TEXTS[:20])), truth(TEXTS[:20]))
    mixed = [*TEXTS[10:], TEXTS[12]]
    np.testing.assert_array_equal(fake.encode(pool(mixed)), truth(mixed))
    assert sorted(fake.seen) == sorted(TEXTS), "each text once"
    assert list(tmp_path.iterdir()) == []
    replace(fake, cache="disk").encode(pool(TEXTS))
    assert list(tmp_path.iterdir()) != [], "a cache on disk would be seen"


def test_texts_in_passing_are_not_kept(tmp_path: Path) -> None:
    fake = Fake(str(tmp_path), cache="memory")
    fake.encode(pool(TEXTS[:10]))
    with encode_missing.no_store():
        np.testing.assert_array_equal(fake.encode(pool(TEXTS)), truth(TEXTS))
    fake.seen.clear()
    fake.encode(pool(TEXTS))
    assert sorted(fake.seen) == sorted(TEXTS[10:])


@pytest.mark.parametrize("name", ["minilm", "hf:some/model", "endpoint:http://localhost", "minilm+static"])
def test_every_encoder_takes_the_setting(name: str) -> None:
    parts = getattr(chosen := polypref.encoder(name, cache="memory"), "parts", (chosen,))
    assert [part.cache for part in parts] == ["memory"] * len(parts)
    with encode_missing.caching_in("memory"):
        inner = polypref.encoder(name)
    assert [part.cache for part in getattr(inner, "parts", (inner,))] == ["memory"] * len(parts)
    assert polypref.encoder(name) == inner, "values do not depend on it"
    with pytest.raises(SettingsError, match="expected 'disk' or 'memory'"):
        polypref.encoder(name, cache="cloud")


def test_no_cache_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    fitted = polypref.LEARNERS["individual"].fit(people(), encoder=polypref.encoder("minilm", cache="memory"), seed=0)
    polypref.save(fitted, tmp_path / "s")
    (tmp_path / "q.jsonl").write_text('{"user_id": "u0", "prompt": "P", "response": "an answer"}\n')
    assert main(["score", str(tmp_path / "s"), str(tmp_path / "q.jsonl"), "--no-cache"]) == 0
    without = capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
    assert main(["score", str(tmp_path / "s"), str(tmp_path / "q.jsonl")]) == 0
    assert (tmp_path / "cache").exists(), "a cache would be seen"
    assert capsys.readouterr().out == without
