"""What an alignment changed: answers before and after, gains per group with intervals, and the curves.

Before and after training, the model answers the same questions with the same random numbers. The gain is in units of
the group's spread of rewards before: by the scorer used in training and, if given, by a judge that was not used.
Intervals are over users and ignore that users share prompts and one policy. What of the
scorer's gain the judge does not see is exploitation of the scorer's weaknesses (Gao et al. 2023, arXiv 2210.10760), or
lost to the judge's own errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import polars as pl

from polypref.align import processes
from polypref.align.language_model import LanguageModel
from polypref.align.questions import names
from polypref.align.rewards import ScorerReward
from polypref.learners.protocol import Scorer
from polypref.policy.distinct import COMPLETIONS, WORDS
from polypref.policy.history import Floats
from polypref.stats.cluster_robust import mean_with_half

AT_ONCE = 64  # completions generated together
ROUNDING = 1e-12


def answers(policy: Any, asked: LanguageModel, rows: pl.DataFrame, generation_config: Any, seed: int) -> list[str]:
    """One completion of ``policy`` for each row, drawn as in training; equal random numbers in every call.

    The batches are spread over the processes, and each has random numbers of its own, so that the number of processes
    changes nothing.
    """
    import torch

    token_ids = asked.tokens(rows["prompt"].to_list())
    starts = range(0, len(rows), AT_ONCE)
    policy.eval()
    own: list[tuple[int, list[str]]] = []
    with torch.random.fork_rng(), torch.inference_mode():
        for number, at in list(enumerate(starts))[processes.rank() :: processes.count()]:
            torch.manual_seed(seed + number * 1_000_003)
            batch = asked.tokenizer.pad({"input_ids": token_ids[at : at + AT_ONCE]}, return_tensors="pt")
            batch = {name: batch[name].to(policy.device) for name in ("input_ids", "attention_mask")}
            ids = cast(Any, policy).generate(**batch, generation_config=generation_config)
            texts = asked.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            own.append((at, texts))
    found = sorted(one for part in processes.gathered(own) for one in part)
    return [text for _, texts in found for text in texts]


def measured(
    judged: pl.DataFrame, texts: Mapping[str, Sequence[str]], scorers: Mapping[str, Scorer]
) -> dict[str, dict[str, Any]]:
    """Per group and scorer: mean and spread before training, and the gain in spreads with a 95 % interval."""
    columns = {"asked": judged["asked"].to_list(), "user_id": judged["user_id"].to_list()}
    prompts = judged["prompt"].to_list()
    found: dict[str, dict[str, Any]] = {}
    for name, scorer in scorers.items():
        reward = ScorerReward(scorer, prompt_column="asked")
        before_Q, after_Q = (
            np.array(reward(prompts=prompts, completions=texts[when], **columns)) for when in ("before", "after")
        )
        for group in names(judged):
            own_Q = (judged["group"] == group).to_numpy()
            users = judged.filter(own_Q)["user_id"]
            about = found.setdefault(group, {"users": users.n_unique(), "samples": len(users)})
            about[name] = _gain(before_Q[own_Q], after_Q[own_Q], users)
    return found


def _gain(before_Q: Floats, after_Q: Floats, users: pl.Series) -> dict[str, float | None]:
    """The gain in spreads before training; None if all those rewards were equal; bounds None for one user."""
    mean, spread = float(before_Q.mean()), float(before_Q.std(ddof=1))
    if spread <= ROUNDING * abs(mean):
        return {"mean": mean, "spread": 0.0, "gain": None, "lo": None, "hi": None}
    table = pl.DataFrame({"user": users, "gain": (after_Q - before_Q) / spread})
    gain_U = table.group_by("user", maintain_order=True).agg(pl.col("gain").mean())["gain"].to_numpy()
    if len(gain_U) < 2:
        return {"mean": mean, "spread": spread, "gain": float(gain_U[0]), "lo": None, "hi": None}
    gain, half = mean_with_half(gain_U)
    return {"mean": mean, "spread": spread, "gain": gain, "lo": gain - half, "hi": gain + half}


def examples(shown: pl.DataFrame, before: Sequence[str], after: Sequence[str]) -> list[dict[str, str]]:
    """The answers that the report shows: each prompt for every group."""
    return shown.select("group", "asked").with_columns(before=pl.Series(before), after=pl.Series(after)).to_dicts()


def weighed(groups: dict[str, dict[str, Any]], log: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Adds ``weight``, the last logged weight of a rollout of each group; None: never logged."""
    last: dict[str, float] = {}
    for one in log:
        last |= one
    return {name: {**about, "weight": last.get(f"pgrpo/{name}/weight")} for name, about in groups.items()}


def curve(log: list[dict[str, float]], groups: list[str]) -> list[dict[str, Any]]:
    """At each logged step: mean reward of each group's completions, how much they differ, and KL where computed."""
    return [
        {
            "step": one["step"],
            "reward": {name: one.get(f"pgrpo/{name}/reward") for name in groups},
            "distinct_words": one.get(WORDS),
            "distinct_completions": one.get(COMPLETIONS),
            "kl": one.get("kl"),
        }
        for one in log
        if "reward" in one
    ]
