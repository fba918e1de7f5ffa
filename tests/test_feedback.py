"""Feedback of every product: each record counts once, other products' files, broken files, from convert to profile."""

from __future__ import annotations

import copy
import json
import random
import re
import shlex
import tracemalloc
from dataclasses import fields

import pytest

from feedback_files import (
    annotation,
    chat,
    chosen,
    feedback,
    page,
    ranked,
    rating,
    record,
    request,
    response,
    run,
    saved,
    score,
    span,
    task,
    trace,
)
from polypref.cli import main
from polypref.data.feedback import FEEDBACK
from polypref.data.feedback.judgements import PAIRED, SINGLE, Judgements, Value, finished
from polypref.data.feedback.signs import kind_of
from polypref.data.files import textfiles
from polypref.data.read import read
from polypref.errors import InputError, PolyprefError
from published_files import converted
from test_docs import ROOT

PEOPLE, ASKED = 6, 12


def likes(user: int, question: int, answer: int) -> int:
    """Half of the people like the first answers, half the second ones."""
    return int((user % 2 == answer) != (question % 5 == 0 and user == 0))


def export(product: str) -> list:
    """A product's records of some people, who judge two answers to each of some questions."""
    rows = []
    for user in range(PEOPLE):
        for question in range(ASKED):
            who, asked = f"user-{user}", f"Question {question}?"
            texts = [f"answer {question} of kind {at}, at some length" for at in (0, 1)]
            liked = [likes(user, question, at) for at in (0, 1)]
            key = f"{user}-{question}"
            if product == "open-webui":
                about = chat(who, tuple(texts), key)
                about["chat"]["history"]["messages"]["q1"]["content"] = asked
                rows.append(rating(key, about, "a0", 1 if liked[0] else -1, who))
            elif product == "label-studio":
                side = "left" if liked[0] else "right"
                rows.append(task(len(rows), texts[0], texts[1], chosen(len(rows), side, who), prompt=asked))
            elif product == "argilla":
                order = ("response-1", "response-2") if liked[0] else ("response-2", "response-1")
                fields = {"prompt": asked, "response-1": texts[0], "response-2": texts[1]}
                rows.append(record(key, response(who, ranking=ranked(*order)), **fields))
            for at in (0, 1):
                one, text = f"{key}-{at}", texts[at]
                if product == "langfuse":
                    rows += [trace(one, who, asked, text), score("s" + one, one, liked[at])]
                elif product == "langsmith":
                    rows += [run(one, who, asked, text), feedback("f" + one, one, liked[at])]
                elif product == "phoenix":
                    rows += [span(one, who, asked, text), annotation("n" + one, one, None, liked[at])]
                elif product == "helicone":
                    rows.append(request(one, who, asked, text, liked[at]))
                elif product == "portkey":
                    rows.append({"trace_id": one, "request": asked, "response": text, "metadata": {"_user": who}})
                    rows.append({"trace_id": one, "value": 10 * liked[at] - 5, "weight": 1})
    return rows


@pytest.mark.parametrize("product", FEEDBACK)
def test_what_is_converted_is_checked_and_profiled(tmp_path, capsys, product):
    path = saved(tmp_path / "export.jsonl", export(product), lines=True)
    out = tmp_path / "prefs.jsonl"
    said = converted(f"{product} {path} --out {out}", capsys)
    comparisons = read([out]).comparisons
    assert len(comparisons.users) == PEOPLE and len(comparisons) >= PEOPLE * (ASKED - 3)
    assert "of them used" in said
    assert main(["check", str(out)]) == 0
    assert main(["profile", str(out)]) == 0


@pytest.mark.parametrize("product", ["langfuse", "helicone"])
def test_single_answers_are_checked_and_fitted_with_pairs(tmp_path, capsys, product):
    """Likes without a partner, which a second call writes: no record is in both files."""
    rows = [one for one in export(product) if not str(one.get("id") or one.get("request_id")).endswith("3-1")]
    path = saved(tmp_path / "export.jsonl", rows, lines=True)
    read_of = {}
    for form in ("pairs", "single"):
        out = tmp_path / f"{form}.jsonl"
        said = converted(f"{product} {path} --form {form} --out {out}", capsys)
        read_of[form] = int(said.split(" of them used")[0].rsplit(", ", 1)[1].replace(",", ""))
    assert read_of["single"] == PEOPLE and sum(read_of.values()) == 2 * PEOPLE * ASKED - PEOPLE
    assert main(["check", str(tmp_path / "pairs.jsonl"), str(tmp_path / "single.jsonl")]) == 0


WRONG = [None, True, -1.5, "x", "", "\0", "ü☃\u202e", [], ["x"], [[]], {}, {"text": 5}, [{"text": 1}], "[1]", 10**400]
DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]


def spoilt(rows: list, rng: random.Random) -> list:
    """Some values anywhere within the records replaced, keys removed, records repeated."""
    rows = copy.deepcopy(rows)
    for _ in range(rng.randrange(1, 8)):
        place = rng.choice(rows)
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = rng.choice(list(keys))
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            break
        if isinstance(place, dict) and rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice([*WRONG, DEEP])
    rows += rng.choices(rows, k=2)
    rng.shuffle(rows)
    return [*rows, *rng.choices([None, 3, "x", [], {}, {"a": 1}], k=2)]


@pytest.mark.parametrize("product", FEEDBACK)
def test_every_record_is_used_or_left_out_once(tmp_path, product):
    """Whatever the records hold: a refusal in one line, or numbers that add up. ``finished`` asserts the sum."""
    rng = random.Random(product)
    ok = 0
    for at in range(60):
        rows = spoilt(export(product)[: rng.randrange(4, 60)], rng)
        path = saved(tmp_path / f"{at}.jsonl", rows, lines=True)
        used = {}
        for form in ("pairs", "single") if product != "label-studio" else ("",):
            try:
                found = FEEDBACK[product](**{"form": form} if form else {}).convert([path])
            except PolyprefError as error:
                assert "\n" not in str(error)
                continue
            assert found.used is not None and found.used + sum(found.left_out.values()) == found.rows
            assert found.table.null_count().select("user_id", "prompt").row(0) == (0, 0)
            used[form] = found.used, found.left_out.get(SINGLE, 0), found.left_out.get(PAIRED, 0)
            ok += 1
        if len(used) == 2:  # what one form leaves out is in the other
            assert used["pairs"][0] == used["single"][2]
            assert used["single"][0] <= used["pairs"][1]
    assert ok > 30


def test_a_record_that_is_lost_or_counted_twice_is_noticed():
    found = Judgements()
    found.values.append(Value(found.next(), "u", "p", "a", "n", 1.0))
    found.next()
    with pytest.raises(AssertionError):
        finished("x", found, "single")


@pytest.mark.parametrize("product", FEEDBACK)
def test_a_file_of_another_product_is_named_with_its_command(tmp_path, product, capsys):
    other = next(name for name in reversed(FEEDBACK) if name not in (product, "portkey"))
    path = saved(tmp_path / "an export.json", export(other))
    out = tmp_path / "p.jsonl"
    assert main(["convert", product, path, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"of {other}, not like" in told
    command = shlex.split(told.split("polypref ", 1)[1].rstrip(".\n"))
    assert command[:3] == ["convert", other, path]
    assert main([*command[:-1], str(out)]) == 0


@pytest.mark.parametrize("product", ["open-webui", "label-studio", "langfuse", "langsmith", "phoenix", "helicone"])
def test_check_names_the_converter(tmp_path, product, capsys):
    path = saved(tmp_path / "export.json", export(product))
    assert main(["check", path]) == 2
    assert f"polypref convert {product} {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "keys",
    [
        "user_id prompt chosen rejected tie attributes", "context attributes user response rating",
        "id inputs outputs label",
        "id user_id timestamp input output name score", "user_id chat rating", "id name source text label",
        "messages user feedback trace_id", "user_id data label", "id fields text", "annotator text1 text2 label",
    ],
)  # fmt: skip
def test_a_log_of_ones_own_is_no_products(keys):
    assert kind_of(keys.split()) is None


def test_records_of_a_second_product_in_a_file_are_counted(tmp_path):
    rows = export("langfuse") + [one for one in export("langsmith") if "run_id" in one][:5] + [None, 7]
    found = FEEDBACK["langfuse"]().convert([saved(tmp_path / "mixed.json", rows)])
    assert found.left_out == {"not scores, and no traces": 7} and found.used == found.rows - 7


def test_a_large_file_of_lines_is_streamed(tmp_path, monkeypatch):
    """Peak memory is of a few blocks and of the judged texts, not of the file."""
    monkeypatch.setattr(textfiles, "BLOCK", 1 << 18)
    rows = [trace(f"t{at}", "ann", "Q?", f"{at} {'x' * 2000}") for at in range(6000)]
    path = saved(tmp_path / "t.jsonl", [*rows, score("s1", "t1", 1), score("s2", "t2", 0)], lines=True)
    del rows
    size = (tmp_path / "t.jsonl").stat().st_size
    tracemalloc.start()
    try:
        assert FEEDBACK["langfuse"]().convert([path]).used == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 14e6 and peak < size / 4, (size, peak)


def test_texts_without_feedback_say_what_is_missing(tmp_path):
    path = saved(tmp_path / "traces.json", [one for one in export("langfuse") if "input" in one])
    with pytest.raises(InputError, match=r"no scores of langfuse; give a file of these too"):
        FEEDBACK["langfuse"]().convert([path])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"a": 1}, {"a"', "line 1 of"),
        ("hello", "begins with"),
        ("", "is empty"),
        ("[]", "no scores of langfuse"),
        ('{"data": [], "meta": {}}', "no scores of langfuse"),
        ("[" * 100_000, "cannot be read|not JSON"),
        ('[{"a": "\xff"}]', "not UTF-8|no scores"),
        ('{"unknown": 1}\n{"unknown": 2}\n', 'its first record has the keys "unknown"'),
    ],
)
def test_broken_files_are_one_line(tmp_path, capsys, content, says):
    path = tmp_path / "export.json"
    path.write_bytes(content.encode("latin-1"))
    assert main(["convert", "langfuse", str(path), "--out", str(tmp_path / "o.jsonl")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "export.json" in told
    assert re.search(says, told), told


def test_pages_in_a_row_and_a_list_of_pages_are_one_export(tmp_path):
    rows = export("langfuse")
    first, second = page(rows[:50]), page(rows[50:], 2)
    forms = {
        "lines": json.dumps(first) + "\n" + json.dumps(second),
        "in a row": json.dumps(first, indent=1) + json.dumps(second, indent=1),
        "list of pages": json.dumps([first, second]),
        "lists in a row": json.dumps(rows[:50]) + "\n" + json.dumps(rows[50:]),
        "one list": json.dumps(rows),
    }
    tables = []
    for name, content in forms.items():
        path = tmp_path / f"{name}.json"
        path.write_text(content)
        tables.append(FEEDBACK["langfuse"]().convert([str(path)]).table)
    assert all(table.equals(tables[0]) for table in tables)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("helicone {p} --judges models --out o.csv", "helicone has no setting --judges; it has --form, --user-field"),
        ("langfuse {p} --protocol S --out o.csv", "langfuse has no setting --protocol"),
        ("label-studio {p} --judges users --out o.csv", "unknown judges of label-studio 'users'"),
        ("langfus {p} --out o.csv", "Did you mean 'langfuse'?"),
    ],
)
def test_settings_of_another_product_are_one_line(tmp_path, capsys, words, says):
    path = saved(tmp_path / "export.json", export("langfuse")[:4])
    assert main(["convert", *shlex.split(words.format(p=path))]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and says in told


def test_the_pages_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "feedback.md").read_text()
    for name, content in re.findall(r"`([a-z]+\.json)`[^`]*```json\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^polypref (.*)$", re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0], re.MULTILINE)
    assert len(commands) == 3
    printed = []
    for command in commands:
        assert main(shlex.split(command)) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == re.findall(r"```text\n(.*?)```", text, re.DOTALL)[0]


def test_the_page_names_every_product_and_setting():
    text = (ROOT / "docs" / "feedback.md").read_text()
    for name, adapter in FEEDBACK.items():
        assert f"| `{name}` |" in text
        for field in fields(adapter):  # type: ignore[arg-type]
            assert f"--{field.name.replace('_', '-')}" in text
