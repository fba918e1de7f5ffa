"""P-GRPO on two hosts, one of which dies: is the resumed run the uninterrupted one, bit for bit?

    python benchmarks/policy/two_hosts.py

Two network namespaces, joined by a virtual cable, stand for two hosts that share a disk; each runs one ``torchrun
--nnodes 2`` of the tests' tiny model (gloo, CPU), and they reach each other by the cable alone. Three runs of six
steps, saved every two: whole; one whose second host is killed (SIGKILL to all its processes) in its fourth step, with
the time until the first host gives up; and that one resumed on both hosts. With ``--cable`` the cable is cut as well
before the kill, so that no word of the death gets through and only the group's timeout (30 s here) ends the wait.

Needs Linux, iproute2's ``ip`` and the right to make namespaces. Not covered: NCCL, real networks, a shared disk that
fails, hosts of different hardware (whose sums need not be equal to the last bit).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).parents[2] / "tests"
STEPS, DIES_AFTER, SAVED, TIMEOUT = 6, 3, 2, 30
ADDRESS, PORT, CABLE = "10.203.77.{}", "29417", "cable"

sys.path.insert(0, str(TESTS))


def ip(*words: str) -> str:
    """Run iproute2's ``ip``; raises CalledProcessError."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces joined by a cable; at the end, their processes and they are gone."""
    if shutil.which("ip") is None:
        raise SystemExit("two hosts cannot be made: there is no command ip; install iproute2.")
    names = f"pgrpo-{os.getpid()}-0", f"pgrpo-{os.getpid()}-1"
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
            for host, name in enumerate(names):
                ip("-n", name, "address", "add", ADDRESS.format(host + 1) + "/24", "dev", CABLE)
                ip("-n", name, "link", "set", CABLE, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            told = error.stderr.strip().splitlines()
            raise SystemExit(f"two hosts cannot be made here: {told[-1] if told else error}; run as root.") from None
        yield names
    finally:
        for name in names:
            kill_host(name)
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def kill_host(name: str) -> None:
    """SIGKILL to every process in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
    for pid in found.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


def start(hosts: tuple[str, str], model: Path, out: Path, *more: str) -> list[subprocess.Popen[bytes]]:
    """One torchrun on each host."""
    out.mkdir(parents=True, exist_ok=True)
    running = []
    for host, name in enumerate(hosts):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        launch += [f"--node-rank={host}", f"--master-addr={ADDRESS.format(1)}", f"--master-port={PORT}"]
        told = {"GLOO_SOCKET_IFNAME": CABLE, "OMP_NUM_THREADS": "1"}
        with (out / f"host-{host}.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *launch, __file__, "--train", str(model), str(out), *more],
                    env={**os.environ, **told},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return running


def train(model: Path, out: Path, resume: str, wait: bool) -> None:
    """What each process does; ``wait``: after ``DIES_AFTER`` steps the second host says so and waits to be killed."""
    import torch
    from transformers import TrainerCallback

    import policy_cases as cases
    from polypref.policy.history_file import digest

    # with several processes transformers loads the optimizer to device "cpu:0", a name unknown to torch.load
    torch.serialization.register_package(
        0, lambda _: None, lambda storage, name: storage if name.startswith("cpu:") else None
    )
    # transformers passes its ddp_timeout on where there are accelerators; on CPUs the group is made here
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))
    args = cases.config(out, per_device_train_batch_size=4, max_steps=STEPS, save_steps=SAVED, logging_steps=STEPS)
    run = cases.trainer(model, args)
    rank = run.accelerator.process_index

    class Waits(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if wait and rank == 1 and state.global_step == DIES_AFTER:
                (out / "waits").touch()
                time.sleep(600)

    run.add_callback(Waits())
    run.train(resume_from_checkpoint=resume or None)
    told = {"steps": run.state.global_step, "histories": digest(run.histories), "weights": cases.weights(run)}
    (out / f"rank-{rank}.json").write_text(json.dumps(told))
    run.accelerator.end_training()  # or gloo's threads may abort the process while Python ends


def finished(running: list[subprocess.Popen[bytes]], out: Path) -> list[dict[str, Any]]:
    """What both hosts came to; raises SystemExit with the end of the log of one that failed."""
    for host, process in enumerate(running):
        if process.wait(timeout=300):
            raise SystemExit(f"host {host} failed:\n{(out / f'host-{host}.log').read_text()[-2000:]}")
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def killed(hosts: tuple[str, str], model: Path, out: Path, cable: bool) -> tuple[float, int]:
    """Run until the second host waits, kill it; seconds until the first gives up, and its exit status."""
    first, second = start(hosts, model, out, "--wait")
    while not (out / "waits").exists():
        if first.poll() is not None or second.poll() is not None:
            raise SystemExit(f"a host ended before the kill:\n{(out / 'host-1.log').read_text()[-2000:]}")
        time.sleep(0.05)
    if cable:
        ip("-n", hosts[1], "link", "set", CABLE, "down")
    since = time.monotonic()
    kill_host(hosts[1])
    second.wait(timeout=10)
    status = first.wait(timeout=300)
    if cable:
        ip("-n", hosts[1], "link", "set", CABLE, "up")
    return time.monotonic() - since, status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cable", action="store_true", help="cut the cable before the kill")
    parser.add_argument("--train", nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--resume", default="", help=argparse.SUPPRESS)
    parser.add_argument("--wait", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.train:
        train(Path(told.train[0]), Path(told.train[1]), told.resume, told.wait)
        return
    from judge_cases import save_judge

    with TemporaryDirectory() as folder, two_hosts() as hosts:
        out = Path(folder)
        model = save_judge(out / "model", template=None, pad="<pad>", side="left")
        whole = finished(start(hosts, model, out / "whole"), out / "whole")
        print(f"whole: {whole[0]['steps']} steps, hosts equal: {whole[0] == whole[1]}", flush=True)
        seconds, status = killed(hosts, model, out / "killed", told.cable)
        how = "cable cut, then killed" if told.cable else "killed"
        print(f"second host {how} after step {DIES_AFTER}: the first ends after {seconds:.1f} s, status {status}")
        checkpoint = out / "killed" / f"checkpoint-{SAVED}"
        again = finished(start(hosts, model, out / "killed", "--resume", str(checkpoint)), out / "killed")
        equal = {name: again[0][name] == again[1][name] == whole[0][name] for name in ("histories", "weights")}
        print(f"resumed from step {SAVED} on both hosts: equal to the whole run bit for bit: {equal}")
    if whole[0] != whole[1] or not status or not all(equal.values()):
        raise SystemExit("the resumed run is not the whole one, or the first host ended as if nothing had been.")


if __name__ == "__main__":
    main()
