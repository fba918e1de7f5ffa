"""Fits of tuned reward models as runs: interrupted, spread over processes, given what cannot work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from finetune_cases import TINY, Words, fitted, judgements, llama
from polypref import artifact
from polypref.errors import ArtifactError, Diverged, EncoderError, MissingExtra, SettingsError
from polypref.evaluation.comparison import named_learners
from polypref.files import alone
from polypref.finetune import LEARNERS, Recipe, learner, recipe, tuning
from polypref.learners.protocol import margins
from polypref.scorers import load, save


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return llama(tmp_path_factory.mktemp("llama"))


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process loses its life, as far as a fit can tell, at the beginning of a step."""
    whole = tuning.trainer_class()

    class Interrupted(whole):  # type: ignore[valid-type, misc]
        def training_step(self, *args: object, **kwargs: object) -> object:
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return super().training_step(*args, **kwargs)

    monkeypatch.setattr(tuning, "trainer_class", lambda: Interrupted)


@pytest.mark.parametrize("method", ["personalized", "individual"])
def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(backbone, tmp_path, monkeypatch, method):
    rows, how = judgements(users=2), {"steps": 6, "looks": 3}
    straight = fitted(method, backbone, rows, checkpoints=str(tmp_path / "straight"), **how)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_at(5, patch)
        fitted(method, backbone, rows, checkpoints=str(tmp_path / "broken"), **how)
    assert [path.name for path in tmp_path.glob("broken/*/checkpoint-4")] == ["checkpoint-4"]
    with monkeypatch.context() as patch:
        interrupted_at(1, patch)  # going on does not take the first steps again; the other fits are not interrupted
        if method == "individual":
            patch.undo()
        resumed = fitted(method, backbone, rows, checkpoints=str(tmp_path / "broken"), **how)
    for one, other in zip(straight.adapters, resumed.adapters, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert straight.selection == resumed.selection
    assert not list(tmp_path.glob("*/*/checkpoint-*"))


def test_a_finished_fit_is_read_back_and_other_settings_are_another_fit(backbone, tmp_path, monkeypatch):
    first = fitted("pooled", backbone, checkpoints=str(tmp_path))
    interrupted_at(0, monkeypatch)
    again = fitted("pooled", backbone, checkpoints=str(tmp_path), micro_batch=2)
    rows = judgements(seed=1)
    np.testing.assert_array_equal(margins(first, rows).value_Q, margins(again, rows).value_Q)
    with pytest.raises(KeyboardInterrupt):
        fitted("pooled", backbone, checkpoints=str(tmp_path), rate=2e-2)
    with pytest.raises(KeyboardInterrupt):
        fitted("pooled", backbone, judgements(seed=3), checkpoints=str(tmp_path))


def test_the_same_fit_in_another_run_is_waited_for(backbone, tmp_path):
    """Here another thread is the other run: it has no part in this one's lock."""
    how = {"steps": 1, "looks": 1, "checkpoints": str(tmp_path)}
    fitted("pooled", backbone, **how)
    (note,) = tmp_path.glob("*/fit.json")
    waiting = Thread(target=fitted, args=("pooled", backbone), kwargs=how, daemon=True)
    with alone(note.parent):
        waiting.start()
        waiting.join(3)
        assert waiting.is_alive()
    waiting.join(120)
    assert not waiting.is_alive()


def test_a_checkpoint_of_another_version_is_one_clear_line(backbone, tmp_path):
    fitted("pooled", backbone, steps=1, looks=1, checkpoints=str(tmp_path))
    (note,) = tmp_path.glob("*/fit.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "version": 0}))
    with pytest.raises(ArtifactError, match=r"checkpoints of version 0; this polypref writes 1\. Finish .* or remove"):
        fitted("pooled", backbone, steps=1, looks=1, checkpoints=str(tmp_path))


def test_two_processes_give_what_one_gives(backbone, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import os, numpy\n"
        "from finetune_cases import fitted, judgements\n"
        "from polypref.learners.protocol import margins\n"
        "scorer = fitted('personalized', sys.argv[2], micro_batch=2)\n"
        "numpy.save(sys.argv[3] + os.environ['RANK'] + '.npy', margins(scorer, judgements(seed=1)).value_Q)\n"
        "import torch; torch.distributed.destroy_process_group()\n"
    )
    script = tmp_path / "fit.py"
    script.write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    subprocess.run(
        [*launch, str(Path(__file__).parent), backbone, str(tmp_path / "of")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    expected = margins(fitted("personalized", backbone, micro_batch=4), judgements(seed=1)).value_Q
    assert np.abs(expected).max() > 0.01
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"of{rank}.npy"), expected, atol=1e-5)


def test_checkpointed_activations_change_nothing_and_bf16_little(backbone):
    rows = judgements(seed=1)
    expected = margins(fitted("personalized", backbone), rows).value_Q
    saving = fitted("personalized", backbone, gradient_checkpointing=True)
    np.testing.assert_allclose(margins(saving, rows).value_Q, expected, atol=1e-6)
    half = fitted("personalized", backbone, bf16=True)
    assert all(array.dtype == np.float32 for array in half.adapters[0].values())
    assert 0 < np.abs(margins(half, rows).value_Q - expected).mean() < 0.3 * np.abs(expected).mean()


# --- what a user can cause


def test_a_backbone_that_is_not_there(tmp_path):
    with pytest.raises(EncoderError, match="there is no such folder"):
        fitted("pooled", str(tmp_path / "nowhere"))


def test_a_loss_that_is_no_number_stops_with_step_and_batch(tmp_path):
    import torch
    from transformers import LlamaModel

    backbone = llama(tmp_path)
    broken = LlamaModel.from_pretrained(backbone)
    with torch.no_grad():
        broken.get_input_embeddings().weight[-1] = torch.nan  # the last word's
    broken.save_pretrained(backbone)
    with pytest.raises(Diverged, match=r"loss is nan at step \d+ of 6, in the batch with the comparisons \d+, \d+"):
        fitted("pooled", backbone)


def _saved(state):
    return {"scorer": "finetune", "state": state, "encoder": None, "fitted": None}


def test_a_scorer_of_another_version_or_on_other_weights(backbone, tmp_path):
    scorer = fitted("pooled", backbone, steps=1, looks=1)
    config, arrays = scorer.state()
    for change, message in (
        ({"version": 0}, "of version 0; this polypref reads 1"),
        ({"weights": "other"}, "tuned on the backbone with weights other"),
    ):
        artifact.save(tmp_path / "scorer", "scorer", _saved({**config, **change}), arrays)
        with pytest.raises(ArtifactError, match=message):
            load(tmp_path / "scorer", None)  # type: ignore[arg-type]
    for part, message in (
        ("reward_head", "no array .reward_head.weight"),
        ("q_proj", r"another network: .*q_proj.* differs"),
    ):
        fewer = {name: array for name, array in arrays.items() if part not in name}
        artifact.save(tmp_path / "scorer", "scorer", _saved(config), fewer)
        with pytest.raises(ArtifactError, match=message):
            margins(load(tmp_path / "scorer", None), judgements())  # type: ignore[arg-type]
    save(scorer, tmp_path / "scorer")
    assert len(margins(load(tmp_path / "scorer", None), judgements()).value_Q)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "recipe.rank = 0; expected a number above 0"),
        ({"targets": ("nothing",)}, "match no linear layer; there are: .*q_proj"),
        ({"batch": 9, "micro_batch": 4}, "batch = 9 cannot be divided among 1 processes"),
        ({"max_length": 1}, "max_length = 1 leaves no space"),
        ({"max_length": 4096}, "reads at most 128 tokens"),
    ],
)
def test_settings_that_cannot_work(backbone, settings, message):
    with pytest.raises((SettingsError, EncoderError), match=message):
        fitted("pooled", backbone, **settings)


def test_alpha_is_a_share(backbone):
    how = replace(LEARNERS["finetune:personalized"], alpha=1.5, recipe=replace(TINY, backbone=backbone))
    with pytest.raises(SettingsError, match=r"alpha = 1.5; expected a share"):
        how.fit(judgements(), encoder=Words(), seed=0)


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(recipe, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"polypref\[finetune\]"):
        recipe.locate(Recipe())


def test_an_unknown_method():
    with pytest.raises(SettingsError, match="Did you mean 'finetune:personalized'"):
        learner("finetune:personalised")
    assert list(named_learners(["finetune:pooled"]))[-1] == "finetune:pooled"


def test_the_command_line_fits_and_scores_by_name(backbone, tmp_path, monkeypatch, capsys):
    from polypref.cli import main

    monkeypatch.setitem(LEARNERS, "finetune:pooled", replace(LEARNERS["finetune:pooled"], recipe=TINY))
    rows = judgements()
    r = rows.responses
    prompts = [r.prompts[int(p)] for p in r.prompt_R]
    users = rows.users.ids
    lines = [
        {"user_id": users[int(u)], "prompt": prompts[c], "chosen": r.texts_R[int(c)], "rejected": r.texts_R[int(d)]}
        for u, c, d in zip(rows.user_N, rows.chosen_N.tolist(), rows.rejected_N.tolist(), strict=True)
    ]
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "scorer"
    name = f"finetune:pooled:{backbone}"
    assert main(["fit", str(tmp_path / "prefs.jsonl"), "--learner", name, "--out", str(out)]) == 0
    asked = {"user_id": "x", "prompt": prompts[0], "response": r.texts_R[0]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    capsys.readouterr()
    assert main(["score", str(out), str(tmp_path / "asked.jsonl")]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = load(out).score(r, ["x"] * len(r)).value_Q[0]
    assert answer["source"] == "population" and abs(answer["score"] - expected) < 1e-4
