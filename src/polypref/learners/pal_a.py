"""PAL-A: people like what is near their ideal point, a mixture of a few prototypes; on frozen features.

Paper: Chen et al. 2024, "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences", its form
with ideal points:

    r_u(x) = -s |f(x) - P softmax(w_u)|      f: residual network, P: inputs x prototypes, w_u: scores of user u

What we changed: one vector per text instead of one per token, and the logistic loss instead of the hinge
(``loss="hinge"`` is the authors'). f works on the inputs' own width and starts as the identity. The sharpness s is
learned, starts at zero and may turn negative (points that repel), so swapped labels give exactly opposite rewards; the
authors use s = 1. The ideal point is not mapped by f: if mapped, as in the paper (``ideal="f(Pw)"``), it and the items
move together and fits are worse (docs/log.md). Of the authors' four forms, the one that divides by a norm of the wrong
shape is left out. Priors N(0, 1/penalty) on f's weights and N(0, 1/user_penalty) on w. The number of prototypes is the
smallest within ``slack``, about a standard error, of the best validation log loss. Validation rows also choose the
steps and, for small data, among a few random starts, since prototypes can settle in bad places. Strangers get the mean
mixture; ``adapt`` learns a new user's mixture alone.

Suffixes here: ``_C`` prototypes, ``_V`` users and the stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from polypref.comparisons import Comparisons, IntArray, Responses, concat
from polypref.features.protocol import Encoder
from polypref.learners import prototypes, validation
from polypref.learners.history import History
from polypref.learners.inputs import Inputs
from polypref.learners.linear import CHUNK
from polypref.learners.prototypes import ITEM_MAP, LEAST, Floats, MixtureScorer
from polypref.learners.provenance import recorded
from polypref.learners.training.gradient_descent import Batch, Descent, Parameters, Table, of_rows
from polypref.schema import Layout, floats

if TYPE_CHECKING:
    from torch import Tensor

Ideal = Literal["f(Pw)", "Pw", "f(P)w"]


@dataclass(frozen=True)
class PalA:
    """Settings of PAL with ideal points on frozen features."""

    loss: prototypes.Loss = "logistic"
    """Loss of a judgement's margin."""
    ideal: Ideal = "Pw"
    """The ideal point: a mixture of prototypes, the map of it (the authors' default), or a mixture of mapped ones."""
    prototypes: tuple[int, ...] = (2, 3, 4, 8)
    """Numbers of prototypes to try on validation rows."""
    slack: float = 0.4
    """Share of the best validation log loss, times the root of the validation rows, that fewer prototypes may lose."""
    starts: int = 3
    """Random starts to try on validation rows, if all training rows fit into one batch."""
    penalty: float = 1.0
    """Inverse prior variance of the map's weights."""
    user_penalty: float = 0.1
    """Inverse prior variance of a user's scores."""
    most_steps: int = 600
    """Maximum steps of Adam; validation rows usually stop it earlier."""
    directions: int = 64
    """Principal directions of the encoder's space to use; the map's cost is their square."""

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> IdealPointScorer:
        """See ``learners.protocol.Learner``."""
        train, valid = validation.cut(train, valid, seed)
        whole = concat(train, valid)
        inputs = Inputs.fit(encoder, whole, self.directions)
        table = Table.build(whole, inputs)
        descent = Descent(table, train, valid, seed, rate=0.03, whole=4096, most=self.most_steps)
        models = {count: _IdealPoints(self, table, count, descent.weight) for count in self.prototypes}
        count, walk, trial = prototypes.choose(descent, models, self.slack, self.starts)
        fitted = walk.finish(models[count], trial)
        mixture_UC = softmax(fitted["score_UC"], axis=1)
        return IdealPointScorer(
            inputs,
            table.users,
            mixture_UC,
            mixture_UC.mean(axis=0),
            {name: fitted[name] for name in (*ITEM_MAP, "point_CK", "sharpness")},
            self.user_penalty,
            {"prototypes": float(count), "steps": trial.steps, **trial.found},
            ideal=self.ideal,
        ).remembering(whole)


@dataclass(frozen=True, eq=False)
class _IdealPoints:
    """Prototypes, map and everybody's scores, as ``gradient_descent.Model``."""

    config: PalA
    table: Table
    count: int
    weight: float  # of all judgements: penalties are per fit, the loss is per judgement

    def start(self, seed: int) -> Parameters:
        """The start: prototypes of length 1 in random directions, mixed evenly by everybody."""
        import torch

        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, sd: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator) * sd

        k = self.table.x_RK.shape[1]
        point_CK = normal(self.count, k)
        return prototypes.start_item_map(k, normal) | {
            "point_CK": point_CK / point_CK.norm(dim=1, keepdim=True),
            "score_UC": torch.zeros(len(self.table.users), self.count),
            "sharpness": torch.zeros(1),
        }

    def margins(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        import torch
        from torch.nn.functional import embedding, gelu

        def mapped(x_XK: Tensor) -> Tensor:
            return prototypes.map_items(now, x_XK, gelu)

        mixture_UC = torch.softmax(now["score_UC"], dim=1)
        own_BK = embedding(rows.user_B, _ideal(self.config.ideal, now["point_CK"], mixture_UC, mapped))
        item_2BK = of_rows(torch.cat([rows.chosen_B, rows.rejected_B]), self.table.x_RK, mapped)
        chosen_B, rejected_B = (
            ((item_BK - own_BK).square().sum(dim=1) + LEAST).sqrt() for item_BK in item_2BK.split(len(rows))
        )
        return now["sharpness"] * (rejected_B - chosen_B)

    def loss(self, now: Parameters, rows: Batch) -> Tensor:
        """See ``gradient_descent.Model``."""
        squares = self.config.user_penalty * (now["score_UC"] ** 2).sum()
        for name in ITEM_MAP:
            squares = squares + self.config.penalty * (now[name] ** 2).sum()
        return prototypes.judged(rows, self.margins(now, rows), self.config.loss) + squares / (2.0 * self.weight)


def _ideal(ideal: Ideal, point_CK: Any, mixture_VC: Any, mapped: Callable[[Any], Any]) -> Any:
    """Everybody's ideal point (V, K), in torch or numpy."""
    if ideal == "f(P)w":
        return mixture_VC @ mapped(point_CK)
    mixed_VK = mixture_VC @ point_CK
    return mapped(mixed_VK) if ideal == "f(Pw)" else mixed_VK


class Fields(prototypes.Fields):
    """Settings of a saved scorer."""

    ideal: Ideal


@dataclass(frozen=True, eq=False, repr=False)
class IdealPointScorer(MixtureScorer):
    """Rewards that fall with the distance from the user's ideal point."""

    ideal: Ideal = "Pw"

    kind: ClassVar[str] = "pal-a"
    layout: ClassVar[Layout] = prototypes.LAYOUT.with_more(
        Fields, {"network.point_CK": floats("C", "K"), **History.layout("2K")}
    )

    def _mapped(self, x_XK: Floats) -> Floats:
        return prototypes.map_items(self.network, x_XK, prototypes.gelu)

    def rewards(self, pool: Responses, x_RK: Floats, mixture_VC: Floats, user_Q: IntArray, place_Q: IntArray) -> Floats:
        """See ``MixtureScorer``."""
        item_RK = self._mapped(x_RK)
        ideal_VK = _ideal(self.ideal, self.network["point_CK"], mixture_VC, self._mapped)
        value_Q = np.empty(len(place_Q))
        for rows in np.array_split(np.arange(len(place_Q)), max(1, len(place_Q) // CHUNK)):
            away_QK = item_RK[place_Q[rows]] - ideal_VK[user_Q[rows]]
            value_Q[rows] = -self.network["sharpness"] * np.sqrt((away_QK**2).sum(axis=1) + LEAST)
        return value_Q

    def reads(self, rows: Comparisons) -> Floats:
        """See ``MixtureScorer``: both texts, mapped."""
        x_RK, _, place_2N = self.sides(rows)
        return self._mapped(x_RK)[place_2N].reshape(2, len(rows), -1).transpose(1, 0, 2).reshape(len(rows), -1)

    def margins(self, value_NX: Floats, mixture_C: Floats) -> tuple[Floats, Floats]:
        """See ``MixtureScorer``."""
        point_CK = self.network["point_CK"]
        ideal_K = _ideal(self.ideal, point_CK, mixture_C[None], self._mapped)[0]
        slope_CK = {"Pw": point_CK, "f(P)w": self._mapped(point_CK)}.get(self.ideal)
        if slope_CK is None:
            slope_CK = prototypes.map_slopes(self.network, mixture_C @ point_CK, point_CK)
        away_N2K = ideal_K - value_NX.reshape(len(value_NX), 2, -1)
        far_N2 = np.sqrt((away_N2K**2).sum(axis=2) + LEAST)
        slope_N2C = -(away_N2K @ slope_CK.T) / far_N2[:, :, None]
        sharpness = self.network["sharpness"][0]
        return sharpness * (far_N2[:, 1] - far_N2[:, 0]), sharpness * (slope_N2C[:, 0] - slope_N2C[:, 1])

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        return config | {"ideal": self.ideal}, arrays

    @classmethod
    def common(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> dict[str, Any]:
        """See ``MixtureScorer``."""
        return super().common(config, arrays, encoder) | {"ideal": config["ideal"]}
