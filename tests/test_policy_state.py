"""Histories on disk: what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kills import kills
from polypref.errors import ArtifactError
from polypref.policy.advantages import PAPER, Normalization, Normalizer
from polypref.policy.history_file import VERSION, _text, digest, load, save

HOW = Normalization(half_life=50, min_count=3)


def told(how: Normalization = HOW, batches: int = 3) -> Normalizer:
    normalizer = Normalizer(how, ("group", "user"))
    for seed in range(batches):
        step(normalizer, seed)
    return normalizer


def step(normalizer: Normalizer, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    user_B = np.repeat(rng.integers(0, 9, 20), 4)
    groups, users = [f"g\u00e9{u % 2}" for u in user_B], user_B.tolist()
    return normalizer(rng.standard_normal(80), np.arange(80) // 4, [groups, users]).value_B


def test_what_was_saved_goes_on_bit_for_bit(tmp_path: Path) -> None:
    one = told()
    save(tmp_path / "deep" / "h.npz", [one], step=7)
    (again,), about = load(tmp_path / "deep" / "h.npz", [Normalizer(HOW, ("group", "user"))])
    assert about["step"] == 7
    assert digest([again]) == digest([one])
    np.testing.assert_array_equal(step(one, 9), step(again, 9))
    assert digest([again]) == digest([one]) != digest([told()])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["h.npz"]


def test_a_killed_save_leaves_the_old_histories_or_the_new(tmp_path: Path) -> None:
    path, like = tmp_path / "h.npz", [Normalizer(HOW, ("group", "user"))]
    old, new = [told(batches=1)], [told(batches=2)]
    save(path, old)
    seen = set()
    for _ in kills(save, path, new):
        seen.add(digest(load(path, like)[0]))
        save(path, old)
        assert [left.name for left in tmp_path.iterdir()] == ["h.npz"]
    assert seen == {digest(old), digest(new)}


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "h.npz"
    save(path, [told()])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"h\.npz cannot be read .* resume from an earlier checkpoint"):
        load(path, [Normalizer(HOW, ("group", "user"))])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"h\.npz is missing: groups would start again"):
        load(tmp_path / "h.npz", [Normalizer()])


def test_another_versions_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "h.npz", about=_text({"version": VERSION + 1}))
    with pytest.raises(ArtifactError, match=f"is of version {VERSION + 1}, this polypref reads version {VERSION}"):
        load(tmp_path / "h.npz", [Normalizer()])


def test_changed_settings_are_named(tmp_path: Path) -> None:
    save(tmp_path / "h.npz", [told()])
    with pytest.raises(ArtifactError, match="half_life was 50, now None, min_count was 3, now 5"):
        load(tmp_path / "h.npz", [Normalizer(replace(HOW, half_life=None, min_count=5), ("group", "user"))])
    with pytest.raises(ArtifactError, match=r"levels was \['group', 'user'\], now \['group'\]"):
        load(tmp_path / "h.npz", [Normalizer(HOW)])
    with pytest.raises(ArtifactError, match="1 reward functions with a history each, now 2"):
        load(tmp_path / "h.npz", [Normalizer(PAPER), Normalizer(PAPER)])
