"""`polypref align` in two processes on CPUs, by each launcher: is a resumed run the uninterrupted one, bit for bit?

    python benchmarks/policy/align_processes.py [--launchers torchrun accelerate fsdp2]

For each launcher, the tests' tiny model with LoRA for four steps, saved every two: whole; killed (SIGKILL to the
launcher and both workers) after the first checkpoint; and that one resumed by the same command. Results and weights
have to be equal to the last bit. FSDP2 spreads the weights over the two processes; it is launched by torchrun.

Needs Linux. Not covered: accelerators, real models, a change of the number of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

ALIGN = " -m polypref align --config {toml}"
TORCHRUN = "-m torch.distributed.run --nproc-per-node 2 --master-port {port}" + ALIGN
ACCELERATE = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port {port}" + ALIGN  # without accelerators too: --cpu starts one process
)
LAUNCHERS = {"torchrun": TORCHRUN, "accelerate": ACCELERATE, "fsdp2": TORCHRUN}
FSDP2 = """fsdp = "full_shard"
fsdp_config = "{version = 2, transformer_layer_cls_to_wrap = ['LlamaDecoderLayer']}"
"""
RESULTS = ("align.json", "adapter/adapter_model.safetensors", "model/model.safetensors")


def started(folder: Path, launcher: str, out: str) -> subprocess.Popen[str]:
    """The launcher's process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = LAUNCHERS[launcher].format(port=port, toml=f"{out}.toml").split()
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(process: int) -> list[int]:
    """The ids of a process's children and theirs."""
    own = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return own + [one for child in own for one in children(child)]


def killed(folder: Path, launcher: str) -> None:
    """Start the run "killed", and kill all its processes after its first checkpoint."""
    running = started(folder, launcher, "killed")
    while not (folder / "killed/checkpoints/checkpoint-2/trainer_state.json").exists():
        if running.poll() is not None:
            raise SystemExit(f"{launcher}: ended before its checkpoint:\n{running.communicate()[0][-6000:]}")
        time.sleep(0.02)
    ids = [*children(running.pid), running.pid]
    for process in ids:
        os.kill(process, signal.SIGKILL)
    running.communicate()
    if len(ids) != 3:
        raise SystemExit(f"{launcher}: {len(ids)} processes were started; expected a launcher and two workers.")


def finished(folder: Path, launcher: str, out: str) -> float:
    """The seconds that a run takes to its end."""
    begun = time.monotonic()
    running = started(folder, launcher, out)
    said = running.communicate()[0]
    if running.returncode:
        raise SystemExit(f"{launcher}: exit code {running.returncode}:\n{said[-6000:]}")
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--launchers", nargs="+", choices=[*LAUNCHERS], default=[*LAUNCHERS])
    import align_cases as cases  # pyright: ignore[reportMissingImports]

    figures = {}
    for launcher in parser.parse_args().launchers:
        with TemporaryDirectory() as name:
            folder = Path(name)
            cases.prepare(folder, "killed", "whole", more=FSDP2 if launcher == "fsdp2" else "")
            killed(folder, launcher)
            about = {"seconds": round(finished(folder, launcher, "whole"), 1)}
            finished(folder, launcher, "killed")
            for result in RESULTS:
                about[result] = (folder / "whole" / result).read_bytes() == (folder / "killed" / result).read_bytes()
            figures[launcher] = about
        print(json.dumps({launcher: about}))
    if not all(about[result] for about in figures.values() for result in RESULTS):
        raise SystemExit("a resumed run differs from the whole one.")


if __name__ == "__main__":
    main()
