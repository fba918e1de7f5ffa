"""``convert`` of products that keep feedback and texts apart: Langfuse, LangSmith, Phoenix."""

from __future__ import annotations

import json

import pytest

from feedback_files import (
    AGAIN,
    annotation,
    as_csv,
    feedback,
    page,
    pairs,
    run,
    saved,
    score,
    span,
    trace,
)
from polypref.data.feedback.judgements import LATEST, NO_USER, NO_VALUE, SINGLE
from polypref.data.feedback.langfuse import Langfuse
from polypref.data.feedback.langsmith import LangSmith
from polypref.data.feedback.phoenix import Phoenix
from polypref.data.feedback.records import Export
from polypref.errors import InputError, NotEnoughData

# ------------------------------------------------------------------------------------------------------------ Langfuse


def test_scores_are_joined_to_the_traces_end_users(tmp_path):
    """Pages one after another, in one file; another user's dislike of the same prompt makes no pair."""
    chat_input = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé ☃?"}]}
    traces = [
        trace("t1", "ann", chat_input, {"role": "assistant", "content": "Snow."}),
        trace("t2", "ann", chat_input, {"role": "assistant", "content": "No idea."}),
        trace("t3", "bob", chat_input, {"role": "assistant", "content": "A man."}),
    ]
    scores = [score("s1", "t1", 1), score("s2", "t2", 0), score("s3", "t3", 0)]
    told = saved(tmp_path / "scores.jsonl", [page(scores[:2]), page(scores[2:], 2)], lines=True)
    texts = tmp_path / "traces.json"
    texts.write_text(json.dumps(page(traces[:1])) + json.dumps(page(traces[1:], 2), indent=1))
    found = Langfuse().convert([told, str(texts)])
    assert [(row[0], *row[2:]) for row in pairs(found)] == [("ann", "Snow.", "No idea.")]
    assert [one["content"] for one in json.loads(found.table["prompt"][0])] == ["Be brief.", "Hé ☃?"]
    assert (found.rows, found.used, found.left_out) == (3, 2, {SINGLE: 1})
    single = Langfuse(form="single").convert([told, str(texts)])
    assert single.table.select("user_id", "response", "thumb").rows() == [("bob", "A man.", "down")]


def test_a_correction_is_preferred_and_models_scores_are_left_out(tmp_path):
    rows = [
        trace("t1", "ann", "What is rain?", "Snow."),
        score("s1", "t1", "Water from clouds.", dataType="CORRECTION", name="output", stringValue="Water from clouds."),
        score("s2", "t1", 0.9, dataType="NUMERIC", name="helpfulness", source="EVAL"),
        score("s3", "t1", 0, source="ANNOTATION", authorUserId="account-1"),
        score("s4", None, 1, sessionId="session-1"),
        score("s5", "t9", 1),
        score("s6", "t1", None, dataType="TEXT", stringValue="nice"),
    ]
    path = saved(tmp_path / "all.jsonl", rows, lines=True)
    found = Langfuse().convert([path])
    assert pairs(found) == [("ann", "What is rain?", "Water from clouds.", "Snow.")]
    assert sum(found.left_out.values()) == 5
    assert found.left_out["a model's or program's own evaluation; --judges models writes these"] == 1
    assert found.left_out["by an annotator of the product, who is no end user; --judges annotators writes these"] == 1
    assert found.left_out["about a session or a run of a data set, not about an answer"] == 1
    assert found.left_out["its traces are in no file"] == 1
    by_annotators = Langfuse(judges="annotators").convert([path])
    assert by_annotators.table.rows() == [("account-1", "What is rain?", "Snow.", "2026-10-01T10:01:00.000Z", "down")]
    by_models = Langfuse(judges="models").convert([path])
    assert by_models.table["user_id"].to_list() == ["helpfulness"]


def test_scores_of_observations_and_columns_of_blob_storage(tmp_path):
    """Snake case; an observation stands for its trace where no trace is exported; the user may be the trace's."""
    rows = [
        {"id": "o1", "trace_id": "t1", "type": "GENERATION", "start_time": "2026-10-01 10:00:00.000000",
         "parent_observation_id": None, "user_id": "ann", "input": "Q?", "output": "whole"},
        {"id": "o2", "trace_id": "t1", "type": "GENERATION", "start_time": "2026-10-01 10:00:00.000000",
         "parent_observation_id": "o1", "input": "Q?", "output": "part"},
    ]  # fmt: skip
    told = [
        {"id": "s1", "trace_id": "t1", "observation_id": None, "name": "stars", "value": 5.0, "source": "API",
         "data_type": "NUMERIC", "string_value": None, "timestamp": "2026-10-01 10:01:00.000000"},
        {"id": "s2", "trace_id": "t1", "observation_id": "o2", "name": "stars", "value": 2.0, "source": "API",
         "data_type": "NUMERIC", "string_value": None, "timestamp": "2026-10-01 10:01:00.000000"},
    ]  # fmt: skip
    found = Langfuse().convert([as_csv(tmp_path / "scores.csv", told), saved(tmp_path / "o.jsonl", rows, lines=True)])
    assert pairs(found) == [("ann", "Q?", "whole", "part")]


def test_an_observation_says_what_its_trace_does_not(tmp_path):
    """In the fourth version traces have no texts of their own; whichever file is read first."""
    bare = trace("t1", "ann", None, None)
    root = {"id": "o1", "traceId": "t1", "type": "SPAN", "parentObservationId": None, "input": "Q?", "output": "one"}
    other = trace("t2", "ann", "Q?", "two")
    for rows in ([bare, root, other], [other, root, bare]):
        path = saved(tmp_path / "a.json", [*rows, score("s1", "t1", 1), score("s2", "t2", 0)])
        assert pairs(Langfuse().convert([path])) == [("ann", "Q?", "one", "two")]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_exports_of_langfuses_tables(tmp_path, kind):
    """A score has its trace's user, and an annotator's name; a trace has its scores as columns."""
    who = (("API", None), ("API", None), ("ANNOTATION", "Eva"), ("ANNOTATION", "Eva"))
    told = [
        {"id": f"s{at}", "traceId": f"t{at}", "sessionId": None, "datasetRunId": None, "source": source,
         "timestamp": "2026-10-01T10:01:00.000Z", "name": "thumb", "dataType": "BOOLEAN", "value": at % 2,
         "stringValue": "True" if at % 2 else "False", "comment": None, "metadata": {}, "observationId": None,
         "traceName": "chat", "userId": "ann", "traceTags": [], "environment": "default", "authorUserName": name}
        for at, (source, name) in enumerate(who)
    ]  # fmt: skip
    texts = [
        {"id": f"t{at}", "timestamp": "2026-10-01T10:00:00.000Z", "name": "chat", "userId": None, "sessionId": None,
         "tags": [], "bookmarked": False, "public": False, "input": {"messages": [{"role": "user", "content": "Q?"}]},
         "output": f"answer {at}", "metadata": {}, "latency": 1.5, "level": "DEFAULT", "thumb": [at % 2]}
        for at in range(4)
    ]  # fmt: skip
    write = as_csv if kind == "csv" else saved
    paths = [write(tmp_path / f"scores.{kind}", told), write(tmp_path / f"traces.{kind}", texts)]
    assert pairs(Langfuse().convert(paths)) == [("ann", "Q?", "answer 1", "answer 0")]
    assert pairs(Langfuse(judges="annotators").convert(paths)) == [("Eva", "Q?", "answer 3", "answer 2")]


def test_only_texts_that_were_judged_are_kept(tmp_path):
    export = Export([saved(tmp_path / "a.json", [trace(f"t{at}", "ann", "Q?", "x") for at in range(9)])])
    assert set(Langfuse()._second(export, {"t t3", "t absent"})) == {"t t3"}


def test_an_updated_score_counts_once_in_its_latest_form(tmp_path):
    rows = [
        trace("t1", "ann", "Q?", "one"),
        trace("t2", "ann", "Q?", "two"),
        score("s1", "t1", 1, updatedAt="2026-10-02T00:00:00Z"),
        score("s1", "t1", 0),  # an older page, read later
        score("s2", "t2", 0),
        score("s2", "t2", 0),
    ]
    found = Langfuse().convert([saved(tmp_path / "a.json", rows)])
    assert pairs(found) == [("ann", "Q?", "one", "two")]
    assert found.left_out == {LATEST: 1, AGAIN: 1}


def test_scores_of_the_third_version_of_the_api(tmp_path):
    core = {"name": "thumb", "dataType": "BOOLEAN", "source": "API", "timestamp": "2026-10-01T10:01:00.000Z"}
    told = [
        core | {"id": "s1", "value": True, "subject": {"kind": "trace", "id": "t1"}},
        core | {"id": "s2", "value": False, "subject": {"kind": "observation", "id": "o2", "traceId": "t2"}},
        core | {"id": "s3", "value": True, "subject": {"kind": "session", "id": "x"}},
        core | {"id": "s4", "value": True},
        core | {"id": "s5", "value": "", "dataType": "CORRECTION", "subject": {"kind": "trace", "id": "t1"}},
    ]
    observation = {"id": "o2", "traceId": "t2", "type": "GENERATION", "parentObservationId": "o1", "input": "Q?"}
    texts = [trace("t1", "ann", "Q?", "one"), trace("t2", "ann", "x", "y"), observation | {"output": "two"}]
    scores = saved(tmp_path / "s.json", {"data": told, "meta": {"cursor": "c", "limit": 100}})
    found = Langfuse().convert([scores, saved(tmp_path / "t.json", texts)])
    assert pairs(found) == [("ann", "Q?", "one", "two")]
    assert found.left_out == {
        "about a session or a run of a data set, not about an answer": 1,
        "it does not say which trace it is about; the API tells with fields=subject": 1,
        "no score": 1,
    }


def test_scores_of_several_names_are_not_mixed(tmp_path):
    rows = [trace("t1", "ann", "Q?", "one"), score("s1", "t1", 1), score("s2", "t1", 1, name="was it fast")]
    path = saved(tmp_path / "a.json", rows)
    with pytest.raises(InputError, match=r'"user-thumb" \(1\) and "was it fast" \(1\).*--names user-thumb'):
        Langfuse().convert([path])
    found = Langfuse(names=("was it fast",)).convert([path])
    assert (found.used, found.left_out) == (1, {"of another name": 1})


# ----------------------------------------------------------------------------------------------------------- LangSmith


def test_feedback_groups_are_comparisons_and_thumbs_follow_the_runs_user(tmp_path):
    runs = [run("r1", "ann", "Q?", "one"), run("r2", "ann", "Q?", "two"), run("r3", "ann", "Q?", "three")]
    told = [
        feedback("f1", "r1", 1.0, feedback_group_id="g", key="ranked"),
        feedback("f2", "r2", 0.0, feedback_group_id="g", key="ranked"),
        feedback("f3", "r3", 0.0, feedback_group_id="g", key="ranked"),
        feedback("f4", "r1", 1, "model"),
        feedback("f5", "r2", 1, "app"),
        feedback("f6", None, 1),
    ]
    path = saved(tmp_path / "dump.json", {"feedback": told, "runs": runs})
    found = LangSmith().convert([path])
    assert found.table.select("chosen", "rejected", "tie").rows() == [
        ("one", "two", False), ("one", "three", False), ("two", "three", True),
    ]  # fmt: skip
    assert (found.rows, found.used, len(found.left_out)) == (6, 3, 3)
    assert LangSmith(judges="annotators").convert([path]).table["user_id"].to_list() == ["account-7"]


def test_a_run_within_a_trace_has_the_user_of_its_root(tmp_path):
    inner = [run("r2", None, "Q?", "one", trace_id="r1"), run("r3", None, "Q?", "two", trace_id="r1")]
    told = [feedback("f2", "r2", 1, trace_id="r1"), feedback("f3", "r3", 0, trace_id="r1")]
    path = saved(tmp_path / "a.json", [run("r1", "ann", "x", "y"), *inner, *told])
    assert pairs(LangSmith().convert([path])) == [("ann", "Q?", "one", "two")]


def test_a_group_without_a_partner_and_a_run_without_a_user(tmp_path):
    runs = [run("r1", "ann", "Q?", "one"), run("r2", None, "Q?", "two"), run("r3", "ann", "Other?", "three")]
    told = [
        feedback("f1", "r1", 1, feedback_group_id="g"), feedback("f2", "r2", 0, feedback_group_id="g"),
        feedback("f3", "r3", 0, feedback_group_id="g"),
    ]  # fmt: skip
    with pytest.raises(NotEnoughData) as caught:
        LangSmith().convert([saved(tmp_path / "r.json", runs), saved(tmp_path / "f.json", told)])
    assert "2 compared with no other answer of this person to the same prompt" in str(caught.value)
    assert "1 no user" in str(caught.value)


def test_runs_of_langchain_are_read_and_fields_can_be_named(tmp_path):
    human = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
             "kwargs": {"content": "Why?", "type": "human"}}  # fmt: skip
    told = {"generations": [[{"text": "x", "type": "ChatGeneration", "message": {
        "lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"],
        "kwargs": {"content": "So.", "type": "ai"}}}]], "llm_output": {}}  # fmt: skip
    runs = [
        run("r1", "ann", {"messages": [[human]]}, told),
        run("r2", "ann", {"question": "Why?", "context": "a text", "customer": "x"}, {"answer": "No.", "docs": []}),
        run("r3", "ann", {"messages": [{"type": "human", "content": "Why?"}]}, {"messages": [
            {"type": "human", "content": "Why?"}, {"type": "ai", "content": "Perhaps."}]}),
    ]  # fmt: skip
    told_of = [feedback("f1", "r1", 1), feedback("f2", "r2", 0), feedback("f3", "r3", 0)]
    paths = [saved(tmp_path / "r.json", runs), saved(tmp_path / "f.jsonl", told_of, lines=True)]
    found = LangSmith().convert(paths)
    assert pairs(found) == [("ann", "Why?", "So.", "No."), ("ann", "Why?", "So.", "Perhaps.")]
    named = LangSmith(user_field="inputs.customer", prompt_field="inputs.context", answer_field="outputs.answer")
    assert named.convert(paths).table.rows()[0][:3] == ("x", "a text", "No.")


def test_a_correction_of_a_run_is_a_pair(tmp_path):
    rows = [run("r1", "ann", "Q?", "bad"), feedback("f1", "r1", 0, correction={"output": "good"})]
    assert pairs(LangSmith().convert([saved(tmp_path / "a.json", rows)])) == [("ann", "Q?", "good", "bad")]


# ------------------------------------------------------------------------------------------------------------- Phoenix


def test_annotations_by_people_are_joined_to_spans(tmp_path):
    spans = [span("0a", "ann", "Q?", "one"), span("0b", "ann", "Q?", "two"), span("0c", None, "Q?", "three")]
    told = [
        annotation("n1", "0a", "👍", None),
        annotation("n2", "0b", "thumbs-down", None),
        annotation("n3", "0c", "👍", 1),
        annotation("n4", "0a", "correct", 1.0, "LLM", name="correctness"),
        annotation("n5", "0a", None, 0.2, "CODE", name="length"),
        annotation("n6", "0a", "bad", 0, source="APP", user_id="VXNlcjox"),
        annotation("n7", "0a", "relevant", 1, document_position=0),
        annotation("n8", "0a", "odd word", None),
    ]
    found = Phoenix().convert([saved(tmp_path / "s.json", page(spans)), saved(tmp_path / "n.json", page(told))])
    assert pairs(found) == [("ann", "Q?", "one", "two")]
    assert found.left_out[NO_USER] == 1 and found.left_out[NO_VALUE] == 1
    assert found.remarks == ('values that are no number, like or dislike: "odd word" (1)',)
    assert (found.rows, found.used, sum(found.left_out.values())) == (8, 2, 6)


def test_data_frames_of_phoenix_are_read(tmp_path):
    spans = [
        {"context.span_id": f"0{at}", "span_kind": "LLM", "attributes.input.value": "Q?", "attributes.user.id": 12,
         "attributes.output.value": json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})}
        for at, text in enumerate(("one", "two"))
    ]  # fmt: skip
    told = [
        {"span_id": f"0{at}", "annotation_name": "user feedback", "annotator_kind": "HUMAN", "result.score": 1.0 - at,
         "result.label": None, "id": f"n{at}"}
        for at in (0, 1)
    ]  # fmt: skip
    found = Phoenix().convert([as_csv(tmp_path / "s.csv", spans), as_csv(tmp_path / "n.csv", told)])
    assert pairs(found) == [("12", "Q?", "one", "two")]
