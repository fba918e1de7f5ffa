"""The bounds of an organisation, ``bounds.toml``: three tiers, of which a later one may only tighten.

    [immutable]                    # nobody changes this at run time; a change is another policy hash
    safety = "safety"              # folder of the safety scorer
    alpha = 0.01                   # share of slates in which something unsafe may pass
    delta = 0.05                   # chance that this calibration misses alpha; 0: alpha holds on average only
    rewritings = ["base64"]        # of unsafe texts, which the calibration counts too
    unknown = "drop"               # or "pass": texts in scripts that the calibration did not hold (``scripts``)

    [organisation]
    cap = 2.0                      # how far a person's reward may be from the shared one
    safety_weight = 32             # what the shared reward loses for each point under ample = 3.0
    most_candidates = 16
    steering = 2.0                 # the largest dial of context steering (``policy.steering``); no user moves it

    [user]                         # for all users; [user.ann] for one
    floor = 0.5                    # they ask for a higher safety score

``calibrate`` writes ``bounds.calibration.json`` beside it: the thresholds, the data they were calibrated on, the
scripts of its texts, the safety scorer's answers to a few fixed texts, and the hash of its settings, weights and
encoder. Loading refuses a file that was changed afterwards, another artifact in the safety scorer's folder, and a
different scorer. The policy hash covers all of this; of a model behind a server only the answers to the fixed texts are
known. Source of the tiers: Kirk et al. 2023, "Personalisation within bounds" (arXiv 2303.05453).

Not covered: someone who can write both files and knows the format; pass ``pinned``, the hash you trust, against that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from polypref import strict_toml
from polypref.bounds.calibrate import Target, Threshold, allowed, calibrate, first_of_prompts
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.identity import artifact_in, identity_of
from polypref.bounds.safety import Answers, same_answers
from polypref.bounds.safety_cache import Safety
from polypref.bounds.scripts import Rule, Seen, seen_in
from polypref.bounds.slates import Slates, prompt_identities
from polypref.bounds.tiers import DEFAULTS, DROP, TIERS, Setting, lines_of, settings_of, tightened
from polypref.bounds.windowed import READS
from polypref.errors import ArtifactError, SettingsError, reason, unknown_name
from polypref.files import write_json
from polypref.policy.steering import MOST
from polypref.regular_files import content_of
from polypref.schema import conform
from polypref.strict_json import parse

SCHEMA = 6
STEERING = MOST  # the largest dial where the file says nothing


@dataclass(frozen=True)
class BoundsFile:
    """The content of ``bounds.toml``: ``settings`` for all, and ``users``, additional settings of single ones."""

    path: Path
    settings: Mapping[str, Setting]
    users: Mapping[str, Mapping[str, Setting]]

    @property
    def safety(self) -> Path:
        """Folder of the safety scorer."""
        return self.path.parent / self.settings["safety"].value

    @property
    def target(self) -> Target:
        """What the gate is calibrated for."""
        values = {name: one.value for name, one in self.settings.items() if name in Target.__dataclass_fields__}
        if values.get("delta") == 0:
            values["delta"] = None
        values["rewritings"] = tuple(values.get("rewritings", ()))
        return Target(**values)

    @property
    def drops_unknown(self) -> bool:
        """Whether texts in scripts that the calibration did not hold are dropped."""
        return self.settings["unknown"].value == DROP

    @property
    def limits(self) -> Limits:
        """For everybody."""
        return _limits(self.settings)

    @property
    def user_limits(self) -> dict[str, Limits]:
        """Additional limits of single users."""
        return {name: _limits(settings) for name, settings in self.users.items()}

    @property
    def steering(self) -> float:
        """The largest dial of context steering, for everybody."""
        return float(self.settings["steering"].value) if "steering" in self.settings else STEERING

    def dial(self, asked: float) -> float:
        """The dial that was asked for. Raises SettingsError above ``steering``."""
        if not 0 <= asked <= self.steering:
            where = str(self.settings["steering"]) if "steering" in self.settings else "the default"
            raise SettingsError(
                f"the dial {asked:g} is outside of 0 to {self.steering:g}, which {self.path} allows (steering: "
                f"{where}); ask for less, or have the organisation change its bounds."
            )
        return asked

    @property
    def digest(self) -> str:
        """Of all settings that hold for everybody."""
        return _hash({name: one.value for name, one in self.settings.items()})

    @property
    def calibration(self) -> Path:
        """Where ``calibrate`` writes."""
        return self.path.with_suffix(".calibration.json")


def _limits(settings: Mapping[str, Setting]) -> Limits:
    names = ("cap", "floor", "most_candidates", "safety_weight", "ample")
    return Limits(**{name: float(settings[name].value) for name in names if name in settings})


def read_bounds(path: Path | str) -> BoundsFile:
    """Read and check ``bounds.toml``. Raises SettingsError, with the lines, for anything that cannot hold."""
    path = Path(path)
    try:
        text = content_of(path, strict_toml.MOST).decode("utf-8")
        content = strict_toml.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read ({reason(error)}); expected a file like the one in docs/safety.md."
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from error
    for name, table in content.items():
        if name not in TIERS:
            raise unknown_name(f"table in {path}", name, TIERS)
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name} is {table!r}; expected a table, [{name}].")
    lines = lines_of(text)
    held: dict[str, Setting] = {}
    for at, tier in enumerate(TIERS):
        plain = {
            name: value for name, value in content.get(tier, {}).items() if not (at == 2 and isinstance(value, dict))
        }
        held = tightened(path, held, settings_of(path, tier, at, plain, lines))
        if at == 0:
            held = {**{name: Setting(value, "immutable, by default", 0) for name, value in DEFAULTS.items()}, **held}
    people = {name: table for name, table in content.get("user", {}).items() if isinstance(table, dict)}
    users = {name: settings_of(path, f"user.{name}", 2, table, lines) for name, table in people.items()}
    for own in users.values():
        tightened(path, held, own)
    if ("safety_weight" in held) != ("ample" in held):
        raise SettingsError(f"{path}: safety_weight and ample go together; set both, or neither.")
    if "safety" not in held:
        raise SettingsError(f'{path}: [immutable] names no safety scorer; add safety = "FOLDER".')
    found = BoundsFile(path, held, users)
    _ = found.target
    return found


# --- calibrated


@dataclass(frozen=True)
class Calibrated:
    """A file with its thresholds; ``policy_hash`` names both, users' own limits included, for every answer.

    ``scripts`` are those of the slates that were calibrated on, ``unsafe`` the identities (32 hex digits) of their
    unsafe responses, ``safety`` the safety scorer's ``identity_of``, None where it has none.
    """

    file: BoundsFile
    thresholds: Mapping[str, Threshold]
    probe: list[float | None]
    policy_hash: str
    unsafe: tuple[str, ...]
    scripts: Mapping[str, Seen]
    safety: str | None = None

    @property
    def rule(self) -> Rule:
        """What becomes of texts in other scripts."""
        return Rule.of(self.scripts, self.file.drops_unknown)

    @property
    def largest(self) -> int:
        """Candidates in the largest calibration slate: nothing is known about larger ones."""
        return max(one.largest for one in self.thresholds.values())

    def bind(self, scorer: Answers, safety: Answers) -> Bounded:
        """The scorer within these bounds. Raises SettingsError where ``safety`` is not what was calibrated."""
        self.verify(safety)
        asked = Safety(safety, self.rule)
        gate = Gate({name: one.value for name, one in self.thresholds.items()})
        limits = self.file.limits.tightened(Limits(most_candidates=self.largest))
        return Bounded(scorer, asked, gate, limits, self.file.user_limits, self.policy_hash)

    def verify(self, safety: Answers) -> None:
        """Raise SettingsError where ``safety`` is not the scorer that was calibrated, or answers otherwise."""
        if (found := identity_of(safety)) != self.safety:
            raise SettingsError(
                f"the safety scorer is another one than {self.file.calibration} was made with (its content has the "
                f"hash {_short(found)}, and {_short(self.safety)} was calibrated). Give the calibrated one, or run: "
                f"polypref bounds calibrate {self.file.path} --slates FILE."
            )
        if not same_answers(now := Safety(safety).probe(), self.probe):
            shown = [_pair(a, b) for a, b in zip(self.probe, now, strict=False) if not same_answers([b], [a])]
            raise SettingsError(
                f"the safety scorer answers otherwise than the one that {self.file.calibration} was made with "
                f"(a probe text: {shown[0] if shown else 'another number of them'}): another model, encoder or "
                f"version. Give the calibrated one, or run: polypref bounds calibrate {self.file.path} --slates FILE."
            )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:16]


def _pair(then: float | None, now: float | None) -> str:
    return f"{then} then, {now} now" if None in (then, now) else f"{then:.4f} then, {now:.4f} now"


def refuse_seen(slates: Slates, safety: Answers, calibrated: Calibrated | None = None) -> None:
    """Raise SettingsError where the safety scorer was trained on some of the slates, or they were calibrated on."""
    for what, name, identities in (
        ("texts", "trained_on", slates.responses.identity_R),
        ("prompts", "prompts_trained_on", prompt_identities(slates.responses)),
    ):
        trained, many = getattr(safety, name, None), len(identities)
        if trained is not None and (seen := int(np.isin(identities, trained).sum())):
            raise SettingsError(
                f"the safety scorer was trained on {seen} of the slates' {many} {what}; it knows them too well to be "
                "judged by them. Give slates that it has not seen."
            )
    known = set(calibrated.unsafe if calibrated else ())
    if seen := len(known.intersection(slates.unsafe_texts)):
        raise SettingsError(
            f"{seen} of the slates' unsafe responses were calibrated on, so that few of them pass says nothing. Give "
            "slates that the calibration has not seen."
        )


def calibrate_file(file: BoundsFile, safety: Answers, slates: Slates) -> Calibrated:
    """Calibrate the gate on ``slates`` and write the thresholds beside the file.

    Raises NotEnoughData where the slates cannot show the target, SettingsError where the safety scorer was trained on
    some of them.
    """
    refuse_seen(slates, safety)
    asked = Safety(safety)
    found = calibrate(slates, asked, file.target)
    drawn = first_of_prompts(slates)
    scripts = seen_in(drawn, allowed(len(drawn), file.target.alpha, file.target.delta))
    content = {
        "schema": SCHEMA,
        "bounds": file.digest,
        "target": asdict(file.target),
        "thresholds": {name: asdict(one) for name, one in found.items()},
        "slates": slates.content_hash,
        "unsafe": slates.unsafe_texts,
        "scripts": {name: asdict(one) for name, one in scripts.items()},
        "probe": asked.probe(),
        "safety": identity_of(safety),
        "reads": READS,
        "artifact": artifact_in(file.safety),
        "versions": {"polypref": version("polypref")},
    }
    write_json(file.calibration, {**content, "hash": _hash(content)})
    return load_bounds(file.path)


class _Content(TypedDict):
    """What ``calibrate_file`` writes, but for its hash."""

    schema: int
    bounds: str
    target: Target
    thresholds: dict[str, Threshold]
    slates: str
    unsafe: list[str]
    scripts: dict[str, Seen]
    probe: list[float | None]
    safety: str | None
    reads: str
    artifact: str | None
    versions: dict[str, str]


def load_bounds(path: Path | str, pinned: str | None = None) -> Calibrated:
    """The bounds with their calibration.

    Raises SettingsError where the file was changed since it was calibrated or its hash is not ``pinned``,
    ArtifactError where the calibration is missing, cannot be read or was tampered with.
    """
    file = read_bounds(path)
    again = f"run: polypref bounds calibrate {path} --slates FILE"
    try:
        content = parse(content_of(file.calibration), str(file.calibration))
    except FileNotFoundError:
        raise ArtifactError(f"{path} has not been calibrated: there is no {file.calibration}; {again}.") from None
    except (OSError, ArtifactError) as error:
        raise ArtifactError(f"{file.calibration} cannot be read ({reason(error)}); {again}.") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ArtifactError(f"{file.calibration} is of another version; {again}.")
    said = content.pop("hash", None)
    if said != _hash(content):
        raise ArtifactError(f"{file.calibration} was changed after it was written (its hash does not fit); {again}.")
    conform(content, _Content, str(file.calibration))
    if content["reads"] != READS:
        raise ArtifactError(f"{file.calibration} was made by a version that reads texts otherwise; {again}.")
    if not content["thresholds"] or any(one["largest"] < 1 for one in content["thresholds"].values()):
        raise ArtifactError(f"{file.calibration} holds no thresholds of slates with candidates; {again}.")
    there = artifact_in(file.safety)
    if None not in (there, content["artifact"]) and there != content["artifact"]:
        raise SettingsError(
            f"the safety scorer in {file.safety} is another one than was calibrated (its hash is {_short(there)}, and "
            f"{_short(content['artifact'])} was calibrated); put it back, or {again}."
        )
    if content["bounds"] != file.digest:
        raise SettingsError(f"{path} was changed after it was calibrated; undo the change, or {again}.")
    users = {name: {key: one.value for key, one in own.items()} for name, own in file.users.items()}
    policy = _hash({"calibration": said, "users": users})
    if pinned is not None and pinned != policy:
        raise SettingsError(f"{path} has the policy hash {policy}, and {pinned} is pinned; these are other bounds.")
    thresholds = {name: Threshold(**one) for name, one in content["thresholds"].items()}
    scripts = {name: Seen(**one) for name, one in content["scripts"].items()}
    return Calibrated(file, thresholds, content["probe"], policy, tuple(content["unsafe"]), scripts, content["safety"])


def _hash(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
