"""Advantages on a tiny language model, through TRL's own trainer, with tastes that are known exactly.

A prompt names a preference group and two of six topics; a completion is four of eight words. Group p's reward is

    r = mean_p + scale_p (mean over words of the sum over topics of taste_p[topic, word before, word]
                          + difficulty z + noise)

with tastes drawn from N(0, 1/2), so the values of random words and of the best completion are known. The model is a
Llama of two layers, trained from random weights by ``GRPOTrainer`` or ``PGRPOTrainer``, 128 completions a step; a
method is judged by the noise-free reward of the completions that it samples while it learns. Every method gets the same
entropy bonus: without one, policies settled on one answer for a whole group before they had tried others, and the
result of a seed was mostly luck.

Settings and their names are the bandits' (``policy.bandit``). Not covered: the effects of pretraining.

Suffixes here: ``_A`` topics of a prompt, ``_C`` topics, ``_L`` words of a completion, ``_T`` blocks of steps, ``_V``
words.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np

from polypref.files import temporary
from polypref.policy.history import Floats, Ints
from polypref.studies.policy.bandit import NOISE, SETTINGS, Labels, Setting
from polypref.studies.policy.measure import Arm

TOPICS, ASKED, WORDS, LENGTH = 6, 2, 8, 4
PROMPTS_PA = np.array(list(combinations(range(TOPICS), ASKED)))
COMPLETIONS, EVERY = 128, 10
ENTROPY = 0.1  # weight of the bonus, beside advantages of about 1
PAD, END = 0, 1

TRAINERS: dict[str, dict[str, Any]] = {
    "GRPO": {},
    "Dr. GRPO": {"scale_rewards": "none", "loss_type": "dr_grpo"},
    "batch": {"scale_rewards": "batch"},
    "P-GRPO paper": {"paper": True},
    "P-GRPO shrunken": {},
}
"""Settings of TRL's trainer, or of ours, that make each method without group weights."""


@dataclass(frozen=True, eq=False)
class Tastes:
    """``taste_GCVV``: reward by group, topic, word before and word; the first word comes after word 0."""

    setting: Setting
    taste_GCVV: Floats

    @classmethod
    def draw(cls, setting: Setting, seed: int) -> Tastes:
        """The world of a setting and a seed."""
        groups = len(setting.shares)
        taste_GCVV = np.random.default_rng([seed, 17]).standard_normal((groups, TOPICS, WORDS, WORDS))
        if setting.alike:
            taste_GCVV[:] = taste_GCVV[0]
        return cls(setting, taste_GCVV / ASKED**0.5)

    def utility(self, group_B: Ints, prompt_B: Ints, word_BL: Ints) -> Floats:
        """Of completions, in units of the group's scale."""
        before_BL = np.concatenate([np.zeros_like(word_BL[:, :1]), word_BL[:, :-1]], axis=1)
        topic_BA = PROMPTS_PA[prompt_B]
        of_topic_BAL = self.taste_GCVV[
            group_B[:, None, None], topic_BA[:, :, None], before_BL[:, None], word_BL[:, None]
        ]
        return of_topic_BAL.sum(1).mean(1)

    def bounds(self) -> tuple[Floats, Floats]:
        """Mean over prompts of the value of random words and of the best completion to each group (G,)."""
        taste_GPVV = self.taste_GCVV[:, PROMPTS_PA].sum(2)
        uniform_GP = (taste_GPVV[:, :, 0].mean(2) + (LENGTH - 1) * taste_GPVV.mean((2, 3))) / LENGTH
        ahead_GPV = np.zeros(taste_GPVV.shape[:3])
        for _ in range(LENGTH - 1):  # from the last word backwards
            ahead_GPV = (taste_GPVV + ahead_GPV[:, :, None]).max(3)
        best_GP = (taste_GPVV[:, :, 0] + ahead_GPV).max(2) / LENGTH
        return uniform_GP.mean(1), best_GP.mean(1)


def curves(arm: Arm, rate_S: Floats, seed_S: Ints, steps: int) -> Floats:
    """Normalised reward of each group over time, (S, T, G), each seed with its rate."""
    runs = zip(rate_S.tolist(), seed_S.tolist(), strict=True)
    return np.stack([curve(arm, rate, seed, steps) for rate, seed in runs])


def curve(arm: Arm, rate: float, seed: int, steps: int) -> Floats:
    """Normalised reward of each group in every ``EVERY`` steps, (T, G): 0 uniform, 1 the best."""
    setting = SETTINGS[arm.setting]
    tastes = Tastes.draw(setting, seed)
    reward = _Reward(tastes, seed, steps)
    with temporary() as folder:
        data = _prompts(setting, arm.labels, seed, steps * COMPLETIONS)
        run = {"learning_rate": rate, "seed": seed, "max_steps": steps, "output_dir": str(folder / "run")}
        _trainer(arm, reward, data, run).train()
    group_B, utility_B = (np.concatenate(part) for part in zip(*reward.seen, strict=True))
    block_B = np.arange(len(group_B)) // (EVERY * COMPLETIONS) * len(setting.shares) + group_B
    cells = len(group_B) // (EVERY * COMPLETIONS) * len(setting.shares)
    many = np.bincount(block_B, minlength=cells)
    reached = np.bincount(block_B, utility_B, cells) / np.maximum(many, 1)
    reached_TG = np.where(many > 0, reached, np.nan).reshape(-1, len(setting.shares))
    uniform_G, best_G = tastes.bounds()
    return (reached_TG - uniform_G) / (best_G - uniform_G)


class _Reward:
    """A reward function that records the noise-free reward of each completion."""

    __name__ = "taste"

    def __init__(self, tastes: Tastes, seed: int, steps: int) -> None:
        self.tastes, self.steps = tastes, steps
        self.seen: list[tuple[Ints, Floats]] = []
        self._rng = np.random.default_rng([seed, 19])

    def __call__(
        self, *, completion_ids: list[list[int]], row: list[int], truth: list[int], trainer_state: Any, **_: Any
    ) -> list[float]:
        """``row`` is the prompt's number, ``truth`` its group and topics as one number."""
        setting = self.tastes.setting
        group_B, asked_B = np.divmod(np.array(truth), len(PROMPTS_PA))
        word_BL = np.array(completion_ids) - _first_word(len(setting.shares))
        utility_B = self.tastes.utility(group_B, asked_B, word_BL)
        self.seen.append((group_B, utility_B))
        prompt_B = np.unique(np.array(row), return_inverse=True)[1]
        hard_B = self._rng.standard_normal(len(row))[prompt_B]
        reward_B = utility_B + setting.difficulty * hard_B + NOISE * self._rng.standard_normal(len(row))
        reward_B = np.array(setting.means)[group_B] + np.array(setting.scales)[group_B] * reward_B
        if trainer_state.global_step >= self.steps // 2:
            reward_B += setting.drift * (group_B == len(setting.shares) - 1)
        return reward_B.tolist()


def _first_word(groups: int) -> int:
    return END + 1 + groups + TOPICS


def _prompts(setting: Setting, labels: Labels, seed: int, many: int) -> Any:
    """Random prompts; ``group`` is the label that the method sees, which may differ from the prompt's words."""
    from datasets import Dataset

    rng = np.random.default_rng([seed, 23])
    share_G = np.array(setting.shares)
    group_N = rng.choice(len(share_G), many, p=share_G / share_G.sum())
    asked_N = rng.integers(0, len(PROMPTS_PA), many)
    label_N = group_N if labels == "true" else rng.permutation(group_N)
    return Dataset.from_dict(
        {
            "prompt": [
                f"g{p} " + " ".join(f"t{c}" for c in topics)
                for p, topics in zip(group_N.tolist(), PROMPTS_PA[asked_N].tolist(), strict=True)
            ],
            "group": label_N.tolist(),
            "truth": (group_N * len(PROMPTS_PA) + asked_N).tolist(),
            "row": list(range(many)),
        }
    )


def _tokenizer(groups: int) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *(f"g{p}" for p in range(groups)), *(f"t{c}" for c in range(TOPICS))]
    words += [f"w{v}" for v in range(WORDS)]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<pad>"))
    cast(Any, tokenizer).pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def _model(groups: int, seed: int) -> Any:
    """A model that chooses nearly uniformly among words.

    The model itself excludes all tokens that are not words: if only the sampler did, log-probabilities would not be
    those of the policy that samples, and a baseline would bias the gradient.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    first = _first_word(groups)
    size: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    }
    known: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=first + WORDS, **size, **known))
    unsaid = torch.cat([torch.full((first,), -1e4), torch.zeros(WORDS)])
    with torch.no_grad():
        model.lm_head.weight.mul_(0.1)
        model.lm_head.bias = torch.nn.Parameter(unsaid, requires_grad=False)
    return model


def _trainer(arm: Arm, reward: Any, data: Any, run: dict[str, Any]) -> Any:
    """TRL's trainer or ours, on one core."""
    import torch
    from datasets import disable_progress_bars
    from transformers import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from polypref.policy.trl import PGRPOConfig, PGRPOTrainer

    torch.set_num_threads(1)
    disable_progress_bars()
    groups = len(reward.tastes.setting.shares)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": COMPLETIONS,
        "num_generations": arm.generations,
        "max_completion_length": LENGTH,
        "entropy_coef": ENTROPY,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **run,
        **TRAINERS[arm.method],
    }
    config, trainer = GRPOConfig, GRPOTrainer
    if arm.method.startswith("P-GRPO") or arm.group_weight:
        config, trainer = PGRPOConfig, PGRPOTrainer
        settings["group_weight"] = arm.group_weight
    if arm.method == "GRPO" and arm.group_weight:
        settings["advantage_baseline"] = "grpo"
    run_of = trainer(
        model=_model(groups, run["seed"]),
        reward_funcs=reward,
        args=config(**settings),
        train_dataset=data,
        processing_class=_tokenizer(groups),
    )
    run_of.remove_callback(PrinterCallback)
    return run_of
