"""Learners by name; saving and loading of scorers; training and validation rows for ``fit`` and similar commands.

A saved scorer is one artifact. Its manifest has the scorer's kind and settings, its encoder, and what it was fitted on
(``learners.provenance``), however it was saved.

Covered: an artifact from elsewhere that is malformed or has another kind, version or encoder is refused in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, cast

from polypref import artifact, features, finetune, learners
from polypref.comparisons import Comparisons
from polypref.data.linting.lint import ensure_learnable
from polypref.data.split import Rule, ensure_useful, holdout
from polypref.errors import ArtifactError, NotEnoughData, SettingsError
from polypref.features.protocol import Encoder
from polypref.learners.protocol import Learner, Scorer
from polypref.learners.provenance import Fitted, fitted_on, note
from polypref.network_access import named_by
from polypref.schema import Json, conform
from polypref.wording import counted

KIND = "scorer"
NO_FOLDER = "is no folder of a saved scorer"

SCORERS: dict[str, type[Scorer]] = {**learners.SCORERS, **finetune.SCORERS}
"""The classes of scorers by kind. Add one of your own here to ``load`` it."""

VALID_SHARES = (0.1, 0.2, 0.3)  # of the pairs or texts; the first that gives ENOUGH_VALID rows
ENOUGH_VALID = 20
FEWEST = 10  # decided judgements; with fewer, one or two would choose the hyper-parameters


class _Encoder(TypedDict):
    name: str
    identity: str


class _Saved(TypedDict):
    scorer: str
    state: dict[str, Json]
    encoder: _Encoder | None
    fitted: Fitted | None


def learner(name: str) -> Learner:
    """The learner ``name``; ``finetune:METHOD`` and ``finetune:METHOD:MODEL`` are in ``finetune.LEARNERS``.

    Raises SettingsError for an unknown name.
    """
    return finetune.learner(name) if name.startswith(finetune.PREFIX) else learners.learner(name)


# --- saved and loaded


def save(scorer: Scorer, path: Path | str, fitted: Fitted | None = None) -> None:
    """Write a scorer to the folder ``path``, with its encoder's name and its provenance, replacing a scorer there.

    ``fitted`` adds to what the scorer itself knows of its fit. Raises ArtifactError if anything else is there,
    CacheError if the folder cannot be written.
    """
    state, arrays = scorer.state()
    encoder, fitted = getattr(scorer, "encoder", None), fitted or fitted_on(scorer)
    config = {
        "scorer": scorer.kind,
        "state": state,
        "encoder": None if encoder is None else {"name": encoder.name, "identity": encoder.identity},
        "fitted": None if fitted is None else asdict(fitted),
    }
    artifact.save(path, KIND, config, arrays)


def load(path: Path | str, encoder: Encoder | str | None = None, *, allow_network: bool = False) -> Scorer:
    """Read back a scorer; it answers exactly as the saved one did.

    ``encoder`` is an encoder or its name; default: the one that the artifact names. What the artifact names uses the
    network only with ``allow_network``, and without your API key.

    Raises ArtifactError if ``path`` has no scorer, a malformed one, or one of an unknown kind, version or backbone,
    SettingsError if the encoder is unknown, gives other features than in the fit or needs the network, EncoderError
    without the backbone.
    """
    folder = Path(path)
    saved, arrays = _read(folder)
    cls = SCORERS.get(saved["scorer"])
    if cls is None:
        known = ", ".join(sorted(SCORERS))
        raise ArtifactError(f"{folder} holds a scorer of kind {saved['scorer'][:60]!r}; this version knows {known}.")
    cls.layout.check(saved["state"], arrays, str(folder))
    if isinstance(encoder, str):
        encoder = features.encoder(encoder)
    with named_by(folder, allow_network=allow_network):
        asked = _encoder_for(folder, saved["encoder"], encoder) if _reads_text(cls) else None
        scorer = cls.from_state(saved["state"], arrays, cast(Encoder, asked))
    note(scorer, None if saved["fitted"] is None else Fitted(**cast(dict, saved["fitted"])))
    return scorer


def _read(folder: Path) -> tuple[_Saved, dict[str, Any]]:
    try:
        there, what = (folder / artifact.MANIFEST).exists(), "holds no saved scorer" if folder.is_dir() else NO_FOLDER
    except OSError as error:
        raise ArtifactError(f"{str(folder)[:200]} cannot be read: {error.strerror}. Give another folder.") from error
    if not there:
        to = "DIR" if folder.is_file() else folder
        raise ArtifactError(f"{folder} {what}. Make one: polypref fit FILE --out {to}, or polypref.save in Python.")
    config, arrays = artifact.load(folder, KIND)
    if isinstance(fitted := config.get("fitted"), dict):
        fitted.setdefault("features", "response")  # saved before learners read anything else
    conform(config, _Saved, str(folder))
    return cast(_Saved, config), arrays


def _reads_text(cls: type[Scorer]) -> bool:
    """Whether scorers of this class have an encoder: a property or a field of that name."""
    return hasattr(cls, "encoder") or "encoder" in getattr(cls, "__dataclass_fields__", {})


def _encoder_for(folder: Path, saved: _Encoder | None, given: Encoder | None) -> Encoder:
    """The encoder ``given``, or else the one that was ``saved``. Raises SettingsError if it is unknown."""
    if given is None and saved is None:
        raise SettingsError(
            f"{folder} does not say which encoder it was fitted with; add --encoder NAME, or in Python "
            f'load("{folder}", "NAME").'
        )
    if given is None:
        named = cast(_Encoder, saved)["name"]
        try:
            encoder = features.encoder(named)
        except SettingsError as error:
            raise SettingsError(
                f"{folder} was fitted with an encoder that cannot be made here: {error} Give it: --encoder NAME, or in "
                f'Python load("{folder}", encoder).'
            ) from error
    else:
        encoder = given
    if saved is not None and saved["identity"] != encoder.identity:
        raise SettingsError(
            f"{folder} was fitted on the features of [{saved['identity']}], and {encoder.name} now gives those of "
            f"[{encoder.identity}]; fit it again or give the encoder it was fitted with."
        )
    return encoder


def encoder_of(scorer: Scorer) -> Encoder | None:
    """A scorer's encoder; None if it needs none."""
    return getattr(scorer, "encoder", None)


def metadata(path: Path | str) -> Fitted | None:
    """The provenance of a saved scorer; None if it was unknown when saved. Raises ArtifactError."""
    saved = _read(Path(path))[0]["fitted"]
    return None if saved is None else Fitted(**cast(Mapping, saved))


# --- fitted on a file


def ensure_fittable(comparisons: Comparisons) -> None:
    """Raise NotEnoughData for judgements that no learner can learn from."""
    ensure_learnable(comparisons)
    decided = len(comparisons) if comparisons.tie_N is None else int((~comparisons.tie_N).sum())
    if decided < FEWEST:
        raise NotEnoughData(
            f"{counted(decided, 'judgements')} that are not ties; fit needs at least {FEWEST}. Give more data."
        )


def cut(comparisons: Comparisons, rule: Rule, seed: int) -> tuple[Comparisons, Comparisons]:
    """Training and validation judgements. Raises NotEnoughData if no share leaves rows on both sides.

    If split by response, a tenth of the texts is a hundredth of the judgements, so small data need a larger share.
    """
    parts = None
    for share in VALID_SHARES:
        try:
            found = holdout(comparisons, rule, seed, share)
            ensure_useful(comparisons, rule, *found)
            parts = found
        except NotEnoughData:
            if parts is None and share == VALID_SHARES[-1]:
                raise
            continue
        if len(parts[1]) >= ENOUGH_VALID:
            break
    assert parts is not None
    return comparisons.take(parts[0]), comparisons.take(parts[1])
