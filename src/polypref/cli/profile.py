"""``polypref profile``: profiles the data before any learner."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from polypref.cli.grids import command_line
from polypref.cli.shared import Reads, ReadsJudgements, Seeded, cleaned, ensure_files, reading_of
from polypref.terminal import block, columns, out, out_json

if TYPE_CHECKING:
    from polypref import profiling


@dataclass(frozen=True, kw_only=True)
class Profile(Reads, Seeded):
    """How much people disagree, how consistent they are, whom the majority fails, and what there is to gain.

    docs/profile.md defines every quantity.
    """

    pairs: Literal["text", "id"] = "text"
    """What makes two judgements one pair: the same two texts, or the same pair_id."""
    raw: bool = False
    """Keep rows that check would drop, such as empty responses."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Read, drop what the linter drops, profile, print."""
        from polypref.data.given import say_how
        from polypref.errors import NotEnoughData
        from polypref.features.long_texts import of_default
        from polypref.profiling import profile
        from polypref.profiling.answer import answer_of
        from polypref.wording import counted

        ensure_files(self, self.files, "profile FILE")
        reading = reading_of(self, self.files)
        comparisons = reading.comparisons if self.raw else cleaned(reading)
        if self.raw and len(comparisons):
            say_how(reading)
        if not len(comparisons):
            raise NotEnoughData(
                f"nothing can be used of {counted(reading.rows_read, 'rows')}; polypref check FILE says why."
            )
        long = of_default(comparisons)
        result = profile(comparisons, seed=self.seed, pairs=self.pairs)
        unusable = sum(problem.count for problem in reading.problems if not problem.kept)
        left_out = unusable + len(reading.comparisons) - len(comparisons)
        name = ", ".join(Path(file).name.split(".")[0] for file in self.files)
        answer = answer_of(result, command_line("compare", self, {f.name for f in fields(ReadsJudgements)}))
        if self.json:
            content = {"files": list(reading.files), "rows_read": reading.rows_read, **result.as_dict()}
            content |= {"table2": result.table2(name), "answer": answer.as_dict()}
            content["long_texts"] = None if long is None else long.as_dict()
            out_json(content, indent=1)
        else:
            _show(result, name, left_out)
            if long is not None:
                out("", str(long))
            out("", *answer.printed())
        return 0


def _show(result: profiling.Profile, name: str, left_out: int) -> None:
    """Print sentences, the table of what is known and the Table 2 row."""
    from polypref.answers import wrapped
    from polypref.profiling.formatting import UNKNOWN
    from polypref.wording import counted

    s = result.sizes
    ties = f" ({s['ties']:,} of them ties)" if s["ties"] else ""
    judged, users = counted(s["judgements"], "judgements"), counted(s["users"], "users")
    what = counted(s["responses"], "responses") if result.only_thumbs else f"{counted(s['pairs'], 'pairs')} of texts"
    out(f"{name}: {judged}{ties} by {users} on {what}.")
    if left_out > 0:
        were = "was" if left_out == 1 else "were"
        out(f"{counted(left_out, 'rows')} {were} left out; polypref check says which and why.")
    out()
    for dimension, sentence in result.sentences().items():
        out(*wrapped(f"{dimension}: {sentence}", indent="  "))
    out()
    rows: list[tuple[str, ...]] = []
    known = [row for row in result.rows() if row.value != UNKNOWN]
    for row in known:
        if (row.dimension, *[""] * 4) not in rows:
            rows.append((row.dimension, *[""] * 4))
        ends, _, p = row.interval.removeprefix("null ").partition(", p = ")
        of = (f" ({row.of})", "") if row.of and not row.of[0].isdigit() else ("", row.of)
        rows.append((f"  {row.name}{of[0]}", row.value, ends, p, of[1]))
    out("Intervals are at 95 %; beside a p-value, the interval is that of the null:")
    columns(("quantity", "value", "interval", "p", "over"), rows)
    if unknown := len(result.rows()) - len(known):
        out(f"{counted(unknown, 'other quantities')} cannot be known from these data.")
    out()
    block(result.table2(name))
