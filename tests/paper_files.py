"""Miniatures of the evaluation paper's three sets in their published shapes, and of a benchmark; tastes are planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from published_files import dump, personalllm_rows

WORDS = ("rain", "river", "stone", "bread", "cloud", "garden", "copper", "winter", "letter", "harbour")


def psoups_mirror(folder: Path, prompts: int = 40) -> str:
    """Six people who judge the same pairs; odd uids like the longer answer, even ones the shorter."""
    rows = []
    for p in range(prompts):
        word = WORDS[p % 10]
        answers = (f"{word} {p}.", f"{word} {p}, and much more about {word} than anybody asked for.")
        for uid in range(1, 7):
            longer = uid % 2
            rows.append(
                {
                    "prompt": f"What about {word} {p}?",
                    "chosen": answers[longer],
                    "rejected": answers[1 - longer],
                    "uid": uid,
                }
            )
    return dump(folder / "psoups.jsonl", rows)


def tldr_files(folder: Path, rows_each: int = 40) -> list[str]:
    """Five workers on posts of their own; the last two prefer the shorter summary."""
    rng = np.random.default_rng(0)

    def rows(split: str, count: int) -> list[dict[str, Any]]:
        found = []
        for worker in range(5):
            for n in range(count):
                word = WORDS[int(rng.integers(10))]
                texts = [f"{word} {n}", f"{word} {n} with a story of {word} and what came after"]
                order = [int(k) for k in rng.permutation(2)]
                wanted = worker < 3  # the longer one
                found.append({
                    "info": {"id": f"{split}{worker}{n}", "post": f"A post of {split} {worker} {n} on {word}",
                             "title": "t", "subreddit": "r"},
                    "summaries": [{"text": texts[k], "policy": "sup4"} for k in order],
                    "choice": order.index(int(wanted)), "worker": f"w{worker}", "split": split,
                })  # fmt: skip
        return found

    return [dump(folder / "train.jsonl", rows("train", rows_each)), dump(folder / "valid.jsonl", rows("valid1", 4))]


def personalllm_file(folder: Path, prompts: int = 30) -> str:
    """Scored answers of ten models."""
    return dump(folder / "personalllm.jsonl", personalllm_rows(prompts))


def rewardbench(folder: Path, each: int = 8) -> str:
    """Rows with sections of their own, whose right answer is the longer one in half of them."""
    rows = []
    for section in ("Chat", "Safety"):
        for n in range(each):
            texts = (f"{WORDS[n % 10]} {n}", f"{WORDS[n % 10]} {n} and everything that there is to say on it")
            rows.append({"prompt": f"{section} {n}?", "chosen": texts[n % 2], "rejected": texts[1 - n % 2],
                         "subset": section.lower(), "section": section})  # fmt: skip
    return dump(folder / "suite.jsonl", rows)
