"""``polypref bounds``: check, calibrate, certify and explain the bounds that no user can move.

Suffixes here: ``_I`` pairs of a safe and an unsafe response.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from polypref.arguments import Share
from polypref.cli.shared import (
    EncoderName,
    Encodes,
    NamesColumns,
    ReadsJudgements,
    Seeded,
    UsesSlates,
    cleaned,
    limits_of,
    reading_of,
)
from polypref.terminal import out, out_json, say
from polypref.wording import counted, share

if TYPE_CHECKING:
    from polypref.bounds.adversaries import Pairs
    from polypref.bounds.bounds_file import BoundsFile, Calibrated
    from polypref.bounds.slates import Floats, Slates
    from polypref.data.files.limits import Limits


NEAR = 2.0  # times the largest cap that certifies: up to there, lowering the cap is the remedy
POOR_AREA = 0.7  # under the ROC curve of a detector


@dataclass(frozen=True, kw_only=True)
class Bounds(UsesSlates, NamesColumns, Encodes, Seeded):
    """Check, calibrate, certify and explain an organisation's bounds, which are a TOML file: docs/safety.md.

    check      which limits hold, from which line, and the policy hash.
    detector   train a small safety scorer on --slates, and on the responses of --safe as safe ones, into the folder
               that the file names.
    calibrate  set the gate's threshold on --slates that the safety scorer has not seen.
    certify    how much each cap certifies for every possible user, by --scorer's shared reward on --slates, and where
               the file's cap is far from certifying, the safety_weight and ample that do, if any do.
    explain    what happens to each row of --questions (user_id, prompt, response), and which line decides it.
    """

    encoder: EncoderName = "minilm-4"
    """Encoder of the detector's texts."""
    action: Positional[Literal["check", "detector", "calibrate", "certify", "explain"]]
    """The action; see above."""
    file: Annotated[Positional[Path], arg(metavar="BOUNDS.TOML")]
    """The file of the bounds."""
    slates: Annotated[tuple[str, ...], arg(metavar="FILE ...", help_behavior_hint="")] = ()
    """Labelled responses: response, unsafe, prompt, slate, category; or a benchmark of chosen and rejected ones."""
    safe: Annotated[tuple[str, ...], arg(metavar="FILE ...", help_behavior_hint="(default: none)")] = ()
    """For detector: judgements of your own people, whose responses are safe texts to train on."""
    scorer: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder written by polypref fit."""
    questions: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Rows to explain: JSONL, CSV or Parquet."""
    keep: Share = 0.95
    """Share of the shared reward's safety accuracy that a cap must certify."""

    def run(self) -> int:
        """Run the chosen action."""
        from polypref.bounds.bounds_file import read_bounds

        return getattr(self, f"_{self.action}")(read_bounds(self.file))

    def _check(self, file: BoundsFile) -> int:
        from polypref.bounds.bounds_file import load_bounds
        from polypref.bounds.load_safety import safety_from

        out(f"{self.file}: every tier keeps within the tiers above it")
        for name, one in file.settings.items():
            out(f"  {name} = {one.value!r}, {one}")
        for user, settings in file.users.items():
            out(f"  for {user}: {', '.join(f'{name} = {one.value!r}, {one}' for name, one in settings.items())}")
        safety = safety_from(file, self.allow_network)
        if not file.calibration.exists() and self.pin is None:
            out(f"not calibrated yet: polypref bounds calibrate {self.file} --slates FILE")
            return 0
        calibrated = load_bounds(self.file, self.pin)
        calibrated.verify(safety)
        _show(calibrated)
        return 0

    def _detector(self, file: BoundsFile) -> int:
        from polypref.artifact import ensure_replaceable
        from polypref.bounds.detector import KIND, fit_detector
        from polypref.features import encoder

        ensure_replaceable(file.safety, KIND)
        slates = self._training()
        detector = fit_detector(slates, encoder(self.encoder), self.seed)
        detector.save(file.safety)
        unsafe = int(slates.unsafe_C.sum())
        out(
            f"trained on {counted(len(slates.unsafe_C), 'responses')}, {unsafe:,} of them unsafe, "
            f"features from {self.encoder}"
        )
        out(f"separates safe from unsafe with an area under the ROC curve of {detector.auc:.3f} (cross-validated)")
        out(f"saved to {file.safety}")
        return 0

    def _training(self) -> Slates:
        """The part of the slates, and the responses of ``safe`` as safe ones."""
        from polypref.bounds.joined_slates import joined, safe_slates

        part = slates_from(self.slates, self.part, "detector", limits_of(self), self.raters)
        if not self.safe:
            return part
        own = cleaned(reading_of(ReadsJudgements(columns=self.columns, limits=self.limits), self.safe))
        every = self.slates, "1/1", "detector", limits_of(self), self.raters
        whole = part if self.part == "1/1" else slates_from(*every)
        return joined([part, safe_slates(own.responses, whole, part)])

    def _calibrate(self, file: BoundsFile) -> int:
        import numpy as np

        from polypref.bounds.bounds_file import calibrate_file
        from polypref.bounds.detector import auc
        from polypref.bounds.load_safety import safety_from
        from polypref.bounds.safety_cache import Safety

        slates = slates_from(self.slates, self.part, "calibrate", limits_of(self), self.raters)
        safety = safety_from(file, self.allow_network)
        _show(calibrate_file(file, safety, slates))
        value_C = Safety(safety)(slates.responses)[slates.response_C]
        told = ~np.isnan(value_C)
        area = auc(value_C[told], ~slates.unsafe_C[told])
        out(f"separates safe from unsafe on these slates with an area under the ROC curve of {area:.3f}")
        if area < POOR_AREA:
            say("warning: this safety scorer hardly detects unsafe responses; the gate drops many safe ones.")
        out(f"written to {file.calibration}")
        return 0

    def _certify(self, file: BoundsFile) -> int:
        import numpy as np

        from polypref.bounds import cap
        from polypref.bounds.adversaries import pairs_of, vertices
        from polypref.bounds.bounds_file import load_bounds
        from polypref.bounds.safety import shared
        from polypref.learners.protocol import Mixes
        from polypref.scorers import load

        if self.pin is not None:
            load_bounds(self.file, self.pin)
        slates = slates_from(self.slates, self.part, "certify", limits_of(self), self.raters)
        pairs = pairs_of(slates)
        scorer = load(_folder(self.scorer, "certify"), allow_network=self.allow_network)
        shared_R = shared(scorer, slates.responses)
        penalty_R = np.zeros(len(slates.responses))
        if file.limits.safety_weight:
            penalty_R = file.limits.penalty(self._safety_of(file, slates))
        margin_I = pairs.margins(shared_R + penalty_R)
        largest = _show_caps(margin_I, file.limits.cap, self.keep)
        if isinstance(scorer, Mixes):
            margin_IK = vertices(pairs, scorer, slates, penalty_R)
            out(
                f"without any cap, every user this scorer can represent (mixtures of its {margin_IK.shape[1]} basis "
                f"rewards) prefers the safe one in {cap.certified_mixture(margin_IK):.3f}"
            )
        self._advise(file, slates, pairs, shared_R, largest)
        return 0

    def _safety_of(self, file: BoundsFile, slates: Slates) -> Floats:
        """The safety scores of slates that the safety scorer has not seen."""
        from polypref.bounds.bounds_file import refuse_seen
        from polypref.bounds.load_safety import safety_from
        from polypref.bounds.safety_cache import Safety

        safety = safety_from(file, self.allow_network)
        refuse_seen(slates, safety)
        return Safety(safety)(slates.responses)

    def _advise(self, file: BoundsFile, slates: Slates, pairs: Pairs, shared_R: Floats, largest: float) -> None:
        """What to do about the file's cap, if ``largest`` is the largest that certifies; what is named was tried."""
        from polypref.bounds.remedy import remedy
        from polypref.errors import PolyprefError

        own, again = file.limits.cap, "a changed file must be calibrated again"
        if own == float("inf"):
            out(f"{self.file} sets no cap, so nothing is certified; set one under [organisation].")
        elif own <= largest:
            out(f"{self.file} sets cap = {own:.6g}; {again}.")
        elif own <= NEAR * largest:
            out(f"{self.file} sets cap = {own:.6g}: too large, lower it to {largest:.4g} or less; {again}.")
        else:
            far = f"{self.file} sets cap = {own:.6g}, far above the {largest:.4g} that would certify"
            try:
                found = remedy(pairs, shared_R, self._safety_of(file, slates), file.limits, self.keep)
            except PolyprefError as error:
                out(f"{far}; a safety_weight may help, and could not be tried: {error}")
                return
            if found is None:
                out(f"{far}; no safety_weight certifies more: the safety scorer tells too few of these pairs apart.")
                return
            out(
                f"{far}. With safety_weight = {found.limits.safety_weight:g} and ample = {found.limits.ample:g} under "
                f"[organisation], it certifies {found.certified:.3f} (tried on these slates; the shared reward is then "
                f"right in {found.shared:.3f}); {share(found.short, 1)} of their safe responses score less than ample, "
                f"and lose reward. What that costs people: polypref audit --held-out; {again}."
            )

    def _explain(self, file: BoundsFile) -> int:
        from polypref.bounds.bounds_file import load_bounds
        from polypref.bounds.explain import explained
        from polypref.bounds.load_safety import safety_from
        from polypref.cli.score import ROLES, rows_of
        from polypref.data.files.sources import open_source
        from polypref.data.rows.layouts import find_columns, parse_columns
        from polypref.errors import SettingsError
        from polypref.scorers import load

        if self.questions is None:
            raise SettingsError("explain needs rows to explain: --questions FILE, with user_id, prompt, response.")
        scorer = load(_folder(self.scorer, "explain"), allow_network=self.allow_network)
        bounded = load_bounds(self.file, self.pin).bind(scorer, safety_from(file, self.allow_network))
        limits = limits_of(self)
        source = open_source(self.questions, limits)
        names = find_columns(self.questions, source.types, ROLES, parse_columns(self.columns))
        for frame in rows_of(source, names, limits):
            for row in explained(file, bounded, frame):
                out_json(row)
        return 0


def slates_from(paths: tuple[str, ...], part: str, what: str, limits: Limits, raters: str | None = None) -> Slates:
    """The slates of all files, or the K-th of N parts of them; ``raters`` as in ``bounds.raters``."""
    import re

    from polypref.bounds.joined_slates import joined
    from polypref.bounds.raters import Rule
    from polypref.bounds.slates import part_of, read_slates
    from polypref.errors import SettingsError

    if not paths:
        raise SettingsError(f"{what} needs labelled slates: --slates FILE.")
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?/([0-9]+)", part)
    first, last, parts = (int(number) for number in (found[1], found[2] or found[1], found[3])) if found else (1, 0, 0)
    if not 1 <= first <= last <= parts:
        raise SettingsError(f"--part {part}: expected K/N or K-L/N, counted from 1, as in 2/3 or 1-2/4.")
    rule = None if raters is None else Rule.of(raters)
    found = [read_slates(path, limits=limits, raters=rule) for path in paths]
    for path, one in zip(paths, found, strict=True):
        if one.note is not None:
            say(f"{path}: {one.note}")
    slates = joined(found)
    return slates if parts == last - first + 1 else part_of(slates, first, last, parts)


def _show_caps(margin_I: Floats, own: float, keep: float) -> float:
    """Print what each cap certifies; returns the largest that certifies ``keep`` of what the shared reward gets right,
    0 where it gets nothing right."""
    import numpy as np

    from polypref.bounds import cap
    from polypref.errors import NotEnoughData

    out(f"{counted(len(margin_I), 'pairs')} of a safe and an unsafe response")
    if not len(margin_I):
        raise NotEnoughData("no pairs to certify; give slates with a safe and an unsafe response each.")
    if not (margin_I > 0).any():
        out("the shared reward prefers the safe one in none of them, so no cap certifies anything")
        return 0.0
    chosen = cap.choose(margin_I, keep)
    out(f"the shared reward prefers the safe one in {chosen.shared:.3f} of them")
    if chosen.shared < cap.POOR:
        say("warning: a cap certifies only what the shared reward gets right, which is little (docs/safety.md).")
    out(f"largest cap that certifies {share(keep)} of that for every possible user: {chosen.cap:.6g}")
    out()
    out("   cap  certified safety accuracy")
    tried = [chosen.cap * times for times in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)]
    for one in sorted([*tried, own] if np.isfinite(own) else tried):
        out(f"{one:>6.3g}  {cap.certified(margin_I, one):.3f}{'  (this file)' if one == own else ''}")
    out()
    return chosen.cap


def _folder(scorer: Path | None, what: str) -> Path:
    from polypref.errors import SettingsError

    if scorer is None:
        raise SettingsError(f"{what} needs a scorer: --scorer DIR, a folder written by polypref fit.")
    return scorer


def _show(calibrated: Calibrated) -> None:
    target = calibrated.file.target
    guarantee = "on average over calibrations" if target.delta is None else f"with probability {1 - target.delta:.6g}"
    out(f"an unsafe response passes in at most {target.alpha:.6g} of slates, for all users at once, {guarantee}:")
    for name, one in calibrated.thresholds.items():
        kept = "" if one.safe_kept is None else f"; {share(one.safe_kept, 1)} of safe responses pass"
        seen = f"{counted(one.slates, 'slates')}, {one.unsafe:,} with an unsafe response, {one.lost} lost"
        left = f"nothing is left of {share(one.abstains, 1)}"
        out(f"  {name or 'everything'}: safety score {one.value:.4f} or more; on {seen}{kept}, {left}")
    limits = calibrated.file.limits
    _show_scripts(calibrated)
    out(f"holds for slates of at most {calibrated.largest} candidates; larger ones are refused")
    if calibrated.largest < limits.most_candidates < float("inf"):
        out(f"  so most_candidates = {limits.most_candidates:.0f} has no effect; label larger slates to allow more")
    if limits.floor > min(one.value for one in calibrated.thresholds.values()):
        out(f"  floor = {limits.floor:.6g} is above the gate's threshold, and decides")
    if calibrated.safety is None:
        out("the safety scorer has no content to hash, so only its answers to the probe texts are compared")
    out(f"policy hash: {calibrated.policy_hash}")


def _show_scripts(calibrated: Calibrated) -> None:
    """The scripts of the slates, and what becomes of texts in others."""
    held = [name for name, one in calibrated.scripts.items() if one.held]
    drops = calibrated.file.drops_unknown
    out(f"scripts held: {', '.join(held) or 'none'}; texts in others are {'dropped' if drops else 'let to the gate'}")
    for name, one in calibrated.scripts.items():
        few = "" if one.held else ": too few unsafe ones, so it counts as unknown"
        out(f"  {name}: in {counted(one.slates, 'slates')}, {one.unsafe:,} of them with an unsafe response in it{few}")
