"""The judgements in the store of ``polypref serve`` as a preference file: what ``fit`` reads to learn from them anew.

Thumbs and ratings are compared by the rule by which states are derived (``people``): within one person, prompt and
kind, by the last value of each text. Those without a partner are judgements of single answers, in a file of their own.
Ids are the ones that scorers know. Not covered: judgements of people who paused, and answers that nobody judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from polypref.content import canonical_chat
from polypref.data.feedback.joined import FORMS
from polypref.data.feedback.judgements import SAME, Judgements, finished
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of
from polypref.errors import InputError, SettingsError
from polypref.serve.store.contract import Person, Store, Stored
from polypref.serve.store.opened import POSTGRES, opened
from polypref.serve.who.person import scorer_id

AT_ONCE = 10_000  # judgements that are read together
EVERYBODY = 1 << 62


@dataclass(frozen=True, kw_only=True)
class ServeStore:
    """Judgements of everybody who has not paused; ``form`` pairs or single."""

    form: str = ""

    def __post_init__(self) -> None:
        one_of("form of feedback", self.form, FORMS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """``paths`` is the file of the store, or ``postgresql://...``. ``limits`` hold for files from elsewhere only.

        Raises InputError where there is no store, StoreError where it cannot be read, NotEnoughData.
        """
        if len(paths) != 1:
            raise SettingsError(f"{len(paths)} stores given; expected one: the file after --store, or its address.")
        if not paths[0].startswith(POSTGRES) and not Path(paths[0]).is_file():
            raise InputError(f"there is no store {paths[0]}; expected the file that polypref serve wrote.")
        store = opened(paths[0])
        try:
            found = Judgements()
            for person, row in _judgements(store):
                _add(found, person, row)
        finally:
            store.close()
        return finished("polypref serve", found, self.form)


def _judgements(store: Store) -> Iterator[tuple[Person, Stored]]:
    """Everybody's judgements, in the order in which they were stored."""
    after, upto = store.newest(EVERYBODY)
    while rows := store.everybodys(after, upto, AT_ONCE):
        yield from rows
        after = rows[-1][1].seq


def _add(found: Judgements, person: Person, row: Stored) -> None:
    number, one = found.next(), row.judgement
    user, prompt = scorer_id(person), one.prompt if isinstance(one.prompt, str) else canonical_chat(one.prompt)
    if one.rejected is None:
        found.value(number, (str(user), prompt, one.chosen), one.kind, one.value)
        return
    more = {"tie": one.kind == "tie", "pair_id": f"{user}/{one.id}", "seconds": one.context.get("seconds")}
    more["timestamp"] = datetime.fromtimestamp(row.at, UTC).isoformat()
    more["shown_first"] = {"left": "chosen", "right": "rejected"}.get(str(one.context.get("position")))
    if not found.pair(number, str(user), prompt, one.chosen, one.rejected, **more):
        found.leave(SAME)
