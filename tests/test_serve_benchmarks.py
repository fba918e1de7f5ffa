"""The benchmarks of the store, in small: what they measure is there, and what they assert can fail."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from serve_cases import core, running

FOLDER = Path(__file__).parent.parent / "benchmarks" / "serve"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def port_of(address):
    return int(address.rpartition(":")[2])


def test_feedback_is_acknowledged_and_stored(tmp_path):
    import feedback

    with running(core(tmp_path / "s.db")) as at:
        took, acknowledged, _ = asyncio.run(feedback.load(port_of(at), 8, 0.5, 0, 0))
    assert len(took) == len(acknowledged) > 20
    assert sorted(feedback.stored(tmp_path / "s.db")) == sorted(acknowledged)


def test_the_next_answer_reflects_a_judgement_at_the_other_server(tmp_path):
    import reflects

    with running(core(tmp_path / "s.db")) as one, running(core(tmp_path / "s.db")) as two:
        found = asyncio.run(reflects.all_trials([port_of(one), port_of(two)], 80, "r"))
    assert found == {"trials": 80, "counted": 80, "moved": 80}


def test_who_leaves_under_load_is_in_no_file_and_moves_nobody(tmp_path):
    import leaving

    with running(core(tmp_path / "s.db")) as at:
        found = asyncio.run(leaving.measured(port_of(at), tmp_path / "s.db", 30, 2))
    assert found["marks in the files before"] >= 30 * 6 and found["requests of others meanwhile"] > 0
    wrong = ("marks in the files after", "receipts with residue", "receipts with bytes pending")
    assert [found[one] for one in (*wrong, "witnesses whose rewards changed")] == [0, 0, 0, 0]


def test_every_acknowledgement_comes_after_a_sync():
    import syncs

    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    try:
        full, normal = (syncs.measured(20, one) for one in ("FULL", "NORMAL"))
    except AssertionError as error:
        if "ptrace" in str(error):
            pytest.skip("strace may not trace here")
        raise
    assert full.unsynced == 0 and full.acknowledged > 1000
    assert full.groups <= full.syncs <= full.groups + 3 * full.checkpoints + 1
    assert normal.unsynced > 0  # the control


def test_a_killed_servers_judgements_are_there_once(tmp_path):
    import killed

    run = killed.Kills(tmp_path, 4)
    assert run.life(0)["new"] == len(run.acknowledged) > 0
    found = run.checked()
    assert found["lost"] == found["twice"] == 0 and found["stored"] >= len(run.acknowledged)
    run.acknowledged.add("never sent")  # the control
    assert run.checked()["lost"] == 1


def test_a_large_store_is_like_one_that_was_served(tmp_path):
    import millions

    millions.made(tmp_path / "store.db", 20, 400)
    to = sqlite3.connect(tmp_path / "store.db")
    assert set(to.execute("SELECT judgements FROM people")) == {(20,)}
    to.close()
    with running(core(tmp_path / "store.db")) as at:
        draw = millions.np.random.default_rng(0)
        took = asyncio.run(millions.open_loop(port_of(at), [millions.ask(f"u{one}", draw) for one in range(20)], 50, 0))
    assert (took > 0).all()  # each was answered from the person's own judgements
