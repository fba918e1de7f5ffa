"""A person leaves: their rows are deleted in one transaction and overwritten, and the files are searched for traces.

The files are searched for the user's id, its hash and the texts that only this person's rows held. Texts that another
person's rows also hold, such as a shared prompt, stay.

SQLite may have left copies of rows in unused parts of pages when it moved them; if any is found, the file is written
anew, up to 256 MB. A larger one is left to its operator (``VACUUM``), and the receipt tells what was found.

Covered: the store and its side files. Not covered: copies elsewhere (backups, exports, a proxy's logs); the shared part
of the scorer, which contains the person's judgements until the next fit. Ids shorter than ``SHORTEST`` characters,
which may occur in any bytes, are searched for only in rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polypref.serve.store.contract import Judgement, Offer, Person, Store, as_stored
from polypref.serve.store.held_open import pieces
from polypref.serve.who.person import shown

SHORTEST = 8  # characters of an id or text that is searched for
MOST_SEARCHED = 200  # texts, the longest first
SHARED = (
    "The scorer's shared part was fitted with the judgements of everybody in its fit and stays as it is until the next "
    "fit (polypref refit). A scorer that was served from a folder may know the person from its own fit: "
    "polypref forget STORE.scorers USER --store STORE."
)


@dataclass(frozen=True)
class Left:
    """The receipt: rows removed by table, files searched and what was found in them, and what stays.

    ``scorers`` are the hashes of those that were fitted with the person.
    """

    rows: dict[str, int]
    files: list[str]
    searched: int
    residue: list[str]
    pending: bool
    scorers: list[str]
    stays: str = SHARED


def leave(person: Person, store: Store) -> Left:
    """Remove a person from the store; afterwards they are a stranger. Raises StoreError."""
    needles = _own_texts(store, person)
    receipt = store.forget(person)
    ids = [one for one in (person.user or "", shown(person)) if len(one) >= SHORTEST]
    held = store.held([*needles, *ids])
    needles, ids = ([one for one in some if one not in held] for some in (needles, ids))
    residue = _residue(store, ids, needles)
    if residue and store.rewritten():
        residue = _residue(store, ids, needles)
    files = [path.name for path in store.files()]
    stays = SHARED + receipt.stays
    return Left(receipt.rows, files, len(needles) + len(ids), residue, receipt.pending, list(receipt.scorers), stays)


def _own_texts(store: Store, person: Person) -> list[str]:
    """Texts of the person's rows, the longest first."""
    found = set[str]()
    for one in store.judgements(person):
        found.update(texts_of(one.judgement))
    for offer in store.offers(person):
        found.update(texts_of(offer))
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)[:MOST_SEARCHED]


def texts_of(row: Judgement | Offer) -> Iterable[str]:
    """What a person or an application wrote, in a row."""
    said = [row.prompt] if isinstance(row.prompt, str) else [one.get("content") for one in row.prompt]
    prompt = [text for text in said if isinstance(text, str)]
    if isinstance(row, Offer):
        return [*prompt, *row.texts]
    return [*prompt, *(one for one in (row.chosen, row.rejected, row.comment) if one)]


def _residue(store: Store, ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    return [f"{path.name}: {what}" for path in store.files() for what in _found(path, ids, texts)]


def _found(path: Path, ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    """What a file still holds, without repeating it."""
    forms = {one: (as_stored(one),) for one in texts} | {one: (as_stored(one), one.encode()) for one in ids}
    longest = max((len(form) for some in forms.values() for form in some), default=1)
    held = set[str]()
    for piece in pieces(path, longest - 1):
        held.update(one for one, some in forms.items() if one not in held and any(form in piece for form in some))
    return ["the user's id" for one in ids if one in held] + ["a text" for one in texts if one in held]
