"""Fits a score that is the minimum over windows, by gradient through a soft minimum.

    score = min over windows w of the response of (x_w . a) + min over windows v of the prompt of (x_v . b) + c

The minimum has a gradient for only one window of a text, so the fit starts with -t log sum exp(-value / t) at t = 1,
which spreads it, and ends at t = .3. The loss is that of a logistic regression with a ridge penalty.

Suffixes here: ``_C`` responses, ``_W`` windows, ``_T`` texts, ``_I`` windows of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polypref.bounds.slates import Floats
from polypref.bounds.windowed import Read
from polypref.comparisons import BoolArray, IntArray

SOFTNESS = (1.0, 0.3)
AT_ONCE = 8192  # rows
STEPS = 150  # of L-BFGS, for each softness


@dataclass(frozen=True, eq=False)
class Windows:
    """C responses and their prompts as windows, whose features are rows of ``x_WD``.

    ``texts`` and ``prompts``: for each of their windows the row of its features, and which windows each text has;
    response c answers prompt ``prompt_C[c]``.
    """

    x_WD: NDArray[np.float32]
    texts: tuple[NDArray[np.int64], Read]
    prompts: tuple[NDArray[np.int64], Read]
    prompt_C: IntArray

    @property
    def features(self) -> int:
        """Of a window."""
        return self.x_WD.shape[1]

    def take(self, kept: NDArray[np.int64], prompt_K: IntArray | None = None) -> Windows:
        """The responses numbered ``kept``, with the windows that they use; in answer to other prompts if given."""
        answered_K = self.prompt_C[kept] if prompt_K is None else prompt_K
        used_P, prompt_C = np.unique(answered_K, return_inverse=True)
        texts, prompts = _taken(self.texts, kept), _taken(self.prompts, used_P)
        used_W, place = np.unique(np.concatenate([texts[0], prompts[0]]), return_inverse=True)
        text_W, prompt_W = place[: len(texts[0])], place[len(texts[0]) :]
        found = replace(self, x_WD=self.x_WD[used_W], prompt_C=prompt_C.astype(np.int32))
        return replace(found, texts=(text_W, texts[1]), prompts=(prompt_W, prompts[1]))

    def least(self, weights: Floats) -> Floats:
        """The score of each response (C,); NaN for one that is not read."""
        text_W, prompt_W = (
            _dot(self.x_WD, part_D)[rows]
            for part_D, (rows, _) in zip(np.split(weights[:-1], 2), (self.texts, self.prompts), strict=True)
        )
        return self.texts[1].least(text_W) + self.prompts[1].least(prompt_W)[self.prompt_C] + weights[-1]

    def _values(self, weights: Floats) -> tuple[Floats, Floats]:
        """Of each window of the responses and of the prompts."""
        value_2W = self.x_WD @ weights[:-1].reshape(2, -1).T.astype(np.float32)
        return value_2W[self.texts[0], 0].astype(np.float64), value_2W[self.prompts[0], 1].astype(np.float64)

    def soft_loss(
        self, weights: Floats, safe_C: BoolArray, counts_C: Floats, softness: float, ridge: float
    ) -> tuple[float, Floats]:
        """Penalised log loss of the soft scores, each counted ``counts_C`` times, and its gradient."""
        text_W, prompt_W = self._values(weights)
        text_T, text_I = _soft(self.texts[1], text_W, softness)
        prompt_T, prompt_I = _soft(self.prompts[1], prompt_W, softness)
        sign_C = np.where(safe_C, 1.0, -1.0)
        margin_C = sign_C * (text_T + prompt_T[self.prompt_C] + weights[-1])
        pull_C = -counts_C * sign_C * np.exp(-np.logaddexp(0, margin_C))
        pull_P = np.bincount(self.prompt_C, pull_C, len(prompt_T)).astype(np.float64)
        slope_2D = [
            self._slope(rows, read, share_I, pull_T)
            for (rows, read), share_I, pull_T in ((self.texts, text_I, pull_C), (self.prompts, prompt_I, pull_P))
        ]
        value = counts_C @ np.logaddexp(0, -margin_C) + ridge / 2 * weights[:-1] @ weights[:-1]
        return float(value), np.append(np.concatenate(slope_2D) + ridge * weights[:-1], pull_C.sum())

    def _slope(self, rows: NDArray[np.int64], read: Read, share_I: Floats, pull_T: Floats) -> Floats:
        """The gradient by the weights of these windows, given that by each text's score."""
        pull_I = np.repeat(pull_T, read.many_T) * share_I
        pull_W = np.bincount(rows[read.window_I], pull_I, len(self.x_WD)).astype(np.float32)
        return (pull_W @ self.x_WD).astype(np.float64)


def _dot(x_WD: NDArray[np.float32], weights_D: Floats) -> Floats:
    """Each row times the weights, bit for bit the same whatever the other rows are, unlike a matrix product."""
    value_W = np.empty(len(x_WD))
    for start in range(0, len(x_WD), AT_ONCE):
        value_W[start : start + AT_ONCE] = (x_WD[start : start + AT_ONCE] * weights_D).sum(axis=1)
    return value_W


def _soft(read: Read, value_W: Floats, softness: float) -> tuple[Floats, Floats]:
    """The soft minimum of each text, and the share of each of its windows in it."""
    value_I = value_W[read.window_I] / softness
    least_T = read.reduced(np.minimum, value_I)
    weight_I = np.exp(np.repeat(least_T, read.many_T) - value_I)
    sum_T = read.reduced(np.add, weight_I)
    return softness * (least_T - np.log(sum_T)), weight_I / np.repeat(sum_T, read.many_T)


def fitted(windows: Windows, safe_C: BoolArray, counts_C: Floats, ridges: Sequence[float]) -> dict[float, Floats]:
    """Weights of response, prompt and intercept for each penalty, each fit starting from the one before.

    Response c counts ``counts_C[c]`` times.
    """
    from scipy.optimize import minimize

    found, start = {}, np.zeros(2 * windows.features + 1)
    for ridge in ridges:
        weights = start
        for softness in SOFTNESS:
            args = (safe_C, counts_C, softness, ridge)
            fit = minimize(windows.soft_loss, weights, args, "L-BFGS-B", jac=True, options={"maxiter": STEPS})
            weights = fit.x
        found[ridge] = start = weights
    return found


def _taken(side: tuple[NDArray[np.int64], Read], texts: NDArray) -> tuple[NDArray[np.int64], Read]:
    """The texts numbered ``texts`` of one side."""
    rows, read = side
    many_T = read.many_T[texts]
    start_T = np.concatenate([[0], np.cumsum(many_T)])
    at_I = np.arange(start_T[-1]) + np.repeat(read.start_T[:-1][texts] - start_T[:-1], many_T)
    used_W, window_I = np.unique(read.window_I[at_I], return_inverse=True)
    windows = [read.windows[w] for w in used_W.tolist()]
    return rows[used_W], Read(windows, window_I.astype(np.int32), start_T)
