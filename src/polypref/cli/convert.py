"""``polypref convert``: converts a published preference set, as its authors distribute it, to a preference file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import arg

from polypref.arguments import Above, AtLeastOne, AtLeastZero, People, Seed
from polypref.cli.shared import Limited, Replaces, limits_of, refuse_suffix, refuse_to_replace
from polypref.files import write_table
from polypref.terminal import out
from polypref.wording import counted

if TYPE_CHECKING:
    from polypref.data.published import Adapter, Converted

Raw = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(
        metavar="FILE ...",
        help="The set's files: JSON, JSONL, CSV or Parquet, patterns, or hf://datasets/... paths.",
        help_behavior_hint="(one or more)",
    ),
]
OWN = ("data_set", "files", "out", "force", "quiet", "limits")  # settings of the command; the others are the sets'


@dataclass(frozen=True, kw_only=True)
class Convert(Replaces, Limited):
    """Write a published preference set as a preference file that check, profile and compare read.

    Sets: psoups, tldr, personalllm, prism, arena, personal-rewardbench; docs/published.md has their files, protocols
    and traps. Settings that are not given have the set's own defaults; settings that the set lacks are refused.
    """

    data_set: tyro.conf.Positional[str]
    """Which set."""
    files: Raw
    protocol: Annotated[Literal["S", "L", "R"] | None, arg(metavar="{S,L,R}")] = None
    """tldr: real labels of the busiest workers, labels simulated from length, or all workers in both splits."""
    workers: Annotated[AtLeastOne | None, arg(metavar="INT")] = None
    """tldr: number of workers kept."""
    people: Annotated[Literal["models", "dirichlet"] | None, arg(metavar="{models,dirichlet}")] = None
    """personalllm: single reward models or mixtures of them."""
    pairs: Annotated[str | None, arg(metavar="NAME")] = None
    """personalllm: four or best-worst; prism: chosen or rated."""
    models: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    """personalllm: reward models that take part."""
    count: Annotated[People | None, arg(metavar="INT")] = None
    """personalllm: number of mixtures."""
    alpha: Annotated[Above | None, arg(metavar="FLOAT")] = None
    """personalllm: the Dirichlet parameter; small values give people close to one model."""
    prompts: Annotated[AtLeastZero | None, arg(metavar="INT")] = None
    """personalllm: prompts that each mixture judges; 0: all."""
    beaver: Annotated[Literal["reward", "cost"] | None, arg(metavar="{reward,cost}")] = None
    """personalllm: the sign of beaver_7b's scores in the file."""
    seed: Annotated[Seed | None, arg(metavar="INT")] = None
    """personalllm: seed of mixtures, prompts and pairs."""

    def run(self) -> int:
        """Read, convert, write; print what was left out, and notes."""
        from polypref.data.files.sources import readable

        refuse_suffix(self.out)
        refuse_to_replace(self.out, self.force)
        with readable(", ".join(self.files)):  # columns of another type than the set's are told by Polars alone
            found = self._adapter().convert(self.files, limits_of(self))
        refuse_to_replace(self.out, self.force)  # somebody may have written it meanwhile
        write_table(self.out, found.table)
        _tell(found, self.out)
        return 0

    def _adapter(self) -> Adapter:
        """Raises SettingsError for an unknown set or a setting that it does not have."""
        from polypref.data.published import PUBLISHED
        from polypref.errors import SettingsError, unknown_name

        if self.data_set not in PUBLISHED:
            raise unknown_name("published set", self.data_set, PUBLISHED)
        cls = PUBLISHED[self.data_set]
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        mine = [field.name for field in fields(self) if field.name not in OWN]
        given = {name: getattr(self, name) for name in mine if getattr(self, name) is not None}
        foreign = next((name for name in given if name not in known), None)
        if foreign is not None:
            has = ", ".join(f"--{name}" for name in known) or "none"
            raise SettingsError(f"{self.data_set} has no setting --{foreign}; it has {has}.")
        return cls(**given)


def _tell(found: Converted, path: Path) -> None:
    users = found.table["user_id"].n_unique()
    out(f"{found.title}: {counted(found.table.height, 'judgements')} of {counted(users, 'people')}, written to {path}")
    for reason, count in found.left_out.items():
        out(f"left out: {count:,} ({reason})")
    for remark in found.remarks:
        out(f"note: {remark}")
