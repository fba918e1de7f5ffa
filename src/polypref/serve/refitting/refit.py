"""Fits a scorer anew from the store's judgements, compares it with the one in force, and puts it in force.

Steps, each stored in the scorers' folder under ``refit`` until the end: what is learned from (``run.json``), the fitted
scorer (``fitted``), the comparison (``report.json``). A run that was killed at any moment goes on after the last step
that it finished, unless its judgements are no longer those of the store: then somebody left, paused or took something
back, and it begins anew without them. Putting in force is one row in the store, written last.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import numpy as np

from polypref import artifact, features, learners, scorers
from polypref.comparisons import Comparisons
from polypref.data.split import choose_rule
from polypref.errors import ArtifactError, SettingsError
from polypref.features.protocol import Encoder
from polypref.files import held_for_run, write
from polypref.learners.protocol import Adapts, Forgets, Learner, Scorer, scorer_class
from polypref.learners.provenance import Fitted, fitted_on, note
from polypref.regular_files import content_of
from polypref.scorers import cut, ensure_fittable
from polypref.serve.follow import tried
from polypref.serve.in_force import InForce
from polypref.serve.refitting import data as refit_data
from polypref.serve.refitting.compare import Report, compare, too_few
from polypref.serve.refitting.data import Judged, Training
from polypref.serve.refitting.folders import Folders, known_to
from polypref.serve.store.contract import InForceRow, Person, Store
from polypref.terminal import say

WORSE = "worse"  # the mark of a run whose scorer was refused
FORGOTTEN_ONE_BY_ONE = 2_000  # people; each costs a copy of the scorer
Settings = TypeVar("Settings")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a refit learns from: judgements after ``after`` up to ``upto``, those after ``split`` to compare on.

    ``salt`` makes the names that people have in the fit; ``judged`` and ``files`` are hashes of the judgements.
    """

    before: str
    after: int
    upto: int
    split: int
    judged: str
    files: str | None
    learner: str
    seed: int
    held_out: float
    salt: str
    begun: float

    def asks(self) -> tuple[Any, ...]:
        """What must be the same for a run to go on."""
        return self.before, self.files, self.learner, self.seed, self.held_out


@dataclass(frozen=True)
class Fresh:
    """A fitted scorer, what it was fitted on, and how it compares; ``report`` None: there was too little to compare.

    ``named`` is everybody in its fit, as scorers know them, ``people`` those of the store; ``before`` is in force, and
    knows ``lost`` people from its fit who are not in this one.
    """

    before: str
    digest: str
    lost: int
    data: dict[str, Any]
    named: list[str]
    people: list[Person]
    report: Report | None


@dataclass(frozen=True, eq=False)
class Refit:
    """A refit of the scorer in force in ``store``; see the command for its settings."""

    store: Store
    folders: Folders
    learner: str | None = None
    files: Comparisons | None = None
    seed: int = 0
    held_out: float = 0.2
    force: bool = False
    allow_network: bool = False

    def run(self) -> Fresh:
        """Fit and compare, or go on with a run that was interrupted. Raises what these do."""
        before = in_force(self.store)
        old = self.folders.load(before, allow_network=self.allow_network)
        with held_for_run(self.folders.work, "refit"):
            learner = named_learner(self.learner, scorers.metadata(self.folders.at(before)))
            run, judged = self._begun(before, learner[0])
            held = refit_data.held_out(judged, run.split)
            earlier = judged.until(run.split)
            files = None if self.files is None else refit_data.not_stored(self.files, judged)
            given = refit_data.training(earlier, files, run.salt, hasattr(scorer_class(learner[1]), "adapt"))
            if (encoder := scorers.encoder_of(old)) is not None:
                for rows in (given.comparisons, *held.values()):
                    refit_data.read_by_parts(encoder, rows.responses)
            new = self._fitted(run, given, learner, old)
            report = self._report(new, old, held, earlier)
            data = {
                "judgements": sum(map(len, earlier.stored.values())),
                "people": len(given.named),
                "upto": run.split,
                "files": 0 if files is None else len(files),
                "again": 0 if self.files is None else len(self.files) - (0 if files is None else len(files)),
                "learner": run.learner,
                "seed": run.seed,
            }
            digest = artifact.digest_of(self.folders.work / "fitted", scorers.KIND)
            lost = len(set(known_to(old)) - set(given.named))
            return Fresh(before, digest, lost, data, given.named, list(earlier.stored), report)

    def put_in_force(self, fresh: Fresh) -> None:
        """The new scorer takes the place of the one that it was compared with.

        Raises Conflict if another one has, or if somebody left who is in the fit.
        """
        self.folders.add(self.folders.work / "fitted")
        scorer = self.folders.load(fresh.digest, allow_network=self.allow_network)
        tried(InForce(scorer, fresh.digest))
        report = None if fresh.report is None else cast(dict, fresh.report)
        row = InForceRow(hash=fresh.digest, why="refit", before=fresh.before, data=fresh.data, report=report)
        self.store.put_in_force(row, fresh.named, fresh.people).result()
        self.end()

    def refused(self) -> None:
        """The new scorer is worse: what was done is kept for ``force``, and given up by the next run without it."""
        write(self.folders.work / WORSE, "")

    def end(self) -> None:
        """Give up what the run has kept."""
        self.folders.remove(self.folders.work)

    # --- steps

    def _begun(self, before: str, learner: str) -> tuple[Run, Judged]:
        """The run that was interrupted, if it asks the same of the same judgements, or a new one."""
        work = self.folders.work
        hash_of_files = None if self.files is None else self.files.content_hash
        asked = (before, hash_of_files, learner, self.seed, self.held_out)
        kept = _read(work / "run.json")
        if kept is not None and kept.asks() == asked and (self.force or not (work / WORSE).exists()):
            judged = Judged.read(self.store, kept.after, kept.upto)
            if judged.identity == kept.judged:
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.begun))
                say(f"going on with the refit that was begun at {when}, with the judgements until then")
                return kept, judged
        for name in ("fitted", "report.json", WORSE, "run.json"):
            _remove(self.folders, work / name)
        after, upto = self.store.newest(refit_data.MOST)
        if after:
            say(f"only the newest {refit_data.MOST:,} judgements are used")
        judged = Judged.read(self.store, after, upto)
        run = Run(
            before=before,
            after=after,
            upto=upto,
            split=refit_data.split_of(judged, self.held_out, seen_by(self.store, before)),
            judged=judged.identity,
            files=hash_of_files,
            learner=learner,
            seed=self.seed,
            held_out=self.held_out,
            salt=secrets.token_hex(16),
            begun=time.time(),
        )
        write(work / "run.json", msgspec.json.encode(run))
        return run, judged

    def _fitted(self, run: Run, given: Training, learner: tuple[str, Learner], old: Scorer) -> Scorer:
        """The fitted scorer, from the folder if it is there."""
        folder = self.folders.work / "fitted"
        encoder = scorers.encoder_of(old) or features.encoder("minilm", features="pair")
        try:
            return scorers.load(folder, encoder, allow_network=self.allow_network)
        except ArtifactError:
            _remove(self.folders, folder)
        fitted = fit(given.comparisons, *learner, encoder, run.seed)
        new = own_people(fitted, given)
        scorers.save(new, folder, fitted_on(fitted))
        return scorers.load(folder, encoder, allow_network=self.allow_network)

    def _report(self, new: Scorer, old: Scorer, held: dict, earlier: Judged) -> Report | None:
        place = self.folders.work / "report.json"
        if place.exists():
            return msgspec.json.decode(content_of(place))
        if self.force and too_few(held):
            return None
        report = compare(new, old, held, earlier.stored)
        write(place, msgspec.json.encode(report))
        return report


def in_force(store: Store) -> str:
    """The hash of the scorer in force. Raises SettingsError where there is none."""
    found = store.in_force()
    if found is None:
        raise SettingsError("no scorer was ever in force in this store; run once: polypref serve SCORER --store STORE.")
    return found


def seen_by(store: Store, digest: str) -> int:
    """The number of the last judgement of the store in a scorer's fit, as far as the store knows."""
    return max((row.data.get("upto", 0) for row in store.scorers() if row.hash == digest), default=0)


def rolled_back(store: Store, folders: Folders, allow_network: bool) -> InForceRow:
    """Put the scorer in force that was before the present one. Raises SettingsError, ArtifactError, Conflict."""
    history = store.scorers()
    if not history or history[-1].before is None:
        raise SettingsError("no scorer was in force before the present one; there is nothing to go back to.")
    back = history[-2].hash  # its hash is another one than ``before`` if it forgot somebody since
    tried(InForce(folders.load(back, allow_network=allow_network), back))
    row = InForceRow(hash=back, why="rollback", before=history[-1].hash)
    store.put_in_force(row).result()
    return row


def fit(comparisons: Comparisons, name: str, learner: Learner, encoder: Encoder, seed: int) -> Scorer:
    """As ``polypref fit`` does: hyper-parameters are chosen on rows that are split off by the rule that suits."""
    ensure_fittable(comparisons)
    rule, _ = choose_rule(comparisons, lambda rule: cut(comparisons, rule, seed))
    train, valid = cut(comparisons, rule, seed)
    scorer = learner.fit(train, encoder=encoder, seed=seed, valid=valid)
    fitted = fitted_on(scorer)
    assert fitted is not None, f"{name} does not record its fits"
    note(scorer, replace(fitted, learner=name, split=rule))
    return scorer


def own_people(scorer: Scorer, given: Training) -> Scorer:
    """The scorer without rows of the people in its fit, if it can forget; the people of files under their names."""
    if not isinstance(scorer, Adapts):
        return scorer
    known: Any = scorer
    if isinstance(scorer, Forgets) and len(scorer.known_users()) <= FORGOTTEN_ONE_BY_ONE:
        for name in scorer.known_users().ids.to_list():
            known = known.forget(name)
    if given.files is not None:
        rows = given.files
        for at in np.unique(rows.user_N).tolist():
            known = known.adapt(rows.users.ids[at], rows.take(rows.user_N == at))
    return known


def named_learner(name: str | None, fitted: Fitted | None) -> tuple[str, Learner]:
    """The learner ``name``, or the one of a fit with its settings. Raises SettingsError."""
    if name is not None:
        return name, scorers.learner(name)
    if fitted is None:
        raise SettingsError("the scorer in force does not say which learner fitted it; add --learner NAME.")
    try:
        found = scorers.learner(fitted.learner)
    except SettingsError:
        of_class = [one for one in learners.LEARNERS.values() if type(one).__name__ == fitted.learner]
        if not of_class:
            raise
        found = of_class[0]
    return fitted.learner, _with(found, fitted.settings)


def _with(settings: Settings, values: dict[str, Any]) -> Settings:
    """Settings with other values, as JSON has them."""
    changed: dict[str, Any] = {}
    for field in fields(settings):  # type: ignore[arg-type]
        if field.name in values:
            now, value = getattr(settings, field.name), values[field.name]
            changed[field.name] = (
                _with(now, value) if is_dataclass(now) else tuple(value) if isinstance(now, tuple) else value
            )
    return replace(settings, **changed)  # type: ignore[type-var]


def _read(path: Path) -> Run | None:
    """A run that was begun; None where there is none, or one of another version."""
    try:
        return msgspec.json.decode(content_of(path), type=Run)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _remove(folders: Folders, path: Path) -> None:
    if path.is_dir():
        folders.remove(path)
    else:
        path.unlink(missing_ok=True)
