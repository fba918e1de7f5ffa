"""P-SOUPS (Jang et al. 2023, Personalized Soups): six simulated people, three pairs of opposed wishes.

https://github.com/joeljang/RLPHF, files rm_training/P1A.json ... P3B.json with user_input, completion_a (preferred) and
completion_b; the mirror RiverDong/psoups has uid, prompt, chosen, rejected. GPT-4 gave the labels, each for one wish,
and ``user_input`` ends in that wish as an instruction. A learner that reads prompts would see the label's cause there,
so the instruction is removed. Each file repeats its rows five times or more; without copies 53,471 remain.

Columns: the raw files' by their authors' code, the mirror's (uid is a whole number) by public loaders of several
projects, which name no other. Which uid is which wish is not known, and whether the mirror's prompts hold the
instruction is told on conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, per_cent, read_files, stack, typed
from polypref.errors import InputError
from polypref.wording import counted

INSTRUCTIONS = {  # person -> the sentence that ends their user_input
    "P1A": "Generate a response that can be easily understood by an elementary school student.",
    "P1B": "Generate a response that only a PhD Student in that specific field could understand.",
    "P2A": "Generate a response that is concise and to the point without being verbose.",
    "P2B": "Generate a response that is very informative without missing any background information.",
    "P3A": "Generate a response that is friendly, witty, funny, and humorous, like a close friend.",
    "P3B": "Generate a response in an unfriendly manner.",
}
COUNTS = {"P1A": 8959, "P1B": 9069, "P2A": 8239, "P2B": 8626, "P3A": 9356, "P3B": 9222}  # without copies
RAW = ("user_input", "completion_a", "completion_b")
MIRROR = ("uid", "prompt", "chosen", "rejected")


@dataclass(frozen=True)
class PSoups:
    """Six people; the name of a raw file gives the person."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for a file of another form or name."""
        frames = [_mirror(file) if file.has(*MIRROR) else _raw(file) for file in read_files(paths, limits)]
        whole = stack(frames)
        selection = Selection(whole.unique(maintain_order=True))
        selection.count("copy of an earlier row", whole.height - selection.frame.height)
        sentences = list(INSTRUCTIONS.values())
        selection.frame = selection.frame.with_columns(
            instructed=pl.col.asked.str.contains_any(sentences),
            prompt=pl.col.asked.str.replace_many(sentences, [""] * len(sentences)).str.strip_chars(),
        )
        found = selection.finish("P-SOUPS", whole.height, ())
        with_it = int(selection.frame["instructed"].sum())
        remarks = [f"the person's instruction was removed from {counted(with_it, 'prompts')}"]
        if with_it < found.table.height:
            others = found.table.height - with_it
            remarks.append(f"{others:,} prompts had none of the six instructions and are unchanged")
        return replace(found, remarks=(*remarks, *_counts(found.table), _shared(found.table)))


def _raw(file: File) -> pl.DataFrame:
    if file.stem not in INSTRUCTIONS:
        known = ", ".join(INSTRUCTIONS)
        raise InputError(f"{file.path}: its name says whose rows these are; expected one of {known}, as in P1A.json.")
    rows = typed(file, file.need("P-SOUPS", *RAW), dict.fromkeys(RAW, "text"))
    return rows.select(
        pl.lit(file.stem).alias("user_id"),
        *(pl.col(old).alias(new) for old, new in zip(RAW, ("asked", "chosen", "rejected"), strict=True)),
    )


def _mirror(file: File) -> pl.DataFrame:
    rows = typed(file, file.frame.select(MIRROR), dict.fromkeys(MIRROR, "text"))
    return rows.select(pl.col.uid.alias("user_id"), pl.col.prompt.alias("asked"), "chosen", "rejected")


def _counts(table: pl.DataFrame) -> list[str]:
    """Compares the counts with the published ones, for people who have these."""
    counts = dict(table["user_id"].value_counts().iter_rows())
    known = {user: count for user, count in counts.items() if user in COUNTS}
    other = [f"{user} {n:,} (published {COUNTS[user]:,})" for user, n in sorted(known.items()) if n != COUNTS[user]]
    if other:
        return [f"not as many as published: {', '.join(other)}"]
    whole = f", all {sum(COUNTS.values()):,}" if len(known) == len(COUNTS) else ""
    return [f"as many rows of each person as published{whole}"] if known else []


def _shared(table: pl.DataFrame) -> str:
    """Number of pairs of texts that several people judged, and on how many they disagree."""
    first = pl.col.chosen <= pl.col.rejected
    key = (
        pl.when(first).then("chosen").otherwise("rejected").alias("a"),
        pl.when(first).then("rejected").otherwise("chosen").alias("b"),
    )
    pairs = (
        table.with_columns(first.alias("first"))
        .group_by("prompt", *key)
        .agg(users=pl.col.user_id.n_unique(), sides=pl.col.first.n_unique())
    )
    shared = pairs.filter(pl.col.users > 1)
    if shared.is_empty():
        return "no pair of texts was judged by two people: disagreement cannot be counted"
    split = int((shared["sides"] > 1).sum())
    return (
        f"{shared.height:,} of {pairs.height:,} pairs were judged by two people or more, who disagree on "
        f"{per_cent(split, shared.height)} of them: hold out whole pairs (--split pair)"
    )
