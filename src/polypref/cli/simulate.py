"""``polypref simulate``: a simulated world as a preference file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import tyro

from polypref.arguments import People
from polypref.cli.shared import Replaces, Seeded, refuse_suffix, refuse_to_replace
from polypref.files import write_table
from polypref.terminal import out
from polypref.wording import counted


@dataclass(frozen=True, kw_only=True)
class Simulate(Replaces, Seeded):
    """Write a simulated world with known truth as a preference file.

    Worlds: two-tastes, psoups-like, personalllm-like, tldr-like; docs/worlds.md describes them. The column attributes
    holds each user's true group. Equal settings and seed give equal files.
    """

    world: tyro.conf.Positional[str]
    """Which world; docs/worlds.md describes them."""
    users: Annotated[People | None, tyro.conf.arg(metavar="INT")] = None
    """Number of people; None: the world's own."""
    judgements: Annotated[People | None, tyro.conf.arg(metavar="INT")] = None
    """Judgements of each person; None: the world's own."""

    def run(self) -> int:
        """Simulate, write, print what was written."""
        from polypref.worlds import simulate

        refuse_suffix(self.out)
        refuse_to_replace(self.out, self.force)
        changes = {"users": self.users, "judgements": self.judgements}
        world = simulate(self.world, seed=self.seed, **{k: v for k, v in changes.items() if v is not None})
        table = world.table()
        refuse_to_replace(self.out, self.force)  # it may have been written meanwhile
        write_table(self.out, table)
        data, group_sizes = world.comparisons, Counter(world.people.group_U)
        size = (
            f"{counted(len(data), 'judgements')} of {counted(len(data.users), 'users')} on "
            f"{counted(len(data.responses) // 2, 'pairs')}"
        )
        out(f"{self.world}: {size}, seed {self.seed}, written to {self.out}")
        out("users in each group: " + ", ".join(f"{group} {n:,}" for group, n in group_sizes.items()))
        return 0
