"""Reading files: kinds, compression, globs, lines, memory."""

from __future__ import annotations

import csv
import gzip
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.comparisons import from_columns
from polypref.data import mapped
from polypref.data.files import textfiles
from polypref.data.files.sources import expand
from polypref.data.mapped import map_texts
from polypref.data.pool import KeyTable, TextTable
from polypref.data.read import ReadOptions, read
from polypref.errors import InputError, SettingsError

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="../shared/data is not here")

TEXTS = [
    "plain",
    "two\nlines",
    'with "quotes", commas; semicolons\tand tabs',
    "emoji 🏳️‍🌈 👩🏽‍🔬",
    "مرحبا بالعالم",
    "שלום\u200f!",
    " spaces ",
    "é" * 10_000,
    "\\n is not a line end",
    "crlf\r\nhere",
]


def rows(n: int = 200) -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for k in range(n):
        a, b = rng.choice(len(TEXTS), 2, replace=False)
        found.append(
            {"user_id": f"u{k % 7}", "prompt": f"question {k % 5}\n?", "chosen": TEXTS[a], "rejected": TEXTS[b]}
        )
    return found


def write(path: Path, data: list[dict]) -> Path:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pl.DataFrame(data).write_parquet(path)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data)
    else:
        lines = [",".join(data[0])]
        quoted = [['"' + str(v).replace('"', '""') + '"' for v in row.values()] for row in data]
        text = "\n".join([*lines, *(",".join(values) for values in quoted)]) + "\n"
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        import zstandard

        content = zstandard.compress(content[:99]) + zstandard.compress(content[99:])  # two frames, as pzstd writes
    path.write_bytes(content)
    return path


def expected(data: list[dict]):
    return from_columns(*([row[name] for row in data] for name in ("user_id", "prompt", "chosen", "rejected")))


class TestKindsOfFiles:
    @pytest.mark.parametrize("block", [1 << 24, 9000], ids=["one block", "many blocks"])
    @pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv", "jsonl.gz", "csv.gz", "jsonl.zst", "csv.zst"])
    def test_all_kinds_hold_the_same_data(self, tmp_path, monkeypatch, suffix, block):
        monkeypatch.setattr(textfiles, "BLOCK", block)
        data = rows()
        reading = read([write(tmp_path / f"prefs.{suffix}", data)])
        want = expected(data)
        assert reading.comparisons.content_hash == want.content_hash
        assert sorted(reading.comparisons.responses.texts_R) == sorted(want.responses.texts_R)
        assert reading.rows_read == 200 and reading.problems == ()

    def test_tabs_semicolons_and_a_byte_order_mark(self, tmp_path):
        for name, separator in (("p.tsv", "\t"), ("p.csv", ";")):
            head = separator.join(("user_id", "prompt", "chosen", "rejected"))
            (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + f"{head}\r\n{separator.join('upxy')}\r\n".encode())
            data = read([tmp_path / name]).comparisons
            assert data.users.ids.to_list() == ["u"] and data.responses.texts_R.to_list() == ["x", "y"]

    def test_categories_and_other_types_of_parquet(self, tmp_path):
        frame = pl.DataFrame(
            {"user_id": [7, 7, 8], "prompt": ["p"] * 3, "chosen": ["a", "b", "a"], "rejected": [b"c", b"c", b"b"]}
        ).with_columns(pl.col("prompt").cast(pl.Categorical), pl.col("chosen").cast(pl.Enum(["a", "b"])))
        frame.write_parquet(tmp_path / "p.parquet")
        data = read([tmp_path / "p.parquet"]).comparisons
        assert data.users.ids.to_list() == ["7", "8"]
        assert data.responses.texts_R.to_list() == ["a", "b", "c"]

    def test_several_files_and_globs(self, tmp_path):
        data = rows(30)
        for k in range(3):
            write(tmp_path / f"part-{k}.jsonl", data[10 * k : 10 * k + 10])
        reading = read([str(tmp_path / "part-*.jsonl")])
        assert reading.comparisons.content_hash == expected(data).content_hash
        assert [Path(file).name for file in reading.files] == ["part-0.jsonl", "part-1.jsonl", "part-2.jsonl"]
        assert reading.file_N.tolist() == [0] * 10 + [1] * 10 + [2] * 10
        assert reading.line_N.tolist() == list(range(1, 11)) * 3

    def test_a_file_named_twice_is_read_once(self, tmp_path):
        path = write(tmp_path / "p.jsonl", rows(5))
        assert expand([str(path), str(tmp_path / "*.jsonl")]) == [str(path)]

    def test_files_of_different_shapes_share_one_pool(self, tmp_path):
        pairs = write(tmp_path / "a.jsonl", [{"user": "u", "prompt": "p", "chosen": "x", "rejected": "y"}])
        rated = [{"uid": "u", "prompt": "p", "response": r, "rating": k} for k, r in enumerate("xyz")]
        data = read([pairs, write(tmp_path / "b.csv", rated)]).comparisons
        assert len(data) == 4 and len(data.responses) == 3 and len(data.users) == 1


class TestLines:
    def test_jsonl_lines_count_empty_ones(self, tmp_path):
        one = '{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}\n'
        (tmp_path / "p.jsonl").write_text("\n" + one + "\n  \n" + one + one.strip())
        assert read([tmp_path / "p.jsonl"]).line_N.tolist() == [2, 5, 6]

    @pytest.mark.parametrize("block", [1 << 24, 64])
    def test_csv_records_are_known_by_their_first_line(self, tmp_path, monkeypatch, block):
        monkeypatch.setattr(textfiles, "BLOCK", block)
        text = 'user_id,prompt,chosen,rejected\nu,"two\nlines",x,y\n\nu,p,"x\n\n,",y\nu,p,"say ""x""",y\n'
        (tmp_path / "p.csv").write_text(text)
        reading = read([tmp_path / "p.csv"])
        assert reading.line_N.tolist() == [2, 5, 8]
        assert set(reading.comparisons.responses.texts_R) == {"x", "y", "x\n\n,", 'say "x"'}

    @given(st.lists(st.tuples(*[st.text(st.sampled_from('ab",;\n é🙂'), min_size=1, max_size=6)] * 3), min_size=1))
    @settings(max_examples=60, deadline=None)
    def test_csv_agrees_with_the_standard_parser(self, tmp_path_factory, values):
        path = tmp_path_factory.mktemp("csv") / "p.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["user_id", "prompt", "chosen", "rejected"])
            lines = []
            for prompt, chosen, rejected in values:
                lines.append(file.tell())
                writer.writerow(["u", prompt, chosen, rejected])
        reading = read([path])
        r = reading.comparisons.responses
        found = [
            (r.prompts[int(r.prompt_R[c])], r.texts_R[int(c)], r.texts_R[int(j)])
            for c, j in zip(reading.comparisons.chosen_N, reading.comparisons.rejected_N, strict=True)
        ]
        assert found == values
        content = path.read_bytes()
        assert reading.line_N.tolist() == [content.count(b"\n", 0, at) + 1 for at in lines]

    def test_empty_lines_before_the_header(self, tmp_path):
        for odd in ("x", '5" x'):
            (tmp_path / "p.csv").write_text(f"\n\nuser_id,prompt,chosen,rejected\nu,p,{odd},y\n\nu,p,y,x\n")
            reading = read([tmp_path / "p.csv"])
            assert reading.line_N.tolist() == [4, 6] and reading.comparisons.users.ids.to_list() == ["u"]

    def test_stray_quotes_are_read_and_keep_their_lines(self, tmp_path):
        text = 'user_id,prompt,chosen,rejected\nu,p,"a\nb",c\nu,p,5" wide,6" wide\nu,p,x,y\nu,p,7" tall,z\n'
        (tmp_path / "p.csv").write_text(text)
        reading = read([tmp_path / "p.csv"])
        assert reading.line_N.tolist() == [2, 4, 5, 6]
        assert '7" tall' in reading.comparisons.responses.texts_R.to_list()


class TestPool:
    @given(st.lists(st.lists(st.integers(0, 60), max_size=40), max_size=12))
    @settings(deadline=None)
    def test_key_table_is_a_dictionary(self, batches):
        table, oracle = KeyTable(), {}
        for batch in batches:
            keys = np.array(batch, np.uint64) * np.uint64(2**58)
            codes, first = table.codes(keys)
            new = [k for k in dict.fromkeys(keys.tolist()) if k not in oracle]
            assert keys[first].tolist() == new
            for key in new:
                oracle[key] = len(oracle)
            assert codes.tolist() == [oracle[key] for key in keys.tolist()]

    def test_spilled_texts_are_the_same_texts(self):
        texts = pl.Series(TEXTS * 3 + [f"text {n} é🙂" for n in range(5000)])
        small, large = TextTable(spill_bytes=1000), TextTable()
        for start in range(0, len(texts), 700):
            part = texts[start : start + 700]
            assert small.codes(part)[0].tolist() == large.codes(part)[0].tolist()
        assert small.texts().n_chunks() > 3
        assert small.texts().to_list() == large.texts().to_list() == list(dict.fromkeys(texts))

    def test_reading_with_spill_gives_the_same_data(self, tmp_path):
        path = write(tmp_path / "p.jsonl", rows())
        want, got = read([path]).comparisons, read([path], ReadOptions(spill_bytes=10)).comparisons
        assert got.content_hash == want.content_hash
        assert got.responses.take(np.array([3, 0], np.int32)).texts_R.to_list() == [
            want.responses.texts_R[3],
            want.responses.texts_R[0],
        ]

    def test_mapped_texts_are_released(self):
        before = len(mapped._alive)
        words = ["too long to be kept in place of a pointer", "", "é" * 20]
        texts = map_texts(pl.Series("t", words))
        assert texts.to_list() == words and texts.name == "t"
        assert len(mapped._alive) == before + 1
        kept = texts.gather([2])
        del texts
        assert kept.to_list() == words[2:] and len(mapped._alive) == before + 1
        del kept
        assert len(mapped._alive) == before

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
    def test_mapped_texts_are_not_in_this_process_memory(self):
        def anonymous() -> int:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

        before = anonymous()
        texts = [map_texts(pl.Series([f"{k} {n} " + "x" * 2000 for n in range(5000)])) for k in range(10)]
        total = sum(int(part.str.len_bytes().sum()) for part in texts)
        assert total > 100e6
        assert anonymous() - before < 0.6 * total


def test_paths_that_stand_for_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no file is named .*nothing-\*"):
        read([tmp_path / "nothing-*.jsonl"])
    with pytest.raises(InputError, match="is a folder"):
        read([tmp_path])
    with pytest.raises(InputError, match="unknown kind of file"):
        read([write(tmp_path / "prefs.jsonl", rows(1)).rename(tmp_path / "prefs.xlsx")])
    with pytest.raises(SettingsError, match="no file"):
        read([])


def test_hub_paths_need_the_network(monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read(["hf://datasets/nobody/nothing/train.jsonl"])
    assert "cannot reach hf://datasets/nobody/nothing/train.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 20


def test_hub_files_are_read_like_local_ones(tmp_path, monkeypatch):
    class Hub:
        HfFileSystem = property(lambda self: lambda: self)

        def glob(self, pattern):
            return [f"datasets/a/b/{p.name}" for p in sorted(tmp_path.glob(pattern.rsplit("/", 1)[-1]))]

        def info(self, path):
            if not (tmp_path / path.rsplit("/", 1)[-1]).exists():
                raise FileNotFoundError(path)
            return {"type": "file"}

        def resolve_path(self, path):
            name = path.rsplit("/", 1)[-1]
            return SimpleNamespace(repo_id="a/b", path_in_repo=name, repo_type="dataset", revision="main")

        def hf_hub_download(self, repo_id, filename, repo_type, revision):
            assert (repo_id, repo_type, revision) == ("a/b", "dataset", "main")
            return str(tmp_path / filename)

    monkeypatch.setattr("polypref.data.files.hub.hub", Hub)
    data = rows(20)
    write(tmp_path / "one.jsonl.gz", data[:10])
    write(tmp_path / "two.jsonl.gz", data[10:])
    reading = read(["hf://datasets/a/b/*.jsonl.gz"])
    assert reading.files == ("hf://datasets/a/b/one.jsonl.gz", "hf://datasets/a/b/two.jsonl.gz")
    assert reading.comparisons.content_hash == expected(data).content_hash
    with pytest.raises(InputError, match="no file is named"):
        read(["hf://datasets/a/b/three.jsonl"])


@needs_real
class TestRealData:
    @pytest.mark.parametrize(
        ("name", "users", "judgements", "pairs"),
        [
            ("llmfao", 124, 5460, 1918), ("ukpconvarg1", 3801, 65335, 16796), ("pandalm", 3, 2671, 914),
            ("polis_opendata", 3524, 546380, 74509), ("squality_humaneval", 4, 900, 300),
        ],
    )  # fmt: skip
    def test_counts_of_the_published_sets(self, name, users, judgements, pairs):
        data = read([REAL / f"{name}.parquet"]).comparisons
        assert (len(data.users), len(data)) == (users, judgements)
        assert data.pair_N is not None and len(np.unique(data.pair_N)) == pairs

    def test_ukpconvarg1_is_read_right_and_fast(self):
        start = time.perf_counter()
        reading = read([REAL / "ukpconvarg1.parquet"])
        seconds = time.perf_counter() - start
        data = reading.comparisons
        assert len(data.responses) == 1038
        frame = pl.read_parquet(REAL / "ukpconvarg1.parquet")
        for name, code_N in (("chosen", data.chosen_N), ("rejected", data.rejected_N)):
            assert (data.responses.texts_R.gather(code_N) == frame[name]).all()
        assert (data.responses.prompts.gather(data.responses.prompt_R[data.chosen_N]) == frame["prompt"]).all()
        assert (data.users.ids.gather(data.user_N) == frame["user_id"]).all()
        assert (reading.shown_first_N == 1 - frame["chosen_pos"].to_numpy()).all()
        assert data.time_N is not None and np.isfinite(data.time_N).all()
        assert reading.line_N.tolist() == list(range(1, 65336))
        assert seconds < 4 * max(1, os.getloadavg()[0])

    def test_opinion_groups_are_facts_about_users_and_topics_are_not_always(self):
        users = read([REAL / "polis_opendata.parquet"]).comparisons.users
        assert users.attributes is not None
        assert users.attributes["opinion_group"].null_count() == 0
        assert users.attributes["opinion_group"].n_unique() > 1
        facts = read([REAL / "ukpconvarg1.parquet"]).comparisons.users.attributes
        assert facts is not None and facts.columns == ["mace_competence"]  # stance and topic vary within a user

    def test_ties_of_the_companion_file(self):
        ties = ReadOptions(ties=(str(REAL / "llmfao.ties.parquet"),))
        data = read([REAL / "llmfao.parquet"], ties).comparisons
        assert data.tie_N is not None and (len(data), int(data.tie_N.sum())) == (5460 + 3471, 3471)

    def test_a_ties_file_without_rows_is_fine(self):
        ties = ReadOptions(ties=(str(REAL / "squality_humaneval.ties.parquet"),))
        assert len(read([REAL / "squality_humaneval.parquet"], ties).comparisons) == 900
