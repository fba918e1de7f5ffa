"""The reliability studies of benchmarks/reliability, each in small; docs/reliability.md has the large ones' figures."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "reliability"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def world(tmp_path_factory, on_the_path):
    import stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYPREF_CACHE", os.environ.get("POLYPREF_CACHE", ""))
        yield stage.build(tmp_path_factory.mktemp("world"), ("pooled", "random", "individual"), results=False)


def test_mutated_inputs_and_artifacts_end_in_one_line(world, monkeypatch):
    import mutants
    import mutants_of_artifacts

    quick = {kind: weight for kind, weight in mutants_of_artifacts.WEIGHTS.items() if weight >= 8}
    monkeypatch.setattr(mutants_of_artifacts, "WEIGHTS", quick)
    run = mutants.prepare([str(world), "1"], limited=False)
    faults = {
        f"{part}:{n}": one for part in ("inputs", "artifacts") for n in range(25) if (one := run([part, n])).kinds
    }
    assert not faults


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"code": None, "error": "Traceback ..."}, "traceback"),
        ({"code": 0, "out": "thread panicked at x"}, "traceback"),
        ({"code": 3}, "exit code"),
        ({"code": 0, "out": "a\x1b[2J"}, "control characters"),
        ({"code": 0, "out": "\u202ea"}, "control characters"),
        ({"code": 2, "err": ""}, "not one error line"),
        ({"code": 2, "err": "polypref: error: a\npolypref: error: b\n"}, "not one error line"),
    ],
)
def test_what_is_wrong_is_seen(outcome, kind):
    from runner import Outcome

    assert Outcome(**outcome).judge().kinds == [kind]
    assert Outcome(code=2, err="polypref: error: one line\n").judge().kinds == []


def test_a_hang_and_a_death_are_seen(on_the_path):
    from runner import Worker

    worker = Worker("ends", [], limit=0.5)
    kinds = [worker(case).kinds for case in ("fine", "hang", "fine", "death", "fine")]
    worker.close()
    assert kinds == [[], ["hang"], [], ["death"], []]


def test_a_fit_that_is_killed_leaves_a_scorer_and_goes_on(world, tmp_path):
    """``kills`` by its path: the tests have a module of that name."""
    found = importlib.util.spec_from_file_location("reliability_kills", FOLDER / "kills.py")
    assert found is not None and found.loader is not None
    kills = sys.modules["reliability_kills"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(kills)
    told = kills.study_of(world, kills.RUNS["fit"], 3, tmp_path, None, time.perf_counter() + 600)
    assert told["kills"] == 3 and told["calls"] > 5
    assert not told["faults"]


@pytest.mark.parametrize("only", ["NUL joins: '\\x00'", "slates", "weights outside the probes", "safety scores"])
def test_attacks_on_the_gate_and_the_pin_fail(world, tmp_path, only):
    import gate_attacks

    found = gate_attacks.study(world, tmp_path, only)
    assert found["attempts"] >= 2
    assert not found["faults"]


def test_the_tests_and_studies_that_the_page_names_are_there():
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"(?:tests|benchmarks/reliability)/\w+\.py", text))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
