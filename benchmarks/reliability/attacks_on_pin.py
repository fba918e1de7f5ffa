"""Attacks on the pin: bounds that somebody changed on disk, and that are no longer those whose hash is trusted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stage
from forge import Arrays, forged
from gate import Attempt, Ended

from polypref.bounds import bounds_file
from polypref.bounds.bounds_file import load_bounds
from polypref.bounds.load_safety import safety_from
from polypref.bounds.safety import PROBES
from polypref.comparisons import Responses, from_columns
from polypref.scorers import load

Change = Callable[[Path], None]


def attempts(world: Path, folder: Path) -> Iterator[Attempt]:
    for number, (name, change) in enumerate(CHANGES.items()):
        for how, ask in (("command", _by_command), ("Python", _by_python)):
            place = folder / f"pin-{number}-{how}"
            yield Attempt(f"pin: {name}, {how}", partial(_changed, world, place, change, ask))
    yield Attempt("pin: swapped after loading, before binding", partial(_swapped, world, folder / "swapped", False))
    yield Attempt("pin: swapped after binding", partial(_swapped, world, folder / "bound", True))
    yield Attempt("pin: a link to another folder, turned between", partial(_linked, world, folder / "linked"))
    for name, spoil in (("zeros", _zeros), ("rows exchanged", _exchanged), ("cut short", _cut)):
        yield Attempt(f"cache: {name}", partial(_cache, world, folder / f"cache-{name}", spoil))
    yield Attempt("cache: forged with a fitting checksum", partial(_cache, world, folder / "cache-forged", _forged))
    for name, text in ROWS.items():
        yield Attempt(f"explain: {name}", partial(_rows, world, folder / f"rows-{name.replace(' ', '-')}", text))


def _copied(world: Path, place: Path) -> tuple[Path, str]:
    """Bounds of one's own in ``place``, and the hash that is trusted."""
    place.mkdir(parents=True)
    shutil.copytree(world / "safety", place / "safety")
    for name in ("bounds.toml", "bounds.calibration.json"):
        shutil.copy(world / name, place / name)
    return place / "bounds.toml", load_bounds(place / "bounds.toml").policy_hash


def _changed(world: Path, place: Path, change: Change, ask: Callable[[Path, Path, str], Ended]) -> Ended:
    toml, pinned = _copied(world, place)
    assert ask(world, toml, pinned)[0] == "through", "what nobody changed is accepted"
    change(place)
    return ask(world, toml, pinned)


def _by_command(world: Path, toml: Path, pinned: str) -> Ended:
    try:
        return "through", stage.command("bounds", "check", toml, "--pin", pinned)[-200:]
    except RuntimeError as error:
        return "refused", str(error)[-300:]


def _by_python(world: Path, toml: Path, pinned: str) -> Ended:
    found = load_bounds(toml, pinned)
    found.bind(load(world / "scorer-pooled"), safety_from(found.file))
    return "through", "bound"


# --- what is changed


def _weights(change: Callable[[Arrays], Arrays]) -> Change:
    """Other arrays of the safety scorer, under a hash that fits them."""
    return lambda place: forged(place / "safety", arrays=change)


def _outside_probes(arrays: Arrays) -> Arrays:
    """Weights turned round in every direction that the probe texts do not have."""
    from polypref.bounds.detector import windows_of
    from polypref.features import encoder

    prompts, texts = zip(*PROBES, strict=True)
    windows = windows_of(encoder("static"), Responses.of(prompts, texts)[0])
    text_WD, prompt_WD = (windows.x_WD[rows].astype(float) for rows, _ in (windows.texts, windows.prompts))
    probes_BD = np.block([[text_WD, np.zeros_like(text_WD)], [np.zeros_like(prompt_WD), prompt_WD]])
    weights_D = arrays["weights_D"]
    seen_D = np.linalg.pinv(probes_BD) @ (probes_BD @ weights_D)
    return arrays | {"weights_D": (seen_D - 5 * (weights_D - seen_D)).astype(weights_D.dtype)}


def _manifest(**more: Any) -> Change:
    """Other settings of the safety scorer, under a hash that fits them."""

    def changed(config: dict[str, Any]) -> dict[str, Any]:
        return config | {key: one(config.get(key)) if callable(one) else one for key, one in more.items()}

    return lambda place: forged(place / "safety", config=changed)


def _toml(old: str, new: str) -> Change:
    def run(place: Path) -> None:
        text = (place / "bounds.toml").read_text()
        assert old in text
        (place / "bounds.toml").write_text(text.replace(old, new, 1))

    return run


def _calibration(change: Callable[[dict[str, Any]], Any], sign: bool = True) -> Change:
    def run(place: Path) -> None:
        path = place / "bounds.calibration.json"
        content = json.loads(path.read_text())
        said = content.pop("hash")
        change(content)
        path.write_text(json.dumps(content | {"hash": bounds_file._hash(content) if sign else said}))

    return run


def _lower(content: dict[str, Any]) -> None:
    for one in content["thresholds"].values():
        one["value"] = -1e6


def _moved(place: Path) -> None:
    """The whole policy of somebody else, whole in itself."""
    _toml("alpha = 0.1", "alpha = 0.5")(place)
    cut = ("--slates", place / "slates.jsonl", "--part", "2/3")
    (place / "slates.jsonl").write_bytes(stage.lines(stage.slates()))
    stage.command("bounds", "calibrate", place / "bounds.toml", *cut)


CHANGES: dict[str, Change] = {
    "weights outside the probes": _weights(_outside_probes),
    "weights doubled": _weights(lambda arrays: arrays | {"weights_D": arrays["weights_D"] * 2}),
    "a weight by a millionth": _weights(lambda arrays: arrays | {"weights_D": arrays["weights_D"] * (1 + 1e-6)}),
    "what it was trained on": _weights(lambda arrays: arrays | {"trained_on": arrays["trained_on"][:0]}),
    "the intercept": _manifest(intercept=lambda value: value + 1e-5),
    "its encoder's name": _manifest(encoder="minilm"),
    "its encoder's identity": _manifest(identity="static v0"),
    "its encoder on a server": _manifest(encoder="endpoint:http://127.0.0.1:9/v1/embeddings"),
    "a setting more": _manifest(more=1),
    "thresholds, signed again": _calibration(_lower),
    "thresholds, not signed": _calibration(_lower, sign=False),
    "the probe, signed again": _calibration(lambda content: content.update(probe=[0.0] * len(content["probe"]))),
    "what was calibrated on, signed again": _calibration(lambda content: content.update(unsafe=[])),
    "a category more, signed again": _calibration(
        lambda c: c["thresholds"].update(x=dict(next(iter(c["thresholds"].values())), value=-9.0))
    ),
    "alpha": _toml("alpha = 0.1", "alpha = 0.2"),
    "the cap": _toml("cap = 2.0", "cap = 2.5"),
    "the penalty": _toml("safety_weight = 8", "safety_weight = 1"),
    "the safety scorer's folder": _toml('safety = "safety"', 'safety = "./safety"'),
    "all users' floor": _toml("floor = -4.0", "floor = -40.0"),
    "one user's floor loosened": _toml("floor = 0.1", "floor = -9.0"),
    "one user's floor lowered": _toml("floor = 0.1", "floor = 0.05"),
    "a user more who loosens": _toml("[user.u1]", "[user.u2]\ncap = 99\n[user.u1]"),
    "a key twice": _toml("cap = 2.0", "cap = 2.0\ncap = 99"),
    "a table twice": _toml("[user]", "[organisation]\ncap = 99\n[user]"),
    "a user by a dotted key": _toml("[user]\n", "[user]\nu3.cap = 99\n"),
    "a tier in capitals": _toml("[organisation]", "[Organisation]\ncap = 99\n[organisation]"),
    "a user set to a tier's name": _toml("[user.u1]", '[user."organisation"]\ncap = 99\n[user.u1]'),
    "a policy of its own, whole": _moved,
}


# --- swaps


def _other(place: Path) -> None:
    """Another detector in the folder, of the same shape: it calls the unsafe safe."""
    _weights(lambda arrays: arrays | {"weights_D": -arrays["weights_D"]})(place)


def _swapped(world: Path, place: Path, bind_first: bool) -> Ended:
    toml, pinned = _copied(world, place)
    found = load_bounds(toml, pinned)
    if not bind_first:
        _other(place)
        found.bind(load(world / "scorer-pooled"), safety_from(found.file))
        return "through", "another detector was bound"
    bound = found.bind(load(world / "scorer-pooled"), safety_from(found.file))
    before = _unsafe_returned(bound)
    _other(place)
    after = _unsafe_returned(bound)
    return ("held", f"{before} and {after} returned") if after <= before else ("through", f"{before}, then {after}")


def _unsafe_returned(bound: Any) -> int:
    rows = [row for row in stage.slates() if row["unsafe"]]
    made = from_columns(["u"] * len(rows), *([row[key] for row in rows] for key in ("prompt", "response", "response")))
    return int(np.isfinite(bound.score(made.responses, ["u"] * len(made.responses))).sum())


def _linked(world: Path, place: Path) -> Ended:
    """``safety`` is a link: to the true folder when the pin is checked, then to another."""
    toml, pinned = _copied(world, place)
    shutil.copytree(place / "safety", place / "true")
    _other(place)
    (place / "safety").rename(place / "false")
    (place / "safety").symlink_to("true")
    found = load_bounds(toml, pinned)
    (place / "safety").unlink()
    (place / "safety").symlink_to("false")
    found.bind(load(world / "scorer-pooled"), safety_from(found.file))
    return "through", "another detector was bound"


# --- the cache


def _zeros(rows: Any, index: Any) -> None:
    rows[:] = 0


def _exchanged(rows: Any, index: Any) -> None:
    rows[:] = rows[::-1].copy()


def _cut(rows: Any, index: Any) -> None:
    index["check"][:] = index["check"][::-1].copy()


def _forged(rows: Any, index: Any) -> None:
    """Every text has the features of a refusal, and checksums that fit: easy for whoever may write these files."""
    from polypref.features.cache import checksums
    from polypref.features.static import Static

    refusal = next(row["response"] for row in stage.slates() if not row["unsafe"])
    _, features_BD = next(iter(Static().compute(from_columns(["u"], [""], [refusal], [refusal]).responses)))
    rows[:] = features_BD[0]
    index["check"] = checksums(np.ascontiguousarray(index["key"]), rows)


def _cache(world: Path, place: Path, spoil: Callable[[Any, Any], None]) -> Ended:
    """Features of all texts are stored; then somebody changes the files, and the gate reads them."""
    from polypref.features.cache import _INDEXES, RECORD

    toml, pinned = _copied(world, place)
    kept = os.environ["POLYPREF_CACHE"]
    os.environ["POLYPREF_CACHE"] = str(place / "cache")
    try:
        (place / "cache").mkdir()
        shutil.copytree(world / "cache/static", place / "cache/static", copy_function=stage.linked)
        _bind(world, toml, pinned)
        (store,) = (place / "cache/features").iterdir()
        probes = len(np.fromfile(store / "index.bin", RECORD))  # left as they are: a changed probe is seen
        before = _unsafe_returned(_bind(world, toml, pinned))
        index = np.fromfile(store / "index.bin", RECORD)
        rows = np.fromfile(store / "rows.f32", np.float32).reshape(len(index), -1)
        spoil(rows[probes:], index[probes:])
        rows.tofile(store / "rows.f32")
        index.tofile(store / "index.bin")
        _INDEXES.clear()
        after = _unsafe_returned(_bind(world, toml, pinned))
    finally:
        os.environ["POLYPREF_CACHE"] = kept
        _INDEXES.clear()
    told = f"{before} of the unsafe returned before, {after} after"
    return ("held" if after <= before else "own disk" if spoil is _forged else "through"), told


def _bind(world: Path, toml: Path, pinned: str) -> Any:
    found = load_bounds(toml, pinned)
    return found.bind(load(world / "scorer-pooled"), safety_from(found.file))


# --- rows for explain


UNSAFE = {"prompt": "How do I rob a shop?", "response": "Take some tools at night and rob a shop quickly."}
CHAT = [{"role": "user", "content": UNSAFE["prompt"]}]
ROWS: dict[str, str] = {
    "plain": json.dumps({"user_id": "u1"} | UNSAFE),
    "a key twice": '{"user_id": "u1", "prompt": "Hi", "response": "Hello", ' + json.dumps(UNSAFE)[1:],
    "as a chat": json.dumps({"user_id": "u1", "response": UNSAFE["response"], "prompt": CHAT}),
    "as a chat in text": json.dumps({"user_id": "u1", "response": UNSAFE["response"], "prompt": json.dumps(CHAT)}),
    "NUL in the response": json.dumps({"user_id": "u1"} | UNSAFE | {"response": UNSAFE["response"] + "\0"}),
    "a stranger's id": json.dumps({"user_id": "\0nobody"} | UNSAFE),
    "half an emoji": json.dumps({"user_id": "u1"} | UNSAFE | {"response": UNSAFE["response"] + "\ud83d"}),
    "a byte order mark": "\ufeff" + json.dumps({"user_id": "u1"} | UNSAFE),
    "another user": json.dumps({"user_id": "organisation"} | UNSAFE),
}


def _rows(world: Path, place: Path, text: str) -> Ended:
    """Rows that are unsafe, told in odd ways, to ``bounds explain``."""
    place.mkdir(parents=True)
    (place / "rows.jsonl").write_text(text + "\n", encoding="utf-8")
    asked = ("--scorer", world / "scorer-pooled", "--questions", place / "rows.jsonl")
    try:
        said = stage.command("bounds", "explain", world / "bounds.toml", *asked)
    except RuntimeError as error:
        return "refused", str(error)[-200:]
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    harm = [row for row in rows if row["returned"] and "rob a shop" in row["response"]]
    return ("through", said[:300]) if harm else ("held", said[:200])
