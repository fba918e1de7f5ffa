"""Shapes and values of preference data: TRL formats, labels, ratings, rankings, ties, times, attributes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref.comparisons import Comparisons
from polypref.data.read import Reading, ReadOptions, read
from polypref.data.rows.convert import pairs_within
from polypref.data.rows.layouts import find_layout, parse_columns
from polypref.data.rows.values import as_number, as_text, as_time
from polypref.errors import InputError, NotEnoughData, SettingsError


def jsonl(folder: Path, rows: list[dict], name: str = "prefs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def told(data: Comparisons) -> list[tuple[str, str, str, str, bool]]:
    """Each judgement as (user, prompt, chosen, rejected, tie)."""
    r = data.responses
    ties = np.zeros(len(data), bool) if data.tie_N is None else data.tie_N
    return [
        (data.users.ids[int(u)], r.prompt_text(int(r.prompt_R[c])), r.texts_R[int(c)], r.texts_R[int(j)], bool(t))
        for u, c, j, t in zip(data.user_N, data.chosen_N, data.rejected_N, ties, strict=True)
    ]


def both_ways(tmp_path: Path, rows: list[dict], options: ReadOptions | None = None) -> list[Reading]:
    """The rows read from JSONL and from Parquet, where lists and objects have types of their own."""
    parquet = tmp_path / "prefs.parquet"
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(parquet)
    return [read([jsonl(tmp_path, rows)], options), read([parquet], options)]


USER = {"role": "user", "content": "What colour is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": 'It is "green".'}


class TestTrlFormats:
    """The examples of https://huggingface.co/docs/trl/dataset_formats, with a user_id each."""

    def test_standard_explicit(self, tmp_path):
        rows = [{"user_id": "u", "prompt": "The sky is", "chosen": " blue.", "rejected": " green."}]
        for reading in both_ways(tmp_path, rows):
            assert told(reading.comparisons) == [("u", "The sky is", " blue.", " green.", False)]
            assert reading.comparisons.responses.chat_P is None

    def test_standard_implicit(self, tmp_path):
        rows = [{"user_id": "u", "chosen": "The sky is blue.", "rejected": "The sky is green."}]
        for reading in both_ways(tmp_path, rows):
            assert told(reading.comparisons) == [("u", "The sky is", " blue.", " green.", False)]
            assert any("no prompt column" in rule for rule in reading.rules)

    def test_implicit_text_stops_at_the_assistants_turn_and_at_whole_words(self, tmp_path):
        talk = "\n\nHuman: Hi there\n\nAssistant:"
        rows = [
            {"user_id": "u", "chosen": f"{talk} I can help", "rejected": f"{talk} I cannot"},
            {"user_id": "u", "chosen": "one blank", "rejected": "one black"},
            {"user_id": "u", "chosen": "same", "rejected": "same"},
            {"user_id": "u", "chosen": "abc", "rejected": "xyz"},
            {"user_id": "u", "chosen": "yes", "rejected": "yes indeed"},
        ]
        found = told(read([jsonl(tmp_path, rows)]).comparisons)
        assert found[0] == ("u", talk, " I can help", " I cannot", False)
        assert found[1] == ("u", "one", " blank", " black", False)
        assert found[2] == ("u", "", "same", "same", False)
        assert found[3] == ("u", "", "abc", "xyz", False)
        assert found[4] == ("u", "", "yes", "yes indeed", False)

    def test_conversational_explicit(self, tmp_path):
        rows = [{"user_id": "u", "prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}]
        for reading in both_ways(tmp_path, rows):
            responses = reading.comparisons.responses
            assert told(reading.comparisons)[0][2:4] == ("It is blue.", 'It is "green".')
            assert responses.chat_P is not None and responses.chat_P.tolist() == [True]
            assert responses.messages(0) == [USER]

    def test_conversational_implicit(self, tmp_path):
        system = {"role": "system", "content": "Be brief.\nAlways."}
        rows = [{"user_id": "u", "chosen": [system, USER, BLUE], "rejected": [system, USER, GREEN]}]
        for reading in both_ways(tmp_path, rows):
            assert reading.comparisons.responses.messages(0) == [system, USER]
            assert told(reading.comparisons)[0][2:4] == ("It is blue.", 'It is "green".')

    def test_text_prompt_with_whole_conversations_as_responses(self, tmp_path):
        rows = [{"user_id": "u", "prompt": USER["content"], "chosen": [USER, BLUE], "rejected": [USER, GREEN]}]
        for reading in both_ways(tmp_path, rows):
            assert told(reading.comparisons) == [("u", USER["content"], "It is blue.", 'It is "green".', False)]
            assert reading.comparisons.responses.chat_P is None

    def test_one_prompt_as_chat_and_as_text_are_two_prompts(self, tmp_path):
        rows = [
            {"user_id": "u", "prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
            {"user_id": "u", "prompt": [dict(reversed(USER.items()))], "chosen": [BLUE], "rejected": [GREEN]},
            {"user_id": "u", "prompt": USER["content"], "chosen": "x", "rejected": "y"},
        ]
        responses = read([jsonl(tmp_path, rows)]).comparisons.responses
        assert responses.chat_P is not None
        assert sorted(responses.chat_P.tolist()) == [False, True]

    def test_same_data_in_both_files_are_the_same_data(self, tmp_path):
        rows = [{"user_id": "u", "prompt": [USER], "chosen": [BLUE], "rejected": [GREEN], "x": None}]
        rows.append({"user_id": "v", "prompt": [USER | {"name": "Ann"}], "chosen": [BLUE], "rejected": [GREEN], "x": 1})
        first, second = both_ways(tmp_path, rows)
        assert first.comparisons.content_hash == second.comparisons.content_hash

    def test_several_messages_and_text_parts(self, tmp_path):
        parts = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        rows = [{"user_id": "u", "prompt": "p", "chosen": [BLUE, USER, GREEN], "rejected": [parts]}]
        (found,) = told(read([jsonl(tmp_path, rows)]).comparisons)
        assert found[2] == 'assistant: It is blue.\nuser: What colour is the sky?\nassistant: It is "green".'
        assert found[3] == "ab"

    def test_a_text_that_merely_looks_like_json_stays_text(self, tmp_path):
        text = '[{"name": "no role here"}]'
        rows = [{"user_id": "u", "prompt": "p", "chosen": text, "rejected": "[1, 2]"}]
        assert told(read([jsonl(tmp_path, rows)]).comparisons) == [("u", "p", text, "[1, 2]", False)]


class TestLabelsAndTies:
    def rows(self, *labels):
        return [{"user_id": "u", "prompt": "p", "response_a": "x", "response_b": "y", "label": one} for one in labels]

    def test_what_labels_mean(self, tmp_path):
        reading = read([jsonl(tmp_path, self.rows("A", "B", "tie", "model_a", "second", "draw"))])
        outcomes = [("x", False), ("y", False), ("x", True)]
        assert [(c, t) for _, _, c, _, t in told(reading.comparisons)] == outcomes * 2
        assert 'labels in "label": "A", "model_a": response_a; "B", "second": response_b; "draw", "tie": a tie' in (
            reading.rules
        )
        assert reading.shown_first_N.tolist() == [1, 0, 1, 1, 0, 1]

    def test_tie_column(self, tmp_path):
        rows = [
            {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y", "tie": tie} for tie in (True, False, None)
        ]
        for reading in both_ways(tmp_path, rows):
            assert reading.comparisons.tie_N is not None
            assert reading.comparisons.tie_N.tolist() == [True, False, False]

    def test_no_ties_no_column(self, tmp_path):
        rows = [{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y", "tie": False}]
        assert read([jsonl(tmp_path, rows)]).comparisons.tie_N is None

    def test_companion_file_is_read_only_when_named(self, tmp_path):
        pairs = jsonl(tmp_path, [{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}])
        ties = jsonl(tmp_path, [{"user_id": "v", "prompt": "p", "response_a": "y", "response_b": "z"}], "ties.jsonl")
        assert len(read([pairs]).comparisons) == 1
        reading = read([pairs], ReadOptions(ties=(str(ties),)))
        assert told(reading.comparisons)[1] == ("v", "p", "y", "z", True)
        assert reading.file_N.tolist() == [0, 1] and reading.files[1].endswith("ties.jsonl")
        assert len(reading.comparisons.responses) == 3

    def test_contradictory_label_is_left_out_and_told(self, tmp_path):
        rows = [row | {"tie": tie} for row, tie in zip(self.rows("A", "B", "tie"), (False, True, True), strict=True)]
        reading = read([jsonl(tmp_path, rows)])
        assert reading.line_N.tolist() == [1, 3]
        (problem,) = reading.problems
        assert (problem.name, problem.count, problem.line) == ("contradictory label", 1, 2)
        assert '"label" is "B"' in problem.text

    def test_two_label_columns_that_disagree(self, tmp_path):
        rows = [row | {"winner": w} for row, w in zip(self.rows("A", "B", "A"), ("a", "a", "model_a"), strict=True)]
        reading = read([jsonl(tmp_path, rows)])
        assert reading.line_N.tolist() == [1, 3]
        assert reading.problems[0].name == "contradictory label" and reading.problems[0].line == 2


class TestRatingsAndRankings:
    def test_pairs_within(self):
        first, second = pairs_within(np.array([3, 1, 0, 2, 3]))
        assert list(zip(first.tolist(), second.tolist(), strict=True)) == [
            (0, 1), (0, 2), (1, 2), (4, 5), (6, 7), (6, 8), (7, 8),
        ]  # fmt: skip

    def test_ratings(self, tmp_path):
        rows = [
            {"user_id": u, "prompt": p, "response": r, "rating": x}
            for u, p, r, x in (("u", "p", "a", 5), ("v", "p", "a", 1), ("u", "p", "b", 3), ("u", "q", "a", 1))
        ] + [{"user_id": "u", "prompt": "p", "response": "c", "rating": 5}]
        for reading in both_ways(tmp_path, rows):
            assert sorted(told(reading.comparisons)) == [
                ("u", "p", "a", "b", False),
                ("u", "p", "a", "c", True),
                ("u", "p", "c", "b", False),
            ]
            assert any("equal ratings are a tie" in rule for rule in reading.rules)
            assert sorted(reading.line_N.tolist()) == [3, 5, 5]
            assert reading.rows_read == 5

    def test_rating_gap(self, tmp_path):
        rows = [{"user_id": "u", "prompt": "p", "response": str(x), "rating": x} for x in (1, 2, 4)]
        reading = read([jsonl(tmp_path, rows)], ReadOptions(rating_gap=2))
        assert sorted(told(reading.comparisons)) == [
            ("u", "p", "2", "1", True),
            ("u", "p", "4", "1", False),
            ("u", "p", "4", "2", False),
        ]

    def test_one_response_rated_twice_is_not_a_pair(self, tmp_path):
        rows = [{"user_id": "u", "prompt": "p", "response": r, "rating": x} for r, x in (("a", 1), ("a", 2), ("b", 3))]
        assert [t[2:4] for t in told(read([jsonl(tmp_path, rows)]).comparisons)] == [("b", "a"), ("b", "a")]

    def test_nothing_to_compare(self, tmp_path):
        rows = [{"user_id": "u", "prompt": p, "response": "a", "rating": 1} for p in "pq"]
        with pytest.raises(NotEnoughData, match="no user rated two responses to one prompt"):
            read([jsonl(tmp_path, rows)])

    def test_rankings(self, tmp_path):
        rows = [
            {"user_id": "u", "prompt": "p", "responses": ["a", "b", "c"], "ranking": [2, 1, 2]},
            {"user_id": "v", "prompt": "p", "responses": ["a", "b"], "ranking": [1, 2]},
        ]
        for reading in both_ways(tmp_path, rows):
            assert told(reading.comparisons) == [
                ("u", "p", "b", "a", False),
                ("u", "p", "a", "c", True),
                ("u", "p", "b", "c", False),
                ("v", "p", "a", "b", False),
            ]
            assert reading.line_N.tolist() == [1, 1, 1, 2]
            assert any("rank 1 is best" in rule for rule in reading.rules)

    def test_bad_rankings_are_left_out(self, tmp_path):
        good = {"user_id": "u", "prompt": "p", "responses": ["a", "b"], "ranking": [2, 1]}
        rows = [good, good | {"ranking": [1]}, good | {"ranking": ["first", "x"]}, good | {"responses": "a, b"}]
        rows += [good] * 4 + [good | {"responses": ["a"], "ranking": [1]}]
        reading = read([jsonl(tmp_path, rows)])
        assert reading.line_N.tolist() == [1, 5, 6, 7, 8]
        assert {(p.name, p.count) for p in reading.problems} == {
            ("unreadable ranking", 2),
            ("unreadable responses", 1),
            ("one response ranked", 1),
        }


class TestColumns:
    @pytest.mark.parametrize("name", ["user_id", "uid", "user", "worker", "User ID", "annotator-id"])
    def test_known_names(self, name):
        layout = find_layout("f", {name: "text", "prompt": "text", "chosen": "text", "rejected": "text"})
        assert layout.names["user_id"] == name

    def test_mapping_wins(self, tmp_path):
        rows = [{"user_id": "no", "who": "u", "prompt": "p", "better": "x", "chosen": "y", "rejected": "z"}]
        columns = parse_columns(["user_id=who", "chosen=better"])
        assert told(read([jsonl(tmp_path, rows)], ReadOptions(columns=columns)).comparisons) == [
            ("u", "p", "x", "z", False)
        ]

    def test_a_role_can_be_left_out(self, tmp_path):
        rows = [{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "z", "time": "never"}]
        assert read([jsonl(tmp_path, rows)], ReadOptions(columns={"time": ""})).problems == ()
        assert read([jsonl(tmp_path, rows)]).problems[0].name == "unreadable time"

    @pytest.mark.parametrize("words", [["user_id"], ["user=x"], ["chosen=nowhere"]])
    def test_mappings_that_cannot_work(self, tmp_path, words):
        path = jsonl(tmp_path, [{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "z"}])
        with pytest.raises(SettingsError, match="columns"):
            read([path], ReadOptions(columns=parse_columns(words)))

    def test_optional_columns(self, tmp_path):
        rows = [
            {
                "user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y", "pair_id": "k", "weight": 2.5,
                "timestamp": "2024-01-02T03:04:05Z", "seconds": 7, "chosen_pos": 0, "attributes": {"age": 40, "q": "1"},
            },
            {
                "user_id": "u", "prompt": "p", "chosen": "y", "rejected": "x", "pair_id": None, "weight": None,
                "timestamp": None, "seconds": None, "chosen_pos": 1, "attributes": {"age": 40, "q": "2"},
            },
        ]  # fmt: skip
        for reading in both_ways(tmp_path, rows):
            data = reading.comparisons
            assert data.pair_N is not None and data.pair_N.tolist() == [0, -1]
            assert data.weights_N.tolist() == [2.5, 1.0]
            assert data.time_N is not None and data.time_N[0] == 1704164645 and np.isnan(data.time_N[1])
            assert reading.seconds_N[0] == 7 and np.isnan(reading.seconds_N[1])
            assert reading.shown_first_N.tolist() == [1, 0]
            assert data.users.attributes is not None
            assert data.users.attributes.to_dicts() == [{"age": "40"}]  # q varies within u: not about the user


class TestValues:
    def test_ids(self):
        assert as_text(pl.Series([1.0, 2.5, None, float("nan"), 1e20])).to_list()[:4] == ["1", "2.5", None, None]
        assert as_text(pl.Series([2**60 + 1])).to_list() == [str(2**60 + 1)]

    def test_numbers(self):
        value, bad = as_number(pl.Series([" 1.5 ", "", None, "many", "inf", "-2e3"]))
        assert value.to_list() == [1.5, None, None, None, None, -2000.0]
        assert bad.to_list() == [False, False, False, True, True, False]

    @pytest.mark.parametrize(
        "text",
        [
            "2016-02-15 23:03:27.0 UTC", "2016-02-15T23:03:27Z", "2016-02-16T01:03:27+02:00",
            "2016-02-16 01:03:27+0200", "1455577407", "1455577407000", "1455577407000000", "2016-02-15 23:03:27",
        ],
    )  # fmt: skip
    def test_one_moment_in_many_ways(self, text):
        value, bad = as_time(pl.Series([text, None]))
        assert value.to_list() == [1455577407.0, None]
        assert not bad.any()

    def test_times(self):
        value, bad = as_time(pl.Series(["2016-02-15", "yesterday", ""]))
        assert value.to_list() == [1455494400.0, None, None]
        assert bad.to_list() == [False, True, False]
        value, _ = as_time(pl.Series(["2016-02-15T23:03:27"]).str.to_datetime())
        assert value.to_list() == [1455577407.0]


def test_missing_columns_name_the_found_ones_and_the_next_step():
    with pytest.raises(InputError) as caught:
        find_layout("a/prefs.jsonl", {"prompt": "text", "chosen": "text", "rejected": "text", "who": "text"})
    expected = 'a/prefs.jsonl: column "user_id" is missing; found: prompt, chosen, rejected, who. '
    assert str(caught.value) == expected + "Use --columns to map yours, as in --columns user_id=NAME."
    with pytest.raises(InputError, match='column "rejected" is missing'):
        find_layout("prefs.jsonl", {"user_id": "text", "chosen": "text"})
    with pytest.raises(InputError, match='column "label" is missing'):
        find_layout("prefs.jsonl", {"user_id": "text", "response_a": "text", "response_b": "text"})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"user_id": "u", "prompt": "p", "responses": ["x", "y", "z"], "ranking": [1, 2, 3]}], "rankings"),
        ([{"user_id": "u", "prompt": "p", "response": t, "rating": k} for k, t in enumerate("xyz")], "ratings"),
        ([{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}], ""),
    ],
)
def test_what_judgements_were_made_from_is_remembered(tmp_path, rows, expected):
    data = read([jsonl(tmp_path, rows)]).comparisons
    assert data.lists == expected
    assert data.take(np.arange(1)).lists == expected


def test_ratings_without_a_prompt_say_what_is_compared(tmp_path):
    rows = [{"user_id": "u", "response": text, "rating": k, "note": "n"} for k, text in enumerate("xyz")]
    reading = read([jsonl(tmp_path, rows)])
    assert any(rule.startswith("no prompt column (--columns prompt=NAME") for rule in reading.rules)
    (layout,) = reading.layouts
    assert str(layout) == "user_id=user_id, response=response, rating=rating, no prompt; not used: note"
