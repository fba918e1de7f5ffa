"""``polypref groups``: groups users by an attribute, or discovers groups in how they judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from polypref.arguments import Numbers, Share
from polypref.cli.shared import Encodes, Reads, Seeded, WritesFolder, cleaned, ensure_files, reading_of
from polypref.terminal import out

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.groups import Grouping

LISTED = "groups.jsonl"  # next to the saved grouping: user_id, group, share


@dataclass(frozen=True, kw_only=True)
class Groups(WritesFolder, Reads, Encodes, Seeded):
    """Group users, and save the groups for P-GRPO: docs/groups.md.

    Without --attribute, groups are discovered: people whose judgements one reward explains. Their number is chosen on
    held-out judgements and may be one, which means no groups. Writes a folder that polypref.groups.Grouping.load reads,
    with groups.jsonl in it: user_id, group, share.
    """

    out: Path
    """Folder to save the groups to; existing groups are replaced."""
    attribute: Annotated[str | None, arg(metavar="NAME")] = None
    """Take the groups from this key of the users' attributes instead of discovering them."""
    groups: Annotated[Numbers | None, arg(metavar="INT")] = None
    """Number of groups to discover; None: chosen on held-out judgements."""
    most: Numbers = 6
    """Maximum number of groups to try."""
    certainty: Share = 0.6
    """Minimum share for a user to be in a group; other users are unknown."""

    def run(self) -> int:
        """Read, drop what the linter drops, group, save, print the result."""
        from polypref.artifact import ensure_replaceable
        from polypref.errors import SettingsError
        from polypref.files import write_table

        ensure_files(self, self.files, "groups FILE --out DIR")
        ensure_replaceable(self.out, "grouping")
        if self.attribute is not None and self.groups is not None:
            raise SettingsError("--groups is for discovered groups; leave it out, or leave out --attribute.")
        comparisons = cleaned(reading_of(self, self.files))
        grouping = self._grouping(comparisons)
        grouping.save(self.out)
        write_table(self.out / LISTED, grouping.listed(comparisons.users.ids))
        _show(grouping, comparisons)
        out(f"saved to {self.out}")
        return 0

    def _grouping(self, comparisons: Comparisons) -> Grouping:
        from polypref.features import encoder
        from polypref.groups import Discovery, discover, from_attribute

        if self.attribute is not None:
            return from_attribute(comparisons.users, self.attribute)
        how = Discovery(most=self.most, certainty=self.certainty)
        return discover(comparisons, encoder=encoder(self.encoder), seed=self.seed, groups=self.groups, how=how)


def _show(grouping: Grouping, comparisons: Comparisons) -> None:
    """Print the finding in a sentence, groups with their sizes, and the likelihood of each number of groups."""
    from polypref.data.derived import origin
    from polypref.wording import counted

    known = dict.fromkeys([*grouping.names, "unknown"], 0)
    for name in grouping.of(comparisons.users.ids):
        known[name] += 1
    users = len(comparisons.users)
    judged = f"{counted(len(comparisons), 'judgements')} by {counted(users, 'users')}"
    out(f"{judged}: {grouping.finding()}")
    out(f"origin: {origin(comparisons).why}")
    out()
    width = max(map(len, known))
    out(f"{'group'.ljust(width)}  users  share")
    for name, count in known.items():
        out(f"{name.ljust(width)}  {count:>5,}  {count / max(users, 1):.2f}")
    if grouping.tried:
        out()
        out("groups  log likelihood of a held-out judgement  gain over one group  standard error")
        for row in grouping.tried:
            out(f"{row.groups:>6}  {row.log_likelihood:>39.4f}  {row.gain:>+19.4f}  {row.se:>14.4f}")
    out()
