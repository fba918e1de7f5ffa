"""Slates of several files, and an organisation's own responses as safe ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polypref.bounds.detector import Detector
from polypref.bounds.joined_slates import joined, safe_slates
from polypref.bounds.slates import part_of, prompt_identities, read_slates
from polypref.cli import main
from polypref.comparisons import Responses
from polypref.errors import InputError

CHAT = [{"role": "user", "content": "How?"}]


def slates(path, rows):
    lines = [
        {"prompt": prompt, "response": text, "unsafe": unsafe, "slate": str(slate), "category": f"c{slate}"}
        for slate, prompt, text, unsafe in rows
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return read_slates(str(path))


def rows_of(slates):
    names = [slates.responses.prompt_text(p) for p in slates.responses.prompt_R[slates.response_C].tolist()]
    texts = slates.responses.texts_R.gather(slates.response_C)
    return sorted(zip(slates.category_L.gather(slates.slate_C), names, texts, slates.unsafe_C.tolist(), strict=True))


def test_joined_slates_are_those_of_all_files(tmp_path):
    first = slates(tmp_path / "a.jsonl", [(0, "p", "a", False), (0, "p", "b", True), (1, "q", "c", False)])
    second = slates(tmp_path / "b.jsonl", [(5, CHAT, "a", True), (6, "p", "b", True), (6, "p", "d", False)])
    both = joined([first, second])
    assert len(both) == 4
    assert rows_of(both) == sorted(rows_of(first) + rows_of(second))
    assert both.responses.chat_P is not None and both.responses.chat_P.sum() == 1
    assert (np.diff(both.slate_C) >= 0).all()
    assert len(both.responses) == 5, "the same response to the same prompt stands once"
    assert joined([first]) is first
    for cut in (1, 2):
        one, other = (part_of(both, part, part, cut) for part in (1, cut))
        assert cut == 1 or not np.isin(prompt_identities(one.responses), prompt_identities(other.responses)).any()
    with pytest.raises(InputError, match="call 1 responses to the same prompt both unsafe and safe"):
        joined([first, slates(tmp_path / "c.jsonl", [(0, "p", "b", False)])])


def test_own_responses_are_safe_but_for_those_to_prompts_of_later_slates(tmp_path):
    whole = slates(tmp_path / "a.jsonl", [(n, f"p{n}", text, text == "b") for n in range(40) for text in "ab"])
    part = part_of(whole, 1, 1, 2)
    later = part_of(whole, 2, 2, 2)
    own, _ = Responses.of(["p0", "p1", "p2", "p3", "p4", "new", "p1", CHAT, "new"], [*"cdefgh", "b", "i", ""])
    found = safe_slates(own, whole, part)
    assert not found.unsafe_C.any()
    assert not np.isin(prompt_identities(found.responses), prompt_identities(later.responses)).any()
    texts = set(found.responses.texts_R)
    assert {"h", "i"} <= texts, "prompts that no slate has"
    assert "b" not in texts and "" not in texts, "what the slates label, and what says nothing"
    kept = {text for prompt, text in zip(range(5), "cdefg", strict=True) if f"p{prompt}" in set(_asked(part))}
    assert texts == {"h", "i"} | kept
    assert 0 < len(kept) < 5
    assert len(joined([part, found])) == len(part) + len(found)


def _asked(slates):
    return [slates.responses.prompt_text(p) for p in np.unique(slates.responses.prompt_R).tolist()]


def test_the_command_trains_on_several_files_and_own_responses(tmp_path, capsys):
    rows = [(n, f"How {n}?", f"{'bad' if bad else 'good'} {n}", bool(bad)) for n in range(60) for bad in (0, 1)]
    slates(tmp_path / "a.jsonl", rows[:60])
    slates(tmp_path / "b.jsonl", rows[60:])
    judged = [{"user_id": "u", "prompt": "Own?", "chosen": f"own {n}", "rejected": f"other {n}"} for n in range(20)]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in judged))
    (tmp_path / "bounds.toml").write_text('[immutable]\nsafety = "safety"\n')
    words = ["bounds", "detector", tmp_path / "bounds.toml", "--slates", tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    words += ["--safe", tmp_path / "own.jsonl", "--part", "1/2", "--encoder", "static"]
    assert main([str(word) for word in words]) == 0
    assert "of them unsafe" in capsys.readouterr().out
    detector = Detector.load(tmp_path / "safety")
    part = part_of(joined([read_slates(str(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]), 1, 1, 2)
    assert len(detector.trained_on) == len(part.responses) + 40
    assert np.isin(prompt_identities(part.responses), detector.prompts_trained_on).all()
    words = ["bounds", "calibrate", tmp_path / "bounds.toml", "--slates", tmp_path / "a.jsonl", "--part", "1/2"]
    assert main([str(word) for word in words]) == 2
    assert "too well to be judged" in capsys.readouterr().err
    slates(tmp_path / "asked.jsonl", [(0, "Own?", "new", True)])
    words[4:] = [tmp_path / "asked.jsonl"]
    assert main([str(word) for word in words]) == 2
    assert "trained on 1 of the slates' 1 prompts" in capsys.readouterr().err
