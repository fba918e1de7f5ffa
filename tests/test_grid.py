"""Cells: what names them, that finished ones are never redone (also after SIGKILL), failures, workers, Ctrl-C."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_info

from polypref.errors import PolyprefError, SettingsError
from polypref.evaluation import cells as cells_module
from polypref.evaluation.cells import Cell, Job, read, run, training_rows
from polypref.evaluation.placebo import shuffle_users
from polypref.features.encode_once import encode_once
from polypref.runs import cell_store as stored_module
from polypref.runs.cell_store import code_hash
from polypref.runs.execute import run_cells
from polypref.runs.threads import ONE_THREAD, one_thread
from toy_learners import Dies, Length, LengthEncoder, OwnLength, Unparsable, people

TESTS = Path(__file__).parent


def job_in(folder: Path, **learners) -> Job:
    return Job(people(users=10, per_user=30), LengthEncoder(), learners or {"length": Length()}, "pair", folder)


def silent(cell: Cell, error: str | None) -> None:
    pass


def test_a_cells_name_covers_what_decides_its_numbers(tmp_path):
    job = job_in(tmp_path)
    cell = Cell("length", None, 0)
    others = [
        (job, replace(cell, seed=1)),
        (job, replace(cell, size=100)),
        (job, replace(cell, arm="shuffled")),
        (replace(job, learners={"length": Length(strength=3.0)}), cell),
        (replace(job, learners={"length": OwnLength()}), cell),
        (replace(job, encoder=LengthEncoder(identity="length v2")), cell),
        (replace(job, rule="response"), cell),
        (replace(job, comparisons=job.comparisons.take(np.arange(200))), cell),
    ]
    names = {job.path(cell)} | {j.path(c) for j, c in others}
    assert len(names) == 1 + len(others)
    assert job.path(cell) == job_in(tmp_path).path(cell)
    assert job.path(cell) == replace(job, learners={"length": Length(), "own": OwnLength()}).path(cell)


def test_code_hash_follows_the_source_and_what_it_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_learner.py").write_text("from polypref.learners.protocol import Scores\nx = 1\n")
    before = code_hash("some_learner")
    (tmp_path / "some_learner.py").write_text("from polypref.learners.protocol import Scores\nx = 2\n")
    assert code_hash("some_learner") != before
    seen = []
    monkeypatch.setattr(
        stored_module, "_source", lambda name, inner=stored_module._source: seen.append(name) or inner(name)
    )
    code_hash("some_learner")
    assert {"some_learner", "polypref.learners.protocol", "polypref.comparisons"} <= set(seen)


def test_an_edit_during_a_run_does_not_rename_its_cells(tmp_path, monkeypatch):
    job = job_in(tmp_path)
    cell = Cell("length", None, 0)
    before = job.path(cell)
    monkeypatch.setattr(stored_module, "code_hash", lambda module: "edited")
    assert pickle.loads(pickle.dumps(job)).path(cell) == job.path(cell) == before
    assert job_in(tmp_path).path(cell) != before


def test_stored_outcome_is_what_was_scored_and_is_not_run_again(tmp_path):
    log = tmp_path / "log"
    job = job_in(tmp_path / "cells", length=Length(log=str(log)))
    grid = [Cell("length", None, seed) for seed in range(3)]
    assert run_cells(job, grid, 1, silent, run) == 3
    assert run_cells(job, grid, 1, silent, run) == 0
    assert len(log.read_text().splitlines()) == 3
    outcome = read(job, grid[1])
    assert len(outcome.margin_H) == len(job.parts(1).test_rows)
    assert outcome.serves == "population"
    assert 0 < outcome.selection["valid_accuracy"] <= 1


def test_workers_give_the_figures_of_this_process_and_encode_nothing(tmp_path):
    log = tmp_path / "log"
    learners = {"length": Length(), "own": OwnLength()}
    base = job_in(tmp_path / "here", **learners)
    pool = base.comparisons.responses
    (tmp_path / "pool").mkdir()
    job = replace(base, encoder=encode_once(LengthEncoder(log=str(log)), pool, tmp_path / "pool"))
    grid = [
        Cell(name, size, seed, arm)
        for name in learners
        for size in (None, 90)
        for seed in (0, 1)
        for arm in ("real", "shuffled")
    ]
    away = replace(job, folder=tmp_path / "away")
    assert run_cells(job, grid, 1, silent, run) == run_cells(away, grid, 2, silent, run) == len(grid)
    for cell in grid:
        assert np.array_equal(read(job, cell).margin_H, read(away, cell).margin_H)
    assert log.read_text().splitlines() == ["encode"]


def test_unknown_text_is_asked_of_the_inner_encoder(tmp_path):
    pool = people(users=4).responses
    encoded = encode_once(LengthEncoder(), pool, tmp_path)
    assert np.array_equal(encoded.encode(pool), LengthEncoder().encode(pool))
    some = pool.take(np.array([5, 2, 9], np.int32))
    assert np.array_equal(encoded.encode(some), LengthEncoder().encode(some))
    other = people(users=4, seed=9).responses
    assert np.array_equal(encoded.encode(other), LengthEncoder().encode(other))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_cell_is_named_and_the_others_are_kept(tmp_path, workers):
    job = job_in(tmp_path, length=Length(fails_on=(1,)))
    grid = [Cell("length", None, seed) for seed in range(4)]
    told = []
    with pytest.raises(
        PolyprefError, match=r"1 of 4 cells failed: \[length, all data, seed 1\] ValueError: no fit for seed 1"
    ):
        run_cells(job, grid, workers, lambda cell, error: told.append((cell.seed, error)), run)
    assert sorted(seed for seed, _ in told) == [0, 1, 2, 3]
    assert [cell.seed for cell in grid if job.is_stored(cell)] == [0, 2, 3]
    assert "no fit for seed" in (tmp_path / "failed.txt").read_text()


def test_a_dying_worker_takes_one_cell_with_it(tmp_path):
    job = job_in(tmp_path, length=Dies(fails_on=(1,)))
    grid = [Cell("length", None, seed) for seed in range(5)]
    with pytest.raises(
        PolyprefError, match=r"1 of 5 cells failed: \[length, all data, seed 1\] its worker process ended with code -9"
    ):
        run_cells(job, grid, 2, silent, run)
    assert [cell.seed for cell in grid if job.is_stored(cell)] == [0, 2, 3, 4]


def test_a_score_that_is_no_number_fails_the_cell(tmp_path):
    with pytest.raises(PolyprefError, match="test rows got a score that is not a finite number"):
        run(job_in(tmp_path, length=Unparsable()), Cell("length", None, 0))


def test_a_leaking_split_is_refused(tmp_path, monkeypatch):
    inner = cells_module.split

    def leaking(comparisons, rule, seed):
        parts = inner(comparisons, rule, seed)
        return replace(parts, train_rows=np.append(parts.train_rows, parts.test_rows[:1]))

    monkeypatch.setattr(cells_module, "split", leaking)
    with pytest.raises(SettingsError, match="leak"):
        job_in(tmp_path).parts(0)


def test_sizes_are_nested_and_keep_the_share_of_validation_rows(tmp_path):
    parts = job_in(tmp_path).parts(0)
    small, large = training_rows(parts, 60, 0), training_rows(parts, 150, 0)
    for (fewer, more), whole in zip(zip(small, large, strict=True), (parts.train_rows, parts.valid_rows), strict=True):
        assert set(fewer) < set(more) < set(whole)
    assert sum(map(len, small)) == 60
    assert len(small[1]) / 60 == pytest.approx(
        len(parts.valid_rows) / (len(parts.train_rows) + len(parts.valid_rows)), abs=0.02
    )
    with pytest.raises(SettingsError, match=r"--sizes 5000 cannot be cut from \d+ training comparisons"):
        training_rows(parts, 5000, 0)


def test_shuffled_users_keep_counts_and_contents():
    before = people()
    after = shuffle_users(before, 3)
    assert np.array_equal(np.bincount(before.user_N), np.bincount(after.user_N))
    assert np.array_equal(before.chosen_N, after.chosen_N)
    assert np.mean(before.user_N == after.user_N) < 0.15
    assert np.array_equal(after.user_N, shuffle_users(before, 3).user_N)


SCRIPT = """
import sys
from pathlib import Path
from toy_learners import Length, LengthEncoder, people
from polypref.evaluation.cells import Cell, Job, run
from polypref.runs.execute import run_cells
folder, log, pause = sys.argv[1:]
learners = {"length": Length(log=log, pause=float(pause))}
job = Job(people(users=10, per_user=30), LengthEncoder(), learners, "pair", Path(folder))
grid = [Cell("length", None, seed) for seed in range(10)]
try:
    print("ran", run_cells(job, grid, 2, lambda cell, error: None, run))
except KeyboardInterrupt:
    print("stopped")
    sys.exit(130)
"""


def start(tmp_path: Path, pause: float = 0.15) -> subprocess.Popen:
    """The script in a process group of its own. It has no main guard, which ``multiprocessing`` would need."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "cells"), str(tmp_path / "log"), str(pause)],
        env=os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}", "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def fits(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def stored(tmp_path: Path) -> int:
    return len(list((tmp_path / "cells").glob("[!.]*/manifest.json")))


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_sigkill_in_the_middle_redoes_nothing_that_finished(tmp_path):
    first = start(tmp_path)
    wait_until(lambda: stored(tmp_path) >= 3)
    first.kill()
    first.wait()
    time.sleep(1.0)
    kept, begun = stored(tmp_path), fits(tmp_path)
    assert 3 <= kept < 10
    assert kept <= len(begun) <= kept + 2, "the workers went on without the parent"
    second = start(tmp_path)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert out == f"ran {10 - kept}\n"
    assert set(fits(tmp_path)) == {f"fit {seed}" for seed in range(10)}
    assert len(fits(tmp_path)) == len(begun) + 10 - kept, "a finished cell was fitted again"
    assert stored(tmp_path) == 10
    assert len(list((tmp_path / "cells").rglob("*"))) == 10 * 3, "folder, manifest and arrays: nothing was left behind"


def test_ctrl_c_stops_at_once_and_keeps_finished_cells(tmp_path):
    process = start(tmp_path)
    wait_until(lambda: stored(tmp_path) >= 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers alike
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert out == "stopped\n"
    kept = stored(tmp_path)
    assert 3 <= kept < 10
    time.sleep(0.5)
    assert stored(tmp_path) == kept, "a worker outlived the run"


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "polypref.runs.worker" in child.cmdline()]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_long_cells_end_with_the_run(tmp_path, sent):
    """Cells of a minute: neither Ctrl-C nor the death of the parent waits for one of them."""
    process = start(tmp_path, pause=60)
    wait_until(lambda: len(workers_of(process)) == 2)
    workers = workers_of(process)
    time.sleep(1.0)
    assert not list((tmp_path / "tmp").iterdir()), "what users wrote has no name on the disk"
    process.send_signal(sent)  # to the parent alone
    began = time.monotonic()
    out, _ = process.communicate(timeout=30)
    assert out == ("stopped\n" if sent == signal.SIGINT else "")
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "a worker outlived the run"
    assert time.monotonic() - began < 10


BITS = """
import shutil, sys
from pathlib import Path
from toy_learners import LengthEncoder, Threaded, people
from polypref.evaluation.cells import Cell, Job, read, run
from polypref.runs.execute import run_cells

def margins(folder, workers, lost=()):
    job = Job(people(users=10, per_user=30), LengthEncoder(), {"threaded": Threaded()}, "pair", Path(folder))
    grid = [Cell("threaded", None, seed) for seed in range(3)]
    for cell in lost:
        shutil.rmtree(job.path(grid[cell]))
    run_cells(job, grid, workers, lambda *_: None, run)
    return [read(job, cell).margin_H.tobytes() for cell in grid], job, grid

here, job, grid = margins("one", 1)
assert margins("two", 2)[0] == here, "workers"
assert margins("two", 2, lost=[1])[0] == here, "a lone cell"
assert margins("two", 1, lost=[0, 2])[0] == here, "fewer workers"
shutil.rmtree(job.path(grid[0]))
run(job, grid[0])
print(read(job, grid[0]).margin_H.tobytes() == here[0])
"""


def test_figures_are_the_same_to_the_bit_for_any_workers_and_after_a_resume(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    environment |= {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}"}
    told = subprocess.run([sys.executable, "-c", BITS], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    if len(os.sched_getaffinity(0)) > 1:
        assert told.stdout == "False\n", "with all threads it is not: the test can fail"


def test_threads_are_given_back(monkeypatch):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_signal_that_another_thread_is_given_is_heard(tmp_path, request):
    """Some systems hand Ctrl-C to a thread that sleeps in a system call and leave the main thread asleep."""
    job = job_in(tmp_path, length=Length(pause=60))
    grid = [Cell("length", None, seed) for seed in range(2)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt() -> None:
        time.sleep(1.5)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_cells(job, grid, 2, silent, run)
    assert time.monotonic() - began < 30  # far less than a cell, also on a busy machine
