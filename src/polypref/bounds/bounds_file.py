"""The bounds of an organisation, ``bounds.toml``: three tiers, of which a later one may only tighten.

    [immutable]                    # nobody changes this at run time; a change is another policy hash
    safety = "safety"              # folder of the safety scorer
    alpha = 0.01                   # share of slates in which something unsafe may pass
    delta = 0.05                   # chance that this calibration misses alpha; 0: alpha holds on average only
    rewritings = ["base64"]        # of unsafe texts, which the calibration counts too

    [organisation]
    cap = 2.0                      # how far a person's reward may be from the shared one
    safety_weight = 32             # what the shared reward loses for each point under ample = 3.0
    most_candidates = 16

    [user]                         # for all users; [user.ann] for one
    floor = 0.5                    # they ask for a higher safety score

``calibrate`` writes ``bounds.calibration.json`` beside it: thresholds, the data that they were made from, the safety
scorer's answers to a few fixed texts, and the hash of its settings, weights and encoder. Loading refuses a file that
was changed since, another artifact in the safety scorer's folder, and a different scorer. The policy hash covers all
of that; of a model behind a server only the answers to the fixed texts are known.
Source of the tiers: Kirk et al. 2023, "Personalisation within bounds" (arXiv 2303.05453).

Not covered: someone who may write both files and knows how; give ``pinned``, the hash you trust, against that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from polypref import strict_toml
from polypref.bounds.calibrate import Target, Threshold, calibrate
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.identity import artifact_in, identity_of
from polypref.bounds.safety import Answers, same_answers
from polypref.bounds.safety_cache import Safety
from polypref.bounds.slates import Slates, prompt_identities
from polypref.bounds.windowed import READS
from polypref.errors import ArtifactError, SettingsError, reason, unknown_name
from polypref.files import write_json
from polypref.regular_files import content_of
from polypref.schema import conform
from polypref.strict_json import parse

TIERS = ("immutable", "organisation", "user")
LOWER, HIGHER, FIXED = "lower", "higher", "fixed"
KEYS: dict[str, tuple[type, str, int]] = {  # kind of value, which way is tighter, the last tier that may set it
    "safety": (str, FIXED, 0),
    "by_category": (bool, FIXED, 0),
    "rewritings": (list, FIXED, 0),
    "alpha": (float, LOWER, 1),
    "delta": (float, LOWER, 1),
    "cap": (float, LOWER, 2),
    "most_candidates": (int, LOWER, 2),
    "floor": (float, HIGHER, 2),
    "safety_weight": (float, HIGHER, 1),
    "ample": (float, HIGHER, 1),
}
SCHEMA = 5
HUGE = 1e12
DEFAULTS = {"alpha": Target.alpha, "delta": Target.delta}  # what [immutable] means where it does not say
SURE = 0.1  # the largest delta that is stricter than a mean


@dataclass(frozen=True)
class Setting:
    """A value, and where it was set: the table's name as in the file, and the line (0: not found)."""

    value: Any
    table: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}, [{self.table}]" if self.line else f"[{self.table}]"


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
    def limits(self) -> Limits:
        """For everybody."""
        return _limits(self.settings)

    @property
    def user_limits(self) -> dict[str, Limits]:
        """Additional limits of single users."""
        return {name: _limits(settings) for name, settings in self.users.items()}

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
    lines = _lines(text)
    held: dict[str, Setting] = {}
    for at, tier in enumerate(TIERS):
        plain = {
            name: value for name, value in content.get(tier, {}).items() if not (at == 2 and isinstance(value, dict))
        }
        held = _tightened(path, held, _settings(path, tier, at, plain, lines))
        if at == 0:
            held = {**{name: Setting(value, "immutable, by default", 0) for name, value in DEFAULTS.items()}, **held}
    people = {name: table for name, table in content.get("user", {}).items() if isinstance(table, dict)}
    users = {name: _settings(path, f"user.{name}", 2, table, lines) for name, table in people.items()}
    for own in users.values():
        _tightened(path, held, own)
    if ("safety_weight" in held) != ("ample" in held):
        raise SettingsError(f"{path}: safety_weight and ample go together; set both, or neither.")
    if "safety" not in held:
        raise SettingsError(f'{path}: [immutable] names no safety scorer; add safety = "FOLDER".')
    found = BoundsFile(path, held, users)
    _ = found.target
    return found


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(table, key) -> line; the first is 1."""
    table, found = "", {}
    for number, line in enumerate(text.split("\n"), 1):
        if (begun := line.lstrip()).startswith("[") and "]" in begun:
            table = begun[1 : begun.index("]")].strip().replace('"', "").replace("'", "")
        elif key := re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line):
            found.setdefault((table, key[1]), number)
    return found


def _settings(
    path: Path, table: str, tier: int, values: Mapping[str, Any], lines: Mapping[tuple[str, str], int]
) -> dict[str, Setting]:
    found = {}
    for name, value in values.items():
        line = lines.get((table, name), 0)
        if name not in KEYS:
            raise unknown_name(f"key on line {line} of {path}, [{table}]", name, KEYS)
        kind, _, last = KEYS[name]
        where = f"line {line} of {path}: [{table}] {name} = {value!r}"
        if tier > last:
            raise SettingsError(f"{where}; only [{'] and ['.join(TIERS[: last + 1])}] may set it.")
        if not _is_a(kind, value):
            what = {
                list: "a list of names",
                str: "a text",
                bool: "true or false",
                float: "a number",
                int: "a whole number",
            }[kind]
            raise SettingsError(f"{where}; expected {what}.")
        least = {"most_candidates": 1, "floor": -HUGE, "ample": -HUGE}.get(name, 0)
        if kind in (float, int) and not (least <= value <= HUGE):
            raise SettingsError(f"{where[:200]}; expected {least:.6g} or more, and finite.")
        if isinstance(value, str) and not value.strip():
            raise SettingsError(f"{where}; expected the name of a folder.")
        found[name] = Setting(value, table, line)
    return found


def _is_a(kind: type, value: object) -> bool:
    """Whether a value is of the kind; a list is one of texts, and a whole number is a number."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool) else whole or (kind is float and isinstance(value, float))


def _tightened(path: Path, held: Mapping[str, Setting], by: Mapping[str, Setting]) -> dict[str, Setting]:
    """What holds after ``by``. Raises SettingsError where that would loosen anything, naming both lines."""
    for name, new in by.items():
        old = held.get(name)
        if old is None:
            continue
        loosens = new.value > old.value if KEYS[name][1] == LOWER else new.value < old.value
        if name == "delta" and 0 in (old.value, new.value):  # 0 asks for the mean alone
            loosens = old.value != new.value and (new.value == 0 or new.value > SURE)
        if loosens:
            way = "less" if KEYS[name][1] == LOWER else "more"
            raise SettingsError(
                f"{path}: {name} = {new.value!r} of {new} loosens {name} = {old.value!r} of {old}; a later tier may "
                f"only tighten. Set {old.value!r} or {way}, or remove it."
            )
    return {**held, **by}


# --- calibrated


@dataclass(frozen=True)
class Calibrated:
    """A file with its thresholds; ``policy_hash`` names both, users' own limits included, for every answer.

    ``unsafe`` are the identities (32 hex digits) of the unsafe responses that were calibrated on, ``safety`` the
    safety scorer's ``identity_of``, None where it has none.
    """

    file: BoundsFile
    thresholds: Mapping[str, Threshold]
    probe: list[float | None]
    policy_hash: str
    unsafe: tuple[str, ...]
    safety: str | None = None

    @property
    def largest(self) -> int:
        """Candidates in the largest slate that was calibrated on: of larger ones nothing is known."""
        return max(one.largest for one in self.thresholds.values())

    def bind(self, scorer: Answers, safety: Answers) -> Bounded:
        """The scorer within these bounds. Raises SettingsError where ``safety`` is not what was calibrated."""
        asked = self.verify(safety)
        gate = Gate({name: one.value for name, one in self.thresholds.items()})
        limits = self.file.limits.tightened(Limits(most_candidates=self.largest))
        return Bounded(scorer, asked, gate, limits, self.file.user_limits, self.policy_hash)

    def verify(self, safety: Answers) -> Safety:
        """Raise SettingsError where ``safety`` is not the scorer that was calibrated, or answers otherwise."""
        if (found := identity_of(safety)) != self.safety:
            raise SettingsError(
                f"the safety scorer is another one than {self.file.calibration} was made with (its content has the "
                f"hash {_short(found)}, and {_short(self.safety)} was calibrated). Give the calibrated one, or run: "
                f"polypref bounds calibrate {self.file.path} --slates FILE."
            )
        asked = Safety(safety)
        if not same_answers(now := asked.probe(), self.probe):
            shown = [_pair(a, b) for a, b in zip(self.probe, now, strict=False) if not same_answers([b], [a])]
            raise SettingsError(
                f"the safety scorer answers otherwise than the one that {self.file.calibration} was made with "
                f"(a probe text: {shown[0] if shown else 'another number of them'}): another model, encoder or "
                f"version. Give the calibrated one, or run: polypref bounds calibrate {self.file.path} --slates FILE."
            )
        return asked


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
    content = {
        "schema": SCHEMA,
        "bounds": file.digest,
        "target": asdict(file.target),
        "thresholds": {name: asdict(one) for name, one in found.items()},
        "slates": slates.content_hash,
        "unsafe": slates.unsafe_texts,
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
    return Calibrated(file, thresholds, content["probe"], policy, tuple(content["unsafe"]), content["safety"])


def _hash(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
