"""Methods compared on a real language model, SmolLM2-135M-Instruct, with rewards that are functions of the text.

A run trains one LoRA by one method and seed: each step takes the next prompts of the seed's sequence (ten in a row hold
eight of the first group and two of the second), samples, rewards, and updates once. All methods of a seed see one
sequence of prompts, begin with the same LoRA and use the same random numbers. Rewards are in units of their group's
spread before training, times the group's scale. The KL weight is relative to advantages of size 1; Dr. GRPO, which
does not scale its advantages, gets it times their expected size. A run stops when one word makes up half of a batch.

Suffixes here: ``_T`` tokens of a completion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from polypref.features.transformer import quiet
from polypref.policy.history import Floats, Ints
from polypref.studies.policy import methods
from polypref.studies.policy.bandit import Step
from polypref.studies.policy.lean import ALPHA, RANK, Engine, Factors, Trunk, fresh_lora, parameters
from polypref.studies.policy.styles import REWARDS, SCALES, SHARES, TASKS, Task, words

Labels = Literal["true", "shuffled"]

UPPER, MOST_TOKENS = 10, 16
KL, CLIP = 0.05, 1.0
HELD_OUT_EACH, CALIBRATED_EACH = 5, 2  # completions of each held-out prompt; of each training prompt, for the spreads
COLLAPSED = 0.5  # share of one word among a batch's words
BLOCK = 10  # prompts in which the groups have exactly their shares
FIGURES = 1  # raised with every change that moves a figure
KL_SIZE = {"Dr. GRPO": float(np.sqrt(np.dot(SHARES, np.square(SCALES))))}


@dataclass(frozen=True, order=True)
class Run:
    """One method on one seed: ``prompts`` a step, with ``generations`` completions each."""

    task: str
    method: str
    generations: int
    prompts: int
    group_weight: float
    labels: Labels
    rate: float
    steps: int
    seed: int

    def __str__(self) -> str:
        rest = f"{self.prompts} x {self.generations}, group weight {self.group_weight:g}, {self.labels} groups"
        return f"{self.task}: {self.method}, {rest}, rate {self.rate:g}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Model:
    """A language model that was loaded, with its tokenizer."""

    tokenizer: Any
    engine: Engine

    @classmethod
    def load(cls, folder: str, upper: int = UPPER) -> Model:
        """From a folder in Hugging Face's layout, in bfloat16."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        return cls(tokenizer, Engine(Trunk.of(model, upper, torch.bfloat16), end, MOST_TOKENS))

    def prompt(self, question: str) -> tuple[int, ...]:
        """Tokens of a chat's first turn, without a system message."""
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return tuple(self.tokenizer(text)["input_ids"])

    def texts(self, batch: Any) -> list[str]:
        """What was said."""
        rows = zip(batch.token_BT, batch.said_BT, strict=True)
        return [self.tokenizer.decode(token[said], skip_special_tokens=True) for token, said in rows]


def rewards(task: Task, texts: list[str], group_B: Ints) -> Floats:
    """Of texts, before units and scales."""
    return np.array([REWARDS[task.styles[g]](text) for text, g in zip(texts, group_B.tolist(), strict=True)])


def asked(task: Task, seed: int) -> Iterator[tuple[str, int]]:
    """The seed's endless sequence of topics and groups."""
    rng = np.random.default_rng([seed, 31])
    block = np.repeat([0, 1], np.round(np.multiply(SHARES, BLOCK)).astype(int))
    while True:
        for group in rng.permutation(block):
            yield task.topics[rng.integers(len(task.topics))], int(group)


def answers(model: Model, task: Task, topics: tuple[str, ...], each: int, seed: int, lora: Factors | None) -> Any:
    """``each`` completions of every topic for both groups by fixed random numbers: texts, topics' numbers, groups."""
    draw = np.random.default_rng([seed, 37])
    prompts = [model.prompt(task.question(topic, group)) for topic in topics for group in (0, 1)]
    of_B = np.repeat(np.arange(len(prompts)), each)
    batch = model.engine.sample(prompts, of_B, draw.random((len(of_B), MOST_TOKENS)), lora)
    return model.texts(batch), of_B // 2, of_B % 2


def spreads(model: Model, task: Task) -> Floats:
    """Spread of each group's rewards before training, on the topics of training."""
    texts, _, group_B = answers(model, task, task.topics, CALIBRATED_EACH, 0, None)
    reward_B = rewards(task, texts, group_B)
    return np.array([reward_B[group_B == g].std(ddof=1) for g in (0, 1)])


def repeated(texts: list[str]) -> tuple[float, float]:
    """Of a batch's words: the share that are different, and the share of the most frequent."""
    counts = Counter(word for text in texts for word in words(text))
    many = max(counts.total(), 1)
    return len(counts) / many, max(counts.values(), default=0) / many


def train(model: Model, run: Run, spread_G: Floats) -> tuple[dict[str, Any], Factors]:
    """The run's curve and texts, step by step, and the LoRA at its end."""
    import torch

    task, sequence = TASKS[run.task], asked(TASKS[run.task], run.seed)
    rng, labels = np.random.default_rng([run.seed, 41]), np.random.default_rng([run.seed, 43])
    method, lora = methods.method(run.method, run.group_weight), fresh_lora(model.engine.trunk, run.seed)
    optimizer = torch.optim.AdamW(parameters(lora), lr=run.rate, weight_decay=0.0)
    kl, steps, most = KL * KL_SIZE.get(run.method, 1.0), [], 0.0
    of_B = np.repeat(np.arange(run.prompts), run.generations)
    for _ in range(run.steps):
        questions = [next(sequence) for _ in range(run.prompts)]
        group_P = np.array([group for _, group in questions])
        label_P = group_P if run.labels == "true" else labels.permutation(group_P)
        prompts = [model.prompt(task.question(*one)) for one in questions]
        batch = model.engine.sample(prompts, of_B, rng.random((len(of_B), MOST_TOKENS)), lora)
        texts, group_B = model.texts(batch), group_P[of_B]
        reward_B = rewards(task, texts, group_B) / spread_G[group_B]
        shape = (1, run.prompts, run.generations)
        scaled = (np.array(SCALES)[group_B] * reward_B).reshape(shape)
        advantage_B = method(Step(group_P[None], label_P[None], np.zeros(shape, np.int64), scaled, 2)).ravel()
        loss, apart = model.engine.loss(batch, advantage_B, kl, lora)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters(lora), CLIP)
        optimizer.step()
        different, most = repeated(texts)
        means = [float(reward_B[group_B == g].mean()) if (group_B == g).any() else None for g in (0, 1)]
        steps.append({"reward": means, "kl": apart, "different": different, "texts": texts, "group": group_P.tolist()})
        if most > COLLAPSED:
            break
    return {"steps": steps, "collapsed": len(steps) < run.steps or most > COLLAPSED}, lora


def identity(model: str) -> dict[str, Any]:
    """All settings that a run does not name."""
    return {
        "figures": FIGURES,
        "model": model,
        "lora": [UPPER, RANK, ALPHA],
        "tokens": MOST_TOKENS,
        "kl": KL,
        "clip": CLIP,
        "shares": SHARES,
        "scales": SCALES,
        "held_out": HELD_OUT_EACH,
    }
