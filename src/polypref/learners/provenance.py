"""Provenance: what a scorer was fitted on and with. It is kept with the scorer in memory and saved with it.

``recorded`` decorates a learner's ``fit``, and ``passed_on`` what makes a scorer from a scorer (``adapt``, ``forget``).
So a scorer knows its data wherever it is saved: by ``polypref fit``, by ``polypref.save`` or later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from importlib.metadata import version
from typing import Any, Self, TypeVar
from weakref import WeakKeyDictionary

from polypref.arguments import Seed, expect
from polypref.comparisons import Comparisons
from polypref.data.data_hash import added, judged_hash
from polypref.data.given import comparisons_of
from polypref.features.protocol import Encoder, Read, ensure_encoder, read_by
from polypref.schema import Json


@dataclass(frozen=True)
class Fitted:
    """The record of a fit.

    ``learner``   its name, or that of its class; ``settings`` its settings.
    ``data``      content hashes of the comparisons: of all, or of the training and the validation rows.
    ``judged``    order-free hashes of the same judgements, which add up; see ``saw``.
    ``features``  what of the texts was read (``Encoder.features``).
    ``judgements``, ``users``  how many were learned from; ``split`` the rule that split off validation rows.
    ``read``      content of the files: rows and judgements; empty if no files were read.
    ``adapted``   users learned after the fit, and from how many comparisons.
    """

    learner: str
    settings: dict[str, Json]
    encoder: str
    encoder_identity: str
    data: list[str]
    judged: list[str]
    judgements: int
    users: int
    seed: int
    split: str | None = None
    features: Read = "response"
    read: dict[str, int] = field(default_factory=dict)
    adapted: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in ("polypref", "numpy")})

    def saw(self, comparisons: Comparisons) -> bool:
        """Whether the fit used exactly these judgements, in any order: all of them, the training or the validation
        ones.

        Not covered: some of them, or more than these. That would need hashes of single judgements, which a scorer must
        not keep, because they would reveal forgotten users. Users learned by ``adapt`` are not covered either.
        """
        parts = [*self.judged, added(self.judged)]
        return comparisons.content_hash in self.data or judged_hash(comparisons) in parts

    @classmethod
    def of(cls, learner: Any, train: Comparisons, valid: Comparisons | None, encoder: Encoder, seed: int) -> Self:
        """The record of a call of ``learner.fit``."""
        parts = [train] if valid is None else [train, valid]
        return cls(
            type(learner).__name__,
            asdict(learner),
            encoder.name,
            encoder.identity,
            [part.content_hash for part in parts],
            [judged_hash(part) for part in parts],
            sum(map(len, parts)),
            len(train.users),
            seed,
            features=read_by(encoder),
        )


F = TypeVar("F", bound=Callable[..., Any])

_KNOWN: WeakKeyDictionary[Any, Fitted] = WeakKeyDictionary()
_WITHIN: ContextVar[bool] = ContextVar("within a fit", default=False)


def fitted_on(scorer: Any) -> Fitted | None:
    """The record of the fit that made ``scorer``; None if there is none."""
    return _KNOWN.get(scorer)


def note(scorer: Any, fitted: Fitted | None) -> None:
    """Keep the record of a scorer's fit as long as the scorer lives."""
    if fitted is not None:
        _KNOWN[scorer] = fitted


def recorded(fit: F) -> F:
    """Decorates a learner's ``fit`` to record its arguments; fits within a fit are not recorded."""

    @wraps(fit)
    def noting(self: Any, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> Any:
        train, valid = comparisons_of(train, "train"), None if valid is None else comparisons_of(valid, "valid")
        ensure_encoder(encoder)
        expect("seed", seed, Seed)
        within, token = _WITHIN.get(), _WITHIN.set(True)
        try:
            scorer = fit(self, train, encoder=encoder, seed=seed, valid=valid)
        finally:
            _WITHIN.reset(token)
        if not within:
            note(scorer, Fitted.of(self, train, valid, encoder, seed))
        return scorer

    return noting  # type: ignore[return-value]


def passed_on(method: F) -> F:
    """Decorates a scorer's ``adapt`` or ``forget``: its result has the record, and who was learned or forgotten."""

    @wraps(method)
    def passing_on(self: Any, user_id: str, *few: Comparisons, **named: Comparisons) -> Any:
        scorer = method(self, user_id, *few, **named)
        if (known := fitted_on(self)) is not None:
            others = {name: count for name, count in known.adapted.items() if name != user_id}
            rows = [*few, *named.values()]
            learnt = {user_id: known.adapted.get(user_id, 0) + sum(map(len, rows))} if rows else {}
            note(scorer, replace(known, adapted=others | learnt))
        return scorer

    return passing_on  # type: ignore[return-value]
