"""Published sets whose fields hold values of other types: converted, or refused in one line that names the field."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from polypref.cli import main
from polypref.data.published.personalllm import SCALES
from published_files import conversation, helpsteer_row, multipref_row, rfm_row

Row = dict[str, Any]
ROWS = 8
WISH = "Generate a response that can be easily understood by an elementary school student."
random.seed(0)


def chat(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# Set and settings -> the name of its file, and a row.
SETS: dict[tuple[str, ...], tuple[str, Any]] = {
    ("psoups",): ("P1A.json", lambda k: {
        "user_input": f"q{k} {WISH}", "completion_a": f"a{k}", "completion_b": f"b{k}",
    }),
    ("psoups", ""): ("mirror.json", lambda k: {
        "uid": "P1A", "prompt": f"q{k}", "chosen": f"a{k}", "rejected": f"b{k}",
    }),
    **dict.fromkeys(
        [("tldr",), ("tldr", "--protocol", "L"), ("tldr", "--protocol", "R")],
        ("t.jsonl", lambda k: {
            "info": {"id": "x", "post": f"post {k}", "title": "t", "subreddit": "r"},
            "summaries": [{"text": "x" * (k + 1 + side), "policy": f"sup{side}"} for side in (0, 1)],
            "choice": k // 2 % 2, "worker": f"w{k // 4}", "split": ("train", "valid1")[k % 2],
        }),
    ),
    ("personalllm",): ("p.jsonl", lambda k: {
        "prompt": f"q{k}", **{f"response_{i}": f"a{k}{i}" for i in range(1, 9)},
        **{f"response_{i}_{model}": random.gauss(*SCALES[model]) for i in range(1, 9) for model in SCALES},
    }),
    **dict.fromkeys(
        [("prism",), ("prism", "--pairs", "rated")],
        ("u.jsonl", lambda k: {
            "conversation_id": f"c{k // 4}", "user_id": f"u{k // 4}", "turn": 0, "within_turn_id": k % 4,
            "user_prompt": f"q{k // 4}", "model_response": f"a{k}", "score": 10 * (k % 4), "if_chosen": k % 4 == 0,
        }),
    ),
    ("arena",): ("a.jsonl", lambda k: {
        "question_id": f"q{k}", "winner": ("model_a", "tie")[k % 2], "judge": f"u{k % 3}", "tstamp": 1.6e9 + k,
        "conversation_a": chat(f"q{k}", f"a{k}"), "conversation_b": chat(f"q{k}", f"b{k}"),
    }),
    ("personal-rewardbench",): ("r.jsonl", lambda k: {
        "user_id": f"u{k % 3}", "context": chat(f"q{k}", "x")[:1],
        "chosen": chat("", f"a{k}")[1], "rejected": chat("", f"b{k}")[1],
    }),
    ("community-alignment", "--pairs", "shared"): ("c.jsonl", lambda k: conversation(f"u{k % 3}", k, "abcd"[k % 4])),
    ("helpsteer3",): ("h.jsonl", lambda k: helpsteer_row(k, k % 7 - 3)),
    ("helpsteer3", "--pairs", "each"): ("e.jsonl", lambda k: helpsteer_row(k, 0, (k % 3 - 1, 1))),
    ("multipref",): ("m.jsonl", lambda k: multipref_row(k, ("Tie", "A-is-clearly-better"), ("Tie",))),
    ("rfm",): ("f.jsonl", lambda k: rfm_row(k, {"org_X": (k / 2, 1.5)})),
}  # fmt: skip
SAME = ("response_", "second_turn", "third_turn", "fourth_turn", "annotator_")  # read like others that are tried
TRIED = ("response_1", f"response_8_{min(SCALES)}", "annotator_id", "annotator_age", "fourth_turn_prompt")
WRONG = [None, True, -1.5, "x", "", [], ["x"], [[]], {}, {"text": 5}, [{"text": 1}], {"content": ["a"]}, "[1]"]
FIELDS = [
    (name, field)
    for name, (_, make) in SETS.items()
    for field in make(0)
    if not field.startswith(SAME) or field in TRIED
]


def convert(folder, name, rows, capsys):
    """The exit code of convert and what it says."""
    path = folder / SETS[name][0]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
    settings = [word for word in name[1:] if word]
    code = main(["convert", name[0], str(path), "--out", str(folder / "out.jsonl"), "--force", *settings])
    return code, capsys.readouterr()


@pytest.mark.parametrize("name", SETS, ids=" ".join)
def test_the_rows_themselves_are_converted(tmp_path, capsys, name):
    assert convert(tmp_path, name, [SETS[name][1](k) for k in range(ROWS)], capsys)[0] == 0


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize(("name", "field"), FIELDS, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_a_wrong_type_is_one_line(tmp_path, capsys, name, field, every):
    rows = [SETS[name][1](k) for k in range(ROWS)]
    for value in WRONG[(len(field) + every) % 3 :: 3]:  # a third of them for each field
        changed = copy.deepcopy(rows)
        for row in changed[0 if every else 5 :][: None if every else 1]:
            row[field] = value
        code, said = convert(tmp_path, name, changed, capsys)
        assert code in (0, 2)
        if code == 2:
            assert said.err.count("\n") == 1 and "cannot be read" not in said.err, value
            told = field in said.err or "nothing is left" in said.err or "no row of TL;DR is of split" in said.err
            assert told, (value, said.err)


def test_a_file_that_was_cut_short_names_its_broken_line(tmp_path, capsys):
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(helpsteer_row(0, 0)) + '\n\n{"domain": "gen\n')
    assert main(["convert", "helpsteer3", str(path), "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "cut.jsonl: line 3 is" in (said := capsys.readouterr().err) and "Correct or delete this line" in said
    path.write_text(path.read_text().split("\n")[0])
    assert main(["convert", "helpsteer3", str(path), "--out", str(tmp_path / "o.jsonl")]) == 0
    assert "1 tie is kept" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["helpsteer3", "multipref"])
def test_lists_written_as_text_are_refused_with_what_to_give(name, tmp_path, capsys):
    row = helpsteer_row(0, 1) if name == "helpsteer3" else multipref_row(0, ("Tie",), ("Tie",))
    nested = {key: json.dumps(value) for key, value in row.items() if isinstance(value, list)}
    path, pairs = tmp_path / "t.jsonl", "each" if name == "helpsteer3" else "overall"
    path.write_text(json.dumps(row | nested) + "\n")
    assert main(["convert", name, str(path), "--pairs", pairs, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "give the set's JSON lines or Parquet file" in capsys.readouterr().err
