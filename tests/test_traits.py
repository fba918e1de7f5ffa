"""What rewards like, in words: planted likings are found, and nothing else; placebos and length are no traits."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scipy.special import expit

import polypref
from polypref import features, scorers
from polypref.cli import main
from polypref.cli.groups import _by_rewards
from polypref.comparisons import from_columns
from polypref.errors import SettingsError
from polypref.groups import Discovery, discover, from_mapping
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.length import Length
from polypref.learners.pooled import Pooled
from polypref.serve.app import app_of
from polypref.serve.remembered import Remembered
from polypref.traits import describe, describe_group
from polypref.traits.describe import _variances, counts, describe_rewards
from polypref.traits.table import packaged
from polypref.worlds.text import prompts, write
from serve_cases import core
from truth_scripts import script

MARKS = {
    "hedged": r"(?i)\b(?:perhaps|may|maybe|might|possibly|probably|could|unsure|uncertain|not sure)\b",
    "examples": r"(?i)\bexample\b",
    "lists": r"(?m)^- ",
}


@dataclass(frozen=True)
class Marks:
    """How many words of each kind a text has."""

    name: str = "marks"
    identity: str = "marks v1"

    def encode(self, responses):
        return np.stack([responses.texts_R.str.count_matches(one).to_numpy() for one in MARKS.values()], 1).astype(
            np.float32
        )


def world(users=24, judgements=60, seed=0):
    """A third of the people like hedged texts, a third dislike them, a third like examples; nobody cares for lists."""
    rng = np.random.default_rng(seed)
    n = users * judgements
    asked = rng.integers(0, len(prompts()), n).astype(np.int32)
    texts, style_RD = write(np.tile(asked, 2), rng.random((2 * n, 6)), rng)
    user_N = np.repeat(np.arange(users), judgements)
    like_U2 = np.array([[8.0, 0.0], [-8.0, 0.0], [0.0, 8.0]])[np.arange(users) % 3]
    value_2N = (style_RD[:, [2, 3]] * np.tile(like_U2[user_N], (2, 1))).sum(axis=1)
    first_N = rng.random(n) < expit(value_2N[:n] - value_2N[n:])
    one, other = texts[:n], texts[n:]
    chosen = [a if first else b for a, b, first in zip(one, other, first_N, strict=True)]
    rejected = [b if first else a for a, b, first in zip(one, other, first_N, strict=True)]
    return from_columns([f"u{u}" for u in user_N], [prompts()[p] for p in asked], chosen, rejected)


@pytest.fixture(scope="module")
def fitted():
    return Hierarchical().fit(world(), encoder=Marks(), seed=0)


def test_the_pairs_are_matched_in_length_and_no_text_comes_twice():
    table = packaged()
    assert len(table.pool) == 2 * table.more_TX.size
    log_R = np.log(table.pool.lengths_R)
    longer_TX = log_R[table.more_TX] - log_R[table.less_TX]
    of_length = table.names_T.index("length")
    assert longer_TX[of_length].min() > 1.0
    others_TX = np.delete(longer_TX, of_length, axis=0)
    assert np.abs(others_TX).max() < 0.12 and np.abs(others_TX.mean(axis=1)).max() < 0.05
    assert (table.pool.prompt_R[table.more_TX] == table.pool.prompt_R[table.less_TX]).all()


def test_planted_likings_are_found_and_no_others(fitted):
    found = describe(fitted, [f"u{n}" for n in range(24)])
    clear = [{one.name: one.value > 0 for one in person.traits if one.clear} for person in found]
    planted = [{"hedged": True}, {"hedged": False}, {"examples": True}]
    assert sum(planted[n % 3].items() <= one.items() for n, one in enumerate(clear)) >= 20
    assert not any(one.keys() & {"lists", "warm", "numbers", "playful"} for one in clear)
    assert counts(found)["hedged"] == (8, 8)
    (population,) = describe(fitted, [None])
    assert not next(one for one in population.traits if one.name == "hedged").clear
    first = found[0]
    assert first.text.startswith("Prefers hedged, careful answers (clearly).")
    assert "More than people in general: hedged, careful answers." in first.text


def test_a_reward_of_length_likes_nothing_but_length():
    scorer = Length().fit(world(6, 20), encoder=Marks(), seed=0)
    (found,) = describe(scorer, [None])
    assert {one.name for one in found.traits if one.clear} == {"length"}
    longer = np.log(packaged().pool.lengths_R.astype(np.float64))
    assert [one.liked for one in describe_rewards("g", longer).traits if one.clear] == ["fuller answers"]


def test_traits_that_are_none_are_called_clear_for_at_most_five_percent():
    rng, table, pairs = np.random.default_rng(0), packaged(), []
    for seed in range(1500):
        found = describe_rewards(None, rng.standard_normal(len(table.pool)), table=table.placebo(seed))
        pairs.append((any(one.lo > 0 or one.hi < 0 for one in found.traits), any(one.clear for one in found.traits)))
    outside, clear = np.mean(pairs, axis=0)
    assert clear <= outside
    assert 0.03 < outside < 0.065  # 5 % of people, over all traits of one; 4 standard errors are 2 %


def test_people_of_known_weights_are_within_their_intervals():
    """A short form of ``benchmarks/truth/traits.py``; the whole is in docs/traits.md."""
    truth = script("traits")
    held, clear, wrong, _, _, strong = map(float, truth.line(truth.world("normal", 100, 0.15, 24, 0)))
    assert held >= 0.85 and clear > 20 and wrong <= 1  # 24 people: .95 less two standard errors
    assert strong > 0.5, "with many judgements, clear is not too severe"


def test_the_interval_carries_the_posterior_of_the_weights(fitted):
    table, known = packaged(), fitted.known_of("u0")
    (wide,) = describe(fitted, ["u0"])
    narrow = describe_rewards("u0", fitted.score(table.pool, ["u0"] * len(table.pool)).value_Q)
    rng, x_RK = np.random.default_rng(0), fitted.inputs(table.pool)
    drawn_BK = rng.multivariate_normal(known.weights_K, known.covariance_KK, 4000)
    drawn_BT = (table.contrasts_TXR().mean(axis=1) @ x_RK @ drawn_BK.T).T
    variance_T = _variances(fitted, polypref.content.ids(["u0"]), table)[0]
    assert np.allclose(variance_T, drawn_BT.var(axis=0), rtol=0.12)
    (barely,) = describe(fitted.adapt("new", world(1, 4, seed=5)), ["new"])
    widths = [np.mean([one.hi - one.lo for one in person.traits]) for person in (wide, barely)]
    assert widths[1] > 1.3 * widths[0]
    assert "how surely the weights are known" in wide.rests_on and "not in the interval" in narrow.rests_on


def test_a_group_is_described_by_its_people(fitted):
    group = describe_group(fitted, "careful", [f"u{n}" for n in range(0, 24, 3)])
    assert next(one.liked for one in group.traits if one.clear) == "hedged, careful answers"
    mixed = describe_group(fitted, "all", [f"u{n}" for n in range(24)])
    assert not next(one for one in mixed.traits if one.name == "hedged").clear
    with pytest.raises(SettingsError, match="two or more"):
        describe_group(fitted, "one", ["u0"])


def test_users_that_the_scorer_does_not_know_are_one_line(fitted):
    with pytest.raises(SettingsError, match="user `nobody` is not known to this scorer, nor are 1 others"):
        describe(fitted, ["u0", "nobody", "neither"])
    with pytest.raises(SettingsError, match="not known"):
        describe(Pooled().fit(world(6, 20), encoder=Marks(), seed=0), ["u0"])


def test_the_command_says_it_and_counts_people(fitted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(features, "encoder", lambda name, **_: Marks())
    folder, groups = str(tmp_path / "scorer"), str(tmp_path / "groups")
    scorers.save(fitted, folder)
    third = {f"u{n}": "careful" if n % 3 == 0 else "other" for n in range(24)}
    from_mapping(third).save(groups)
    assert main(["describe", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["people"]["hedged"] == [8, 8] and found["described"][0]["who"] is None
    assert main(["describe", folder, "--user", "u0", "--groups", groups]) == 0
    shown = capsys.readouterr().out
    assert '"u0": Prefers hedged, careful answers (clearly).' in shown and '"careful": Prefers hedged' in shown
    assert main(["describe", folder, "--user", "who"]) == 2
    assert "user `who` is not known" in capsys.readouterr().err
    population = str(tmp_path / "population")
    scorers.save(Pooled().fit(world(6, 20), encoder=Marks(), seed=0), population)
    assert main(["describe", population, "--groups", groups]) == 2
    assert "knows no single people" in capsys.readouterr().err


def test_the_page_of_groups_has_what_their_rewards_like(tmp_path):
    found = discover(world(), encoder=Marks(), seed=0, groups=2, how=Discovery(most=2, restarts=1, folds=2))
    told = _by_rewards(found)
    assert {one["who"] for one in told} == set(found.names)
    assert any("hedged, careful" in one["text"] or "plain, definite" in one["text"] for one in told)


def test_a_server_tells_a_person_what_they_like(fitted, tmp_path):
    scorer = replace(fitted, inputs=replace(fitted.inputs, encoder=Remembered(Marks())))
    made = core(tmp_path / "s.db", own=scorer)
    with TestClient(app_of(made)) as client:
        assert client.get("/v1/users/stranger").json()["traits"] is None
        known = client.get("/v1/users/u0").json()["traits"]
        assert known["text"].startswith("Prefers hedged") and known["traits"][0]["clear"]
        assert client.post("/v1/users/u0/pause").json() == {"paused": True}
        assert client.get("/v1/users/u0").json()["traits"] is None
