"""A language model that sees the user's most similar earlier choices: the evaluation paper's RAG judge.

Paper: Dong et al. 2025, "When Personalization Meets Reality", section 4.1. A language model sees the user's three
training comparisons that are most similar to the one in question, and picks response A or B:

    margin = (odds(A | chosen is A) - odds(A | chosen is B)) / 2        odds(A) = log p(A) - log p(B)

Nothing is trained; validation rows join the memory.

What we changed: the released code searches with the text of the *test* row, including its label; here a query has the
two responses in neutral order, and the pair in question is never shown (``retrieval``). The released code samples an
answer at temperature 0.7 and reads any capital A as "A"; here the first token's log-probabilities are compared and both
orders averaged, so a bias for the letter A or for the first place cancels. If the model says neither A nor B in one
order, that order is ignored; in both, the margin is 0, which counts one half, and ``Scores.unanswered_Q`` counts such
cases; if it never says either, nothing was measured. Strangers are judged without examples: the model's view of the
population's answer. The model is any causal one of transformers or any server that speaks OpenAI's protocol
(``judges``). A single response is scored by its margin over an empty one.

Suffixes here: ``_K`` neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, IntArray, Responses, concat
from polypref.data import thumbs
from polypref.errors import ArtifactError, SettingsError
from polypref.features.protocol import Encoder
from polypref.learners import retrieval, validation
from polypref.learners.both_orders import margins_of, over_empty
from polypref.learners.judge_prompts import Case, Choice, cases_of, prompt_texts
from polypref.learners.judge_settings import AsksJudge
from polypref.learners.protocol import PERSONAL, POPULATION, RanksTexts, Scores, Serves, UserIds
from polypref.learners.provenance import recorded
from polypref.learners.retrieval import Memory
from polypref.schema import Layout


@dataclass(frozen=True)
class RetrievalJudge(AsksJudge):
    """Settings of the judge."""

    neighbours: int = 3
    """Number of the user's own comparisons that are shown."""

    def __post_init__(self) -> None:
        for name, least in (("neighbours", 0), ("characters", 1), ("retries", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise SettingsError(f"retrieval-judge: {name} = {value!r}; expected a whole number from {least}.")

    @property
    def identity(self) -> str:
        """See ``learners.protocol.ReadsModel``."""
        return self.language_model.identity

    @recorded
    def fit(
        self, train: Comparisons, *, encoder: Encoder, seed: int, valid: Comparisons | None = None
    ) -> RetrievalJudgeScorer:
        """See ``learners.protocol.Learner``. Remembers ``train`` and ``valid``; asks the judge nothing."""
        thumbs.refuse(train, "retrieval-judge")
        empty = train.take(np.zeros(0, np.int64))
        whole = concat(*validation.cut(train, empty if valid is None else valid, seed))
        return RetrievalJudgeScorer(self, self.identity, Memory.of(encoder, whole))


class Fields(TypedDict):
    """Settings of a saved scorer."""

    settings: RetrievalJudge
    identity: str
    memory: retrieval.Fields


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalJudgeScorer(RanksTexts):
    """The judge and its memory; ``identity`` names the model of the fit."""

    settings: RetrievalJudge
    identity: str
    memory: Memory

    kind: ClassVar[str] = "retrieval-judge"
    layout: ClassVar[Layout] = Layout(Fields, retrieval.ARRAYS, sizes={"U": "memory.users"}, rule=retrieval.wrong)
    serves: ClassVar[Serves] = "seen_users"

    @property
    def selection(self) -> Mapping[str, float | str]:
        """Nothing is chosen."""
        return {}

    def compare(self, comparisons: Comparisons) -> Scores:
        """See ``learners.protocol.Compares``. Raises EncoderError if the judge is not available or does not reply."""
        shown_NK = self.memory.nearest(comparisons, self.settings.neighbours)[:, ::-1]  # the most similar is last
        shown = [[self._cases[m] for m in row if m >= 0] for row in shown_NK.tolist()]
        prompts, texts = prompt_texts(comparisons.responses), comparisons.responses.texts_R.to_list()
        prompt_N = comparisons.responses.prompt_R[comparisons.chosen_N].tolist()
        questions = [
            Choice(Case(prompts[p], texts[chosen], texts[rejected]), cases, self.settings.characters)
            for p, chosen, rejected, cases in zip(
                prompt_N, comparisons.chosen_N.tolist(), comparisons.rejected_N.tolist(), shown, strict=True
            )
        ]
        margin_N, unanswered_N = margins_of(self.settings.language_model, questions)
        source_N = np.where(self.memory.rows.users.index(comparisons.users.ids) >= 0, PERSONAL, POPULATION)
        return Scores(margin_N, source_N.astype(np.int8)[comparisons.user_N], unanswered_N)

    @cached_property
    def _cases(self) -> list[Case]:
        """Remembered comparisons as text."""
        return cases_of(self.memory.rows)

    def score(self, responses: Responses, user_ids: UserIds | None, response_Q: IntArray | None = None) -> Scores:
        """See ``learners.protocol.Scorer``: the margin of each response over an empty one."""
        return self.compare(over_empty(responses, self.memory.rows.users, user_ids, response_Q))

    @property
    def encoder(self) -> Encoder:
        """The encoder of its features."""
        return self.memory.encoder

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        memory, arrays = self.memory.state()
        return {"settings": asdict(self.settings), "identity": self.identity, "memory": memory}, arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> Self:
        """See ``learners.protocol.Scorer``. Raises ArtifactError if the judge has changed."""
        settings = RetrievalJudge(**config["settings"])
        if settings.identity != config["identity"]:
            raise ArtifactError(f"{settings.model} has changed since the scorer was saved; fit and save it again.")
        return cls(settings, config["identity"], Memory.from_state(config["memory"], arrays, encoder))
