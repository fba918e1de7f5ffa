"""Malformed artifacts, caches and settings files: one file of something that the commands made is spoiled and read."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from forge import Arrays, arrays_file, forged
from hostile import SETTINGS, TOML, VALUES
from mutations import put, spoil_bytes
from runner import Outcome, run_here

Words = list[str]
WEIGHTS = {"scorer": 40, "detector": 8, "grouping": 8, "calibration": 12, "bounds": 12, "settings": 8, "features": 8}
WEIGHTS |= {"results": 2, "align": 1, "cells": 0.5}


def case(folder: Path, work: Path, draw: Random) -> tuple[Words, Path | None]:
    """Copy what the case needs into ``work`` and spoil it; the command that reads it, and its cache folder if other."""
    kind = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return CASES[kind](folder, work, draw)


def spoil(path: Path, other: Path, draw: Random) -> None:
    """One file: its bytes, its JSON values, or what lies there."""
    content = path.read_bytes()
    way = draw.choices(
        ("bytes", "values", "place", "gone"), (3, 5 if path.suffix in (".json", ".jsonl") else 0, 1, 0.3)
    )[0]
    path.unlink()
    if way == "bytes":
        path.write_bytes(spoil_bytes(content, draw))
    elif way == "values":
        path.write_text(
            json.dumps(spoiled(json.loads(content.splitlines()[0] if path.suffix == ".jsonl" else content), draw))
        )
    elif way == "place":
        put(path, content, other, draw)


def spoiled(value: Any, draw: Random, share: float = 0.4) -> Any:
    """A JSON value with something else somewhere in it: another value, a missing key, another key, a longer list."""
    if isinstance(value, dict) and value and draw.random() > share * 0.25:
        key = draw.choice(list(value))
        what = draw.random()
        if what < 0.15:
            return {name: one for name, one in value.items() if name != key}
        if what < 0.2:
            return value | {draw.choice(("x", "\x1b[2J", "__proto__")): draw.choice(VALUES)}
        return value | {key: spoiled(value[key], draw, 1.0)}
    if isinstance(value, list) and value and draw.random() > share * 0.4:
        at, what = draw.randrange(len(value)), draw.random()
        if what < 0.2:
            return value[:at] + value[at + 1 :]
        if what < 0.3:
            return [*value, value[at]]
        return [spoiled(one, draw, 1.0) if n == at else one for n, one in enumerate(value)]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw.random() < 0.4:
        return draw.choice(
            (-value, value + 1, value * 1e6, float("nan"), float("inf"), 10**30, str(value), -1, 0, 2**31)
        )
    if isinstance(value, str) and draw.random() < 0.3:
        return draw.choice(
            (value.upper(), value + "x", value[:-1], "endpoint:http://127.0.0.1:9/v1", "hf:nobody/nothing")
        )
    return draw.choice(VALUES)


def _changed(arrays: Arrays, draw: Random) -> Arrays:
    name = draw.choice(sorted(arrays))
    one = arrays[name]
    ways: list[Callable[[], Any]] = [
        lambda: one[:-1] if one.ndim else one,
        lambda: one.astype(np.float64 if one.dtype != np.float64 else np.int16),
        lambda: one.reshape(-1),
        lambda: one[None],
        lambda: np.zeros(0, one.dtype),
        lambda: np.full_like(one, np.nan) if one.dtype.kind == "f" else ~one,
        lambda: (
            np.full_like(one, np.inf)
            if one.dtype.kind == "f"
            else ~np.zeros_like(one)
            if one.dtype.kind == "b"
            else np.full_like(one, np.iinfo(one.dtype).max)
        ),
        lambda: np.concatenate([one, one]) if one.ndim else one,
        lambda: one.astype(np.uint8) if one.dtype.kind in "iub" else one.astype(np.float16),
        lambda: one.T,
    ]
    what = draw.random()
    if what < 0.15:
        return {key: value for key, value in arrays.items() if key != name}
    if what < 0.25:
        return arrays | {"more": np.arange(3.0)}
    with np.errstate(all="ignore"):
        return arrays | {name: draw.choice(ways)()}


def _spoil_folder(folder: Path, other: Path, draw: Random) -> None:
    what = draw.random()
    if what < 0.3:
        forged(folder, arrays=lambda arrays: _changed(arrays, draw) if arrays else arrays)
    elif what < 0.55:
        forged(folder, config=lambda config: spoiled(config, draw))
    else:
        spoil(draw.choice(sorted(path for path in folder.iterdir() if path.is_file())), other, draw)


# --- the kinds


def _scorer(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    kinds = sorted(path for path in folder.glob("scorer-*"))
    scorer, other = work / "scorer", draw.choice(kinds)
    shutil.copytree(draw.choice(kinds), scorer)
    manifest = scorer / "manifest.json"
    if draw.random() < 0.1:  # the files of two scorers, mixed
        taken, given = draw.choice(((manifest, other / "manifest.json"), (arrays_file(scorer), arrays_file(other))))
        shutil.copy(given, taken)
    else:
        _spoil_folder(scorer, arrays_file(other), draw)
    out, pooled = work / "out", folder / "scorer-random"
    words: list[tuple[object, ...]] = [("score", scorer, folder / "questions.jsonl")]
    words += [
        ("bounds", "explain", folder / "bounds.toml", "--scorer", scorer, "--questions", folder / "questions.jsonl")
    ]
    words += [("adapt", folder / "pairs.jsonl", "--scorer", scorer, "--out", out)]
    words += [("score", scorer, folder / "questions.jsonl", "--encoder", "static"), ("fit", folder / "pairs.jsonl")]
    words[-1] += ("--learner", "length", "--encoder", "static", "--out", scorer)
    fitted = ("--scorer", scorer, "--pooled", pooled, "--min-judgements", 1, "--draws", 50, "--out", out)
    words += [("tax", folder / "suite.jsonl", "--prefs", folder / "pairs.jsonl", *fitted)]
    return list(map(str, draw.choices(words, (6, 2, 2, 1, 1, 1))[0])), None


def _bounds_copied(folder: Path, work: Path) -> Path:
    shutil.copytree(folder / "safety", work / "safety")
    for name in ("bounds.toml", "bounds.calibration.json"):
        shutil.copy(folder / name, work / name)
    return work / "bounds.toml"


def _bounds_words(folder: Path, toml: Path, draw: Random) -> Words:
    asked = ("--scorer", folder / "scorer-pooled", "--questions", folder / "questions.jsonl")
    cut = ("--slates", folder / "slates.jsonl", "--part")
    words: list[tuple[object, ...]] = [("bounds", "check", toml), ("bounds", "explain", toml, *asked)]
    words += [("bounds", "check", toml, "--pin", "0" * 16), ("bounds", "calibrate", toml, *cut, "2/3")]
    words += [("bounds", "detector", toml, *cut, "1/3", "--encoder", "static")]
    return list(map(str, draw.choices(words, (6, 4, 1, 2, 0.5))[0]))


def _detector(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    toml = _bounds_copied(folder, work)
    _spoil_folder(work / "safety", arrays_file(folder / "scorer-pooled"), draw)
    return _bounds_words(folder, toml, draw), None


def _calibration(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    from polypref.bounds import bounds_file

    toml = _bounds_copied(folder, work)
    path = work / "bounds.calibration.json"
    if draw.random() < 0.5:
        content = json.loads(path.read_text())
        content.pop("hash", None)
        content = spoiled(content, draw)
        if isinstance(content, dict):  # signed again, as somebody who knows how would
            content["hash"] = bounds_file._hash({key: value for key, value in content.items() if key != "hash"})
        path.write_text(json.dumps(content))
    else:
        spoil(path, folder / "slates.jsonl", draw)
    return _bounds_words(folder, toml, draw), None


def _bounds(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    toml = _bounds_copied(folder, work)
    _spoil_toml(toml, folder, draw)
    return _bounds_words(folder, toml, draw), None


def _spoil_toml(path: Path, folder: Path, draw: Random) -> None:
    if draw.random() < 0.35:
        spoil(path, folder / "slates.jsonl", draw)
        return
    lines = path.read_text().splitlines()
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(lines) + 1)
        lines[at : at + draw.choice((0, 1, 1))] = [draw.choice(TOML)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _settings(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    path = work / "settings.toml"
    name = draw.choice(("check", "score", "fit", "profile", "groups"))
    base = {"score": f'scorer = "{folder}/scorer-pooled"\nfile = "{folder}/questions.jsonl"\n'}
    more = 'out = "out"\n' + ('learner = "random"\nencoder = "static"\n' if name == "fit" else 'attribute = "group"\n')
    text = base.get(name, f'files = ["{folder}/pairs.jsonl"]\n' + (more if name in ("fit", "groups") else ""))
    path.write_text(f"[{name}]\n{text}")
    if draw.random() < 0.5:
        _spoil_toml(path, folder, draw)
    else:
        path.write_text(path.read_text() + draw.choice(SETTINGS) + "\n")
    return [name, "--config", str(path)], None


def _features(folder: Path, work: Path, draw: Random) -> tuple[Words, Path]:
    cache = work / "cache"
    shutil.copytree(folder / "cache/features", cache / "features")
    (cache / "static").symlink_to(folder / "cache/static")
    store = draw.choice([path for path in (cache / "features").iterdir() if path.name.startswith("static")])
    path = store / draw.choice(("meta.json", "rows.f32", "index.bin", "lock"))
    if path.exists():
        spoil(path, folder / "slates.jsonl", draw)
    else:
        put(path, b"", folder / "slates.jsonl", draw)
    return ["score", str(folder / "scorer-pooled"), str(folder / "questions.jsonl")], cache


def _results(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    shutil.copytree(folder / "results", work / "results")
    spoil(work / "results" / "results.json", folder / "slates.jsonl", draw)
    return ["table", str(work / "results"), "--out", str(work / "out")], None


def _cells(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    name, command = draw.choice((("results", "compare"), ("new", "adapt")))
    shutil.copytree(folder / name, work / name)
    files = sorted(path for path in (work / name).rglob("*") if path.is_file())
    cells = [path for path in files if path.parent != work / name]
    spoil(draw.choice(cells or files), folder / "slates.jsonl", draw)
    more = ["--no-placebo"] if command == "compare" else ["--learners", "pooled", "--sizes", "0", "3", "--no-asked"]
    words = [
        command,
        str(folder / "pairs.jsonl"),
        "--encoder",
        "static",
        *more,
        "--seeds",
        "1",
        "--workers",
        "1",
        "--quiet",
    ]
    return [*words, "--out", str(work / name)], None


def _align(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    path = work / "align.toml"
    path.write_text(
        f'[align]\nfiles = "{folder}/pairs.jsonl"\nmodel = "nowhere"\nscorer = "{folder}/scorer-pooled"\n'
        'groups = "group"\nout = "out"\n[align.trainer]\nmax_steps = 1\n'
    )
    _spoil_toml(path, folder, draw)
    return ["align", "--config", str(path)], None


def _grouping(folder: Path, work: Path, draw: Random) -> tuple[Words, None]:
    shutil.copytree(folder / "grouping", work / "grouping")
    _spoil_folder(work / "grouping", arrays_file(folder / "scorer-pooled"), draw)
    if draw.random() < 0.2:
        words = ("groups", folder / "pairs.jsonl", "--attribute", "group", "--out", work / "grouping")
        return list(map(str, words)), None
    return ["python", "grouping", str(work / "grouping")], None


CASES: dict[str, Callable[[Path, Path, Random], tuple[Words, Path | None]]] = {
    "scorer": _scorer,
    "detector": _detector,
    "grouping": _grouping,
    "calibration": _calibration,
    "bounds": _bounds,
    "settings": _settings,
    "features": _features,
    "results": _results,
    "cells": _cells,
    "align": _align,
}


def run_python(words: Words, scratch: Path) -> Outcome:
    """What no quick command reads: loaded in Python, where an error of the library's own is the right end."""
    import polars as pl

    from polypref.errors import PolyprefError
    from polypref.groups import Grouping

    found = Outcome(code=0)
    try:
        Grouping.load(Path(words[2])).of(pl.Series(["u0", "nobody"]))
    except PolyprefError as error:
        found = run_here(["--version"], scratch)
        found.code, found.out, found.err = 2, "", f"polypref: error: {' '.join(str(error).split())}\n"
    except BaseException:  # as in runner
        found.error = traceback.format_exc()
    return found.judge()
