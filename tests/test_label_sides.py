"""Labels of another vocabulary are never dropped so that one side is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref.cli import main
from polypref.data.read import read
from polypref.errors import InputError


def written(path: Path, labels: list[object]) -> str:
    rows = [
        {"user_id": f"u{at % 3}", "prompt": "p", "response_a": f"a{at}", "response_b": f"b{at}", "label": label}
        for at, label in enumerate(labels)
    ]
    (path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path / "l.jsonl")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_one_side_and_another_value(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    side = data.draw(st.sampled_from([1, "A", "1", "model_a", 0, "B", "right"]))
    other = data.draw(st.sampled_from([2, "2", -1, "-1", "A is better", "gpt-4", "yes", 7]))
    labels = [side] * data.draw(st.integers(1, 30)) + [other] * data.draw(st.integers(3, 30))
    labels += ["tie"] * data.draw(st.integers(0, 5))
    path = written(tmp_path_factory.mktemp("l"), data.draw(st.permutations(labels)))
    with pytest.raises(
        InputError, match=r"every label in column .* that can be read prefers response_[ab], and"
    ) as told:
        read([path])
    assert "\n" not in str(told.value)


@given(st.integers(1, 30), st.integers(3, 30))
@settings(max_examples=20, deadline=None)
def test_one_side_and_many_other_values(tmp_path_factory: pytest.TempPathFactory, sided: int, others: int) -> None:
    """Each unreadable label is written in its own way, as a judge that adds its confidence does."""
    labels: list[object] = ["A"] * sided + [f"B ({at / 100:.2f})" for at in range(others)]
    with pytest.raises(InputError, match=rf'prefers response_a, and {others} cannot, such as "B \(0\.00\)"'):
        read([written(tmp_path_factory.mktemp("l"), labels)])


@pytest.mark.parametrize(
    "labels",
    [
        ["A"] * 9 + ["B"] * 9 + ["no idea"] * 6,  # both sides can be read
        ["A"] * 9 + ["??", "aa"],  # slips
        ["A"] * 99 + ["??", "aa", "q", "w"],  # fewer than a tenth
        ["A"] * 9,
        ["A"] * 9 + ["tie"] * 9,
    ],
)
def test_slips_are_left_out_as_before(tmp_path: Path, labels: list[object]) -> None:
    reading = read([written(tmp_path, labels)])
    assert len(reading.comparisons) == sum(label in ("A", "B", "tie") for label in labels)


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = written(tmp_path, [1] * 36 + [2] * 24)
    for command in (["check", path], ["fit", path, "--out", str(tmp_path / "s"), "--encoder", "static"]):
        assert main(command) == 2
        assert f'{path}: every label in column "label" that can be read prefers response_a, and 24 say "2"' in (
            capsys.readouterr().err
        )
