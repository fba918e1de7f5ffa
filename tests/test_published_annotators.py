"""Adapters of Community Alignment, HelpSteer3, MultiPref, RFM and the numbered PersonalLLM, on files in their shape."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from polypref.cli import main
from polypref.data.published.community_alignment import CommunityAlignment
from polypref.data.published.helpsteer3 import HelpSteer3
from polypref.data.published.multipref import MultiPref
from polypref.data.published.personalllm import PersonalLLM
from polypref.data.published.rfm import RFM
from polypref.data.read import read
from polypref.errors import InputError, NotEnoughData, SettingsError
from published_files import conversation, converted, dump, helpsteer_row, multipref_row, personalllm_rows, rfm_row

# ------------------------------------------------------------------------------------------------- Community Alignment


def test_each_choice_of_one_among_four_makes_three_pairs(tmp_path):
    path = dump(tmp_path / "ca.jsonl", [conversation("p1", 0, "bd"), conversation("p2", 1, "a")])
    found = CommunityAlignment().convert([path])
    assert Counter(found.table["user_id"]) == {"p1": 6, "p2": 3}
    one = found.table.filter((pl.col.user_id == "p1") & (pl.col.turn == 1))
    assert set(one["chosen"]) == {"c0 t1 answer b"}
    assert one["rejected"].to_list() == [f"c0 t1 answer {letter}" for letter in "acd"]
    assert found.left_out == {}
    assert any("3 of 3 turns are used" in remark for remark in found.remarks)


def test_a_later_prompt_holds_what_the_person_chose(tmp_path):
    table = CommunityAlignment().convert([dump(tmp_path / "ca.jsonl", [conversation("p1", 0, "bd")])]).table
    assert table["prompt"][0] == "c0 t1 question"
    assert json.loads(table.filter(pl.col.turn == 2)["prompt"][0]) == [
        {"role": "user", "content": "c0 t1 question"},
        {"role": "assistant", "content": "c0 t1 answer b"},
        {"role": "user", "content": "c0 t2 question"},
    ]


def test_reasons_languages_and_demographics_are_kept(tmp_path):
    rows = [conversation("p1", 0, "b", assigned_lang="hi", annotator_age="18-34", first_turn_feedback="B is kind")]
    path = dump(tmp_path / "ca.jsonl", rows)
    table = CommunityAlignment().convert([path]).table
    assert table["reason"].to_list() == ["B is kind"] * 3
    said = json.loads(table["attributes"][0])
    assert said["language"] == "hi" and said["age"] == "18-34" and "is_pregenerated_first_prompt" not in said
    table.write_ndjson(tmp_path / "out.jsonl")
    users = read([tmp_path / "out.jsonl"]).comparisons.users
    assert users.attributes is not None and users.attributes["language"].to_list() == ["hi"]


def test_turns_after_a_gap_have_an_unknown_history(tmp_path):
    gap = conversation("p1", 0, "abc") | {"second_turn_preferred_response": None}
    found = CommunityAlignment().convert([dump(tmp_path / "ca.jsonl", [gap])])
    assert found.left_out == {"turns after one without a prompt or a choice": 1, "turns without a choice": 1}
    assert set(found.table["turn"]) == {1}
    assert found.table.height / 3 + sum(found.left_out.values()) == found.rows == 3


def test_every_turn_is_used_or_counted(tmp_path):
    rows = [
        conversation("p1", 0, "ab"),
        conversation("p1", 0, "ab"),
        conversation(None, 1, "a"),
        conversation("p2", 2, "a", first_turn_response_a=None),
        conversation("p2", 3, "a", first_turn_response_c=None),
        conversation("p2", 4, "a", first_turn_response_c="c4 t1 answer a"),
        conversation("p2", 5, "a", first_turn_prompt=None),
    ]
    found = CommunityAlignment().convert([dump(tmp_path / "ca.jsonl", rows)])
    assert found.left_out == {
        "conversations that are copies of an earlier one": 1,
        "turns of nobody": 1,
        "turns without the chosen answer": 1,
        "turns without a prompt": 1,
        "no text": 1,
        "chosen and rejected are the same text": 1,
    }
    assert found.table.height == 3 * 4 - 2


def test_shared_turns_are_first_ones_of_given_prompts(tmp_path):
    rows = [conversation("p1", 0, "ab"), conversation("p2", 0, "c"), conversation("p3", 1, "d", given=False)]
    path = dump(tmp_path / "ca.jsonl", rows)
    found = CommunityAlignment("shared").convert([path])
    assert set(found.table["user_id"]) == {"p1", "p2"}
    assert set(found.table["prompt"]) == {"c0 t1 question"}
    assert found.left_out == {"turns after the first": 1, "turns with a prompt that the person wrote": 1}
    assert set(CommunityAlignment("first").convert([path]).table["user_id"]) == {"p1", "p2", "p3"}


def test_the_published_csv_reads_as_the_parquet(tmp_path):
    rows = [conversation("7", 0, "bd", first_turn_feedback='it says "no",\nplainly'), conversation("8", 1, "a")]
    pl.DataFrame(rows, infer_schema_length=None).write_csv(tmp_path / "ca.csv")
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "ca.parquet")
    csv, parquet = (CommunityAlignment().convert([str(tmp_path / f"ca.{end}")]).table for end in ("csv", "parquet"))
    assert csv.height == 9 and set(csv["user_id"]) == {"7", "8"}
    assert_frame_equal(csv, parquet)


def test_a_conversation_is_no_person(tmp_path):
    rows = [{k: v for k, v in conversation("p1", 0, "a").items() if k != "annotator_id"}]
    with pytest.raises(InputError, match=r'"annotator_id" of Community Alignment.*one conversation and no person'):
        CommunityAlignment().convert([dump(tmp_path / "ca.jsonl", rows)])


def test_a_choice_in_other_words_is_refused(tmp_path):
    rows = [conversation("p1", 0, "a"), conversation("p1", 1, "a", first_turn_preferred_response="Response A")]
    with pytest.raises(InputError, match=r"row 2 of .*'Response A'; expected one of response_a"):
        CommunityAlignment().convert([dump(tmp_path / "ca.jsonl", rows)])


# ---------------------------------------------------------------------------------------------------------- HelpSteer3


def test_the_scale_from_minus_three_to_three(tmp_path):
    rows = [helpsteer_row(k, score) for k, score in enumerate((-3, -2, -1, 0, 1, 2, 3))]
    found = HelpSteer3().convert([dump(tmp_path / "h.jsonl", rows)])
    first = [chosen.startswith("first") for chosen in found.table["chosen"]]
    assert first == [True, True, True, True, False, False, False]
    assert found.table["tie"].to_list() == [False, False, False, True, False, False, False]
    assert found.table["strength"].to_list() == [3, 2, 1, 1, 1, 2, 3]
    assert found.left_out == {}


def test_nobody_is_named_and_it_is_said(tmp_path, capsys):
    rows = [helpsteer_row(k, 1) for k in range(3)]
    said = converted(f"helpsteer3 {dump(tmp_path / 'h.jsonl', rows)} --out {tmp_path}/o.jsonl", capsys)
    assert "does not say who judged" in said and "of 1 people" in said.replace("1 person", "1 people")
    with_people = [row | {"annotator": f"a{k % 2}"} for k, row in enumerate(rows)]
    said = converted(f"helpsteer3 {dump(tmp_path / 'p.jsonl', with_people)} --out {tmp_path}/p2.jsonl", capsys)
    assert "does not say who judged" not in said and "of 2 people" in said


def test_each_annotators_score_with_their_reason(tmp_path):
    rows = [helpsteer_row(0, -1, each=(-2, -1, 0)), helpsteer_row(1, 2, each=(2, None))]
    found = HelpSteer3("each").convert([dump(tmp_path / "h.jsonl", rows)])
    assert found.table.height == 4
    assert found.table["tie"].sum() == 1
    assert found.table["reason"].to_list() == ["because -2", "because -1", "because 0", "because 2"]
    assert found.left_out == {"no preference": 1}


def test_a_score_outside_the_scale_is_refused(tmp_path):
    rows = [helpsteer_row(0, 1), helpsteer_row(1, 4)]
    with pytest.raises(InputError, match=r'row 2 of .*"overall_preference" is 4; expected a whole number from -3 to 3'):
        HelpSteer3().convert([dump(tmp_path / "h.jsonl", rows)])
    rows = [helpsteer_row(0, 1), helpsteer_row(1, 1, each=(0, 7))]
    with pytest.raises(InputError, match=r'row 2 of .*"individual_preference" is 7'):
        HelpSteer3("each").convert([dump(tmp_path / "h.jsonl", rows)])


# ----------------------------------------------------------------------------------------------------------- MultiPref


def test_workers_and_experts_are_the_people(tmp_path):
    rows = [multipref_row(0, ("A-is-clearly-better", "Tie"), ("B-is-slightly-better", "A-is-slightly-better"))]
    found = MultiPref().convert([dump(tmp_path / "m.jsonl", rows)])
    assert found.table["user_id"].to_list() == ["w0", "w1", "e0", "e1"]
    assert found.table["chosen"].to_list() == ["a0", "a0", "b0", "a0"]
    assert found.table["tie"].to_list() == [False, True, False, False]
    assert found.table["strength"].to_list() == [2, 1, 1, 1]
    assert found.table["chosen_model"].to_list() == ["m1", "m1", "m2", "m1"]
    workers = [json.loads(text)["worker"] for text in found.table["attributes"]]
    assert workers == ["normal", "normal", "expert", "expert"]
    assert set(MultiPref("expert").convert([str(tmp_path / "m.jsonl")]).table["user_id"]) == {"e0", "e1"}


def test_an_aspect_has_its_own_judgements(tmp_path):
    rows = [multipref_row(0, ("A-is-clearly-better",), ("Tie",), harmless_pref="Tie"), multipref_row(1, (None,), ())]
    path = dump(tmp_path / "m.jsonl", rows)
    assert MultiPref(pairs="harmless").convert([path]).table["tie"].all()
    assert MultiPref().convert([path]).left_out == {"no overall preference": 1}


def test_who_is_in_both_lists_is_one_person_and_told(tmp_path):
    row = multipref_row(0, ("Tie",), ("A-is-clearly-better",))
    row["expert_worker_annotations"][0]["evaluator"] = "w0"
    found = MultiPref().convert([dump(tmp_path / "m.jsonl", [row])])
    assert set(found.table["user_id"]) == {"w0"}
    assert any("1 evaluator" in remark and "as w0" in remark for remark in found.remarks)


def test_labels_without_people_or_in_other_words_are_refused(tmp_path):
    binarized = [{"comparison_id": "c", "text": "q", "completion_a": "a", "completion_b": "b", "chosen": "a"}]
    with pytest.raises(InputError, match='column "normal_worker_annotations" of MultiPref is missing'):
        MultiPref().convert([dump(tmp_path / "b.jsonl", binarized)])
    odd = [multipref_row(0, ("Tie",), ("Tie",)), multipref_row(1, ("A wins",), ("Tie",))]
    with pytest.raises(InputError, match=r"row 2 of .*'A wins'; expected one of A-is-clearly-better"):
        MultiPref().convert([dump(tmp_path / "m.jsonl", odd)])


# ----------------------------------------------------------------------------------------------------------------- RFM


@pytest.mark.parametrize("form", ["{model}_{side}_score", "{side}_{model}", "reward_{side}_{model}"])
def test_rfm_labels_follow_the_scores(tmp_path, form):
    rows = [rfm_row(k, {"org_X-7B": (k, 2), "other_Y.1": (5, 1)}, form) for k in range(5)]
    found = RFM().convert([dump(tmp_path / "r.jsonl", rows)])
    table = found.table.sort("user_id", maintain_order=True)
    assert table["user_id"].to_list() == ["org_X-7B"] * 5 + ["other_Y.1"] * 5
    assert table["tie"].to_list() == [k == 2 for k in range(5)] + [False] * 5
    assert table["chosen"].to_list()[:5] == ["w0", "w1", "g2", "g3", "g4"]
    assert any("could not be verified" in remark and "org_X-7B from" in remark for remark in found.remarks)


def test_rfm_keeps_the_models_that_are_asked_for(tmp_path):
    rows = [rfm_row(k, {"org_X": (k, 2), "org_Y": (5, 1)}) for k in range(3)]
    path = dump(tmp_path / "r.jsonl", rows)
    found = RFM(("org_X",)).convert([path])
    assert set(found.table["user_id"]) == {"org_X"}
    assert found.left_out == {"a model that was not asked for": 3}
    with pytest.raises(SettingsError, match="unknown reward model of the files 'org_Z'"):
        RFM(("org_Z",)).convert([path])


def test_rfm_reads_the_last_message_and_no_scores_of_ultrafeedback(tmp_path):
    row = rfm_row(0, {"org_X": (1, 2)}) | {"score_chosen": 9.0, "score_rejected": 1.0}
    for side in ("chosen", "rejected"):
        row[side] = [{"role": "user", "content": "q0"}, {"role": "assistant", "content": row[side]}]
    found = RFM().convert([dump(tmp_path / "r.jsonl", [row])])
    assert found.table.rows()[0][:4] == ("org_X", "q0", "w0", "g0")
    assert found.table.height == 1


def test_rfm_refuses_what_it_does_not_understand(tmp_path):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "rank_X": 1, "score_chosen": 1.0, "score_rejected": 2.0}]
    with pytest.raises(InputError, match=r"is not verified, and this one is not understood; found: prompt, .*rank_X"):
        RFM().convert([dump(tmp_path / "r.jsonl", rows)])


# --------------------------------------------------------------------------------------------- PersonalLLM by its uids


def uid_rows(rows: list[dict[str, Any]], models: dict[str, str], wrong: float = 0.0) -> list[dict[str, Any]]:
    """Judgements of uids that follow models, a share of them ``wrong``."""
    rng, found = np.random.default_rng(1), []
    for uid, model in models.items():
        for row in rows:
            one, other = (int(i) for i in rng.choice(np.arange(1, 9), 2, replace=False))
            better = (row[f"response_{one}_{model}"] > row[f"response_{other}_{model}"]) ^ (rng.random() < wrong)
            first, second = (one, other) if better else (other, one)
            texts = {"chosen": row[f"response_{first}"], "rejected": row[f"response_{second}"]}
            found.append({"uid": int(uid), "prompt": row["prompt"], **texts})
    return found


def test_which_model_a_uid_is_follows_from_the_scores(tmp_path, capsys):
    rows = personalllm_rows(60)
    judged = uid_rows(rows, {"1": "gemma_2b", "5": "mistral_weqweasdas"})
    judged += uid_rows(rows, {"7": "gemma_2b"}, wrong=0.5)
    files = [dump(tmp_path / "dpo.jsonl", judged), dump(tmp_path / "scored.jsonl", rows)]
    said = converted(f"personalllm {' '.join(files)} --out {tmp_path}/o.jsonl", capsys)
    assert "uid 1 is gemma_2b: its scores agree with 100.0% of 60 pairs (next" in said.replace(" %", "%")
    assert "uid 5 is mistral_weqweasdas" in said
    assert "uid 7 is none of the models" in said
    users = read([tmp_path / "o.jsonl"]).comparisons.users
    assert users.attributes is not None
    assert dict(zip(users.ids, users.attributes["model"], strict=True)) == {
        "1": "gemma_2b", "5": "mistral_weqweasdas", "7": None,
    }  # fmt: skip


def test_uids_alone_are_read_and_say_what_is_unknown(tmp_path):
    judged = uid_rows(personalllm_rows(5), {"1": "gemma_2b"})
    found = PersonalLLM().convert([dump(tmp_path / "dpo.jsonl", judged)])
    assert found.table.height == 5 and "attributes" not in found.table.columns
    assert any("give the scored answers" in remark for remark in found.remarks)
    with pytest.raises(SettingsError, match="finished judgements of numbered people"):
        PersonalLLM(models=("gemma_2b",)).convert([str(tmp_path / "dpo.jsonl")])


def test_scores_of_other_answers_name_no_model(tmp_path):
    rows = personalllm_rows(5)
    judged = [row | {"prompt": f"another {row['prompt']}"} for row in uid_rows(rows, {"1": "gemma_2b"})]
    files = [dump(tmp_path / "dpo.jsonl", judged), dump(tmp_path / "scored.jsonl", rows)]
    assert any("none of the judged pairs" in remark for remark in PersonalLLM().convert(files).remarks)


# ------------------------------------------------------------------------------------------------------------- for all


def test_what_is_written_can_be_checked_and_profiled(tmp_path, capsys):
    sets = {
        "community-alignment": [conversation(f"p{k % 3}", k, "ab") for k in range(6)],
        "helpsteer3": [helpsteer_row(k, k % 3 - 1) for k in range(6)],
        "multipref": [multipref_row(k, ("Tie", "A-is-clearly-better"), ("B-is-clearly-better",)) for k in range(6)],
        "rfm": [rfm_row(k, {"org_X": (k, 2), "org_Y": (2, k)}) for k in range(6)],
    }
    for name, rows in sets.items():
        out = tmp_path / f"{name}.parquet"
        said = converted(f"{name} {dump(tmp_path / f'{name}.jsonl', rows)} --out {out}", capsys)
        assert len(read([out]).comparisons) == pl.read_parquet(out).height, said
        assert main(["check", str(out)]) == 0 and main(["profile", str(out)]) == 0
        capsys.readouterr()


def test_settings_of_the_sets(tmp_path, capsys):
    path = dump(tmp_path / "m.jsonl", [multipref_row(0, ("Tie",), ("Tie",))])
    for line, says in (
        (f"multipref {path} --people models", "unknown kind of people of multipref 'models'"),
        (f"helpsteer3 {path} --pairs four", "unknown kind of pairs of helpsteer3 'four'"),
        (f"community-alignment {path} --pairs rated", "unknown kind of pairs of community-alignment 'rated'"),
        (f"rfm {path} --pairs all", "rfm has no setting --pairs; it has --models"),
    ):
        assert main(["convert", *line.split(), "--out", str(tmp_path / "x.csv")]) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(NotEnoughData, match="nothing is left"):
        MultiPref().convert([dump(tmp_path / "n.jsonl", [multipref_row(0, (None,), (None,))])])


def test_check_names_the_set_and_a_command_that_works(tmp_path, capsys):
    sets = {
        "community-alignment": [conversation(f"p{k % 3}", k, "ab") for k in range(6)],
        "helpsteer3": [helpsteer_row(k, k % 3 - 1) for k in range(6)],
        "multipref": [multipref_row(k, ("Tie",), ("A-is-clearly-better",)) for k in range(6)],
    }
    for name, rows in sets.items():
        path = dump(tmp_path / f"{name}.jsonl", rows)
        assert main(["check", path]) == 2
        assert f"It is a published set: polypref convert {name} {path} --out" in capsys.readouterr().err
