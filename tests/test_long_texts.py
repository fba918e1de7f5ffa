"""Texts that are longer than an encoder reads: what is said of them, and windows that read all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.cli import main
from polypref.comparisons import Responses, from_columns
from polypref.errors import SettingsError
from polypref.features import encoder, long_texts, minilm

needs_minilm = pytest.mark.skipif(not minilm.at_hand(), reason="MiniLM's weights are not on this machine")


@dataclass(frozen=True)
class Letters:
    """Reads the first nine letters of a text."""

    name: str = "letters"
    identity: str = "letters"
    reads: int | None = 9

    def encode(self, responses: Responses):
        return np.zeros((len(responses), 2), np.float32)

    def beginnings(self, texts_X: pl.Series):
        codes: dict[str, int] = {}
        texts = texts_X.to_list()
        longer_X = np.array([len(text) > 9 for text in texts])
        return longer_X, np.array([codes.setdefault(text[:9], len(codes)) for text in texts])


def rows_of(answers: list[tuple[str, str, str]]):
    prompts, chosen, rejected = zip(*answers, strict=True)
    return from_columns([f"u{n % 3}" for n in range(len(answers))], prompts, chosen, rejected)


texts = st.text("ab", min_size=8, max_size=11)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pq"), texts, texts).filter(lambda row: row[1] != row[2]), min_size=1))
def test_what_an_encoder_does_not_read_is_what_a_count_one_by_one_finds(answers):
    found = long_texts.long_texts(Letters(), rows_of(answers))
    pool = {(prompt, text) for prompt, *both in answers for text in both}
    longer = {one for one in pool if len(one[1]) > 9}
    equal = {a for a in longer if any(a != b and a[0] == b[0] and a[1][:9] == b[1][:9] for b in pool)}
    judged = [1 for _, one, other in answers if one[:9] == other[:9] and max(len(one), len(other)) > 9]
    if not longer:
        assert found is None
    else:
        assert found is not None
        assert (found.responses, found.longer, found.equal) == (len(pool), len(longer), len(equal))
        assert found.judgements == len(judged) and found.sampled == 0


def test_of_many_long_texts_some_stand_for_all(monkeypatch):
    monkeypatch.setattr(long_texts, "LOOKED_AT", 25)
    rows = rows_of([("p", f"{n:09} long", f"{n:03}") for n in range(50)])
    found = long_texts.long_texts(Letters(), rows)
    assert found is not None and found.longer == 50 and found.sampled == 25
    assert "about 50 of 100 responses are longer" in str(found)


def test_an_encoder_that_reads_all_has_nothing_to_say():
    rows = rows_of([("p", "a long enough text", "another long text")])
    assert long_texts.long_texts(Letters(reads=None), rows) is None
    assert long_texts.long_texts(Letters(), rows) is not None
    assert long_texts.long_texts(encoder("minilm-windows"), rows) is None


@needs_minilm
def test_a_window_is_read_like_a_text_of_its_own(tmp_path):
    words = "red blue green tree house river".split()  # noqa: SIM905
    halves = [" ".join(words * 25), " ".join(words[::-1] * 25)]  # 150 word pieces each, and 300 together
    whole, at_Q = Responses.of(["p"] * 4, [*halves, " ".join(halves), "short"])
    cut_RD = encoder("minilm", cache_folder=str(tmp_path)).encode(whole)[at_Q]
    all_RD = encoder("minilm-windows", cache_folder=str(tmp_path)).encode(whole)[at_Q]
    mean_D = cut_RD[0] + cut_RD[1]
    assert all_RD[2] == pytest.approx(mean_D / np.linalg.norm(mean_D), abs=1e-5)
    assert np.abs(all_RD[2] - cut_RD[2]).max() > 0.01
    assert all_RD[[0, 1, 3]] == pytest.approx(cut_RD[[0, 1, 3]], abs=1e-5)


def test_windows_are_another_encoder_and_read_responses_alone():
    assert encoder("minilm-windows").identity != encoder("minilm").identity
    assert encoder("minilm-windows").name == "minilm-windows"
    assert encoder("minilm-windows+static").name == "minilm-windows+static"
    with pytest.raises(SettingsError, match="responses alone"):
        encoder("minilm-windows", text="joint")


@needs_minilm
def test_check_and_profile_say_which_answers_the_default_encoder_takes_for_one(tmp_path, capsys):
    start = "word " * 260
    lines = [("u1", start + "one", start + "two"), ("u2", start + "one", "short"), ("u1", "short", "brief")]
    rows = [dict(zip(("user_id", "chosen", "rejected"), line, strict=True), prompt="p") for line in lines * 4]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for command in ("check", "profile"):
        assert main([command, str(path)]) == 0
        told = capsys.readouterr().out
        assert "minilm reads the first 256 word pieces" in told and "2 of 4 responses are longer" in told
        assert "2 of them are equal for it" in told and "4 judgements between such answers" in told
        assert main([command, str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["long_texts"]["equal"] == 2
