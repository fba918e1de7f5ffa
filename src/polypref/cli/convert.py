"""``polypref convert``: a published preference set, or a product's export of feedback, becomes a preference file."""

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
        help="The set's or the product's files: JSON, JSONL, CSV or Parquet, patterns, or hf://datasets/... paths.",
        help_behavior_hint="(one or more)",
    ),
]
OWN = ("data_set", "files", "out", "force", "quiet", "limits")  # settings of the command; the others are the sets'


@dataclass(frozen=True, kw_only=True)
class Convert(Replaces, Limited):
    """Write a published preference set, or feedback from a product, as a preference file that check and fit read.

    Products: open-webui, langfuse, langsmith, phoenix, helicone, portkey, label-studio, argilla, and serve-store, the
    file of polypref serve; docs/feedback.md says how to export from each, and what becomes of a record. Sets: psoups,
    tldr, personalllm, prism, arena, personal-rewardbench, community-alignment, helpsteer3, multipref, rfm;
    docs/published.md has their files, protocols and traps.
    Settings that are not given have the set's own defaults; settings that it lacks are refused.
    """

    data_set: tyro.conf.Positional[str]
    """Which product or set."""
    files: Raw
    protocol: Annotated[Literal["S", "L", "R"] | None, arg(metavar="{S,L,R}")] = None
    """tldr: real labels of the busiest workers, labels simulated from length, or all workers in both splits."""
    workers: Annotated[AtLeastOne | None, arg(metavar="INT")] = None
    """tldr: number of workers kept."""
    people: Annotated[str | None, arg(metavar="NAME")] = None
    """personalllm: models (single reward models) or dirichlet (mixtures of them); multipref: all, normal or expert."""
    pairs: Annotated[str | None, arg(metavar="NAME")] = None
    """personalllm: four or best-worst; prism: chosen or rated; community-alignment: all, first or shared turns;
    helpsteer3: overall or each annotator's; multipref: overall, helpful, truthful or harmless."""
    models: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    """personalllm, rfm: reward models that take part."""
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

    judges: Annotated[Literal["users", "annotators", "models"] | None, arg(metavar="{users,annotators,models}")] = None
    """Products: whose judgements are written. Those of the others are counted and left out."""
    names: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    """Products with several kinds of scores: the names of those that say what a person prefers."""
    form: Annotated[Literal["pairs", "single"] | None, arg(metavar="{pairs,single}")] = None
    """Products: comparisons of two answers, or the likes and ratings that are in none. None given: pairs if there are
    any."""
    user_field: Annotated[str | None, arg(metavar="FIELD")] = None
    """Products that log requests: where the user stands, as in metadata.customer."""
    prompt_field: Annotated[str | None, arg(metavar="FIELD")] = None
    """Products that log requests, and annotation: where the prompt stands, as in inputs.question."""
    answer_field: Annotated[str | None, arg(metavar="FIELD")] = None
    """Products that log requests: where the answer stands."""
    label_config: Annotated[str | None, arg(metavar="FILE")] = None
    """label-studio: a file with the project's label config, which names the two answers."""

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
        from polypref.data.feedback import FEEDBACK
        from polypref.data.published import PUBLISHED
        from polypref.errors import SettingsError, unknown_name

        sources = {**FEEDBACK, **PUBLISHED, **_own()}
        if self.data_set not in sources:
            raise unknown_name("product or published set", self.data_set, sources)
        cls = sources[self.data_set]
        known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
        mine = [field.name for field in fields(self) if field.name not in OWN]
        given = {name: getattr(self, name) for name in mine if getattr(self, name) is not None}
        foreign = next((name for name in given if name not in known), None)
        if foreign is not None:
            has = ", ".join(flag_of(name) for name in known) or "none"
            raise SettingsError(f"{self.data_set} has no setting {flag_of(foreign)}; it has {has}.")
        return cls(**given)


def _own() -> dict[str, type[Adapter]]:
    """Where polypref's own judgements are."""
    from polypref.serve.store.exported import ServeStore

    return {"serve-store": ServeStore}


def flag_of(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _tell(found: Converted, path: Path) -> None:
    users = found.table["user_id"].n_unique()
    out(f"{found.title}: {counted(found.table.height, 'judgements')} of {counted(users, 'people')}, written to {path}")
    if found.used is not None:
        out(f"read: {counted(found.rows, 'records of feedback')}, {found.used:,} of them used")
    for reason, count in found.left_out.items():
        out(f"left out: {count:,} ({reason})")
    for remark in found.remarks:
        out(f"note: {remark}")
