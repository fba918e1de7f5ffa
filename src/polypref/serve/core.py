"""The one function behind every route: who asks, what is offered, and in which order it may be returned.

    texts -> features and safety scores -> the person's state -> gate -> order -> log

``Core.rank`` ranks one slate, ``Core.rank_many`` several slates of one person; ``rewards`` asks it about single texts.
No route has another way to a reward, so none can bypass the bounds. Texts are encoded in batches on one thread: the
first request is encoded at once, and those that arrive while the encoder is busy form the next batch. States of people
are derived on the same thread. What is in memory already is answered on the event loop, where it takes half a
millisecond; nothing else that computes runs there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import polars as pl
from scipy.special import expit

from polypref.bounds.gate import DROPPED, Bounded
from polypref.comparisons import BoolArray, Responses
from polypref.content import Message
from polypref.errors import InputError, PolyprefError
from polypref.learners.protocol import SOURCES, Scorer
from polypref.serve.in_force import InForce
from polypref.serve.odds import sureness
from polypref.serve.people import People, State
from polypref.serve.running.log import note, place_of
from polypref.serve.store.contract import Offer, Person, Store, StoreError
from polypref.serve.who.person import scorer_id
from polypref.terminal import say

Found = TypeVar("Found")
Kept = Literal["later", "first", "never"]
Prompt = str | Sequence[Message]
STORE_S = 5.0  # for the store to say that it can be written to
MOST_TEXTS = 1000  # of one request
LEAST = 1e-300  # share of a text that is not blocked
MOST_CHARACTERS = 1_000_000  # of one request
FLOOR = -100.0  # the reward of a blocked text, where a client needs a number for it


@dataclass(frozen=True)
class Slate:
    """Texts that answer one prompt."""

    prompt: Prompt
    texts: Sequence[str]


class EncoderFailed(PolyprefError):
    """The encoder, or a scorer's own code, failed; nothing of the request was answered."""


@dataclass(frozen=True)
class Answer:
    """The texts by what happens to them: ``order``, those that may be returned, best first; ``blocked``, the others.

    ``rewards`` are those of the texts as given; ``-inf`` for blocked ones. ``source`` says who answered (one of
    ``learners.SOURCES``), ``judgements`` how many of the person's own the store has. ``sure`` times the rewards are log
    odds, where these were asked for (``odds``).
    """

    request: str
    order: tuple[int, ...]
    blocked: tuple[int, ...]
    rewards: tuple[float, ...]
    source: str
    judgements: int
    scorer: str
    policy: str | None
    sure: float = 1.0

    @property
    def relevance(self) -> tuple[float, ...]:
        """Strictly between 0 and 1, in the order of the rewards: sigmoid of the distance from the slate's mean; 0 for
        blocked texts. Those of two people or two slates cannot be compared."""
        reward = np.array(self.rewards)
        kept = reward > DROPPED
        shown = np.zeros(len(reward))
        if kept.any():
            shown[kept] = squashed(reward[kept] - reward[kept].mean())
        return tuple(shown.tolist())

    @property
    def probability(self) -> tuple[float, ...]:
        """Of each text, that the person prefers it to all others of the slate: exp(log odds), scaled to the sum 1; 0
        for blocked texts and no others. Of two texts it is Bradley and Terry's (1952), of more Luce's (1959)."""
        if not self.order:
            return (0.0,) * len(self.rewards)
        reward = self.sure * np.array(self.rewards)
        weight = np.where(reward > DROPPED, np.maximum(np.exp(reward - reward.max()), LEAST), 0.0)
        return tuple((weight / weight.sum()).tolist())


def squashed(reward: np.ndarray) -> np.ndarray:
    """Sigmoid of rewards, strictly between 0 and 1."""
    return np.clip(expit(reward), 1e-300, 1 - 2**-53)


class Follower(Protocol):
    """See ``follow.Follower``; ``refused`` says why the scorer that the store names is not in force here."""

    refused: str | None

    async def run(self) -> None: ...


class Core:
    """A scorer in use: answers people and stores what it offered. ``bounded`` None: there are no bounds.

    ``in_force`` may be replaced between two requests (``put_in_force``); a request in hand keeps the one that it has.
    ``floor`` is the reward that clients get for a blocked text where they need a number (``rewards``).
    ``follower`` does so when the store names another scorer; None: nobody does.
    """

    def __init__(
        self,
        scorer: Scorer,
        scorer_hash: str,
        store: Store,
        bounded: Bounded | None = None,
        floor: float = FLOOR,
    ) -> None:
        self.people, self.store = People(InForce(scorer, scorer_hash, bounded), store), store
        self.floor = floor
        self.follower: Follower | None = None
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._batch: list[tuple[InForce, Responses, asyncio.Future[None]]] = []
        self._busy: asyncio.Task[None] | None = None
        self._told = False  # that answers are not stored
        self.count_not_stored: Callable[[], None] = lambda: None
        self.encoder_fails = False  # whether the last batch failed

    @property
    def in_force(self) -> InForce:
        """The scorer, its hash and its bounds that the next request gets."""
        return self.people.in_force

    @property
    def scorer_hash(self) -> str:
        """The hash of the scorer in force."""
        return self.in_force.hash

    @property
    def bounded(self) -> Bounded | None:
        """The bounds around the scorer in force."""
        return self.in_force.bounded

    def put_in_force(self, successor: InForce) -> None:
        """From the next request on, this answers; people's states are derived again when they ask."""
        self.people.follow(successor)

    async def rank(
        self,
        person: Person,
        prompt: Prompt,
        texts: Sequence[str],
        route: str,
        category: str = "",
        stored: Kept = "later",
        odds: bool = False,
    ) -> Answer:
        """The texts ranked for this person, within the bounds.

        ``stored``: the answer is stored while the caller goes on, first (so that its id is known everywhere), or never.
        ``odds``: its probabilities are needed.

        Raises InputError for impossible texts and ids, SettingsError for more texts than the bounds allow,
        SafetyFailed, StoreError.
        """
        pool, place = pool_of(prompt, texts)
        in_force = self.in_force
        answer = (await self._answers(in_force, person, pool, place, [len(place)], category))[0]
        if odds and answer.source == "personal":
            state = await self._ready(person, in_force, pool)
            sure = await self._quick(in_force, pool, sureness, state, pool, place, answer.order)
            answer = replace(answer, sure=sure)
        kept = None if stored == "never" else self._log(person, prompt, texts, answer, route)
        if kept is not None and stored == "first":
            await asyncio.wrap_future(kept)
        note(dialect=route, source=answer.source, blocked=len(answer.blocked))
        return answer

    async def rank_many(
        self, person: Person, slates: Sequence[Slate], category: str = "", in_force: InForce | None = None
    ) -> list[Answer]:
        """Each slate ranked for this person, all scored together; nothing is stored. Raises what ``rank`` does.

        ``in_force``: what answers, for requests that ask more than once; by default what is in force now.
        """
        pool, place_Q = pool_of_all(slates)
        sizes = [len(slate.texts) for slate in slates]
        return await self._answers(in_force or self.in_force, person, pool, place_Q, sizes, category)

    async def _answers(
        self,
        in_force: InForce,
        person: Person,
        pool: Responses,
        place_Q: np.ndarray,
        sizes: Sequence[int],
        category: str,
    ) -> list[Answer]:
        """The answer to each slate of a pool; ``sizes`` are the slates' numbers of texts."""
        state = await self._ready(person, in_force, pool)
        found = await self._quick(in_force, pool, in_force.answers, state, pool, place_Q, category, max(sizes))
        ends = np.cumsum(sizes).tolist()
        return [
            _answer(in_force, state, found.value_Q[end - size : end], found.source_Q[end - size : end])
            for size, end in zip(sizes, ends, strict=True)
        ]

    async def passing(self, person: Person, pool: Responses, together: int) -> tuple[State, BoolArray]:
        """The person's state, and which texts of the pool (R,) may be shown to them, ``together`` at once.

        Nothing is ranked or stored. Raises what ``rank`` does.
        """
        in_force = self.in_force
        state = await self._ready(person, in_force, pool)
        passes = await self._quick(in_force, pool, in_force.passing, state, pool, together)
        return state, passes

    async def computed(self, work: Callable[..., Found], *arguments: Any) -> Found:
        """The result of ``work``, done on the thread that encodes, so that other requests are not held up."""
        return await asyncio.get_running_loop().run_in_executor(self._encoder, work, *arguments)

    async def _ready(self, person: Person, in_force: InForce, pool: Responses) -> State:
        """The person's state, once all that is needed of the pool is known."""
        if not in_force.knows(pool):
            await self._prepared(in_force, pool)
        kept = self.people.kept
        state, _ = await asyncio.to_thread(kept, person, in_force) if self.store.waits else kept(person, in_force)
        return await self.computed(self.people.derived, person, in_force) if state is None else state

    async def _quick(self, in_force: InForce, pool: Responses, work: Callable[..., Found], *arguments: Any) -> Found:
        """The result of ``work`` on a pool: at once if all of it is in memory, else as ``computed`` does."""
        return work(*arguments) if in_force.knows(pool) else await self.computed(work, *arguments)

    def _log(
        self, person: Person, prompt: Prompt, texts: Sequence[str], answer: Answer, route: str
    ) -> Future[None] | None:
        """Store the answer, so that later judgements can name its candidates; unnamed people cannot judge."""
        if person.user is None:
            return None
        offer = Offer(
            request=answer.request,
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            texts=tuple(texts),
            order=answer.order,
            blocked=answer.blocked,
            rewards=tuple(reward if reward > DROPPED else None for reward in answer.rewards),
            source=answer.source,
            scorer=answer.scorer,
            policy=answer.policy,
            route=route,
        )
        kept = self.store.offered(person, offer)
        kept.add_done_callback(self._noticed)
        return kept

    def _noticed(self, kept: Future[None]) -> None:
        """Count an answer that could not be stored, whose id nobody can judge by; the first of several is told."""
        error = kept.exception()
        if error is not None:
            self.count_not_stored()
            if not self._told:
                say(f"answers are given and not stored, so their ids cannot be judged by: {error}")
        self._told = error is not None

    def most_candidates(self, person: Person) -> int:
        """How many texts the bounds allow to offer this person at once."""
        if self.bounded is None:
            return MOST_TEXTS
        user = scorer_id(person)
        limits = self.bounded.limits if user is None else self.bounded.limits_of(user)
        return int(min(limits.most_candidates, MOST_TEXTS))

    # --- encoding

    async def _prepared(self, in_force: InForce, pool: Responses) -> None:
        """Wait until the pool's features and safety scores are known, in one batch with other waiting pools."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.append((in_force, pool, done))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._batches())
        try:
            await done
        except PolyprefError:
            raise
        except Exception as error:
            note(failed=place_of(error))
            raise EncoderFailed(f"the encoder failed ({type(error).__name__}); the log says where.") from error

    async def _batches(self) -> None:
        while self._batch:
            batch, self._batch = self._batch, []
            try:
                await self.computed(_prepare, [(in_force, pool) for in_force, pool, _ in batch])
            except Exception as error:
                self.encoder_fails = not isinstance(error, InputError)
                for *_, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                self.encoder_fails = False
                for *_, done in batch:
                    if not done.done():
                        done.set_result(None)

    async def failing(self) -> list[str]:
        """Which of the store and the encoder cannot be used now; an encoder that failed is tried again."""
        found = []
        try:
            change = self.store.undo(Person("/", "nobody"), "nothing")  # takes the store's lock, and changes nothing
            await asyncio.wait_for(asyncio.wrap_future(change), STORE_S)
        except (StoreError, TimeoutError):
            found.append("store")
        if self.encoder_fails:
            try:
                await self._prepared(self.in_force, pool_of("a question", [f"a text of {uuid.uuid4().hex}"])[0])
            except PolyprefError:
                found.append("encoder")
        return found

    def close(self) -> None:
        """Finish what is being encoded."""
        self._encoder.shutdown(wait=True)


def _answer(in_force: InForce, state: State, value_C: np.ndarray, source_C: np.ndarray) -> Answer:
    """The answer to one slate, from its rewards and whose each is."""
    order = np.argsort(-value_C, kind="stable")
    kept = value_C[order] > DROPPED
    return Answer(
        uuid.uuid4().hex,
        tuple(order[kept].tolist()),
        tuple(np.sort(order[~kept]).tolist()),
        tuple(value_C.tolist()),
        SOURCES[int(source_C.max(initial=0))],
        state.standing.judgements,
        in_force.hash,
        in_force.policy,
    )


def _prepare(batch: Sequence[tuple[InForce, Responses]]) -> None:
    """Encode what is new among the pools, all at once for each scorer, and score its safety."""
    waiting: dict[InForce, list[Responses]] = {}
    for in_force, pool in batch:
        waiting.setdefault(in_force, []).append(pool)
    for in_force, pools in waiting.items():
        in_force.prepare(pools[0] if len(pools) == 1 else joined(pools))


def joined(pools: Sequence[Responses]) -> Responses:
    """All of several pools as one."""
    prompts = pl.concat([pool.prompts.gather(pool.prompt_R) for pool in pools])
    chat = np.concatenate([pool.is_chat_P[pool.prompt_R] for pool in pools])
    return Responses.of(prompts, pl.concat([pool.texts_R for pool in pools]), chat)[0]


def pool_of(prompt: Prompt, texts: Sequence[str]) -> tuple[Responses, np.ndarray]:
    """The texts as a pool of responses to one prompt, and each one's place in it. Raises InputError."""
    _check(texts)
    return Responses.slate(prompt, texts)


def pool_of_all(slates: Sequence[Slate]) -> tuple[Responses, np.ndarray]:
    """All texts as a pool of responses, and the place in it of each, slate by slate. Raises InputError."""
    if len(slates) == 1:
        return pool_of(slates[0].prompt, slates[0].texts)
    texts = [text for slate in slates for text in slate.texts]
    _check(texts)
    return Responses.of([slate.prompt for slate in slates for _ in slate.texts], texts)


def _check(texts: Sequence[str]) -> None:
    """Raise InputError for no texts, too many, or too long ones."""
    if not texts:
        raise InputError("there are no texts to rank; give at least one.")
    if len(texts) > MOST_TEXTS:
        raise InputError(f"{len(texts)} texts; expected at most {MOST_TEXTS}.")
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise InputError(f"the texts have more than {MOST_CHARACTERS:,} characters; give fewer.")
