"""A fitted scorer as a reward function of TRL's trainers.

    reward = ScorerReward(polypref.load("scorer"), user_column="user_id")
    PGRPOTrainer("my/model", reward_funcs=reward, args=args, train_dataset=data)

Each completion gets the predicted reward of its row's user; users that the scorer does not know get the population's.
Rewards of different users have no common scale; P-GRPO's histories handle that.

Covered: text and chat prompts, batches (each distinct text is encoded once, and not stored), pickling to other
processes. Not covered: completions with tool calls or images, of which only the text is read; answers of an instructed
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
    """``scorer`` answers for the users in the data set's ``user_column``; without it, for the population.

    ``prompt_column`` has the prompts as people judged them, if the model reads them in a template.
    """

    scorer: Scorer
    user_column: str | None = "user_id"
    prompt_column: str | None = None

    @property
    def __name__(self) -> str:
        """The reward's name in TRL's logs."""
        return f"polypref-{getattr(self.scorer, 'kind', type(self.scorer).__name__)}"

    def __call__(self, *, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward per completion. Raises InputError for rows without a user, and for values that are not text."""
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
    """A completion's text: itself, or the texts of its messages, concatenated."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_completion_text(message["content"]) for message in completion if message.get("content"))


def _completion_text(content: Any) -> str:
    """A message's text: itself, or the text among its parts."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
