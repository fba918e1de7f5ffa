"""The small world that the reliability studies run on: files of every layout, and an artifact of every kind.

Everything is made by the commands themselves, with the encoder ``static``, so that a case takes milliseconds. The
folder is made once and copied for cases that change what is in it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
QUICK = ("random", "pooled")
KINDS = ("length", "individual", "hierarchical", "nearest-neighbours", "conditional", "dpl", "meta-low-rank")
BOUNDS = """\
[immutable]
safety = "safety"
alpha = 0.1
delta = 0.1
[organisation]
cap = 2.0
safety_weight = 8
ample = 3.0
most_candidates = 16
[user]
floor = -4.0
[user.u1]
floor = 0.1
"""
TONES = ("You might try", "Certainly! First", "Do it:", "Nobody knows, but")


# --- rows of every layout


def pairs(users: int = 6, each: int = 8) -> list[Row]:
    """Judgements in the layout of pairs, with every optional column."""
    draw = random.Random(1)
    rows = []
    for n in range(users * each):
        at = draw.randrange(12)
        texts = [f"{tone} boil it for {at} minutes \\nabla é" for tone in draw.sample(TONES, 2)]
        one: Row = {"user_id": f"u{n % users}", "prompt": f"How long do I boil egg {at}?", "chosen": texts[0]}
        one |= {"rejected": texts[1], "pair_id": f"e{at}", "weight": 1 + at % 2, "tie": n % 9 == 0}
        one |= {"timestamp": 1_700_000_000 + 60 * n, "seconds": 5 + at, "chosen_pos": n % 2}
        one |= {"attributes": {"group": "ab"[n % users % 2], "age": n % users, "born in": "Łódź"}}
        rows.append(one)
    return rows


def labels() -> list[Row]:
    keep = ("user_id", "prompt", "attributes")
    kinds = ("A", "B", "tie")
    return [
        {key: one[key] for key in keep}
        | {"response_a": one["chosen"], "response_b": one["rejected"], "label": kinds[n % 3]}
        for n, one in enumerate(pairs())
    ]


def ratings() -> list[Row]:
    return [
        {"user_id": one["user_id"], "prompt": one["prompt"], "response": one[side], "rating": 1 + (n * 7 + at) % 5}
        for n, one in enumerate(pairs())
        for at, side in enumerate(("chosen", "rejected"))
    ]


def rankings() -> list[Row]:
    return [
        {
            "user_id": f"u{n % 6}",
            "prompt": f"How long do I boil egg {n % 5}?",
            "responses": [f"{tone} {n % 5}" for tone in TONES],
            "ranking": [1 + (at + n) % 4 for at in range(4)],
        }
        for n in range(24)
    ]


def chats() -> list[Row]:
    """Pairs as lists of messages, without a prompt column."""

    def turns(one: Row, side: str) -> list[Row]:
        return [{"role": "user", "content": one["prompt"]}, {"role": "assistant", "content": one[side]}]

    return [
        {"user_id": one["user_id"], "chosen": turns(one, "chosen"), "rejected": turns(one, "rejected")}
        for one in pairs()
    ]


def chat_prompts() -> list[Row]:
    return [one | {"prompt": [{"role": "user", "content": one["prompt"]}]} for one in pairs()]


def questions() -> list[Row]:
    return [{"user_id": one["user_id"], "prompt": one["prompt"], "response": one["chosen"]} for one in pairs()[:12]]


def slates() -> list[Row]:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from labelled_slates import rows
    finally:
        sys.path.pop(0)
    return rows()


def suite() -> list[Row]:
    return [
        {
            "prompt": f"What is {n} plus {n}?",
            "chosen": str(2 * n),
            "rejected": str(n),
            "subset": "sums",
            "section": "math",
        }
        | {"id": n}
        for n in range(8)
    ]


LAYOUTS = {
    "pairs": pairs,
    "labels": labels,
    "ratings": ratings,
    "rankings": rankings,
    "chats": chats,
    "chat prompts": chat_prompts,
}


# --- published sets


def psoups() -> list[Row]:
    from polypref.data.published.psoups import INSTRUCTIONS

    return [
        {"user_input": f"Q{n}? {INSTRUCTIONS['P1A']}", "completion_a": f"a{n}", "completion_b": f"b{n}"}
        for n in range(8)
    ]


def tldr() -> list[Row]:
    info = {"title": "t", "subreddit": "tifu", "site": None, "article": None}
    return [
        {
            "info": info | {"id": f"t3_{n}", "post": f"post {n}"},
            "summaries": [{"text": f"{text} {n}", "policy": "sup4_6b", "note": "ok"} for text in ("long", "short")],
            "choice": n % 2,
            "worker": f"w{n % 5}",
            "batch": "batch3.json",
            "split": "train" if n % 4 else "valid1",
            "extra": {"confidence": None},
        }
        for n in range(40)
    ]


def personalllm() -> list[Row]:
    from polypref.data.published.personalllm import SCALES

    draw, rows = random.Random(2), []
    for p in range(4):
        row: Row = {"prompt": f"prompt {p}", "subset": "mt-bench", "prompt_id": p}
        for i in range(1, 9):
            row |= {f"response_{i}": f"answer {i} to {p}", f"response_{i}_model": f"m{i}"}
            row |= {f"response_{i}_{name}": mean + sd * draw.gauss(0, 1) for name, (mean, sd) in SCALES.items()}
        rows.append(row)
    return rows


def prism() -> list[Row]:
    own = {"conversation_id": "c0", "user_id": "user0", "conversation_type": "unguided", "model_name": "zephyr"}
    return [
        own
        | {"utterance_id": f"ut{n}", "interaction_id": f"int{n // 3}", "turn": n // 3, "within_turn_id": n % 3}
        | {"user_prompt": f"question {n // 3}", "model_response": f"answer {n}", "model_provider": "huggingface_api"}
        | {"score": 10 * (n % 7), "if_chosen": n % 3 == 0, "included_in_balanced_subset": True}
        for n in range(12)
    ]


def arena() -> list[Row]:
    return [
        {"question_id": f"id{n}", "model_a": "a", "model_b": "b", "winner": ("model_a", "model_b", "tie")[n % 3]}
        | {"judge": f"arena_user_{n % 4}", "turn": 1, "language": "English", "tstamp": 1682351591.13 + n}
        | {
            f"conversation_{side}": [
                {"content": f"q{n}", "role": "user"},
                {"content": f"{side}{n}", "role": "assistant"},
            ]
            for side in "ab"
        }
        for n in range(12)
    ]


def personal_rewardbench() -> list[Row]:
    return [
        {
            "user_id": f"user{n % 3}",
            "context": [{"role": "user", "content": f"so {n}?"}],
            "chosen": {"role": "assistant", "content": f"good {n}"},
            "rejected": {"role": "assistant", "content": "bad"},
            "chosen_score": None,
            "split": "train",
        }
        for n in range(9)
    ]


PUBLISHED = {
    "psoups": psoups,
    "tldr": tldr,
    "personalllm": personalllm,
    "prism": prism,
    "arena": arena,
    "personal-rewardbench": personal_rewardbench,
}


# --- artifacts


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def use_cache(root: Path) -> None:
    """Caches of this process lie under ``root``; the distilled model is taken from the user's own cache if there."""
    from polypref.features.cache import cache_root

    own, here = cache_root() / "static", root / "static"
    if own.is_dir() and not here.exists():
        shutil.copytree(own, here, copy_function=linked)
    os.environ["POLYPREF_CACHE"] = str(root)


def linked(source: str, target: str) -> None:
    """A second name for a file that nobody changes, or a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def command(*words: object) -> str:
    """Run a command here; returns what it said. Raises RuntimeError where it fails."""
    from polypref.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    if code:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {code}: {said.getvalue()[-500:]}")
    return said.getvalue()


def build(folder: Path, kinds: tuple[str, ...] = QUICK, results: bool = True) -> Path:
    """Make the world in ``folder``, anew unless one of this very library is there; ``results``: with result folders,
    which take some seconds."""
    stamp, made = _stamp(kinds, results), folder / "whole"
    if made.exists() and made.read_text() == stamp:
        use_cache(folder / "cache")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    use_cache(folder / "cache")
    files = {name.replace(" ", "-"): rows() for name, rows in LAYOUTS.items()}
    files |= {"crowd": pairs(12, 10), "questions": questions(), "slates": slates(), "suite": suite()}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_bytes(lines(rows))
    prefs, static = folder / "pairs.jsonl", ("--encoder", "static")
    for kind in kinds:
        command("fit", prefs, "--learner", kind, *static, "--out", folder / f"scorer-{kind}")
    command("groups", prefs, "--attribute", "group", "--out", folder / "grouping")
    (folder / "bounds.toml").write_text(BOUNDS)
    for action, part in (("detector", "1/3"), ("calibrate", "2/3")):
        more = static if action == "detector" else ()
        cut = ("--slates", folder / "slates.jsonl", "--part", part)
        command("bounds", action, folder / "bounds.toml", *cut, *more)
    settings = f'[check]\nfiles = ["{prefs}"]\nrating_gap = 0.5\n[score]\nscorer = "scorer-pooled"\nfile = "q"\n'
    (folder / "settings.toml").write_text(settings)
    if results:
        few = ("--seeds", "1", "--workers", "1", "--quiet")
        command("compare", prefs, *static, "--no-placebo", *few, "--out", folder / "results")
        command(
            *("adapt", prefs, *static, "--learners", "pooled", "--sizes", 0, 3, "--no-asked"),
            *few,
            "--out",
            folder / "new",
        )
    made.write_text(stamp)
    return folder


def _stamp(*what: object) -> str:
    """Of the library's source and of this file: artifacts of another version are no fair game."""
    whole = sha256(repr(what).encode())
    for path in (*sorted((ROOT / "src").rglob("*.py")), Path(__file__)):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def environment() -> dict[str, str]:
    """What every figure of these studies is told with."""
    from importlib.metadata import version

    packages = ("polypref", "polars", "numpy", "safetensors")
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {"commit": commit.stdout.strip() or "unknown", "python": sys.version.split()[0]} | {
        name: version(name) for name in packages
    }
