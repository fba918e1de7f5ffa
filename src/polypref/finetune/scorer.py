"""The result of tuning: trained weights (LoRA, head, soft tokens) on a backbone that is identified by its content.

``state`` holds the trained arrays under PEFT's names, prefixed by the number of their adapter; the backbone's weights
are not saved with them, and a backbone whose files have changed is refused.

Suffixes here: ``_V`` users and the generic one, ``_X`` distinct pairs of a user and a response, ``_Z`` latent numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, ClassVar, Self, TypedDict, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import IntArray, Responses, Users
from polypref.errors import ArtifactError
from polypref.features.hf import Plan
from polypref.features.memory import answered_within
from polypref.features.protocol import Encoder
from polypref.features.transformer import Tokens, default_device, quiet
from polypref.finetune.network import Asking, Assemble, State, build, put
from polypref.finetune.recipe import Recipe, load_tokenizer, locate
from polypref.finetune.texts import Reader
from polypref.finetune.tuning import VERSION
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds, resolved
from polypref.schema import Arrays, Ids, Layout, Selection, floats

LATENTS = "latents_VZ"  # saved by one kind of scorer besides its adapters


class Fields(TypedDict):
    """Settings of a saved scorer."""

    version: int
    recipe: Recipe
    weights: str
    asking: Asking
    users: Ids
    adapters: int
    selection: Selection


SIZES = {"R": "recipe.rank", "U": "users", "T": "asking.tokens", "C": "asking.clusters"}
LORA = {f"lora_{side}.weight": shape for side, shape in (("A", ("R", None)), ("B", (None, "R")))}
SOFT_TOKENS: dict[str, dict[str, tuple[str, ...]]] = {
    "tokens": {"user_tokens.generic": ("T*D",), "user_tokens.own": ("U", "T*D")},
    "clusters": {"user_tokens.cluster": ("C", "T*D"), "user_tokens.mixture": ("1+U", "C")},
}


def endings(config: Mapping[str, Any]) -> Arrays:
    """The trained arrays whose sizes the fields decide."""
    sizes = {"reward_head.weight": (1, "D")} | LORA | SOFT_TOKENS.get(config["asking"]["form"], {})
    return {ending: floats(*shape, dtype="float32") for ending, shape in sizes.items()}


def wrong(config: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str | None:
    """What is wrong with the trained arrays, ``NUMBER.NAME``; None: nothing. The network checks its own shapes."""
    adapters, users = config["adapters"], len(config["users"])
    if adapters not in (1, 1 + users) or config["asking"]["users"] not in (0, users):
        return f"{adapters} adapters for {users} users"
    form, counts = config["asking"]["form"], [config["asking"][name] != 0 for name in ("tokens", "clusters")]
    if counts != [form in SOFT_TOKENS, form == "clusters"]:
        return f"the form {form!r} with these numbers of tokens and clusters"
    for name, array in arrays.items():
        at, _, rest = name.partition(".")
        if name == LATENTS:
            continue
        if not (at.isascii() and at.isdecimal() and len(at) < 10 and int(at) < adapters and rest):
            return f"the array {name[:60]!r} belongs to no adapter"
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            return f"the array {name[:60]!r} holds values that are not finite"
    return None


@dataclass(eq=False)
class _Built:
    """The network of a scorer and of its copies, built on first use, and the adapter that is loaded in it."""

    network: Any = None
    state: State | None = None
    lock: Any = field(default_factory=Lock)


@dataclass(frozen=True, eq=False, repr=False)
class TunedScorer(RanksTexts):
    """Rewards of a tuned network.

    ``adapters``  trained states: one for everybody, or the population's and then one per user.
    ``batch``     texts at a time; affects speed, not values.
    """

    recipe: Recipe
    plan: Plan
    asking: Asking
    users: Users
    adapters: Sequence[State]
    selection: Mapping[str, float | str]
    batch: int = 32
    _built: _Built = field(default_factory=lambda: _Built(), repr=False)

    kind: ClassVar[str] = "finetune"
    layout: ClassVar[Layout] = Layout(Fields, sizes=SIZES, rule=wrong, endings=endings)
    serves: ClassVar[Serves] = "seen_users"

    def model(self, state: State) -> Any:
        """The network with an adapter loaded; the caller holds the lock."""
        if self._built.network is None:
            with quiet():
                network = build(self.recipe, self.plan, self.asking, 0, self._assemble)
            self._built.network = network.eval().to(default_device())
        if self._built.state is not state:
            put(self._built.network, state)
            self._built.state = state
        return self._built.network

    @property
    def _assemble(self) -> Assemble | None:
        return None

    @cached_property
    def reader(self) -> Reader:
        """The reader of texts, the same as in training."""
        return Reader.of(load_tokenizer(self.plan), self.plan, self.asking)

    @property
    def personal(self) -> bool:
        """Whether it distinguishes users."""
        return self.serves != "population"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``. Each distinct (user, response) goes through the network once."""
        id_Q, response_Q = resolved(responses, user_ids, response_Q)
        user_Q = self.users.index(id_Q) + 1
        adapter_Q = user_Q if self.personal else np.zeros_like(user_Q)
        value_Q = self._rewards(responses, adapter_Q, response_Q)
        known_Q = (user_Q > 0) & self.personal
        return Scores(value_Q, np.where(known_Q, PERSONAL, POPULATION).astype(np.int8))

    def _rewards(self, responses: Responses, user_Q: IntArray, response_Q: IntArray) -> NDArray[np.float64]:
        asked_R, place_Q = np.unique(response_Q, return_inverse=True)
        texts = self.reader.read(responses.take(asked_R))
        question_X2, at_Q = np.unique(np.stack([user_Q, place_Q], axis=1), axis=0, return_inverse=True)
        value_X = np.zeros(len(question_X2))
        for state, rows_X in self._by_adapter(question_X2[:, 0]):
            with self._built.lock:
                own_X = question_X2[rows_X, 0].astype(np.int64)
                users = np.zeros_like(own_X) if len(self.adapters) > 1 else own_X
                value_X[rows_X] = self._forward(self.model(state), [texts[r] for r in question_X2[rows_X, 1]], users)
        return value_X[at_Q.ravel()]

    def _by_adapter(self, user_X: NDArray[np.integer]) -> Iterator[tuple[State, NDArray[np.int64]]]:
        """Each adapter in use, and its questions."""
        if len(self.adapters) == 1:
            yield self.adapters[0], np.arange(len(user_X))
            return
        for user in np.unique(user_X).tolist():
            yield self.adapters[user], np.flatnonzero(user_X == user)

    def _forward(self, model: Any, texts: list[Tokens], user_X: NDArray[np.int64]) -> NDArray[np.float64]:
        import torch

        device = next(model.parameters()).device
        order = np.argsort([-len(text.ids) for text in texts], kind="stable").astype(np.int64)
        value_X = np.zeros(len(texts))

        def answer(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            inputs = self.reader.inputs([texts[x] for x in rows], user_X[rows].tolist())
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.bf16):
                return self._ask(model, inputs, user_X[rows]).double().cpu().numpy()

        for rows in np.split(order, range(self.batch, len(order), self.batch)):
            value_X[rows] = answered_within(answer, rows)
        return value_X

    def _ask(self, model: Any, inputs: dict[str, Any], user_B: NDArray[np.int64]) -> Any:
        """Rewards (B,) of texts; methods with more data of a user than the network add it here."""
        return model(inputs)[0]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config = {
            "version": VERSION,
            "recipe": asdict(self.recipe),
            "weights": self.plan.weights,
            "asking": asdict(self.asking),
            "users": self.users.ids.to_list(),
            "adapters": len(self.adapters),
            "selection": dict(self.selection),
        }
        arrays = {f"{at}.{name}": array for at, state in enumerate(self.adapters) for name, array in state.items()}
        return config, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``; ``encoder`` is not used.

        Raises ArtifactError for another version or a changed backbone, EncoderError if the backbone is missing.
        """
        if config.get("version") != VERSION:
            raise ArtifactError(
                f"this tuned scorer is of version {config.get('version')}; this polypref reads {VERSION}: tune it "
                "again or use the version that wrote it."
            )
        recipe = Recipe(**config["recipe"] | {"targets": tuple(config["recipe"]["targets"])})
        plan = locate(recipe)
        if plan.weights != config["weights"]:
            raise ArtifactError(
                f"the scorer was tuned on the backbone with weights {config['weights']}, and {recipe.backbone} now has "
                f"{plan.weights}; tune it again or put the old backbone back."
            )
        states: list[dict[str, NDArray]] = [{} for _ in range(config["adapters"])]
        for name, array in arrays.items():
            at, _, rest = name.partition(".")
            if at.isdigit():
                states[int(at)][rest] = array
        users = Users(pl.Series("id", config["users"], dtype=pl.String))
        alike = cls is TunedScorer and len(states) == 1 and config["asking"]["form"] == "nobody"
        made = cast(type[Self], PooledScorer) if alike else cls
        return made(recipe, plan, Asking(**config["asking"]), users, states, config["selection"])


class PooledScorer(TunedScorer):
    """One adapter and texts that do not name the user: it answers everyone alike. Saved as a ``TunedScorer`` is."""

    serves: ClassVar[Serves] = "population"
