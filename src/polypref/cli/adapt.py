"""``polypref adapt``: which method serves new people from a few comparisons; or adds new people to a saved scorer."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from polypref.cli.grids import linted
from polypref.cli.shared import (
    Loads,
    Reads,
    ReadsQuestion,
    WritesFolder,
    cleaned,
    ensure_files,
    reading_of,
    some_of,
)
from polypref.newcomers.settings import NewSettings
from polypref.terminal import columns, out
from polypref.wording import are, code, counted

if TYPE_CHECKING:
    from polypref.errors import SettingsError
    from polypref.newcomers.new_users import NewUsers


@dataclass(frozen=True, kw_only=True)
class Adapt(WritesFolder, Reads, ReadsQuestion, Loads, NewSettings):
    """New people: which method serves them best after a few answers?

    Holds out people, gives each method a few of their comparisons and measures on the others. Writes new_users.json and
    new_users.parquet. An interrupted run resumes where it stopped.

    With --scorer nothing is compared: the saved scorer learns the people in FILE and is saved to --out.
    """

    out: Path
    """Folder of the results and the finished cells; with --scorer, of the new scorer."""
    learners: tuple[str, ...] = ()
    """Which learners and routes, or "all", the default: each that can learn new people."""
    scorer: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder written by polypref fit: add new people to this scorer instead."""
    user: Annotated[str | None, tyro.conf.arg(metavar="ID", help_behavior_hint="")] = None
    """With --scorer: the user to learn; None: everybody in FILE."""

    def writes(self) -> tuple[str, ...]:
        """The results; with a scorer, the folder is an artifact."""
        return () if self.scorer is not None else ("cells", "new_users.json", "new_users.parquet")

    def run(self) -> int:
        """Compare the routes, or add people to the saved scorer."""
        from polypref.errors import SettingsError

        ensure_files(self, self.files, "adapt FILE --out DIR")
        if self.scorer is not None:
            return self._teach(self.scorer)
        if self.user is not None:
            raise SettingsError(f"--user {self.user} needs --scorer DIR, the scorer to add that user to.")
        return self._compare()

    def _compare(self) -> int:
        from polypref.newcomers.new_users import named_routes, new_users

        started = time.perf_counter()
        named_routes(self.learners)  # reports misspelt names before a long file is read
        encode = self.text_encoder()
        settings = NewSettings(**{f.name: getattr(self, f.name) for f in fields(NewSettings)})
        data = linted(self)
        metadata, learners = data.metadata("adapt", self), self.learners or None
        found = new_users(data.comparisons, learners, encode, out=self.out, metadata=metadata, settings=settings)
        data.show(found.contents)
        show(found)
        data.remark()
        out(f"results: {self.out / 'new_users.json'}")
        out(f"done in {time.perf_counter() - started:.0f} s")
        return 0

    def _teach(self, folder: Path) -> int:
        from polypref.errors import InputError
        from polypref.learners import Adapts
        from polypref.learners.protocol import PERSONAL
        from polypref.scorers import load, save

        scorer = load(folder, allow_network=self.allow_network)
        comparisons = cleaned(reading_of(self, self.files))
        ids = comparisons.users.ids.to_list()
        if self.user is not None and self.user not in ids:
            files = ", ".join(self.files)
            raise InputError(f"user {self.user!r} has no usable comparison in {files}; found: {some_of(ids)}.")
        learnt, known = {}, list[str]()
        for user_id in ids if self.user is None else [self.user]:
            few = comparisons.take(comparisons.user_N == ids.index(user_id))
            if not isinstance(scorer, Adapts):
                raise _cannot(folder, scorer.kind)
            if (scorer.score(few.responses, [user_id] * len(few), few.chosen_N).source_Q == PERSONAL).any():
                known.append(user_id)
            scorer = scorer.adapt(user_id, few)
            learnt[user_id] = len(few)
        save(scorer, self.out)
        people, rows = len(learnt), sum(learnt.values())
        learned = f"{counted(people, 'people')} from {counted(rows, 'comparisons')}"
        out(f"learned {learned}; other users' scores do not change")
        if known:
            out(f"known before: {some_of(known)}; what FILE says is added, and what it repeats counts twice")
        out(f"saved to {self.out}")
        return 0


def _cannot(folder: Path, kind: str) -> SettingsError:
    from polypref.errors import SettingsError

    return SettingsError(
        f"{folder} holds a scorer of kind {kind!r}, which cannot learn new users; fit one that can, as `hierarchical`."
    )


def show(found: NewUsers) -> None:
    """Print the best route at each size, then tables of accuracy and gains."""
    from polypref.answers import wrapped
    from polypref.data.thumbs import AREA, READING
    from polypref.newcomers.tables import advice, gain_lines, table_lines

    contents = found.contents
    new, seeds = contents.data["new_users_per_seed"][0], contents.settings["seeds"]
    out(f"{counted(new, 'users')} {are(new)} new under each of {counted(seeds, 'seeds')}")
    for line in advice(contents):
        out(*wrapped(line, indent="  "))
    titles, *rows = table_lines(contents)
    measure: str = contents.data["measure"]
    titled = f"{measure[0].upper()}{measure[1:]} on the new people's test rows, %"
    out("", *wrapped(f"{titled}; + or −: the gain's interval excludes zero."))
    columns(titles, rows)
    titles, *rows = gain_lines(contents)
    text = f"Gain over {code(contents.floor or 'the baseline')}, points, with its 95 % interval:"
    out("", *wrapped(text))
    columns(titles, rows)
    if measure == AREA:
        out("", *wrapped(READING))
