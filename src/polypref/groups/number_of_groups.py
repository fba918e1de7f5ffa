"""Chooses the number of groups: mixtures of 1 to ``most`` groups are compared on held-out answers.

Each user's judgements are split: one part gives the user's group shares, the rest is predicted by the mixture of the
groups' rewards with those shares, log sum_p share_up P_p(answer). Rows are held out for *this user* only: others'
answers about the same texts stay, since a group is what its members have in common. If judgements were made one by one,
each pair of a user is on one side. If they were made from votes, ratings or rankings, and so imply each other, each
text is on one side (judgements of a held-out and a kept text are left out).

There are groups if the best number above one predicts better than one group, by two standard errors of the paired
difference and by ``WORTH``; then the smallest number within one standard error of the best is chosen (Breiman et al.
1984). The standard error is clustered by user and by pair. Prior variances are chosen on the first fold, those of the
shared reward with one group, then those of the deviations with two. Because deviations sum to zero, more groups cannot
win by making the shared reward more flexible.

Not covered: training rows overlap between folds; continua. People who differ without forming groups are divided into as
many groups as predict well, up to ``most``.

Suffixes here: ``_T`` texts that several users judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from polypref.comparisons import Comparisons
from polypref.groups.mixture import Fitted, Floats, Ints, Scales, Votes, alone, best_of, shares
from polypref.learners.likelihood import surprise

WEIGHTS, TEXTS = (0.3, 3.0, 30.0), (0.0, 0.3, 3.0)  # prior variances tried
EVIDENCE = (1.0, 0.7, 0.5, 0.3, 0.15)  # powers of a user's likelihood to try
HELD = 0.35  # share of a user's texts held out where judgements imply each other
WORTH = 1e-3  # minimum gain of groups in nats per answer: less is useless, even if significant
SURE = 2.0  # standard errors by which groups must predict better than one group
PATIENCE = 2  # larger numbers of groups tried after the best one before the search ends
FEWEST = 5  # minimum users per group


@dataclass(frozen=True)
class Row:
    """Mean log likelihood of a held-out answer under ``groups`` groups, its gain over one group, the gain's error."""

    groups: int
    log_likelihood: float
    gain: float
    se: float


@dataclass(frozen=True, eq=False)
class Judgements:
    """The judgements of U users about R texts: ``user_N``, the texts' numbers and inputs."""

    rows: Comparisons
    user_N: Ints
    users: int
    response_R: Ints
    x_RK: Floats
    derived: bool

    def votes(self, at: NDArray | slice = slice(None)) -> Votes:
        """The judgements numbered ``at`` as votes."""
        rows = self.rows if isinstance(at, slice) else self.rows.take(at)
        return Votes.of(rows, self.user_N[at], self.users, (self.response_R, self.x_RK), self.derived)


@dataclass(frozen=True, eq=False)
class Fold:
    """Votes to learn from, and the held-out answers: user, texts, label, weight and pair of each."""

    votes: Votes
    user_H: Ints
    chosen_H: Ints
    rejected_H: Ints
    label_H: Floats
    weight_H: Floats
    pair_H: Ints

    def predicted(self, fitted: Fitted, evidence: float = 1.0) -> Floats:
        """Log likelihood (H,) of the held-out answers."""
        log_UG = np.log(fitted.size_G) + evidence * self.votes.log_likelihood(fitted.reward_RG)
        margin_HG = fitted.reward_RG[self.chosen_H] - fitted.reward_RG[self.rejected_H]
        log_HG = np.log(np.maximum(shares(log_UG), 1e-300))[self.user_H] - surprise(margin_HG, self.label_H[:, None])
        return np.asarray(logsumexp(log_HG, axis=1))


def folds(judged: Judgements, count: int, seed: int) -> list[Fold]:
    """``count`` splits of every user's judgements (see the module docstring); fewer if a side would be empty."""
    rows, found = judged.rows, []
    pair_N = np.unique(rows.pair_key_N, return_inverse=True)[1]
    place = np.full(len(rows.responses), -1, np.int32)
    place[judged.response_R] = np.arange(len(judged.response_R))
    for kept, held in splits(rows, judged.user_N, judged.derived, count, seed):
        if len(held) and len(kept):
            cut = rows.take(held)
            texts = place[cut.chosen_N], place[cut.rejected_N]
            held_out = (judged.user_N[held], *texts, cut.label_N, cut.weights_N, pair_N[held])
            found.append(Fold(judged.votes(kept), *held_out))
    return found


def splits(rows: Comparisons, user_N: Ints, derived: bool, count: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """``count`` times the numbers of kept and of held-out judgements, see the module docstring."""
    key_R, user_key_N = rows.responses.keys_R, _mix(user_N.astype(np.uint64) + np.uint64(seed % 2**32 << 20))
    for fold in range(count):
        if derived:
            sides = [_unit(key_R[end_N], user_key_N, fold) < HELD for end_N in (rows.chosen_N, rows.rejected_N)]
            held_N, kept_N = sides[0] & sides[1], ~sides[0] & ~sides[1]
        else:  # the folds have no judgement in common
            unit_N = _unit(rows.pair_key_N, user_key_N, 0)
            held_N = (unit_N >= fold / count) & (unit_N < (fold + 1) / count)
            kept_N = ~held_N
        yield np.flatnonzero(kept_N), np.flatnonzero(held_N & (rows.weights_N > 0))


def _unit(key_N: NDArray[np.uint64], user_key_N: NDArray[np.uint64], fold: int) -> Floats:
    """A number from 0 to 1 for each (user, content) and fold."""
    return (_mix(key_N ^ _mix(user_key_N + np.uint64(fold))) >> np.uint64(11)) / 2.0**53


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Search:
    """The choice by held-out answers, and their likelihood for each number of groups."""

    groups: int
    scales: Scales
    evidence: float
    tried: tuple[Row, ...]


def search(judged: Judgements, numbers: Sequence[int], cuts: list[Fold], restarts: int, seed: int) -> Search:
    """Choose variances, the number of groups among ``numbers``, and how much a user's answers count."""
    if not cuts:
        return Search(min(numbers), Scales(), 1.0, ())
    weight_H = np.concatenate([cut.weight_H for cut in cuts])

    def predicted(found: list[Fitted], evidence: float = 1.0) -> Floats:
        return np.concatenate([cut.predicted(one, evidence) for cut, one in zip(cuts, found, strict=True)])

    def mean(log_H: Floats) -> float:
        return float(np.average(log_H, weights=weight_H))

    scales = _scales(cuts[0], max(numbers) > 1, seed)
    everyone = [alone(cut.votes, scales) for cut in cuts]
    alone_H = predicted(everyone)
    runs: dict[int, list[Fitted]] = {}
    tried = [Row(1, mean(alone_H), 0.0, 0.0)]
    for groups in sorted(set(numbers) - {1}):
        runs[groups] = [
            best_of(cut.votes, scales, one, groups, restarts, seed) for cut, one in zip(cuts, everyone, strict=True)
        ]
        gain_H = predicted(runs[groups]) - alone_H
        tried.append(Row(groups, mean(alone_H + gain_H), mean(gain_H), standard_error(gain_H, weight_H, cuts)))
        if groups - max(tried, key=lambda row: row.gain).groups >= PATIENCE:
            break
    chosen = choose(tried) if len(numbers) > 1 else numbers[0]
    evidence = max(EVIDENCE, key=lambda e: mean(predicted(runs[chosen], e))) if chosen > 1 else 1.0
    return Search(chosen, scales, evidence, tuple(tried))


def choose(tried: Sequence[Row]) -> int:
    """One group unless the best larger number is surely better; then the smallest within a standard error of it."""
    best = max(tried, key=lambda row: row.gain)
    if best.gain <= max(SURE * best.se, WORTH):
        return 1
    return min(row.groups for row in tried if row.groups > 1 and row.gain >= best.gain - max(best.se, WORTH))


def _scales(cut: Fold, several: bool, seed: int) -> Scales:
    """Variances of the shared reward by held-out answers with one group, then those of the deviations with two."""

    def loss(fitted: Fitted) -> float:
        return -float(np.average(cut.predicted(fitted), weights=cut.weight_H))

    votes, texts = cut.votes, TEXTS if len(cut.votes.shared_T) else TEXTS[:1]
    scales = min((Scales(weights=v) for v in WEIGHTS), key=lambda tried: loss(alone(votes, tried)))
    scales = min((replace(scales, texts=v) for v in texts), key=lambda tried: loss(alone(votes, tried)))
    if not several:
        return scales
    everyone = alone(votes, scales)

    def two(tried: Scales) -> float:
        return loss(best_of(votes, tried, everyone, 2, 1, seed))

    scales = min((replace(scales, group_weights=v) for v in WEIGHTS), key=two)
    return min((replace(scales, group_texts=v) for v in texts), key=two)


def standard_error(gain_H: Floats, weight_H: Floats, cuts: list[Fold]) -> float:
    """Standard error of the weighted mean gain: sums over users and over pairs (Cameron, Gelbach and Miller 2011)."""
    centred_H = weight_H * (gain_H - np.average(gain_H, weights=weight_H)) / weight_H.sum()
    by_user = np.bincount(np.concatenate([cut.user_H for cut in cuts]), centred_H)
    by_pair = np.bincount(np.concatenate([cut.pair_H for cut in cuts]), centred_H)
    user, pair, row = (float((sums**2).sum()) for sums in (by_user, by_pair, centred_H))
    return float(np.sqrt(max(user, pair, user + pair - row)))
