"""Bad input, each with one clear line: what cannot go on exits with 2, single bad rows are left out and counted."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref.cli import main
from polypref.data.linting.lint import clean, ensure_learnable, lint
from polypref.data.read import Reading, ReadOptions, read
from polypref.errors import CacheError, InputError, NotEnoughData, PolyprefError

HEAD = b"user_id,prompt,chosen,rejected\n"


def line(
    user: object = "u", prompt: object = "p", chosen: object = "x", rejected: object = "y", **more: object
) -> bytes:
    row = {"user_id": user, "prompt": prompt, "chosen": chosen, "rejected": rejected, **more}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def put(folder: Path, content: bytes, name: str = "p.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path | str) -> str:
    """The one line that reading ``path`` ends with."""
    with pytest.raises(PolyprefError) as caught:
        read([path])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(reading: Reading) -> tuple[str, int, int, str]:
    """Name, count, line and text of the only problem."""
    (problem,) = reading.problems
    assert "\n" not in problem.text
    return problem.name, problem.count, problem.line, problem.text


class TestTheRunCannotGoOn:
    def test_missing_column(self, tmp_path):
        path = put(tmp_path, b'{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
        assert refused(path) == (
            f'{path}: column "user_id" is missing; found: prompt, chosen, rejected. '
            "Use --columns to map yours, as in --columns user_id=NAME."
        )

    def test_wrong_type(self, tmp_path):
        assert 'column "chosen" holds number values; expected text' in refused(put(tmp_path, line(chosen=5) * 3))
        frame = pl.DataFrame({"user_id": ["u"], "prompt": ["p"], "chosen": [1.5], "rejected": [True]})
        frame.write_parquet(tmp_path / "p.parquet")
        assert 'column "chosen" holds number values' in refused(tmp_path / "p.parquet")
        assert "holds object values" in refused(put(tmp_path, line(user={"id": 1})))

    def test_every_line_broken(self, tmp_path):
        path = put(tmp_path, b'\n\n{"user_id": "u", \n' + b'{"chosen": \n' * 3)
        told = refused(path)
        assert 'line 3 is "{"user_id": "u", " (Expecting property name' in told
        assert "expected one JSON object on each line" in told

    def test_empty_file(self, tmp_path):
        for name in ("p.jsonl", "p.csv", "p.jsonl.gz"):
            content = gzip.compress(b"") if name.endswith("gz") else b""
            assert "is empty" in refused(put(tmp_path, content, name))
        assert "is not a readable Parquet file" in refused(put(tmp_path, b"", "p.parquet"))

    def test_no_rows(self, tmp_path):
        assert "has no rows" in refused(put(tmp_path, HEAD, "p.csv"))
        assert "only empty lines" in refused(put(tmp_path, b"\n\n \n"))
        assert "only empty lines" in refused(put(tmp_path, b"\n\n", "p.csv"))
        pl.DataFrame({"user_id": [], "prompt": [], "chosen": [], "rejected": []}).write_parquet(tmp_path / "p.parquet")
        assert "has no rows" in refused(tmp_path / "p.parquet")

    def test_truncated_gzip(self, tmp_path):
        rng = np.random.default_rng(0)
        content = b"".join(line(prompt=str(rng.random())) for _ in range(3000))
        whole = gzip.compress(content)
        for cut in (whole[: len(whole) // 2], whole[:-4]):
            assert "cut short or damaged" in refused(put(tmp_path, cut, "p.jsonl.gz"))
        damaged = whole[:5000] + bytes(100) + whole[5100:]
        assert "cut short or damaged" in refused(put(tmp_path, damaged, "p.jsonl.gz"))
        assert "cut short or damaged" in refused(put(tmp_path, content, "p.jsonl.gz"))  # not compressed at all
        assert len(read([put(tmp_path, whole, "p.jsonl.gz")]).comparisons) == 3000

    def test_truncated_zstd(self, tmp_path):
        import zstandard

        whole = zstandard.compress(line() * 3000)
        assert "cut short or damaged" in refused(put(tmp_path, whole[:-3], "p.jsonl.zst"))
        assert "cut short or damaged" in refused(put(tmp_path, b"nothing like it", "p.jsonl.zst"))

    def test_truncated_parquet(self, tmp_path):
        pl.DataFrame({"user_id": ["u"] * 999, "chosen": ["x"] * 999}).write_parquet(tmp_path / "p.parquet")
        whole = (tmp_path / "p.parquet").read_bytes()
        assert "is not a readable Parquet file" in refused(put(tmp_path, whole[: len(whole) // 2], "p.parquet"))
        assert "is not a readable Parquet file" in refused(put(tmp_path, line(), "p.parquet"))

    def test_utf16(self, tmp_path):
        assert len(read([put(tmp_path, line().decode().encode("utf-16"))]).comparisons) == 1
        assert "begins as UTF-16 and is damaged" in refused(put(tmp_path, line().decode().encode("utf-16") + b"\x00"))

    def test_not_json_lines(self, tmp_path):
        assert "its list is not closed" in refused(put(tmp_path, b"[\n" + line().strip() + b"\n", "p.json"))
        assert "expected one JSON object on each line" in refused(put(tmp_path, HEAD + b"u,p,x,y\n"))

    def test_most_rows_unusable(self, tmp_path):
        text = refused(put(tmp_path, line() + b"{broken\n" * 2))
        assert re.match(r"2 of 3 rows cannot be used; the first: line 2 of /.*/p.jsonl: ", text)

    def test_a_quote_never_closed(self, tmp_path):
        content = HEAD + b"u,p,x,y\n" + b'u,p,"never closed,z\n' + b"u,p,x,y\n" * 20_000
        assert "a quote may never be closed" in refused(put(tmp_path, content, "p.csv"))

    def test_full_disk_for_spilled_texts(self, tmp_path, monkeypatch):
        def full(*_args, **_more):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("polypref.data.mapped.tempfile.TemporaryFile", full)
        with pytest.raises(CacheError, match=r"No space left on device\. Free the space or set TMPDIR"):
            read([put(tmp_path, line())], ReadOptions(spill_bytes=1))

    @pytest.mark.parametrize("content", [b"", b"{broken\n", line().replace(b"user_id", b"nobody")])
    def test_command_exits_with_2_and_one_line(self, tmp_path, capsys, content):
        assert main(["check", str(put(tmp_path, content))]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("polypref: error: ") and captured.err.count("\n") == 1


class TestSingleRows:
    def test_broken_json_line(self, tmp_path):
        broken = line()[:-9] + b"\n"
        reading = read([put(tmp_path, line() + broken + line() + b"[1]\n" + line() + b"null\n" + line() * 3)])
        name, count, at, text = told(reading)
        assert (name, count, at) == ("broken JSON", 3, 2)
        assert re.match("line 2 of /.*/p.jsonl: Unterminated string", text)
        assert "expected one JSON object on the line; the row is left out." in text
        assert reading.line_N.tolist() == [1, 3, 5, 7, 8, 9]
        assert reading.rows_read == 9

    def test_a_last_line_cut_off_is_told(self, tmp_path):
        assert told(read([put(tmp_path, line() * 3 + line()[:20])]))[:3] == ("broken JSON", 1, 4)

    def test_json_that_only_python_reads(self, tmp_path):
        reading = read([put(tmp_path, line() * 3 + line(weight=1).replace(b": 1}", b": Infinity}") + line())])
        assert told(reading)[:3] == ("broken JSON", 1, 4)
        assert not read([put(tmp_path, line() * 3 + line(weight=1).replace(b": 1}", b": NaN}"))]).problems
        deep = line(x=1).replace(b": 1}", b": " + b"[" * 3000 + b"]" * 3000 + b"}")
        assert len(read([put(tmp_path, line() * 3 + deep)]).comparisons) in (3, 4)

    def test_mixed_encodings(self, tmp_path):
        latin = "naïve".encode("latin-1")
        for name, rows in (
            ("p.jsonl", [line(), line(chosen="naive").replace(b"naive", latin), line(chosen="naïve")]),
            ("p.csv", [HEAD + b"u,p,x,y\n", b"u,p," + latin + b",y\n", "u,p,naïve,y\n".encode()]),
        ):
            reading = read([put(tmp_path, b"".join(rows), name)])
            kind, count, at, text = told(reading)
            assert (kind, count, at) == ("not UTF-8", 1, 2 + name.endswith("csv"))
            assert "na\\xefve" in text and "iconv" in text
            assert "naïve" in reading.comparisons.responses.texts_R.to_list()

    def test_bytes_of_parquet_that_are_not_utf8(self, tmp_path):
        frame = {"user_id": ["u"] * 3, "prompt": ["p"] * 3, "chosen": [b"x", b"\xff", None], "rejected": ["y"] * 3}
        pl.DataFrame(frame).write_parquet(tmp_path / "p.parquet")
        reading = read([tmp_path / "p.parquet"])
        assert told(reading)[:3] == ("not UTF-8", 1, 2)
        assert "\\xff" in reading.problems[0].text and reading.line_N.tolist() == [1, 3]

    def test_nul_bytes(self, tmp_path):
        raw, escaped = line(chosen="aZb").replace(b"Z", b"\0"), line(chosen="a\0b")
        assert told(read([put(tmp_path, line() * 3 + raw)]))[:3] == ("broken JSON", 1, 4)
        assert "a NUL byte" in read([put(tmp_path, line() * 3 + raw)]).problems[0].text
        name, count, at, text = told(read([put(tmp_path, line() * 3 + escaped + line(user="\0") + line())]))
        assert (name, count) == ("NUL character", 2) and at in (4, 5) and "\\x00" in text
        assert told(read([put(tmp_path, HEAD + b"u,p,x,y\n" * 2 + b"u,p,a\0b,y\n", "p.csv")]))[2] == 4

    def test_half_an_emoji(self, tmp_path):
        half = line(chosen="Z").replace(b"Z", b"see \\ud83d!")
        assert told(read([put(tmp_path, line() * 3 + half)]))[:3] == ("NUL character", 1, 4)

    def test_missing_user(self, tmp_path):
        reading = read([put(tmp_path, line() * 3 + line(user=None) + line(user=""))])
        name, count, at, text = told(reading)
        assert (name, count, at) == ("missing user_id", 2, 4)
        assert text.endswith('"user_id" is missing; expected the id of the person who judged. The row is left out.')

    @pytest.mark.parametrize(
        ("more", "name", "kept"),
        [
            ({"weight": "heavy"}, "unreadable weight", False),
            ({"weight": -1}, "unreadable weight", False),
            ({"tie": "perhaps"}, "unreadable tie", False),
            ({"timestamp": "yesterday"}, "unreadable time", True),
            ({"seconds": "long"}, "unreadable seconds", True),
            ({"chosen_pos": "middle"}, "unreadable chosen_pos", True),
            ({"attributes": "{half"}, "unreadable attributes", True),
        ],
    )
    def test_values_of_the_wrong_type(self, tmp_path, more, name, kept):
        (column,) = more
        fine = {"weight": 1, "tie": 0, "timestamp": 5, "seconds": 5, "chosen_pos": 1, "attributes": '{"a": 1}'}[column]
        reading = read([put(tmp_path, line(**{column: fine}) * 2 + line(**more))])
        assert told(reading)[:3] == (name, 1, 3)
        assert reading.problems[0].kept is kept and len(reading.comparisons) == 2 + kept

    def test_csv_rows_of_another_width(self, tmp_path):
        reading = read([put(tmp_path, HEAD + b"u,p,x,y\n" * 3 + b"u,p,x,y,z\nu,p,x\n", "p.csv")])
        name, count, at, text = told(reading)
        assert (name, count, at) == ("wrong number of fields", 2, 5)
        assert "5 fields; expected 4 (user_id, prompt, chosen, rejected)" in text

    def test_broken_chat(self, tmp_path):
        good, parts = [{"role": "assistant", "content": "x"}], [{"role": "user", "content": [{"type": "image"}]}]
        rows = line(chosen=good, rejected=good) * 3 + line(chosen=parts, rejected=good)
        assert told(read([put(tmp_path, rows)]))[:3] == ("broken chat", 1, 4)
        text = '[{"role": "user", "content": "never closed}]'
        assert told(read([put(tmp_path, line() * 3 + line(prompt=text))]))[:3] == ("broken chat", 1, 4)

    def test_a_bad_file_among_good_ones_is_named(self, tmp_path):
        put(tmp_path, line() * 100, "a.jsonl")
        put(tmp_path, line() + b"{\n" * 3, "b.jsonl")
        assert f"line 2 of {tmp_path / 'b.jsonl'}" in refused(tmp_path / "*.jsonl")


class TestUnusualButFine:
    def test_long_texts_emoji_and_right_to_left(self, tmp_path):
        texts = ["é" * 10_000, "👩🏽‍🔬" * 50, "שלום עולם", "\u202eabc\u202c", "مرحبا", "a\u0301"]
        content = b"".join(line(user=text, prompt=text, chosen=text, rejected=text + "!") for text in texts)
        for name in ("p.jsonl", "p.parquet", "p.csv"):
            path = put(tmp_path, content)
            if name != "p.jsonl":
                frame = pl.read_ndjson(path)
                path = tmp_path / name
                frame.write_parquet(path) if name.endswith("parquet") else frame.write_csv(path)
            data = read([path]).comparisons
            assert data.users.ids.to_list() == texts
            assert data.responses.texts_R.gather(data.chosen_N).to_list() == texts
            assert data.responses.lengths_R.max() == 10_001

    def test_user_ids_that_are_numbers(self, tmp_path):
        data = read([put(tmp_path, line(1) + line("1") + line(1.0) + line("1.0") + line(2))]).comparisons
        assert data.users.ids.to_list() == ["1", "2"]
        assert data.user_N.tolist() == [0, 0, 0, 0, 1]
        for column in ([1, 2, 1], [1.0, 2.0, 1.0]):
            frame = pl.DataFrame({"user_id": column, "prompt": "p", "chosen": "x", "rejected": "y"})
            frame.write_parquet(tmp_path / "p.parquet")
            data = read([tmp_path / "p.parquet"]).comparisons
            assert data.users.ids.to_list() == ["1", "2"] and data.user_N.tolist() == [0, 1, 0]

    def test_ids_that_look_alike_are_told(self, tmp_path):
        reading = read([put(tmp_path, line(1) + line(" 1.0") + line("Ann") + line("ann ") + line("Bob"))])
        (finding,) = [f for f in lint(reading).findings if f.name == "look-alike user ids"]
        assert (finding.count, finding.total, finding.action) == (4, 5, "kept")

    @pytest.mark.parametrize("user", ["__proto__", "constructor", "NaN", "null", "../../etc", "'; DROP TABLE--", "[b]"])
    def test_user_ids_that_programs_stumble_over(self, tmp_path, capsys, user):
        path = put(tmp_path, line(user, attributes={"__proto__": "x", "key": "y"}) + line("v"))
        data = read([path]).comparisons
        assert data.users.ids.to_list() == [user, "v"]
        assert data.users.index([user]).tolist() == [0]
        assert data.users.attributes is not None and data.users.attributes["__proto__"].to_list() == ["x", None]
        assert main(["check", str(path)]) == 0
        assert user in capsys.readouterr().out


class TestTooLittle:
    def findings(self, tmp_path, content: bytes) -> list[str]:
        reading = read([put(tmp_path, content)])
        found = lint(reading)
        with pytest.raises(NotEnoughData, match="nothing to personalise"):
            ensure_learnable(clean(reading, found))
        assert main(["check", str(tmp_path / "p.jsonl")]) == 0
        return [finding.name for finding in found.findings]

    def test_one_user_only(self, tmp_path):
        assert "one user only" in self.findings(tmp_path, line(prompt="p") + line(prompt="q"))

    def test_one_comparison_per_user(self, tmp_path):
        assert "one judgement per user" in self.findings(tmp_path, line("u") + line("v") + line("w"))

    def test_all_ties(self, tmp_path):
        content = b"".join(line(u, p, tie=True) for u in "uv" for p in "pq")
        assert "all ties" in self.findings(tmp_path, content)

    def test_enough(self, tmp_path):
        reading = read([put(tmp_path, b"".join(line(u, p) for u in "uv" for p in "pq"))])
        ensure_learnable(clean(reading, lint(reading)))

    def test_nothing_left(self, tmp_path, capsys):
        path = put(tmp_path, line(chosen="") + line(chosen="y"))
        reading = read([path])
        with pytest.raises(NotEnoughData, match="no usable judgement is left"):
            clean(reading, lint(reading))
        assert main(["check", str(path)]) == 2
        captured = capsys.readouterr()
        assert "empty response" in captured.out and captured.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "ratings", "rankings"])
def test_damage_of_any_kind_is_refused_or_told_never_a_traceback(tmp_path, kind):
    rng = np.random.default_rng(0)
    whole = damaged_from(tmp_path, kind)
    path = tmp_path / f"p.{kind if kind in ('csv', 'parquet') else 'jsonl'}"
    refusals = 0
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), rng.integers(1, 12)).tolist():
            junk = (b'"', b"\n", b"\0", b"\xff", b"{", b"[", b"\\", b",", b'[{"role":', b"")[int(rng.integers(10))]
            content[at : at + int(rng.integers(0, 9))] = junk
        path.write_bytes(content)
        try:
            reading = read([path])
            clean(reading, lint(reading))
        except PolyprefError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals < 40 or kind == "parquet"


def damaged_from(folder: Path, kind: str) -> bytes:
    """A sound file to be damaged."""
    chat = [{"role": "user", "content": "é"}]
    rows = [line(f"u{k % 3}", chat if k % 2 else "p", f"x{k}", "y", tie=k % 5 == 0, weight=k) for k in range(30)]
    if kind == "ratings":
        rated = [{"user_id": k % 2, "prompt": "p", "response": f"r{k}", "rating": k % 4} for k in range(30)]
        return b"".join(json.dumps(row).encode() + b"\n" for row in rated)
    if kind == "rankings":
        ranked = {"user_id": 1, "prompt": "p", "responses": ["a", "b", "c"], "ranking": [3, 1, 2]}
        return (json.dumps(ranked).encode() + b"\n") * 30
    if kind == "jsonl":
        return b"".join(rows)
    frame = pl.DataFrame({"user_id": ["u", "v"] * 15, "prompt": "p", "chosen": 'say "x",\n', "rejected": "y"})
    return frame.write_csv().encode() if kind == "csv" else parquet_bytes(folder, frame)


def parquet_bytes(folder: Path, frame: pl.DataFrame) -> bytes:
    frame.write_parquet(folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


def test_every_refusal_is_an_input_error(tmp_path):
    with pytest.raises(InputError):
        read([put(tmp_path, b"\x00\x01\x02")])
