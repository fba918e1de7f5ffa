"""The reliability studies of benchmarks/reliability, each in small; docs/reliability.md has the large ones' figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "reliability"


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
        yield stage.build(tmp_path_factory.mktemp("world"), results=False)


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


def test_a_hang_and_a_death_are_seen(world):
    from runner import Worker

    worker = Worker("ends", [], limit=0.3)
    kinds = [worker(case).kinds for case in ("fine", "hang", "fine", "death", "fine")]
    worker.close()
    assert kinds == [[], ["hang"], [], ["death"], []]
