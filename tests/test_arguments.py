"""Settings and arguments of another type, range or length: one clear error that names the argument and what fits."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import polars as pl
import pytest

import polypref
from polypref.arguments import Range, WrongValue, _hints, expect
from polypref.cli import COMMANDS, main
from polypref.cli.settings import command_class, parse
from polypref.errors import InputError, PolyprefError, SettingsError
from toy_learners import LengthEncoder, people

WORDS = {"a": ["u", "v", "w"], "p": ["p", "q", "r"], "c": ["1", "2", "3"], "r": ["4", "5", "6"]}
HUGE = 10**30


def columns(**optional: Any) -> polypref.Comparisons:
    return polypref.from_columns(WORDS["a"], WORDS["p"], WORDS["c"], WORDS["r"], **optional)


def one_line(error: PolyprefError, *told: str) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    for word in told:
        assert word in str(error)


# --- columns in memory

FITTING = {
    "tie_N": [[True, False, True], [0, 1, 0], np.zeros(3, bool), pl.Series([True, True, False])],
    "weight_N": [[0, 1, 2], [0.5, 1.0, 0.0], np.ones(3, np.float32), [True, False, True]],
    "time_N": [[1, 2, 3], [math.nan, 1.5, -3.0], np.full(3, np.nan)],
    "pair_N": [[-1, 0, 5], np.arange(3), [1.0, 2.0, 3.0]],
}
ANYWHERE = ["1", "no", None, [1], {}, b"x", 1j, math.inf, -math.inf]  # no optional column has such a value
ALSO = {
    "tie_N": [2, -1, 0.5, math.nan],
    "weight_N": [-1, -1e-9, math.nan],
    "time_N": [],
    "pair_N": [-2, 0.5, math.nan, 2**31, HUGE],
}


@pytest.mark.parametrize("name", FITTING)
def test_optional_columns(name):
    for values in FITTING[name]:
        column = getattr(columns(**{name: values}), name)
        np.testing.assert_array_equal(column, np.asarray(values).astype(column.dtype))
    assert getattr(columns(**{name: None}), name) is None


@pytest.mark.parametrize("name", FITTING)
def test_one_impossible_value_in_any_place(name):
    tried = 0
    for value in [*ANYWHERE, *ALSO[name]]:
        for at in range(3):
            values = list(FITTING[name][0])
            values[at] = value
            with pytest.raises(InputError) as caught:
                columns(**{name: values})
            one_line(caught.value, name, "expected")
            tried += 1
    assert tried >= 27


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_another_length(name, length):
    for values in ([1] * length, np.ones(length), np.ones((3, length)), 1, "abc", pl.Series([1] * length)):
        with pytest.raises(InputError, match=f"{name} .*expected 3 values") as caught:
            columns(**{name: values})
        one_line(caught.value)


def test_a_column_that_does_not_exist():
    with pytest.raises(SettingsError, match=r"unknown optional column 'ties_N'. Did you mean 'tie_N'"):
        columns(ties_N=[True] * 3)


# --- arguments of the public functions

DATA = people(users=4, per_user=20)
ROWS = {"the data", "one of the paths", "comparisons", "train"}  # which may be rows in memory
OTHERS = [5, 2.5, b"prefs.jsonl", None, {"a": 1}, object(), pl.DataFrame({"a": [1]})]


def fit(**changed: Any) -> Any:
    return polypref.LEARNERS["pooled"].fit(DATA, **({"encoder": LengthEncoder(), "seed": 0} | changed))


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("data")
    for world in ("two-tastes", "tldr-like"):
        polypref.simulate(world, users=4, judgements=10).table().write_ndjson(folder / f"{world}.jsonl")
    return [polypref.read(folder / f"{world}.jsonl") for world in ("two-tastes", "tldr-like")]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("the data", lambda x, _: polypref.read(x)),
        ("one of the paths", lambda x, _: polypref.read([x])),
        ("reading", lambda x, _: polypref.lint(x)),
        ("reading", lambda x, r: polypref.clean(x, polypref.lint(r))),
        ("found", lambda x, r: polypref.clean(r, x)),
        ("comparisons", lambda x, _: polypref.compare(x)),
        ("train", lambda x, _: polypref.LEARNERS["pooled"].fit(x, encoder=LengthEncoder(), seed=0)),
        ("encoder", lambda x, _: polypref.LEARNERS["pooled"].fit(DATA, encoder=x, seed=0)),
        ("encoder", lambda x, _: polypref.compare(DATA, encoder=x)),
        ("name", lambda x, _: polypref.encoder(x)),
        ("ties", lambda x, _: polypref.ReadOptions(ties=x)),
        ("made_from", lambda x, _: polypref.ReadOptions(made_from=x)),
        ("limits", lambda x, _: polypref.ReadOptions(limits=x)),
    ],
)
def test_another_type(name, call, other, readings):
    with pytest.raises((InputError, SettingsError)) as caught:
        call(other, readings[0])
    is_table = name in ROWS and isinstance(other, pl.DataFrame | dict) and "rows in memory" in str(caught.value)
    one_line(
        caught.value,
        'column "chosen" is missing' if is_table else f"{name} is ",
        "--columns" if is_table else "expected",
    )


@pytest.mark.parametrize(
    ("told", "call"),
    [
        ("no file is named prefs.jsonl", lambda r: polypref.compare("prefs.jsonl")),
        ("found is about another reading", lambda r: polypref.clean(r[1], polypref.lint(r[0]))),
        ("encoder is 'static'; expected an Encoder", lambda r: fit(encoder="static")),
        ("seed is 'x'", lambda r: fit(seed="x")),
        ("valid is \"(1, 2)\"; expected Comparisons", lambda r: fit(valid=(1, 2))),
        ("seeds is '2'; expected a whole number from 1", lambda r: polypref.compare(DATA, seeds="2")),
        ("budget is 'x'; expected 'total' or 'per-user'", lambda r: polypref.compare(DATA, budget="x")),
        ("of two-tastes 'user'. Did you mean 'users'", lambda r: polypref.simulate("two-tastes", user=3)),
        ("users is '3'; expected a whole number", lambda r: polypref.simulate("two-tastes", users="3")),
        ("seed is -1", lambda r: polypref.simulate("two-tastes", seed=-1)),
        ("ties is 'prefs.jsonl'; expected a list or tuple", lambda r: polypref.ReadOptions(ties="prefs.jsonl")),
        ("made_from is 'foo'; expected 'auto', 'ratings' or 'pairs'", lambda r: polypref.ReadOptions(made_from="foo")),
        ("rating_gap is nan", lambda r: polypref.ReadOptions(rating_gap=math.nan)),
        ("min_judgements is 2.5; expected a whole number", lambda r: polypref.lint(r[0], min_judgements=2.5)),
        ("learners is 5", lambda r: polypref.compare(DATA, learners=[5])),
    ],
)  # fmt: skip
def test_what_a_newcomer_tries(told, call, readings):
    with pytest.raises((InputError, SettingsError)) as caught:
        call(readings)
    one_line(caught.value, told)


def test_what_fits_is_taken(readings):
    options = polypref.ReadOptions(ties=["a.jsonl", Path("b.jsonl")], rating_gap=1)
    assert options.ties == ("a.jsonl", Path("b.jsonl"))
    assert len(polypref.clean(readings[0], polypref.lint(readings[0], min_judgements=np.int64(2)))) == 40
    assert len(polypref.read((Path(readings[0].files[0]),)).comparisons) == 40


# --- numeric settings of the commands

REQUIRED = {
    "compare": ["x"], "check": ["x"], "profile": ["x"], "adapt": ["x", "--out", "o"], "fit": ["x", "--out", "o"],
    "groups": ["x", "--out", "o"], "convert": ["psoups", "x", "--out", "o"], "demo": [], "bench-policy": [],
    "leaderboard": ["x"],
    "simulate": ["two-tastes", "--out", "o"], "tax": ["s"], "bounds": ["check", "b"],
    "align": ["x", "--model", "m", "--scorer", "s", "--groups", "g"], "score": ["s", "x", "--out", "o"], "table": ["x"],
    "audit": ["s", "--bounds", "b", "--slates", "x"], "forget": ["s", "u"], "describe": ["s"], "serve": ["s"],
    "refit": [], "reproduce": ["paper"], "lm": ["status"],
}  # fmt: skip


def ranges(kind: Any) -> list[tuple[type, list[Range]]]:
    """The numeric types anywhere in a type, each with its ranges."""
    if kind in (int, float):
        return [(kind, [])]
    if get_origin(kind) is Literal:
        return []
    found = [one for part in get_args(kind) for one in ranges(part)]
    if get_origin(kind) is Annotated:
        found = [(of, [*own, *(x for x in get_args(kind) if isinstance(x, Range))]) for of, own in found]
    return found


NUMERIC = [
    (command, field.name, of, own)
    for command in COMMANDS
    for field in fields(command_class(command))  # type: ignore[arg-type]
    for of, own in ranges(_hints(command_class(command))[field.name])
]


def test_every_numeric_setting_has_one_range():
    assert len(NUMERIC) > 40
    assert [(command, name) for command, name, _, own in NUMERIC if len(own) != 1] == []
    assert set(REQUIRED) == set(COMMANDS)


@pytest.mark.parametrize(("command", "name", "of", "own"), NUMERIC, ids=[f"{one[0]} {one[1]}" for one in NUMERIC])
def test_numbers_out_of_range_are_refused_by_every_command(command, name, of, own, capsys):
    flag, refused = f"--{name.replace('_', '-')}", 0
    for text in ("-1", "-1e-9", "0", "nan", "inf", "-inf", "2.5", str(HUGE), "1e308", "1", "x", ""):
        try:
            value = of(text)
        except ValueError:
            value = None
        arguments = [*REQUIRED[command], f"{flag}={text}"]
        if value is not None and math.isfinite(value) and value in own[0]:
            settings = parse(command_class(command), command, arguments)
            taken = getattr(settings, name)
            assert (taken[0] if isinstance(taken, tuple) else taken) == value
            continue
        assert main([command, *arguments]) == 2
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0
        assert flag in said
        assert "expected" in said
        refused += 1
    assert refused >= 5


def test_a_settings_file_has_the_same_ranges(tmp_path, capsys):
    for command, name, *_ in NUMERIC:
        file = tmp_path / "c.toml"
        file.write_text(f"[{command}]\n{name.replace('_', '-')} = -1e30\n")
        assert main([command, *REQUIRED[command], "--config", str(file)]) == 2
        assert name.replace("_", "-") in capsys.readouterr().err.replace("_", "-")


def test_a_setting_twice_in_a_file_is_refused(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('[check]\nmin_judgements = 2\n"min-judgements" = 3\n')
    assert main(["check", "x", "--config", str(file)]) == 2
    assert "gives min_judgements twice" in capsys.readouterr().err


def test_types_nest():
    kind = tuple[Annotated[int, Range(1, 3)], ...]
    assert expect("sizes", [1, 3], kind) == (1, 3)
    for bad in ([0], [1, True], [1.5], "12", 1, None, [None]):
        with pytest.raises(WrongValue):
            expect("sizes", bad, kind)
    assert expect("n", None, Annotated[int | None, Range(1)]) is None
    again = pickle.loads(pickle.dumps(WrongValue("n", "0", "a whole number from 1")))
    assert str(again) == "n is 0; expected a whole number from 1."
