"""The personalization tax: the general ability that a personalized reward loses, split into forgetting by tuning and
personalization.

Sources: Dong et al. 2025, "When Personalization Meets Reality" (RewardBench before and after); the decomposition, the
controls and the intervals are ours, because the paper's difference before - after mixes both parts. With Acc the score
of an arm on a section of a benchmark,

    Acc(base) - Acc(user) = [Acc(base) - Acc(pooled)] + [Acc(pooled) - Acc(user)]
            total         =        forgetting         +      personalization

``base`` is a reward that saw none of these judgements: a saved scorer or a published reward model. Learners on a frozen
encoder have no such reward; without one, forgetting and total are absent, not 0. ``pooled`` is the same fit for
everyone alike. ``shuffled`` is the personalized learner on the same judgements with permuted user ids: the cost of the
method itself, so personal minus shuffled, by user, is the cost of the ``person``. ``generic`` is the personalized
scorer's answer to a stranger, ``no user`` its answer without a user. The score of length alone is also given.
Sycophancy has a tax of the same form: how much more often a user's reward than the pooled one prefers a false answer
that agrees with the user.

If the arm that users are measured against is not significantly better than chance, the verdict is "nothing to lose".

Covered: arms fitted on the same rows with the same encoder; gains on rows that no arm has seen. Not covered: policies;
users other than those with most judgements; other random shuffles of users; other encoders, or batch sizes that change
scores.

Suffixes here: ``_A`` arms, ``_F`` sections of a benchmark, ``_V`` units of a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons
from polypref.data.benchmarks import Suite
from polypref.evaluation.results_schema import plain
from polypref.learners.protocol import margins
from polypref.profiling.minorities import minorities
from polypref.profiling.votes import votes
from polypref.runs.machine import versions
from polypref.stats.bootstrap import Ends, Resampled, detectable, holm, verdict
from polypref.stats.cluster_robust import Clusters
from polypref.stats.metrics import HeldOut
from polypref.stats.per_user import per_user, users_table
from polypref.tax.arms import GENERIC, NOBODY, Arms, Floats, Task, rewards, taxed_users
from polypref.tax.conclusion import conclusion
from polypref.tax.rewardbench import Benchmark, Scheme, other_counts, own_sections, scheme_of

SCHEMA = 1
SURE = 0.05

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Board:
    """All arms on one benchmark: ``at`` gives the numbers of an arm's scores, one per user if it knows users.

    The averaged value is harm: the share of items lost, or of false answers preferred.
    """

    harm: Resampled
    scheme: Scheme
    at: Mapping[str, NDArray[np.int64]]
    tied_A: Floats
    chance_F: Floats | None = None
    """The score of random rewards; None if harm is not a lost item."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The sections, then the summaries over them."""
        return self.scheme.rows

    @property
    def sections(self) -> tuple[str, ...]:
        return self.scheme.sections

    def scores(self) -> list[Row]:
        """Each arm's score with its interval, the mean over its users if several: share of items won, or harm."""
        found = []
        for arm, arms in self.at.items():
            values, ends = self.harm.mean(arms, bounds=(0.0, 1.0))
            values, ends = (1 - values, (1 - ends[1], 1 - ends[0])) if self.chance_F is not None else (values, ends)
            more = {"n_users": len(arms), "tied": float(self.tied_A[arms].mean())}
            found += [{"arm": arm} | row | more for row in self._rows(values, ends)]
        return found

    def costs(self, margin: float) -> list[Row]:
        """The parts of the tax, as the mean over users if they differ by user."""
        found: list[Row] = []
        parts = [("personalization", "personal", "pooled"), ("shuffled", "shuffled", "pooled")]
        parts += [("person", "personal", "shuffled")]
        parts += [(GENERIC, GENERIC, "pooled"), (NOBODY, NOBODY, "pooled")]
        parts += [("forgetting", "pooled", "base"), ("total", "personal", "base")]
        for part, arm, other in parts:
            if arm not in self.at or other not in self.at:
                continue
            change = self.harm.mean(self.at[arm], self.at[other])
            for row, able in zip(self._rows(*change), self.able(other), strict=True):
                said = {"verdict": verdict((row["lo"], row["hi"]), margin, bool(able))}
                found.append({"part": part} | row | {"n_users": len(self.at[arm])} | said)
        return found

    def able(self, arm: str) -> NDArray[np.bool_]:
        """Whether an arm (its mean over users) is significantly better than chance in each section."""
        if self.chance_F is None:
            return np.ones(len(self.rows), bool)
        _, (_, most_F) = self.harm.mean(self.at[arm], bounds=(0.0, 1.0))
        return most_F < 1 - self.chance_F

    def users(self, users: Sequence[str], margin: float) -> list[Row]:
        """Each user's personalization tax in each section: own and simultaneous interval, exact test, verdict."""
        arms, pooled = self.at["personal"], int(self.at["pooled"][0])
        change_FU, draw_BFU = self.harm.changes(arms, pooled)
        sides = self.harm.sides(arms, pooled)
        own, whole = self.harm.each(change_FU, draw_BFU, sides), self.harm.together(change_FU, draw_BFU, sides)
        p_FU, differ_FU = self.harm.mcnemar(arms, pooled, len(self.sections))
        holm_FU, able_F = holm(p_FU), self.able("pooled")
        found = []
        for s, section in enumerate(self.rows):
            tested = s < len(self.sections)
            for u, user in enumerate(users):
                row = {"user": user, "section": section, "value": change_FU[s, u]}
                row |= {"lo": own[0][s, u], "hi": own[1][s, u], "n": int(self.harm.units_F[s])}
                row |= {"lo_all": whole[0][s, u], "hi_all": whole[1][s, u]}
                row |= {"differ": int(differ_FU[s, u]), "p": p_FU[s, u], "p_holm": holm_FU[s, u]} if tested else {}
                verdicts = verdict((row["lo_all"], row["hi_all"]), margin, bool(able_F[s]))
                if tested and verdicts in ("tax", "unclear"):
                    verdicts = "tax" if row["p_holm"] < SURE and row["lo_all"] > 0 else "unclear"
                found.append(row | {"verdict": verdicts})
        return found

    def detectable(self) -> list[Row]:
        """The detectable tax of one user in each section: at DISCORDANT, and at the users' median discordance."""
        pooled, arms = int(self.at["pooled"][0]), self.at["personal"]
        moved_UV = np.abs(self.harm.result_AV[arms] - self.harm.result_AV[pooled])
        seen_F = np.median(self.harm.weight_FV @ moved_UV.T, axis=1)
        units_F, tests = self.harm.effective_F, len(arms) * len(self.sections)
        shown = zip(self.rows, self.harm.units_F, units_F, detectable(units_F, tests=tests), strict=True)
        found = [{"section": r, "n": int(n), "n_effective": e, "at_tenth": d} for r, n, e, d in shown]
        for row, seen, least in zip(found, seen_F, detectable(units_F, seen_F, tests), strict=True):
            row |= {"discordant": float(seen), "at_seen": float(least) if seen > 0 else None}
        return found

    def _rows(self, value_F: Floats, ends: Ends) -> list[Row]:
        columns = zip(self.rows, value_F, *ends, self.harm.units_F, strict=True)
        return [{"section": r, "value": v, "lo": lo, "hi": hi, "n": int(n)} for r, v, lo, hi, n in columns]


def measure(suite: Suite, arms: Arms, task: Task, sycophancy: Suite | None = None) -> dict[str, Any]:
    """The content of ``tax.json``; see docs/tax.md for its keys.

    Raises InputError for a benchmark with other subsets than expected, NotEnoughData without users.
    """
    held_out = None if arms.held_out is None else arms.held_out.weighing()
    arms = replace(arms, known=arms.known.weighing(), held_out=held_out)
    users = taxed_users(arms, task)
    scheme = scheme_of(suite)
    board = _board(suite, Benchmark(suite, scheme), (arms, users, task), harm_is_loss=True)
    about = people(arms, users)
    tested = board.users(users, task.margin)
    content = {
        "schema": SCHEMA,
        "suite": {"file": suite.file, "hash": suite.content_hash, "items": len(suite), "scheme": scheme.name},
        "sections": list(board.rows),
        "scores": board.scores(),
        "subsets": _by_subset(board),
        "tax": board.costs(task.margin),
        "users": tested,
        "worst": [worst(tested, section) for section in board.rows],
        "detectable": board.detectable(),
        "people": about,
        "against": against(tested, about, board.rows),
        "sycophancy": None,
        "notes": [*arms.notes, *_notes(suite, arms, board)],
        "data": {"hash": arms.known.content_hash, "n_users": len(users)},
        "settings": asdict(task),
        "versions": versions(),
    }
    if sycophancy is not None:
        turned = replace(sycophancy, right_C=~sycophancy.right_C)
        bench = Benchmark(turned, own_sections(turned))
        false = _board(turned, bench, (arms, users, task), harm_is_loss=False)
        tested = false.users(users, task.margin)
        content["sycophancy"] = {
            "file": sycophancy.file,
            "scores": false.scores(),
            "tax": false.costs(task.margin),
            "users": tested,
            "worst": [worst(tested, section) for section in false.rows],
        }
    return plain(content | {"conclusion": conclusion(plain(content))})


def _board(suite: Suite, bench: Benchmark, setup: tuple[Arms, Sequence[str], Task], harm_is_loss: bool) -> Board:
    """All arms on one benchmark; harm is to lose an item, or to win one if right and wrong are reversed."""
    arms, users, task = setup
    weight_FV = bench.weight_FV  # first, so that faults of the file are reported before scoring
    value_AC, at = rewards(suite, arms, users)
    result_AV = bench.results(value_AC)
    harm_AV = 1 - result_AV if harm_is_loss else result_AV
    harm = Resampled(harm_AV, bench.subset_V, weight_FV, task.draws, task.seed, bench.prompt_V)
    return Board(harm, bench.scheme, at, bench.tied(value_AC), bench.chance_F if harm_is_loss else None)


def worst(tested: Sequence[Row], section: str) -> Row:
    """The user with the largest tax in a section, with the interval that is simultaneous over users.

    ``everyone``: "no tax" only if every user has that verdict.
    """
    rows = [row for row in tested if row["section"] == section]
    most = max(rows, key=lambda row: row["value"])
    verdicts = [row["verdict"] for row in rows]
    everyone = "tax" if "tax" in verdicts else "unclear" if "unclear" in verdicts else verdicts[0]
    found = {"section": section, "user": most["user"], "value": most["value"]}
    return found | {"lo": most["lo_all"], "hi": most["hi_all"], "n": most["n"], "everyone": everyone}


def people(arms: Arms, users: Sequence[str]) -> list[Row]:
    """Each user's gain on held-out judgements, and their distance from the majority.

    ``distance``: the share of pairs with a majority of the others on which the user disagrees with it.
    """
    known = arms.known
    at_U = known.users.index(users)
    stand = minorities(votes(known))
    count_U = np.bincount(known.user_N, minlength=len(known.users))
    gained = _gains(arms.held_out, arms) if arms.held_out is not None and len(arms.held_out) else {}
    found = []
    for user, u in zip(users, at_U.tolist(), strict=True):
        row = {"user": user, "judgements": int(count_U[u]), "distance": 1 - stand.others_U[u]}
        row |= {"distance_n": int(stand.decided_U[u]), "minority": bool(stand.minority_U[u])}
        empty = {"gain": None, "gain_lo": None, "gain_hi": None, "n_test": 0}
        found.append(row | gained.get(user, empty))
    return found


def _gains(test: Comparisons, arms: Arms) -> dict[str, Row]:
    """Accuracy of the personal minus that of the pooled scorer on each user's held-out judgements."""
    pairs, first, pair_H = np.unique(test.pair_key_N, return_index=True, return_inverse=True)
    text_Y2 = np.stack([side_N[first] for side_N in (test.chosen_N, test.rejected_N)], axis=1).astype(np.int64)
    rows = HeldOut(
        seed_H=np.zeros(len(test), np.int64),
        user_H=test.user_N.astype(np.int64),
        pair_H=pair_H,
        tie_H=np.zeros(len(test), bool) if test.tie_N is None else test.tie_N,
        weight_H=test.weights_N,
        judgement_H=np.arange(len(test)),
        cohort_H={},
        n_seeds=1,
        n_users=len(test.users),
        n_pairs=len(pairs),
        text_Y2=text_Y2,
    )
    margin_2H = (margins(scorer, test).value_Q for scorer in (arms.personal, arms.pooled))
    found = per_user(Clusters(rows), *margin_2H)
    minority_U = np.zeros(len(test.users), bool)
    table = users_table(test.users.ids, np.zeros(len(test.users), np.int64), minority_U, {"personal": found})
    kept = table.select("user_id", "gain", "gain_lo", "gain_hi", "n_test")
    return {row.pop("user_id"): row for row in kept.iter_rows(named=True)}


def against(tested: Sequence[Row], about: Sequence[Row], sections: Sequence[str]) -> list[Row]:
    """Rank correlation over users of the tax with the gain and with the distance from the majority, per section.

    The interval is Fisher's for ranks (Fieller, Hartley & Pearson 1957); absent with fewer than five users.
    """
    from scipy.stats import norm, spearmanr

    found = []
    for section in sections:
        tax = {row["user"]: row["value"] for row in tested if row["section"] == section}
        for name in ("gain", "distance"):
            known = [(tax[one["user"]], one[name]) for one in about if one[name] is not None]
            pairs = np.array([pair for pair in known if np.isfinite(pair).all()]).reshape(-1, 2)
            row: Row = {"section": section, "with": name, "value": None, "lo": None, "hi": None, "n": len(pairs)}
            if len(pairs) >= 5 and (np.ptp(pairs, axis=0) > 0).all():
                rho = float(spearmanr(pairs)[0])  # type: ignore[arg-type]
                far = norm.isf(0.025) * (1.06 / (len(pairs) - 3)) ** 0.5
                middle = np.arctanh(np.clip(rho, -0.9999, 0.9999))
                row |= {"value": rho, "lo": float(np.tanh(middle - far)), "hi": float(np.tanh(middle + far))}
            found.append(row)
    return found


def _by_subset(board: Board) -> list[Row]:
    """Accuracy of each arm in each subset, the mean over its users; without intervals."""
    harm, found = board.harm, []
    for number, subset in enumerate(board.scheme.subsets):
        units = harm.stratum_V == number
        for arm, arms in board.at.items():
            value = 1 - float(harm.result_AV[np.ix_(arms, np.flatnonzero(units))].mean())
            found.append({"subset": subset, "arm": arm, "value": value, "n": int(units.sum())})
    return found


def _notes(suite: Suite, arms: Arms, board: Board) -> list[str]:
    """Notes: what is absent and why, which arms are equal, and whether the file is the official benchmark."""
    found = list(suite.notes)
    if other := other_counts(suite, board.scheme):
        found.append(
            f"{len(other)} subsets differ in rows from RewardBench's filtered set ({other[0]}): these are not "
            "official scores, although their weights are."
        )
    if arms.base is None:
        found.append(
            "no reward from before these judgements was given, so forgetting and the total tax are not measured: "
            "personalization is the pooled scorer minus the user's. Give one with --base."
        )
    if arms.shuffled is None:
        found.append("saved scorers have no shuffled control; fit the arms here to have one.")
    weak = [row for row, able in zip(board.rows, board.able("pooled"), strict=True) if not able]
    if weak:
        found.append(
            f"the pooled scorer is not surely better than chance in {', '.join(weak)}: it has no ability there that a "
            'user could cost, so the verdict is "nothing to lose".'
        )
    generic, without_user = (board.harm.result_AV[board.at[name][0]] for name in (GENERIC, NOBODY))
    if np.array_equal(generic, without_user):
        found.append("this scorer answers an unknown id and no id alike.")
    return found
