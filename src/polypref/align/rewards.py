"""Rewards from people: a fitted scorer as a reward function of TRL's trainers.

    reward = ScorerReward(polypref.load("scorer"), user_column="user_id")
    PGRPOTrainer("my/model", reward_funcs=reward, args=args, train_dataset=data)

Each completion gets the reward that the user of its row would give it; users that the scorer does not know are
answered by the population. Rewards of different users have no common scale: P-GRPO's histories see to that.

Covered: text and chat prompts, batches (each distinct text is encoded once, and not stored), pickling to other
processes. Not covered: completions that hold tool calls or images, whose text alone is read; answers of an instructed
model (``ask``), which are stored, since they cost money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polypref.comparisons import Responses
from polypref.errors import InputError
from polypref.features.encode_missing import no_store
from polypref.learners.protocol import Scorer

Text = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ScorerReward:
    """``scorer`` answers for the users in the data set's ``user_column``; without one, for the population.

    ``prompt_column`` has the prompts as people judged answers to them, where the model reads them in a template.
    """

    scorer: Scorer
    user_column: str | None = "user_id"
    prompt_column: str | None = None

    @property
    def __name__(self) -> str:
        """What TRL calls the reward in its logs."""
        return f"polypref-{getattr(self.scorer, 'kind', type(self.scorer).__name__)}"

    def __call__(self, *, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward for each completion. Raises InputError where rows name no user, and for what is no text."""
        users: list[str] | None = None
        if self.user_column is not None:
            why = "to tell whose rewards are meant", "user_column=None for the population's"
            told = _column(columns, "user_column", self.user_column, *why)
            if nobody := [at for at, user in enumerate(told) if isinstance(user, float) or user is None]:
                found = f"{self.user_column} of row {nobody[0]} of a batch is {told[nobody[0]]!r}"
                raise InputError(f"{found}; expected a user id, text or a whole number.")
            users = [str(user) for user in told]
        if self.prompt_column is not None:
            why = "with the prompts that people judged answers to", "prompt_column=None for those that the model reads"
            prompts = _column(columns, "prompt_column", self.prompt_column, *why)
        texts = [text_of(completion) for completion in completions]
        responses, response_Q = Responses.of(prompts, texts)
        with no_store():
            return self.scorer.score(responses, users, response_Q).value_Q.tolist()


def _column(columns: Mapping[str, Any], setting: str, name: str, what: str, otherwise: str) -> Sequence[Any]:
    if name not in columns:
        known = ", ".join(name for name, value in columns.items() if isinstance(value, list))
        raise InputError(f"the dataset has no column {name!r} {what}; found: {known}. Set {setting}, or {otherwise}.")
    return columns[name]


def text_of(completion: Text) -> str:
    """A completion's text: itself, or what its messages say, one after the other."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_said(message["content"]) for message in completion if message.get("content"))


def _said(content: Any) -> str:
    """A message's text: itself, or the text among its parts."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
