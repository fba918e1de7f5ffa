"""Takes people out of every scorer of a store that has rows of their own, also of those that a rollback would bring.

A scorer without them has another hash and the same answers for everybody else; it takes the place of the one with them,
in the folder and in the store's history, and servers follow. Killed at any moment, it can be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from polypref.learners.protocol import Forgets
from polypref.serve.refitting.folders import Folders, known_to
from polypref.serve.store.contract import Store


class Without(NamedTuple):
    """A scorer ``old`` that knew people, and ``new``, which does not; None: its method cannot forget single people."""

    old: str
    new: str | None
    knew: int


def forget_everywhere(store: Store, folders: Folders, names: Sequence[str], allow_network: bool) -> list[Without]:
    """Replace the scorers that know ``names``, and give up a refit that was interrupted.

    Raises ArtifactError, StoreError, CacheError.
    """
    found: list[Without] = []
    for digest in folders.hashes():
        scorer: Any = folders.load(digest, allow_network=allow_network)
        had = {name for name in names if digest in store.fitted_with(name)}
        knew = sorted(set(names) & set(known_to(scorer)))
        for name in knew:
            scorer = scorer.forget(name)
        if knew:
            found.append(Without(digest, folders.keep(scorer), len(knew)))
        elif had and not isinstance(scorer, Forgets) and scorer.serves != "population":
            found.append(Without(digest, None, len(had)))
    replaced = {one.old: one.new for one in found if one.new is not None}
    store.forgotten(replaced, names).result()
    for old in replaced:
        folders.remove(folders.at(old))
    folders.remove(folders.work)
    return found
