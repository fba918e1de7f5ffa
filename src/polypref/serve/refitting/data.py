"""What a refit learns from: the judgements of everybody in the store who has not paused, and perhaps files.

The newest judgements are held out, to compare scorers on. In the fit, people have other names that nobody can ask for:
what is particular to a person is learned from the store again when they ask, so that nothing counts twice, and somebody
who leaves is a stranger to the new scorer too. People of files, whose judgements are not in the store, are learned
again from the files, under their own names. What files repeat of the store is left out.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from polypref import content
from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.errors import NotEnoughData
from polypref.features import question
from polypref.features.protocol import Encoder, read_by
from polypref.serve.people import Row, compared, rows_of
from polypref.serve.store.contract import Person, Store, Stored
from polypref.serve.who.person import scorer_id
from polypref.wording import counted

AT_ONCE = 20_000  # judgements that are read from the store
MOST = 1_000_000  # the newest that are used
PART, PAUSE_S = 64, 0.1  # texts that are encoded at once; who waits for them looks every 0.05 s
MOST_HELD_OUT = 5_000  # enough for an interval of about a point


def read_by_parts(encoder: Encoder, pool: Responses) -> None:
    """Compute and store what a scorer reads of these texts, part by part.

    A server on this machine that needs a new text waits for one part, not for all of them: features are stored by one
    process at a time.
    """
    for rows in np.array_split(np.arange(len(pool), dtype=np.int32), max(1, -(-len(pool) // PART))):
        part = pool.take(rows)
        features_RD = encoder.encode(part)
        if read_by(encoder) == "pair":
            question.columns(encoder, part, features_RD)
        time.sleep(PAUSE_S)


@dataclass(frozen=True, eq=False)
class Judged:
    """Judgements by person, in the order in which they were stored."""

    stored: dict[Person, list[Stored]]

    @classmethod
    def read(cls, store: Store, after: int, upto: int) -> Judged:
        """Those with numbers after ``after``, up to ``upto``, of all who have not paused."""
        found: defaultdict[Person, list[Stored]] = defaultdict(list)
        for begin in range(after, upto, AT_ONCE):
            for person, one in store.everybodys(begin, min(begin + AT_ONCE, upto), AT_ONCE):
                found[person].append(one)
        return cls(dict(found))

    @property
    def identity(self) -> str:
        """A hash of all judgements and of who gave them; another one if one was taken back or somebody left."""
        parts = [
            f"{person.tenant}\0{person.user}\0{one.seq}\0{one.judgement.id}"
            for person, many in self.stored.items()
            for one in many
        ]
        return content.hexdigest(*parts)

    def rows(self) -> list[tuple[Person, Row]]:
        """All comparisons that they give."""
        return [(person, row) for person, many in self.stored.items() for row in rows_of(many)]

    def until(self, split: int) -> Judged:
        """The judgements up to the number ``split``."""
        kept = {person: [one for one in many if one.seq <= split] for person, many in self.stored.items()}
        return Judged({person: many for person, many in kept.items() if many})


def split_of(judged: Judged, share: float, seen: int) -> int:
    """The number after which judgements are held out: the newest ``share``, and none up to ``seen``."""
    seqs = np.sort([row.seq for _, row in judged.rows()])
    held = min(round(share * len(seqs)), MOST_HELD_OUT)
    split = int(seqs[len(seqs) - held - 1]) if 0 < held < len(seqs) else int(seqs[-1]) if len(seqs) else 0
    return max(split, seen)


def held_out(judged: Judged, split: int) -> dict[Person, Comparisons]:
    """The comparisons after ``split``, by person."""
    found: defaultdict[Person, list[Row]] = defaultdict(list)
    for person, row in judged.rows():
        if row.seq > split:
            found[person].append(row)
    return {person: compared([scorer_id(person) or ""] * len(rows), rows) for person, rows in found.items()}


@dataclass(frozen=True, eq=False)
class Training:
    """What is fitted: comparisons of people under their names in the fit.

    ``named`` are the names under which scorers know these people; ``files`` the comparisons of files, under those.
    """

    comparisons: Comparisons
    named: list[str]
    files: Comparisons | None


def training(judged: Judged, files: Comparisons | None, salt: str, renamed: bool) -> Training:
    """The judgements and those of files; ``renamed``: under names that nobody can ask for. Raises NotEnoughData."""
    own = [(scorer_id(person) or "", row) for person, row in judged.rows()]
    names, rows = [name for name, _ in own], [row for _, row in own]
    weights = [row.weight for row in rows]
    if files is not None:
        more = _rows_of_file(files)
        names += files.users.ids.gather(files.user_N).to_list()
        rows, weights = rows + more, weights + files.weights_N.tolist()
    if not rows:
        raise NotEnoughData("the store has no judgements to fit on; let people judge first.")
    called = [content.hexdigest(salt, name) for name in names] if renamed else names
    asked, chosen, rejected, tie, *_ = zip(*rows, strict=True)
    found = from_columns(called, asked, chosen, rejected, tie_N=list(tie), weight_N=weights)
    return Training(found, sorted(set(names)), files)


def not_stored(files: Comparisons, judged: Judged) -> Comparisons | None:
    """What files say that the store does not hold from the same person; None where that is nothing.

    A file made of the store would count its judgements twice, and show the new scorer those that are held out.
    """
    held = {_said(scorer_id(person), row) for person, row in judged.rows()}
    names = files.users.ids.gather(files.user_N).to_list()
    new = [_said(name, row) not in held for name, row in zip(names, _rows_of_file(files), strict=True)]
    return files if all(new) else files.take(np.array(new)) if any(new) else None


def _said(name: str | None, row: Row) -> tuple[Any, ...]:
    """A comparison by its content: who judged, and how."""
    prompt = row.prompt if isinstance(row.prompt, str) else content.canonical_chat(row.prompt)
    sides = (row.chosen, row.rejected)
    return name, prompt, row.tie, *(sorted(sides) if row.tie else sides)


def _rows_of_file(files: Comparisons) -> list[Row]:
    pool = files.responses
    prompts = [
        tuple(pool.messages(at)) if chat else pool.prompt_text(at)  # type: ignore[arg-type]
        for at, chat in enumerate(pool.is_chat_P.tolist())
    ]
    asked = [prompts[at] for at in pool.prompt_R[files.chosen_N].tolist()]
    chosen, rejected = (pool.texts_R.gather(side_N).to_list() for side_N in (files.chosen_N, files.rejected_N))
    tie = [False] * len(files) if files.tie_N is None else files.tie_N.tolist()
    return list(map(Row, asked, chosen, rejected, tie, [0] * len(files)))  # type: ignore[arg-type]


def told(judged: Judged) -> str:
    """How many judgements of how many people."""
    many = sum(map(len, judged.stored.values()))
    return f"{counted(many, 'judgements')} of {counted(len(judged.stored), 'people')}"
