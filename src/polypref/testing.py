"""The contract of learners as a test suite, also for your own learner:

    from polypref.testing import LearnerContract

    class TestMine(LearnerContract):
        learner = Mine()

pytest finds the tests; without pytest, ``check(Mine())`` runs them all and returns their number.

Covered: the rules for every learner (``learners.protocol``): settings that survive JSON, the scorer's declared class
and layout, finite answers for unknown texts and users, one answer for all strangers, answers that do not depend on
other questions, equal scores for equal seeds, any order of rows, swapped labels, unchanged inputs, and saving and
loading. Not covered: whether it learns well.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import artifact, scorers
from polypref.comparisons import Comparisons, Responses
from polypref.errors import ArtifactError
from polypref.learners.protocol import PERSONAL, POPULATION, Adapts, Learner, Scorer, margins, scorer_class
from polypref.learners.provenance import fitted_on
from polypref.worlds import simulate

ALIKE = 0.02  # largest difference of margins that should be equal, relative to their root mean square


@dataclass(frozen=True)
class Words:
    """An encoder without a model: counts of words, hashed into 12 numbers and divided by the root of their sum."""

    name: str = "words"
    identity: str = "words v1"

    def encode(self, responses: Responses) -> NDArray[np.float32]:
        """``features_RD``, D = 12."""
        table = pl.DataFrame({"row": np.arange(len(responses)), "text": responses.texts_R})
        found = pl.col("text").str.to_lowercase().str.extract_all(r"[a-z']+|[0-9]+|!")
        words = table.with_columns(found).explode("text")
        # hashed by content, since polars' own hash differs between versions
        code = words["text"].fill_null("").map_elements(lambda w: sha256(w.encode()).digest()[0] % 12, pl.Int64)
        counts_RD = np.zeros((len(responses), 12), np.float32)
        np.add.at(counts_RD, (words["row"].to_numpy(), code.to_numpy()), 1.0)
        return counts_RD / np.sqrt(1.0 + counts_RD.sum(axis=1, keepdims=True))


def people(seed: int = 0, judgements: int = 30) -> Comparisons:
    """Judgements of eight people with two tastes."""
    return simulate("two-tastes", seed=seed, users=8, judgements=judgements, judges=4).comparisons


def answers(scorer: Scorer, rows: Comparisons) -> NDArray[np.float64]:
    """Margins (N,) of ``rows``."""
    return margins(scorer, rows).value_Q


def apart(one: NDArray, other: NDArray) -> float:
    """Largest difference of margins, relative to their root mean square."""
    return float(np.abs(one - other).max() / max(np.sqrt((other**2).mean()), 1e-12))


class LearnerContract:
    """Tests of ``learner``; ``blind``: it ignores labels. Subclass it, or call ``check``."""

    learner: ClassVar[Learner]
    blind: ClassVar[bool] = False

    @cached_property
    def rows(self) -> Comparisons:
        """The training data."""
        return people()

    @cached_property
    def fresh(self) -> Comparisons:
        """Judgements by the same people of texts not used in the fit."""
        other = people(seed=1, judgements=10)
        return Comparisons(other.responses, self.rows.users, other.user_N, other.chosen_N, other.rejected_N)

    @cached_property
    def scorer(self) -> Scorer:
        """The fit of ``rows``."""
        return self.fit(self.rows)

    def fit(self, rows: Comparisons) -> Scorer:
        """Another fit."""
        return self.learner.fit(rows, encoder=Words(), seed=0)

    def test_settings_survive_json(self) -> None:
        settings = json.loads(json.dumps(asdict(self.learner)))  # type: ignore[call-overload]
        again = type(self.learner)(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
        assert again == self.learner, "a learner is a frozen dataclass of JSON-able settings"

    def test_the_scorers_class_is_the_declared_one(self) -> None:
        assert scorer_class(self.learner) is type(self.scorer), "fit returns what it is annotated to return"
        assert fitted_on(self.scorer) is not None, "fit is decorated with provenance.recorded"

    def test_answers_are_finite_and_say_who_answered(self) -> None:
        pool = self.fresh.responses
        for ids in (self.rows.users.ids.gather(np.arange(len(pool)) % 8), ["nobody"] * len(pool)):
            scores = self.scorer.score(pool, ids)
            assert scores.value_Q.shape == scores.source_Q.shape == (len(pool),)
            assert np.isfinite(scores.value_Q).all()
        assert (self.scorer.score(pool, ["nobody"] * len(pool)).source_Q == POPULATION).all()
        known = self.scorer.score(pool, self.rows.users.ids.gather(np.zeros(len(pool), np.int32))).source_Q
        assert (known == POPULATION).all() == (self.scorer.serves == "population")
        assert (self.scorer.serves == "any_user") == isinstance(self.scorer, Adapts)

    def test_all_strangers_get_one_answer(self) -> None:
        pool = self.fresh.responses
        one, other = (self.scorer.score(pool, [who] * len(pool)).value_Q for who in ("nobody", "__proto__"))
        assert (one == other).all()

    def test_an_answer_does_not_hang_on_what_else_is_asked(self) -> None:
        pool, known = self.fresh.responses, self.rows.users.ids[1]
        whole = self.scorer.score(pool, [known] * len(pool)).value_Q
        part = self.scorer.score(pool.take(np.array([3, 7], np.int32)), [known] * 2).value_Q
        np.testing.assert_allclose(part, whole[[3, 7]], rtol=1e-4, atol=1e-4)

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        assert (answers(self.fit(self.rows), self.fresh) == answers(self.scorer, self.fresh)).all()

    def test_the_order_of_rows_does_not_matter(self) -> None:
        mixed = self.fit(self.rows.take(np.random.default_rng(0).permutation(len(self.rows))))
        assert apart(answers(mixed, self.fresh), answers(self.scorer, self.fresh)) < ALIKE

    def test_swapped_labels_negate_the_margins(self) -> None:
        sign = 1 if self.blind else -1
        swapped = answers(self.fit(self.rows.swapped()), self.fresh)
        assert apart(sign * swapped, answers(self.scorer, self.fresh)) < ALIKE

    def test_inputs_stay_as_they_were(self) -> None:
        before = self.rows.content_hash, self.rows.responses.texts_R.to_list(), self.rows.users.ids.to_list()
        self.fit(self.rows)
        again = people()
        assert before == (again.content_hash, again.responses.texts_R.to_list(), again.users.ids.to_list())
        for name in ("user_N", "chosen_N", "rejected_N"):
            assert (getattr(self.rows, name) == getattr(again, name)).all()

    def test_saved_and_loaded_it_answers_the_same(self) -> None:
        self._saved(self.scorer)

    def test_a_new_person_is_taken_in_and_saved(self) -> None:
        if isinstance(self.scorer, Adapts):
            before = answers(self.scorer, self.fresh)
            adapted = self.scorer.adapt("eve", self.rows.take(self.rows.user_N == 0))
            assert (answers(adapted, self.fresh) == before).all(), "other users' scores do not change"
            one = self.fresh.responses.take(np.zeros(1, np.int32))
            assert adapted.score(one, ["eve"]).source_Q[0] == PERSONAL
            self._saved(adapted)

    def test_what_is_learned_later_is_added(self) -> None:
        scorer = self.scorer
        if isinstance(scorer, Adapts):
            first, second = np.array_split(np.flatnonzero(self.rows.user_N == 0), 2)
            once = scorer.adapt("eve", self.rows.take(np.append(first, second)))
            first_only = scorer.adapt("eve", self.rows.take(first))
            assert isinstance(first_only, Adapts)
            twice = first_only.adapt("eve", self.rows.take(second))
            forgetful = scorer.adapt("eve", self.rows.take(second))
            ids = ["eve"] * len(self.fresh.responses)
            at_once, added, last = (s.score(self.fresh.responses, ids).value_Q for s in (once, twice, forgetful))
            assert np.abs(added - at_once).max() < np.abs(last - at_once).max(), "adapting again adds"

    def test_a_malformed_artifact_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as folder, self._known():
            scorers.save(self.scorer, Path(folder) / "s")
            config, arrays = artifact.load(Path(folder) / "s", scorers.KIND)
            for wrong in ({**config["state"], "not declared": 1}, {}):
                artifact.save(Path(folder) / "s", scorers.KIND, {**config, "state": wrong}, arrays)
                try:
                    scorers.load(Path(folder) / "s", Words())
                except ArtifactError:
                    continue
                raise AssertionError("the scorer's layout accepts anything")

    def _saved(self, scorer: Scorer) -> None:
        with tempfile.TemporaryDirectory() as folder, self._known():
            scorers.save(scorer, Path(folder) / "s")
            again = scorers.load(Path(folder) / "s", Words())
            assert type(again) is type(scorer)
            assert (answers(again, self.fresh) == answers(scorer, self.fresh)).all()
            assert dict(again.selection) == dict(scorer.selection)

    def _known(self) -> Any:
        """Within the block, ``scorers.load`` knows the class of this learner's scorers."""
        from unittest.mock import patch

        return patch.dict(scorers.SCORERS, {self.scorer.kind: type(self.scorer)})


def check(learner: Learner, *, blind: bool = False) -> int:
    """Run the contract on ``learner``; the number of tests. Raises AssertionError at the first that fails."""
    made = type("Contract", (LearnerContract,), {"learner": learner, "blind": blind})()
    tests: list[Callable[[], None]] = [getattr(made, name) for name in dir(made) if name.startswith("test_")]
    for test in tests:
        test()
    return len(tests)
