"""The part that all methods share: from judgements to a tuned network.

Suffixes here: ``_I`` positions of the training order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Users, concat
from polypref.data import thumbs
from polypref.features.hf import Plan
from polypref.features.transformer import Tokens
from polypref.finetune.batches import Batches, plan
from polypref.finetune.network import Asking, Assemble, State, build
from polypref.finetune.recipe import Recipe, load_tokenizer, locate
from polypref.finetune.texts import Reader
from polypref.finetune.tuning import Task, Tuned, tune
from polypref.finetune.vpl_network import ContextBatches
from polypref.learners import validation
from polypref.learners.canonical_order import Numbering
from polypref.terminal import say


@dataclass(frozen=True, eq=False)
class Study:
    """The judgements of a fit, with people and texts numbered by content, and the backbone that will read them."""

    recipe: Recipe
    plan: Plan
    train: Comparisons
    valid: Comparisons
    numbers: Numbering
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, train: Comparisons, valid: Comparisons | None, seed: int) -> Self:
        """Split off validation rows if there are none. Raises EncoderError, MissingExtra, NotEnoughData."""
        thumbs.refuse(train, "fine-tuning")
        found = locate(recipe)
        train, valid = validation.cut(train, valid, seed)
        return cls(recipe, found, train, valid, Numbering.of(concat(train, valid)), seed)

    @cached_property
    def users(self) -> Users:
        """Everybody who judged: user number u of the network is row u - 1."""
        return Users(pl.Series("id", self.train.users.ids.gather(self.numbers.users_U), dtype=pl.String))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.plan)

    def texts(self, asking: Asking) -> tuple[Reader, list[Tokens]]:
        """The reader of texts for this form of ``asking``, and the fit's texts; says how many were cut."""
        reader = Reader.of(self.tokenizer, self.plan, asking)
        texts = reader.read(self.train.responses.take(self.numbers.responses_R))
        if cut := sum(text.cut for text in texts):
            say(
                f"{cut:,} of {len(texts):,} texts are cut to the {reader.plan.max_length} tokens that are read: a "
                "prompt loses its beginning, a response that is still too long its end (recipe.max_length)."
            )
        return reader, texts

    def batches(self, reader: Reader, texts: list[Tokens], rows: Comparisons, shares: tuple[float, float]) -> Batches:
        """``rows`` once, in their order."""
        user_N, chosen_N, rejected_N = (code_N.astype(np.int64) for code_N in self.numbers.judges(rows))
        weight_N = rows.weights_N / max(rows.weights_N.mean(), 1e-12) if len(rows) else rows.weights_N
        return Batches(
            reader,
            texts,
            user_N + 1,
            chosen_N,
            rejected_N,
            rows.label_N.astype(np.float32),
            weight_N.astype(np.float32),
            np.arange(len(rows)),
            shares,
        )

    def order(self, rows: Comparisons) -> np.ndarray:
        """The row at each position of the training plan."""
        return plan(rows, self.recipe.steps, self.recipe.batch, self.seed)

    def task(
        self,
        asking: Asking,
        train: Batches | ContextBatches,
        valid: Batches | ContextBatches,
        start: State | None = None,
        assemble: Assemble | None = None,
        **name: Any,
    ) -> Task:
        """The fit of ``asking`` on ``train``; ``name`` distinguishes fits with the same data and settings."""
        content = {"data": [self.train.content_hash, self.valid.content_hash], "weights": self.plan.weights, **name}
        content["asking"] = [asking.form, asking.users, asking.tokens, asking.clusters]
        make = partial(build, self.recipe, self.plan, asking, self.seed, assemble)
        return Task(self.recipe, make, train, valid if len(valid) else None, self.seed, content, start)

    def tune(self, asking: Asking, shares: tuple[float, float]) -> Tuned:
        """One network for everybody."""
        reader, texts = self.texts(asking)
        train = self.batches(reader, texts, self.train, shares)
        # the fit stops by the loss under the users, not under the generic user
        valid = self.batches(reader, texts, self.valid, (1.0, 0.0) if shares[0] else shares)
        return tune(self.task(asking, replace(train, row_I=self.order(self.train)), valid))
