"""``convert`` of Label Studio and Argilla, whose annotators compare and rate answers."""

from __future__ import annotations

import polars as pl
import pytest

from feedback_files import AGAIN, as_csv, chosen, pairs, ranked, record, response, saved, task
from polypref.data.feedback.argilla import NO_FIELDS, NOT_COMPARING, Argilla
from polypref.data.feedback.judgements import LATEST, NO_PROMPT, NO_USER, SAME
from polypref.data.feedback.label_studio import NO_CHOICE, NO_SIDES, LabelStudio
from polypref.errors import InputError, NotEnoughData

LAUGHS = "<!DOCTYPE v [<!ENTITY a0 'ha'>{}]><View>&a9;</View>".format(
    "".join(f"<!ENTITY a{at + 1} '{f'&a{at};' * 60}'>" for at in range(9))
)
CONFIG = """<View>
  <Header value="Compare"/>
  <Text name="q" value="$frage"/>
  <Pairwise name="pw" toName="l,r"/>
  <Text name="l" value="$first_text"/><Text name="r" value="$second_text"/>
</View>"""


# -------------------------------------------------------------------------------------------------------- Label Studio


def test_annotations_are_comparisons_of_whoever_completed_them(tmp_path):
    tasks = [
        task(1, "one", "two", chosen(11, "left"), chosen(12, "right", {"id": 8, "email": "eva@x.org"})),
        task(2, "ünï", "two", chosen(13, "right", lead_time=None)),
    ]
    found = LabelStudio().convert([saved(tmp_path / "project.json", tasks)])
    assert [(row[0], *row[2:]) for row in pairs(found)] == [
        ("7", "one", "two"), ("eva@x.org", "two", "one"), ("7", "two", "ünï"),
    ]  # fmt: skip
    assert found.table["seconds"].to_list() == [12.5, 12.5, None]
    assert found.table["pair_id"].to_list() == ["1", "1", "2"]
    assert found.table["shown_first"].to_list() == ["chosen", "rejected", "rejected"]


def test_messy_annotations_are_counted(tmp_path):
    tasks = [
        task(1, "one", "two", chosen(1, "left"), chosen(2, "left", was_cancelled=True), chosen(3, None)),
        task(2, "one", "two"),
        task(3, "one", "two", chosen(4, "left", None)),
        task(4, "same", "same", chosen(5, "left")),
        task(5, "one", "two", chosen(6, "left"), prompt=None),
        task(6, "one", "two", chosen(7, "left"), data={"text": "one"}),
        task(7, "one", "two", predictions=[{"id": 1, "model_version": "m", "result": chosen(0, "left")["result"]}]),
        task(8, "one", "two", chosen(1, "left")),  # annotation 1 once more, of another task: changed
        task(9, "one", "two", chosen(6, "left"), prompt=None),
    ]
    found = LabelStudio().convert([saved(tmp_path / "p.json", tasks)])
    assert found.left_out == {
        "cancelled": 1, NO_CHOICE: 1, "a task without annotations": 1, NO_USER: 1, SAME: 1, NO_PROMPT: 1, NO_SIDES: 1,
        "a model's prediction; --judges models writes these": 1, LATEST: 2,
    }  # fmt: skip
    assert (found.rows, found.used) == (11, 1)
    assert pairs(LabelStudio(judges="models").convert([saved(tmp_path / "p.json", tasks)]))[0][0] == "m"


def test_the_label_config_names_the_texts(tmp_path):
    data = {"frage": "Q?", "first_text": "one", "second_text": "two", "note": "x"}
    item = {"from_name": "pw", "to_name": "l,r", "type": "pairwise", "value": {"selected": "left"}}
    path = saved(tmp_path / "p.json", [task(1, "", "", chosen(1, "left", result=[item]), data=data)])
    with pytest.raises(NotEnoughData, match="--label-config FILE"):
        LabelStudio().convert([path])
    (tmp_path / "config.xml").write_text(CONFIG)
    assert pairs(LabelStudio(label_config=str(tmp_path / "config.xml")).convert([path])) == [("7", "Q?", "one", "two")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "is not XML"),
        ("<View>", "is not XML"),
        ("<View><Text name='a' value='$a'/></View>", "no Pairwise tag"),
        (None, "cannot read"),
    ],
)
def test_a_label_config_that_does_not_say(tmp_path, text, says):
    if text is not None:
        (tmp_path / "c.xml").write_text(text)
    with pytest.raises(InputError, match=says):
        LabelStudio(label_config=str(tmp_path / "c.xml")).convert(
            [saved(tmp_path / "p.json", [task(1, "a", "b", chosen(1, "left"))])]
        )


def test_json_min_and_csv(tmp_path):
    rows = [
        {"id": 1, "prompt": "Q?", "text1": "one", "text2": "two", "pw": {"selected": "left"}, "annotator": 7,
         "annotation_id": 1, "created_at": "2026-10-01T10:00:00Z", "updated_at": "2026-10-01T10:00:00Z",
         "lead_time": 3.5},
        {"id": 2, "prompt": "Q?", "text1": "one", "text2": "two", "pw": [{"selected": "right"}], "annotator": 8,
         "annotation_id": 2, "created_at": "2026-10-01T10:00:00Z", "updated_at": "2026-10-01T10:00:00Z",
         "lead_time": 4},
        {"id": 3, "prompt": "Q?", "text1": "one", "text2": "two", "pw": "right", "annotator": 8, "annotation_id": 3,
         "created_at": "2026-10-01T10:00:00Z", "updated_at": "2026-10-01T10:00:00Z", "lead_time": 4},
    ]  # fmt: skip
    expected = [("7", "Q?", "one", "two"), ("8", "Q?", "two", "one"), ("8", "Q?", "two", "one")]
    assert pairs(LabelStudio().convert([saved(tmp_path / "min.json", rows)])) == expected
    found = LabelStudio().convert([as_csv(tmp_path / "p.csv", rows)])
    assert pairs(found) == expected and found.table["seconds"].to_list() == [3.5, 4.0, 4.0]


# ------------------------------------------------------------------------------------------------------------- Argilla


def test_rankings_ratings_and_choices_of_version_1(tmp_path):
    rows = [
        record("1", response("ann", ranking=ranked("response-2", "response-1")), response("bob", preference="A")),
        record("2", response("ann", response__1_rating=4, response__2_rating=2)),
        record("3", response("ann", preference="tie")),
        record("4", response("ann", ranking=[{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}])),
    ]
    names = ("response-1_rating", "response-2_rating", "ranking", "preference")
    found = Argilla(names=names).convert([saved(tmp_path / "r.json", rows)])
    assert found.table.select("user_id", "chosen", "rejected", "tie").rows() == [
        ("ann", "Because.", "Scattering.", False),
        ("bob", "Scattering.", "Because.", False),
        ("ann", "Scattering.", "Because.", True),
        ("ann", "Scattering.", "Because.", True),
        ("ann", "Scattering.", "Because.", False),
    ]
    assert (found.rows, found.used) == (6, 6)


def test_messy_responses_are_counted(tmp_path):
    good = response("ann", ranking=ranked("response-1", "response-2"))
    rows = [
        record("1", good),
        record("1", good),
        record("2", response("ann", "draft", ranking=ranked("response-1", "response-2"))),
        record("3", response("ann", "discarded", ranking=None)),
        record("4"),
        record("4b", {"user_id": "ann", "status": "discarded", "values": None}),
        record("5", response(None, ranking=ranked("response-1", "response-2"))),
        record("6", response("ann", ranking=ranked("generation-9", "response-2"))),
        record("7", response("ann", comment="well said", ranking=[])),
        record("8", response("ann", ranking=ranked("response-1", "response-2")), prompt=""),
        {"id": "9", "nothing": True},
    ]
    found = Argilla().convert([saved(tmp_path / "r.json", rows)])
    assert found.left_out == {
        AGAIN: 1, "draft, not submitted": 1, "discarded, not submitted": 2, "a record without responses": 1,
        NO_USER: 1, NO_FIELDS: 1, NOT_COMPARING: 2, NO_PROMPT: 1, "not a record with fields": 1,
    }  # fmt: skip
    assert (found.rows, found.used) == (12, 1)


FIELDS = {"prompt": "Q?", "response-1": "one", "response-2": "two"}
NESTED = {
    "id": "1", "fields": FIELDS, "metadata": {}, "suggestions": {"ranking": {"value": ["response-1", "response-2"],
    "score": None, "agent": "judge-model"}}, "responses": {"ranking": [{"value": ["response-2", "response-1"],
    "user_id": "ann"}]}, "vectors": {}, "status": "completed", "_server_id": "s1",
}  # fmt: skip
FLAT = {
    "id": "1", "status": "completed", "_server_id": "s1", **FIELDS, "ranking.responses": [["response-2", "response-1"]],
    "ranking.responses.users": ["ann"], "ranking.responses.status": ["submitted"],
    "ranking.suggestion": ["response-1", "response-2"], "ranking.suggestion.agent": "judge-model",
    "ranking.suggestion.score": None,
}  # fmt: skip
OLDER = {
    **FIELDS, "ranking": [{"user_id": "ann", "value": ranked("response-2", "response-1"), "status": "submitted"}],
    "ranking-suggestion": None, "external_id": "1", "metadata": "{}",
}  # fmt: skip


@pytest.mark.parametrize("row", [NESTED, FLAT, OLDER], ids=["nested", "flat", "data set of version 1"])
@pytest.mark.parametrize("kind", ["json", "parquet", "csv"])
def test_every_form_of_a_record(tmp_path, row, kind):
    if kind == "parquet":
        pl.DataFrame([row]).drop("vectors", "metadata", strict=False).write_parquet(path := tmp_path / "r.parquet")
    else:
        path = tmp_path / f"r.{kind}"
        as_csv(path, [row]) if kind == "csv" else saved(path, [row])
    found = Argilla().convert([str(path)])
    assert pairs(found) == [("ann", "Q?", "two", "one")]
    assert [text.startswith("not known to be submitted: 1 response") for text in found.remarks] == [True] * (
        row is NESTED
    )
    if row is not OLDER:
        assert found.left_out == {"a model's suggestion; --judges models writes these": 1}
        by_model = Argilla(judges="models").convert([str(path)])
        assert pairs(by_model) == [("judge-model", "Q?", "one", "two")]
