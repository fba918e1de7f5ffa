"""Files that ask for more than a machine has end in one line, soon and in bounded memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from polypref.bounds.bounds_file import read_bounds
from polypref.cli import main
from polypref.data.files import textfiles
from polypref.data.files.limits import Limits, parse_limits
from polypref.data.files.sources import readable
from polypref.data.files.textfiles import chunks
from polypref.data.published.rows import read_files
from polypref.data.read import ReadOptions, read
from polypref.data.rows.roles import ALIASES
from polypref.errors import InputError, PolyprefError, SettingsError

HEAD = b"user_id,prompt,chosen,rejected\n"
ROW = b'{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}\n'
SAME = ROW.replace(b'"y"', b'"x"')
DEEP = b"[" * 100_000 + b"]" * 100_000
MIB = 1 << 20
OF_MEMORY = """
import resource, sys
from polypref.data.read import read
from polypref.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read([sys.argv[1]])
except InputError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, error)
"""


def refused(path: Path, content: bytes, **limits: int) -> str:
    path.write_bytes(content)
    with pytest.raises(PolyprefError) as caught:
        read([path], ReadOptions(limits=Limits(**limits)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize(("first", "piece"), [(b"", b"\0"), (ROW, b" "), (ROW, b"\n")])
def test_what_grows_without_end(tmp_path, suffix, ending, first, piece):
    content = (first if suffix == "jsonl" or not first else HEAD + b"u,p,x,y\n") + piece * (4 * MIB)
    squeezed = gzip.compress(content, 1) if ending == "gz" else zstandard.compress(content)
    assert len(squeezed) < MIB
    assert "--limits line_bytes=NUMBER raises" in refused(tmp_path / f"p.{suffix}.{ending}", squeezed, line_bytes=MIB)


JSON_RUBBISH = [b"{}\n", b"x\n", b"[]\n", b"\xff\n", ROW.replace(b'"u"', b'""')]
CSV_RUBBISH = [b"a,b,c,d,e\n", b",p,x,y\n", b'u,p,5" pipe\n', b'u,p,"x"y,z\n', b"u,\xff,x,y\n"]
RUBBISH = [("p.jsonl", b"", ROW, one) for one in JSON_RUBBISH]
RUBBISH += [("p.csv", HEAD, b"u,p,x,y\n", one) for one in CSV_RUBBISH]


@pytest.mark.parametrize("good", [1, 500])
@pytest.mark.parametrize(("name", "head", "row", "rubbish"), RUBBISH)
def test_rubbish_without_end_is_read_no_further(tmp_path, monkeypatch, name, head, row, rubbish, good):
    """Neither one good row nor one in five hundred keeps the reading alive, whatever the rubbish is."""
    monkeypatch.setattr("polypref.data.files.textfiles.BLOCK", 4096)
    monkeypatch.setattr("polypref.data.files.csvfiles.SLOW_ROWS", 100)
    content = head + row + (rubbish * (10_000 // good) + row) * good
    said = refused(tmp_path / name, content, unusable_rows=2000)
    assert f"rows cannot be used; the first: line {2 + bool(head)} of {tmp_path / name}: " in said
    assert 2000 < int(re.split("of the first | rows", said)[1].replace(",", "")) < 6_000, said
    assert said.endswith("--limits unusable_rows=NUMBER reads more of them.")
    assert "of the first" not in refused(tmp_path / name, content)


@pytest.mark.parametrize(
    "rubbish", [{"user_id": "u"}, {"user_id": "u", "chosen": "", "rejected": ""}, json.loads(SAME)]
)
def test_nothing_to_compare_without_end(tmp_path, monkeypatch, rubbish):
    monkeypatch.setattr("polypref.data.files.textfiles.BLOCK", 4096)
    content = ROW + json.dumps(rubbish).encode() + b"\n"
    said = refused(tmp_path / "p.jsonl", ROW + (json.dumps(rubbish).encode() + b"\n") * 9000, unusable_rows=2000)
    assert re.match(r"only 1 of the first 2,... lines of /.*/p\.jsonl is usable", said)
    (tmp_path / "p.jsonl").write_bytes(content * 3000)
    assert len(read([tmp_path / "p.jsonl"], ReadOptions(limits=Limits(unusable_rows=2000))).comparisons) == 6000


@pytest.mark.parametrize(("name", "head", "row", "rubbish"), RUBBISH)
def test_rubbish_among_more_good_rows_is_read_over(tmp_path, monkeypatch, name, head, row, rubbish):
    monkeypatch.setattr("polypref.data.files.textfiles.BLOCK", 4096)
    (tmp_path / name).write_bytes(head + (row * 5 + rubbish * 4) * 600)
    reading = read([tmp_path / name], ReadOptions(limits=Limits(unusable_rows=2000)))
    assert len(reading.comparisons) == 3000 and reading.rows_read == 5400


@pytest.mark.parametrize(("name", "head", "row", "empty"), [
    ("p.jsonl", b"", ROW, b"\n"), ("p.jsonl", b"", ROW, b" \r\n"), ("p.csv", HEAD, b"u,p,x,y\n", b"\n"),
    ("p.csv", HEAD, b"u,p,x,y\n", b",,,\n"), ("p.csv", HEAD, b'u,p,5" pipe,y\n', b",,,\n"),
])  # fmt: skip
def test_empty_lines_without_end(tmp_path, monkeypatch, name, head, row, empty):
    """A row between them does not keep the reading alive; one after every row, or many at the end, are fine."""
    monkeypatch.setattr("polypref.data.files.textfiles.BLOCK", 4096)
    content = head + (row + empty * 1000) * 100
    said = refused(tmp_path / name, content, unusable_rows=1000)
    assert re.match(rf"only .* of the first .* lines of /.*/{name} are usable", said)
    assert len(read([tmp_path / name]).comparisons) == 100
    (tmp_path / name).write_bytes(head + (row + empty) * 3000 + empty * 40_000)
    assert len(read([tmp_path / name], ReadOptions(limits=Limits(unusable_rows=1000))).comparisons) == 3000


def test_long_rubbish_counts_by_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("polypref.data.files.textfiles.BLOCK", 1 << 16)
    long = json.dumps({"user_id": "", "prompt": "p" * 4000, "chosen": "x", "rejected": "y"}).encode() + b"\n"
    assert "of the first" in refused(tmp_path / "p.jsonl", ROW + long * 900, unusable_rows=2000)
    assert "of the first" not in refused(tmp_path / "p.jsonl", ROW + long * 400, unusable_rows=2000)


def decompressed(monkeypatch, tmp_path, content: bytes, **limits: int) -> tuple[int, str]:
    """Bytes that were read of a file before it was refused, and why ("": it was not)."""
    sizes = []
    monkeypatch.setattr(textfiles, "chunks", lambda path, of=chunks: (sizes.append(len(c)) or c for c in of(path)))
    monkeypatch.setattr(textfiles, "BLOCK", 4096)
    monkeypatch.setattr("polypref.data.files.late_columns.AHEAD", 4096)
    monkeypatch.setattr(textfiles, "HEAD_BYTES", 4096)
    (tmp_path / "p.jsonl").write_bytes(content)
    try:
        read([tmp_path / "p.jsonl"], ReadOptions(limits=Limits(**limits)))
    except InputError as error:
        return sum(sizes), str(error)
    return sum(sizes), ""


def test_late_keys_are_looked_for_no_further_than_rows_are_read(monkeypatch, tmp_path):
    """A file is read once, and one with each known key in its turn a few times."""
    size, said = decompressed(monkeypatch, tmp_path, ROW * 20_000)
    assert not said and size < 1.01 * 20_000 * len(ROW) + 8192
    size, said = decompressed(monkeypatch, tmp_path, ROW + b"{}\n" * 500_000, unusable_rows=2000)
    assert "of the first" in said and size < 40_000
    size, said = decompressed(monkeypatch, tmp_path, b'{"user_id": 1}\n' * 100_000, unusable_rows=2000)
    assert 'column "chosen" is missing' in said and size < 80_000
    names = [name for role in ALIASES for name in ALIASES[role]]
    late = b"".join(ROW * 50 + ROW[:-2] + b', "%b": null}\n' % name.encode() for name in names)
    size, said = decompressed(monkeypatch, tmp_path, ROW * 1000 + late + b"{}\n" * 500_000, unusable_rows=2000)
    assert "of the first" in said and size < 8 * (len(ROW * 1000 + late))


def test_zeros_take_little_memory(tmp_path):
    path = tmp_path / "p.jsonl.zst"
    with zstandard.ZstdCompressor().stream_writer(path.open("wb")) as out:
        for _ in range(32):
            out.write(bytes(16 * MIB))
    done = subprocess.run([sys.executable, "-c", OF_MEMORY, str(path)], capture_output=True, text=True, check=True)
    used, _, said = done.stdout.partition(" ")
    assert int(used) < 300 and said.startswith(f"line 1 of {tmp_path / 'p.jsonl.zst'} is ")


def test_long_lines_and_records(tmp_path):
    long = b"x" * 5000
    assert (f"line 2 of {tmp_path / 'p.jsonl'} is") in refused(
        tmp_path / "p.jsonl", ROW + ROW.replace(b"x", long), line_bytes=4000
    )
    assert (f"line 2 of {tmp_path / 'p.csv'} is") in refused(
        tmp_path / "p.csv", HEAD + b"u,p,%b,y\n" % long, line_bytes=4000
    )
    quote = HEAD + b'u,p,"x,y\n' + b"u,p,x,y\n" * 3000
    assert f"line 2 of {tmp_path / 'p.csv'}" in refused(tmp_path / "p.csv", quote, line_bytes=4000)


def test_columns_and_keys(tmp_path):
    many = b",".join(b"c%d" % n for n in range(200))
    assert "has 200 columns, more than 100" in refused(tmp_path / "p.csv", many + b"\n", columns=100)
    keys = json.dumps({f"k{n}": 1 for n in range(200)}).encode()
    assert "has 200 keys in one line" in refused(tmp_path / "p.jsonl", keys, columns=100)


def test_attributes_of_their_own(tmp_path):
    row = json.loads(ROW)
    facts = [row | {"user_id": f"u{n}", "attributes": {f"k{n}": n}} for n in range(300)]
    content = "".join(json.dumps(fact) + "\n" for fact in facts).encode()
    text = refused(tmp_path / "p.jsonl", content, attribute_keys=100)
    assert "attributes have 300 different keys, more than 100. --columns attributes= reads" in text
    (tmp_path / "p.jsonl").write_bytes(content)
    assert len(read([tmp_path / "p.jsonl"], ReadOptions(columns={"attributes": ""})).comparisons) == 300


def test_a_table_that_would_be_nearly_empty(tmp_path):
    row = json.loads(ROW)
    facts = [row | {"user_id": f"u{n}", "attributes": {f"k{n % 600}": n}} for n in range(9000)]
    content = "\n".join(map(json.dumps, facts)).encode()
    assert "would make a table of 5,400,000 cells" in refused(tmp_path / "p.jsonl", content)


@pytest.mark.parametrize("role", ["note", "chosen", "attributes"])
def test_nesting(tmp_path, role):
    row = ROW[:-2] + b', "%b": %b}\n' % (role.encode(), DEEP)
    if role == "chosen":
        row = ROW.replace(b'"chosen": "x"', b'"chosen": %b' % DEEP)
    (tmp_path / "p.jsonl").write_bytes(ROW * 3 + row)
    (problem,) = read([tmp_path / "p.jsonl"]).problems
    assert (problem.line, problem.count) == (4, 1) and "nested too deep" in problem.text


def test_damaged_compression(tmp_path):
    whole = zstandard.compress(ROW * 500)
    for name, content, said in (
        ("p.jsonl.zst", whole + b"rubbish", "cut short or damaged"),
        ("p.jsonl.zst", whole[:4] + b"\xff" * 8 + whole[12:], "cut short or damaged"),
        ("p.jsonl.gz", gzip.compress(ROW * 500) + b"rubbish", "cut short or damaged"),
    ):  # fmt: skip
        assert said in refused(tmp_path / name, content)
    several = b"".join(zstandard.compress(ROW) for _ in range(3000))
    (tmp_path / "p.jsonl.zst").write_bytes(several)
    assert b"".join(chunks(str(tmp_path / "p.jsonl.zst"))) == ROW * 3000


def test_settings_and_published_sets(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"[check]\na = " + b"[" * 100_000)
    assert main(["check", "x.jsonl", "--config", str(tmp_path / "s.toml")]) == 2
    with pytest.raises(PolyprefError, match="is not TOML"):
        read_bounds(tmp_path / "s.toml")
    (tmp_path / "set.json.gz").write_bytes(gzip.compress(bytes(2 * MIB)))
    with pytest.raises(InputError, match="cannot be read"):
        read_files([str(tmp_path / "set.json.gz")])


def test_limits_in_words():
    assert parse_limits(["line_bytes=5", "depth=7"]) == Limits(line_bytes=5, depth=7)
    for wrong in ("line_bytes", "lines=5", "depth=0", "depth=-1", "depth=x", "depth=" + "9" * 30):
        with pytest.raises(SettingsError, match="limit"):
            parse_limits([wrong])


def test_a_panic_is_one_line_and_an_interrupt_stays_one():
    import polars as pl

    with pytest.raises(InputError, match=r"p\.parquet cannot be read"), readable("p.parquet"):
        raise pl.exceptions.PanicException("far away")
    with pytest.raises(KeyboardInterrupt), readable("p.parquet"):
        raise KeyboardInterrupt
