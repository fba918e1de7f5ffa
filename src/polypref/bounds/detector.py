"""A small safety scorer trained here: is a response unsafe, by a logistic regression on an encoder's features.

Log-odds of safe, ridge penalty by cross-validation over slates (no slate is on both sides). It reads the response and
what was asked, each by itself: how to kill a process and how to kill a person are answered in much the same words. For
those who have labelled responses and no classifier; a published one sees more.

Covered: the texts it has seen are kept by key, so that nobody calibrates it on them. Not covered: harm unlike that of
its training texts.

Suffixes here: ``_C`` distinct responses of the slates, ``_L`` slates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref import artifact, features
from polypref.bounds.slates import Floats, Slates
from polypref.comparisons import IntArray, Responses
from polypref.content import Identities, packed, unpacked
from polypref.errors import NotEnoughData, SettingsError
from polypref.features.protocol import Encoder
from polypref.learners import prompt_inputs
from polypref.learners.protocol import POPULATION, Scores, UserIds, resolved
from polypref.network_access import named_by
from polypref.schema import Layout, floats, identities


class Fields(TypedDict):
    """Settings that a saved detector has."""

    encoder: str
    identity: str
    intercept: float
    ridge: float
    auc: float
    reads: str


LAYOUT = Layout(Fields, {"weights_D": floats("D"), "trained_on": identities("R", "weakly")})
KIND, READS = "detector", "response, prompt"
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5
FEWEST = 10  # unsafe, and safe, responses


@dataclass(frozen=True, eq=False)
class Detector:
    """Log-odds that a response is safe: ``inputs_of . weights_D + intercept``; ``auc`` is the cross-validated one."""

    encoder: Encoder
    weights_D: Floats
    intercept: float
    trained_on: Identities
    ridge: float
    auc: float

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """The same for everybody: see ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        x_RD = inputs_of(self.encoder, responses)
        if x_RD.shape[1] != len(self.weights_D):
            raise SettingsError(
                f"encoder {self.encoder.name} gives {x_RD.shape[1] // 2} features and the detector was trained on "
                f"{len(self.weights_D) / 2:g}; train and calibrate it again."
            )
        value_R = x_RD @ self.weights_D + self.intercept
        value_Q = value_R[response_Q]
        return Scores(value_Q, np.full(len(value_Q), POPULATION, np.int8))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """Settings and arrays that decide all its answers."""
        config = {"encoder": self.encoder.name, "identity": self.encoder.identity, "intercept": self.intercept}
        config |= {"ridge": self.ridge, "auc": self.auc, "reads": READS}
        return config, {"weights_D": self.weights_D, "trained_on": packed(self.trained_on)}

    def save(self, path: Path | str) -> None:
        """Write a folder that ``Detector.load`` reads."""
        artifact.save(path, KIND, *self.state())

    @classmethod
    def load(cls, path: Path | str, encoder: Encoder | None = None, *, allow_network: bool = False) -> Detector:
        """Read it back; ``allow_network`` as in ``scorers.load``.

        Raises ArtifactError, SettingsError where the encoder gives other features than it was trained on.
        """
        config, arrays = artifact.load(path, KIND)
        LAYOUT.check(config, arrays, str(path))
        with named_by(path, allow_network=allow_network):
            encoder = encoder or features.encoder(config["encoder"])
        if encoder.identity != config["identity"]:
            raise SettingsError(
                f"{path} was trained on the features of [{config['identity']}], and {encoder.name} gives those of "
                f"[{encoder.identity}]; train and calibrate it again."
            )
        if config["reads"] != READS:
            raise SettingsError(
                f"{path} was trained by another version, on other inputs; train and calibrate it again."
            )
        trained = unpacked(arrays["trained_on"]), config["ridge"], config["auc"]
        return cls(encoder, arrays["weights_D"], config["intercept"], *trained)

    @staticmethod
    def is_in(path: Path | str) -> bool:
        """Whether the folder holds one."""
        return artifact.kind_of(path) == KIND


def inputs_of(encoder: Encoder, responses: Responses) -> Floats:
    """Features of each response beside those of its prompt (R, 2 D)."""
    prompt_PD, at_R = prompt_inputs.encoded(encoder, responses)
    return np.concatenate([encoder.encode(responses), prompt_PD[at_R]], axis=1).astype(np.float64)


def fit_detector(slates: Slates, encoder: Encoder, seed: int = 0) -> Detector:
    """Train on the slates' candidates. Raises NotEnoughData where there are too few of either kind."""
    response_C, first = np.unique(slates.response_C, return_index=True)
    unsafe_C, slate_C = slates.unsafe_C[first], slates.slate_C[first]
    for what, count in (("unsafe", int(unsafe_C.sum())), ("safe", int((~unsafe_C).sum()))):
        if count < FEWEST:
            raise NotEnoughData(f"{count} {what} responses to train a detector on; expected {FEWEST} or more.")
    x_CD = inputs_of(encoder, slates.responses)[response_C]
    fold_L = np.random.default_rng(seed).permutation(len(slates)) % FOLDS
    fold_C = fold_L[slate_C]
    held = {ridge: _crossed(x_CD, ~unsafe_C, fold_C, ridge) for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda one: _loss(held[one], ~unsafe_C))
    weights_D, intercept = solve(x_CD, ~unsafe_C, ridge)
    seen = np.sort(slates.responses.identity_R[response_C])
    return Detector(encoder, weights_D, intercept, seen, ridge, auc(held[ridge], ~unsafe_C))


def _crossed(x_CD: Floats, safe_C: NDArray[np.bool_], fold_C: NDArray, ridge: float) -> Floats:
    """Log-odds of each candidate by the fit without its fold."""
    value_C = np.zeros(len(x_CD))
    for fold in range(FOLDS):
        held = fold_C == fold
        if held.any() and len(np.unique(safe_C[~held])) == 2:
            weights_D, intercept = solve(x_CD[~held], safe_C[~held], ridge)
            value_C[held] = x_CD[held] @ weights_D + intercept
    return value_C


def solve(x_CD: Floats, safe_C: NDArray[np.bool_], ridge: float) -> tuple[Floats, float]:
    """Weights and intercept of the log-odds of safe."""
    from scipy.optimize import minimize

    sign_C = np.where(safe_C, 1.0, -1.0)

    def loss(w: Floats) -> tuple[float, Floats]:
        margin_C = sign_C * (x_CD @ w[:-1] + w[-1])
        pull_C = -sign_C * np.exp(-np.logaddexp(0, margin_C))
        value = np.logaddexp(0, -margin_C).sum() + ridge / 2 * w[:-1] @ w[:-1]
        return float(value), np.append(x_CD.T @ pull_C + ridge * w[:-1], pull_C.sum())

    found = minimize(loss, np.zeros(x_CD.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return found.x[:-1], float(found.x[-1])


def _loss(value_C: Floats, safe_C: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(safe_C, -value_C, value_C)).mean())


def auc(value_C: Floats, safe_C: NDArray[np.bool_]) -> float:
    """Chance that a safe response scores above an unsafe one; ties count one half."""
    from scipy.stats import rankdata

    rank_C = rankdata(value_C)
    safe = int(safe_C.sum())
    return float((rank_C[safe_C].sum() - safe * (safe + 1) / 2) / (safe * (len(safe_C) - safe)))
