"""Any text in is the same text in the pool, from every kind of file and however it was escaped there."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polypref.content import canonical_chat
from polypref.data.files import textfiles
from polypref.data.files.jsonlines import JsonLines
from polypref.data.files.limits import Limits
from polypref.data.linting.lint import clean, lint
from polypref.data.linting.problems import ProblemLog
from polypref.data.read import Reading, ReadOptions, read
from polypref.data.rows.values import NOBODY
from polypref.errors import InputError

NASTY = r"""\nabla \u0041 "quoted" 'x' \\ \/ , ; [1] {"role":"user"} [/INST] $.content""" + "\t\r\n\x7f\u2028é🙂\x01"
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
TEXT |= st.text(st.sampled_from(NASTY), min_size=1, max_size=12)
NAME = TEXT.filter(lambda text: text.strip() not in ("", *NOBODY))  # which name nobody
MESSAGE = st.fixed_dictionaries({"role": NAME, "content": TEXT}, optional={"name": NAME})
CALL = st.builds(lambda name, said: {"function": {"name": name, "arguments": said}, "type": "function"}, NAME, TEXT)
CHAT = st.lists(MESSAGE, min_size=1, max_size=3)
QUICK = settings(max_examples=15, deadline=None)


def escaped(text: str, ways: np.random.Generator) -> str:
    """A JSON string, every character in one of the ways that RFC 8259 allows."""
    out = []
    for c in text:
        units = c.encode("utf-16-be")
        ways_of = ["".join(f"\\u{units[k]:02x}{units[k + 1]:02X}" for k in range(0, len(units), 2))]
        if c >= " " and c not in '"\\':
            ways_of.append(c)
        if c in '"\\/':
            ways_of.append("\\" + c)
        if c in "\b\f\n\r\t":
            ways_of.append(json.dumps(c)[1:-1])
        out.append(ways_of[int(ways.integers(len(ways_of)))])
    return '"' + "".join(out) + '"'


def encoded(value: Any, ways: np.random.Generator) -> str:
    if isinstance(value, str):
        return escaped(value, ways)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{escaped(k, ways)} : {encoded(v, ways)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[ " + ",".join(encoded(one, ways) for one in value) + "]"
    return json.dumps(value)


def written(path: Path, rows: list[dict[str, Any]], seed: int = 0) -> Path:
    """The rows as the file's ending says; in CSV chats and objects stand as JSON in their cells."""
    ways = np.random.default_rng(seed)
    name = path.name
    if ".parquet" in name:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        return path
    if ".jsonl" in name:
        content = "".join(encoded(row, ways) + "\n" for row in rows).encode()
    else:
        buffer = io.StringIO(newline="")
        quoting = csv.QUOTE_MINIMAL if seed % 2 else csv.QUOTE_ALL
        table = csv.writer(buffer, lineterminator="\r\n" if seed % 2 else "\n", quoting=quoting)
        table.writerow(rows[0])
        table.writerows([v if isinstance(v, str) else encoded(v, ways) for v in row.values()] for row in rows)
        content = b"\xef\xbb\xbf" + buffer.getvalue().encode()
    if name.endswith(".gz"):
        content = gzip.compress(content[:50]) + gzip.compress(content[50:])
    if name.endswith(".zst"):
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def judged(reading: Reading) -> list[tuple[str, str, str, str]]:
    """Each judgement as (user, prompt, chosen, rejected)."""
    data, r = reading.comparisons, reading.comparisons.responses
    prompts, texts, ids = r.prompts.to_list(), r.texts_R.to_list(), data.users.ids.to_list()
    rows = zip(data.user_N.tolist(), data.chosen_N.tolist(), data.rejected_N.tolist(), strict=True)
    return [(ids[u], prompts[r.prompt_R[c]], texts[c], texts[j]) for u, c, j in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


class TestAnyTextInIsTheSameTextInThePool:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "jsonl.gz", "csv.zst"])
    @given(st.lists(st.tuples(NAME, TEXT, TEXT, TEXT), min_size=1, max_size=4), st.integers(0, 99))
    @QUICK
    def test_texts(self, folder, suffix, values, seed):
        rows = [{"user_id": u, "prompt": p, "chosen": c, "rejected": r} for u, p, c, r in values]
        assert judged(read([written(folder / f"t.{suffix}", rows, seed)])) == values

    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    @given(st.lists(st.tuples(CHAT, NAME, TEXT, TEXT), min_size=1, max_size=3), st.integers(0, 99))
    @QUICK
    def test_chats(self, folder, suffix, values, seed):
        a = [{"role": r, "content": c} for _, r, c, _ in values]
        b = [{"role": r, "content": c} for _, r, _, c in values]
        rows = [
            {"user_id": "u", "prompt": chat, "chosen": [c], "rejected": [r]}
            for (chat, *_), c, r in zip(values, a, b, strict=True)
        ]
        reading = read([written(folder / f"c.{suffix}", rows, seed)])
        expected = [("u", canonical_chat(chat), c, r) for chat, _, c, r in values]
        assert judged(reading) == expected and reading.problems == ()

    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    @given(CHAT, TEXT, TEXT, st.lists(CALL, min_size=1, max_size=2), st.integers(0, 99))
    @QUICK
    def test_whole_conversations_and_calls_of_tools(self, folder, suffix, chat, c, r, calls, seed):
        tool = {"role": "assistant", "tool_calls": calls}
        rows = [
            {
                "user_id": "u",
                "chosen": [*chat, {"role": "a", "content": c}],
                "rejected": [*chat, {"role": "a", "content": r}],
            },
            {"user_id": "u", "chosen": [tool], "rejected": [{"role": "assistant", "content": r}]},
        ]
        (_, prompt, chosen, rejected), (_, _, called, said) = judged(
            read([written(folder / f"w.{suffix}", rows, seed)])
        )
        if c != r:
            assert (prompt, chosen, rejected) == (canonical_chat(chat), c, r)
        assert json.loads(called) == calls and said == r

    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    @given(st.dictionaries(TEXT, TEXT, min_size=1, max_size=4), st.integers(0, 99))
    @QUICK
    def test_attributes(self, folder, suffix, attributes, seed):
        row = {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y", "attributes": attributes}
        reading = read([written(folder / f"a.{suffix}", [row], seed)])
        assert reading.problems == () and reading.comparisons.users.attributes is not None
        assert reading.comparisons.users.attributes.to_dicts() == [attributes]

    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    @given(st.lists(TEXT, min_size=2, max_size=3, unique=True), st.integers(0, 99))
    @QUICK
    def test_ranked_lists(self, folder, suffix, texts, seed):
        row = {"user_id": "u", "prompt": "p", "responses": texts, "ranking": list(range(len(texts)))}
        found = judged(read([written(folder / f"r.{suffix}", [row], seed)]))
        assert found[0][2:] == (texts[0], texts[1])

    @given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
    @QUICK
    def test_text_types_of_parquet(self, folder, values):
        c, r = (list(side) for side in zip(*values, strict=True))
        chats = [[{"role": b"assistant", "content": text.encode()}] for text in r]
        kind = pa.list_(pa.struct([("role", pa.binary()), ("content", pa.large_binary())]))
        columns = {
            "user_id": pa.array(["u"] * len(c), pa.large_string()),
            "prompt": pa.array(c).dictionary_encode(),
            "chosen": pa.array([text.encode() for text in c], pa.binary()),
            "rejected": pa.array(chats, kind),
        }
        pq.write_table(pa.table(columns), folder / "k.parquet")
        assert judged(read([folder / "k.parquet"])) == [("u", a, a, b) for a, b in values]


VALUE = st.one_of(
    *(TEXT, st.none(), st.booleans(), st.lists(TEXT), st.dictionaries(TEXT, TEXT)),
    *(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
)


@given(st.lists(st.tuples(VALUE, TEXT), min_size=1, max_size=4), st.integers(0, 99))
@example([(-0.0, "-0")], 0)
@settings(max_examples=80, deadline=None)
def test_both_parsers_of_jsonl_agree(tmp_path_factory, values, seed):
    path = written(tmp_path_factory.mktemp("j") / "p.jsonl", [{"a": a, "b": b} for a, b in values], seed)
    quick = JsonLines(str(path), {"a": "text", "b": "text"}).batches(["a", "b"], ProblemLog())
    exact = JsonLines(str(path), {"a": "list", "b": "list"}).batches(["a", "b"], ProblemLog())
    assert [b.frame.to_dicts() for b in quick] == [b.frame.to_dicts() for b in exact]


class TestWhatCannotBeKeptIsTold:
    def line(self, **more: object) -> str:
        return json.dumps({"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"} | more) + "\n"

    def told(self, tmp_path: Path, odd: str) -> str:
        (tmp_path / "p.jsonl").write_text(self.line() * 3 + odd + self.line())
        reading = read([tmp_path / "p.jsonl"])
        assert reading.rows_read == 5 and len(reading.comparisons) == 4
        (problem,) = reading.problems
        assert (problem.count, problem.line) == (1, 4) and "\n" not in problem.text
        return problem.text

    def test_nul_and_half_surrogate_pairs_in_chats(self, tmp_path):
        chat = [{"role": "assistant", "content": "Z"}]
        assert "a NUL character" in self.told(tmp_path, self.line(chosen=chat).replace("Z", "\\u0000"))
        assert "surrogate" in self.told(tmp_path, self.line(chosen=chat).replace("Z", "\\ud83d"))
        assert "surrogate" in self.told(tmp_path, self.line(chosen=json.dumps(chat)).replace("Z", "\\\\ud83d"))

    def test_a_backslash_before_nul_is_text(self, tmp_path):
        (tmp_path / "p.jsonl").write_text(self.line(chosen=[{"role": "a", "content": "\\u0000"}]))
        assert judged(read([tmp_path / "p.jsonl"]))[0][2] == "\\u0000"

    def test_parts_that_are_no_text(self, tmp_path):
        parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": "http://x"}]
        text = self.told(tmp_path, self.line(chosen=[{"role": "assistant", "content": parts}]))
        assert "a part of type image_url is not text" in text

    def test_keys_of_messages_that_no_text_is_made_of(self, tmp_path):
        said = [{"role": "assistant", "content": "x", "reasoning_content": "long"}]
        (tmp_path / "p.jsonl").write_text(self.line(chosen=said))
        (problem,) = read([tmp_path / "p.jsonl"]).problems
        assert problem.kept and '"reasoning_content"' in problem.text

    def test_bytes_in_objects_of_parquet(self, tmp_path):
        rows = {"user_id": ["u"] * 3, "prompt": ["p"] * 3, "rejected": ["y"] * 3}
        rows["chosen"] = [[{"role": "a", "content": text}] for text in (b"x", b"\xff", "é".encode())]
        pl.DataFrame(rows).write_parquet(tmp_path / "p.parquet")
        reading = read([tmp_path / "p.parquet"])
        assert [c for _, _, c, _ in judged(reading)] == ["x", "é"]
        assert [(p.name, p.count, p.line) for p in reading.problems] == [("not UTF-8", 1, 2)]

    def test_quotes_that_leave_open_what_a_text_is(self, tmp_path):
        rows = ['u,p,5" wide,6" tall', 'u,p,"said "hi", twice",y', "u,p,x,y"]
        (tmp_path / "p.csv").write_text("user_id,prompt,chosen,rejected\n" + "\n".join(rows) + "\n")
        reading = read([tmp_path / "p.csv"])
        assert [c for _, _, c, _ in judged(reading)] == ['5" wide', "x"]
        assert [(p.name, p.count, p.line) for p in reading.problems] == [("broken quotes", 1, 3)]

    def test_rows_between_two_stray_quotes_are_refused_with_the_line(self, tmp_path):
        rows = [f"u,p,x{k},{chr(34) * (k in (3, 6))}y{k}" for k in range(20)]
        (tmp_path / "p.csv").write_text("user_id,prompt,chosen,rejected\n" + "\n".join(rows) + "\n")
        with pytest.raises(InputError, match=r"line 5 of .*p\.csv: a quote may never be closed"):
            read([tmp_path / "p.csv"])

    def test_a_header_over_two_lines_and_a_text_beyond_the_parsers_own_limit(self, tmp_path):
        long = "x" * 200_000
        head = 'user_id,prompt,"chosen\n(better)",rejected'
        (tmp_path / "p.csv").write_text(f'{head}\nu,p,a,5" pipe\nu,p,{long},y\n')
        reading = read([tmp_path / "p.csv"], ReadOptions(columns={"chosen": "chosen\n(better)"}))
        assert [c for _, _, c, _ in judged(reading)] == ["a", long] and reading.line_N.tolist() == [3, 4]


class TestAttributesAndTimes:
    def read(self, tmp_path: Path, **columns: list) -> Reading:
        n = max(map(len, columns.values()))
        rest = {"user_id": [f"u{k}" for k in range(n)], "prompt": ["p"] * n, "chosen": ["x"] * n, "rejected": ["y"] * n}
        pl.DataFrame(rest | columns, strict=False).write_parquet(tmp_path / "p.parquet")
        return read([tmp_path / "p.parquet"])

    def test_empty_endless_and_nested_ones(self, tmp_path):
        values = [{}, {"a": float("inf"), "user": "me"}, {"a": float("nan")}, {"a": 1.0, "": {"b": [1, "x"]}}]
        reading = self.read(tmp_path, attributes=[json.dumps(v) for v in values] + ["", "[1]", '{"a":"\\u0000"}'])
        assert reading.comparisons.users.attributes is not None
        assert reading.comparisons.users.attributes.to_dicts()[3] == {"a": "1", "": '{"b":[1,"x"]}'}
        assert [(p.name, p.count, p.line) for p in reading.problems] == [("unreadable attributes", 4, 2)]
        reading = self.read(tmp_path, attributes=[{"a": v} for v in (float("inf"), float("nan"), 1.5)])
        assert reading.comparisons.users.attributes is not None
        assert reading.comparisons.users.attributes["a"].to_list() == ["inf", None, "1.5"]

    def test_one_odd_key_takes_nothing_from_others(self, tmp_path):
        values = [{'say "hi"\n': "x", "user": "u", "key": "k", "json": "j"}, {"age": 40}]
        reading = self.read(tmp_path, attributes=[json.dumps(v) for v in values])
        assert reading.comparisons.users.attributes is not None
        found = reading.comparisons.users.attributes.to_dicts()
        assert [{k: v for k, v in row.items() if v is not None} for row in found] == [values[0], {"age": "40"}]

    def test_times_out_of_the_calendar(self, tmp_path):
        texts = ["0000-01-01", "99999-01-01", "-001-01-01", "NaN", "1e300", "-1e30", "1969-12-31T23:59:59Z"]
        reading = self.read(tmp_path, timestamp=texts)
        assert reading.comparisons.time_N is not None and reading.comparisons.time_N[-1] == -1
        assert np.isnan(reading.comparisons.time_N[:-1]).all()
        assert [(p.name, p.count) for p in reading.problems] == [("unreadable time", 6)]

    @pytest.mark.parametrize("kind", [pl.Date, pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns")])
    def test_dates_of_parquet_out_of_the_calendar(self, tmp_path, kind):
        most = 2**31 - 1 if kind == pl.Date else 2**62
        numbers = pl.Series([0, most, -most], dtype=pl.Int64).cast(pl.Int32 if kind == pl.Date else pl.Int64)
        rows = {"user_id": ["a", "b", "c"], "prompt": ["p"] * 3, "chosen": ["x"] * 3, "rejected": ["y"] * 3}
        moments = numbers.cast(kind)
        pl.DataFrame(rows).with_columns(timestamp=moments, pair_id=moments).write_parquet(tmp_path / "p.parquet")
        reading = read([tmp_path / "p.parquet"])
        told = {} if kind == pl.Datetime("ns") else {"unreadable timestamp": 2, "unreadable pair_id": 2}
        assert {p.name: p.count for p in reading.problems} == told and len(reading.comparisons) == 3


def test_a_key_of_any_role_that_first_stands_late_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "HEAD_LINES", 10)
    row = {"user_id": "u", "chosen": "Alpha is fine", "rejected": "Beta is fine", "attributes": {"question": 1}}
    late = row | {"prompt": "Which?", "pair_id": "k", "timestamp": 5, "note": '"weight": 3'}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [row] * 20 + [late] * 2))
    reading = read([tmp_path / "p.jsonl"])
    assert [prompt for _, prompt, _, _ in judged(reading)][-1] == "Which?"
    data = reading.comparisons
    assert data.pair_N is not None and data.pair_N[-1] == 0 and data.time_N is not None and data.time_N[-1] == 5
    assert "weight" not in reading.layouts[0].names and reading.layouts[0].names["prompt"] == "prompt"


def test_limits_are_settings(tmp_path):
    deep = {"role": "assistant", "tool_calls": [[[[1]]]]}
    row = {"user_id": "u", "prompt": "p", "chosen": [deep], "rejected": "y"}
    path = written(tmp_path / "p.jsonl", [row] + [row | {"chosen": "x"}] * 2)
    assert len(read([path]).comparisons) == 3
    reading = read([path], ReadOptions(limits=Limits(depth=5)))
    assert len(reading.comparisons) == 2 and "nested deeper than 5 levels" in reading.problems[0].text


def test_chats_stay_chats_behind_the_linter(tmp_path):
    chat = [{"role": "system", "content": "Be brief. Be a poet."}, {"role": "user", "content": "Why is it so?"}]
    row = {"user_id": "u", "chosen": "x", "rejected": "y"}
    reading = read([written(tmp_path / "p.jsonl", [row | {"prompt": prompt} for prompt in ("Why?", chat)])])
    cleaned = clean(reading, lint(reading))
    for responses in (reading.comparisons.responses, cleaned.responses):
        assert sorted(responses.prompts) == sorted(["Why?", canonical_chat(chat)])
        assert [responses.messages(int(p)) for p in np.flatnonzero(responses.chat_P)] == [chat]
