"""Adapters of PersonalLLM, PRISM, Chatbot Arena and PersonalRewardBench, on files in the published shape."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest

from polypref.data.published.personalllm import SCALES, PersonalLLM
from polypref.data.published.prism import Prism
from polypref.data.read import read
from polypref.errors import InputError
from published_files import converted, dump, personalllm_rows

# -------------------------------------------------------------------------------------------------------- PersonalLLM


def test_personalllm_single_models_on_four_pairs(tmp_path):
    rows = personalllm_rows(6)
    eight = sorted(SCALES)[:8]
    found = PersonalLLM(models=tuple(eight)).convert([dump(tmp_path / "train.jsonl", rows)])
    assert found.table.height == 6 * 4 * 8  # as 10,402 x 4 x 8 = 332,864, the paper's 333k
    assert set(found.table["user_id"]) == set(eight)
    score = {(r[f"response_{i}"], name): r[f"response_{i}_{name}"] for r in rows for i in range(1, 9) for name in eight}
    for user, _, chosen, rejected, tie, _ in found.table.iter_rows():
        assert score[chosen, user] > score[rejected, user]
        assert not tie
    pairs = found.table.select("user_id", "prompt", pair=pl.concat_list(pl.col("chosen", "rejected")).list.sort())
    per_user = [set(map(str, frame["pair"].to_list())) for _, frame in pairs.group_by("user_id")]
    assert all(one == per_user[0] for one in per_user)  # everyone judges the same pairs
    texts = [text for pair in pairs.filter(pl.col.user_id == eight[0])["pair"] for text in pair]
    assert len(set(texts)) == len(texts) == 48  # without replacement: every answer once


def test_personalllm_best_against_worst(tmp_path):
    rows = personalllm_rows(5)
    path = dump(tmp_path / "t.jsonl", rows)
    table = PersonalLLM(models=("gemma_2b",), pairs="best-worst").convert([path]).table
    for row, (_, prompt, chosen, rejected, *_) in zip(rows, table.iter_rows(), strict=True):
        scores = {row[f"response_{i}"]: row[f"response_{i}_gemma_2b"] for i in range(1, 9)}
        assert (prompt, chosen, rejected) == (row["prompt"], max(scores, key=scores.get), min(scores, key=scores.get))  # type: ignore[arg-type]


def test_personalllm_mixes_standard_scores_not_raw_ones(tmp_path):
    """Two models of equal weight that differ: on one scale the one with the larger standard score wins."""
    row = personalllm_rows(1)[0]
    for i in range(1, 9):
        row |= {f"response_{i}_{name}": mean for name, (mean, _) in SCALES.items()}
    (_, pythia_sd), (_, raft_sd) = SCALES["oasst_pythia_7b"], SCALES["mistral_raft"]
    row["response_1_oasst_pythia_7b"] += 2.0 * pythia_sd  # +2.7 raw, +2 standard
    row["response_2_mistral_raft"] += 1.5 * raft_sd  # +4.6 raw, +1.5 standard
    row["response_3_mistral_raft"] -= 3 * raft_sd
    mixed = PersonalLLM("dirichlet", models=("oasst_pythia_7b", "mistral_raft"), count=1, alpha=1e6)
    table = mixed.convert([dump(tmp_path / "t.jsonl", [row])]).table
    assert table["chosen"][0] == row["response_1"]
    assert table["rejected"][0] == row["response_3"]


def test_personalllm_dirichlet_people(tmp_path):
    path = dump(tmp_path / "t.jsonl", personalllm_rows(30))
    found = PersonalLLM("dirichlet", count=12, prompts=7, alpha=0.1, seed=5).convert([path])
    assert Counter(found.table["user_id"]) == {f"d{u:02d}": 7 for u in range(12)}
    again = PersonalLLM("dirichlet", count=12, prompts=7, alpha=0.1, seed=5).convert([path])
    assert found.table.equals(again.table)
    other = PersonalLLM("dirichlet", count=12, prompts=7, alpha=0.1, seed=6).convert([path])
    assert not found.table.equals(other.table)
    weights = np.random.default_rng([5, 0]).dirichlet(np.full(10, 0.1), 12)  # in alphabetical order of the models
    told = found.table.select("user_id", "attributes").unique(maintain_order=True)["attributes"]
    assert [json.loads(text)["model"] for text in told] == [sorted(SCALES)[w.argmax()] for w in weights]


def test_personalllm_beaver_with_the_wrong_sign_is_refused(tmp_path):
    rows = personalllm_rows(20)
    costs = [{k: -v if k.endswith("beaver_7b") else v for k, v in row.items()} for row in rows]
    good, bad = dump(tmp_path / "good.jsonl", rows), dump(tmp_path / "bad.jsonl", costs)
    with pytest.raises(InputError, match="Use --beaver cost"):
        PersonalLLM().convert([bad])
    with pytest.raises(InputError, match="Use --beaver reward"):
        PersonalLLM(beaver="cost").convert([good])
    assert PersonalLLM(beaver="cost").convert([bad]).table.equals(PersonalLLM().convert([good]).table)


def test_personalllm_missing_scores_and_equal_ones(tmp_path):
    rows = personalllm_rows(4)
    rows[0]["response_3_gemma_2b"] = None
    for i in range(1, 9):
        rows[1][f"response_{i}_gemma_2b"] = 1.0
    found = PersonalLLM(models=("gemma_2b",)).convert([dump(tmp_path / "t.jsonl", rows)])
    assert found.left_out == {"prompts with a text or a score missing": 1}
    assert found.table.group_by("prompt").agg(pl.col.tie.sum()).sort("prompt")["tie"].to_list() == [4, 0, 0]


# -------------------------------------------------------------------------------------------------------------- PRISM


def utterance(turn: int, within: int, score: int | None, chosen: bool, **changes: Any) -> dict[str, Any]:
    row = {
        "utterance_id": f"ut{turn}{within}",
        "interaction_id": f"int{turn}",
        "conversation_id": "c0",
        "user_id": "user0",
        "turn": turn,
        "within_turn_id": within,
        "conversation_type": "unguided",
        "user_prompt": f"question {turn}",
        "model_response": f"answer {turn}.{within}",
        "model_name": "zephyr-7b-beta",
        "model_provider": "huggingface_api",
        "score": score,
        "if_chosen": chosen,
        "included_in_balanced_subset": True,
    }
    return row | changes


PRISM = [
    *(utterance(0, i, score, i == 0) for i, score in enumerate((90, 40, 40, 10))),
    utterance(1, 0, 55, False),
    utterance(1, 1, 80, True),
]


def test_prism_chosen_against_each_other_answer(tmp_path):
    table = Prism().convert([dump(tmp_path / "utterances.jsonl", PRISM)]).table
    assert [(row[2], row[3]) for row in table.rows()] == [
        *((f"answer 0.{0}", f"answer 0.{i}") for i in (1, 2, 3)),
        ("answer 1.1", "answer 1.0"),
    ]


def test_prism_prompts_hold_the_conversation_that_was_chosen(tmp_path):
    table = Prism().convert([dump(tmp_path / "utterances.jsonl", PRISM)]).table
    assert json.loads(table["prompt"][0]) == [{"role": "user", "content": "question 0"}]
    assert json.loads(table["prompt"][-1]) == [
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "answer 0.0"},
        {"role": "user", "content": "question 1"},
    ]


def test_prism_ratings_tie_when_equal(tmp_path):
    table = Prism("rated").convert([dump(tmp_path / "utterances.jsonl", PRISM)]).table
    assert table.height == 6 + 1
    tied = table.filter("tie")
    assert tied.select("chosen", "rejected").rows() == [("answer 0.1", "answer 0.2")]


def test_prism_stops_where_nothing_was_chosen_and_reads_the_survey(tmp_path):
    rows = [*PRISM, utterance(2, 0, 5, False), utterance(3, 0, 9, True), utterance(3, 1, 7, False)]
    survey = [
        {"user_id": "user0", "survey_only": False, "age": "18-24 years old", "gender": "Female", "education": None}
    ]
    found = Prism().convert([dump(tmp_path / "u.jsonl", rows), dump(tmp_path / "survey.jsonl", survey)])
    assert found.left_out == {"answers after a turn in which none was chosen": 2}
    assert found.table.height == 4
    assert json.loads(found.table["attributes"][0])["age"] == "18-24 years old"


def test_prism_conversations_are_told_apart_from_utterances(tmp_path):
    rows = [{"conversation_id": "c0", "user_id": "user0", "conversation_history": [{"turn": 0, "role": "user"}]}]
    with pytest.raises(InputError, match=r"give utterances\.jsonl"):
        Prism().convert([dump(tmp_path / "conversations.jsonl", rows)])


# --------------------------------------------------------------------------------------- Arena and PersonalRewardBench


def battle(n: int, winner: str | None, judge: str = "arena_user_1", turns: int = 1, **answers: str) -> dict[str, Any]:
    sides = {}
    for side in ("a", "b"):
        said = []
        for turn in range(turns):
            said.append({"content": f"q{n}.{turn}", "role": "user"})
            said.append({"content": answers.get(side, f"{side}{n}.{turn}"), "role": "assistant"})
        sides[f"conversation_{side}"] = said
    models = {
        "question_id": f"id{n}",
        "model_a": "koala-13b",
        "model_b": "vicuna-13b",
        "winner": winner,
        "judge": judge,
    }
    return models | sides | {"turn": turns, "language": "English", "tstamp": 1682351591.1322 + n}


def test_arena_keeps_ties_turns_and_judges(tmp_path, capsys):
    rows = [
        battle(0, "model_a"),
        battle(1, "model_b"),
        battle(2, "tie"),
        battle(3, "tie (bothbad)", judge="arena_user_2"),
        battle(4, "model_b", turns=2),
        battle(5, None),
        battle(6, "model_a", a="same", b="same"),
    ]
    dump(tmp_path / "arena.jsonl", rows)
    said = converted(f"arena {tmp_path}/arena.jsonl --out {tmp_path}/out.parquet", capsys)
    assert "left out: 1 (no winner)" in said
    assert "left out: 1 (chosen and rejected are the same text)" in said
    read_back = read([tmp_path / "out.parquet"]).comparisons
    responses = read_back.responses
    texts = [
        (responses.texts_R[int(c)], responses.texts_R[int(r)])
        for c, r in zip(read_back.chosen_N, read_back.rejected_N, strict=True)
    ]
    assert texts[:3] == [("a0.0", "b0.0"), ("b1.0", "a1.0"), ("a2.0", "b2.0")]
    assert texts[4] == ("assistant: b4.0\nuser: q4.1\nassistant: b4.1", "assistant: a4.0\nuser: q4.1\nassistant: a4.1")
    assert read_back.tie_N is not None
    assert read_back.tie_N.tolist() == [False, False, True, True, False]
    assert responses.prompts.to_list()[0] == "q0.0"
    assert read_back.users.ids.to_list() == ["arena_user_1", "arena_user_2"]


def test_personal_rewardbench_rows(tmp_path, capsys):
    context = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "so?"},
    ]
    rows = [
        {
            "user_id": user,
            "context": context,
            "chosen": {"role": "assistant", "content": f"good {user}"},
            "rejected": {"role": "assistant", "content": "bad"},
            "chosen_score": None,
            "split": split,
        }
        for user, split in (("user1", "train"), ("user1", "test"), ("user2", "val"), (None, "val"))
    ]
    dump(tmp_path / "rows.jsonl", rows)
    said = converted(f"personal-rewardbench {tmp_path}/rows.jsonl --out {tmp_path}/out.jsonl", capsys)
    assert "3 judgements of 2 people" in said
    comparisons = read([tmp_path / "out.jsonl"]).comparisons
    assert len(comparisons) == 3
    assert json.loads(comparisons.responses.prompts[0]) == context
