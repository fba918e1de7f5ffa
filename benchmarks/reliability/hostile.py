"""Values, names, bytes and lines of settings that nobody expects: what the mutations draw from."""

from __future__ import annotations

from typing import Any

import polars as pl

MARK = "@@{}@@"  # stands for JSON that json.dumps would not write

RAW = (
    *("NaN", "-Infinity", "Infinity", "1e400", "-1e400", "9" * 400, "1e-400", "-0", "tru", "nul", "'x'", "0x10", "01"),
    *('"\\ud800"', '"\\udc00x"', '"\\u0000"', '"\\u001b[2J"', '"\\u202eabc"', '"\\u2028"', '"\\u0085"', '"\\x41"'),
    *('"a\tb"', '"never closed', '{"a": 1, "a": 2}', "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000),
    *('{"__class__": "x"}', "[1, [2, [3]]]", '{"\\u001b[31m": 1}', "[null, 1, true]", '{"": ""}', "[]", "{}", "null"),
)

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        0.5,
        2**31,
        2**63,
        -(2**63),
        2**64,
        10**30,
        1e308,
        -1e308,
        5e-324,
        "",
        " ",
        "\t",
        "\n",
    ),
    *(
        "nan",
        "inf",
        "1e400",
        "NULL",
        "None",
        "true",
        "../../etc/passwd",
        "=1+1",
        "a\0b",
        "\x1b[2J\x1b]0;x\x07",
        "\u202ecod",
    ),
    *(
        "\u2066x\u2069",
        "\u2028\u2029",
        "\x85\x9b31m",
        "\ufeff",
        "\uffff",
        "x" * 100_000,
        "e\u0301" * 50,
        "<script>",
        "%s%n",
    ),
    *(
        "9999-99-99",
        "1e18",
        "-62135596801",
        "2024-02-30T25:61:61",
        [],
        [[]],
        {},
        {"a": {"b": [1]}},
        [None],
        [""],
        [1, "a"],
    ),
    *(
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": 5, "content": 5}],
        {"role": "user", "content": "x"},
    ),
    *(
        [{"role": "assistant", "content": "\x1b[2J"}],
        "[{",
        '[{"role": "user", "content": "x"}]',
        "\\",
        "\\u0041",
        "\\nabla",
    ),
    *('"', "'", "\r\n", ",", ";", "{", "}", "[", "]", "#", "\x7f", "\u061c", "🧑🏽‍🔬" * 40),
)

NAMES = (
    *(
        "",
        " ",
        "user_id ",
        "USER_ID",
        "user_id",
        "chosen",
        "prompt",
        "response",
        "rating",
        "label",
        "attributes",
        "unsafe",
    ),
    *(
        "\x1b[2J",
        "\u202ename",
        "a\0b",
        "\u2028",
        "x" * 5000,
        "__proto__",
        "a.b",
        "[b]red[/b]",
        "<script>",
        "%s",
        "é",
        "e\u0301",
    ),
    *(
        "weight",
        "tie",
        "timestamp",
        "pair_id",
        "0",
        "literal",
        "index",
        "row",
        "line",
        "\x9b31m",
        "\ufeffuser_id",
        "\ud800",
    ),
)

FILE_NAMES = (
    *(
        "\x1b[2J.jsonl",
        "\u202eabc.jsonl",
        "a\nb.jsonl",
        "x" * 240 + ".jsonl",
        "[a].jsonl",
        "*.jsonl",
        "é.jsonl",
        "-x.jsonl",
    ),
    *(
        b"\xff\xfe.jsonl".decode("utf-8", "surrogateescape"),
        " .jsonl",
        "a b.jsonl.gz",
        "a.tar.gz",
        "noending",
        "a.JSONL",
    ),
    *("hf:x.jsonl", "a=b.jsonl", "$(x).jsonl", "%s.jsonl", "\x9b31m.jsonl", "\u2066.parquet", ".jsonl", "a.csv.zst"),
)

FORMATS = ("jsonl", "jsonl", "csv", "parquet", "jsonl.gz", "jsonl.zst", "csv.gz", "tsv", "ndjson", "csv.zst")

DTYPES: tuple[Any, ...] = (
    *(
        pl.Binary,
        pl.Categorical,
        pl.Date,
        pl.Datetime("us", "UTC"),
        pl.Duration,
        pl.Time,
        pl.Boolean,
        pl.UInt8,
        pl.Int64,
    ),
    *(
        pl.Float32,
        pl.Decimal(20, 3),
        pl.Null,
        pl.List(pl.String),
        pl.List(pl.Float64),
        pl.Array(pl.Int64, 2),
        pl.Int128,
    ),
    *(
        pl.Struct({"a": pl.Int64}),
        pl.Struct({"a": pl.Binary}),
        pl.List(pl.Struct({"role": pl.String, "content": pl.Binary})),
    ),
)

BYTES = (
    *(
        b"\0",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"\xc2\x9b",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b'"',
        b"\\",
        b"\n",
        b"\r",
    ),
    *(
        b"{" * 5000,
        b"[" * 100_000,
        b"a" * 1_000_000,
        b'{"a":' * 20_000,
        b"," * 1000,
        b"\xe2\x80\xa8",
        b"1e400",
        b"NaN",
        b"\\u0000",
    ),
)

TOML = (
    *(
        "cap = nan",
        "cap = inf",
        "cap = -inf",
        "cap = 1e400",
        "cap = 99999999999999999999",
        "cap = true",
        "cap = [1]",
        "cap = {}",
    ),
    *(
        'cap = "2"',
        "alpha = 0",
        "alpha = 1",
        "delta = -0.0",
        "alpha = 1979-05-27",
        "floor = 0x10",
        "most_candidates = 1.5",
    ),
    *(
        'safety = "/dev/zero"',
        'safety = "\\u001b[2J"',
        'safety = "\\u0000"',
        'safety = "' + "x" * 5000 + '"',
        'safety = ".."',
    ),
    *(
        'safety = "\\u202e"',
        "by_category = 1",
        "by_category = true",
        "[user.'\\x1b[2J']",
        '[user."\\u001b[2J"]\nfloor = 1',
        "[[user]]",
    ),
    *(
        '[user."\\u202ea"]\ncap = 1',
        '[user."\\u0000nobody"]\ncap = 1',
        "[user.a.b]\ncap = 1",
        "[organisation]",
        '"\\u001b[2J" = 1',
    ),
    *(
        "a = " + "[" * 2000 + "]" * 2000,
        "x" * 100_000 + " = 1",
        "cap = " + "9" * 5000,
        "[user]\nuser = 1",
        "= 1",
        "\x1b[2J",
        "[",
        "\ufeff",
    ),
)

SETTINGS = (
    *(
        "files = 5",
        "files = [[1]]",
        "files = {a = 1}",
        'files = ["\\u001b[2J"]',
        "rating_gap = nan",
        'rating_gap = "x"',
        "json = 5",
    ),
    *(
        "columns = {user_id = 5}",
        'columns = {"\\u001b[2J" = "a"}',
        "rating_gap = " + "9" * 400,
        "min_judgements = 1.5",
        "seed = -1",
    ),
    *(
        '"\\u202e" = 1',
        "min-judgements = [1, 2]",
        "rating_gap = 1979-05-27",
        'scorer = "\\u0000"',
        'encoder = "hf:\\u001b[2J"',
        "seeds = []",
    ),
    *(
        'learner = "\\u001b[2J"',
        'encoder = "endpoint:http://127.0.0.1:9"',
        "help = true",
        "config = 'x'",
        "min_judgements = 1e400",
        'model = "../x"',
    ),
)
