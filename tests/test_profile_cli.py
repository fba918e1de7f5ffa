"""``polypref profile`` on small files."""

from __future__ import annotations

import json

import pytest

from polypref.cli import main
from profile_people import crowd


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def crowd_file(tmp_path):
    d = crowd("camps", 0, users=12, prompts=6)
    texts, prompts = d.responses.texts_R, d.responses.prompts
    rows = [
        {"who": u, "prompt": prompts[int(d.responses.prompt_R[c])], "chosen": texts[int(c)], "rejected": texts[int(r)]}
        for u, c, r in zip(d.users.ids.gather(d.user_N), d.chosen_N, d.rejected_N, strict=True)
    ]
    return write(tmp_path / "crowd.jsonl", rows)


def test_a_sentence_for_each_dimension_and_the_row_to_paste(crowd_file, capsys):
    assert main(["profile", crowd_file, "--columns", "user_id=who"]) == 0
    out = capsys.readouterr().out
    for dimension in ("disagreement: ", "consistency: ", "minorities: ", "room: ", "aggregation: ", "groups: "):
        assert f"\n{dimension}" in out
    assert "┏" not in out and "| crowd | 300 | 12 |" in out and "crowd: 300 judgements by 12 users" in out


def test_json_is_json_and_nothing_else(crowd_file, capsys):
    assert main(["profile", crowd_file, "--columns", "user_id=who", "--json"]) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content["sizes"]["users"] == 12 and content["groups"]["groups"] == 2
    assert content["consistency"]["retest"] == {"value": None, "lo": None, "hi": None, "n": 0}


def test_one_user_is_told_plainly(tmp_path, capsys):
    rows = [{"user_id": "u", "prompt": f"p{q}", "chosen": "a", "rejected": "b"} for q in range(12)]
    assert main(["profile", write(tmp_path / "one.jsonl", rows)]) == 0
    assert "Disagreement is unknown" in capsys.readouterr().out


def test_rows_left_out_are_counted(tmp_path, capsys):
    good = [{"user_id": f"u{u}", "prompt": f"p{q}", "chosen": "a", "rejected": "b"} for q in range(5) for u in range(3)]
    bad = [good[0] | {"rejected": "a"}, good[0] | {"user_id": None}]
    assert main(["profile", write(tmp_path / "some.jsonl", good + bad)]) == 0
    assert "\n2 rows were left out" in capsys.readouterr().out
    assert main(["profile", write(tmp_path / "all.jsonl", good)]) == 0
    assert "left out" not in capsys.readouterr().out


def test_the_table_fits_a_terminal(crowd_file, capsys):
    assert main(["profile", crowd_file, "--columns", "user_id=who"]) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("\nquantity") : printed.index("| data")].splitlines()
    assert len(table) > 20 and max(map(len, table)) <= 80


def test_nothing_usable_is_one_line(tmp_path, capsys):
    rows = [{"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "a"}] * 3
    assert main(["profile", write(tmp_path / "same.jsonl", rows)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_file_is_one_line(capsys):
    assert main(["profile"]) == 2
    assert capsys.readouterr().err.startswith("polypref: error: ")
