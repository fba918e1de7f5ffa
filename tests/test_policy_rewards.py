"""A fitted scorer as a reward function."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from contract_cases import Words
from polypref.align.rewards import ScorerReward, text_of
from polypref.comparisons import from_columns
from polypref.errors import InputError
from polypref.learners import LEARNERS
from polypref.learners.protocol import Scorer
from polypref.worlds import simulate
from test_cache import Fake


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    world = simulate("two-tastes", users=8, judgements=30)
    return LEARNERS["individual"].fit(world.comparisons, encoder=Words(), seed=0)


TEXTS = ["you should always rest, dear friend", "one must unquestionably rest", "rest", "rest"]


def test_rewards_are_the_scorers_for_each_rows_user(scorer: Scorer) -> None:
    users = ["u0", "u3", "u0", "nobody"]
    reward = ScorerReward(scorer)
    found = reward(prompts=["How?"] * 4, completions=TEXTS, user_id=users, trainer_state=None)
    pool = from_columns(users, ["How?"] * 4, TEXTS, TEXTS)
    expected = scorer.score(pool.responses, pl.Series(users), pool.chosen_N)
    np.testing.assert_array_equal(found, expected.value_Q)
    assert expected.source_Q.tolist()[3] != expected.source_Q.tolist()[0], "the population answers for strangers"
    assert found[2] != found[3]
    assert reward.__name__ == "polypref-linear"


def test_chats_are_read_as_their_text(scorer: Scorer) -> None:
    reward = ScorerReward(scorer, user_column=None)
    chats = [[{"role": "assistant", "content": text}] for text in TEXTS]
    asked = [[{"role": "user", "content": "How?"}]] * 4
    assert reward(prompts=asked, completions=chats) == reward(prompts=["How?"] * 4, completions=TEXTS)
    assert text_of([{"content": "a"}, {"content": None}, {"content": "b"}]) == "a\nb"
    parts = [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert text_of([{"role": "assistant", "content": parts}]) == "a\nb"


def test_completions_do_not_fill_the_cache(tmp_path: Path) -> None:
    world = simulate("two-tastes", users=4, judgements=20)
    scorer = LEARNERS["individual"].fit(world.comparisons, encoder=Fake(str(tmp_path)), seed=0)
    before = sorted((path, path.stat().st_size) for path in tmp_path.rglob("*.f32"))
    assert before
    found = ScorerReward(scorer)(prompts=["How?"] * 4, completions=TEXTS, user_id=["u1"] * 4)
    assert sorted((path, path.stat().st_size) for path in tmp_path.rglob("*.f32")) == before
    pool = from_columns(["u1"] * 4, ["How?"] * 4, TEXTS, TEXTS)
    expected = scorer.score(pool.responses, pl.Series(["u1"] * 4), pool.chosen_N).value_Q
    np.testing.assert_array_equal(found, expected, "as when stored")


def test_prompts_are_encoded_once_and_for_all(tmp_path: Path) -> None:
    """They come again in every step, unlike completions."""
    world = simulate("two-tastes", users=4, judgements=20)
    fake = Fake(str(tmp_path))
    reward = ScorerReward(LEARNERS["nearest-neighbours"].fit(world.comparisons, encoder=fake, seed=0))
    fake.seen.clear()
    for _ in range(3):
        reward(prompts=["How?", "Why?"], completions=TEXTS[:2], user_id=["u1", "u2"])
    assert [fake.seen.count(text) for text in ("How?", "Why?", TEXTS[0])] == [1, 1, 3]


def test_it_travels_to_other_processes(scorer: Scorer) -> None:
    reward = ScorerReward(scorer)
    asked: dict[str, Any] = {"prompts": ["How?"] * 4, "completions": TEXTS, "user_id": ["u1"] * 4}
    assert pickle.loads(pickle.dumps(reward))(**asked) == reward(**asked)


def test_rows_without_a_user_are_refused(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="no column 'user_id' to say whose rewards to use; found: group"):
        ScorerReward(scorer)(prompts=["How?"], completions=["rest"], group=["a"], trainer_state=None)


def test_the_whole_road_with_trl(scorer: Scorer, tmp_path: Path) -> None:
    """Comparisons, a scorer, rewards, P-GRPO on the real trainer: users are the groups."""
    pytest.importorskip("trl")
    from datasets import Dataset

    from judge_cases import save_judge
    from policy_cases import config, trainer

    model = save_judge(tmp_path / "m", template=None, pad="<pad>", side="left")
    rows = [{"prompt": f"why {i}", "user_id": f"u{i % 3}"} for i in range(12)]
    args = config(tmp_path / "out", group_column="user_id", history_min_count=2)
    run = trainer(model, args, ScorerReward(scorer), Dataset.from_list(rows))
    run.train()
    assert set(run.histories[0].levels[1].numbers) == {("u0",), ("u1",), ("u2",)}
    assert np.isfinite(run.state.log_history[-2]["rewards/polypref-linear/mean"])


def test_rows_whose_user_is_missing_are_refused(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="user_id of row 1 of a batch is None; expected a user id"):
        ScorerReward(scorer)(prompts=["How?"] * 2, completions=TEXTS[:2], user_id=["u1", None])


def test_prompts_are_those_that_people_read(scorer: Scorer) -> None:
    asked: dict[str, Any] = {"completions": TEXTS, "user_id": ["u1"] * 4}
    plain = ScorerReward(scorer)(prompts=["How?"] * 4, **asked)
    assert ScorerReward(scorer, prompt_column="asked")(prompts=["a: How?"] * 4, asked=["How?"] * 4, **asked) == plain
    with pytest.raises(InputError, match="no column 'asked' with the prompts that people judged"):
        ScorerReward(scorer, prompt_column="asked")(prompts=["a: How?"] * 4, **asked)
