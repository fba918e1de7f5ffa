"""PAL-B: everybody mixes a few heads, each of which gives the ideal response to a prompt; on frozen features.

Paper: Chen et al. 2024, "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences", its form
with a mixture of heads:

    r_u(x) = s cos(sum_k softmax(w_u)_k g_k(z), f(x))      z: the prompt's inputs, g_k: head k, f: residual network

What we changed: one vector per prompt and one per response, where the authors multiply token j of the response by token
j of the prompt. A prompt is a text of its own (``prompt_inputs``). The sharpness s is learned, starts at zero and may
turn negative, so swapped labels give exactly opposite rewards; the authors start at 1/.07 and limit it to 100. Priors
N(0, 1/penalty) on the weights of f and g, N(0, 1/user_penalty) on w. ``loss="hinge"`` offers PAL-A's loss. The number
of heads is the smallest within ``slack``, about a standard error, of the best validation log loss; validation rows also
choose the steps. Strangers get the mean mixture; ``adapt`` learns a new user's mixture alone.

Suffixes here: ``_C`` prototypes, ``_F`` numbers that describe a prompt, ``_M`` judgements of everybody, ``_V`` users
and the stranger, ``_X`` numbers of a judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from polypref.comparisons import Comparisons, IntArray, Responses, concat
from polypref.features.protocol import Encoder
from polypref.learners import prompt_inputs, prototypes, validation
from polypref.learners.history import History
from polypref.learners.inputs import Inputs
from polypref.learners.prototypes import ITEM_MAP, LEAST, Floats, MixtureScorer
from polypref.learners.provenance import recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, of_rows
from polypref.schema import Layout, floats

if TYPE_CHECKING:
    from torch import Tensor

HEADS = ("first_CFW", "first_C1W", "second_CWW", "second_C1W", "last_CWK", "last_C1K")
PORTION = 1 << 23  # numbers that one portion of texts may use


@dataclass(frozen=True)
class PalB:
    """Settings of PAL with a mixture of heads on frozen features."""

    loss: prototypes.Loss = "logistic"
    """Loss of a judgement's margin."""
    prototypes: tuple[int, ...] = (2, 4, 8)
    """Numbers of heads to try on validation rows."""
    slack: float = 0.4
    """Share of the best validation log loss, times the root of the validation rows, that fewer heads may lose."""
    hidden: int = 32
    """Units in each of a head's two hidden layers."""
    starts: int = 1
    """Random starts to try on validation rows, if all training rows fit into one batch."""
    penalty: float = 1.0
    """Inverse prior variance of the map's and the heads' weights."""
    user_penalty: float = 0.1
    """Inverse prior variance of a user's scores."""
    most_steps: int = 400
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int = 64
    """Principal directions of the encoder's space to use; the map's cost is their square."""
    prompt_directions: int = 16
    """Principal directions of the prompts to use."""

    @recorded
    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> HeadsScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        asked = prompt_inputs.fit(encoder, whole, self.prompt_directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=0.03, whole=2048, most=self.most_steps)
        z_PF, prompt_R = prompt_inputs.inputs_of(asked, whole.responses.take(table.numbers.responses_R))
        models = {c: _Heads(self, table, z_PF, prompt_R, c, descent.weight) for c in self.prototypes}
        count, walk, trial = prototypes.choose(descent, models, self.slack, self.starts)
        fitted = walk.finish(models[count], trial)
        mixture_UC = softmax(fitted["score_UC"], axis=1)
        return HeadsScorer(
            inputs,
            table.users,
            mixture_UC,
            mixture_UC.mean(axis=0),
            {name: fitted[name] for name in (*ITEM_MAP, *HEADS, "sharpness")},
            self.user_penalty,
            {"prototypes": float(count), "steps": trial.steps, **trial.found},
            prompts=asked,
        ).remembering(whole)


def heads(now: Mapping[str, Any], z_XF: Any, gelu: Callable[[Any], Any]) -> Any:
    """The output of each head for each prompt, (C, X, K), in torch or numpy, as ``gelu`` is."""
    first_CXW = gelu(z_XF @ now["first_CFW"] + now["first_C1W"])
    return gelu(first_CXW @ now["second_CWW"] + now["second_C1W"]) @ now["last_CWK"] + now["last_C1K"]


@dataclass(frozen=True, eq=False)
class _Heads:
    """Heads, map and everybody's scores, as ``gradient_descent.Model``."""

    config: PalB
    table: Table
    z_PF: Floats
    prompt_R: IntArray
    count: int
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """The start: heads with random directions, whatever the prompt, mixed evenly by everybody."""
        import torch

        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, sd: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator) * sd

        # in double precision: as it leaves the even start, the fit magnifies rounding errors a millionfold
        c, j, h, k = self.count, self.z_PF.shape[1], self.config.hidden, self.table.x_RK.shape[1]
        now = prototypes.start_item_map(k, normal) | {
            "first_CFW": normal(c, j, h, sd=j**-0.5),
            "first_C1W": torch.zeros(c, 1, h),
            "second_CWW": normal(c, h, h, sd=h**-0.5),
            "second_C1W": torch.zeros(c, 1, h),
            "last_CWK": torch.zeros(c, h, k),
            "last_C1K": normal(c, 1, k, sd=k**-0.5),
            "score_UC": torch.zeros(len(self.table.users), c),
            "sharpness": torch.zeros(1),
        }
        return {name: value.double() for name, value in now.items()}

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        import torch
        from torch.nn.functional import cosine_similarity, embedding, gelu

        def called_for(z_XF: Tensor) -> Tensor:
            return heads(now, z_XF, gelu).transpose(0, 1).flatten(1)

        def mapped(x_XK: Tensor) -> Tensor:
            return prototypes.map_items(now, x_XK.double(), gelu)

        z_PF, prompt_R = torch.from_numpy(self.z_PF), torch.from_numpy(self.prompt_R).long()
        mixture_B1C = embedding(rows.user_B, torch.softmax(now["score_UC"], dim=1))[:, None]
        item_2BK = of_rows(torch.cat([rows.chosen_B, rows.rejected_B]), self.table.x_RK, mapped)
        head_BCK = of_rows(prompt_R[rows.chosen_B], z_PF, called_for).unflatten(1, (self.count, -1))
        own_BK = (mixture_B1C @ head_BCK)[:, 0]
        chosen_BK, rejected_BK = item_2BK.split(len(rows))
        return now["sharpness"] * (cosine_similarity(own_BK, chosen_BK) - cosine_similarity(own_BK, rejected_BK))

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        squares = self.config.user_penalty * (now["score_UC"] ** 2).sum()
        for name in (*ITEM_MAP, *HEADS):
            squares = squares + self.config.penalty * (now[name] ** 2).sum()
        return prototypes.judged(rows, self.margins(now, rows), self.config.loss) + squares / (2.0 * self.weight)


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    count, width = len(arrays["mixture_C"]), arrays["history.value_MX"].shape[1]
    return None if width == count * (count + 1) else f"judgements of {width} numbers for {count} heads"


@dataclass(frozen=True, eq=False, repr=False)
class HeadsScorer(MixtureScorer):
    """Rewards are the cosine between the response and the output of the user's mixture of heads."""

    prompts: Inputs

    kind: ClassVar[str] = "pal-b"
    layout: ClassVar[Layout] = prototypes.LAYOUT.with_more(
        prototypes.Fields,
        {
            "network.first_CFW": floats("C", "F", "W"),
            "network.first_C1W": floats("C", 1, "W"),
            "network.second_CWW": floats("C", "W", "W"),
            "network.second_C1W": floats("C", 1, "W"),
            "network.last_CWK": floats("C", "W", "K"),
            "network.last_C1K": floats("C", 1, "K"),
            **Inputs.layout("prompts.", size="F"),
            **History.layout("X"),
        },
        rule=_wrong,
    )

    def rewards(self, pool: Responses, x_RK: Floats, mixture_VC: Floats, user_Q: IntArray, place_Q: IntArray) -> Floats:
        """See ``MixtureScorer``."""
        along_RC, gram_PCC, prompt_R = self._agreement(pool, x_RK)
        value_Q = np.empty(len(place_Q))
        step = max(1, PORTION // gram_PCC.shape[1] ** 2)
        for start in range(0, len(place_Q), step):
            rows = slice(start, start + step)
            mixture_QC, place = mixture_VC[user_Q[rows]], place_Q[rows]
            size_Q = np.einsum("qc,qcd,qd->q", mixture_QC, gram_PCC[prompt_R[place]], mixture_QC, optimize=True)
            along_Q = (mixture_QC * along_RC[place]).sum(axis=1)
            value_Q[rows] = self.network["sharpness"] * along_Q / np.sqrt(size_Q + LEAST)
        return value_Q

    def reads(self, rows: Comparisons) -> Floats:
        """See ``MixtureScorer``: differences of the products with heads, and products of heads with each other."""
        x_RK, pool, place_2N = self.sides(rows)
        along_RC, gram_PCC, prompt_R = self._agreement(pool, x_RK)
        chosen_N, rejected_N = place_2N[: len(rows)], place_2N[len(rows) :]
        along_NC = self.network["sharpness"] * (along_RC[chosen_N] - along_RC[rejected_N])
        return np.concatenate([along_NC, gram_PCC[prompt_R[chosen_N]].reshape(len(rows), -1)], axis=1)

    def margins(self, value_NX: Floats, mixture_C: Floats) -> tuple[Floats, Floats]:
        """See ``MixtureScorer``."""
        count = len(mixture_C)
        along_NC, gram_NCC = value_NX[:, :count], value_NX[:, count:].reshape(-1, count, count)
        gram_NC = gram_NCC @ mixture_C
        size_N = np.sqrt(gram_NC @ mixture_C + LEAST)
        margin_N = along_NC @ mixture_C / size_N
        return margin_N, along_NC / size_N[:, None] - gram_NC * (margin_N / size_N**2)[:, None]

    def _agreement(self, pool: Responses, x_RK: Floats) -> tuple[Floats, Floats, IntArray]:
        """Products of heads and responses (R, C) and of heads with each other (P, C, C), and each response's prompt."""
        z_PF, prompt_R = prompt_inputs.inputs_of(self.prompts, pool)
        count, _, k = self.network["last_CWK"].shape
        along_RC, gram_PCC = np.empty((len(pool), count)), np.empty((len(z_PF), count, count))
        step = max(1, PORTION // (count * k))
        for start in range(0, len(z_PF), step):
            head_CPK = heads(self.network, z_PF[start : start + step], prototypes.gelu)
            gram_PCC[start : start + step] = np.einsum("cpk,dpk->pcd", head_CPK, head_CPK, optimize=True)
        order_R = np.argsort(prompt_R, kind="stable")
        for start in range(0, len(pool), step):
            rows = order_R[start : start + step]
            item_RK = prototypes.map_items(self.network, x_RK[rows], prototypes.gelu)
            item_RK = item_RK / np.sqrt((item_RK**2).sum(axis=1, keepdims=True) + LEAST)
            asked, at = np.unique(prompt_R[rows], return_inverse=True)
            head_CPK = heads(self.network, z_PF[asked], prototypes.gelu)
            along_RC[rows] = np.einsum("crk,rk->rc", head_CPK[:, at], item_RK, optimize=True)
        return along_RC, gram_PCC, prompt_R

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        return config, arrays | {f"prompts.{name}": value for name, value in self.prompts.arrays().items()}

    @classmethod
    def common(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> dict[str, Any]:
        """See ``MixtureScorer``."""
        own = {name.removeprefix("prompts."): a for name, a in arrays.items() if name.startswith("prompts.")}
        return super().common(config, arrays, encoder) | {"prompts": Inputs.from_arrays(encoder, own)}
