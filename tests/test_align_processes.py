"""`polypref align` in two processes: DDP and FSDP2 on CPUs, killed and resumed, and equal in both."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

if not Path("/proc/self/task").exists():
    pytest.skip("needs Linux: it kills the workers of torchrun", allow_module_level=True)
pytest.importorskip("trl")
pytest.importorskip("peft")

import align_cases as cases
from polypref.cli import main
from polypref.worlds import simulate

SETTINGS = """
[align]
files = "people.jsonl"
model = "model"
scorer = "scorer"
groups = "group"
min_judgements = 5
samples = 4
out = "{out}"
[align.lora]
rank = 4
upper = 1
[align.trainer]
per_device_train_batch_size = {batch}
max_completion_length = 6
max_steps = {steps}
save_steps = 2
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    simulate("two-tastes", users=8, judgements=20).table().write_ndjson(folder / "people.jsonl")
    cases.tiny(folder / "model")
    assert main(["fit", str(folder / "people.jsonl"), "--encoder", "static", "--out", str(folder / "scorer")]) == 0
    return folder


def started(place: Path, out: str, steps: int, *launch: str, batch: int = 4) -> subprocess.Popen[str]:
    """`polypref align` in two processes."""
    (place / f"{out}.toml").write_text(SETTINGS.format(out=out, steps=steps, batch=batch))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how = launch or ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", "-m")
    return subprocess.Popen(
        [sys.executable, *(word.format(port=port) for word in how), "polypref", "align", "--config", f"{out}.toml"],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(running: subprocess.Popen[str]) -> str:
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err[-3000:]
    return out


def test_two_processes_killed_and_resumed_end_as_one_run_does(place: Path) -> None:
    killed = started(place, "killed", 4)
    while not (place / "killed/checkpoints/checkpoint-2/trainer_state.json").exists():
        assert killed.poll() is None, killed.communicate()[1][-3000:]
        time.sleep(0.02)
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    for process in (*map(int, workers), killed.pid):  # torchrun's workers are in sessions of their own
        os.kill(process, signal.SIGKILL)
    killed.communicate()
    assert len(workers) == 2 and not (place / "killed/align.json").exists()
    whole = finished(started(place, "whole", 4))
    finished(started(place, "killed", 4))
    results = [json.loads((place / one / "align.json").read_text()) for one in ("whole", "killed")]
    assert results[0] == results[1]
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        assert (place / "whole" / name).read_bytes() == (place / "killed" / name).read_bytes()
    assert whole.count("gain per group") == 1, "only the main process prints"
