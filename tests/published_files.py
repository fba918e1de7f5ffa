"""Files in the shape of published sets, for the tests of their adapters."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polypref.cli import main
from polypref.data.published.personalllm import SCALES


def dump(path: Path, rows: list[dict[str, Any]], lines: bool = True) -> str:
    """Write rows as JSON lines, or as one JSON list."""
    text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows, indent=4)
    path.write_text(text + "\n")
    return str(path)


def converted(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``polypref convert`` prints."""
    assert main(["convert", *shlex.split(command)]) == 0
    return capsys.readouterr().out


def personalllm_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(seed), []
    for p in range(n):
        row: dict[str, Any] = {"prompt": f"prompt {p}", "subset": "mt-bench", "prompt_id": p}
        for i in range(1, 9):
            row |= {f"response_{i}": f"answer {i} to {p}", f"response_{i}_model": f"m{i}"}
            row |= {f"response_{i}_{name}": mean + sd * rng.normal() for name, (mean, sd) in SCALES.items()}
        rows.append(row)
    return rows


def conversation(person: str | None, number: int, chosen: str, given: bool = True, **changes: Any) -> dict[str, Any]:
    """A row of Community Alignment with a turn for each letter of ``chosen``."""
    row: dict[str, Any] = {
        "conversation_id": f"conv{number}" if person is None else f"conv{number}-{person}",
        "assigned_lang": "en",
        "annotator_id": person,
    }
    for turn, name in enumerate(("first", "second", "third", "fourth")):
        there = turn < len(chosen)
        said = f"c{number} t{turn + 1}"
        row[f"{name}_turn_prompt"] = f"{said} question" if there else None
        for letter in "abcd":
            row[f"{name}_turn_response_{letter}"] = f"{said} answer {letter}" if there else None
        row[f"{name}_turn_preferred_response"] = f"response_{chosen[turn]}" if there else None
        row[f"{name}_turn_feedback"] = None
    about = {"age": "35-45", "gender": "female", "education_level": "Some post-secondary", "political": None}
    row |= {f"annotator_{name}": value for name, value in {**about, "ethnicity": None, "country": "france"}.items()}
    row |= {"is_pregenerated_first_prompt": given, "in_balanced_subset": False, "in_balanced_subset_10": False}
    return row | changes


def helpsteer_row(number: int, score: int, each: tuple[int | None, ...] = (1, 1)) -> dict[str, Any]:
    """A row of HelpSteer3's preferences."""
    return {
        "domain": "general",
        "language": "english",
        "context": [{"role": "user", "content": f"question {number}"}],
        "response1": f"first answer {number}",
        "response2": f"second answer {number}",
        "overall_preference": score,
        "individual_preference": [{"score": one, "reasoning": f"because {one}"} for one in each],
    }


def multipref_row(
    number: int, normal: tuple[str | None, ...], expert: tuple[str | None, ...], **changes: str
) -> dict[str, Any]:
    """A row of MultiPref; every aspect is judged as ``overall``, but for ``changes``."""

    def judged(kind: str, said: tuple[str | None, ...]) -> list[dict[str, Any]]:
        aspects = [f"{aspect}_pref" for aspect in ("overall", "helpful", "truthful", "harmless")]
        return [
            {"evaluator": f"{kind}{k}", **dict.fromkeys(aspects, one), **changes, "time_spent": 60}
            for k, one in enumerate(said)
        ]

    return {
        "comparison_id": f"cmp{number}",
        "prompt_id": f"p{number}",
        "text": f"q{number}",
        "completion_a": f"a{number}",
        "completion_b": f"b{number}",
        "model_a": "m1",
        "model_b": "m2",
        "normal_worker_annotations": judged("w", normal),
        "expert_worker_annotations": judged("e", expert),
    }


def rfm_row(number: int, scores: dict[str, tuple[float, float]], form: str = "{model}_{side}_score") -> dict[str, Any]:
    """A row of RFM's set in a form that is understood, with each model's scores of both answers."""
    row: dict[str, Any] = {"prompt_id": f"p{number}", "prompt": f"q{number}"}
    row |= {"chosen": f"g{number}", "rejected": f"w{number}"}
    for model, both in scores.items():
        row |= {
            form.format(model=model, side=side): value for side, value in zip(("chosen", "rejected"), both, strict=True)
        }
    return row
