"""Group preference optimization: the published sizes, an independent transformer, contexts, recovery."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from contract_cases import Words, answers
from polypref.comparisons import Comparisons
from polypref.errors import Diverged
from polypref.learners import LEARNERS, margins
from polypref.learners.gpo import GPO, SHOWN, GPOScorer, _density_loss
from polypref.learners.protocol import PERSONAL, POPULATION
from polypref.learners.training.episodes import Pairs
from polypref.learners.training.gpo_network import NOTHING, Shape, Tokens, predict, start
from polypref.worlds import simulate


def parameters(inputs: int, shape: Shape) -> dict[str, torch.Tensor]:
    return start(inputs, shape, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("inputs", "golden"), [(384, 713_218), (768, 762_370), (4096, 1_188_354), (5120, 1_319_426)])
def test_published_numbers_of_parameters(inputs, golden):
    assert sum(value.numel() for value in parameters(inputs, Shape()).values()) == golden


# --- the transformer, against torch's own layers


class Published(nn.Module):
    """The same transformer from torch's layers, with a mask of all tokens by all tokens."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        super().__init__()
        w = shape.width
        self.embed = nn.ModuleList([nn.Linear(inputs + 1, w), *(nn.Linear(w, w) for _ in range(3))])
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(w, shape.heads, shape.feed, 0.0, batch_first=True) for _ in range(shape.layers)
        )
        self.predict = nn.ModuleList([nn.Linear(w, w), nn.Linear(w, 2)])

    def copy(self, now: dict[str, torch.Tensor]) -> None:
        names = {"attend": "self_attn.in_proj", "out": "self_attn.out_proj", "feed.0": "linear1", "feed.1": "linear2"}
        names |= {"norm.0": "norm1", "norm.1": "norm2"}
        state = {}
        for name, value in now.items():
            if not name[0].isdigit():
                state[name] = value
                continue
            at, _, rest = name.partition(".")
            inner, _, kind = rest.rpartition(".")
            joint = "_" if inner == "attend" else "."
            state[f"layers.{at}.{names[inner]}{joint}{kind}"] = value
        self.load_state_dict(state)

    def forward(self, context: Tokens, target: torch.Tensor, self_edge: bool) -> torch.Tensor:
        c, t = context.x_ECK.shape[1], target.shape[1]
        known = torch.cat([context.x_ECK, context.label_EC[..., None]], dim=2)
        h = torch.cat([known, torch.cat([target, torch.zeros_like(target[..., :1])], dim=2)], dim=1)
        for at, layer in enumerate(self.embed):
            h = layer(h.relu() if at else h)
        forbidden = torch.ones(c + t, c + t, dtype=torch.bool)
        forbidden[:, :c] = False
        if self_edge:
            forbidden.fill_diagonal_(False)
        padding = torch.cat([context.weight_EC == 0, torch.zeros(len(h), t, dtype=torch.bool)], dim=1)
        for layer in self.layers:
            h = layer(h, src_mask=forbidden, src_key_padding_mask=padding)
        return self.predict[1](self.predict[0](h[:, c:]).relu())


def example(weights: list[list[float]], targets: int = 3) -> tuple[Tokens, torch.Tensor]:
    weight = torch.tensor(weights)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*weight.shape, 5, generator=generator)
    label = torch.sign(torch.randn(weight.shape, generator=generator))
    return Tokens(x, label, weight), torch.randn(len(weight), targets, 5, generator=generator)


def trained(shape: Shape) -> dict[str, torch.Tensor]:
    """Parameters none of which is zero, as after training."""
    generator = torch.Generator().manual_seed(2)
    return {k: v + 0.3 * torch.randn(v.shape, generator=generator) for k, v in parameters(5, shape).items()}


@pytest.mark.parametrize("self_edge", [False, True])
def test_the_transformer_is_the_published_one(self_edge):
    shape = Shape(16, 3, 4, 24, self_edge)
    context, target = example([[1, 1, 1, 1], [1, 1, 0, 0]])
    published = Published(5, shape)
    published.copy(trained(shape))
    expected = published.train()(context, target, self_edge).detach()  # train: without torch's fast path
    torch.testing.assert_close(predict(trained(shape), shape, context, target), expected, atol=1e-5, rtol=1e-4)


def test_targets_see_the_context_only_and_places_that_hold_nothing_are_not_there():
    shape = Shape(16, 3, 4, 24)
    now = trained(shape)
    context, target = example([[1, 1, 1, 0]])
    found = predict(now, shape, context, target)
    alone = torch.cat([predict(now, shape, context, target[:, t : t + 1]) for t in range(3)], dim=1)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    other = replace(context, x_ECK=context.x_ECK + 9.0 * (context.weight_EC == 0)[..., None])
    torch.testing.assert_close(found, predict(now, shape, other, target))
    order = torch.tensor([2, 0, 1, 3])  # no positions
    turned = Tokens(context.x_ECK[:, order], context.label_EC[:, order], context.weight_EC[:, order])
    torch.testing.assert_close(found, predict(now, shape, turned, target), atol=1e-5, rtol=1e-5)
    moved = replace(context, label_EC=-context.label_EC)
    assert (found - predict(now, shape, moved, target)).abs().max() > 1e-3


def test_a_weight_is_how_often():
    shape = Shape(16, 3, 4, 24)
    context, target = example([[2, 1, 1]])
    index = torch.tensor([0, 0, 1, 2])
    twice = Tokens(context.x_ECK[:, index], context.label_EC[:, index], torch.ones(1, 4))
    one, other = (predict(trained(shape), shape, c, target) for c in (context, twice))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("self_edge", [False, True])
def test_an_empty_context_gives_an_answer_and_a_gradient(self_edge):
    shape = Shape(16, 3, 4, 24, self_edge)
    context, target = example([[0, 0], [1, 1]])
    now = {name: value.requires_grad_() for name, value in trained(shape).items()}
    found = predict(now, shape, context, target)
    assert found.isfinite().all()
    found.square().sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in now.values())
    bigger = Tokens(torch.ones(1, 4, 5), torch.ones(1, 4), torch.zeros(1, 4))
    torch.testing.assert_close(predict(now, shape, bigger, target[:1]), found[:1])
    assert NOTHING < -1e6


def test_the_papers_loss_is_the_density_of_both_labels():
    margin, s = torch.tensor([[0.4, -1.0]]), torch.tensor([[0.1, -0.3]])
    target = Pairs(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    p, sd = 1 / (1 + np.exp(-0.4)), np.exp(0.1)
    each = [0.5 * ((y - q) / sd) ** 2 + 0.1 + 0.5 * np.log(2 * np.pi) for y, q in ((1, p), (0, 1 - p))]
    assert float(_density_loss(margin, s, s, target)) == pytest.approx(sum(each), rel=1e-5)


# --- recovery


@cache
def opposed() -> tuple[Comparisons, Comparisons, GPOScorer]:
    """People of two opposed tastes: training and test judgements, and what was learned."""
    world = simulate("two-tastes", users=24, judgements=60, judges=4)
    c = world.comparisons
    test_N = c.pair_key_N % np.uint64(5) == 0
    train, test = c.take(~test_N), c.take(test_N)
    how: GPO = replace(LEARNERS["gpo"], most_steps=300)  # type: ignore[assignment]
    return train, test, how.fit(train, encoder=Words(), seed=0)


def test_accuracy_grows_with_the_context():
    found = opposed()[2].selection
    by_size = [float(found[f"accuracy_with_context_{size}"]) for size in SHOWN]
    assert by_size[-1] > by_size[0] + 0.1
    assert by_size[2] > by_size[0] + 0.05


def test_more_context_than_trained_on_is_cut_by_content():
    train, test, scorer = opposed()
    few = train.take(np.flatnonzero(train.user_N <= 3))
    assert len(few) > scorer.how.context
    order = np.random.default_rng(0).permutation(len(few))
    one, other = (scorer.adapt("new", rows) for rows in (few, few.take(order)))
    assert one.known.count_U[-1] == scorer.how.context
    ids = ["new"] * len(test.responses)
    assert (one.score(test.responses, ids).value_Q == other.score(test.responses, ids).value_Q).all()


def test_somebody_without_judgements_is_a_stranger():
    train, _, scorer = opposed()
    nobody = train.take(np.zeros(0, np.int64))
    weightless = replace(train, weight_N=np.zeros(len(train))).take(np.arange(3))
    for few in (nobody, weightless):
        scores = scorer.adapt("new", few).score(train.responses, ["new"] * len(train.responses))
        stranger = scorer.score(train.responses, ["nobody"] * len(train.responses))
        assert (scores.source_Q == POPULATION).all()
        assert (scores.value_Q == stranger.value_Q).all()
    assert (margins(scorer.adapt(train.users.ids[0], nobody), train).source_Q == PERSONAL).any()


@pytest.mark.parametrize("changes", [{"loss": "normal", "loss_reduction": "sum"}, {"self_edge": True}])
def test_the_papers_variants_learn_too(changes):
    train, test, _ = opposed()
    learner = replace(GPO(**changes), layers=2, most_steps=100)
    assert (answers(learner.fit(train, encoder=Words(), seed=0), test) > 0).mean() > 0.6


@pytest.mark.filterwarnings("ignore:invalid value encountered in logaddexp")
def test_a_loss_that_is_no_number_names_step_and_batch(monkeypatch):
    from polypref.learners.training import gpo_network

    monkeypatch.setattr(gpo_network, "predict", lambda *a: predict(*a) * float("nan"))
    with pytest.raises(Diverged, match=r"nan at step 1, in a batch of \d+ contexts and \d+ judgements"):
        GPO(most_steps=20).fit(opposed()[0], encoder=Words(), seed=0)
