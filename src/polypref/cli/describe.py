"""``polypref describe``: says in words what the rewards of a saved scorer like: traits with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from polypref.cli.shared import Loads
from polypref.terminal import columns, out, out_json

if TYPE_CHECKING:
    from polypref.learners.protocol import Scorer
    from polypref.traits import Described


@dataclass(frozen=True, kw_only=True)
class Describe(Loads):
    """Say what the rewards of a saved scorer like, from short texts that contrast one trait each: docs/traits.md.

    Without --user and --groups: what everybody's reward likes, and how many people clearly prefer which side. Values
    are in units of the spread of rewards; the intervals of one person hold for all traits at once at 95 %.
    """

    scorer: Annotated[Path, tyro.conf.Positional, arg(metavar="DIR")]
    """Folder written by polypref fit."""
    user: Annotated[tuple[str, ...], arg(metavar="USER_ID ...", help_behavior_hint="(default: none)")] = ()
    """People to describe, whom the scorer knows."""
    groups: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Folder written by polypref groups: describe its groups."""
    encoder: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The encoder, if not the one named at fit."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Load, describe, print."""
        from polypref.learners.protocol import Forgets
        from polypref.scorers import load
        from polypref.traits.describe import counts, describe

        scorer = load(self.scorer, self.encoder, allow_network=self.allow_network)
        found = describe(scorer, [None, *self.user])
        found += self._groups(scorer)
        people = {}
        if not self.user and self.groups is None and isinstance(scorer, Forgets):
            people = counts(describe(scorer, scorer.known_users().ids))
        if self.json:
            out_json({"described": [one.as_dict() for one in found], "people": people}, indent=1)
        else:
            _show(found)
            _show_people(people, found[0])
        return 0

    def _groups(self, scorer: Scorer) -> list[Described]:
        """Each group of the folder, of which the scorer knows two people or more."""
        if self.groups is None:
            return []
        from polypref.errors import SettingsError
        from polypref.groups.grouping import Grouping
        from polypref.learners.protocol import Forgets
        from polypref.terminal import say
        from polypref.traits.describe import describe_group
        from polypref.wording import code, counted

        if not isinstance(scorer, Forgets) or not len(scorer.known_users()):
            raise SettingsError(
                f"the scorer in {self.scorer} knows no single people, so it cannot describe groups; give one that does."
            )
        grouping = Grouping.load(self.groups, scorer.encoder if hasattr(scorer, "encoder") else None)  # type: ignore[attr-defined]
        ids = scorer.known_users().ids
        groups, found = grouping.of(ids), []
        for name in grouping.names:
            members = [user for user, group in zip(ids.to_list(), groups, strict=True) if group == name]
            if len(members) < 2:
                say(f"group {code(name)}: the scorer knows {counted(len(members), 'people')} of it; two are needed.")
            else:
                found.append(describe_group(scorer, name, members))
        return found


def _show(found: list[Described]) -> None:
    """Print each sentence and its table."""
    from polypref.answers import wrapped
    from polypref.wording import shown, signed

    for one in found:
        who = "everybody's reward" if one.who is None else shown(one.who)
        out(*wrapped(f"{who}: {one.text}", indent="  "))
        rows = []
        for trait in one.traits:
            ends = f"{signed(trait.lo, 2)} to {signed(trait.hi, 2)}"
            other = "" if trait.against is None else signed(trait.against, 2) + (" (clear)" if trait.differs else "")
            rows.append(
                (f"{trait.more} / {trait.less}", signed(trait.value, 2), ends, "yes" if trait.clear else "no", other)
            )
        columns(("more of it / less of it", "value", "interval", "clear", "against everybody"), rows)
        out(*wrapped(f"rests on {one.rests_on}", indent="  "), "")


def _show_people(people: dict[str, tuple[int, int]], first: Described) -> None:
    """Print how many people clearly prefer which side."""
    if people:
        words = {one.name: (one.more, one.less) for one in first.traits}
        out("People who clearly prefer it:")
        rows = [(*words[name][:1], f"{more:,}", words[name][1], f"{less:,}") for name, (more, less) in people.items()]
        columns(("more", "people", "less", "people"), rows)
