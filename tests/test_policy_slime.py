"""slime's hooks, on samples of the shape that slime hands over: its own call, in its own order."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polypref.errors import ArtifactError, InputError, SettingsError
from polypref.policy import history_file, slime
from polypref.policy.advantages import PAPER, Normalization, Normalizer


@dataclass
class Sample:
    """The fields of slime's ``Sample`` that a reward hook can see."""

    group_index: int | None = None
    index: int | None = None
    reward: float | dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    rollout_id: int | None = None

    def get_reward_value(self, args: Namespace) -> Any:
        return self.reward if not args.reward_key else self.reward[args.reward_key]  # type: ignore[index]


class Manager:
    """What slime's RolloutManager does with its arguments and the two hooks, rollout by rollout."""

    def __init__(self, save: Path, load: Path | None = None, **pgrpo: Any) -> None:
        self.args = Namespace(save=str(save), load=load and str(load), reward_key=None, pgrpo=pgrpo)

    def generate(self, rollout_id: int, samples: list[Sample]) -> list[float]:
        assert slime.log_rollout(rollout_id, self.args, samples, {}, 0.5) is False, "slime goes on to log it"
        raw_rewards, rewards = slime.post_process(self.args, samples)
        assert len(raw_rewards) == len(rewards) == len(samples)
        assert raw_rewards == [sample.get_reward_value(self.args) for sample in samples]
        return rewards


def rollout(number: int, prompts: int = 6, size: int = 4, **more: Any) -> list[Sample]:
    """Samples of prompts of two groups, numbered on from rollout to rollout as slime does."""
    rng = np.random.default_rng(number)
    found = []
    for prompt in range(number * prompts, (number + 1) * prompts):
        group = "ab"[prompt % 2]
        for _ in range(size):
            reward = float(rng.normal()) * (0.1 if group == "b" else 1)
            at = prompt * size + len(found) % size
            found.append(Sample(prompt, at, reward, {"group": group, "user": f"{group}{prompt % 3}"}, at))
    return [Sample(**{**vars(sample), **more}) for sample in found]


def expected(normalizer: Normalizer, samples: list[Sample]) -> np.ndarray:
    keys = [[sample.metadata[name] for sample in samples] for name in normalizer.names]
    reward_B, prompt_B = (np.array([getattr(sample, name) for sample in samples]) for name in ("reward", "group_index"))
    return normalizer(reward_B, prompt_B, keys).value_B


def test_slime_calls_the_hooks_by_these_parameters() -> None:
    """As slime's own contract test of its hooks asks."""
    assert tuple(inspect.signature(slime.post_process).parameters) == ("args", "samples")
    told = ("rollout_id", "args", "samples", "rollout_extra_metrics", "rollout_time")
    assert tuple(inspect.signature(slime.log_rollout).parameters) == told


@pytest.mark.parametrize(
    ("told", "how", "names"),
    [
        ({}, Normalization(), ("group",)),
        ({"paper": True}, PAPER, ("group",)),
        ({"group_weight": 1, "baseline": "grpo"}, Normalization(group_weight=1, baseline="grpo"), ("group",)),
        ({"user_column": "user", "cold": "parent", "min_count": 8}, Normalization(cold="parent", min_count=8), None),
        ({"baseline": "group", "adaptive": True}, Normalization(baseline="group", adaptive=True), ("group",)),
    ],
)
def test_advantages_are_the_normalizers(tmp_path: Path, told: dict[str, Any], how: Normalization, names: Any) -> None:
    manager, normalizer = Manager(tmp_path, **told), Normalizer(how, names or ("group", "user"))
    for number in range(5):
        samples = rollout(number)
        np.testing.assert_array_equal(manager.generate(number, samples), expected(normalizer, samples))


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Manager(tmp_path / "whole", adaptive=True, group_weight=1)
    found = [whole.generate(number, rollout(number)) for number in range(6)]
    again = Manager(tmp_path / "again", load=tmp_path / "whole", adaptive=True, group_weight=1)
    assert [again.generate(number, rollout(number)) for number in (3, 4, 5)] == found[3:]
    files = (tmp_path / "whole/pgrpo/rollout_5.npz", tmp_path / "again/pgrpo/rollout_5.npz")
    digests = {
        history_file.digest(history_file.load(file, [Normalizer(Normalization(adaptive=True, group_weight=1))])[0])
        for file in files
    }
    assert len(digests) == 1


def test_resuming_reads_what_slime_loads_and_not_what_an_earlier_run_left(tmp_path: Path) -> None:
    other = Manager(tmp_path / "new")  # an earlier run in the folder that is saved to
    for number in range(3):
        other.generate(number, rollout(7 + number))
    first = Manager(tmp_path / "old")
    found = [first.generate(number, rollout(number)) for number in range(3)]
    again = Manager(tmp_path / "new", load=tmp_path / "old")
    assert [again.generate(number, rollout(number)) for number in (1, 2)] == found[1:]


def test_a_rollout_that_is_repeated_counts_once(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    found = [manager.generate(number, rollout(number)) for number in range(3)]
    assert manager.generate(2, rollout(2)) == found[2]
    (normalizer,), about = history_file.load(tmp_path / "pgrpo/rollout_2.npz", [Normalizer(Normalization())])
    assert normalizer.levels[0].rewards.count_G[0] == 3 * 24
    assert about["rollout"] == 2


def test_prompts_with_unequal_numbers_of_samples(tmp_path: Path) -> None:
    """Partial groups, and prompts that slime's filter has dropped."""
    samples = [sample for n, sample in enumerate(rollout(0)) if n not in (1, 2, 3, 9) and sample.group_index != 4]
    normalizer = Normalizer(Normalization(min_count=2))
    np.testing.assert_array_equal(Manager(tmp_path, min_count=2).generate(0, samples), expected(normalizer, samples))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_samples_without_a_usable_reward(tmp_path: Path, value: float | None) -> None:
    samples = rollout(0)
    samples[5].reward = value
    manager = Manager(tmp_path)
    slime.log_rollout(0, manager.args, samples, {}, 0.5)
    raw, rewards = slime.post_process(manager.args, samples)
    assert raw[5] is samples[5].reward
    assert rewards[5] == 0
    assert np.isfinite(rewards).all()
    (normalizer,), _ = history_file.load(tmp_path / "pgrpo/rollout_0.npz", [Normalizer(Normalization())])
    assert normalizer.levels[0].rewards.count_G[0] == 23


def test_training_samples_of_one_rollout_count_once(tmp_path: Path) -> None:
    """An agent's turns: several samples, one reward, one ``rollout_id``."""
    samples = rollout(0)
    turns = [sample for sample in samples for _ in range(1 + sample.index % 3)]  # type: ignore[operator]
    once = dict(zip([s.index for s in samples], Manager(tmp_path / "a").generate(0, samples), strict=True))
    assert Manager(tmp_path / "b").generate(0, turns) == [once[sample.index] for sample in turns]


def test_equal_rewards_of_different_completions_each_count(tmp_path: Path) -> None:
    for how, more in (("with", {}), ("without", {"rollout_id": None})):
        Manager(tmp_path / how).generate(0, rollout(0, reward=1.0, **more))
        (normalizer,), _ = history_file.load(tmp_path / how / "pgrpo/rollout_0.npz", [Normalizer(Normalization())])
        assert normalizer.levels[0].rewards.count_G[0] == 24


def test_one_of_several_rewards(tmp_path: Path) -> None:
    samples = rollout(0)
    plain = Manager(tmp_path / "a").generate(0, samples)
    manager = Manager(tmp_path / "b")
    manager.args.reward_key = "liked"
    several = [Sample(**{**vars(sample), "reward": {"liked": sample.reward, "short": 3}}) for sample in samples]
    assert manager.generate(0, several) == plain


# what is refused


def bad(change: Callable[[list[Sample]], Any]) -> list[Sample]:
    samples = rollout(0)
    change(samples)
    return samples


@pytest.mark.parametrize(
    ("samples", "line"),
    [
        (
            bad(lambda s: s[3].metadata.pop("group")),
            r"sample 3 has no 'group' in its metadata; found: user\. Set group_",
        ),
        (bad(lambda s: setattr(s[3], "metadata", None)), r"no 'group' in its metadata; found: nothing\."),
        (bad(lambda s: s[0].metadata.update(group=" ")), r"group of a row is ' '; expected text or a whole number"),
        (bad(lambda s: setattr(s[2], "group_index", None)), r"sample 2 has no group_index"),
        (bad(lambda s: setattr(s[2], "reward", {"liked": 1})), r"a reward is \{'liked': 1\}; expected .* --reward-key"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path: Path, samples: list[Sample], line: str) -> None:
    with pytest.raises(InputError, match=line):
        Manager(tmp_path).generate(0, samples)
    assert not list(tmp_path.rglob("*.npz"))


def test_one_prompt_in_two_groups(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="answer one prompt and belong to different groups, 'a' and 'b'"):
        Manager(tmp_path).generate(0, bad(lambda s: s[1].metadata.update(group="b")))


def test_resuming_without_the_histories(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"rollout_4\.npz is missing: groups would start again without history"):
        Manager(tmp_path / "new", load=tmp_path / "old").generate(5, rollout(5))
    with pytest.raises(SettingsError, match="slime begins at rollout 5 and --load is not set"):
        Manager(tmp_path / "new").generate(5, rollout(5))


def test_resuming_with_other_settings(tmp_path: Path) -> None:
    Manager(tmp_path).generate(0, rollout(0))
    with pytest.raises(ArtifactError, match="baseline was 'shrunken', now 'group'"):
        Manager(tmp_path / "new", load=tmp_path, baseline="group").generate(1, rollout(1))


def test_a_misspelt_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown setting of pgrpo 'grop_column'\. Did you mean 'group_column'\?"):
        Manager(tmp_path, grop_column="persona").generate(0, rollout(0))


def test_without_the_log_hook_or_a_folder(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    with pytest.raises(SettingsError, match=r"this rollout is not known.* --custom-rollout-log-function-path"):
        slime.post_process(manager.args, rollout(0))
    manager.args.save = None
    with pytest.raises(SettingsError, match="--save is not set"):
        manager.generate(0, rollout(0))
