"""What the tests of `polypref align` run on: eight simulated people of two groups, their scorers, a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract_cases import Words
from judge_cases import save_judge
from polypref.cli import main
from polypref.comparisons import Comparisons
from polypref.learners import LEARNERS
from polypref.worlds import simulate

RUN = {
    "per_device_train_batch_size": 8,
    "max_completion_length": 6,
    "max_steps": 4,
    "save_steps": 2,
    "learning_rate": 1e-3,
}

PROCESSES = """
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
per_device_train_batch_size = 4
max_completion_length = 6
max_steps = 4
save_steps = 2
learning_rate = 1e-3
"""  # a configuration, for several processes


def people() -> Comparisons:
    """Eight people, thirty judgements each."""
    return simulate("two-tastes", users=8, judgements=30).comparisons


def groups(comparisons: Comparisons) -> dict[str, str]:
    """Everybody's group but u7's."""
    return {user: "odd" if int(user[1:]) % 2 else "even" for user in comparisons.users.ids if user != "u7"}


def fitted(comparisons: Comparisons) -> dict[str, Any]:
    """The scorer that is climbed, and a judge."""
    chosen = {"reward": "individual", "judge": "pooled"}
    return {name: LEARNERS[learner].fit(comparisons, encoder=Words(), seed=0) for name, learner in chosen.items()}


def tiny(folder: Path, **how: Any) -> str:
    """A folder with a Llama of two layers from random weights, without a chat template unless ``how`` says so."""
    return str(save_judge(folder, **{"template": None, "pad": "<pad>", "side": "left", **how}))


def prepare(folder: Path, *outs: str, more: str = "") -> None:
    """Write people, a model, a scorer and the configuration of each run in ``outs`` to ``folder``."""
    simulate("two-tastes", users=8, judgements=20).table().write_ndjson(folder / "people.jsonl")
    tiny(folder / "model")
    assert main(["fit", str(folder / "people.jsonl"), "--encoder", "static", "--out", str(folder / "scorer")]) == 0
    for out in outs:
        (folder / f"{out}.toml").write_text(PROCESSES.format(out=out) + more)
