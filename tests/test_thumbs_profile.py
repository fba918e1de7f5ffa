"""Thumbs say nothing of disagreement: people of one taste and different bars take two sides on one answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

import polypref
from polypref.cli import main
from polypref.data.split import choose_rule
from polypref.profiling import minority_users

QUESTIONS, PEOPLE = 20, 24


def rows(seed: int) -> list[dict[str, object]]:
    """One taste, bars far apart: everybody's likes are the answers above a level of their own."""
    draw = np.random.default_rng(seed)
    quality, bars = draw.normal(size=2 * QUESTIONS), draw.uniform(-1, 1, PEOPLE)
    return [
        {
            "user_id": f"p{person}",
            "prompt": f"question {answer % QUESTIONS}",
            "response": f"answer {answer}",
            "thumb": "up" if quality[answer] + draw.normal() / 2 > bar else "down",
        }
        for person, bar in enumerate(bars)
        for answer in range(2 * QUESTIONS)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_people_of_one_taste_and_different_bars_are_no_groups(seed):
    thumbs = polypref.read(rows(seed)).comparisons
    found = polypref.profile(thumbs)
    assert found.only_thumbs and found.sizes["responses"] == 2 * QUESTIONS and found.sizes["pairs"] == 0
    assert found.disagreement.divergence.value is None and found.groups.worst_decile_regret.value is None
    assert found.room.lo is None and not minority_users(thumbs).any()
    assert "own bar" in found.sentences()["disagreement"]


def test_an_answer_judged_twice_still_measures_consistency():
    twice = rows(0) + rows(0)
    for row in twice[: len(twice) // 2]:
        row["pair_id"] = "first"
    found = polypref.profile(polypref.read(twice).comparisons)
    assert found.consistency.retest.value == 1.0 and found.consistency.retest.n == PEOPLE * 2 * QUESTIONS


def test_pairs_beside_thumbs_are_profiled_as_they_are_alone(tmp_path):
    pairs = [
        {"user_id": f"p{person}", "prompt": f"q{n}", "chosen": f"{n} a", "rejected": f"{n} b"}
        | ({"chosen": f"{n} b", "rejected": f"{n} a"} if person % 3 == 0 else {})
        for person in range(PEOPLE)
        for n in range(12)
    ]
    files = []
    for name, content in (("pairs", pairs), ("thumbs", rows(0))):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in content))
    alone = polypref.profile(polypref.read(files[:1]).comparisons)
    both = polypref.profile(polypref.read(files).comparisons)
    assert not both.only_thumbs and both.sizes["thumbs"] == PEOPLE * 2 * QUESTIONS
    for name in ("contested", "highly_contested", "divergence"):
        assert getattr(both.disagreement, name) == getattr(alone.disagreement, name)
    assert both.minorities.as_dict() == alone.minorities.as_dict()


def test_the_command_counts_responses_and_no_pairs(tmp_path, capsys):
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(0)))
    assert main(["profile", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{PEOPLE * 2 * QUESTIONS} judgements by {PEOPLE} users on {2 * QUESTIONS} responses." in told
    assert "since likes and dislikes of single answers are each against the person's own bar" in told
    assert "same pair" not in told and "pairs of texts" not in told


@pytest.mark.parametrize(("people", "rule"), [(30, "pair"), (60, "response")])
def test_a_thumb_is_one_judgement_of_one_text_where_a_split_is_chosen(people, rule):
    draw = np.random.default_rng(0)
    at = [(person, answer) for person in range(people) for answer in range(2 * QUESTIONS)]
    prompts, texts = [f"q{answer % QUESTIONS}" for _, answer in at], [f"answer {answer}" for _, answer in at]
    thumbs = polypref.from_thumbs([f"p{person}" for person, _ in at], prompts, texts, draw.random(len(at)) < 0.5)
    chosen, why = choose_rule(thumbs)
    assert chosen == rule
    assert rule == "pair" or f"only {2 * QUESTIONS} texts, each judged {people} times" in why
