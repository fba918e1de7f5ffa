"""``polypref refit``: fits the scorer of a store anew, and puts it in force where it is not worse."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from polypref.arguments import ProperShare
from polypref.cli.shared import Loads, ReadsJudgements, Seeded, cleaned, reading_of
from polypref.terminal import columns, out, say
from polypref.wording import counted

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.serve.refitting.compare import Compared, Report
    from polypref.serve.refitting.folders import Folders
    from polypref.serve.refitting.refit import Fresh
    from polypref.serve.store.contract import Store

NOT_IN_FORCE = 1  # exit code: the new scorer is worse


@dataclass(frozen=True, kw_only=True)
class Refit(Loads, ReadsJudgements, Seeded):
    """Fit the scorer of a store anew from its judgements, and put it in force without a restart.

    The new scorer is compared with the one in force on the newest judgements, which neither has seen; both have learned
    the same earlier judgements of each person first. It is put in force unless it is worse beyond the interval; then
    the exit code is 1. An interrupted refit resumes where it stopped. Servers follow within seconds
    (docs/serve-operations.md).
    """

    store: str = "polypref.db"
    """The store of the server: a file, or postgresql://..."""
    scorers: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: STORE.scorers)")] = None
    """Folder of the store's scorers, as given to polypref serve."""
    also: Annotated[tuple[str, ...], arg(name="with", metavar="FILE ...", help_behavior_hint="(default: none)")] = ()
    """Preference files to fit on as well, such as the first scorer's; their people stay known."""
    learner: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: as in force)")] = None
    """Another learner; without it, that of the scorer in force, with its settings."""
    held_out: ProperShare = 0.2
    """Share of the judgements, the newest (at most 5,000), to compare on."""
    force: bool = False
    """Put it in force even if it is worse, or if there are too few judgements to compare on."""
    dry_run: bool = False
    """Fit and compare, and put nothing in force."""
    rollback: bool = False
    """Put the scorer in force again that was before the present one; nothing is fitted."""
    history: bool = False
    """Show which scorers were in force, and do nothing."""

    def run(self) -> int:
        """Show, go back, or fit and decide."""
        from polypref.errors import MissingExtra, SettingsError

        try:
            from polypref.serve.refitting.folders import folders_of
            from polypref.serve.store.opened import is_database, opened, shown
        except ImportError:
            raise MissingExtra("polypref refit", "serve") from None
        files = cleaned(reading_of(self, self.also)) if self.also else None
        if not is_database(self.store) and not Path(self.store).is_file():
            raise SettingsError(f"{shown(self.store)} is no store; give the one of your server: --store FILE.")
        folders = folders_of(self.store, self.scorers)
        if folders is None:
            raise SettingsError("a store in PostgreSQL needs --scorers DIR, the folder that its servers share.")
        store = opened(self.store)
        try:
            if self.history:
                return _show_history(store)
            return self._back(store, folders) if self.rollback else self._refit(store, folders, files)
        finally:
            store.close()

    def _back(self, store: Store, folders: Folders) -> int:
        from polypref.serve.refitting.refit import rolled_back

        row = rolled_back(store, folders, self.allow_network)
        out(f"scorer {row.hash[:16]} is in force again, in the place of {str(row.before)[:16]}")
        return 0

    def _refit(self, store: Store, folders: Folders, files: Comparisons | None) -> int:
        from polypref.serve.refitting import refit
        from polypref.serve.refitting.compare import worse

        how = (self.learner, files, self.seed, self.held_out, self.force, self.allow_network)
        job = refit.Refit(store, folders, *how)
        fresh = job.run()
        _tell(fresh)
        if fresh.digest == fresh.before:
            out(f"it is the scorer in force, {fresh.before[:16]}, to the bit; nothing changes")
            job.end()
            return 0
        is_worse = fresh.report is not None and worse(fresh.report)
        if self.dry_run:
            job.end()
            out("worse: it would not be put in force" if is_worse else "not worse: it would be put in force")
            return NOT_IN_FORCE if is_worse else 0
        if is_worse and not self.force:
            job.refused()
            say(f"the new scorer is worse; {fresh.before[:16]} stays in force (--force puts the new one in force)")
            return NOT_IN_FORCE
        job.put_in_force(fresh)
        out(f"scorer {fresh.digest[:16]} is in force, in the place of {fresh.before[:16]}; back: --rollback")
        say("if the server has bounds with a cap, certify it for the new scorer: polypref bounds certify")
        return 0


def _tell(fresh: Fresh) -> None:
    """What was fitted, who is lost, and the figures."""
    data = fresh.data
    from_files = f" and {counted(data['files'], 'comparisons')} of files" if data["files"] else ""
    fitted = f"{data['learner']} on {counted(data['judgements'], 'judgements')} of the store{from_files}"
    out(f"{fitted}, by {counted(data['people'], 'people')}")
    if data["again"]:
        say(f"{counted(data['again'], 'comparisons')} of the files are in the store already, and count once")
    if fresh.lost:
        say(
            f"{counted(fresh.lost, 'people')} whom the scorer in force knows from its fit have no judgement in the "
            "store, and are strangers to the new one: add --with FILE, the preference file of that fit"
        )
    if fresh.report is None:
        out("too few judgements to compare on; nothing is known about which is better")
        return
    from polypref.serve.refitting.compare import limits_of

    report: Report = fresh.report
    judged, people = counted(report["judgements"], "judgements"), counted(report["people"], "people")
    out(f"compared on the newest {judged}, by {people}; both scorers had learned the same earlier judgements of each")
    rows = [_row("accuracy, %", report["accuracy"], 100), _row("log loss", report["log_loss"], 1)]
    columns(["measure", "new", "in force", "difference", "95 % interval"], rows)
    for sentence in limits_of(report):
        out(sentence)


def _row(name: str, one: Compared, times: int) -> list[str]:
    values = one["new"], one["in_force"], one["gain"], one["lo"], one["hi"]
    digits = 1 if times > 1 else 3
    new, old, gain, lo, hi = ["-" if value is None else f"{times * value:.{digits}f}" for value in values]
    return [name, new, old, gain, f"{lo} to {hi}"]


def _show_history(store: Store) -> int:
    rows = []
    for at, one in enumerate(history := store.scorers(), 1):
        gain = "" if one.report is None else f"{100 * one.report['accuracy']['gain']:+.1f}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at))
        now = "in force" if at == len(history) else ""
        rows.append([one.hash[:16], one.why, when, str(one.data.get("judgements", "")), gain, now])
    if not rows:
        out("no scorer was ever in force in this store")
        return 0
    columns(["scorer", "by", "since", "judgements", "accuracy gained", ""], rows)
    return 0
