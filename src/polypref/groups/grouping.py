"""A grouping: each user's group and its probability; adding, moving and renaming users and groups; saving and loading.

    grouping = discover(comparisons, encoder=encoder("minilm"), seed=0)
    grouping.of(["ann", "bob"])              ["group 1", "unknown"]
    grouping.assign("eve", few)              a new grouping that knows eve
    grouping.reassigned(recent)              people whose recent answers clearly favour another group have moved
    grouping.renewed(discover(more, ...))    a new fit under the old names

**Unknown** is a separate group: users never seen, and those whose best group has a share below ``certainty``. Their
prompts are used in training like any other; their rewards are not compared with a group that they may not belong to.

**Hysteresis.** A user stays in the current group g until another one, h, is ahead by a given margin of log-odds,

    log share_h - log share_g > margin,

so that users between groups do not disturb reward histories. 2 means odds of 7.4 to 1. Unknown users join the best
group as soon as its share reaches ``certainty``; nobody becomes unknown again.

**Names stay.** A new fit's groups are matched to the old ones to maximise the number of common users (the assignment
problem, Kuhn 1955, over soft shares). A new group gets a name that was never used, so it never inherits another group's
history.

Covered: saving and loading without pickle; a damaged folder is refused in one line. Not covered: users whose tastes
change slowly; for them, give ``reassigned`` recent judgements rather than all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import artifact, content
from polypref.comparisons import Comparisons, IntArray, Users
from polypref.errors import NotEnoughData, SettingsError
from polypref.features import encoder as named_encoder
from polypref.features.protocol import Encoder
from polypref.groups.group_likelihood import Fields as MixtureFields
from polypref.groups.group_likelihood import Mixture, layout
from polypref.groups.mixture import Floats, shares
from polypref.groups.number_of_groups import SURE, WORTH, Row
from polypref.network_access import named_by
from polypref.schema import Arrays, Ids, Layout, floats, indices
from polypref.wording import counted

UNKNOWN = "unknown"
CERTAINTY = 0.6  # minimum share for a user to be in a group
MARGIN = 2.0  # log-odds by which another group must be ahead before a user moves


class Fields(TypedDict):
    """Settings of a saved grouping."""

    names: Ids
    users: Ids
    origin: str
    certainty: float
    tried: list[Row]
    retired: list[str]
    model: MixtureFields | None


def _arrays(config: Mapping[str, Any]) -> Arrays:
    found = {
        "share_UG": floats("U", "G"),
        "group_U": indices("U", "G", least=-1),
    }
    return found if config["model"] is None else {**found, **layout("model.")}


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    share_UG = arrays["share_UG"]
    if UNKNOWN in config["names"]:
        return f"a group is called {UNKNOWN}"
    if (share_UG < 0).any() or (abs(share_UG.sum(axis=1) - 1) > 1e-6).any():
        return "the shares of a user do not sum to one"
    return None


LAYOUT = Layout(Fields, _arrays, sizes={"U": "users", "G": "names"}, rule=_wrong)


@dataclass(frozen=True, eq=False)
class Grouping:
    """U users in G groups.

    ``names``      of the groups (P), none of them "unknown".
    ``users``      ids of the users with information.
    ``share_UG``   probability of each group; rows sum to one. From a column: 1 and 0.
    ``group_U``    the group of each, -1 for unknown.
    ``origin``     the source: "attribute country", "a mapping", "discovered".
    ``certainty``  share from which a user counts as a member.
    ``model``      what assigns new users; None for a grouping from a column.
    ``tried``      held-out likelihood by number of groups; empty if nothing was tried.
    ``retired``    names that no group has any more.
    """

    names: tuple[str, ...]
    users: Users
    share_UG: Floats
    group_U: IntArray
    origin: str
    certainty: float = CERTAINTY
    model: Mixture | None = None
    tried: tuple[Row, ...] = ()
    retired: tuple[str, ...] = field(default=())

    def of(self, user_ids: pl.Series | Sequence[str]) -> list[str]:
        """The group of each user; "unknown" for users never seen or below ``certainty``."""
        id_Q = content.ids(user_ids, nobody=True)
        if not len(self.users):
            return [UNKNOWN] * len(id_Q)
        at_Q = self.users.index(id_Q)
        group_Q = np.where(at_Q >= 0, self.group_U[at_Q], -1)
        labels = [*self.names, UNKNOWN]
        return [labels[group] for group in group_Q.tolist()]

    def share_of(self, user_ids: pl.Series | Sequence[str]) -> Floats:
        """The shares of each user (Q, G); NaN for users never seen."""
        at_Q = self.users.index(content.ids(user_ids, nobody=True))
        return np.append(self.share_UG, np.full((1, len(self.names)), np.nan), axis=0)[at_Q]

    def sizes(self) -> dict[str, int]:
        """Number of users in each group, "unknown" last if not empty."""
        count_G = np.bincount(self.group_U + 1, minlength=len(self.names) + 1).tolist()
        return dict(zip(self.names, count_G[1:], strict=True)) | ({UNKNOWN: count_G[0]} if count_G[0] else {})

    def listed(self, user_ids: pl.Series | Sequence[str]) -> pl.DataFrame:
        """``user_id``, ``group`` and ``share``, that of the likeliest group (null: unknown), one row per id."""
        share_Q = self.share_of(user_ids).max(axis=1, initial=-np.inf)
        shown_Q = pl.Series("share", np.where(np.isfinite(share_Q), share_Q, np.nan)).round(4).fill_nan(None)
        return pl.DataFrame(
            [pl.Series("user_id", user_ids, dtype=pl.String), pl.Series("group", self.of(user_ids)), shown_Q]
        )

    def finding(self) -> str:
        """The finding in one sentence."""
        if self.model is None:
            return f"{counted(len(self.names), 'groups')} from {self.origin}."
        rows = {row.groups: row for row in self.tried}
        best = max(self.tried, key=lambda row: row.gain, default=None)
        if len(self.names) > 1:
            row = rows.get(len(self.names))
            what = f"{counted(len(self.names), 'groups')}"
            if row is None:
                return f"{what}."
            better = row.gain > max(SURE * row.se, WORTH)
            how = "better than one" if better else "not surely better than one"
            return f"{what} predict held-out judgements {how}: {gained(row)}."
        if best is None or len(rows) == 1:
            return "one group: nothing else was tried."
        others = max((row for row in self.tried if row.groups > 1), key=lambda row: row.gain)
        return f"no groups found: {others.groups} predict held-out judgements no better than one, {gained(others)}."

    def assign(self, user_id: str, few: Comparisons) -> Self:
        """A new grouping that also knows ``user_id`` from ``few`` (whose ids are ignored); other users stay.

        The shares are the posterior from the groups' sizes and the likelihoods of the answers. Raises NotEnoughData
        without comparisons, SettingsError for a grouping that was not discovered.
        """
        model = self._model("assign new users")
        if not len(few):
            raise NotEnoughData(f"no comparisons to tell the group of user {user_id!r} from; give at least one.")
        share_1G = model.shares(few, np.zeros(len(few), np.int64), 1)
        others, users = self.users.with_last(user_id)
        joined = replace(
            self,
            users=users,
            share_UG=np.concatenate([self.share_UG[others], share_1G]),
            group_U=np.append(self.group_U[others], np.int32(-1)),
        )
        present_U = np.append(np.full(len(others), -2, np.int32), self._present([user_id]))
        return joined._moved(present_U, MARGIN)

    def placed(self, user_id: str, news: Comparisons | None = None) -> tuple[Floats, str]:
        """A user's probability of each group (G,) and the group, from all that is known of them and ``news``.

        ``news`` are judgements of this user that the grouping was not made from. By Bayes' rule, what the grouping
        knows of the user, or else the groups' sizes, is multiplied by their likelihood; a group of before is kept until
        another is ahead by ``MARGIN``. Nobody joins a group without judgements. A grouping that was not discovered
        ignores ``news``, and its strangers have NaN.
        """
        share_G, present_1 = self.share_of([user_id])[0], self._present([user_id])
        if self.model is not None:
            share_G = self.model.size_G if np.isnan(share_G).any() else share_G
            if news is not None and len(news):
                news_1G = self.model.shares(news, np.zeros(len(news), np.int64), 1)
                log_3G = np.log(np.maximum([share_G, news_1G[0], self.model.size_G], 1e-300))
                share_G = shares(log_3G[None, 0] + log_3G[1] - log_3G[2])[0]
                present_1 = settled(share_G[None], present_1, present_1, self.certainty, MARGIN)
        return share_G, [*self.names, UNKNOWN][present_1[0]]

    def reassigned(self, news: Comparisons | Mapping[str, Sequence[float]], margin: float = MARGIN) -> Self:
        """Reassign the users in ``news``: users move if another group is ahead by ``margin`` in log-odds.

        ``news`` are judgements, from which alone users' shares are computed, or shares by user id. Other users stay;
        new ones join. Raises SettingsError for a negative margin or invalid shares.
        """
        if not margin >= 0:
            raise SettingsError(f"margin is {margin}; expected log-odds of at least 0, as in margin=2.")
        if isinstance(news, Comparisons):
            model = self._model("compute shares from judgements; give shares by user id")
            numbers, user_N = np.unique(news.user_N, return_inverse=True)
            ids = news.users.ids.gather(numbers).cast(pl.String).to_list()
            share_QG = model.shares(news, user_N, len(ids))
        else:
            ids, share_QG = list(news), self._checked(news)
        if not ids:
            return self
        at_Q = self.users.index(ids)
        new_Q = np.flatnonzero(at_Q < 0)
        users = Users(pl.concat([self.users.ids.cast(pl.String).alias("id"), pl.Series("id", ids).gather(new_Q)]))
        at_Q = users.index(ids)
        share_UG = np.concatenate([self.share_UG, share_QG[new_Q]])
        share_UG[at_Q] = share_QG
        group_U = np.concatenate([self.group_U, np.full(len(new_Q), -1, np.int32)])
        present_U = np.full(len(users), -2, np.int32)
        present_U[at_Q] = group_U[at_Q]
        return replace(self, users=users, share_UG=share_UG, group_U=group_U)._moved(present_U, margin)

    def renewed(self, fresh: Grouping, margin: float = MARGIN) -> Grouping:
        """``fresh``, a new fit, under this grouping's names; users of both move only as in ``reassigned``.

        Groups are matched by common users. Users who are only in this grouping stay in their group while it exists,
        with their old shares.
        """
        from scipy.optimize import linear_sum_assignment

        both = self.users.index(fresh.users.ids)
        common_U = np.flatnonzero(both >= 0)
        overlap_GG = self.share_UG[both[common_U]].T @ fresh.share_UG[common_U]
        old, new = linear_sum_assignment(-overlap_GG)
        paired = {int(n): int(o) for o, n in zip(old, new, strict=True) if overlap_GG[o, n] > 0}
        names = self._fresh_names(len(fresh.names), paired)
        kept = set(names)
        retired = tuple(dict.fromkeys([*self.retired, *(name for name in self.names if name not in kept)]))
        place_G = np.array([names.index(name) if name in kept else -1 for name in self.names], np.int32)
        present_U = np.full(len(fresh.users), -1, np.int32)
        was_U = self.group_U[both[common_U]]
        present_U[common_U] = np.where(was_U >= 0, place_G[was_U], -1)
        named = replace(fresh, names=names, retired=retired, group_U=present_U)
        return named._moved(present_U, margin)._with_others(self, place_G)

    def _fresh_names(self, groups: int, paired: Mapping[int, int]) -> tuple[str, ...]:
        """Names of a new fit's groups: the old name if matched, else "group n" with a number that was never used."""
        used = [int(found[1]) for name in (*self.names, *self.retired) if (found := re.fullmatch(r"group (\d+)", name))]
        number = max(used, default=len(self.names))
        names = []
        for group in range(groups):
            if group in paired:
                names.append(self.names[paired[group]])
            else:
                number += 1
                names.append(f"group {number}")
        return tuple(names)

    def _with_others(self, old: Grouping, place_G: IntArray) -> Grouping:
        """Users of ``old`` who are missing here join with their old shares, if their groups still exist."""
        missing_U = np.flatnonzero(self.users.index(old.users.ids) < 0)
        if not len(missing_U):
            return self
        share_UG = np.zeros((len(missing_U), len(self.names)))
        lasting = np.flatnonzero(place_G >= 0)
        share_UG[:, place_G[lasting]] = old.share_UG[np.ix_(missing_U, lasting)]
        total_U1 = share_UG.sum(axis=1, keepdims=True)
        share_UG = np.where(total_U1 > 0, share_UG / np.maximum(total_U1, 1e-300), 1 / len(self.names))
        was_U = old.group_U[missing_U]
        group_U = np.where(was_U >= 0, place_G[was_U], -1).astype(np.int32)
        ids = pl.concat([self.users.ids.cast(pl.String).alias("id"), old.users.ids.gather(missing_U).alias("id")])
        return replace(
            self,
            users=Users(ids),
            share_UG=np.concatenate([self.share_UG, share_UG]),
            group_U=np.concatenate([self.group_U, group_U]),
        )

    def _present(self, user_ids: Sequence[str]) -> IntArray:
        at_Q = self.users.index(user_ids)
        return np.where(at_Q >= 0, np.append(self.group_U, np.int32(-1))[at_Q], -1).astype(np.int32)

    def _moved(self, present_U: IntArray, margin: float) -> Self:
        """Groups by this module's rule; ``present_U`` is each user's current group, -1 unknown, -2 not to be moved."""
        return replace(self, group_U=settled(self.share_UG, present_U, self.group_U, self.certainty, margin))

    def _model(self, what: str) -> Mixture:
        if self.model is None:
            raise SettingsError(
                f"a grouping from {self.origin} cannot {what}; discover one from comparisons, or build it again."
            )
        return self.model

    def _checked(self, news: Mapping[str, Sequence[float]]) -> Floats:
        for user_id, share_G in news.items():
            value_G = np.asarray(share_G, np.float64)
            if value_G.shape != (len(self.names),) or not (value_G >= 0).all() or not abs(value_G.sum() - 1) < 1e-6:
                raise SettingsError(
                    f"shares of user {user_id!r} are {list(share_G)}; expected {len(self.names)} numbers that sum to "
                    f"1, one for each of {', '.join(self.names)}."
                )
        return np.array(list(news.values()), np.float64).reshape(len(news), len(self.names))

    def save(self, path: Path | str) -> None:
        """Write to the folder ``path``. Raises CacheError if it cannot be written."""
        config = {name: getattr(self, name) for name in ("origin", "certainty")}
        config |= {"names": list(self.names), "retired": list(self.retired), "users": self.users.ids.to_list()}
        config["tried"] = [vars(row) for row in self.tried]
        config["model"] = None
        arrays: dict[str, NDArray] = {"share_UG": self.share_UG, "group_U": self.group_U}
        if self.model is not None:
            model, numbers = self.model.state()
            config["model"] = model
            arrays |= {f"model.{name}": value for name, value in numbers.items()}
        artifact.save(path, "grouping", config, arrays)

    @classmethod
    def load(cls, path: Path | str, encoder: Encoder | str | None = None, *, allow_network: bool = False) -> Self:
        """Read back an equal grouping.

        ``encoder`` is needed only for groups discovered with an encoder of your own; ``allow_network`` as in
        ``scorers.load``. Raises ArtifactError if it is missing or damaged, SettingsError if the encoder gives other
        features.
        """
        config, arrays = artifact.load(path, "grouping")
        LAYOUT.check(config, arrays, str(path))
        told = config["model"]
        numbers = {name.removeprefix("model."): v for name, v in arrays.items() if name.startswith("model.")}
        encoder = named_encoder(encoder) if isinstance(encoder, str) else encoder
        with named_by(path, allow_network=allow_network):
            model = None if told is None else Mixture.from_state(told, numbers, encoder)
        return cls(
            tuple(config["names"]),
            Users(pl.Series("id", config["users"], dtype=pl.String)),
            arrays["share_UG"],
            arrays["group_U"],
            config["origin"],
            config["certainty"],
            model,
            tuple(Row(**row) for row in config["tried"]),
            tuple(config["retired"]),
        )


def gained(row: Row) -> str:
    """The gain of a number of groups over one, with its standard error."""
    return f"{row.gain:+.4f} (standard error {row.se:.4f}) in log likelihood each"


def settled(share_UG: Floats, present_U: IntArray, group_U: IntArray, certainty: float, margin: float) -> IntArray:
    """Everybody's group, see the module docstring; ``present_U``: -1 is unknown, -2 keeps ``group_U``."""
    users = np.arange(len(share_UG))
    best_U = share_UG.argmax(axis=1) if share_UG.shape[1] else np.zeros(len(users), np.int64)
    top_U = share_UG[users, best_U]
    with np.errstate(divide="ignore"):
        ahead_U = np.log(top_U) - np.log(share_UG[users, np.maximum(present_U, 0)])
    moves_U = np.where(present_U >= 0, ahead_U > margin, top_U >= certainty)
    return np.where(present_U == -2, group_U, np.where(moves_U, best_U, present_U)).astype(np.int32)


def from_mapping(groups: Mapping[str, str | None], origin: str = "a mapping") -> Grouping:
    """Groups given by user id; None, NaN and empty text mean unknown. Groups are ordered by size."""
    ids = pl.Series("id", [str(user) for user in groups], dtype=pl.String)
    values = pl.Series("group", [None if _missing(value) else str(value) for value in groups.values()], dtype=pl.String)
    counts = values.drop_nulls().value_counts().rows()
    names = tuple(name for name, _ in sorted(counts, key=lambda row: (-row[1], row[0])))
    if UNKNOWN in names:
        names = tuple(name for name in names if name != UNKNOWN)
    number = {name: at for at, name in enumerate(names)}
    group_U = np.array([number.get(value, -1) for value in values.to_list()], np.int32)
    known_U = np.flatnonzero(group_U >= 0)
    share_UG = np.zeros((len(known_U), len(names)))
    share_UG[np.arange(len(known_U)), group_U[known_U]] = 1.0
    return Grouping(names, Users(ids.gather(known_U)), share_UG, group_U[known_U], origin)


def _missing(value: object) -> bool:
    return value is None or value == "" or value != value


def from_attribute(users: Users, name: str) -> Grouping:
    """Groups from an attribute of the users; those without a value are unknown.

    Raises SettingsError, naming the existing attributes, if no user has this one.
    """
    values = users.values_of(name).to_list()
    return from_mapping(dict(zip(users.ids.to_list(), values, strict=True)), f"attribute {name}")
