"""Tests whether people form groups, and whom the aggregate serves badly, both against shuffled votes.

Source: SC10 (worst-user regret) and SC11 (effective number of groups) of the social-choice list. Null: within every
pair the votes are shuffled among the users who judged it. This keeps panels and vote counts, and so the overall
disagreement, but removes what a user's votes have in common. Covered: axes along which users differ, whatever their
cause. Not covered: *why* they differ (a careless user differs from a careful one without any taste). Pairs derived from
a user's ratings depend on each other, which the null ignores; such data are analysed by response instead
(``Votes.stances``).

Suffixes here: ``_K`` panel sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.profiling.minorities import side_with_majority
from polypref.profiling.votes import Ints, Votes
from polypref.stats.estimate import NOT_TESTED, Floats, Tested, against_null

NULL_DRAWS = 99
MIN_VOTES = 10  # users with fewer shared pairs are left out of groups and regret
MAX_USERS = 120  # per connected part of the users: the most active ones
MIN_USERS = 5  # per part; fewer people cannot show groups
MAX_PARTS = 12
DENSE = 0.02  # share of filled cells above which a dense product is faster
SHRINKAGE = 5.0  # pseudo-pairs at agreement 0, so that two users with one shared pair do not look identical


@dataclass(frozen=True)
class Part:
    """One connected part of the users (they share pairs, directly or through others)."""

    n_users: int
    axes: float
    null_axes: float
    groups: int

    def as_dict(self) -> dict[str, float | int]:
        return {"n_users": self.n_users, "axes": self.axes, "null_axes": self.null_axes, "groups": self.groups}


@dataclass(frozen=True)
class Groups:
    """Structure among users, and the aggregate's regret.

    ``axes``     effective number of axes along which users differ, ``exp`` of the entropy of the eigenvalues of their
                 double-centred agreement matrix; mean over the parts, weighted by users. *Fewer* than under the null
                 means groups: a small p says that users are not interchangeable. Two opposed camps are one axis.
    ``strongest_axis`` the largest eigenvalue as a share of their sum; more sensitive to one small camp than ``axes``.
    ``groups``   1 + axes above the null's 95 % (parallel analysis), the largest over the parts; None without a part.
                 A lower limit: three opposed couples are three axes and six groups.
    ``parts``    the analysed parts, largest first.
    ``unit``     what is voted on: "pairs", or "responses" if the judgements are derived from ratings or rankings.
    ``worst_user_regret``   share of the units on which the others' majority decides against the worst-served
                 user, shrunk towards the mean for users with few of them (each counts the same: a convention).
    ``worst_decile_regret`` the same, mean over the worst decile of the users.
    """

    unit: str = "pairs"
    axes: Tested = NOT_TESTED
    strongest_axis: Tested = NOT_TESTED
    groups: int | None = None
    parts: tuple[Part, ...] = field(default=())
    worst_user_regret: Tested = NOT_TESTED
    worst_decile_regret: Tested = NOT_TESTED

    def as_dict(self) -> dict[str, object]:
        return {
            "unit": self.unit,
            "axes": self.axes.as_dict(),
            "strongest_axis": self.strongest_axis.as_dict(),
            "groups": self.groups,
            "parts": [part.as_dict() for part in self.parts],
            "worst_user_regret": self.worst_user_regret.as_dict(),
            "worst_decile_regret": self.worst_decile_regret.as_dict(),
        }


def groups(votes: Votes, *, derived: bool = False, seed: int = 0) -> Groups:
    """Axes, groups and regret of the votes, each against ``NULL_DRAWS`` data sets with the votes shuffled.

    ``derived``: a user's pairs were made from their ratings or rankings.
    """
    unit = "responses" if derived else "pairs"
    votes = (votes.stances() if derived else votes).decided
    votes = votes.take((votes.panel_Y >= 2)[votes.pair_V])
    enough_U = _worth(votes, derived) >= MIN_VOTES
    if not enough_U.any():
        return Groups(unit)
    rng = np.random.default_rng(seed)
    graphs = _parts(votes, enough_U)
    streams = [agreement_spectra(part, rng) for part in graphs]
    spectra = [[next(stream) for stream in streams] for _ in range(1 + NULL_DRAWS)]
    regrets = [regret(votes, enough_U)]
    regrets += [regret(votes.permuted(rng), enough_U) for _ in range(NULL_DRAWS)]
    axes, strongest, parts = _structure([part.n_users for part in graphs], spectra)
    worst, n_users = np.array(regrets), int(enough_U.sum())
    return Groups(
        unit=unit,
        axes=axes,
        strongest_axis=strongest,
        groups=max((part.groups for part in parts), default=None),
        parts=parts,
        worst_user_regret=against_null(worst[0, 0], worst[1:, 0], n_users),
        worst_decile_regret=against_null(worst[0, 1], worst[1:, 1], n_users),
    )


def _worth(votes: Votes, derived: bool) -> Ints:
    """Number of independent votes of each user (U): m - 1 for m responses to a prompt, since stances are relative."""
    worth_U = np.bincount(votes.user_V, minlength=votes.n_users)
    if derived:
        unit_code = np.unique(votes.user_V * (votes.prompt_Y.max(initial=0) + 1) + votes.prompt_Y[votes.pair_V])
        worth_U -= np.bincount(unit_code // (votes.prompt_Y.max(initial=0) + 1), minlength=votes.n_users)
    return worth_U


def _structure(sizes: list[int], spectra: list[list[Floats]]) -> tuple[Tested, Tested, tuple[Part, ...]]:
    """The observed spectra (first) against the null's: axes and strongest axis over all parts, and for each part."""
    axes_BK = np.array([[effective_number(spectrum) for spectrum in draw] for draw in spectra])
    kept = [k for k in range(len(sizes)) if np.isfinite(axes_BK[:, k]).all()]
    if not kept:
        return NOT_TESTED, NOT_TESTED, ()
    first_BK = np.array([[draw[k][0] / draw[k].sum() for k in kept] for draw in spectra])
    weight_K = np.array(sizes, float)[kept]
    n_users, weight_K = int(weight_K.sum()), weight_K / weight_K.sum()
    axes_B, first_B = axes_BK[:, kept] @ weight_K, first_BK @ weight_K
    parts = tuple(
        Part(
            sizes[k], float(axes_BK[0, k]), float(axes_BK[1:, k].mean()), 1 + axes_above([draw[k] for draw in spectra])
        )
        for k in kept
    )
    axes = against_null(axes_B[0], axes_B[1:], n_users, larger_is_extreme=False)
    return axes, against_null(first_B[0], first_B[1:], n_users), parts


def _parts(votes: Votes, enough_U: np.ndarray) -> list[Votes]:
    """The largest connected parts of the users with enough votes, each with its most active users' votes.

    Users are numbered within their part; pairs judged by fewer than two of them are left out.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    votes = votes.take(enough_U[votes.user_V])
    n = votes.n_users + votes.n_pairs
    graph = csr_array((np.ones(len(votes.user_V), np.int8), (votes.user_V, votes.n_users + votes.pair_V)), shape=(n, n))
    part_U = connected_components(graph, directed=False)[1][: votes.n_users]
    activity_U = np.bincount(votes.user_V, minlength=votes.n_users)
    users = np.flatnonzero(activity_U > 0)
    names, sizes = np.unique(part_U[users], return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:MAX_PARTS]
    found = []
    for name in names[largest[sizes[largest] >= MIN_USERS]]:
        members = users[part_U[users] == name]
        members = np.sort(members[np.argsort(-activity_U[members], kind="stable")][:MAX_USERS])
        part = votes.take(np.isin(votes.user_V, members))
        part = part.take((np.bincount(part.pair_V, minlength=part.n_pairs) >= 2)[part.pair_V])
        found.append(part.renumbered())
    return found


def agreement_spectra(votes: Votes, rng: np.random.Generator) -> Iterator[Floats]:
    """The spectrum of the actual votes, then endlessly of shuffled votes.

    The numbers of pairs that users share are the same in all of them.
    """
    shared_UU = _products(votes, np.ones(len(votes.sign_V)))
    while True:
        yield spectrum(_products(votes, votes.sign_V), shared_UU)
        votes = votes.permuted(rng)


def _products(votes: Votes, value_V: NDArray) -> Floats:
    """Sum over shared pairs of the product of two users' values (U, U)."""
    from scipy.sparse import csr_array

    shape = (votes.n_users, votes.n_pairs)
    table: Any = csr_array((value_V.astype(np.float32), (votes.user_V, votes.pair_V)), shape=shape)
    if table.nnz > DENSE * shape[0] * shape[1]:
        dense_UY = table.toarray()
        return (dense_UY @ dense_UY.T).astype(np.float64)
    return (table @ table.T).toarray().astype(np.float64)


def spectrum(together_UU: Floats, shared_UU: Floats) -> Floats:
    """Eigenvalues (descending, negative ones cut to 0) of the users' double-centred agreement matrix.

    Agreement of two users: sum of ``sign * sign`` over their shared pairs, divided by how many those are plus
    ``SHRINKAGE``. A user's agreement with themselves is 1 by construction, not evidence; their mean agreement with the
    others replaces it.
    """
    agreement_UU = together_UU / (shared_UU + SHRINKAGE)
    np.fill_diagonal(agreement_UU, 0.0)
    np.fill_diagonal(agreement_UU, agreement_UU.sum(axis=0) / max(len(agreement_UU) - 1, 1))
    mean_U = agreement_UU.mean(axis=0)
    centred_UU = agreement_UU - mean_U - mean_U[:, None] + mean_U.mean()
    return np.maximum(np.linalg.eigvalsh(centred_UU)[::-1], 0.0)


def effective_number(spectrum: Floats) -> float:
    """``exp`` of the entropy of a spectrum as shares; NaN for an empty one."""
    total = spectrum.sum()
    if total <= 1e-9:
        return np.nan
    share = spectrum[spectrum > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def axes_above(spectra: list[Floats]) -> int:
    """How many leading eigenvalues exceed the null's 95 % quantile at their rank (Horn's parallel analysis)."""
    above: Any = spectra[0] > np.quantile(np.array(spectra[1:]), 0.95, axis=0) + 1e-9
    return int(np.argmin(above)) if not above.all() else len(above)


def regret(votes: Votes, enough_U: np.ndarray) -> tuple[float, float]:
    """Worst user's and worst decile's share of pairs on which the others' majority is against them, shrunk.

    Empirical Bayes: between-user variance by moments; each user's share is shrunk according to their number of pairs.
    """
    agree_V = side_with_majority(votes)[1]
    n_U = np.bincount(votes.user_V, minlength=votes.n_users)[enough_U]
    against_U = np.bincount(votes.user_V, weights=1 - agree_V, minlength=votes.n_users)[enough_U]
    mean, total = against_U.sum() / n_U.sum(), float(n_U.sum())
    binomial = mean * (1 - mean)
    spare = total - float((n_U.astype(float) ** 2).sum()) / total
    between = 0.0
    if spare > 0:
        squares = float((n_U * (against_U / n_U - mean) ** 2).sum())
        between = max(0.0, (squares - (len(n_U) - 1) * binomial) / spare)
    trust_U = between / (between + binomial / n_U) if between > 0 else np.zeros(len(n_U))
    shrunk_U = np.sort(mean + trust_U * (against_U / n_U - mean))[::-1]
    return float(shrunk_U[0]), float(shrunk_U[: max(1, round(len(shrunk_U) / 10))].mean())
