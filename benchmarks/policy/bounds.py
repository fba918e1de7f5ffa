"""Does a bound hold in training where a penalty does not? docs/pgrpo.md gives the figures.

    python benchmarks/policy/bounds.py

*Erasure*: advantages of unsafe answers under the paper's formula with a penalty of 3 in the reward, while the group's
history goes from clean to 95 % unsafe; ``liked`` is how much more the group thinks of them than of its earlier ones.
*Bandit*: ``policy.bandit``'s, two groups (80 and 20 %), where two of eight actions are unsafe in every context and the
second group's reward is ``liking`` higher for them. Advantages are computed from the same steps in several ways;
"aggregated" learns from the population's mean reward, the others from personal ones. Figures: exact chance of an unsafe
action for each group, in percent, over the second half of training; its difference to aggregated GRPO seed by seed;
reward among safe actions at the end, 0 for uniform choice and 100 for the best safe one; and how many of the unsafe
completions that were drawn had an advantage above 0. 95 % t intervals over 16 paired seeds. One learning rate for all,
and, where the liking is strongest, half and twice of it.

*Retain set*: safety pairs of ../shared/data/ability_suite.parquet, cut in three (one more user's judgements, all told
the wrong way round; anchors; held out), beside the 20 users of llmfao with 100 judgements or more; ``individual`` on
static features, without and with anchors, and with as many anchors of other sections. Accuracy on held-out safety
pairs, and what it is more than without anchors, over eight ways to cut: 95 % t intervals, of the cutting alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl

from polypref.bounds.retain import Retain, with_anchors
from polypref.comparisons import Comparisons, from_columns
from polypref.features import encoder
from polypref.learners.individual import Individual
from polypref.learners.protocol import Scorer, margins
from polypref.policy.advantages import PAPER, Normalization, Normalizer
from polypref.policy.bounded import Bound, Guard, bounded_advantages, judged
from polypref.policy.history import Floats
from polypref.stats.cluster_robust import mean_with_half
from polypref.studies.policy import methods
from polypref.studies.policy.bandit import ACTIONS, CONTEXT, Method, Run, Setting, Step, World, train

PENALTY = 3.0
UNSAFE_K = np.arange(ACTIONS) < 2
SEEDS, STEPS, RATE = np.arange(16), 300, 0.04
SHARES = (0.8, 0.2)
WORLDS = {  # the second group's liking for what is unsafe, in its own scale, and that scale
    "no liking": (0.0, 1.0),
    "liking 2, below the penalty": (2.0, 1.0),
    "liking 4, above the penalty": (4.0, 1.0),
    "liking 2 on a scale of 5": (2.0, 5.0),
}
SHRUNKEN = Normalization(group_weight=0.0)


def erasure() -> None:
    """Mean advantage of unsafe answers, and the share of them that is reinforced, by the share of unsafe history."""
    rng = np.random.default_rng(0)
    many, prompt_B = 20_000, np.arange(20_000) // 8
    print("penalty in the reward: mean advantage of unsafe answers (share above 0)")
    for liked in (0.0, 0.5):
        told = []
        for share in (0.0, 0.5, 0.8, 0.95):
            unsafe_B, reward_B = rng.random(many) < share, rng.standard_normal(many)
            new_B, keys = rng.standard_normal(800) + liked, [["g"] * many]
            inside = Normalizer(PAPER)
            inside(reward_B - PENALTY * unsafe_B, prompt_B, keys)
            value_B = inside(new_B - PENALTY, np.arange(800) // 8, [["g"] * 800], learn=False).value_B
            outside, guard = Normalizer(PAPER), Guard(Bound(0.5))
            bounded_advantages(outside, guard, reward_B, 1.0 - unsafe_B, prompt_B, keys)
            bound = bounded_advantages(outside, guard, new_B, np.zeros(800), np.arange(800) // 8, [["g"] * 800])
            told.append(f"{share:.0%}: {value_B.mean():+.2f} ({(value_B > 0).mean():.0%})")
            assert bound.value_B.max() < 0, "bounded: none above 0"
        print(f"  liked {liked:+.1f} more than before; history unsafe " + ", ".join(told))


@dataclass(frozen=True, eq=False)
class Watched(World):
    """A world that looks at safety, and at the rewards of ``true_SGKD``, whatever the policy learns from."""

    true_SGKD: Floats

    def normalised(self, chance_SGXK: Floats) -> Floats:
        """Chance of unsafe actions, and normalised reward among safe ones, (S, G, 2)."""
        value_SGXK = np.einsum("spkd,sxd->spxk", self.true_SGKD, self.x_SXD)[..., ~UNSAFE_K] / CONTEXT**0.5
        safe_SGXK = chance_SGXK[..., ~UNSAFE_K]
        reached_SGX = (safe_SGXK * value_SGXK).sum(3) / np.maximum(safe_SGXK.sum(3), 1e-300)
        worst_SG, best_SG = value_SGXK.mean((2, 3)), value_SGXK.max(3).mean(2)
        reward_SG = (reached_SGX.mean(2) - worst_SG) / (best_SG - worst_SG)
        return np.stack([chance_SGXK[..., UNSAFE_K].sum(3).mean(2), reward_SG], axis=2)


@dataclass(eq=False)
class Told:
    """What a way of computing advantages is told: personal rewards with the liking, and safety apart.

    ``penalty`` inside the reward; ``reinforced`` counts unsafe completions with an advantage above 0.
    """

    way: Callable[[Step, Floats], Floats]
    liking_G: Floats
    penalty: float
    reinforced: int = 0
    unsafe: int = 0

    def __call__(self, one: Step) -> Floats:
        unsafe_SPJ = UNSAFE_K[one.action_SPJ]
        bonus_SPJ = self.liking_G[one.group_SP][..., None] * unsafe_SPJ
        reward_SPJ = one.reward_SPJ + bonus_SPJ - self.penalty * unsafe_SPJ
        value_SPJ = self.way(replace(one, reward_SPJ=reward_SPJ), 1.0 - unsafe_SPJ)
        self.reinforced += int((value_SPJ[unsafe_SPJ] > 0).sum())
        self.unsafe += int(unsafe_SPJ.sum())
        return value_SPJ


def plain(method: Method) -> Callable[[Step, Floats], Floats]:
    """A way that is not told of safety."""
    return lambda one, _: method(one)


@dataclass(eq=False)
class Outside:
    """Safety outside normalisation: bounded, or with unsafe completions dropped from the gradient."""

    how: Normalization
    bound: Bound
    dropped: bool = False
    groups: bool = True

    def __post_init__(self) -> None:
        self.normalizer = Normalizer(self.how, ("group",) if self.groups else ())
        self.guard = Guard(self.bound)

    def __call__(self, one: Step, score_SPJ: Floats) -> Floats:
        seeds, prompts, size = one.reward_SPJ.shape
        key_SP = one.label_SP + 1_000_000 * np.arange(seeds)[:, None]
        key_LB = [key_SP.ravel().repeat(size).tolist()] if self.groups else []
        prompt_B = np.arange(seeds * prompts).repeat(size)
        if self.dropped:
            safe_B, _ = judged(score_SPJ.ravel(), 0.5)
            value_B = self.normalizer(np.where(safe_B, one.reward_SPJ.ravel(), np.nan), prompt_B, key_LB).value_B
            return value_B.reshape(one.reward_SPJ.shape)
        told = one.reward_SPJ.ravel(), score_SPJ.ravel(), prompt_B, key_LB
        return bounded_advantages(self.normalizer, self.guard, *told).value_B.reshape(one.reward_SPJ.shape)


@dataclass(eq=False)
class Decoupled:
    """GDPO in groups: reward and penalty have a history each, and their advantages are added."""

    def __post_init__(self) -> None:
        self.reward, self.safety = methods.PGRPO(SHRUNKEN), methods.PGRPO(SHRUNKEN)

    def __call__(self, one: Step, score_SPJ: Floats) -> Floats:
        return self.reward(one) + self.safety(replace(one, reward_SPJ=PENALTY * score_SPJ))


GRPO = Normalization(baseline="prompt", min_count=10**12)
BOUND = Bound(0.5)
INSIDE, OUTSIDE = PENALTY, 0.0
AGGREGATED = "GRPO aggregated, penalty inside"
WAYS: dict[str, tuple[Callable[[], Callable[[Step, Floats], Floats]], float]] = {
    AGGREGATED: (lambda: plain(methods.grpo), INSIDE),
    "GRPO, penalty inside": (lambda: plain(methods.grpo), INSIDE),
    "P-GRPO paper, penalty inside": (lambda: plain(methods.PGRPO(PAPER)), INSIDE),
    "P-GRPO shrunken, penalty inside": (lambda: plain(methods.PGRPO(SHRUNKEN)), INSIDE),
    "P-GRPO, a history for each": (Decoupled, OUTSIDE),
    "P-GRPO shrunken, unsafe dropped": (lambda: Outside(SHRUNKEN, BOUND, dropped=True), OUTSIDE),
    "bounded GRPO": (lambda: Outside(GRPO, BOUND, groups=False), OUTSIDE),
    "bounded P-GRPO paper": (lambda: Outside(PAPER, BOUND), OUTSIDE),
    "bounded P-GRPO shrunken": (lambda: Outside(SHRUNKEN, BOUND), OUTSIDE),
    "bounded P-GRPO shrunken, weight 1": (lambda: Outside(replace(SHRUNKEN, group_weight=1.0), BOUND), OUTSIDE),
    "bounded P-GRPO shrunken, rate 1 %": (lambda: Outside(SHRUNKEN, replace(BOUND, rate=0.01)), OUTSIDE),
}


def curves(world: str, way: str, rate: float, generations: int) -> tuple[Floats, Told]:
    """Chance of unsafe actions and reward among safe ones, by group, over time, (S, T, P, 2); and what was counted."""
    liking, scale = WORLDS[world]
    drawn, scales = World.draw(Setting(SHARES), SEEDS), np.array([1.0, scale])
    learnt_SGKD, liking_G = drawn.theta_SGKD, np.array([0.0, liking]) * scales
    make, penalty = WAYS[way]
    if way == AGGREGATED:
        mean_SKD = np.einsum("p,spkd->skd", np.array(SHARES) * scales, learnt_SGKD)
        learnt_SGKD, liking_G = np.stack([mean_SKD, mean_SKD], axis=1), np.full(2, np.dot(SHARES, liking_G))
        scales = np.ones(2)
    setting = Setting(SHARES, tuple(scales.tolist()))
    rest = drawn.group_SU, drawn.x_SXD, drawn.worst_SG, drawn.best_SG
    told = Told(make(), liking_G, penalty)
    watched = Watched(setting, learnt_SGKD, *rest, drawn.theta_SGKD)
    return train(watched, SEEDS, told, Run(rate, generations, steps=STEPS)), told


def percent(value_S: Floats, sign: str = "") -> str:
    """Mean with a 95 % t interval over seeds, in percent."""
    mean, half = mean_with_half(100 * value_S)
    return f"{mean:{sign}.2f} ({mean - half:{sign}.2f} to {mean + half:{sign}.2f})"


def bandit(world: str, rate: float, generations: int) -> None:
    """One table: every way in one world."""
    print(f"\n{world}; {generations} completions a prompt, rate {rate}")
    reference_SG = None
    for way in WAYS:
        curve_STG2, told = curves(world, way, rate, generations)
        unsafe_SG = curve_STG2[:, curve_STG2.shape[1] // 2 :, :, 0].mean(axis=1)
        reference_SG = unsafe_SG if reference_SG is None else reference_SG
        cells = [percent(unsafe_SG[:, group]) for group in (0, 1)]
        cells += [percent(unsafe_SG[:, group] - reference_SG[:, group], "+") for group in (0, 1)]
        cells += [percent(curve_STG2[:, -1, group, 1]) for group in (0, 1)]
        print("| " + " | ".join([way, *cells, f"{told.reinforced} of {told.unsafe}"]) + " |", flush=True)


def told_by(user: str, rows: pl.DataFrame) -> Comparisons:
    """The pairs, judged by one user."""
    return from_columns([user] * len(rows), rows["prompt"], rows["chosen"], rows["rejected"])


def safe_share(scorer: Scorer, held_out: pl.DataFrame, users: list[str]) -> float:
    """Accuracy on the pairs, mean over users; a tie counts one half."""
    value = np.concatenate([margins(scorer, told_by(user, held_out)).value_Q for user in users])
    return float(np.mean((value > 0) + 0.5 * (value == 0)))


def retain(cut: int, suite: pl.DataFrame, people: pl.DataFrame, users: list[str]) -> dict[str, tuple[float, float]]:
    """Accuracy on held-out safety pairs of the opposed user, and of the others, by what anchors there are."""
    rng = np.random.default_rng(cut)
    safety, other = (suite.filter(pl.col("section").eq("safety") == of) for of in (True, False))
    safety, other = (rows[rng.permutation(len(rows))] for rows in (safety, other))
    third = len(safety) // 3
    opposed, anchors, held_out = safety[:third], safety[third : 2 * third], safety[2 * third :]
    opposed = opposed.rename({"chosen": "rejected", "rejected": "chosen"}).with_columns(user_id=pl.lit("opposed"))
    columns = ["user_id", "prompt", "chosen", "rejected"]
    rows = pl.concat([opposed.select(columns), people.select(columns)])
    train = from_columns(rows["user_id"], rows["prompt"], rows["chosen"], rows["rejected"])
    none = train.take(np.arange(0))
    arms = {"no anchors": (train, none)}
    for mu in (0.3, 1.0, 3.0):
        for name, those in (("safety anchors", anchors), ("control", other[:third])):
            found = with_anchors(train, none, told_by("anyone", those), Retain(mu))
            arms[f"{name}, mu {mu:g}"] = found.train, found.valid
    fits = {
        name: Individual().fit(rows, encoder=encoder("static"), seed=0, valid=valid)
        for name, (rows, valid) in arms.items()
    }
    return {
        name: (safe_share(fit, held_out, ["opposed"]), safe_share(fit, held_out, users)) for name, fit in fits.items()
    }


def retained() -> None:
    """The table of the retain set."""
    data = Path(__file__).parents[3] / "shared" / "data"
    if not data.is_dir():
        print(f"\nretain set: skipped, {data} is not here")
        return
    people = pl.read_parquet(data / "llmfao.parquet").filter(pl.col("chosen").ne("") & pl.col("rejected").ne(""))
    people = people.filter(pl.len().over("user_id") >= 100)
    users = people["user_id"].unique().sort().to_list()
    cuts = [retain(cut, pl.read_parquet(data / "ability_suite.parquet"), people, users) for cut in range(8)]
    print(
        f"\nretain set, {len(users)} users beside the opposed one: accuracy on held-out safety pairs less that without"
    )
    for name in cuts[0]:
        found_SG = np.array([cut[name] for cut in cuts])
        gain_SG = found_SG - np.array([cut["no anchors"] for cut in cuts])
        cells = [percent(found_SG[:, 0]), percent(found_SG[:, 1])]
        cells += [percent(gain_SG[:, 0], "+"), percent(gain_SG[:, 1], "+")] if gain_SG.any() else ["", ""]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


def main() -> None:
    erasure()
    retained()
    print("\nunsafe in percent, group 1 | group 2 | less aggregated's | same | reward among safe | same | reinforced")
    for world in WORLDS:
        bandit(world, RATE, 8)
    strongest = "liking 4, above the penalty"
    bandit(strongest, RATE, 2)
    for rate in (RATE / 2, 2 * RATE):
        bandit(strongest, rate, 8)


if __name__ == "__main__":
    main()
