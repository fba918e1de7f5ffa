"""A profile of each person in words, written from their judgements, that a judge reads before it foretells a choice.

    margin = (odds(A | profile, chosen is A) - odds(A | profile, chosen is B)) / 2    odds(A) = log p(A) - log p(B)

The settings choose how the profile is made:

``history``     no words: the person's most similar earlier choices, as ``retrieval-judge`` shows them.
``hypotheses``  statements "Prefers the answer that ...", each kept only if it foretells held-out choices beyond chance
                in an exact test; the idea is that of HyPerAlign (Garbacea & Tan, 2505.00038).
``fermi``       prompt optimisation with the mis-answered cases (Kim & Yang, 2406.18678); at test time, of the person's
                best profiles, the one that foretells their most similar earlier choices best.
``synthesize``  verified reasonings, a persona that sums them up, demonstrations (SynthesizeMe, Ryan et al. 2025);
                ``parts`` takes the persona, the demonstrations or both.

``profile_of`` gives the placebos: another person's profile, everybody's, none. A profile that only helps as much as
another person's is not personal. What we changed of each method stands in ``personas.methods``. Everywhere, both orders
are averaged and an answer that is neither A nor B is none, counted in ``Scores.unanswered_Q``, not a tie. Sentences and
earlier choices that share text with the question are left out before the judge reads them (``personas.leaks``), and how
many is said. Who has no profile, or one with nothing in it, gets the judge's view without one: the population's answer.

Profiles are put together from templates, or written by a language model (``writer``). The judge's answers are cached, a
language model's texts are not. Profiles are personal data: they are stored with the scorer, readable, and ``forget``
erases them. Not covered: the order of judgements in time, which a learner does not know; newcomers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons, IntArray, Responses, Users, concat
from polypref.data import thumbs
from polypref.errors import ArtifactError, SettingsError
from polypref.features.protocol import Encoder
from polypref.judges.protocol import Writer
from polypref.judges.writing import writer
from polypref.learners import retrieval, validation
from polypref.learners.both_orders import margins_of, over_empty
from polypref.learners.judge_settings import AsksJudge
from polypref.learners.personas.asking import Told
from polypref.learners.personas.evidence import Person, Trials, together
from polypref.learners.personas.methods import Fermi, Hypotheses, Method, Parts, Profile, Synthesize
from polypref.learners.personas.ownership import Owned, ProfileOf, owned
from polypref.learners.personas.proposers import Proposer, Templates
from polypref.learners.personas.written import Written
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds
from polypref.learners.provenance import passed_on, recorded
from polypref.learners.retrieval import Memory
from polypref.progress import Progress
from polypref.schema import Ids, Layout
from polypref.terminal import say
from polypref.wording import counted

TEMPLATES = "templates"
HALF, THIRD = 1 / 2, 1 / 3
LEAST = {"judgements": 1, "neighbours": 0, "proposals": 1, "prompts": 1, "rounds": 0, "memory": 1}
LEAST |= {"demonstrations": 1, "candidates": 1, "characters": 1, "retries": 0}


@dataclass(frozen=True)
class Persona(AsksJudge):
    """Settings of profiles, and of the judge that reads them."""

    method: Literal["history", "hypotheses", "fermi", "synthesize"] = "hypotheses"
    """How profiles are made."""
    profile_of: ProfileOf = "own"
    """Whose profile the judge reads; all but "own" are placebos."""
    writer: str = TEMPLATES
    """Who writes: "templates", or a language model like the judge's."""
    judgements: int = 60
    """Maximum judgements of a person that are read."""
    neighbours: int = 3
    """Similar earlier choices: shown by "history", used by "fermi" to choose a profile; 0: none."""
    held_out: float | None = None
    """Share of a person's judgements that only choose; default: a third, for "hypotheses" half."""
    proposals: int = 8
    """Hypotheses proposed."""
    alpha: float = 0.05
    """Largest probability that any hypothesis of a person is kept which says nothing."""
    prompts: int = 4
    """New profiles in a round of "fermi"."""
    rounds: int = 5
    """Rounds of "fermi"."""
    memory: int = 5
    """Profiles that "fermi" keeps."""
    parts: Parts = "both"
    """What "synthesize" gives the judge."""
    demonstrations: int = 4
    """Maximum judgements that "synthesize" shows."""
    candidates: int = 10
    """Random sets of demonstrations that are compared."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SettingsError(f"persona: {name} = {value!r}; expected a whole number from {least}.")
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise SettingsError(f"persona: {name} = {value!r}; expected {', '.join(known[:-1])} or {known[-1]}.")
        for name in ("alpha", "held_out"):
            value = getattr(self, name)
            if not (value is None and name == "held_out") and not (isinstance(value, float) and 0 < value < 1):
                raise SettingsError(f"persona: {name} = {value!r}; expected a number between 0 and 1.")

    @property
    def identity(self) -> str:
        """See ``learners.protocol.ReadsModel``: the judge, and the language model that writes."""
        judge = self.language_model.identity
        return judge if self.text_writer is None else f"{judge} {self.text_writer.identity}"

    @cached_property
    def text_writer(self) -> Writer | None:
        """The language model that writes, not loaded; None for templates. Raises SettingsError as the judge does."""
        if self.writer == TEMPLATES:
            return None
        return writer(self.writer, timeout=self.timeout, retries=self.retries, pause=self.pause)

    def proposer(self, rng: np.random.Generator) -> Proposer:
        """Who writes one person's profile."""
        if self.text_writer is None:
            return Templates(rng)
        return Written(self.text_writer, int(rng.integers(2**31)), self.characters)

    @property
    def how(self) -> Method | None:
        """The method with its settings; None where nothing is written."""
        if self.method == "hypotheses":
            return Hypotheses(self.proposals, self.alpha, self.held_out or HALF)
        if self.method == "fermi":
            return Fermi(self.prompts, self.rounds, self.memory, self.held_out or THIRD)
        if self.method == "synthesize":
            return Synthesize(self.parts, self.demonstrations, self.candidates, self.held_out or THIRD)
        return None

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> PersonaScorer:
        """See ``learners.protocol.Learner``. Validation rows are judgements like the others.

        Raises EncoderError if the judge or the writer is not available or does not reply.
        """
        thumbs.refuse(train, "persona")
        empty = train.take(np.zeros(0, np.int64))
        whole = concat(*validation.cut(train, empty if valid is None else valid, seed))
        read = owned(whole, self.profile_of, self.judgements, seed)
        profiles = self._written(read, seed)
        memory = Memory.of(encoder, read.rows.take(self._remembered(read.rows, profiles)))
        return PersonaScorer(self, self.language_model.identity, read.rows.users, tuple(profiles), memory)

    def _remembered(self, rows: Comparisons, profiles: list[Profile]) -> NDArray[np.int64]:
        """The judgements that the judge may be shown, or that choose among profiles; no others are kept."""
        if self.method in ("history", "fermi"):
            return np.arange(len(rows))
        start_U = np.searchsorted(rows.user_N, np.arange(len(profiles))).tolist()
        return np.array([start + n for start, one in zip(start_U, profiles, strict=True) for n in one.shown], np.int64)

    def _written(self, read: Owned, seed: int) -> list[Profile]:
        """A profile for each owner."""
        how, rows = self.how, read.rows
        if how is None:
            return [Profile()] * len(rows.users)
        start_U = np.searchsorted(rows.user_N, np.arange(len(rows.users) + 1))
        edges = list(zip(start_U[:-1].tolist(), start_U[1:].tolist(), strict=True))
        profiles: list[Profile] = []
        with Progress("writing profiles", len(edges), "people") as progress:
            for first in range(0, len(edges), TOGETHER):
                some = range(first, min(first + TOGETHER, len(edges)))
                people = [Person.of(rows.take(np.arange(*edges[u])), read.unit_N[slice(*edges[u])]) for u in some]
                rngs = [np.random.default_rng([seed, int(read.key_U[u])]) for u in some]
                each = [Trials(self.characters) for _ in some]
                written = [
                    how.write(person, trials, self.proposer(rng), rng)
                    for person, trials, rng in zip(people, each, rngs, strict=True)
                ]
                found = together(self.language_model, written)
                profiles += [
                    replace(one, calls=cost.calls, tokens=cost.tokens) for one, cost in zip(found, each, strict=True)
                ]
                progress.advance(len(some))
        return profiles


TOGETHER = 64  # people whose profiles are written at one time
COSTS = ("calls", "tokens")
CHOICES = {
    "method": ("history", "hypotheses", "fermi", "synthesize"),
    "profile_of": ("own", "other", "everybody", "none"),
    "parts": ("persona", "demonstrations", "both"),
}


class Fields(TypedDict):
    """Settings of a saved scorer."""

    settings: Persona
    identity: str
    users: Ids
    profiles: list[Profile]
    memory: retrieval.Fields


def _wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    """What is wrong with saved profiles; None: nothing."""
    profiles, memory_users = config["profiles"], config["memory"]["users"]
    if len(profiles) != len(config["users"]):
        return f"there are {len(profiles)} profiles of {len(config['users'])} users"
    if not set(memory_users) <= set(config["users"]):
        return "somebody is remembered who has no profile"
    own_U = dict(zip(memory_users, np.bincount(arrays["memory.user_N"], minlength=len(memory_users)), strict=True))
    for user_id, one in zip(config["users"], profiles, strict=True):
        if not one["texts"]:
            return "a profile has no text"
        if one["agreement"] and [len(row) for row in one["agreement"]] != [own_U.get(user_id, 0)] * len(one["texts"]):
            return "the agreement of a profile is not that of each text with each remembered judgement"
    return retrieval.wrong(config, arrays)


@dataclass(frozen=True, eq=False, repr=False)
class PersonaScorer(RanksTexts):
    """The judge, the profiles of ``users``, and the judgements that are shown; ``identity`` names the judge."""

    settings: Persona
    identity: str
    users: Users
    profiles: tuple[Profile, ...]
    memory: Memory

    kind: ClassVar[str] = "persona"
    layout: ClassVar[Layout] = Layout(Fields, retrieval.ARRAYS, sizes={"U": "memory.users"}, rule=_wrong)
    serves: ClassVar[Serves] = "seen_users"

    @property
    def selection(self) -> Mapping[str, float | str]:
        """What writing a profile cost the judge on average, and the share of people about whom nothing is said."""
        if self.settings.how is None or not self.profiles:
            return {}
        cost = {f"{name}_a_person": float(np.mean([getattr(one, name) for one in self.profiles])) for name in COSTS}
        return cost | {"without_a_profile": float(np.mean([one.silent for one in self.profiles]))}

    def profile(self, user_id: str) -> Profile | None:
        """What was written for a person; None for strangers, and where one profile serves everybody."""
        place = int(self.known_users().index([content.one_id(user_id)])[0])
        return None if place < 0 else self.profiles[place]

    def compare(self, comparisons: Comparisons) -> Scores:
        """See ``learners.protocol.Compares``. Raises EncoderError if the judge is not available or does not reply."""
        everybody = self.settings.profile_of == "everybody" and len(self.users) > 0
        owner_N = self.users.index(comparisons.users.ids)[comparisons.user_N]
        asked = self._told.questions(comparisons, np.zeros_like(owner_N) if everybody else owner_N)
        if asked.sentences or asked.copies:
            say(
                f"left out, because they share text with the question: {counted(asked.sentences, 'sentences')} of "
                f"profiles and {counted(asked.copies, 'earlier choices')}."
            )
        margin_N, unanswered_N = margins_of(self.settings.language_model, asked.questions)
        told_N = np.array([bool(one.profile or one.shown) and not everybody for one in asked.questions], bool)
        return Scores(margin_N, np.where(told_N, PERSONAL, POPULATION).astype(np.int8), unanswered_N)

    @cached_property
    def _told(self) -> Told:
        made = self.settings
        nearest = made.method in ("history", "fermi")
        return Told(self.users, self.profiles, self.memory, made.neighbours, nearest, made.characters)

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``: the margin of each response over an empty one."""
        return self.compare(over_empty(responses, self.users, user_ids, response_Q))

    # --- personal data

    @passed_on
    def forget(self, user_id: str) -> PersonaScorer:
        """See ``learners.protocol.Forgets``: without the person's profile and without their judgements.

        Raises SettingsError for the placebo of another person's profile, where somebody else has it.
        """
        user_id = content.one_id(user_id)
        if self.settings.profile_of == "everybody":
            return replace(self)  # it knows nobody by their id
        if self.settings.profile_of == "other":
            raise SettingsError(
                "persona: with profile_of = other, each profile is kept under another person's id, so nobody can be "
                f"forgotten; fit the placebo again without {user_id!r}'s judgements."
            )
        kept_U = np.flatnonzero((self.users.ids != user_id).to_numpy())
        known = self.memory.rows
        stays_N = (known.users.ids != user_id).to_numpy()[known.user_N]
        return replace(
            self,
            users=Users(self.users.ids.gather(kept_U)),
            profiles=tuple(self.profiles[u] for u in kept_U.tolist()),
            memory=Memory.of(self.memory.encoder, known.take(np.flatnonzero(stays_N))),
        )

    def known_users(self) -> Users:
        """See ``learners.protocol.Forgets``."""
        return Users(self.users.ids.clear()) if self.settings.profile_of == "everybody" else self.users

    @property
    def encoder(self) -> Encoder:
        """The encoder that finds similar choices."""
        return self.memory.encoder

    # --- saved

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        memory, arrays = self.memory.state()
        config = {"settings": asdict(self.settings), "identity": self.identity, "users": self.users.ids.to_list()}
        return config | {"profiles": list(map(asdict, self.profiles)), "memory": memory}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``. Raises ArtifactError if the judge has changed."""
        settings = Persona(**config["settings"])
        if settings.language_model.identity != config["identity"]:
            raise ArtifactError(f"{settings.model} has changed since the scorer was saved; fit and save it again.")
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        profiles = tuple(map(Profile.from_json, config["profiles"]))
        return cls(settings, config["identity"], users, profiles, Memory.from_state(config["memory"], arrays, encoder))
