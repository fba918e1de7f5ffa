"""A published reward model, unchanged and the same for everyone: the evaluation paper's Pre-trained baseline.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1. The reward is the model's own score of the
response after its prompt. Nothing is trained, and validation rows are only measured.

What we changed: the score is read at the last token of the attention mask. transformers looks for padding tokens
instead, which fails if padding and end of text share one (the paper's .62 in one evaluator and .80 in the other are the
same weights). ``sign=-1`` reverses a cost model. ``ask=True`` asks an instruction-following model whether the response
is good; its reward is log p(Yes) - log p(No), 0 if it says neither. Scores are not calibrated: their scale is the
model's own, so accuracy is more informative here than log loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypedDict

import numpy as np

from polypref.comparisons import Comparisons, IntArray, Responses
from polypref.data import thumbs
from polypref.errors import ArtifactError, EncoderError, SettingsError
from polypref.features.hf import HuggingFace, inspect, score_names
from polypref.features.model_folder import locate
from polypref.features.protocol import Encoder
from polypref.judges.ask import LanguageModel, ask, language_model
from polypref.learners import validation
from polypref.learners.judge_prompts import Approval
from polypref.learners.protocol import POPULATION, RanksTexts, Scores, Serves, UserIds, margins, resolved
from polypref.learners.provenance import recorded
from polypref.schema import Layout, Selection

ANSWERS = ("Yes", "No")


@dataclass(frozen=True)
class Pretrained:
    """Settings of an unchanged reward model."""

    model: str
    """A local folder or a name on the hub; with ask, also http://host:8000/v1#name."""
    sign: Literal[1, -1] = 1
    """-1 for a model that scores cost, where less is better."""
    label: str | int | None = None
    """Which score to use if the model gives several: its name or its number, from 0."""
    ask: bool = False
    """Ask a language model instead of reading a score head."""
    max_length: int | None = None
    """Tokens read; default: the model's limit, at most 2,048 (8,192 with ask)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the network; scores are float32."""

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise SettingsError(f"pretrained:{self.model}: sign = {self.sign!r}; expected 1, or -1 for a cost model.")

    @property
    def identity(self) -> str:
        """Names everything that affects a score, including the model's content."""
        label = self._label  # first, so that its message names what is wrong with the model
        return f"{self._reads.identity} label={label} sign={self.sign}"

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> PretrainedScorer:
        """See ``learners.protocol.Learner``; learns nothing and needs no encoder.

        Raises EncoderError if the model is not available, has no reward head, or gives several scores and none is
        named.
        """
        thumbs.refuse(train, "pretrained")
        _, valid = validation.cut(train, valid, seed)
        scorer = PretrainedScorer(self, self.identity, {})
        return replace(scorer, selection=validation.measure(margins(scorer, valid).value_Q, valid))

    @cached_property
    def _asked(self) -> LanguageModel | None:
        return language_model(self.model, max_length=self.max_length, dtype=self.dtype) if self.ask else None

    @cached_property
    def _reads(self) -> LanguageModel | HuggingFace:
        return self._asked or HuggingFace(self.model, score="only", max_length=self.max_length, dtype=self.dtype)

    @cached_property
    def _label(self) -> int:
        """Number of the score to use."""
        if self.ask:
            return 0
        assert isinstance(self._reads, HuggingFace)
        folder, weights = locate(self.model, None, self._reads.permission)
        kind, _, _ = inspect(folder, weights)
        if kind != "reward":
            raise EncoderError(
                f"{self.model} has no reward head (its kind is {kind!r}); give a sequence-classification model, or a "
                "causal one with ask=true to ask it."
            )
        names = score_names(folder)
        if self.label is None and len(names) == 1:
            return 0
        if self.label in names:
            return names.index(str(self.label))
        if isinstance(self.label, int) and 0 <= self.label < len(names):
            return self.label
        raise EncoderError(
            f"{self.model} gives {len(names)} scores, {', '.join(names)}; label = {self.label!r}. Name one of them."
        )

    def rewards(self, responses: Responses) -> Scores:
        """Reward of each response in the pool; cached by content."""
        unanswered_R = None
        if isinstance(self._reads, HuggingFace):
            value_R = self._reads.encode(responses)[:, self._label].astype(np.float64)
        else:
            value_R = ask(self._reads, Approval.each(responses), ANSWERS)
            unanswered_R = np.isnan(value_R).astype(np.float64)
        value_R = self.sign * np.nan_to_num(value_R)
        return Scores(value_R, np.full(len(responses), POPULATION, np.int8), unanswered_R)


class Fields(TypedDict):
    """Settings of a saved scorer."""

    settings: Pretrained
    identity: str
    selection: Selection


@dataclass(frozen=True, eq=False, repr=False)
class PretrainedScorer(RanksTexts):
    """The model's own scores; ``identity`` names the content of the model that was fitted."""

    settings: Pretrained
    identity: str
    selection: Mapping[str, float | str]

    kind: ClassVar[str] = "pretrained"
    layout: ClassVar[Layout] = Layout(Fields)
    serves: ClassVar[Serves] = "population"

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``."""
        _, response_Q = resolved(responses, user_ids, response_Q)
        distinct, place_Q = np.unique(response_Q, return_inverse=True)
        pool = responses if len(distinct) == len(responses) else responses.take(distinct)
        return self.settings.rewards(pool).take(place_Q.astype(np.int32))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See ``learners.protocol.Scorer``."""
        return {
            "settings": asdict(self.settings),
            "identity": self.identity,
            "selection": dict(self.selection),
        }, {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``. Raises ArtifactError if the model has changed."""
        settings = Pretrained(**config["settings"])
        if settings.identity != config["identity"]:
            raise ArtifactError(f"{settings.model} has changed since the scorer was saved; fit and save it again.")
        return cls(settings, config["identity"], config["selection"])
