"""Contextual bandits whose expected rewards are known exactly: a comparison of advantage methods that takes seconds.

A *prompt* is a context x of a user, who belongs to a preference group; a *completion* is one of K actions, drawn from a
policy that sees x and the group: a network with one hidden layer, trained by Adam on A grad log pi(action), like GRPO's
first step on fresh completions. Group p's reward of action a is

    r = mean_p + scale_p (theta_pa . x / sqrt(D) + difficulty z + noise),      z: one number per prompt, unseen

or, where ``binary``, 1 with probability sigmoid(2 theta_pa . x / sqrt(D) - 2.5) and else 0. In the second half,
``drift`` is added to the last group's rewards. Many runs are computed at once as one array, each with its own world,
policy and histories: one for each seed, or, where learning rates are tried, one for each seed and rate. A run depends
only on its seed, its rate and the settings; runs of one seed at several rates share worlds and random numbers, and the
seed then occurs several times in ``_S``.

Suffixes here: ``_D`` numbers of a context, ``_E`` distinct seeds, ``_I`` inputs of the policy (context and group),
``_K`` actions, ``_X`` contexts on which policies are judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from polypref.policy.history import Floats, Ints

CONTEXT, ACTIONS, HIDDEN, USERS, NOISE = 6, 8, 24, 400, 0.5
LOOKED_AT = 512  # contexts on which expected rewards are computed, of all groups together; at least 16 each
BLOCK = 25  # steps whose random numbers are drawn together
Singles = NDArray[np.float32]  # of the policy: half the time of double precision

Labels = Literal["true", "shuffled", "random"]


@dataclass(frozen=True)
class Setting:
    """A population: groups' shares, scales and means of reward, and other difficulties."""

    shares: tuple[float, ...] = (0.8, 0.2)
    scales: tuple[float, ...] = (1.0, 1.0)
    means: tuple[float, ...] = (0.0, 0.0)
    difficulty: float = 0.0
    binary: bool = False
    drift: float = 0.0
    alike: bool = False
    """All groups have the same taste: the placebo."""

    @property
    def length(self) -> int:
        """Factor of a run's length by which the smallest group gets as many prompts as 5 % get elsewhere."""
        return max(1, round(0.05 / min(self.shares)))


SETTINGS: dict[str, Setting] = {
    "minority scale 0.1": Setting(scales=(1.0, 0.1)),
    "minority mean -3": Setting(means=(0.0, -3.0)),
    "95/5": Setting(shares=(0.95, 0.05), scales=(1.0, 0.3), means=(0.0, 1.0)),
    "prompt difficulty": Setting(difficulty=2.0),
    "sparse binary": Setting(binary=True),
    "5 groups": Setting((0.5, 0.2, 0.15, 0.1, 0.05), (1.0, 0.1, 5.0, 0.5, 2.0), (0.0, 2.0, -2.0, 1.0, 0.0)),
    "100 groups": Setting((0.01,) * 100, tuple(np.exp(np.linspace(-2.3, 2.3, 100)).tolist()), (0.0,) * 100),
    "drift": Setting(drift=4.0),
    "other tastes alone": Setting(),
    "identical groups": Setting(alike=True),
}


@dataclass(frozen=True, eq=False)
class World:
    """The worlds of S runs of one setting: tastes, users' groups, and the contexts on which policies are judged."""

    setting: Setting
    theta_SGKD: Floats
    group_SU: NDArray[np.int64]
    x_SXD: Floats
    worst_SG: Floats
    best_SG: Floats

    @classmethod
    def draw(cls, setting: Setting, seeds: Ints) -> World:
        """The worlds of these seeds; a world depends only on the setting and its seed."""
        seed_E, of_S = np.unique(seeds, return_inverse=True)
        drawn = [_draw(setting, np.random.default_rng([int(seed), 7])) for seed in seed_E]
        theta_SGKD, group_SU, x_SXD = (np.stack(part)[of_S] for part in zip(*drawn, strict=True))
        value_SGXK = _value(setting, np.einsum("spkd,sxd->spxk", theta_SGKD, x_SXD) / CONTEXT**0.5)
        return cls(setting, theta_SGKD, group_SU, x_SXD, value_SGXK.mean((2, 3)), value_SGXK.max(3).mean(2))

    @cached_property
    def value_SGXK(self) -> Floats:
        """Expected reward of each action, in units of the group's scale."""
        return _value(self.setting, np.einsum("spkd,sxd->spxk", self.theta_SGKD, self.x_SXD) / CONTEXT**0.5)

    def normalised(self, chance_SGXK: Singles) -> Floats:
        """Exact expected reward of a policy for each group, 0 for uniform choice and 1 for the best, (S, G)."""
        reached_SG = np.einsum("sgxk,sgxk->sg", chance_SGXK, self.value_SGXK) / chance_SGXK.shape[2]
        return (reached_SG - self.worst_SG) / (self.best_SG - self.worst_SG)


def _draw(setting: Setting, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64], Floats]:
    groups = len(setting.shares)
    theta_GKD = rng.standard_normal((groups, ACTIONS, CONTEXT))
    if setting.alike:
        theta_GKD[:] = theta_GKD[0]
    bounds_G = np.cumsum(setting.shares) / np.sum(setting.shares)
    group_U = np.searchsorted(bounds_G, (np.arange(USERS) + 0.5) / USERS).astype(np.int64)
    return theta_GKD, group_U, rng.standard_normal((max(LOOKED_AT // groups, 16), CONTEXT))


def _value(setting: Setting, utility: Floats) -> Floats:
    """Expected reward in units of the group's scale; without the part that all actions of a prompt share."""
    return 1 / (1 + np.exp(2.5 - 2 * utility)) if setting.binary else utility


@dataclass(frozen=True, eq=False)
class Step:
    """One step's prompts: users' groups, the group labels that the method sees, actions (S, P, J) and their rewards.

    ``groups``  how many there are in the setting.
    """

    group_SP: NDArray[np.int64]
    label_SP: NDArray[np.int64]
    action_SPJ: NDArray[np.int64]
    reward_SPJ: Floats
    groups: int


Method = Callable[[Step], Floats]
"""Advantages (S, P, J) of a step; holds its own state."""


@dataclass(eq=False)
class Policy:
    """S policies and their Adam: chances are softmax(tanh(x first + own of the group + bias) last + other).

    ``rate``  of learning: one for all, or one for each.
    """

    weights: list[Singles]
    rate: float | Floats

    def __post_init__(self) -> None:
        self._mean = [np.zeros_like(w) for w in self.weights]
        self._square = [np.zeros_like(w) for w in self.weights]
        self._steps = 0
        self._rate_S11 = np.reshape(self.rate, (-1, 1, 1)).astype(np.float32)

    @classmethod
    def draw(cls, seeds: Ints, groups: int, rate: float | Floats) -> Policy:
        """Policies that choose nearly uniformly."""
        seed_E, of_S = np.unique(seeds, return_inverse=True)
        rngs = [np.random.default_rng([int(seed), 11]) for seed in seed_E]
        inputs_EIW = np.stack([rng.standard_normal((CONTEXT + groups, HIDDEN)) / CONTEXT**0.5 for rng in rngs])
        last_EWK = np.stack([rng.standard_normal((HIDDEN, ACTIONS)) * 0.01 for rng in rngs])
        drawn = inputs_EIW[:, :CONTEXT], inputs_EIW[:, CONTEXT:], np.zeros((len(rngs), 1, HIDDEN)), last_EWK
        return cls([w[of_S].astype(np.float32) for w in (*drawn, np.zeros((len(rngs), 1, ACTIONS)))], rate)

    def __call__(self, x_SPD: Singles, group_SP: Ints) -> tuple[Singles, Singles]:
        """Chances of the actions (S, P, K), and the hidden units."""
        first, own, bias, last, other = self.weights
        hidden_SPW = x_SPD @ first
        hidden_SPW += _rows(own + bias, group_SP)
        np.tanh(hidden_SPW, out=hidden_SPW)
        return _softmax(cast(Singles, hidden_SPW @ last + other)), hidden_SPW

    def everywhere(self, x_SXD: Singles) -> Singles:
        """Chances of the actions for each group in each context, (S, G, X, K)."""
        first, own, bias, last, other = self.weights
        hidden_SGXW = np.tanh((x_SXD @ first)[:, None] + (own + bias)[:, :, None])
        return _softmax(hidden_SGXW @ last[:, None] + other[:, None])

    def learn(self, x_SPD: Singles, group_SP: Ints, hidden_SPW: Singles, pull_SPK: Singles) -> None:
        """One step of Adam uphill; ``pull_SPK`` is the sum over completions of advantage times (chosen - chance)."""
        back_SPW = (pull_SPK @ self.weights[3].transpose(0, 2, 1)) * (1 - hidden_SPW**2)
        mine_SPG = (group_SP[..., None] == np.arange(self.weights[1].shape[1])).astype(back_SPW.dtype)
        all_SP1 = np.ones((1, x_SPD.shape[1], 1), back_SPW.dtype)
        factors = (
            (x_SPD, back_SPW),
            (mine_SPG, back_SPW),
            (all_SP1, back_SPW),
            (hidden_SPW, pull_SPK),
            (all_SP1, pull_SPK),
        )
        slopes = [left.transpose(0, 2, 1) @ right / x_SPD.shape[1] for left, right in factors]
        self._steps += 1
        size_S11 = self._rate_S11 / np.float32(1 - 0.9**self._steps)
        shrink = np.float32(1 - 0.999**self._steps)
        for weight, mean, square, slope in zip(self.weights, self._mean, self._square, slopes, strict=True):
            mean += np.float32(0.1) * (slope - mean)
            square += np.float32(0.001) * (slope**2 - square)
            weight += size_S11 * mean / (np.sqrt(square / shrink) + np.float32(1e-8))


def _rows(table_SGX: NDArray[Any], group_SP: Ints) -> NDArray[Any]:
    """Row ``group_SP[s, p]`` of run s, (S, P, ...)."""
    runs, groups, *rest = table_SGX.shape
    return table_SGX.reshape(runs * groups, *rest).take(group_SP + groups * np.arange(runs)[:, None], axis=0)


# numpy's own reductions over a short last axis take 20 to 200 times as long as these


def _softmax(logit: Singles) -> Singles:
    largest = logit
    while (wide := largest.shape[-1]) > 1:
        largest = np.maximum(largest[..., : wide // 2], largest[..., wide // 2 :])
    chance = np.exp(logit - largest)
    return cast(Singles, chance / (chance @ np.ones((ACTIONS, 1), np.float32)))


def _chosen(chance_SPK: Singles, lot_SPJ: Singles) -> NDArray[np.int64]:
    """The action that each random number selects."""
    below_SPK = chance_SPK @ np.triu(np.ones((ACTIONS, ACTIONS), np.float32))
    action_SPJ = np.zeros(lot_SPJ.shape, np.int64)
    for action in range(ACTIONS - 1):
        action_SPJ += lot_SPJ > below_SPK[:, :, action, None]
    return action_SPJ


@dataclass(frozen=True)
class Run:
    """Steps, completions a step, and the group labels that the method sees.

    ``rate``  of learning: one for all runs, or one for each.
    """

    rate: float | Floats
    generations: int
    completions: int = 256
    steps: int = 300
    every: int = 10
    labels: Labels = "true"

    @property
    def prompts(self) -> int:
        return self.completions // self.generations


class Lots(NamedTuple):
    """The random numbers of steps, of distinct seeds or of runs: users, contexts, actions, noise, difficulty, order."""

    user_SP: NDArray[np.int64]
    x_SPD: Singles
    lot_SPJ: Singles
    noise_SPJ: Singles
    hard_SP: Singles
    order_SP: NDArray[np.int64]


def _lots(rng: np.random.Generator, run: Run, binary: bool) -> Lots:
    """Those of a block of steps for one seed: a first axis of steps in place of runs."""
    shape = (BLOCK, run.prompts, run.generations)
    noise = rng.random if binary else rng.standard_normal
    order = np.broadcast_to(np.arange(run.prompts), shape[:2])
    return Lots(
        rng.integers(0, USERS, shape[:2]),
        rng.standard_normal((*shape[:2], CONTEXT), np.float32),
        rng.random(shape, np.float32),
        noise(shape, np.float32),
        rng.standard_normal(shape[:2], np.float32),
        rng.permuted(order, axis=1) if run.labels == "shuffled" else order,
    )


def train(world: World, seeds: Ints, method: Method, run: Run) -> Floats:
    """Normalised reward of each group after every ``every`` steps, (S, T, G).

    ``seeds``  of the runs; a seed may stand for several, at rates of their own.
    """
    policy = Policy.draw(seeds, len(world.setting.shares), run.rate)
    seed_E, of_S = np.unique(seeds, return_inverse=True)
    rngs = [np.random.default_rng([int(seed), 13]) for seed in seed_E]
    group_EU = world.group_SU[np.unique(of_S, return_index=True)[1]]
    random_SU = np.stack([rng.permutation(group_U) for rng, group_U in zip(rngs, group_EU, strict=True)])[of_S]
    judged_SXD, block, curve = world.x_SXD.astype(np.float32), [], []
    for step in range(run.steps):
        if step % BLOCK == 0:
            drawn = [_lots(rng, run, world.setting.binary) for rng in rngs]
            block = [np.stack(part, axis=1) for part in zip(*drawn, strict=True)]  # steps first
        lots = Lots(*[part[step % BLOCK][of_S] for part in block])
        group_SP = np.take_along_axis(world.group_SU, lots.user_SP, axis=1)
        chance_SPK, hidden_SPW = policy(lots.x_SPD, group_SP)
        one = _answered(world, lots, chance_SPK, group_SP, step >= run.steps // 2)
        if run.labels != "true":
            users_SU = random_SU if run.labels == "random" else world.group_SU
            label_SP = np.take_along_axis(np.take_along_axis(users_SU, lots.user_SP, axis=1), lots.order_SP, axis=1)
            one = replace(one, label_SP=label_SP)
        policy.learn(lots.x_SPD, group_SP, hidden_SPW, _pull(one.action_SPJ, method(one), chance_SPK))
        if (step + 1) % run.every == 0:
            curve.append(world.normalised(policy.everywhere(judged_SXD)))
    return np.stack(curve, axis=1)


def _pull(action_SPJ: NDArray[np.int64], advantage_SPJ: Floats, chance_SPK: Singles) -> Singles:
    """Mean over a prompt's completions of advantage times (chosen - chance)."""
    cell_B = (np.arange(chance_SPK.shape[0] * chance_SPK.shape[1])[:, None] * ACTIONS).repeat(action_SPJ.shape[2], 1)
    cell_B += action_SPJ.reshape(cell_B.shape)
    chosen_SPK = np.bincount(cell_B.ravel(), advantage_SPJ.ravel(), chance_SPK.size).reshape(chance_SPK.shape)
    pull_SPK = chosen_SPK - np.einsum("spj->sp", advantage_SPJ)[..., None] * chance_SPK
    return (pull_SPK / action_SPJ.shape[2]).astype(np.float32)


def _answered(world: World, lots: Lots, chance_SPK: Singles, group_SP: NDArray[np.int64], late: bool) -> Step:
    """Actions by the policy's chances, and the rewards of them."""
    setting = world.setting
    action_SPJ = _chosen(chance_SPK, lots.lot_SPJ)
    runs, groups = world.theta_SGKD.shape[:2]
    row_SPJ = (group_SP + groups * np.arange(runs)[:, None])[..., None] * ACTIONS + action_SPJ
    theta_SPJD = world.theta_SGKD.reshape(-1, CONTEXT).take(row_SPJ, axis=0)
    utility_SPJ = (theta_SPJD * lots.x_SPD[:, :, None]) @ np.full(CONTEXT, CONTEXT**-0.5)
    value_SPJ = _value(setting, utility_SPJ)
    if setting.binary:
        reward_SPJ = (lots.noise_SPJ < value_SPJ).astype(np.float64)
    else:
        reward_SPJ = value_SPJ + setting.difficulty * lots.hard_SP[..., None] + NOISE * lots.noise_SPJ
    scale_G, mean_G = np.array(setting.scales), np.array(setting.means)
    reward_SPJ = mean_G[group_SP][..., None] + scale_G[group_SP][..., None] * reward_SPJ
    if late and setting.drift:
        reward_SPJ = reward_SPJ + setting.drift * (group_SP == len(mean_G) - 1)[..., None]
    return Step(group_SP, group_SP, action_SPJ, reward_SPJ, len(mean_G))
