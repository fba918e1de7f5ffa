"""MiniLM tuned with LoRA beside the learners on frozen MiniLM features, in one simulated world, on one CPU core.

    python benchmarks/finetune.py [--comparisons 2000] [--steps 60] [--methods pooled personalized]

The world is psoups-like: six people in three couples that want opposite things, so one reward for everybody is right
about half of the time. All learners see the same training rows and are tested on the same pairs, which nobody judged in
training. Both sides read the first ``--tokens`` word pieces of the response and nothing else. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from polypref import finetune
from polypref.data.split import split
from polypref.features.minilm import MiniLM
from polypref.finetune import Recipe
from polypref.learners import LEARNERS
from polypref.learners.protocol import margins
from polypref.worlds import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--methods", nargs="+", default=["pooled", "personalized"])
    parser.add_argument("--frozen", nargs="+", default=["pooled", "individual", "personalized", "hierarchical"])
    arguments = parser.parse_args()
    world = simulate("psoups-like", judgements=arguments.comparisons // 6)
    rows = world.comparisons
    parts = split(rows, "pair", 0)
    train, valid, test = (rows.take(part) for part in (parts.train_rows, parts.valid_rows, parts.test_rows))
    truth = world.reward_UR[test.user_N, test.chosen_N] > world.reward_UR[test.user_N, test.rejected_N]
    recipe = Recipe(
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        looks=2,
        text="response",
        max_length=arguments.tokens + 10,  # room for ten soft tokens
        micro_batch=arguments.batch,
    )
    learners = {f"{name}, frozen": LEARNERS[name] for name in arguments.frozen}
    tuned = {name: finetune.LEARNERS[name] for name in (f"finetune:{method}" for method in arguments.methods)}
    learners |= {name: replace(learner, recipe=recipe) for name, learner in tuned.items()}
    encoder = MiniLM(max_length=arguments.tokens)
    started = time.perf_counter()
    encoder.encode(rows.responses)
    encoding = time.perf_counter() - started
    print(
        f"{len(rows):,} judgements by {len(rows.users)} people: {len(train):,} train, {len(valid):,} validation, "
        f"{len(test):,} test. LoRA: rank {recipe.rank}, rate {recipe.rate:g}, {recipe.steps} steps of {recipe.batch}; "
        f"{arguments.tokens} tokens. Knowing everybody's true reward: {truth.mean():.3f}. Encoding: {encoding:.0f} s.\n"
    )
    print("| learner | accuracy on test | fit, s | score, s | trained numbers |\n|---|---|---|---|---|")
    for name, learner in learners.items():
        start, cpu = time.perf_counter(), time.process_time()
        scorer = learner.fit(train, encoder=encoder, seed=0, valid=valid)
        fitted, fitted_cpu = time.perf_counter() - start, time.process_time() - cpu
        start = time.perf_counter()
        right = float((np.sign(margins(scorer, test).value_Q) * 0.5 + 0.5).mean())
        scored = time.perf_counter() - start
        numbers = sum(array.size for array in scorer.state()[1].values())
        print(
            f"| {name} | {right:.3f} | {fitted:.0f} ({fitted_cpu:.0f} of one core) | {scored:.1f} | {numbers:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
