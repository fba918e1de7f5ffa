"""Histories on disk: one npz file with numbers, names and a fingerprint of the settings used to collect them.

Covered: a file is written whole or not at all; a damaged file, one of another version, and one collected under other
settings are refused with the reason. Not covered: two trainers that write to one folder (the trainer refuses that).
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref import strict_json
from polypref.errors import ArtifactError
from polypref.files import write
from polypref.policy.advantages import Level, Normalizer
from polypref.policy.drift import DriftAlarm
from polypref.policy.history import RewardHistory
from polypref.regular_files import content_of

VERSION = 1
NAME = "pgrpo_history.npz"
UNSAID = {"group_weight": 0.0}  # of files from before that setting

MOST = 1 << 34  # bytes of histories
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def settings_of(normalizer: Normalizer) -> dict[str, Any]:
    """What decides what a history means."""
    return {**asdict(normalizer.how), "levels": list(normalizer.names)}


def arrays(normalizers: list[Normalizer]) -> dict[str, NDArray]:
    """Numbers and names by where they belong: ``<n>.<level>.<history>.<array>``, ``<n>.alarm.<array>``, ``<n>.seen_G``.

    What counts rewards for group weights and what watches for drift are there where the settings use them.
    """
    found: dict[str, NDArray] = {}
    for n, normalizer in enumerate(normalizers):
        for at, level in enumerate(normalizer.levels):
            for kind, history in (("rewards", level.rewards), ("residuals", level.residuals)):
                found |= {f"{n}.{at}.{kind}.{name}": array for name, array in history.arrays().items()}
            found[f"{n}.{at}.keys"] = _text([list(key) for key in level.numbers])
        if normalizer.how.group_weight:
            found[f"{n}.seen_G"] = normalizer.weights.seen_G
        if normalizer.how.adaptive:
            found |= {f"{n}.alarm.{name}": array for name, array in normalizer.alarm.arrays().items()}
    return found


def digest(normalizers: list[Normalizer]) -> str:
    """Equal for equal histories, bit for bit."""
    whole = blake2b(digest_size=16)
    for name, array in sorted(arrays(normalizers).items()):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def save(path: Path, normalizers: list[Normalizer], **config: Any) -> None:
    """Write the histories and ``config`` (JSON). Raises CacheError when that cannot be."""
    about = {"version": VERSION, "settings": [settings_of(n) for n in normalizers], **config}
    content = BytesIO()
    np.savez(content, allow_pickle=False, about=_text(about), **arrays(normalizers))
    write(path, content.getvalue())


def load(path: Path, like: list[Normalizer], **config: Any) -> tuple[list[Normalizer], dict[str, Any]]:
    """The histories in ``path``, gathered under the settings of ``like`` and equal ``config``; and all that was saved.

    Raises ArtifactError when there is no such file, or it is damaged, of another version or of other settings.
    """
    try:
        with np.load(BytesIO(content_of(path, MOST)), allow_pickle=False) as file:
            about, found = _json(file["about"]), {name: file[name] for name in file.files if name != "about"}
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: groups would start again without history, and training would not go on as it was. "
            "Put the file back, or start a new run without resuming."
        ) from None
    except DAMAGED as error:
        raise ArtifactError(f"{path} cannot be read ({error}); resume from an earlier checkpoint.") from error
    if about.get("version") != VERSION:
        raise ArtifactError(
            f"{path} is of version {about.get('version')}, this polypref reads version {VERSION}; resume with the "
            "polypref that wrote it, or start a new run."
        )
    expected = [{**settings_of(normalizer), **config} for normalizer in like]
    same = {name: about.get(name) for name in config}
    had = [{**UNSAID, **settings, **same} for settings in about.get("settings", [])]
    if had != expected:
        raise ArtifactError(f"{path} was gathered under other settings: {_difference(had, expected)}.")
    try:
        return [_restored(found, n, normalizer) for n, normalizer in enumerate(like)], about
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} lacks {error}; resume from an earlier checkpoint.") from error


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint holds readable histories that were saved between batches of generations."""
    try:
        with np.load(BytesIO(content_of(checkpoint / NAME, MOST)), allow_pickle=False) as file:
            return bool(_json(file["about"]).get("whole"))
    except DAMAGED:
        return False


def _restored(found: dict[str, NDArray], n: int, like: Normalizer) -> Normalizer:
    normalizer = Normalizer(like.how, like.names)
    for at, level in enumerate(normalizer.levels):
        keys = [tuple(key) for key in _json(found[f"{n}.{at}.keys"])]
        histories = {}
        for kind in ("rewards", "residuals"):
            own = {name: found[f"{n}.{at}.{kind}.{name}"] for name in level.rewards.arrays()}
            histories[kind] = RewardHistory.from_arrays(own, like.how.half_life)
        numbers = {key: number for number, key in enumerate(keys)}
        normalizer.levels[at] = Level(histories["rewards"], histories["residuals"], numbers)
    if like.how.group_weight:
        normalizer.weights.seen_G = np.array(found[f"{n}.seen_G"], np.float64)
    if like.how.adaptive:
        alarm = {name: found[f"{n}.alarm.{name}"] for name in normalizer.alarm.arrays()}
        normalizer.alarm = DriftAlarm.from_arrays(alarm)
    return normalizer


def _difference(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    if len(was) != len(now):
        return f"{len(was)} reward functions with a history each, now {len(now)}"
    pairs = [(name, old.get(name), new.get(name)) for old, new in zip(was, now, strict=True) for name in {**old, **new}]
    return ", ".join(dict.fromkeys(f"{name} was {old!r}, now {new!r}" for name, old, new in pairs if old != new))


def _text(content: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def _json(array: NDArray[np.uint8]) -> Any:
    return strict_json.loads(array.tobytes())
