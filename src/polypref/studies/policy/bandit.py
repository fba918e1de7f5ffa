"""Contextual bandits whose expected rewards are known exactly: where methods of advantage can be told apart in seconds.

A *prompt* is a context x of a user, who belongs to a preference group; a *completion* is one of K actions, drawn from a
policy that sees x and the group: a network with one hidden layer, trained by Adam on A grad log pi(action), as GRPO's
first step on fresh completions is. Group p's reward of action a is

    r = mean_p + scale_p (theta_pa . x / sqrt(D) + difficulty z + noise),      z: one number per prompt, unseen

or, where ``binary``, 1 with probability sigmoid(2 theta_pa . x / sqrt(D) - 2.5) and else 0. From half time on,
``drift`` is added to the last group's rewards. Many seeds run at once as one array, each with a world, a policy and
histories of its own.

Suffixes here: ``_D`` numbers of a context, ``_I`` inputs of the policy (context and group), ``_K`` actions, ``_X``
contexts on which policies are judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polypref.policy.history import Floats, Ints

CONTEXT, ACTIONS, HIDDEN, USERS, NOISE = 6, 8, 24, 400, 0.5
LOOKED_AT = 512  # contexts on which expected rewards are computed, of all groups together; at least 16 each

Labels = Literal["true", "shuffled", "random"]


@dataclass(frozen=True)
class Setting:
    """A population: groups' shares, scales and means of reward, and what else makes learning hard."""

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
        """How much longer a run has to be for the smallest group to get what 5 % get elsewhere."""
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
    """S worlds of one setting: tastes, users' groups, and the contexts on which policies are judged."""

    setting: Setting
    theta_SGKD: Floats
    group_SU: NDArray[np.int64]
    x_SXD: Floats
    worst_SG: Floats
    best_SG: Floats

    @classmethod
    def draw(cls, setting: Setting, seeds: Ints) -> World:
        """The worlds of these seeds; a world depends on nothing but the setting and its seed."""
        drawn = [_draw(setting, np.random.default_rng([int(seed), 7])) for seed in seeds]
        theta_SGKD, group_SU, x_SXD = (np.stack(part) for part in zip(*drawn, strict=True))
        value_SGXK = _value(setting, np.einsum("spkd,sxd->spxk", theta_SGKD, x_SXD) / CONTEXT**0.5)
        return cls(setting, theta_SGKD, group_SU, x_SXD, value_SGXK.mean((2, 3)), value_SGXK.max(3).mean(2))

    def normalised(self, chance_SGXK: Floats) -> Floats:
        """Exact expected reward of a policy for each group, 0 for uniform choice and 1 for the best, (S, G)."""
        value_SGXK = _value(self.setting, np.einsum("spkd,sxd->spxk", self.theta_SGKD, self.x_SXD) / CONTEXT**0.5)
        reached_SG = (chance_SGXK * value_SGXK).sum(3).mean(2)
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
    """Expected reward in units of the group's scale; what all actions of a prompt share is left out."""
    return 1 / (1 + np.exp(2.5 - 2 * utility)) if setting.binary else utility


@dataclass(frozen=True, eq=False)
class Step:
    """One step's prompts: contexts, users' groups, what the policy chose (S, P, J) and the rewards of it."""

    group_SP: NDArray[np.int64]
    label_SP: NDArray[np.int64]
    action_SPJ: NDArray[np.int64]
    reward_SPJ: Floats


Method = Callable[[Step], Floats]
"""Advantages (S, P, J) of a step; keeps what it remembers to itself."""


@dataclass(eq=False)
class Policy:
    """S policies, each a network of one hidden layer, and their Adam."""

    weights: list[Floats]
    rate: float

    def __post_init__(self) -> None:
        self._mean = [np.zeros_like(w) for w in self.weights]
        self._square = [np.zeros_like(w) for w in self.weights]
        self._steps = 0

    @classmethod
    def draw(cls, seeds: Ints, groups: int, rate: float) -> Policy:
        """Policies that choose nearly uniformly."""
        inputs = CONTEXT + groups
        rngs = [np.random.default_rng([int(seed), 11]) for seed in seeds]
        first = np.stack([rng.standard_normal((inputs, HIDDEN)) / CONTEXT**0.5 for rng in rngs])
        last = np.stack([rng.standard_normal((HIDDEN, ACTIONS)) * 0.01 for rng in rngs])
        return cls([first, np.zeros((len(seeds), 1, HIDDEN)), last, np.zeros((len(seeds), 1, ACTIONS))], rate)

    def __call__(self, x_SXI: Floats) -> tuple[Floats, Floats]:
        """Chances of the actions (S, X, K), and the hidden units."""
        first, bias, last, other = self.weights
        hidden_SXW = np.tanh(x_SXI @ first + bias)
        logit_SXK = hidden_SXW @ last + other
        chance_SXK = np.exp(logit_SXK - logit_SXK.max(2, keepdims=True))
        return chance_SXK / chance_SXK.sum(2, keepdims=True), hidden_SXW

    def learn(self, x_SPI: Floats, chance_SPK: Floats, hidden_SPW: Floats, pull_SPK: Floats) -> None:
        """One step of Adam uphill; ``pull_SPK`` is the sum over completions of advantage times (chosen - chance)."""
        many = x_SPI.shape[1]
        back_SPW = (pull_SPK @ self.weights[2].transpose(0, 2, 1)) * (1 - hidden_SPW**2)
        slopes = [
            x_SPI.transpose(0, 2, 1) @ back_SPW / many,
            back_SPW.mean(1, keepdims=True),
            hidden_SPW.transpose(0, 2, 1) @ pull_SPK / many,
            pull_SPK.mean(1, keepdims=True),
        ]
        self._steps += 1
        for weight, mean, square, slope in zip(self.weights, self._mean, self._square, slopes, strict=True):
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            size = self.rate / (1 - 0.9**self._steps)
            weight += size * mean / (np.sqrt(square / (1 - 0.999**self._steps)) + 1e-8)


@dataclass(frozen=True)
class Run:
    """How long, how many completions a step, and what the method is told of groups."""

    rate: float
    generations: int
    completions: int = 256
    steps: int = 300
    every: int = 10
    labels: Labels = "true"


def train(world: World, seeds: Ints, method: Method, run: Run) -> Floats:
    """Normalised reward of each group after every ``every`` steps, (S, T, G)."""
    groups = len(world.setting.shares)
    policy = Policy.draw(seeds, groups, run.rate)
    rngs = [np.random.default_rng([int(seed), 13]) for seed in seeds]
    random_SU = np.stack([rng.permutation(g) for rng, g in zip(rngs, world.group_SU, strict=True)])
    contexts = world.x_SXD.shape[1]
    judged = np.concatenate(
        [
            np.broadcast_to(world.x_SXD[:, None], (len(seeds), groups, contexts, CONTEXT)),
            np.broadcast_to(np.eye(groups)[None, :, None], (len(seeds), groups, contexts, groups)),
        ],
        axis=3,
    ).reshape(len(seeds), groups * contexts, -1)
    curve = []
    for step in range(run.steps):
        asked = _Asked.draw(world, rngs, run)
        chance_SPK, hidden_SPW = policy(asked.x_SPI)
        one = asked.answered(world, rngs, chance_SPK, run, random_SU, step >= run.steps // 2)
        advantage_SPJ = method(one)
        chosen_SPJK = np.eye(ACTIONS)[one.action_SPJ]
        pull_SPK = (advantage_SPJ[..., None] * (chosen_SPJK - chance_SPK[:, :, None])).mean(2)
        policy.learn(asked.x_SPI, chance_SPK, hidden_SPW, pull_SPK)
        if (step + 1) % run.every == 0:
            chance = policy(judged)[0].reshape(len(seeds), groups, contexts, ACTIONS)
            curve.append(world.normalised(chance))
    return np.stack(curve, axis=1)


@dataclass(frozen=True, eq=False)
class _Asked:
    """The prompts of a step."""

    user_SP: NDArray[np.int64]
    group_SP: NDArray[np.int64]
    x_SPI: Floats

    @classmethod
    def draw(cls, world: World, rngs: list[np.random.Generator], run: Run) -> _Asked:
        """Users and contexts by lot."""
        prompts, groups = run.completions // run.generations, len(world.setting.shares)
        user_SP = np.stack([rng.integers(0, USERS, prompts) for rng in rngs])
        group_SP = np.take_along_axis(world.group_SU, user_SP, axis=1)
        x_SPD = np.stack([rng.standard_normal((prompts, CONTEXT)) for rng in rngs])
        return cls(user_SP, group_SP, np.concatenate([x_SPD, np.eye(groups)[group_SP]], axis=2))

    def answered(
        self,
        world: World,
        rngs: list[np.random.Generator],
        chance_SPK: Floats,
        run: Run,
        random_SU: NDArray[np.int64],
        late: bool,
    ) -> Step:
        """Actions by the policy's chances, and the rewards of them."""
        setting, shape = world.setting, (chance_SPK.shape[1], run.generations)
        lot_SPJ = np.stack([rng.random(shape) for rng in rngs])
        action_SPJ = (lot_SPJ[..., None] > chance_SPK.cumsum(2)[:, :, None, :-1]).sum(3)
        seed_S1 = np.arange(len(rngs))[:, None]
        theta_SPKD = world.theta_SGKD[seed_S1, self.group_SP]
        utility_SPK = np.einsum("sqkd,sqd->sqk", theta_SPKD, self.x_SPI[..., :CONTEXT]) / CONTEXT**0.5
        value_SPJ = np.take_along_axis(_value(setting, utility_SPK), action_SPJ, axis=2)
        noise_SPJ = np.stack([rng.random(shape) if setting.binary else rng.standard_normal(shape) for rng in rngs])
        hard_SP1 = np.stack([rng.standard_normal((shape[0], 1)) for rng in rngs])
        if setting.binary:
            reward_SPJ = (noise_SPJ < value_SPJ).astype(np.float64)
        else:
            reward_SPJ = value_SPJ + setting.difficulty * hard_SP1 + NOISE * noise_SPJ
        scale_G, mean_G = np.array(setting.scales), np.array(setting.means)
        reward_SPJ = mean_G[self.group_SP][..., None] + scale_G[self.group_SP][..., None] * reward_SPJ
        if late and setting.drift:
            reward_SPJ = reward_SPJ + setting.drift * (self.group_SP == len(mean_G) - 1)[..., None]
        if run.labels == "shuffled":
            label_SP = np.stack([rng.permutation(g) for rng, g in zip(rngs, self.group_SP, strict=True)])
        else:
            label_SP = self.group_SP if run.labels == "true" else np.take_along_axis(random_SU, self.user_SP, axis=1)
        return Step(self.group_SP, label_SP, action_SPJ, reward_SPJ)
