"""Adapters of published sets, each on small hand-written files in the published shape, traps included."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from polypref.cli import main
from polypref.data.linting.lint import lint
from polypref.data.published import PUBLISHED
from polypref.data.published.personalllm import PersonalLLM
from polypref.data.published.psoups import COUNTS, INSTRUCTIONS, PSoups
from polypref.data.published.tldr import TLDR
from polypref.data.read import read
from polypref.errors import InputError, NotEnoughData, PolyprefError, SettingsError
from published_files import converted, dump

# ------------------------------------------------------------------------------------------------------------- P-SOUPS


def psoups_row(person: str, question: str, a: str, b: str) -> dict[str, str]:
    return {"user_input": f"{question} {INSTRUCTIONS[person]}", "completion_a": a, "completion_b": b}


@pytest.fixture
def psoups(tmp_path):
    """P1A and P1B on the same pairs, with opposite wishes on two of three, five copies of each row, one empty pair."""
    rows_a = [psoups_row("P1A", f"Q{i}?", f"simple {i}", f"hard {i}") for i in range(3)]
    rows_b = [psoups_row("P1B", f"Q{i}?", f"hard {i}", f"simple {i}") for i in range(2)]
    rows_b.append(psoups_row("P1B", "Q2?", "simple 2", "hard 2"))
    rows_b.append(psoups_row("P1B", "Q3?", "same", "same"))
    return [
        dump(tmp_path / "P1A.json", 5 * rows_a, lines=False),
        dump(tmp_path / "P1B.json", 5 * rows_b, lines=False),
    ]


def test_psoups_counts_without_copies(psoups):
    found = PSoups().convert(psoups)
    assert found.rows == 35
    assert Counter(found.table["user_id"]) == {"P1A": 3, "P1B": 3}
    assert found.left_out == {"copy of an earlier row": 28, "chosen and rejected are the same text": 1}
    assert "not as many as published: P1A 3 (published 8,959), P1B 3 (published 9,069)" in found.remarks
    assert any("3 of 3 pairs were judged by two people or more, who disagree on 66.7 %" in r for r in found.remarks)


def test_psoups_published_counts_add_up():
    assert sum(COUNTS.values()) == 53_471
    assert COUNTS.keys() == INSTRUCTIONS.keys()


def test_psoups_prompts_lose_the_instruction(psoups):
    prompts = PSoups().convert(psoups).table["prompt"].to_list()
    assert set(prompts) == {"Q0?", "Q1?", "Q2?"}


def test_the_leak_is_found_before_converting_and_not_after(tmp_path, capsys):
    """The linter sees the instruction in the raw rows, so that it would see one that is left."""
    raw, leaks = [], {}
    for person in ("P1A", "P1B"):
        rows = [psoups_row(person, f"How does thing number {i} work?", f"a{i}", f"b{i}") for i in range(60)]
        dump(tmp_path / f"{person}.json", rows, lines=False)
        raw += [
            {"user_id": person, "prompt": r["user_input"], "chosen": r["completion_a"], "rejected": r["completion_b"]}
            for r in rows
        ]
    dump(tmp_path / "raw.jsonl", raw)
    converted(f"psoups {tmp_path}/P1A.json {tmp_path}/P1B.json --out {tmp_path}/clean.jsonl", capsys)
    for name in ("raw", "clean"):
        leaks[name] = [f.name for f in lint(read([tmp_path / f"{name}.jsonl"])).findings if "prompt" in f.name]
    assert leaks["raw"] == ["preference in the prompt"]
    assert leaks["clean"] == []


def test_psoups_mirror_form(tmp_path):
    rows = [
        {"uid": 1, "prompt": f"Q? {INSTRUCTIONS['P1A']}", "chosen": "x", "rejected": "y"},
        {"uid": 2, "prompt": "Q?", "chosen": "y", "rejected": "x"},
        {"uid": 2, "prompt": "Q?", "chosen": "y", "rejected": "y"},
    ]
    found = PSoups().convert([dump(tmp_path / "train.jsonl", rows)])
    assert found.table.rows() == [("1", "Q?", "x", "y"), ("2", "Q?", "y", "x")]
    assert any(remark.startswith("1 prompts had none of the six") for remark in found.remarks)


def test_psoups_needs_the_persons_file_name(tmp_path):
    path = dump(tmp_path / "P3C.json", [psoups_row("P3A", "Q?", "x", "y")], lines=False)
    with pytest.raises(InputError, match="its name says whose rows these are"):
        PSoups().convert([path])


# -------------------------------------------------------------------------------------------------------------- TL;DR


def tldr_row(
    worker: str | None, n: int, choice: int | None = 0, split: str = "train", **changes: Any
) -> dict[str, Any]:
    policies = changes.pop("policies", ("sup4_6b", "sup4_12b"))
    texts = changes.pop("texts", (f"the longer summary of {n}", f"short {n}"))
    info = {
        "id": f"t3_{n}",
        "post": f"post {n}",
        "title": f"title {n}",
        "subreddit": "tifu",
        "site": None,
        "article": None,
    }
    return {
        "info": info | changes,
        "summaries": [{"text": t, "policy": p, "note": "ok"} for t, p in zip(texts, policies, strict=True)],
        "choice": choice,
        "worker": worker,
        "batch": "batch3.json",
        "split": split,
        "extra": {"confidence": None},
    }


@pytest.fixture
def tldr(tmp_path):
    """Seven workers, w0 the busiest; w5's rows are many but news; w6 judges in valid1 only."""
    train = [tldr_row(f"w{w}", 100 * w + i, choice=i % 2) for w in range(5) for i in range(12 - w)]
    train += [tldr_row("w5", 500 + i, post=None, article="news", policies=("cnn_sup4", "cnn_ppo")) for i in range(9)]
    train.append(tldr_row("w0", 900, policies=("sup4_ppo_rm4", "sup4_6b")))
    train.append(tldr_row("w0", 901, texts=("one text", "one text")))
    train.append(tldr_row("w0", 902, choice=None))
    train.append(tldr_row(None, 903))
    valid = [tldr_row(f"w{w}", 1000 + 10 * w + i, split=f"valid{1 + i % 2}") for w in (0, 1, 6) for i in range(4)]
    return [dump(tmp_path / "train.jsonl", train), dump(tmp_path / "validation.jsonl", valid)]


def test_tldr_s_ranks_workers_before_it_leaves_rows_out(tldr):
    """w5 is among the five busiest by all train rows, though its rows are all news: then four workers are left."""
    found = TLDR("S").convert(tldr)
    assert set(found.table["user_id"]) == {"w0", "w1", "w2", "w3"}
    assert found.left_out["a news article, not a post"] == 9
    assert found.left_out["no choice"] == 1
    assert found.left_out["chosen and rejected are the same text"] == 1
    assert found.left_out["no worker"] == 1
    kept = Counter(found.table["user_id"])
    assert kept == {"w0": 12 + 1 + 4, "w1": 11 + 4, "w2": 10, "w3": 9}  # a ppo summary is kept under S
    assert found.table.height + sum(found.left_out.values()) == found.rows


def test_tldr_s_follows_the_choice(tldr):
    table = TLDR("S").convert(tldr).table
    one = table.filter(pl.col.prompt == "Summarize the following text:\npost 1")
    assert one.rows() == [("w0", "Summarize the following text:\npost 1", "short 1", "the longer summary of 1")]


def test_tldr_l_is_named_simulated_and_follows_length_alone(tldr):
    found = TLDR("L").convert(tldr)
    assert "SIMULATED" in found.title
    assert any("labels follow the length" in remark for remark in found.remarks)
    for row in found.table.iter_rows(named=True):
        told = json.loads(row["attributes"])
        assert told["labels"] == "simulated from length"
        longer = len(row["chosen"]) > len(row["rejected"])
        assert longer == (told["prefers"] == "longer")
    prefers = {r["user_id"]: json.loads(r["attributes"])["prefers"] for r in found.table.iter_rows(named=True)}
    assert [prefers[f"w{w}"] for w in range(5)] == ["longer", "longer", "longer", "shorter", "shorter"]
    assert "w5" not in prefers  # news
    assert found.left_out["a summary of another policy"] == 10


def test_tldr_l_draws_the_published_lengths(tmp_path):
    """P-RLHF prints, for its ten workers, 6,692 train and 1,550 validation rows of people who prefer shorter ones."""
    train = np.array([5245, 2920, 2437, 2366, 2200, 2126, 1824, 1606, 1366, 1209])
    valid = np.array([1175, 643, 381, 604, 586, 360, 321, 263, 177, 411])
    rows = [tldr_row(f"w{w:02d}", 100 * w + i) for w in range(10) for i in range(20 - w)]
    table = TLDR("L").convert([dump(tmp_path / "t.jsonl", rows)]).table
    users = dict(table.select("user_id", "attributes").unique().iter_rows())
    shorter = np.array(["shorter" in users[f"w{w:02d}"] for w in range(10)])
    assert (train.sum(), valid.sum()) == (23_299, 4_921)
    assert (train[shorter].sum(), valid[shorter].sum()) == (6_692, 1_550)


def test_tldr_l_equal_lengths_are_ties(tmp_path):
    rows = [tldr_row("w0", 0, texts=("abc", "xyz")), tldr_row("w0", 1)]
    table = TLDR("L").convert([dump(tmp_path / "t.jsonl", rows)]).table
    assert table["tie"].to_list() == [True, False]


def test_tldr_r_keeps_workers_of_both_splits(tldr):
    found = TLDR("R").convert(tldr)
    assert set(found.table["user_id"]) == {"w0", "w1"}
    assert found.left_out["a worker of one split only"] == 10 + 9 + 8 + 9 + 4


def test_tldr_keeps_a_repeated_judgement(tmp_path):
    """A person who judged a pair twice alike is as consistent as one who did not is inconsistent: both stay."""
    rows = [tldr_row("w0", 1), tldr_row("w0", 1), tldr_row("w0", 1, choice=1)]
    assert TLDR("S").convert([dump(tmp_path / "t.jsonl", rows)]).table.height == 3


def test_tldr_without_train_rows_cannot_rank(tldr):
    with pytest.raises(NotEnoughData, match="no row of TL;DR is of split train"):
        TLDR("S").convert(tldr[1:])


def test_tldr_reads_parquet_as_the_hub_holds_it(tldr, tmp_path):
    frame = pl.read_ndjson(tldr[0])
    frame.write_parquet(tmp_path / "0000.parquet")
    assert_frame_equal(TLDR("S").convert([str(tmp_path / "0000.parquet")]).table, TLDR("S").convert(tldr[:1]).table)


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_what_is_written_can_be_read_checked_and_profiled(psoups, tmp_path, capsys, suffix):
    out = tmp_path / f"psoups.{suffix}"
    converted(f"psoups {' '.join(psoups)} --out {out}", capsys)
    assert len(read([out]).comparisons) == 6
    assert main(["check", str(out)]) == 0
    assert main(["profile", str(out)]) == 0


def test_the_command_passes_settings_and_refuses_foreign_ones(tldr, tmp_path, capsys):
    said = converted(f"tldr {' '.join(tldr)} --protocol L --workers 2 --out {tmp_path}/l.parquet", capsys)
    assert said.startswith("TL;DR, protocol L: labels SIMULATED from the length")
    assert "of 2 people" in said
    assert read([tmp_path / "l.parquet"]).comparisons.users.attributes is not None
    assert main(["convert", "tldr", *tldr, "--alpha", "1", "--out", str(tmp_path / "x.csv")]) == 2
    assert "tldr has no setting --alpha; it has --protocol, --workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("psoup {a} --out {t}/x.csv", "unknown product or published set 'psoup'. Did you mean 'psoups'?"),
        ("psoups {a} --out {t}/x.txt", "expected one of .jsonl, .csv, .parquet"),
        ("psoups {a} --out {t}/there.csv", "exists"),
        ("psoups --out {t}/x.csv", "no file given"),
        ("psoups {t}/absent.json --out {t}/x.csv", "no file is named"),
        ("tldr {a} --out {t}/x.csv", 'column "info" of TL;DR is missing; found: user_input'),
        ("prism {a} --pairs four --out {t}/x.csv", "unknown kind of pairs of prism 'four'"),
        ("personalllm {a} --models gemma --out {t}/x.csv", "unknown reward model 'gemma'"),
        ("arena {t}/broken.json --out {t}/x.csv", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(psoups, tmp_path, capsys, arguments, says):
    (tmp_path / "broken.json").write_text('[{"a": 1}, {"a"')
    (tmp_path / "there.csv").write_text("x")
    line = arguments.format(a=psoups[0], t=tmp_path)
    assert main(["convert", *shlex.split(line)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_every_adapter_refuses_rows_of_another_shape(tmp_path):
    path = dump(tmp_path / "rows.jsonl", [{"something": 1}])
    for name, adapter in PUBLISHED.items():
        with pytest.raises(PolyprefError) as caught:
            adapter().convert([path])
        assert "rows.jsonl" in str(caught.value), name


def test_settings_that_cannot_be():
    for settings in ({"alpha": 0.0}, {"count": 0}, {"prompts": -1}, {"models": ("gemma_2b", "gemma_2b")}):
        with pytest.raises(SettingsError):
            PersonalLLM("dirichlet", **settings)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="R keeps every worker"):
        TLDR("R", workers=3)
