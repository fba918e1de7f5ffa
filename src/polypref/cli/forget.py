"""``polypref forget``: takes people out of a saved scorer, and says where else files still name them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from polypref.cli.shared import Loads, some_of
from polypref.terminal import out, say

if TYPE_CHECKING:
    from polypref.learners.protocol import Forgets, Scorer

Ids = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(metavar="USER_ID ...", help="The people to forget.", help_behavior_hint="(one or more)"),
]


@dataclass(frozen=True, kw_only=True)
class Forget(Loads):
    """Take people out of a saved scorer: it answers them as it answers strangers, and no file of it names them.

    Other people's scores do not change. If one of the ids is unknown, nothing is written. What everybody shares was
    fitted with their judgements and stays; docs/risks.md says what can be read from it. Programs that have loaded the
    scorer know them until they load it again.
    """

    scorer: Annotated[Path, tyro.conf.Positional, arg(metavar="DIR")]
    """Folder written by polypref fit; replaced by the scorer without them, unless --out is given. With --store: the
    folder of that store's scorers, STORE.scorers; they are taken out of all of them, and servers follow."""
    user_ids: Ids
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: the same folder)")] = None
    """Folder to save the scorer to instead; an existing scorer there is replaced."""
    store: Annotated[str | None, arg(metavar="STORE", help_behavior_hint="(default: none)")] = None
    """The store of polypref serve whose scorers these are."""
    search: Annotated[tuple[Path, ...], arg(metavar="FOLDER ...", help_behavior_hint="(default: none)")] = ()
    """Other folders, such as data and reports: says which of their files name one of these people."""

    def run(self) -> int:
        """Load, forget, save; then say what was removed and what remains."""
        from polypref.content import ids
        from polypref.errors import CacheError, SettingsError
        from polypref.files import OTHER_OUT, held_for_run
        from polypref.scorers import metadata

        if not self.user_ids:
            raise SettingsError("forget needs at least one user id: polypref forget SCORER USER_ID ...")
        for folder in self.search:
            if not folder.is_dir():
                raise CacheError(f"--search {folder} is not a folder; give folders.")
        if self.store is not None:
            return self._everywhere(self.store)
        metadata(self.scorer)  # refuses what is no saved scorer before a folder is made
        gone = list(dict.fromkeys(ids(list(self.user_ids)).to_list()))
        target = self.out or self.scorer
        with held_for_run(target, elsewhere=OTHER_OUT):
            self._forget(gone, target)
        replaced = target.resolve() == self.scorer.resolve()
        _tell_remains((target, *(() if replaced else (self.scorer,)), *self.search), gone)
        return 0

    def _everywhere(self, address: str) -> int:
        """Take them out of all scorers of a store."""
        from polypref.content import ids
        from polypref.errors import MissingExtra, SettingsError
        from polypref.files import held_for_run
        from polypref.wording import counted

        try:
            from polypref.serve.refitting.folders import Folders
            from polypref.serve.refitting.forget_scorers import forget_everywhere
            from polypref.serve.store.opened import is_database, opened, shown
        except ImportError:
            raise MissingExtra("polypref forget --store", "serve") from None
        if self.out is not None:
            raise SettingsError("--store replaces the scorers in their own folder; leave --out out.")
        if not is_database(address) and not Path(address).is_file():
            raise SettingsError(f"{shown(address)} is no store; give the one of your server: --store FILE.")
        folders, gone = Folders(self.scorer), list(dict.fromkeys(ids(list(self.user_ids)).to_list()))
        if not folders.hashes():
            raise SettingsError(f"{self.scorer} has no scorers of a store; expected its folder, as STORE.scorers.")
        store = opened(address)
        try:
            with held_for_run(self.scorer):
                found = forget_everywhere(store, folders, gone, self.allow_network)
        finally:
            store.close()
        for one in found:
            knew = counted(one.knew, "of them") if one.knew > 1 else "one of them"
            if one.new is None:
                say(f"{one.old[:16]} was fitted with {knew} and cannot forget single people: polypref refit")
            else:
                out(f"{one.old[:16]} knew {knew}; {one.new[:16]} takes its place; nobody else's scores change")
        if not found:
            out("no scorer of the store has rows of them")
        _tell_remains((self.scorer, *self.search), gone)
        return 0

    def _forget(self, gone: list[str], target: Path) -> None:
        from polypref import artifact
        from polypref.forgetting import forget, traces
        from polypref.scorers import KIND, load
        from polypref.wording import are, counted

        for name in artifact.remove_leftovers(self.scorer, KIND):
            say(f"removed {name}, which an interrupted save left in {self.scorer}")
        scorer = load(self.scorer, allow_network=self.allow_network)
        known = len(_able(scorer, self.scorer, gone).known_users())
        named, had = traces(self.scorer, gone), _rows(scorer)
        less = scorer
        for user_id in gone:
            less = forget(less, user_id)
        replace_saved(less, target)
        out(f"{len(gone)} of {counted(known, 'users')} {are(len(gone))} forgotten; nobody else's scores change")
        for file, found in named.items():
            if sure := sum(one.sure for one in found):
                out(f"  {file}: {counted(sure, 'places')} that named them")
        rows = _rows(less)
        changed = [f"{name} {had[name]:,} to {rows[name]:,}" for name in sorted(had) if had[name] != rows[name]]
        out(f"  rows of arrays: {', '.join(changed)}")
        out(f"saved to {target}")


def replace_saved(scorer: Scorer, target: Path) -> None:
    """Save a scorer and make sure that no file of the one before it is left."""
    from polypref import artifact
    from polypref.scorers import KIND, save

    save(scorer, target)
    artifact.remove_leftovers(target, KIND)


def _able(scorer: Scorer, folder: Path, gone: list[str]) -> Forgets:
    """The scorer itself. Raises SettingsError if it cannot forget, InputError if it does not know one of ``gone``."""
    from polypref.errors import InputError, SettingsError
    from polypref.learners.protocol import Forgets
    from polypref.wording import counted

    if scorer.serves == "population":
        raise SettingsError(
            f"{folder} answers everybody alike (kind {scorer.kind!r}) and has no data of single users to remove; fit "
            "again without their judgements if these must have no influence."
        )
    if not isinstance(scorer, Forgets):
        raise SettingsError(
            f"{folder} holds a scorer of kind {scorer.kind!r}, which cannot forget single users; fit it again without "
            "their judgements."
        )
    known = set(ids := scorer.known_users().ids.to_list())
    if unknown := [user_id for user_id in gone if user_id not in known]:
        knows = f"{counted(len(ids), 'users')}: {some_of(sorted(ids))}" if ids else "nobody"
        raise InputError(f"{folder} does not know {some_of(unknown)}; nothing was written. It knows {knows}.")
    return scorer


def _rows(scorer: Scorer) -> dict[str, int]:
    """Length of each array of a scorer."""
    return {name: len(array) for name, array in scorer.state()[1].items() if array.ndim}


def _tell_remains(folders: tuple[Path, ...], gone: list[str]) -> None:
    """Say which files below ``folders`` name the people in ``gone``."""
    from polypref.forgetting import Trace, traces
    from polypref.wording import counted

    found: dict[Path, tuple[Path, list[Trace]]] = {}  # a file that two folders hold is told once
    for folder in folders:
        for file, places in traces(folder, gone).items():
            found.setdefault((folder / file).resolve(), (folder / file, places))
    for path, places in found.values():
        if sure := [one.where for one in places if one.sure]:
            out(f"still named in {path}: {counted(len(sure), 'places')}, the first at {sure[0]}")
    if not any(one.sure for _, places in found.values() for one in places):
        out(f"no file in {', '.join(map(str, dict.fromkeys(folders)))} names them")
    for path, places in found.values():
        if unsure := [one.where for one in places if not one.sure]:
            at = f"{counted(len(unsure), 'places')}, the first at {unsure[0]}"
            out(f"perhaps named in {path}, by a short id that may mean something else there: {at}")
