"""Variational preference learning: the published sizes, its formulas, contexts, recovery, the swap-guided repair."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from contract_cases import Words, answers
from polypref.comparisons import Comparisons
from polypref.errors import Diverged
from polypref.learners import LEARNERS
from polypref.learners.protocol import POPULATION
from polypref.learners.training import vpl_network
from polypref.learners.vpl import VPL, VPLScorer, annealed, guidance
from polypref.worlds import simulate


def parameters(inputs: int, latent: int, hidden: int) -> dict[str, torch.Tensor]:
    return vpl_network.start(inputs, latent, hidden, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("inputs", "latent", "golden"), [(768, 512, 3_544_577), (4096, 512, 8_656_385), (4096, 1024, 22_031_361)]
)
def test_published_numbers_of_parameters(inputs, latent, golden):
    now = parameters(inputs, latent, latent)
    assert sum(value.numel() for value in now.values()) == golden
    if inputs == 768:
        sizes = dict.fromkeys(("pair", "sequence", "reward"), 0)
        for name, value in now.items():
            part = name.partition(".")[0]
            sizes[part if part in sizes else "sequence"] += value.numel()
        assert sizes == {"pair": 1_312_256, "sequence": 1_313_280, "reward": 919_041}


# --- formulas


def trained() -> dict[str, torch.Tensor]:
    """Parameters none of which is zero, as after training."""
    generator = torch.Generator().manual_seed(2)
    return {k: v + 0.3 * torch.randn(v.shape, generator=generator) for k, v in parameters(5, 4, 6).items()}


def context(weights: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight = torch.tensor(weights)
    generator = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randn(2, *weight.shape, 5, generator=generator)
    return chosen, rejected, weight


def encode(chosen: torch.Tensor, rejected: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    won, _ = vpl_network.both_ways(trained(), chosen.flatten(0, 1)).chunk(2, dim=1)
    _, lost = vpl_network.both_ways(trained(), rejected.flatten(0, 1)).chunk(2, dim=1)
    return vpl_network.encode(trained(), (won + lost).unflatten(0, weight.shape), weight)


def test_the_encoder_is_the_published_one():
    """Against the formula for one context, judgement by judgement, in numpy."""
    now = {name: value.double().numpy() for name, value in trained().items()}
    chosen, rejected, weight = context([[1, 1, 1]])

    def layer(name: str, h: np.ndarray) -> np.ndarray:
        return h @ now[f"{name}.weight"].T + now[f"{name}.bias"]

    def leaky(h: np.ndarray) -> np.ndarray:
        return np.maximum(h, 0.2 * h)

    pairs = np.concatenate([chosen[0], rejected[0]], axis=1).astype(float)
    code = layer("pair.2", leaky(layer("pair.1", leaky(layer("pair.0", pairs)))))
    score = np.exp(layer("query", code) @ layer("key", code).T / 2.0)
    mean = (score / score.sum(axis=1, keepdims=True) @ layer("value", code)).mean(axis=0)
    found = encode(chosen, rejected, weight)
    np.testing.assert_allclose(found[0][0].numpy(), layer("mean", mean), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1][0].numpy(), layer("logvar", mean), rtol=1e-4, atol=1e-5)


def test_places_that_hold_nothing_are_not_there_and_a_weight_is_how_often():
    chosen, rejected, weight = context([[2, 1, 0], [0, 0, 0]])
    found = encode(chosen, rejected, weight)
    assert all(value.isfinite().all() for value in found)
    index = torch.tensor([0, 0, 1])
    again = encode(chosen[:1, index], rejected[:1, index], torch.ones(1, 3))
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one[:1], other, atol=1e-5, rtol=1e-5)


def test_the_weight_of_the_divergence_grows_and_begins_again():
    assert annealed(0, 10_000) == pytest.approx(0.1)
    assert annealed(5_000, 10_000) == pytest.approx(0.55)
    assert annealed(9_999, 10_000) == pytest.approx(1.0, abs=1e-6)
    assert annealed(10_000, 10_000) == pytest.approx(0.1)
    assert annealed(3, 0) == 1.0


def test_guidance_wants_the_mean_turned_and_the_variance_kept():
    mean, logvar, told = torch.randn(3, 4), torch.randn(3, 4), torch.ones(3, 1)
    assert float(guidance((mean, logvar), (-mean, logvar), told)) == pytest.approx(0.0, abs=1e-6)
    assert float(guidance((mean, logvar), (mean, logvar), told)) == pytest.approx(1.0, abs=1e-6)
    assert float(guidance((mean, logvar), (-mean, -logvar), told)) == pytest.approx(0.1, abs=1e-6)
    assert float(guidance((mean, logvar), (mean, logvar), 0 * told)) == 0.0


# --- recovery


@cache
def opposed(name: str) -> tuple[Comparisons, Comparisons, VPLScorer]:
    """Two groups of equal size with opposed tastes: training and test judgements, and what was learned."""
    world = simulate("two-tastes", users=32, judgements=60, judges=4)
    c = world.comparisons
    minority_U = np.array([group == "minority" for group in world.people.group_U])
    kept_U = minority_U | (np.cumsum(~minority_U) <= minority_U.sum())
    c = c.take(kept_U[c.user_N])
    test_N = c.pair_key_N % np.uint64(5) == 0
    how: VPL = replace(LEARNERS[name], most_steps=300)  # type: ignore[assignment]
    return c.take(~test_N), c.take(test_N), how.fit(c.take(~test_N), encoder=Words(), seed=0)


def group_U(scorer: VPLScorer, c: Comparisons) -> np.ndarray:
    return (c.users.attributes["group"] == "minority").to_numpy()[c.users.index(scorer.users.ids)]  # type: ignore[index]


@pytest.mark.parametrize("name", ["vpl", "vpl-swap"])
def test_the_latent_separates_two_opposed_groups(name):
    train, test, scorer = opposed(name)
    one_U = group_U(scorer, train)
    assert 4 <= one_U.sum() <= len(one_U) - 4
    z_UZ = scorer.z_UZ
    direction_Z = z_UZ[one_U].mean(axis=0) - z_UZ[~one_U].mean(axis=0)
    place_U = z_UZ @ direction_Z
    assert place_U[one_U].min() > place_U[~one_U].max()
    assert (answers(scorer, test) > 0).mean() > 0.75
    assert float(scorer.selection["active_units"]) >= 1
    assert float(scorer.selection["valid_accuracy"]) > 0.75
    assert 0.35 < float(scorer.selection["shuffled_context_accuracy"]) < 0.65


def test_with_shuffled_latents_the_test_rows_are_a_coin():
    _, test, scorer = opposed("vpl")
    shifts = range(1, len(scorer.users))
    right = [(answers(replace(scorer, z_UZ=np.roll(scorer.z_UZ, s, axis=0)), test) > 0).mean() for s in shifts]
    assert 0.4 < np.mean(right) < 0.6


def test_guidance_turns_the_latent():
    """What the repair changes: a turned context gives the opposite latent."""

    def cosine(scorer: VPLScorer) -> float:
        c = opposed("vpl")[0].take(opposed("vpl")[0].user_N == 0)
        z, turned = (scorer.adapt("new", rows).z_UZ[-1] for rows in (c, c.swapped()))
        return float(z @ turned / np.linalg.norm(z) / np.linalg.norm(turned))

    plain, swap = cosine(opposed("vpl")[2]), cosine(opposed("vpl-swap")[2])
    assert swap < -0.5
    assert swap < plain + 0.1


def test_a_heavy_divergence_silences_the_latent():
    """Posterior collapse is seen where it is forced: active units are a count that can be zero."""
    train, _, _ = opposed("vpl")
    scorer = VPL(kl=30.0, anneal=0, most_steps=60).fit(train, encoder=Words(), seed=0)
    assert scorer.selection["active_units"] == 0


@pytest.mark.parametrize("changes", [{"normalise_z_train": True, "normalise_z_eval": True}, {"clamp": 1.0}])
def test_the_papers_variants_learn_too(changes):
    train, test, _ = opposed("vpl")
    scorer = VPL(**changes, most_steps=200).fit(train, encoder=Words(), seed=0)
    assert (answers(scorer, test) > 0).mean() > 0.65
    if "clamp" in changes:
        assert np.abs(scorer.z_UZ).max() <= 1.0
    else:
        np.testing.assert_allclose(
            np.linalg.norm(scorer.adapt("new", test.take(np.arange(5))).z_UZ[-1]), 8**0.5, rtol=1e-4
        )


def test_somebody_without_judgements_is_a_stranger():
    train, _, scorer = opposed("vpl")
    weightless = replace(train, weight_N=np.zeros(len(train))).take(np.arange(3))
    for few in (train.take(np.zeros(0, np.int64)), weightless):
        scores = scorer.adapt("new", few).score(train.responses, ["new"] * len(train.responses))
        assert (scores.source_Q == POPULATION).all()
        assert (scores.value_Q == scorer.score(train.responses, ["x"] * len(train.responses)).value_Q).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered in logaddexp")
def test_a_loss_that_is_no_number_names_step_and_batch(monkeypatch):
    real = vpl_network.reward
    monkeypatch.setattr(vpl_network, "reward", lambda *a: real(*a) * float("nan"))
    with pytest.raises(Diverged, match=r"nan at step 1, in a batch of \d+ contexts and \d+ judgements"):
        VPL(most_steps=20).fit(opposed("vpl")[0], encoder=Words(), seed=0)
