"""The inputs of the frozen-feature learners: a few directions of the encoder's space, relation and style, and length.

The encoder's D features are projected on the principal directions of the *within-prompt* spread of the training
responses (topics cancel in a comparison, so their variance must not use up directions), scaled by one number so that
the directions together have variance 1. The columns of relation and style (``features.question``) follow where the
encoder's ``features`` are "pair" and the training rows have several prompts: minus the median, over the spread within
prompts (at least ``FLOOR`` of the whole spread), clipped at ``CLIP``. Without the clip a response to another question
would be worth more than all else together. One more column is how far the cosine of prompt and response is below that
of all but ``FAR`` of the training responses, 0 for most: what sets answers to other questions apart, and hardly
matters among answers to one (``swapped``). Two length features with variance 1 each come last. All of it depends only
on texts judged in training.

The number of directions is ``FEWEST``, or one for each ``EACH`` judgements of the average user if that is more. With
some hundred judgements per person, more than 64 gain nothing on real data; with thousands each they gain much
(docs/log.md).

Where single responses were liked or disliked, against bars (``data.thumbs``), topics do not cancel, so the spread is
that of all training responses. One more direction is then the bar's level: it is zero in the encoder's space, every
text has 0 there, a bar ``LEVEL``. In all other inputs a bar is the average text.

Suffixes here: ``_F`` columns of relation and style.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, FloatArray, IntArray, Responses
from polypref.errors import ArtifactError, SettingsError
from polypref.features import question
from polypref.features.protocol import Encoder, Read, read_by
from polypref.schema import Array, Arrays, floats

FEWEST, EACH = 64, 4
FLOOR, CLIP = 0.1, 4.0
FAR = 0.2
BASE = ("center_D", "directions_DK", "length_center", "length_scale")
COLUMNS = ("column_center_F", "column_scale_F")
LEVEL = 1.5  # a person's bar may lie as far off as their opinions of two texts differ


@dataclass(frozen=True, eq=False)
class Inputs:
    """A fitted projection.

    ``x_RK = [(features_RD - center_D) @ directions_DK, clip((columns - center) / scale), (lengths - center) / scale]``
    """

    encoder: Encoder
    center_D: FloatArray
    directions_DK: FloatArray
    length_center: FloatArray
    length_scale: FloatArray
    column_center_F: FloatArray
    column_scale_F: FloatArray

    @classmethod
    def fit(cls, encoder: Encoder, train: Comparisons, directions: int | None = None, read: Read | None = None) -> Self:
        """Choose the projection from the responses judged in ``train``; fewer directions if the texts span fewer.

        ``read``  the columns of relation and style too ("pair"), or not; None: as the encoder's ``features`` say.
        """
        if directions is None:
            directions = max(FEWEST, len(train) // (EACH * max(len(np.unique(train.user_N)), 1)))
        used_R = np.unique(np.concatenate([train.chosen_N, train.rejected_N]))
        bars_R = train.responses.bar_R[used_R]
        pool = train.responses.take(used_R[~bars_R])
        features_RD = np.asarray(encoder.encode(pool), np.float64)
        lengths_R2 = length_features(pool)
        together_R = np.zeros(len(pool), np.int32) if bars_R.any() else pool.prompt_R
        spread_RD = _within(features_RD, together_R)
        covariance_DD = spread_RD.T @ spread_RD / max(len(pool), 1)
        value_D, vector_DD = np.linalg.eigh(covariance_DD)
        keep = np.argsort(value_D)[::-1][:directions]
        keep = keep[value_D[keep] > 1e-9 * max(value_D.max(initial=0.0), 1e-12)]
        vector_DK = vector_DD[:, keep]
        # the sign of an eigenvector is arbitrary: fix it, so that equal data give equal scorers on every machine
        sign_K = np.sign(vector_DK[np.abs(vector_DK).argmax(axis=0), np.arange(len(keep))])
        directions_DK = vector_DK * sign_K / np.sqrt(max(value_D[keep].sum(), 1e-12))
        if bars_R.any():
            directions_DK = np.pad(directions_DK, ((0, 0), (0, 1)))
        column_RF = np.zeros((len(pool), 0))
        if (read or read_by(encoder)) == "pair" and len(np.unique(pool.prompt_R)) > 1:
            column_RF = _with_cosine(question.columns(encoder, pool, features_RD)).astype(np.float64)
        center_F = np.median(column_RF, axis=0)
        if len(center_F):
            center_F[-1] = np.quantile(column_RF[:, -1], FAR)
            column_RF[:, -1] = np.minimum(column_RF[:, -1], center_F[-1])
        return cls(
            encoder,
            features_RD.mean(axis=0),
            directions_DK,
            lengths_R2.mean(axis=0),
            _scale(lengths_R2, together_R),
            center_F,
            _scale(column_RF, together_R, FLOOR),
        )

    @property
    def size(self) -> int:
        """Number of inputs K: directions, columns of relation and style, how far below, two lengths."""
        return sum(self.kinds)

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many inputs of each kind there are."""
        columns = len(self.column_center_F)
        parts = (columns - 1, 1) if self.knows_far else (columns,)
        return self.directions_DK.shape[1], *parts, 2

    @property
    def knows_far(self) -> bool:
        """Whether the last column is how far the cosine is below; earlier versions had none."""
        return len(self.column_center_F) - 1 in question.SIZES[1:]

    def __call__(self, responses: Responses) -> NDArray[np.float64]:
        """Inputs ``x_RK`` of every response in the pool."""
        if (bar_R := responses.bar_R).any():
            x_RK = np.zeros((len(responses), self.size))
            x_RK[~bar_R] = self(responses.take(np.flatnonzero(~bar_R).astype(np.int32)))
            x_RK[bar_R, : self.kinds[0]] = np.where(self.directions_DK.any(axis=0), 0.0, LEVEL)
            return x_RK
        features_RD = self.encoder.encode(responses)
        if features_RD.shape[1] != len(self.center_D):
            raise SettingsError(
                f"encoder {self.encoder.name} gives {features_RD.shape[1]} features and the fit had "
                f"{len(self.center_D)}; give the encoder that it was fitted with."
            )
        x_RK = np.empty((len(responses), self.size))
        directions, columns = self.directions_DK.shape[1], len(self.column_center_F)
        x_RK[:, :directions] = (features_RD - self.center_D.astype(np.float32)) @ self.directions_DK.astype(np.float32)
        if columns:
            x_RK[:, directions:-2] = self.columns(responses, features_RD)
        x_RK[:, -2:] = (length_features(responses) - self.length_center) / self.length_scale
        return x_RK

    def columns(self, responses: Responses, features_RD: NDArray) -> NDArray[np.float64]:
        """The inputs (R, F) of relation and style; ``features_RD`` are the encoder's of the responses' texts."""
        column_RF = question.columns(self.encoder, responses, features_RD, self.kinds[1])
        if self.knows_far:
            column_RF = _with_cosine(column_RF)
        column_RF = np.clip((column_RF - self.column_center_F) / self.column_scale_F, -CLIP, CLIP)
        if self.knows_far:
            column_RF[:, -1] = np.minimum(column_RF[:, -1], 0.0)
        return column_RF

    def used(
        self, responses: Responses, response_Q: IntArray | None
    ) -> tuple[NDArray[np.float64], Responses, IntArray]:
        """Inputs of the distinct responses in question, those responses, and each question's place among them."""
        if response_Q is None:
            return self(responses), responses, np.arange(len(responses), dtype=np.int32)
        distinct, place_Q = np.unique(response_Q, return_inverse=True)
        pool = responses if len(distinct) == len(responses) else responses.take(distinct)
        return self(pool), pool, place_Q.astype(np.int32)

    def arrays(self) -> dict[str, NDArray]:
        """The projection as arrays for ``state``; without columns, those of earlier versions."""
        names = (*BASE, *COLUMNS) if len(self.column_center_F) else BASE
        return {f"inputs.{name}": getattr(self, name) for name in names}

    @staticmethod
    def layout(prefix: str = "", features: str = "D", size: str = "K") -> Arrays:
        """The layout of ``arrays``, with ``size`` inputs of ``features`` features."""
        columns = f"{size}columns"
        together = f"{prefix}inputs.column_"
        found = {
            "column_center_F": Array((columns,), together=together),
            "column_scale_F": Array((columns,), positive=True, together=together),
            "center_D": floats(features),
            "directions_DK": floats(features, f"{size}-2-{columns}"),
            "length_center": floats(2),
            "length_scale": Array((2,), positive=True),
        }
        return {f"{prefix}inputs.{name}": one for name, one in found.items()}

    @classmethod
    def from_arrays(cls, encoder: Encoder, arrays: Mapping[str, NDArray]) -> Self:
        """The inverse of ``arrays``. Raises ArtifactError for a number of columns that no version has."""
        found = [arrays.get(f"inputs.{name}", np.zeros(0)) for name in (*BASE, *COLUMNS)]
        sizes = (*question.SIZES, *(size + 1 for size in question.SIZES[1:]))
        if len(found[-1]) not in sizes:
            raise ArtifactError(
                f"the scorer reads {len(found[-1])} columns of relation and style; expected "
                f"{' or '.join(map(str, sizes))}. Fit it again."
            )
        return cls(encoder, *found)


def _with_cosine(column_RF: NDArray) -> NDArray:
    """The columns, and the first one, the cosine, once more."""
    return np.concatenate([column_RF, column_RF[:, :1]], axis=1)


def length_features(responses: Responses) -> NDArray[np.float64]:
    """Two functions of length, (R, 2): its logarithm, for "twice as long", and its square root, for long texts."""
    characters_R = responses.lengths_R.astype(np.float64)
    return np.stack([np.log1p(characters_R), np.sqrt(characters_R)], axis=1)


def _within(values_RD: NDArray, prompt_R: IntArray) -> NDArray[np.float64]:
    """Values minus their prompt's mean."""
    _, at_R, size_P = np.unique(prompt_R, return_inverse=True, return_counts=True)
    order_R = np.argsort(at_R, kind="stable")
    sums_PD = np.add.reduceat(values_RD[order_R], np.concatenate([[0], size_P.cumsum()[:-1]]), axis=0)
    return values_RD - (sums_PD / size_P[:, None])[at_R]


def _scale(values_RX: NDArray, prompt_R: IntArray, floor: float = 0.0) -> NDArray[np.float64]:
    """The spread of values within prompts, (X,), at least ``floor`` of their whole spread; 1 for constant ones."""
    spread_X = np.sqrt((_within(values_RX, prompt_R) ** 2).mean(axis=0))
    spread_X = np.maximum(spread_X, floor * values_RX.std(axis=0))
    return np.where(spread_X > 1e-9, spread_X, 1.0)
