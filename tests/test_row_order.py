"""No figure moves with the order of rows or files, with a file that is given twice, or with rows of weight 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from polypref import features
from polypref.align import questions
from polypref.align.task import Task as AlignTask
from polypref.cli import main
from polypref.comparisons import Comparisons, Responses
from polypref.data.benchmarks import read_suite
from polypref.data.linting.lint import clean, lint
from polypref.data.read import read
from polypref.data.zero_weight import counted
from polypref.evaluation import Settings, compare
from polypref.groups import discover
from polypref.newcomers.new_users import new_users
from polypref.newcomers.settings import NewSettings
from polypref.profiling import profile
from polypref.scorers import load
from polypref.tax.arms import Task, fit_arms
from polypref.tax.measure import measure

Row = dict[str, Any]
SEEDS = range(2)
GRID = {"seeds": 1, "workers": 1, "quiet": True, "min_judgements": 5}


@dataclass(frozen=True)
class Hashed:
    """Six features of each text that have no round values, so that the order of a sum shows in its last digits."""

    name: str = "hashed"
    identity: str = "hashed v1"

    def encode(self, responses: Responses) -> np.ndarray:
        draws = [np.random.default_rng(crc32(text.encode())).normal(size=6) for text in responses.texts_R]
        return np.array(draws, np.float32).reshape(-1, 6)


@pytest.fixture(autouse=True)
def hashed_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "encoder", lambda name, **_: Hashed())


@cache
def world(seed: int) -> tuple[Row, ...]:
    """People with tastes of their own; ties, weights, times, pair ids, positions, attributes, repeats."""
    rng = np.random.default_rng([seed, 5])
    pairs = [
        (f"prompt {n % 17}. Say it as {'abc'[n % 3]} would!", f"please {n}", f"now {n + n % 7}") for n in range(40)
    ]
    rows = []
    for user in range(12):
        for at in rng.choice(len(pairs), 26):
            prompt, *texts = pairs[at]
            sides = texts[:: 1 if rng.random() < (0.85 if user < 8 else 0.2) else -1]
            row = {"user_id": f"u{user}", "prompt": prompt}
            row |= {"chosen": sides[0], "rejected": sides[1], "tie": bool(rng.random() < 0.1)}
            row |= {"weight": round(float(rng.uniform(0.3, 2)), 3), "time": float(len(rows) * 0.3 + rng.random())}
            row |= {"pair_id": f"p{at}{'' if rng.random() < 0.8 else 'x'}"}
            row |= {
                "chosen_pos": int(rng.random() < 0.5),
                "attributes": {"land": "ab"[user % 2], f"key {user % 3}": "v"},
            }
            rows.append(row)
    return tuple(rows)


def unheard(seed: int) -> list[Row]:
    """Rows of weight 0 by known and unknown users, over known and new texts; they say the opposite of everybody."""
    rng = np.random.default_rng([seed, 6])
    rows = []
    for at in range(40):
        row = dict(world(seed)[int(rng.integers(len(world(seed))))])
        row |= {
            "chosen": row["rejected"],
            "rejected": row["chosen"],
            "weight": 0,
            "attributes": {"land": "z", "q": "r"},
        }
        row |= [{}, {"user_id": f"new {at}"}, {"chosen": f"new {at}"}, {"prompt": f"New prompt {at}. Be brief to me."}][
            at % 4
        ]
        row |= {"time": float(rng.uniform(0, 900)), "pair_id": f"p{rng.integers(60)}"}
        rows.append(row)
    return rows


def variants(
    rows: tuple[Row, ...], silent: list[Row], seed: int, copied: bool = True
) -> Iterator[tuple[str, list[list[Row]]]]:
    """The same data otherwise written, always in another order: as the rows of one or more files."""
    rng = np.random.default_rng([seed, 7])

    def shuffled(some: list[Row]) -> list[Row]:
        return [some[int(at)] for at in rng.permutation(len(some))]

    yield "with rows of weight 0", [shuffled([*rows, *silent])]
    halves = shuffled([*rows])
    yield "in two files", [halves[len(rows) // 3 :], halves[: len(rows) // 3]]
    if copied:
        yield "given twice", [shuffled([*rows]), shuffled([*rows])]


def written(folder: Path, files: list[list[Row]]) -> list[str]:
    paths = []
    for at, rows in enumerate(files):
        paths.append(folder / f"{len(list(folder.iterdir()))} {at}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path) for path in paths]


def cleaned(files: list[str]) -> Comparisons:
    reading = read(files)
    return clean(reading, lint(reading))


def without(content: Any, *keys: str) -> Any:
    """JSON without the keys that say when, where and how long, or name lines of the files."""
    if isinstance(content, dict):
        return {key: without(value, *keys) for key, value in content.items() if key not in keys}
    return [without(value, *keys) for value in content] if isinstance(content, list) else content


# --- the figures of each command


def of_profile(files: list[str]) -> Any:
    return [profile(cleaned(files), pairs=pairs).as_dict() for pairs in ("text", "id")]


def of_raw_profile(files: list[str]) -> Any:
    return profile(read(files).comparisons).as_dict()


def of_groups(files: list[str]) -> Any:
    data = cleaned(files)
    found = discover(data, encoder=Hashed(), seed=0, groups=2)
    return found.share_UG.tolist(), found.listed(data.users.ids).to_dicts()


def of_compare(files: list[str]) -> Any:
    found = compare(cleaned(files), ("individual",), Hashed(), settings=Settings(**GRID, sizes=(60,)))
    return without(found.content, "timing", "machine"), found.users.to_dicts()


def of_adapt(files: list[str]) -> Any:
    found = new_users(cleaned(files), ("hierarchical",), Hashed(), settings=NewSettings(**GRID, sizes=(3,)))
    return without(found.content, "timing", "machine", "adapt_ms", "fit_seconds")


def of_fit(files: list[str], name: str = "hierarchical") -> Any:
    out = Path(files[0]).parent / f"scorer {len(files)} {Path(files[0]).name}"
    assert main(["fit", *files, "--learner", name, "--out", str(out)]) == 0
    scorer = load(out, Hashed())
    config, arrays = scorer.state()
    return config, {key: np.asarray(array).tolist() for key, array in sorted(arrays.items())}


def of_tax(files: list[str]) -> Any:
    folder = Path(files[0]).parent
    rng = np.random.default_rng(crc32(files[0].encode()))  # another order of the suite's rows in every variant
    rows = [
        {"prompt": f"item {n // 2}", "chosen": f"right {n}", "rejected": f"wrong {n}", "section": "xa"[n % 2]}
        for n in rng.permutation(60).tolist()
    ]
    suite = read_suite(written(folder, [rows])[0])
    arms = fit_arms(cleaned(files), "hierarchical", Hashed(), 0)
    found = measure(suite, arms, Task(users=4, min_judgements=5, draws=200), suite)
    return without(found, "file")


def of_align(files: list[str]) -> Any:
    data = cleaned(files)
    groups = dict.fromkeys(data.users.ids, "g")
    tables = questions(data, groups, AlignTask("m", min_judgements=5, samples=32))
    return data.content_hash, *(table.to_dicts() for table in tables)


FIGURES: dict[str, Callable[[list[str]], Any]] = {
    "profile": of_profile,
    "groups": of_groups,
    "compare": of_compare,
    "adapt": of_adapt,
    "fit": of_fit,
    "tax": of_tax,
    "align": of_align,
}


DEAR = ("compare", "adapt", "tax")  # fit many times: one world


@pytest.mark.parametrize(
    ("command", "seed"), [(command, seed) for command in FIGURES for seed in SEEDS if seed == 0 or command not in DEAR]
)
def test_no_figure_moves(tmp_path, command, seed):
    figures = FIGURES[command]
    rows = world(seed)
    wanted = figures(written(tmp_path, [[*rows]]))
    for name, files in variants(rows, unheard(seed), seed):
        assert json.dumps(figures(written(tmp_path, files)), default=str) == json.dumps(wanted, default=str), name
    fewer = figures(written(tmp_path, [[*rows[1:]]]))
    assert json.dumps(fewer, default=str) != json.dumps(wanted, default=str)  # figures are looked at


@pytest.mark.parametrize("seed", SEEDS)
def test_no_figure_of_all_rows_moves(tmp_path, seed):
    rows = world(seed)
    wanted = of_raw_profile(written(tmp_path, [[*rows]]))
    for name, files in variants(rows, unheard(seed), seed, copied=False):
        assert of_raw_profile(written(tmp_path, files)) == wanted, name


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_linter_measures_does_not_move(tmp_path, capsys, seed):
    rows = world(seed)

    def checked(files: list[str]) -> Any:
        assert main(["check", *files, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        measured = {one["name"]: (one["count"], one["total"], one["values"]) for one in found["findings"]}
        names = (
            "position bias",
            "length bias",
            "faster than reading",
            "repeated judgement",
            "contradictory repeat",
            "preference in the prompt",
        )
        assert {"position bias", "length bias", "faster than reading", "repeated judgement"} <= set(measured)
        return {name: measured[name] for name in names if name in measured}, found["origin"], found["kept"]

    wanted = checked(written(tmp_path, [[*rows]]))
    for name, files in variants(rows, unheard(seed), seed):
        assert checked(written(tmp_path, files)) == wanted, name


def test_each_row_is_scored_by_itself(tmp_path):
    rows = world(0)
    prefs = written(tmp_path, [[*rows]])
    assert main(["fit", *prefs, "--learner", "individual", "--out", str(tmp_path / "scorer")]) == 0
    asked = [{"user_id": row["user_id"], "prompt": row["prompt"], "response": row["chosen"]} for row in rows]
    order = np.random.default_rng(0).permutation(len(asked)).tolist()
    scored = []
    for at, some in enumerate((asked, [asked[i] for i in order])):
        out = tmp_path / f"scored {at}.jsonl"
        assert main(["score", str(tmp_path / "scorer"), *written(tmp_path, [some]), "--out", str(out)]) == 0
        scored.append(out.read_text().splitlines())
    assert scored[1] == [scored[0][i] for i in order]
    assert len(set(scored[0])) > len(rows) // 2


def test_data_in_order_are_kept_as_they_are_and_parts_are_put_in_order(tmp_path):
    data = cleaned(written(tmp_path, [[*world(0)]]))
    assert counted(data) is data
    part = data.take(np.arange(len(data))[::-1])
    assert counted(part) is not part
    assert counted(part).content_hash == data.content_hash != part.content_hash
