"""A column of labels is read under one stated meaning, or the file is refused with the ways to say it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.cli import main
from polypref.data.read import Reading, ReadOptions, read
from polypref.data.rows.labels import KNOWN
from polypref.data.rows.vocabulary import told
from polypref.errors import InputError, SettingsError

SIDES = ("response_a", "response_b")


def written(folder: Path, labels: Sequence[Any], column: str = "label", sides: tuple[str, str] = SIDES) -> str:
    """Rows whose first responses are a0, a1, ... and whose second ones are b0, b1, ..."""
    rows = [
        {"user_id": f"u{at % 3}", "prompt": "p", sides[0]: f"a{at}", sides[1]: f"b{at}", column: label}
        for at, label in enumerate(labels)
    ]
    (folder / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "l.jsonl")


def outcomes(reading: Reading) -> str:
    """A, B or = for each judgement."""
    c = reading.comparisons
    ties = c.tie_N if c.tie_N is not None else [False] * len(c)
    texts = c.responses.texts_R
    return "".join("=" if tie else texts[int(r)][0].upper() for tie, r in zip(ties, c.chosen_N, strict=True))


# Values -> what each is: A, B, = (a tie), or - (left out and told); with the column's name and those of the responses.
READ: list[tuple[list[Any], str, str, tuple[str, str]]] = [
    *(
        (values, meant, "label", SIDES)
        for values, meant in [
            (["A", "B", "tie"], "AB="),
            (["a", "b", "TIE"], "AB="),
            ([" A ", "B\t", " Tie"], "AB="),
            (["model_a", "model_b", "tie", "tie (bothbad)", "both_bad"], "AB==="),
            (["response_a", "response_b", "both"], "AB="),
            (["response_1", "response_2"], "AB"),
            (["Response A", "Response B", "Neither"], "AB="),
            (["Assistant A", "Assistant B", "equal"], "AB="),
            (["ResponseA", "ResponseB"], "AB"),
            (["model_1", "model_2", "tie"], "AB="),
            (["model_0", "model_1"], "AB"),
            (["left", "right", "same"], "AB="),
            (["first", "second", "draw"], "AB="),
            (["The first one", "the second one"], "AB"),
            (["Option A.", "Option B."], "AB"),
            (["[[A]]", "[[B]]", "[[tie]]"], "AB="),
            (["(A)", '"B"'], "AB"),
            (["A wins", "B wins", "no preference"], "AB="),
            (["a is better", "b is better", "about the same"], "AB="),
            (["prefer A", "prefer B", "indifferent"], "AB="),
            (["A>B", "B>A", "A=B"], "AB="),
            (["A<B", "B<A"], "BA"),
            (["A > B", "A < B", "A ≈ B"], "AB="),
            (["Antwort A", "Antwort B", "unentschieden"], "AB="),
            (["links", "rechts", "gleich gut"], "AB="),
            (["gauche", "droite", "égalité"], "AB="),
            (["izquierda", "derecha", "empate"], "AB="),
            (["Ａ", "Ｂ"], "AB"),
            ([1, 2], "AB"),
            (["1", "2"], "AB"),
            (["1.0", "2.0"], "AB"),
            ([1.0, 2.0], "AB"),
            (["[[1]]", "[[2]]"], "AB"),
            ([1, 2, "tie"], "AB="),
            (["A", "B", None], "AB-"),
            (["A", "B", ""], "AB-"),
            (["A", "B", "NaN"], "AB-"),
            (["A", "B", "N/A", "skip"], "AB--"),
        ]
    ),
    ([1, 2, 0], "AB=", "preference", ("output_1", "output_2")),
    ([1, 2, 1.5], "AB=", "preference", ("output_1", "output_2")),
    ([1.000005, 1.9, 1.5, 2], "AB=B", "preference", ("output_1", "output_2")),
    ([-3, -2, -1, 0, 1, 2, 3], "AAA=BBB", "overall_preference", ("response1", "response2")),
    ([-1, 1], "AB", "preference_strength", ("response_1", "response_2")),
    ([0, 1], "AB", "better_response_id", ("response_0", "response_1")),
    ([0, 1], "AB", "winner", ("response_0", "response_1")),
    ([1], "B", "winner", ("response_0", "response_1")),
    ([1], "A", "winner", ("response_1", "response_2")),
    ([1, 0], "AB", "labels", ("human_ref_A", "human_ref_B")),
    ([0, 1], "AB", "winner_index", SIDES),
    ([1, 2], "AB", "winner_index", SIDES),
    (["output_1", "output_2"], "AB", "winner", ("output_1", "output_2")),
    (["left_answer", "right_answer"], "AB", "choice", ("answer_left", "answer_right")),
    (["A", "B"], "AB", "preferred", SIDES),
]  # fmt: skip

REFUSED: list[list[Any]] = [
    [0, 1], [1, 0, 0.5], [0, 1, 2], [1, 2, 3], [1, 2, 3, 4, 5], list(range(1, 8)), [-1, 1], [-1, 0, 1], [-1, 0, 1, 2],
    [-3, -2, -1, 0, 1, 2, 3], [1, 2, -1], [1, 2, 1.5], [0, 2], [1, 3], [1], [0], [2], [True, False], ["true", "false"],
    ["yes", "no"], ["win", "lose"], ["win", "lose", "tie"], ["better", "worse"], ["chosen", "rejected"],
    ["A", "B", "C"], ["A", "B", "C", "D"], ["[[A]]", "[[B]]", "[[C]]"], ["left", "right", "middle"],
    ["A", "B", "None"], ["A", "B", 1],
    ["👍", "👎"], ["🅰️", "🅱️"], ["x", "y"], ["gpt-4", "claude"], ["model_1"], ["model_1", "model_2", "model_3"],
    ["70%", "30%"], [0.2, 0.7, 0.5], ["А", "В"], ["A", "B", "not A"], ["A", "B", "A, but B is close"], ["good", "bad"],
    [[1, 0], [0, 1]], [{"w": 1}, {"w": 2}], ["A", "B", "who knows"], ["strong A", "weak B"], [10, 20],
    ["1", "2", "both are 1"], ["safe", "unsafe"],
]  # fmt: skip


def test_there_are_enough_vocabularies():
    assert len(READ) + len(REFUSED) >= 60


def test_the_page_names_every_layout_that_settles_labels():
    page = (Path(__file__).parents[1] / "docs/data.md").read_text()
    for known in KNOWN:
        assert known.name in page
        assert all(f"`{name}`" in page for name in known.labels[:1])


@pytest.mark.parametrize(("values", "meant", "column", "sides"), READ, ids=lambda value: str(value)[:40])
def test_read(tmp_path, values, meant, column, sides):
    reading = read([written(tmp_path, values * 3, column, sides)])
    assert outcomes(reading) == meant.replace("-", "") * 3
    assert sum(problem.count for problem in reading.problems) == 3 * meant.count("-")
    assert any(rule.startswith(f'labels in "{column}"') for rule in reading.rules)


@pytest.mark.parametrize("values", REFUSED, ids=lambda value: str(value)[:40])
def test_refused_with_ways_that_work(tmp_path, values):
    path = written(tmp_path, values * 3)
    with pytest.raises(InputError) as caught:
        read([path])
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f'{path}: column "label" holds ')
    assert f"({3 * len(values) // len(values)})" in line  # each value with its count
    offers = re.findall(r"""--labels (".*?"(?= )|'.*?'(?= )|\S+)""", line)
    assert offers
    for offer in offers:
        (setting,) = shlex.split(offer.rstrip(","))
        reading = read([path], ReadOptions(labels=setting))
        assert len(reading.comparisons) == 3 * len(values)
        assert any(f"(--labels {setting})" in rule for rule in reading.rules)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_repeated_value_is_never_left_out(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever the readable labels are, a value of unknown meaning that occurs twice is in a refusal."""
    known = data.draw(st.lists(st.sampled_from(["A", "B", "tie", "left", "model_b"]), min_size=1, max_size=30))
    unknown = data.draw(st.text("cdé xyz_-9Q", min_size=1, max_size=8))
    labels = data.draw(st.permutations([*known, *[f"zq{unknown}"] * data.draw(st.integers(2, 30))]))
    with pytest.raises(InputError, match=r'column "label" holds') as caught:
        read([written(tmp_path_factory.mktemp("l"), labels)])
    assert "\n" not in str(caught.value)


@given(st.lists(st.sampled_from([-2, -1, 0, 1, 2]), min_size=4, max_size=40).filter(lambda v: min(v) < 0))
@settings(max_examples=30, deadline=None)
def test_scale_keeps_sign_and_size(tmp_path_factory: pytest.TempPathFactory, values: list[int]) -> None:
    path = written(tmp_path_factory.mktemp("l"), values)
    reading = read([path], ReadOptions(labels="scale"))
    assert outcomes(reading) == "".join("A" if one < 0 else "B" if one > 0 else "=" for one in values)
    top = max(map(abs, values))
    expected = [abs(one) / top if one else 1.0 for one in values]
    assert reading.comparisons.weights_N.tolist() == pytest.approx(expected)
    turned = read([path], ReadOptions(labels=f"scale:{top}..{-top}"))
    assert outcomes(turned) == outcomes(reading).translate(str.maketrans("AB", "BA"))


def test_grades_in_words_and_a_column_of_weights(tmp_path):
    values = ["A is slightly better", "B>>A", "A", "tie"]
    reading = read([written(tmp_path, values)])
    assert reading.comparisons.weights_N.tolist() == pytest.approx([1 / 3, 1, 2 / 3, 1])
    path = Path(written(tmp_path, values))
    rows = [json.loads(line) | {"weight": 6} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read([path]).comparisons.weights_N.tolist() == pytest.approx([2, 6, 4, 6])


@pytest.mark.parametrize("setting", ["scale:1..1", "1=A,1=B", "1", "1=A B", "A=first", "scale:1", "sometimes"])
def test_settings_that_cannot_be(setting):
    with pytest.raises(SettingsError, match="--labels"):
        told(setting)


def test_settings_that_say_nothing_are_refused(tmp_path):
    path = written(tmp_path, ["A", "B"] * 3)
    for setting in ("x=A", "decimal-comma"):
        with pytest.raises(SettingsError, match=f"--labels {setting}"):
            read([path], ReadOptions(labels=setting))
    with pytest.raises(InputError, match="which --labels 0=A does not cover"):
        read([written(tmp_path, [0, 1] * 3)], ReadOptions(labels="0=A"))
    with pytest.raises(InputError, match="Give both ends"):
        read([written(tmp_path, [1, 2, 3] * 3)], ReadOptions(labels="scale"))


def test_labels_may_name_the_model_or_repeat_the_text(tmp_path):
    rows = []
    for at in range(12):
        models = ("gpt", "claude") if at % 3 else ("claude", "gpt")
        row = {"user_id": "u", "prompt": "p", "response_a": f"a{at}", "response_b": f"b{at}"}
        rows.append(row | {"model_a": models[0], "model_b": models[1], "winner": "gpt" if at % 4 else "tie"})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = "".join("=" if at % 4 == 0 else "A" if at % 3 else "B" for at in range(12))
    assert outcomes(read([path])) == expected
    sides = "ABBABAABBA"
    labels = [f"{side.lower()}{at}" for at, side in enumerate(sides)]
    assert outcomes(read([written(tmp_path, labels)])) == sides


@pytest.mark.parametrize("flags", [(1, 0), (True, False), ("True", "False"), ("1.0", "0.0")])
def test_a_column_for_each_outcome(tmp_path, flags):
    yes, no = flags
    rows = [
        {"user_id": "u", "prompt": "p", "response_a": f"a{at}", "response_b": f"b{at}"}
        | {f"winner_{name}": yes if at % 3 == k else no for k, name in enumerate(("model_a", "model_b", "tie"))}
        for at in range(9)
    ]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for columns in ({}, {"label": "winner_model_a"}, {"label": "winner_model_a", "tie": "winner_tie"}):
        assert outcomes(read([path], ReadOptions(columns=columns))) == "AB=" * 3
    for row in rows[:3]:
        row["winner_tie"] = yes if row["winner_tie"] == no else no
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r'column "winner_model_a, winner_model_b, winner_tie" holds'):
        read([path])


def test_one_side_and_empty_labels(tmp_path):
    path = written(tmp_path, ["A", None] * 6)
    with pytest.raises(InputError, match=r'holds "A" \(6\) and nothing \(6\): every label prefers response_a'):
        read([path])
    for setting, expected in (("=B", "AB" * 6), ("=tie", "A=" * 6), ("=skip", "A" * 6)):
        assert outcomes(read([path], ReadOptions(labels=setting))) == expected


def test_a_second_column_that_is_no_label_is_left(tmp_path):
    path = Path(written(tmp_path, ["A", "B"] * 4, "winner"))
    rows = [json.loads(line) | {"label": "safe"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read([path])
    assert outcomes(reading) == "AB" * 4 and reading.layouts[0].unused == ("label",)


def test_a_mapping_beside_a_label_is_tried(tmp_path):
    path = written(tmp_path, [1, 2] * 4, "preference", ("answer_1", "answer_2"))
    with pytest.raises(InputError, match="response_a=answer_1 response_b=answer_2"):
        read([path], ReadOptions(columns={"chosen": "answer_1", "rejected": "answer_2"}))
    with pytest.raises(InputError, match="Leave chosen=answer_1 out"):
        read([path], ReadOptions(columns={"chosen": "answer_1"}))
    with pytest.raises(SettingsError, match="ranking=prompt would not be used"):
        read([path], ReadOptions(columns={"ranking": "prompt"}))
    path = written(tmp_path, [1, 2] * 4, "who_won", ("left_text", "right_text"))
    with pytest.raises(InputError) as caught:
        read([path])
    hint = re.search(r"map yours: --columns (.*)\.$", str(caught.value))
    assert hint is not None
    columns = dict(word.split("=") for word in hint[1].split())
    assert outcomes(read([path], ReadOptions(columns=columns))) == "AB" * 4


def test_positions_are_decided_once(tmp_path, monkeypatch):
    from polypref.data.files import textfiles

    monkeypatch.setattr(textfiles, "BLOCK", 256)

    def saved(positions):
        path = tmp_path / "p.jsonl"
        rows = [{"user_id": "u", "prompt": "p", "chosen": f"x{at}", "rejected": f"y{at}", "chosen_pos": one}
                for at, one in enumerate(positions)]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read([path])

    assert saved([1] * 60 + [2] * 20).shown_first_N.tolist() == [1] * 60 + [0] * 20
    assert saved([1] * 60 + [0] * 20).shown_first_N.tolist() == [0] * 60 + [1] * 20
    unknown = saved([1] * 60)
    assert unknown.shown_first_N.tolist() == [-1] * 60 and "cannot be told" in unknown.rules[-1]


def test_commands_say_the_rule_what_is_dropped_and_what_is_odd(tmp_path, capsys):
    rows = [{"user_id": f"u{at % 3}", "prompt": f"p{at % 4}", "response_a": f"x {at % 5}", "response_b": f"y {at % 7}",
             "winner": "A" if at else None} for at in range(40)]  # fmt: skip
    path = tmp_path / "w.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.startswith("warning: one-sided labels: the response shown first won 100.0 % of 39")
    assert main(["profile", str(path)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("polypref: warning: one-sided labels")
    assert 'polypref: read as: labels in "winner": "A": response_a' in told
    assert any(line.startswith("polypref: dropped: 1 row (no label); line 1 of") for line in told)
    assert main(["fit", str(path), "--labels", "A=B", "--out", str(tmp_path / "s"), "--encoder", "static"]) == 0
    assert '(--labels A=B): "A": response_b' in capsys.readouterr().err
