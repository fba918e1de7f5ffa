"""The questions of an alignment: what is trained on, what is measured on, and what the report shows.

Every prompt of the comparisons is used for users of every group. With five prompts or more, a fifth of them is held out
for measuring.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from polypref.align.task import Task
from polypref.comparisons import Comparisons
from polypref.errors import NotEnoughData
from polypref.groups import UNKNOWN, Grouping, from_attribute

MOST_QUESTIONS = 50_000
ENOUGH_PROMPTS = 5  # to hold out a fifth of them for measuring
SHOWN = 4  # prompts that the report shows, each asked for every group


def questions(comparisons: Comparisons, group_of: Mapping[str, str], task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and measurement rows in random order: ``prompt`` as the model reads it, ``asked`` as people read it,
    ``group`` and ``user_id``. Both share prompts only if there are too few to hold some out.

    Raises NotEnoughData if no group has users with enough judgements, or a group has too few questions.
    """
    users = _users(comparisons, group_of, task)
    pool = comparisons.responses
    prompts = [pool.prompt_text(p) for p in np.unique(pool.prompt_R).tolist()]
    rng = np.random.default_rng([task.seed, 29])
    order = rng.permutation(len(prompts))
    kept = order[: len(prompts) // 5] if len(prompts) >= ENOUGH_PROMPTS else order
    rest = order[len(kept) :] if len(kept) < len(order) else order
    tables = []
    for at in (rest, kept):
        whole = len(users) * len(at)
        chosen = rng.permutation(whole) if whole <= MOST_QUESTIONS else rng.choice(whole, MOST_QUESTIONS, replace=False)
        user_Q, prompt_Q = np.divmod(chosen, len(at))
        triples = [(*users[u], prompts[at[p]]) for u, p in zip(user_Q.tolist(), prompt_Q.tolist(), strict=True)]
        tables.append(_table(triples, task.template))
    of_group = [tables[1].filter(pl.col("group") == name) for name in names(tables[1])]
    measured_on = pl.concat([table.gather(np.resize(np.arange(len(table)), task.samples)) for table in of_group])
    for name in sorted({group for _, group in users}):
        for table in (tables[0], measured_on):
            if (count := int((table["group"] == name).sum())) < 2:
                raise NotEnoughData(
                    f"group {name!r} has {count} questions, of users with "
                    f"{task.min_judgements} judgements or more; "
                    "expected 2 at least. Lower min_judgements, give more data, or leave the group out."
                )
    return tables[0], measured_on


def _table(triples: list[tuple[str, str, str]], template: str) -> pl.DataFrame:
    """Questions of (user, group, prompt)."""
    model_input = {
        "prompt": [template.format(group=group, prompt=prompt, user=user) for user, group, prompt in triples]
    }
    return pl.DataFrame(
        {
            **model_input,
            "asked": [prompt for _, _, prompt in triples],
            "group": [group for _, group, _ in triples],
            "user_id": [user for user, _, _ in triples],
        }
    )


def _users(comparisons: Comparisons, group_of: Mapping[str, str], task: Task) -> list[tuple[str, str]]:
    """Users to train for, with their groups."""
    many_U = np.bincount(comparisons.user_N, minlength=len(comparisons.users))
    known = [(user, group_of.get(user, UNKNOWN)) for user in comparisons.users.ids]
    known = [(*one, many) for one, many in zip(known, many_U.tolist(), strict=True) if one[1] != UNKNOWN]
    if not known:
        raise NotEnoughData("none of the users is in a known group; give the groups of these users.")
    found = [(user, group) for user, group, many in known if many >= task.min_judgements]
    if not found:
        raise NotEnoughData(
            f"no user of a known group gave {task.min_judgements} judgements or more; lower min_judgements, or give "
            "more data."
        )
    return found


def names(rows: pl.DataFrame) -> list[str]:
    """The groups, sorted."""
    return sorted(rows["group"].unique().to_list())


def shown(judged: pl.DataFrame, task: Task) -> pl.DataFrame:
    """A few of the measured prompts, each asked for every group: for the group's first user."""
    first = judged.group_by("group", maintain_order=True).first().sort("group")
    triples = [
        (user, group, prompt)
        for prompt in judged["asked"].unique(maintain_order=True).to_list()[:SHOWN]
        for user, group in first.select("user_id", "group").iter_rows()
    ]
    return _table(triples, task.template)


def groups_from(comparisons: Comparisons, groups: str, allow_network: bool = False) -> dict[str, str]:
    """Each user's group: from a folder written by `polypref groups`, or by the attribute of that name."""
    if Path(groups).is_dir():
        grouping = Grouping.load(groups, allow_network=allow_network)
    else:
        grouping = from_attribute(comparisons.users, groups)
    return dict(zip(comparisons.users.ids, grouping.of(comparisons.users.ids), strict=True))
