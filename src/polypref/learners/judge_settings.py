"""Settings that learners who ask a language model share: which one, how much it reads, how a server is asked."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal

from polypref.judges.ask import LanguageModel, language_model
from polypref.learners.judge_prompts import CHARACTERS


@dataclass(frozen=True)
class AsksJudge:
    """The judge of a learner."""

    model: str
    """The judge: a local folder, a name on the hub, or http://host:8000/v1#name."""
    _: KW_ONLY
    characters: int = CHARACTERS
    """Maximum characters of each prompt and response shown."""
    max_length: int | None = None
    """Tokens read; default: the model's limit, at most 8,192. Not for a server."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the network. Not for a server."""
    timeout: float = 60.0
    """Seconds to wait for a server's answer."""
    retries: int = 5
    """Retries if a server is busy or fails."""
    pause: float = 1.0
    """Seconds before the first retry, doubling."""

    @cached_property
    def language_model(self) -> LanguageModel:
        """The judge, not loaded. Raises SettingsError for an invalid address."""
        how = ("max_length", "dtype", "timeout", "retries", "pause")
        return language_model(self.model, **{name: getattr(self, name) for name in how})
