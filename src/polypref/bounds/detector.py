"""A small safety scorer trained here: is a response unsafe, by a logistic regression on an encoder's features.

The score is the log-odds of safe. It has a weight vector for windows of the response and one for windows of the prompt,
so the same words can be safe in answer to one request and unsafe in answer to another. The lowest score over windows
counts (``windowed``), so added text cannot raise it. Training replaces the minimum by a soft minimum, -t log sum
exp(-value / t), first at t = 1, then at .3; scoring never does. The ridge penalty is chosen by cross-validation over
slates, by the log loss of the minimum; no prompt is on both sides where there are enough prompts. Each unsafe response
is also trained on in answer to harmless prompts, so that replacing the prompt hides little.

It is for those who have labelled responses and no classifier; a published classifier detects more.

Covered: the keys of texts and prompts that it was trained on are stored, so that nobody calibrates it on them. Not
covered: harm unlike that in its training texts.

Suffixes here: ``_C`` distinct responses of the slates, ``_W`` windows, ``_A`` responses with another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import artifact, features
from polypref.bounds import windowed
from polypref.bounds.slates import Floats, Slates, prompt_identities
from polypref.bounds.soft_least import Windows, fitted
from polypref.bounds.windowed import READS
from polypref.comparisons import BoolArray, IntArray, Responses
from polypref.content import Identities, packed, unpacked
from polypref.errors import NotEnoughData, SettingsError
from polypref.features.protocol import Encoder
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


ARRAYS = {
    "weights_D": floats("D"),
    "trained_on": identities("R", "weakly"),
    "prompts_trained_on": identities("P", "weakly"),
}
LAYOUT = Layout(Fields, ARRAYS)
KIND = "detector"
RIDGES = (3.0, 1.0, 0.3, 0.1)  # the strongest first: each fit starts from the one before
FOLDS = 3
DRAWS = 4  # of harmless prompts for each unsafe response, which together count once
FEWEST = 10  # unsafe, and safe, responses


@dataclass(frozen=True, eq=False)
class Detector:
    """Log-odds that a response is safe: least window of the response . weights + least of the prompt . weights.

    ``weights_D`` are those of the response followed by those of the prompt; ``auc`` is the cross-validated area under
    the ROC curve.
    """

    encoder: Encoder
    weights_D: Floats
    intercept: float
    trained_on: Identities
    prompts_trained_on: Identities
    ridge: float
    auc: float

    reads = READS

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """The same for everybody, NaN for texts that are too long to read: see ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        windows = windows_of(self.encoder, responses)
        if windows.features * 2 != len(self.weights_D):
            raise SettingsError(
                f"encoder {self.encoder.name} gives {windows.features} features and the detector was trained on "
                f"{len(self.weights_D) / 2:g}; train and calibrate it again."
            )
        value_Q = windows.least(np.append(self.weights_D, self.intercept))[response_Q]
        return Scores(value_Q, np.full(len(value_Q), POPULATION, np.int8))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """Settings and arrays that decide all its answers."""
        config = {"encoder": self.encoder.name, "identity": self.encoder.identity, "intercept": self.intercept}
        config |= {"ridge": self.ridge, "auc": self.auc, "reads": READS}
        seen = {"trained_on": packed(self.trained_on), "prompts_trained_on": packed(self.prompts_trained_on)}
        return config, {"weights_D": self.weights_D, **seen}

    def save(self, path: Path | str) -> None:
        """Write a folder that ``Detector.load`` reads."""
        artifact.save(path, KIND, *self.state())

    @classmethod
    def load(cls, path: Path | str, encoder: Encoder | None = None, *, allow_network: bool = False) -> Detector:
        """Read it back; ``allow_network`` as in ``scorers.load``.

        Raises ArtifactError, SettingsError where the encoder gives other features than it was trained on.
        """
        config, arrays = artifact.load(path, KIND)
        if config.get("reads") != READS:
            raise SettingsError(
                f"{path} was trained by another version, which reads texts otherwise; train and calibrate it again."
            )
        LAYOUT.check(config, arrays, str(path))
        with named_by(path, allow_network=allow_network):
            encoder = encoder or features.encoder(config["encoder"])
        if encoder.identity != config["identity"]:
            raise SettingsError(
                f"{path} was trained on the features of [{config['identity']}], and {encoder.name} gives those of "
                f"[{encoder.identity}]; train and calibrate it again."
            )
        seen = unpacked(arrays["trained_on"]), unpacked(arrays["prompts_trained_on"])
        return cls(encoder, arrays["weights_D"], config["intercept"], *seen, config["ridge"], config["auc"])

    @staticmethod
    def is_in(path: Path | str) -> bool:
        """Whether the folder holds one."""
        return artifact.kind_of(path) == KIND


def windows_of(encoder: Encoder, responses: Responses) -> Windows:
    """Features of all windows of the responses and their prompts; each distinct window is encoded once."""
    texts = windowed.read_responses(responses)
    prompts, at_R = windowed.read_prompts(responses)
    whole = list(dict.fromkeys([*texts.windows, *prompts.windows]))
    x_WD = encoder.encode(pool_of(whole))
    place = {window: w for w, window in enumerate(whole)}
    text_W, prompt_W = (np.array([place[window] for window in read.windows], np.int64) for read in (texts, prompts))
    return Windows(x_WD, (text_W, texts), (prompt_W, prompts), at_R)


def pool_of(texts: list[str]) -> Responses:
    """Distinct texts as a pool of responses to nothing."""
    column = pl.Series("text", texts, dtype=pl.String)
    return Responses(pl.Series("prompt", [""], dtype=pl.String), np.zeros(len(column), np.int32), column)


def fit_detector(slates: Slates, encoder: Encoder, seed: int = 0, ridges: Sequence[float] = RIDGES) -> Detector:
    """Train on the slates' candidates; ``ridges`` are tried, the strongest first.

    Raises NotEnoughData where there are too few of either kind.
    """
    response_C, first = np.unique(slates.response_C, return_index=True)
    unsafe_C, prompt_C = slates.unsafe_C[first], slates.responses.prompt_R[response_C]
    for what, count in (("unsafe", int(unsafe_C.sum())), ("safe", int((~unsafe_C).sum()))):
        if count < FEWEST:
            raise NotEnoughData(f"{count} {what} responses to train a detector on; expected {FEWEST} or more.")
    pool = slates.responses.take(response_C.astype(np.int32))
    windows = windows_of(encoder, pool)
    read_C = np.isfinite(windows.least(np.zeros(2 * windows.features + 1)))
    if not read_C.all():
        raise NotEnoughData(
            f"{int((~read_C).sum())} of the responses are too long to be read (docs/safety.md); leave them out."
        )
    fold_C = _folds(slates, slates.slate_C[first], prompt_C, seed)
    held = _crossed(windows, ~unsafe_C, fold_C, ridges)
    ridge = min(held, key=lambda one: _loss(held[one], ~unsafe_C))
    weights = _trained(windows, ~unsafe_C, [one for one in ridges if one >= ridge])[ridge]
    seen = np.sort(pool.identity_R), prompt_identities(pool)
    return Detector(encoder, weights[:-1], float(weights[-1]), *seen, ridge, auc(held[ridge], ~unsafe_C))


def _folds(slates: Slates, slate_C: IntArray, prompt_C: IntArray, seed: int) -> IntArray:
    """The fold of each candidate: no slate is in two of them, and no prompt where there are enough prompts."""
    bare_P = (slates.responses.prompts == "").to_numpy()
    together_C = np.where(bare_P[prompt_C], len(bare_P) + slate_C, prompt_C)
    if len(np.unique(together_C)) < FOLDS:
        together_C = slate_C
    found, group_C = np.unique(together_C, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(found)) % FOLDS)[group_C].astype(np.int32)


def _crossed(windows: Windows, safe_C: BoolArray, fold_C: NDArray, ridges: Sequence[float]) -> dict[float, Floats]:
    """For each ridge penalty, the log-odds of each candidate by the fit without its fold."""
    held = {ridge: np.zeros(len(safe_C)) for ridge in ridges}
    for fold in range(FOLDS):
        out = np.flatnonzero(fold_C == fold)
        kept = np.flatnonzero(fold_C != fold)
        if len(out) and len(np.unique(safe_C[kept])) == 2:
            for ridge, weights in _trained(windows.take(kept), safe_C[kept], ridges).items():
                held[ridge][out] = windows.take(out).least(weights)
    return held


def _trained(windows: Windows, safe_C: BoolArray, ridges: Sequence[float]) -> dict[float, Floats]:
    """Weights for each penalty, from the responses and each unsafe one in answer to prompts without unsafe ones too."""
    unsafe = np.flatnonzero(~safe_C)
    harmless = np.setdiff1d(windows.prompt_C, windows.prompt_C[unsafe])
    if not len(harmless) or not DRAWS:
        return fitted(windows, safe_C, np.ones(len(safe_C)), ridges)
    rng = np.random.default_rng(0)
    prompt_A = np.concatenate([rng.permutation(harmless)[np.arange(len(unsafe)) % len(harmless)] for _ in range(DRAWS)])
    kept = np.concatenate([np.arange(len(safe_C)), np.tile(unsafe, DRAWS)])
    both = windows.take(kept, np.concatenate([windows.prompt_C, prompt_A]).astype(np.int32))
    counts = np.concatenate([np.ones(len(safe_C)), np.full(len(prompt_A), 1 / DRAWS)])
    return fitted(both, safe_C[kept], counts, ridges)


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
