"""Chooses the next question for a new person: the one whose answer is most informative about their weights.

Method: expected information gain (Houlsby et al. 2011, "Bayesian active learning for classification and preference
learning") under the posterior of ``hierarchical``. A user's weights are N(m, S). For two texts whose inputs differ by
x, with a the difference of their shared effects and v the variance of the user's own views of these two,

    gain = H(E p) - E H(p),   p = sigmoid(k (x . w + a)),   k = 1 / sqrt(1 + pi v / 8)

in nats. x . w is one normal number, so both expectations are sums over Gauss-Hermite nodes. Views of single texts are
noise here: they carry no information about other texts. An answer is a rank-one update of N(m, S): x . w gets its mean
and variance given the answer (assumed-density filtering, by the same nodes), and w the consequence of that.

What we changed: if several questions are chosen before any is answered, S shrinks by its expected amount.

Covered: any number of candidates, in one pass over them per question. Not covered: that a text in several candidates is
judged consistently.

Suffixes here: ``_V`` new users, ``_X`` nodes of the quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, xlogy

from polypref import content
from polypref.comparisons import Comparisons
from polypref.errors import NotEnoughData, SettingsError
from polypref.learners.protocol import Scorer
from polypref.newcomers.hold_out import Newcomers

Floats = NDArray[np.floating]
NODES = 20


@dataclass(frozen=True, eq=False)
class Outlook:
    """A scorer's distribution of C comparisons for one user: the reward difference is x . w + a + views, w ~ N(m, S).

    ``x_CK`` inputs; ``mean_C`` of x . w + a; ``covariance_KK`` of w; ``view_C`` variance of the views' difference.
    """

    x_CK: Floats
    mean_C: Floats
    covariance_KK: Floats
    view_C: Floats


@runtime_checkable
class Asks(Protocol):
    """Only scorers with a posterior of a user's weights, also for strangers."""

    def outlook(self, user_id: str, candidates: Comparisons) -> tuple[Floats, Floats, Floats, Floats]:
        """The fields of ``Outlook``, in its order, for ``candidates``; their labels are ignored."""
        ...


def next_question(scorer: Scorer, user_id: str, candidates: Comparisons) -> int:
    """The number of the candidate (two texts each, labels are ignored) to ask user ``user_id`` next."""
    return int(questions(scorer, user_id, candidates, 1)[0])


def questions(scorer: Scorer, user_id: str, candidates: Comparisons, count: int) -> NDArray[np.int64]:
    """The numbers of the ``count`` candidates to ask together, the most informative first.

    If no question is informative, the first candidates. Raises SettingsError for a scorer without a posterior or a
    count below 1, NotEnoughData if there are fewer candidates.
    """
    if not isinstance(scorer, Asks):
        raise SettingsError(
            f"a scorer of kind {scorer.kind!r} has no posterior to choose questions by; fit 'hierarchical'."
        )
    if count < 1:
        raise SettingsError(f"{count} questions cannot be chosen; expected 1 or more.")
    if count > len(candidates):
        raise NotEnoughData(f"{count} questions cannot be chosen from {len(candidates)} candidates; add candidates.")
    return order(Outlook(*scorer.outlook(content.one_id(user_id), candidates)), count)


def order(outlook: Outlook, count: int, label_C: Floats | None = None) -> NDArray[np.int64]:
    """The ``count`` most informative candidates, chosen one by one.

    ``label_C``  the user's answer to each (1 the first text, 0 the other, one half a tie), used before the next
                 question is chosen; None: no answers are used.
    """
    noise_C = 1.0 / np.sqrt(1.0 + np.pi * outlook.view_C / 8.0)
    mean_C, image_CK = outlook.mean_C.copy(), outlook.x_CK @ outlook.covariance_KK
    variance_C = np.maximum((image_CK * outlook.x_CK).sum(axis=1), 0.0)
    open_C, chosen = np.ones(len(mean_C), bool), []
    for _ in range(count):
        gain_C = np.where(open_C, information(mean_C, variance_C, noise_C), -1.0)
        best = int(gain_C.argmax())
        chosen.append(best)
        open_C[best] = False
        if variance_C[best] <= 1e-12:
            continue
        label = None if label_C is None else float(label_C[best])
        shift, left = _heard(mean_C[best], variance_C[best], noise_C[best], label)
        share_C = outlook.x_CK @ image_CK[best] / variance_C[best]
        mean_C += share_C * shift
        shrunk = (variance_C[best] - left) * share_C
        image_CK -= np.outer(shrunk, image_CK[best] / variance_C[best])
        variance_C = np.maximum(variance_C - shrunk * share_C, 0.0)
    return np.array(chosen, np.int64)


def information(mean_C: Floats, variance_C: Floats, noise_C: Floats | float = 1.0) -> Floats:
    """Expected information (C,), in nats, of a choice between two texts about a margin that is N(mean, variance)."""
    node_X, weight_X = _nodes()
    size_C = np.abs(mean_C)  # the order of the two texts must not matter, not even in the last bits
    p_CX = expit(np.asarray(noise_C)[..., None] * (size_C[:, None] + np.sqrt(variance_C)[:, None] * node_X))
    return np.maximum(_entropy(p_CX @ weight_X) - _entropy(p_CX) @ weight_X, 0.0)


def _entropy(p: Floats) -> Floats:
    return -xlogy(p, p) - xlogy(1 - p, 1 - p)


def _nodes() -> tuple[Floats, Floats]:
    """Nodes and weights of the quadrature for a standard normal number."""
    node_X, weight_X = np.polynomial.hermite_e.hermegauss(NODES)
    return node_X, weight_X / weight_X.sum()


def _heard(mean: float, variance: float, noise: float, label: float | None) -> tuple[float, float]:
    """The shift of the mean of a margin that is N(mean, variance) by an answer, and the remaining variance.

    Without a label: no shift, and the mean remaining variance over both answers.
    """
    node_X, weight_X = _nodes()
    shift_X = np.sqrt(variance) * node_X
    answers = (1.0, 0.0) if label is None else (label,)
    mean = abs(mean) if label is None else mean
    total, left = 0.0, 0.0
    shift = 0.0
    for y in answers:
        scaled_X = noise * (mean + shift_X)
        likely_X = weight_X * np.exp(y * log_expit(scaled_X) + (1.0 - y) * log_expit(-scaled_X))
        chance = float(likely_X.sum())
        moved = float(likely_X @ shift_X) / chance
        total += chance
        left += chance * (float(likely_X @ shift_X**2) / chance - moved**2)
        shift = moved
    return (0.0 if label is None else shift), left / total


def asked_order(scorer: Scorer, comparisons: Comparisons, cut: Newcomers, most: int) -> Newcomers:
    """The same new users, each of whom gives their first ``most`` comparisons in the order chosen by the posterior.

    The candidates are the comparisons that the user judged; an answer is used before the next question is chosen.
    """
    assert isinstance(scorer, Asks)
    parts = []
    for v in range(len(cut.users_V)):
        rows = cut.few(v, None)
        candidates = comparisons.take(rows)
        outlook = Outlook(*scorer.outlook(comparisons.users.ids[int(cut.users_V[v])], candidates))
        first = order(outlook, min(most, len(rows)), candidates.label_N)
        parts += [rows[first], np.delete(rows, first)]
    return replace(cut, few_rows=np.concatenate([np.zeros(0, np.int64), *parts]))
