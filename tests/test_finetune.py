"""Tuned reward models: scores that no batch, padding or process changes, fits that resume, people who differ."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_cases import TINY, Words, asked, fitted, judgements, llama
from polypref.features import encoder
from polypref.finetune import LEARNERS
from polypref.finetune.network import Asking
from polypref.finetune.scorer import TunedScorer
from polypref.finetune.vpl_network import Contexts, Sizes, context_encoder, latent_decoder
from polypref.learners.protocol import PERSONAL, POPULATION, Adapts, margins
from polypref.scorers import learner, load, save


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def scorers(backbone: str) -> dict[str, TunedScorer]:
    return {method: fitted(method, backbone) for method in METHODS}


METHODS = [name.removeprefix("finetune:") for name in LEARNERS]

each = pytest.mark.parametrize("method", sorted(METHODS))


# --- the contract


@each
def test_scores_are_finite_tell_texts_apart_and_say_who_answered(scorers, method):
    responses, ids = asked(judgements(seed=1))
    scores = scorers[method].score(responses, ids)
    assert np.isfinite(scores.value_Q).all() and np.ptp(scores.value_Q) > 1e-3
    known = np.array([name != "a stranger" for name in ids]) & (method != "pooled")
    assert (scores.source_Q == np.where(known, PERSONAL, POPULATION)).all()


@each
def test_it_says_whom_it_answers_personally_also_when_loaded(scorers, method, tmp_path):
    save(scorers[method], tmp_path / method)
    loaded = load(tmp_path / method, Words())
    assert type(loaded) is type(scorers[method])
    expected = {"pooled": "population", "vpl": "any_user"}.get(method, "seen_users")
    assert scorers[method].serves == loaded.serves == expected


def test_the_same_after_save_and_load_in_a_new_process(scorers, tmp_path):
    rows = judgements(seed=1)
    for method, scorer in scorers.items():
        save(scorer, tmp_path / method)
    code = (
        "import sys, numpy; sys.path.insert(0, sys.argv[1])\n"
        "from finetune_cases import Words, asked, judgements\n"
        "from polypref.scorers import load\n"
        "for folder in sys.argv[2:]:\n"
        "    numpy.save(folder + '.npy', load(folder, Words()).score(*asked(judgements(seed=1))).value_Q)"
    )
    folders = [str(tmp_path / method) for method in scorers]
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), *folders], check=True)
    for method, scorer in scorers.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{method}.npy"), scorer.score(*asked(rows)).value_Q)


@each
def test_the_head_and_the_users_are_saved_with_the_adapter(scorers, method):
    _, arrays = scorers[method].state()
    assert any(np.abs(a).max() > 0 for name, a in arrays.items() if "reward_head" in name)
    if scorers[method].asking.soft:
        assert any("user_tokens" in name and np.abs(a).max() > 0 for name, a in arrays.items())
    lost = {name: np.zeros_like(a) if "reward_head" in name else a for name, a in arrays.items()}
    config, _ = scorers[method].state()
    without = type(scorers[method]).from_state(config, lost, Words())  # a lost head would be seen
    assert not without.score(*asked(judgements(seed=1))).value_Q.any()


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(backbone, scorers):
    rows = judgements(seed=1)
    expected = margins(scorers["personalized"], rows).value_Q
    np.testing.assert_array_equal(margins(fitted("personalized", backbone), rows).value_Q, expected)
    assert np.abs(margins(fitted("personalized", backbone, seed=1), rows).value_Q - expected).max() > 1e-3


@pytest.mark.parametrize("method", ["pooled", "personalized"])
def test_swapped_labels_give_opposite_rewards(backbone, method):
    rows, fresh = judgements(), judgements(seed=1)
    there, back = (fitted(method, backbone, labelled) for labelled in (rows, rows.swapped()))
    ours, theirs = margins(there, fresh).value_Q, margins(back, fresh).value_Q
    assert np.abs(ours).max() > 0.01
    np.testing.assert_allclose(ours, -theirs, atol=1e-4)


def test_the_order_of_the_file_does_not_matter(backbone, scorers):
    rows, fresh = judgements(), judgements(seed=1)
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    other = fitted("personalized", backbone, shuffled)
    expected = margins(scorers["personalized"], fresh).value_Q
    np.testing.assert_allclose(margins(other, fresh).value_Q, expected, atol=1e-6)


# --- what must not change a score


@each
def test_equal_at_any_batch_size(scorers, method):
    responses, ids = asked(judgements(seed=1))
    found = [replace(scorers[method], batch=batch).score(responses, ids).value_Q for batch in (1, 3, 7, 64)]
    for value_Q in found[1:]:
        np.testing.assert_allclose(value_Q, found[0], atol=2e-5)


@each
def test_equal_with_padding_on_either_side(scorers, method):
    import torch

    scorer = scorers[method]
    texts, model = scorer.reader.read(judgements(seed=1).responses)[:9], scorer.model(scorer.adapters[0])
    latent = {"latent_XZ": torch.ones(9, 8)} if method == "vpl" else {}
    users = [0] * 9 if len(scorer.adapters) > 1 else [x % (1 + scorer.asking.users) for x in range(9)]
    assert len({len(text.ids) for text in texts}) > 2
    with torch.inference_mode():
        right, left = (model(scorer.reader.inputs(texts, users, side), **latent)[0] for side in ("right", "left"))
    torch.testing.assert_close(right, left, atol=2e-5, rtol=0)


def test_neither_padding_token_nor_padding_side_of_the_tokenizer_matters(backbone, scorers, tmp_path):
    rows = judgements(seed=1)
    expected = margins(scorers["personalized"], rows).value_Q
    for number, (pad, side) in enumerate((("</s>", "right"), ("</s>", "left"), ("<pad>", "left"))):
        other = fitted("personalized", llama(tmp_path / str(number), pad, side))
        np.testing.assert_allclose(margins(other, rows).value_Q, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["conditional", "personalized", "personalized-cluster"])
def test_the_user_survives_truncation(backbone, method):
    rows = judgements()
    scorer = fitted(method, backbone, rows, max_length=24, steps=12)
    long = replace(rows.responses, prompts=rows.responses.prompts + " tea soup" * 60)
    texts = scorer.reader.read(long)
    inputs = scorer.reader.inputs(texts, [1] * len(texts))
    assert inputs["input_ids"].shape[1] <= 24
    part = scorer.reader.user_tokens_V[1]
    if scorer.asking.soft:
        assert (inputs["slot"].sum(1) == scorer.asking.tokens).all()
    else:
        assert (inputs["input_ids"][:, 1 : 1 + len(part)].numpy() == part).all()
    ids = rows.users.ids
    one, other = (scorer.score(long, [name] * len(long)).value_Q for name in (ids[0], ids[1]))
    assert np.abs(one - other).max() > 1e-4


def test_pieces_do_not_change_a_fit(backbone, scorers):
    rows = judgements(seed=1)
    expected = margins(scorers["personalized"], rows).value_Q
    for micro_batch in (1, 8):
        other = fitted("personalized", backbone, micro_batch=micro_batch)
        np.testing.assert_allclose(margins(other, rows).value_Q, expected, atol=1e-4)


# --- people differ, and each method does what it says


def test_personal_methods_learn_opposed_people_and_pooled_cannot(backbone):
    rows, fresh = judgements(users=4, each=60), judgements(users=4, each=20, seed=9)
    how = {"steps": 60, "looks": 3, "micro_batch": 8}
    right = {
        method: float((margins(fitted(method, backbone, rows, **how), fresh).value_Q > 0).mean())
        for method in ("pooled", "personalized", "conditional")
    }
    assert right["personalized"] > 0.85 and right["conditional"] > 0.75, right
    assert 0.3 < right["pooled"] < 0.7, right


def test_individual_strangers_get_the_pooled_adapter(backbone, scorers):
    rows = judgements(seed=1)
    strangers = ["nobody"] * len(rows.responses)
    one, other = (scorers[m].score(rows.responses, strangers).value_Q for m in ("individual", "pooled"))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_generic_user_has_no_offset(scorers):
    import torch

    tokens = scorers["personalized"].model(scorers["personalized"].adapters[0]).get_base_model().user_tokens
    vectors = tokens(torch.arange(4))
    module = tokens.modules_to_save["default"]
    torch.testing.assert_close(vectors[0].flatten(), module.generic)
    torch.testing.assert_close(vectors[1:].flatten(1), module.generic + module.own)
    assert vectors.shape == (4, 10, 32) and module.own.abs().max() > 0


def test_vpl_tells_a_new_person_from_judgements_alone_and_shuffled_latents_fail(backbone):
    rows, fresh = judgements(users=2, each=120), judgements(users=2, each=20, seed=9)
    scorer = fitted("vpl", backbone, rows, steps=120, micro_batch=8)
    assert scorer.selection["active_units"] > 0
    assert scorer.selection["valid_accuracy_shuffled"] < 0.3 < 0.8 < scorer.selection["valid_accuracy"]
    judged = fresh.take(fresh.user_N == 1)
    ids = ["a new person"] * len(judged)
    adapted = scorer.adapt("a new person", judged.take(np.arange(8)))
    chosen, rejected = (
        adapted.score(judged.responses, ids, side).value_Q for side in (judged.chosen_N, judged.rejected_N)
    )
    assert (chosen > rejected)[8:].mean() > 0.8
    np.testing.assert_allclose(margins(adapted, fresh).value_Q, margins(scorer, fresh).value_Q, atol=1e-6)
    assert isinstance(scorer, Adapts) and not isinstance(fitted("pooled", backbone, steps=1, looks=1), Adapts)


def test_vpl_contexts_never_hold_the_pair_that_is_asked_about():
    key_N = np.array([1, 1, 2, 3], np.uint64)
    contexts = Contexts(np.zeros((4, 2), np.float32), [np.arange(4)], key_N, 3)
    rng = np.random.default_rng(0)
    assert {int(n) for _ in range(20) for n in contexts.draw(0, key_N[0], rng)} == {2, 3}
    assert {int(n) for _ in range(20) for n in contexts.draw(0, np.uint64(9), rng)} == {0, 1, 2, 3}
    pair_BCF, mask_BC = contexts.padded([np.array([2]), np.array([], int)])
    assert pair_BCF.shape == (2, 3, 2) and mask_BC.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_vpl_parameter_counts_of_the_paper():
    encoder_768, decoder_768 = context_encoder()(Sizes(768, 512, 512)), latent_decoder()(768, Sizes(768, 512, 512))
    counts = [sum(p.numel() for p in module.parameters()) for module in (encoder_768, decoder_768)]
    assert counts == [1_312_256 + 1_313_280, 919_041 - 1]  # no bias at the end of ours: it cancels


def test_minilm_from_its_package():
    rows = judgements(users=2, each=10)
    how = LEARNERS["finetune:personalized"]
    recipe = replace(TINY, steps=2, looks=1, batch=4, rate=1e-3, text="response")
    scorer = replace(how, recipe=recipe).fit(rows, encoder=encoder("minilm"), seed=0)
    one, many = (replace(scorer, batch=batch).score(*asked(rows)).value_Q for batch in (1, 7))
    assert np.ptp(one) > 1e-4
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_names():
    assert learner("finetune:personalized") == LEARNERS["finetune:personalized"]
    named = learner("finetune:individual:some/model:tag")
    assert type(named) is type(LEARNERS["finetune:individual"]) and named.recipe.backbone == "some/model:tag"
    assert Asking().user_tokens_V(None) == [[]]
    assert load.__doc__
