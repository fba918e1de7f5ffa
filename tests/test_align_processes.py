"""`polypref align` in two processes, killed and resumed; the long form is `benchmarks/policy/align_processes.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if not Path("/proc/self/task").exists():
    pytest.skip("needs Linux: it forks what has been imported", allow_module_level=True)
pytest.importorskip("trl")
pytest.importorskip("peft")

import align_cases as cases


def test_two_processes_killed_and_resumed_end_as_one_run_does(tmp_path: Path) -> None:
    cases.prepare(tmp_path, "killed", "whole")
    program = [sys.executable, str(Path(__file__).with_name("align_ranks_cases.py"))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    said = {path.stem: path.read_text() for path in tmp_path.glob("*.txt")}
    assert done.stdout.splitlines() == ["[-9, -9] False", "[0, 0] [0, 0]"], (done.stderr[-2000:], said)
    results = [json.loads((tmp_path / one / "align.json").read_text()) for one in ("whole", "killed")]
    assert results[0] == results[1]
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert said["whole"].count("gain per group") == 1, "only the main process prints"
    assert "2 of them from an earlier run" in said["resumed"]
