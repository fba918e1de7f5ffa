"""The contract of every method: a learner is settings; its ``fit`` returns an immutable scorer. Read this file first.

There are no half-fitted objects: a learner is unfitted, a scorer is fitted. Rewards can be compared only within one
user, and only their differences are meaningful. Every score says who answered.

Suffixes here: ``_C`` basis rewards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users
from polypref.content import Message
from polypref.errors import InputError
from polypref.features.protocol import Encoder
from polypref.learners.provenance import fitted_on
from polypref.notebook import Shown
from polypref.schema import Layout

UserIds = Sequence[str] | Sequence[str | None] | pl.Series
Serves = Literal["population", "seen_users", "any_user"]
Prompt = str | Sequence[Message]
Texts = Sequence[str] | pl.Series

POPULATION, GROUP, PERSONAL = 0, 1, 2
SOURCES = ("population", "group", "personal")


@dataclass(frozen=True, eq=False)
class Scores:
    """Answers to Q questions: reward ``value_Q`` and who answered, ``source_Q``, an index into ``SOURCES``.

    ``unanswered_Q`` is for scorers that ask a judge which may fail to answer: the share of the requests for q that got
    no usable answer. A judgement without any answer has margin 0, which counts one half. None: all answered.
    """

    value_Q: NDArray[np.float64]
    source_Q: NDArray[np.int8]
    unanswered_Q: NDArray[np.float64] | None = None

    def take(self, rows: IntArray) -> Scores:
        """The answers numbered ``rows``."""
        missing_Q = self.unanswered_Q
        return Scores(self.value_Q[rows], self.source_Q[rows], None if missing_Q is None else missing_Q[rows])


class Ranked(NamedTuple):
    """One of several texts: its reward for the user, who answered (one of ``SOURCES``), and its place in the list."""

    text: str
    reward: float
    source: str
    place: int


class Scorer(Protocol):
    """Immutable result of a fit; a subclass of ``RanksTexts``.

    ``serves``    whom it can answer personally: nobody ("population"), users seen in training, or anybody (``adapt``).
    ``kind``      its name in an artifact; ``layout`` describes ``state`` and is checked before ``from_state`` reads it.
    ``encoder``   a property or field, only of scorers that read text with an encoder.
    ``selection`` settings chosen on validation rows, by name; ``valid_log_loss``, ``valid_accuracy`` if measured.
    """

    serves: ClassVar[Serves]
    kind: ClassVar[str]
    layout: ClassVar[Layout]

    @property
    def selection(self) -> Mapping[str, float | str]: ...

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """Reward of response ``response_Q[q]`` (default: 0, 1, 2, ...) for user ``user_ids[q]``, for each question q.

        An unknown user gets the population's answer, and ``source_Q`` says so. ``None`` instead of the ids, or of one
        of them, requests just that answer. Raises InputError for impossible ids (empty, or with a NUL).
        """
        ...

    def reward(self, user: str | None, prompt: Prompt, text: str) -> float:
        """``RanksTexts`` has it."""
        ...

    def rank(self, user: str | None, prompt: Prompt, texts: Texts) -> list[Ranked]:
        """``RanksTexts`` has it."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """JSON-able settings and arrays that ``from_state`` turns into an equal scorer."""
        ...

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self: ...


class RanksTexts(Shown):
    """The part of a scorer that is alike in all of them: plain texts as questions, and how it is shown."""

    def reward(self: Scorer, user: str | None, prompt: Prompt, text: str) -> float:
        """Reward of one text for ``user``; only differences between rewards of one user are meaningful.

        ``None``, and an unknown user, get the population's reward. Raises InputError as ``score`` does.
        """
        pool, place_Q, id_Q = plain_question(user, prompt, [text])
        return float(self.score(pool, id_Q, place_Q).value_Q[0])

    def rank(self: Scorer, user: str | None, prompt: Prompt, texts: Texts) -> list[Ranked]:
        """The responses ``texts`` to one prompt, best first for ``user``; equal rewards in the given order.

        ``None``, and an unknown user, get the population's order. ``prompt`` is a text or a list of chat messages.
        Raises InputError for values that are not text, and for impossible ids.
        """
        pool, place_Q, id_Q = plain_question(user, prompt, texts)
        scores = self.score(pool, id_Q, place_Q)
        sources = [SOURCES[source] for source in scores.source_Q]
        return best_first([*texts], scores.value_Q, sources)

    def facts(self: Any) -> dict[str, object]:
        """See ``notebook.Shown``."""
        encoder, fitted = getattr(self, "encoder", None), fitted_on(self)
        about: dict[str, object] = {"kind": self.kind, "serves": self.serves.replace("_", " ")}
        if fitted is not None:
            about |= {"judgements": fitted.judgements, "users": fitted.users}
        return about | {"encoder": None if encoder is None else encoder.name}


def plain_question(user: str | None, prompt: Prompt, texts: Texts) -> tuple[Responses, IntArray, pl.Series]:
    """A user's question about texts as ``score`` takes it: a pool, the place of each text in it, and the ids (Q,)."""
    if isinstance(texts, str):
        raise InputError(f"texts is the text {content.excerpt(texts)}; expected a list of texts.")
    pool, place_Q = Responses.slate(prompt, texts) if len(texts) else Responses.of([], texts)
    return pool, place_Q, content.ids([user], nobody=True).new_from_index(0, len(place_Q))


def best_first(texts: list[str], value_Q: NDArray[np.float64], sources: list[str]) -> list[Ranked]:
    """The texts by falling reward, equal ones in the given order."""
    order = np.argsort(-value_Q, kind="stable").tolist()
    return [Ranked(texts[at], float(value_Q[at]), sources[at], at) for at in order]


class Learner(Protocol):
    """A frozen dataclass of JSON-able settings, one file per method.

    ``fit`` is annotated with the class of its scorer (``scorer_class``) and decorated with ``provenance.recorded``.
    """

    def fit(self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None) -> Scorer:
        """Turn comparisons into a scorer.

        ``valid`` rows choose hyper-parameters and then join the final fit; they must be split off by the same rule as
        the test rows. If None, a tenth of ``train`` is split off by text pair. The inputs are never changed.
        """
        ...


@runtime_checkable
class Adapts(Protocol):
    """Only scorers that can learn a new user."""

    def adapt(self, user_id: str, few: Comparisons) -> Scorer:
        """A new scorer that also knows ``user_id`` from a few comparisons (whose ids are ignored).

        For somebody who is known already, they are added to what is known. Other users' scores do not change. Raises
        InputError for an impossible id: empty, or with a NUL character.
        """
        ...


@runtime_checkable
class Forgets(Protocol):
    """Only scorers that keep every user in separate rows, which can be removed."""

    def forget(self, user_id: str) -> Scorer:
        """A new scorer to which ``user_id`` is a stranger, bit for bit; other users' scores do not change.

        The shared part was fitted with the user's judgements and stays. For unknown users nothing changes.
        """
        ...

    def known_users(self) -> Users:
        """All whom it knows, from the fit or learned after it."""
        ...


@runtime_checkable
class Mixes(Protocol):
    """Only scorers whose every user, known or not, has a mixture of a few basis rewards: weights on the simplex."""

    def basis_rewards(self, responses: Responses) -> NDArray[np.float64]:
        """``value_RC``, each basis reward of each response."""
        ...


@runtime_checkable
class Uncertain(Protocol):
    """Only scorers with a posterior."""

    def margin_sd(self, comparisons: Comparisons) -> NDArray[np.float64]:
        """Standard error ``sd_N`` of reward(chosen) - reward(rejected) for each judgement's own user; NaN: unknown."""
        ...


@runtime_checkable
class Compares(Protocol):
    """Only scorers that compare two responses together; their margins are not differences of two rewards.

    Their ``score`` of a single response is its margin over an empty one.
    """

    def compare(self, comparisons: Comparisons) -> Scores:
        """The margins of this scorer; swapped judgements get exactly the opposite."""
        ...


@runtime_checkable
class ReadsModel(Protocol):
    """Only learners with their own model besides the encoder."""

    @property
    def identity(self) -> str:
        """Names everything that affects the model's answers, as an encoder's does. Raises EncoderError without one."""
        ...


def scorer_class(learner: Any) -> type[Scorer]:
    """The scorer class of a learner or a class of learners: the return annotation of its ``fit``."""
    fit = (learner if isinstance(learner, type) else type(learner)).fit
    name = fit.__annotations__["return"]
    found = getattr(sys.modules[fit.__module__], name) if isinstance(name, str) else name
    assert isinstance(found, type) and hasattr(found, "from_state"), f"{fit.__qualname__} -> {name} is not a scorer"
    return found


def by_kind(learners: Iterable[Any]) -> dict[str, type[Scorer]]:
    """The classes of the scorers that ``learners`` declare, by kind."""
    return {found.kind: found for found in map(scorer_class, learners)}


def places(responses: Responses, response_Q: IntArray | Sequence[int] | None) -> IntArray:
    """The places of the responses in question, (Q,): ``response_Q`` itself, or all of the pool for None.

    Raises InputError unless they are whole numbers, in one dimension, of responses of the pool. Booleans are refused:
    numpy would treat them as a mask, and the answers would be for other responses.
    """
    if response_Q is None:
        return np.arange(len(responses), dtype=np.int32)
    wanted = f"expected whole numbers from 0 to {len(responses) - 1}, in one dimension."
    found = response_Q
    if isinstance(found, pl.Series):
        found = found.to_numpy()
    elif isinstance(found, list):
        if any(isinstance(one, bool | np.bool_) for one in found):
            raise InputError(f"response_Q holds True or False; {wanted}")
        try:
            found = np.asarray(found) if found else np.zeros(0, np.int32)
        except (ValueError, TypeError, OverflowError):
            raise InputError(f"response_Q is {content.excerpt(found)}; {wanted}") from None
    if not isinstance(found, np.ndarray):
        raise InputError(f"response_Q is {content.excerpt(found)}; {wanted}")
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"response_Q is an array of {found.dtype} of shape {found.shape}; {wanted}")
    if len(found) and not (found.min() >= 0 and found.max() < len(responses)):
        at = int(np.argmax((found < 0) | (found >= len(responses))))
        raise InputError(f"response_Q[{at}] is {found[at]}; {wanted}")
    return np.asarray(found, np.int32)


def resolved(responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None) -> tuple[pl.Series, IntArray]:
    """The users and responses in question, ``(id_Q, response_Q)``: the arguments of ``score`` with defaults filled in.

    A missing id (null) is unknown to every scorer, so the population answers. Raises InputError for impossible ids, for
    different numbers of ids and responses, and for what ``places`` refuses.
    """
    response_Q = places(responses, response_Q)
    id_Q = content.strangers(len(response_Q)) if user_ids is None else content.ids(user_ids, nobody=True)
    if len(id_Q) != len(response_Q):
        raise InputError(f"{len(id_Q)} user ids for {len(response_Q)} responses; expected one for each.")
    return id_Q, response_Q


def log_odds(scorer: Scorer, comparisons: Comparisons) -> Scores:
    """``margins``, brought as near to zero as their standard errors ask: the log odds of each choice.

    A margin that is N(m, s^2) predicts the average of sigmoid(margin), about sigmoid(m / sqrt(1 + pi s^2 / 8)) (MacKay
    1992, equation 9). Signs, and so accuracies, are those of ``margins``.
    """
    scores = margins(scorer, comparisons)
    if not isinstance(scorer, Uncertain):
        return scores
    variance_N = np.nan_to_num(scorer.margin_sd(comparisons)) ** 2
    return replace(scores, value_Q=scores.value_Q / np.sqrt(1 + np.pi * variance_N / 8))


def population_margins(scorer: Scorer, comparisons: Comparisons) -> Scores:
    """``margins`` by the population's reward, whoever judged."""
    nobody = np.zeros(len(comparisons), np.int32)
    return margins(scorer, replace(comparisons, users=Users.nobody(), user_N=nobody))


def margins(scorer: Scorer, comparisons: Comparisons) -> Scores:
    """Reward(chosen) - reward(rejected) of each judgement under its own user, ``value_N``, and who answered."""
    if isinstance(scorer, Compares):
        return scorer.compare(comparisons)
    n = len(comparisons)
    user_ids = comparisons.users.ids.gather(np.concatenate([comparisons.user_N, comparisons.user_N]))
    both = np.concatenate([comparisons.chosen_N, comparisons.rejected_N])
    scores = scorer.score(comparisons.responses, user_ids, both)
    missing_Q = scores.unanswered_Q
    unanswered_N = None if missing_Q is None else (missing_Q[:n] + missing_Q[n:]) / 2
    return Scores(scores.value_Q[:n] - scores.value_Q[n:], scores.source_Q[:n], unanswered_N)
