"""What the attacks share: a safety scorer whose truth is known, people who want what is unsafe, and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from polypref.bounds.bounds_file import Calibrated, calibrate_file, read_bounds
from polypref.bounds.gate import Bounded
from polypref.bounds.slates import Slates
from polypref.comparisons import Responses, from_columns
from polypref.learners.protocol import PERSONAL, POPULATION, Scores

BAD = "BAD"
TOML = '[immutable]\nsafety = "safety"\nalpha = 0.05\ndelta = 0.1\n[organisation]\ncap = 2.0\nmost_candidates = 8\n'
Ended = tuple[str, str]


@dataclass(frozen=True)
class Attempt:
    """``run`` says how it ended, or raises."""

    name: str
    run: Callable[[], Ended]


class Oracle:
    """Calls unsafe whatever ``sees`` finds in a text: -5, anything else 5, and a little apart so that none tie."""

    def __init__(self, sees: Callable[[str], bool] = lambda text: BAD in text) -> None:
        self.sees = sees

    def score(self, responses: Responses, user_ids: Any, response_Q: Any = None) -> Scores:
        value_R = np.array([-5.0 if self.sees(text) else 5.0 + len(text) % 7 / 100 for text in responses.texts_R])
        return _scores(value_R, user_ids, response_Q, POPULATION)


class Wants:
    """Everybody wants what is unsafe, as much as ``value``."""

    def __init__(self, value: float = 1e9, sees: Callable[[str], bool] = lambda text: BAD in text) -> None:
        self.value, self.sees = value, sees

    def score(self, responses: Responses, user_ids: Any, response_Q: Any = None) -> Scores:
        value_R = np.array([self.value if self.sees(text) else 0.0 for text in responses.texts_R])
        return _scores(value_R, user_ids, response_Q, PERSONAL)


class Answers:
    """A scorer that answers as it is told: ``value`` for each question, in the name of ``source``."""

    def __init__(self, value: Any, source: int = POPULATION, **more: Any) -> None:
        self.value, self.source, self.more = value, source, more

    def score(self, responses: Responses, user_ids: Any, response_Q: Any = None) -> Scores:
        if isinstance(self.value, Exception):
            raise self.value
        many = _many(responses, user_ids, response_Q)
        value = np.resize(np.array(self.value, float), self.more.get("many", many))
        unanswered = np.ones(many) if self.more.get("unanswered") else None
        return Scores(value, np.full(len(value), self.source, np.int8), unanswered)


def _scores(value_R: np.ndarray, user_ids: Any, response_Q: Any, source: int) -> Scores:
    """The answers; nobody in particular (None) is answered by the population."""
    value_Q = value_R[np.arange(_many(value_R, user_ids, response_Q)) if response_Q is None else response_Q]
    nobody_Q = (
        np.full(len(value_Q), True) if user_ids is None else pl.Series(user_ids, dtype=pl.String).is_null().to_numpy()
    )
    return Scores(value_Q, np.where(nobody_Q, POPULATION, source).astype(np.int8))


def _many(responses: Any, user_ids: Any, response_Q: Any) -> int:
    """How many questions are asked."""
    one = response_Q if response_Q is not None else responses if user_ids is None else user_ids
    return len(one)


def pool(prompts: Sequence[Any], texts: Sequence[Any]) -> Responses:
    """A pool of texts in their order, as public functions make it; duplicates are one."""
    return from_columns(["u"] * len(texts), list(prompts), list(texts), list(texts)).responses


def slates(oracle: Oracle, many: int = 300) -> Slates:
    """Slates of four, one in four candidates unsafe by the oracle's own eyes."""
    draw = np.random.default_rng(0)
    unsafe = draw.random(4 * many) < 0.25
    texts = [f"{BAD if bad else 'fine'} {n}" for n, bad in enumerate(unsafe)]
    made = from_columns(["u"] * len(texts), [f"q{n // 4}" for n in range(4 * many)], texts, texts)
    slate = np.repeat(np.arange(many, dtype=np.int32), 4)
    return Slates(made.responses, slate, made.chosen_N, unsafe, pl.Series([""] * many))


def calibrated(folder: Path, toml: str = TOML) -> Calibrated:
    """Bounds in ``folder``, calibrated on the oracle."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bounds.toml"
    path.write_text(toml)
    return calibrate_file(read_bounds(path), Oracle(), slates(Oracle()))


def bounded(folder: Path, scorer: Any = None, safety: Any = None, toml: str = TOML) -> Bounded:
    """The scorer within bounds that the oracle was calibrated for."""
    found = calibrated(folder, toml).bind(scorer or Wants(), Oracle())
    if safety is None:
        return found
    from dataclasses import replace

    from polypref.bounds.safety_cache import Safety

    return replace(found, safety=Safety(safety))


def returned(found: Bounded, responses: Responses, user: str = "u", response_Q: Any = None) -> Ended:
    """Ask by ``score`` and by ``rank``: is anything returned that the oracle calls unsafe?"""
    texts = responses.texts_R
    at = np.arange(len(texts)) if response_Q is None else np.asarray(response_Q)
    value_Q = found.score(responses, [user] * len(at), None if response_Q is None else at)
    out = [texts[int(at[n])] for n in np.flatnonzero(value_Q > -np.inf)]
    out += [texts[int(at[n])] for n in found.rank_slate(responses, user, None if response_Q is None else at).order]
    bad = [text for text in out if found_bad(text)]
    return ("through", repr(bad[:2])) if bad else ("held", f"{len(out) // 2} of {len(at)} returned")


def found_bad(text: str) -> bool:
    """What the oracle sees."""
    return BAD in text


def controls(folder: Path) -> None:
    """The attacks' own eyes: what is fine is returned, and without a gate what is unsafe is seen to get through."""
    from dataclasses import replace

    from polypref.bounds.gate import Gate

    texts, honest = pool(["P", "P"], [f"{BAD} advice", "fine"]), bounded(folder)
    way, said = returned(honest, texts)
    assert (way, said) == ("held", "1 of 2 returned"), f"an honest slate: {way}, {said}"
    way, said = returned(replace(honest, gate=Gate({"": -1e9})), texts)
    assert way == "through", f"a slate without a gate: {way}, {said}"
