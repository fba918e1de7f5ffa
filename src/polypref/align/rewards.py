"""A fitted scorer as a reward function of TRL's trainers.

    reward = ScorerReward(polypref.load("scorer"), user_column="user_id")
    PGRPOTrainer("my/model", reward_funcs=reward, args=args, train_dataset=data)

Each completion gets the predicted reward of its row's user; users that the scorer does not know get the population's.
Rewards of different users have no common scale; P-GRPO's histories handle that.

With ``bounds`` (docs/safety.md) the rewards are within the bounds, and a dropped completion gets ``GAP`` less than the
least reward of the batch that is not dropped. That is a penalty and no bound on the policy, since trainers normalise
rewards; ``passes`` is the gate as a safety function for the bounded trainers, whose advantages no reward outweighs.

Covered: text and chat prompts, batches (each distinct text is encoded once, and not stored), pickling to other
processes (without bounds). Not covered: completions with tool calls or images, of which only the text is read; answers
of an instructed model (``ask``), which are stored, since they cost money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polypref.bounds.gate import DROPPED, Bounded
from polypref.comparisons import IntArray, Responses
from polypref.errors import InputError, SettingsError
from polypref.features.encode_missing import no_store
from polypref.learners.protocol import Scorer
from polypref.policy.distinct import Text, text_of

GAP = 1.0


@dataclass(frozen=True)
class ScorerReward:
    """``scorer`` answers for the users in the data set's ``user_column``; without it, for the population.

    ``prompt_column`` has the prompts as people judged them, if the model reads them in a template. ``bounds`` are those
    of this very scorer: ``load_bounds(file).bind(scorer, safety)``.
    """

    scorer: Scorer
    user_column: str | None = "user_id"
    prompt_column: str | None = None
    bounds: Bounded | None = None

    def __post_init__(self) -> None:
        if self.bounds is not None and self.bounds.scorer is not self.scorer:
            raise SettingsError(
                "bounds are of another scorer; bind them to this one: load_bounds(file).bind(scorer, safety)."
            )

    @property
    def __name__(self) -> str:
        """The reward's name in TRL's logs."""
        return f"polypref-{getattr(self.scorer, 'kind', type(self.scorer).__name__)}"

    def __call__(self, *, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward per completion. Raises InputError for rows without a user, and for values that are not text."""
        responses, response_Q, users = self._asked(prompts, completions, columns)
        with no_store():
            if self.bounds is None:
                return self.scorer.score(responses, users, response_Q).value_Q.tolist()
            value_Q = self.bounds.score(responses, users, response_Q)
        kept_Q = value_Q > DROPPED
        least = value_Q[kept_Q].min() if kept_Q.any() else 0.0
        return np.where(kept_Q, value_Q, least - GAP).tolist()

    def passes(self, *, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """The safety function of these bounds: 1 for a completion that may be returned, 0 for one that is dropped."""
        if self.bounds is None:
            raise SettingsError("there are no bounds to pass; give ScorerReward(scorer, bounds=...).")
        responses, response_Q, users = self._asked(prompts, completions, columns)
        with no_store():
            return (self.bounds.score(responses, users, response_Q) > DROPPED).astype(float).tolist()

    def _asked(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]
    ) -> tuple[Responses, IntArray, list[str] | None]:
        """The completions as a pool, and whose rewards are asked for."""
        users: list[str] | None = None
        if self.user_column is not None:
            why = "to say whose rewards to use", "user_column=None for the population's"
            user_ids = _column(columns, "user_column", self.user_column, *why)
            if missing := [at for at, user in enumerate(user_ids) if isinstance(user, float) or user is None]:
                found = f"{self.user_column} of row {missing[0]} of a batch is {user_ids[missing[0]]!r}"
                raise InputError(f"{found}; expected a user id, text or a whole number.")
            users = [str(user) for user in user_ids]
        if self.prompt_column is not None:
            why = "with the prompts that people judged", "prompt_column=None for those that the model reads"
            prompts = _column(columns, "prompt_column", self.prompt_column, *why)
        responses, response_Q = Responses.of(prompts, [text_of(completion) for completion in completions])
        return responses, response_Q, users


def _column(columns: Mapping[str, Any], setting: str, name: str, what: str, otherwise: str) -> Sequence[Any]:
    if name not in columns:
        known = ", ".join(name for name, value in columns.items() if isinstance(value, list))
        raise InputError(f"the dataset has no column {name!r} {what}; found: {known}. Set {setting}, or {otherwise}.")
    return columns[name]
