"""Discovers groups from comparisons: the number of groups is given or searched, then the mixture is fitted to all.

Suffixes here: ``_T`` texts that several users judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from polypref.arguments import AtLeastOne, Numbers, Seed, Share, check_settings, expect
from polypref.comparisons import Comparisons, IntArray, Users
from polypref.data import thumbs
from polypref.data.derived import origin
from polypref.data.given import comparisons_of
from polypref.data.zero_weight import counted
from polypref.errors import NotEnoughData, SettingsError
from polypref.features.protocol import Encoder, ensure_encoder
from polypref.groups.group_likelihood import Mixture
from polypref.groups.grouping import CERTAINTY, Grouping
from polypref.groups.mixture import Problem, alone, best_of
from polypref.groups.number_of_groups import FEWEST, Judgements, Search, folds, search, splits
from polypref.learners.inputs import Inputs


@dataclass(frozen=True)
class Discovery:
    """Settings of the search for groups."""

    most: Numbers = 6
    """Maximum number of groups to try."""
    restarts: Numbers = 3
    """EM runs from different starts; the one with the highest likelihood is used."""
    folds: Numbers = 3
    """Number of folds of held-out judgements."""
    certainty: Share = CERTAINTY
    """Minimum share for a user to be in a group; other users are unknown."""
    directions: AtLeastOne = 64
    """Maximum principal directions of the encoder's space to use."""

    def __post_init__(self) -> None:
        check_settings(self)


def discover(
    comparisons: Comparisons, *, encoder: Encoder, seed: int, groups: int | None = None, how: Discovery | None = None
) -> Grouping:
    """Groups of users who judge alike; ``groups`` fixes their number, else held-out answers choose it. 1: no groups.

    Groups are named "group 1", "group 2", ... by size. Equal data and seed give equal groups, whatever the order of the
    rows. Raises NotEnoughData without comparisons, SettingsError for too many groups.
    """
    comparisons = comparisons_of(comparisons)
    expect("seed", seed, Seed)
    expect("groups", groups, Numbers | None)
    ensure_encoder(encoder)
    how, comparisons = how or Discovery(), counted(comparisons)
    if not len(comparisons):
        raise NotEnoughData("no comparisons to find groups in: 0 rows. Give more data.")
    judged, inputs, ids = numbered(comparisons, encoder, how.directions)
    most = max(1, judged.users // FEWEST)
    if groups is not None and not 1 <= groups <= most:
        raise SettingsError(
            f"groups is {groups}; expected a number from 1 to {most}: of {judged.users} users, {FEWEST} for each."
        )
    numbers = range(1, min(how.most, most) + 1) if groups is None else (groups,)
    cuts = folds(judged, how.folds, seed) if judged.users > 1 else []
    chosen = search(judged, numbers, cuts, how.restarts, seed)
    return fitted(judged, inputs, ids, chosen, (how, seed))


def found_again(
    comparisons: Comparisons, grouping: Grouping, *, encoder: Encoder, seed: int, how: Discovery | None = None
) -> tuple[Comparisons, IntArray]:
    """A part of everybody's judgements, and each user's group as found in the other part alone; -1 is unknown.

    What is said of discovered groups rests on these judgements, which had no part in making them. Everything is chosen
    again but the number of groups, and groups are matched to those of ``grouping`` by common users. No judgements are
    returned where a part would be too small for as many groups.
    """
    from scipy.optimize import linear_sum_assignment

    rows, groups = counted(comparisons), len(grouping.names)
    derived = origin(rows).dependent
    kept, held = next(splits(rows, rows.user_N, derived, 2, seed))
    if groups > len(np.unique(rows.user_N[kept])) // FEWEST:
        return rows.take(held[:0]), np.full(len(rows.users), -1, np.int32)
    again = discover(rows.take(kept), encoder=encoder, seed=seed, groups=groups, how=how)
    share_UG = again.share_of(rows.users.ids)
    both_U = np.isfinite(share_UG).all(axis=1)
    first_UG = grouping.share_of(rows.users.ids)
    old, new = linear_sum_assignment(-(first_UG[both_U].T @ share_UG[both_U]))
    name_of = {again.names[n]: int(o) for o, n in zip(old, new, strict=True)}
    group_U = np.array([name_of.get(name, -1) for name in again.of(rows.users.ids)], np.int32)
    return rows.take(held), group_U


def numbered(comparisons: Comparisons, encoder: Encoder, directions: int) -> tuple[Judgements, Inputs, Users]:
    """The judgements with users ordered by id and texts by key, and the inputs."""
    thumbs.refuse(comparisons, "finding groups")
    used_U = np.unique(comparisons.user_N)
    ids = comparisons.users.ids.gather(used_U)
    order = ids.arg_sort().to_numpy()
    place_U = np.full(len(comparisons.users), -1, np.int64)
    place_U[used_U[order]] = np.arange(len(order))
    response_R = np.unique(np.concatenate([comparisons.chosen_N, comparisons.rejected_N]))
    response_R = response_R[np.argsort(comparisons.responses.keys_R[response_R], kind="stable")]
    pool = comparisons.responses.take(response_R)
    inputs = Inputs.fit(encoder, comparisons, directions, read="response")
    user_N = place_U[comparisons.user_N]
    judged = Judgements(comparisons, user_N, len(order), response_R, inputs(pool), origin(comparisons).dependent)
    return judged, inputs, Users(ids.gather(order).cast(pl.String).alias("id"))


def fitted(judged: Judgements, inputs: Inputs, ids: Users, chosen: Search, how: tuple[Discovery, int]) -> Grouping:
    """The mixture fitted to all judgements, with groups ordered by size."""
    settings, seed = how
    votes = judged.votes()
    found = best_of(votes, chosen.scales, alone(votes, chosen.scales), chosen.groups, settings.restarts, seed)
    effects = Problem(votes, chosen.scales, chosen.groups).effects(found.theta)
    order_G = np.argsort(-found.size_G, kind="stable")
    identity_T = judged.rows.responses.identity_R[judged.response_R[votes.shared_T]]
    by_T = np.argsort(identity_T, kind="stable")
    model = Mixture(
        inputs,
        effects.weights_KG[:, order_G],
        identity_T[by_T],
        effects.text_TG[by_T][:, order_G],
        found.size_G[order_G],
        chosen.evidence,
        judged.derived,
        inputs.encoder.name,
        inputs.encoder.identity,
    )
    share_UG = model.shares(judged.rows, judged.user_N, judged.users)
    best_U = np.where(share_UG.max(axis=1) >= settings.certainty, share_UG.argmax(axis=1), -1).astype(np.int32)
    names = tuple(f"group {p + 1}" for p in range(chosen.groups))
    return Grouping(names, ids, share_UG, best_U, "discovered", settings.certainty, model, chosen.tried)
