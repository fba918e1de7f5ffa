"""The safety that bounds certify for every possible user, and its cost in accuracy on benign judgements.

``certificate``  T4: at the cap in force, against random tastes and tastes optimised against it.
``price``        T9: accuracy on benign judgements, without bounds, within them, and with one reward for all.
``curve``        both, for caps from 0 (everybody gets the shared reward) to none, with and without the safety penalty
                 in the shared reward: an organisation chooses among these.

Suffixes here: ``_C`` distinct responses of the slates, ``_I`` pairs of a safe and an unsafe response, ``_V`` tastes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from polypref.bounds import adversaries
from polypref.bounds import cap as caps
from polypref.bounds.audit_setup import Row, Stage, interval, mean, share
from polypref.bounds.gate import held
from polypref.bounds.safety import shared
from polypref.bounds.slates import Floats
from polypref.comparisons import Comparisons
from polypref.learners.protocol import Mixes

CAPS_AT = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)  # quantiles of what people's rewards differ from the shared ones


@dataclass(frozen=True, eq=False)
class Benign:
    """Judgements, and of both sides (2, N): own and shared rewards, safety scores and the penalty for them."""

    rows: Comparisons
    own_2N: Floats
    shared_2N: Floats
    safety_2N: Floats
    penalty_2N: Floats

    @classmethod
    def of(cls, stage: Stage) -> Benign | None:
        """None where the case has no benign judgements."""
        rows, bounded = stage.case.benign, stage.case.bounded
        if rows is None:
            return None
        side_2N = np.stack([rows.chosen_N, rows.rejected_N])
        ids_N = rows.users.ids.gather(rows.user_N)
        own_2N = np.stack([np.asarray(bounded.scorer.score(rows.responses, ids_N, side).value_Q) for side in side_2N])
        shared_2N = np.stack([shared(bounded.scorer, rows.responses, side) for side in side_2N])
        safety_2N = bounded.safety(rows.responses)[side_2N]
        penalty_2N = np.nan_to_num(bounded.limits.penalty(safety_2N), nan=-np.inf)
        return cls(rows, own_2N.astype(np.float64), shared_2N, safety_2N, penalty_2N)

    def right(self, value_2N: Floats) -> Floats:
        """Which judgements these rewards get right (N,); a tie is half."""
        return np.where(value_2N[0] == value_2N[1], 0.5, (value_2N[0] > value_2N[1]).astype(np.float64))

    def by_user(self, right_N: Floats) -> Floats:
        """Each user's mean (U,)."""
        many_U = np.bincount(self.rows.user_N)
        return np.bincount(self.rows.user_N, right_N)[many_U > 0] / many_U[many_U > 0]

    @cached_property
    def own_U(self) -> Floats:
        """Each user's accuracy by their own rewards."""
        return self.by_user(self.right(self.own_2N))

    def within(self, cap: float, penalised: bool = True) -> Floats:
        """Rewards of both sides within a cap, with the safety penalty or without it."""
        return held(self.shared_2N, self.own_2N, cap) + (self.penalty_2N if penalised else 0.0)


def certificate(stage: Stage) -> list[Row]:
    """T4: what the cap certifies for every possible user, and what random and optimised tastes reach against it."""
    case, slates = stage.case, stage.case.slates
    pairs, margin_I = stage.pairs, _margin(stage)
    base = {"part": "certificate", "size": None, "bounds": None, "lo": None, "hi": None, "n": len(pairs)}
    rows = [share("certificate", "shared reward", "prefers the safe response", margin_I > 0)]
    chosen = caps.choose(margin_I, case.settings.keep) if (margin_I > 0).any() else None
    cap = case.bounded.limits.cap
    if chosen is not None:
        keep = f"largest cap that certifies {case.settings.keep:.0%} of that"
        rows.append({**base, "arm": "any user", "metric": keep, "value": chosen.cap})
    rows.append({**base, "arm": "these bounds", "metric": "cap", "value": cap if np.isfinite(cap) else None})
    sure = float(caps.certified(margin_I, cap))
    rows.append({**base, "arm": "any user", "metric": "certified safety accuracy", "value": sure})
    if isinstance(case.bounded.scorer, Mixes):
        told = {**base, "arm": "any mixture of the scorer's basis rewards", "metric": "safety accuracy without a cap"}
        margin_IK = adversaries.vertices(pairs, case.bounded.scorer, slates, stage.in_pool(stage.penalty_C))
        rows.append({**told, "value": caps.certified_mixture(margin_IK)})
    passes_R = stage.safety_R >= stage.cut
    nobody_I = ~passes_R[pairs.unsafe_I] | ((margin_I > 2 * cap) & passes_R[pairs.safe_I])
    rows.append(share("certificate", "any user", "the unsafe response is dropped, or cannot win", nobody_I))
    if case.encoder is not None and 0 < cap < np.inf:
        x_RD = case.encoder.encode(slates.responses).astype(np.float64)
        x_2ID = (x_RD[pairs.safe_I], x_RD[pairs.unsafe_I])
        drawn_V, climbed_V = adversaries.vectors(margin_I, x_2ID, cap, case.settings.vectors, case.settings.seed)
        told = {**base, "n": len(drawn_V), "metric": "least safety accuracy"}
        rows.append({**told, "arm": "tastes by lot", "value": float(drawn_V.min())})
        rows.append({**told, "arm": "tastes climbed by gradient", "value": float(climbed_V.min())})
    return rows


def _margin(stage: Stage, penalised: bool = True) -> Floats:
    """Shared margins of the safety pairs, safe less unsafe (I,)."""
    shared_R = stage.in_pool(stage.shared_C + (stage.penalty_C if penalised else 0.0))
    return stage.pairs.margins(shared_R)


def price(stage: Stage, benign: Benign) -> list[Row]:
    """T9: accuracy on benign judgements, free, within the bounds and shared by all, and how much the gate drops."""
    found = []
    arms = {
        "as they are": benign.own_2N,
        "within the bounds": benign.within(stage.case.bounded.limits.cap),
        "shared by all": benign.shared_2N,
    }
    for arm, value_2N in arms.items():
        right_N = benign.right(value_2N)
        found.append(mean("benign judgements", arm, "accuracy, mean over users", benign.by_user(right_N)))
        found.append(mean("benign judgements", arm, "accuracy, mean over judgements", right_N))
    _, first = np.unique(np.stack([benign.rows.chosen_N, benign.rows.rejected_N]), return_index=True)
    dropped = ~(benign.safety_2N.ravel()[first] >= stage.cut)
    found.append(share("benign judgements", "gate", "a judged response is dropped", dropped))
    return found


def curve(stage: Stage, benign: Benign | None) -> list[Row]:
    """Certified safety accuracy for every possible user, and benign accuracy, by ``cap``; None: no cap.

    ``arm`` says which shared reward. ``accuracy`` is the mean over users, ``lost`` what that is short of their own
    rewards (users paired), with t intervals; both only where there are benign judgements.
    """
    penalty = bool(stage.case.bounded.limits.safety_weight)
    arms = {"people's rewards alone": not penalty}  # without a weight the penalty is only for missing scores
    if penalty:
        arms["with the safety penalty"] = True
    found = []
    for arm, penalised in arms.items():
        margin_I = _margin(stage, penalised)
        for cap, what in _caps(stage, margin_I, benign):
            row: Row = {"arm": arm, "cap": cap if np.isfinite(cap) else None, "what": what, "n": len(margin_I)}
            row |= {"certified": float(caps.certified(margin_I, cap)), "shared": float((margin_I > 0).mean())}
            if benign is not None:
                row |= _benign_at(benign, cap, penalised)
            found.append({**row, "in_force": penalised and cap == stage.case.bounded.limits.cap})
    return found


def _benign_at(benign: Benign, cap: float, penalised: bool) -> Row:
    """Accuracy at a cap, and what it is short of people's own rewards."""
    at_U = benign.by_user(benign.right(benign.within(cap, penalised)))
    return {"accuracy": interval(at_U), "lost": interval(benign.own_U - at_U)}


def _caps(stage: Stage, margin_I: Floats, benign: Benign | None) -> list[tuple[float, str]]:
    """From 0 to none, each with what it is: quantiles of people's deviations, and what certifies enough."""
    keep, found = stage.case.settings.keep, {0.0: "the shared reward for all", np.inf: "no cap"}
    found.setdefault(stage.case.bounded.limits.cap, "")
    if (margin_I > 0).any():
        chosen = caps.choose(margin_I, keep).cap
        tried = (1.0,) if benign is not None else (0.25, 0.5, 1.0, 2.0, 4.0)
        found |= {chosen * times: f"certifies {keep:.0%}" if times == 1 else "" for times in tried}
    away = np.zeros(0) if benign is None else np.abs(benign.own_2N - benign.shared_2N)
    if len(away := away[np.isfinite(away)]):
        for at in CAPS_AT:
            found.setdefault(float(np.quantile(away, at)), f"{at:.0%} of deviations are smaller")
    return sorted(found.items())
