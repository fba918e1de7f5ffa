"""``polypref groups``: groups users by an attribute, or discovers groups in how they judge; says what each likes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from polypref.arguments import Numbers, Share
from polypref.cli.grids import command_line
from polypref.cli.shared import Encodes, Reads, Seeded, WritesFolder, cleaned, ensure_files, reading_of
from polypref.terminal import columns, out

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.features.protocol import Encoder
    from polypref.groups.grouping import Grouping
    from polypref.groups.likes import Likes, Sample

LISTED = "groups.jsonl"  # next to the saved grouping: user_id, group, share


@dataclass(frozen=True, kw_only=True)
class Groups(WritesFolder, Reads, Encodes, Seeded):
    """Group users, say what each group likes, and save the groups for P-GRPO: docs/groups.md.

    Without --attribute, groups are discovered: people whose judgements one reward explains. Their number is chosen on
    held-out judgements and may be one, which means no groups. Writes a folder that polypref.groups.Grouping.load reads,
    with groups.jsonl (user_id, group, share), report.html and likes.json (what each group likes) in it.
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
        """Read, drop what the linter drops, group, describe, save, print the result."""
        from polypref.artifact import ensure_replaceable
        from polypref.errors import SettingsError
        from polypref.features import encoder
        from polypref.files import write, write_json, write_table
        from polypref.groups.likes import likes
        from polypref.report.groups import page

        ensure_files(self, self.files, "groups FILE --out DIR")
        ensure_replaceable(self.out, "grouping")
        if self.attribute is not None and self.groups is not None:
            raise SettingsError("--groups is for discovered groups; leave it out, or leave out --attribute.")
        encode = encoder(self.encoder)  # groups of an attribute need none, but the commands that come next name it
        comparisons = cleaned(reading_of(self, self.files))
        grouping, sample = self._grouping(comparisons, encode)
        told = likes(sample, grouping.names, seed=self.seed)
        content = self._content(grouping, comparisons, told) | {"rewards": _by_rewards(grouping)}
        grouping.save(self.out)
        write_table(self.out / LISTED, grouping.listed(comparisons.users.ids))
        write_json(self.out / "likes.json", content)
        write(self.out / "report.html", page(content))
        _show(content)
        out(f"saved to {self.out}; report: {self.out / 'report.html'}")
        return 0

    def _grouping(self, comparisons: Comparisons, encode: Encoder) -> tuple[Grouping, Sample]:
        """The groups, and the judgements by which they are described."""
        from polypref.groups import Discovery, discover, from_attribute
        from polypref.groups.discover_groups import found_again
        from polypref.groups.likes import Sample

        if self.attribute is not None:
            grouping = from_attribute(comparisons.users, self.attribute)
            return grouping, Sample.of(comparisons, grouping)
        how = Discovery(most=self.most, certainty=self.certainty)
        grouping = discover(comparisons, encoder=encode, seed=self.seed, groups=self.groups, how=how)
        if len(grouping.names) == 1:
            return grouping, Sample.of(comparisons, grouping)
        again = found_again(comparisons, grouping, encoder=encode, seed=self.seed, how=how)
        return grouping, Sample(*again, kept_out=True)

    def _content(self, grouping: Grouping, comparisons: Comparisons, told: Likes) -> dict[str, Any]:
        """The content of likes.json, from which terminal and page are written."""
        from importlib.metadata import version

        from polypref.cli.compare import Compare
        from polypref.cli.fit import Fit
        from polypref.data.derived import origin
        from polypref.groups.answer import answer_of

        size_of = dict.fromkeys([*grouping.names, "unknown"], 0)
        for name in grouping.of(comparisons.users.ids):
            size_of[name] += 1
        own = {f.name for f in fields(Groups)} - {"out"}
        again = {
            name: f"{command_line(name, self, own & {f.name for f in fields(kind)})} --out "
            for name, kind in (("fit", Fit), ("compare", Compare))
        }
        again = {name: f"{line}{shlex.quote(f'{self.out}-{name}')}" for name, line in again.items()}
        return {
            "schema": 1,
            "answer": answer_of(grouping, size_of, told, again).as_dict(),
            "data": {
                "files": list(self.files),
                "judgements": len(comparisons),
                "users": len(comparisons.users),
                "origin": origin(comparisons).why,
            },
            "groups": {"origin": grouping.origin, "sizes": size_of, "tried": [vars(row) for row in grouping.tried]},
            "likes": told.as_dict(),
            "reproduce": {"command": command_line("groups", self)},
            "versions": {"polypref": version("polypref")},
        }


def _by_rewards(grouping: Grouping) -> list[dict[str, Any]]:
    """What each discovered group's reward likes, from contrasting texts; groups of an attribute have no reward."""
    from polypref.traits.describe import describe_rewards
    from polypref.traits.table import packaged

    if (model := grouping.model) is None or len(grouping.names) < 2:
        return []
    reward_RG = model.inputs(packaged().pool) @ model.weights_KG
    return [describe_rewards(name, reward_RG[:, g]).as_dict() for g, name in enumerate(grouping.names)]


def _show(content: dict[str, Any]) -> None:
    """Print the answer, the groups with their sizes, and the likelihood of each number of groups."""
    from polypref.answers import Answer, wrapped
    from polypref.wording import counted, number, signed

    data, sizes = content["data"], content["groups"]["sizes"]
    out(*Answer.of(content["answer"]).printed(), "")
    judged = f"{counted(data['judgements'], 'judgements')} by {counted(data['users'], 'users')}"
    out(judged, *wrapped(f"origin: {data['origin']}", indent="  "), "")
    users = max(data["users"], 1)
    columns(("group", "users", "share"), [(name, f"{n:,}", number(n / users, 2)) for name, n in sizes.items()])
    if tried := content["groups"]["tried"]:
        out("", "Log likelihood of a held-out judgement, by number of groups:")
        titles = ("groups", "log likelihood", "gain over one", "standard error")
        figures = [(row["log_likelihood"], row["gain"], row["se"]) for row in tried]
        lines = [(number(a, 4), signed(b, 4), number(c, 4)) for a, b, c in figures]
        columns(titles, [(str(row["groups"]), *line) for row, line in zip(tried, lines, strict=True)])
    out()
