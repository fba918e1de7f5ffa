"""`polypref align` with LoRA and instructed models: adapters, chat templates, contexts, memory, collapse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

import align_cases as cases
from align_cases import RUN
from judge_cases import TEMPLATE
from polypref.align import Lora, Task, align, language_model, lora, trainer
from polypref.align.trainer import smaller
from polypref.align.watch import collapsed_at
from polypref.cli import main
from polypref.errors import ArtifactError, EncoderError, InputError, SettingsError
from polypref.policy.distinct import COMPLETIONS, WORDS, seen, shares
from polypref.report.alignment import over_optimised, page, summary
from polypref.worlds import simulate

UPPER = Lora(rank=4, alpha=8, upper=1)


@pytest.fixture(scope="module")
def world() -> tuple[Any, dict[str, str], dict[str, Any]]:
    comparisons = cases.people()
    return comparisons, cases.groups(comparisons), cases.fitted(comparisons)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return cases.tiny(tmp_path_factory.mktemp("model") / "chat", template=TEMPLATE, pad=None)


def ran(world: Any, task: Task, out: Path, tell: Any = lambda *_: None) -> dict[str, Any]:
    comparisons, group_of, scorers = world
    return align(comparisons, group_of, task, scorers, out, tell)


@pytest.fixture(scope="module")
def adapted(world: Any, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "out"
    ran(world, Task(model, samples=4, lora=UPPER, dtype="bfloat16", trainer=RUN | {"beta": 0.04}), out)
    return out


def test_only_the_layers_that_were_named_are_adapted(model: str) -> None:
    loaded = language_model.load(Task(model)).model
    assert len(lora.layers(loaded, Lora())) == 14, "seven layers in each of two blocks"
    assert lora.layers(loaded, UPPER) == [name for name in lora.layers(loaded, Lora()) if ".1." in name]
    assert lora.layers(loaded, Lora(targets=("q_proj", "v_proj"), upper=1)) == [
        f"model.layers.1.self_attn.{name}_proj" for name in "qv"
    ]
    with pytest.raises(SettingsError, match="upper is 3; the model has 2 blocks"):
        lora.layers(loaded, Lora(upper=3))
    with pytest.raises(SettingsError, match=r"targets lm_head match no layer; there are: down_proj, .*v_proj"):
        lora.layers(loaded, Lora(targets=("lm_head",)))


def test_the_adapter_and_the_merged_model_give_the_same_answers(adapted: Path, model: str) -> None:
    import torch

    trained = language_model.saved(Task(model, lora=UPPER, dtype="float32"), adapted)
    start = language_model.load(Task(model, dtype="float32"))
    ids = torch.tensor(start.tokens(["why cats like dogs"]))
    changed = trained(ids).logits - start.model(ids).logits
    whole = lora.merged(language_model.load(Task(model, dtype="float32")).model, adapted / "adapter")
    assert changed.abs().max() > 1e-4, "something was learned"
    torch.testing.assert_close(whole(ids).logits, trained(ids).logits, rtol=1e-4, atol=1e-4)
    stored = language_model.load(Task(str(adapted / "model")))
    assert stored.model.dtype == torch.bfloat16 and stored.chat, "any program can load it as a model of its own"
    torch.testing.assert_close(stored.model(ids).logits.float(), whole(ids).logits, rtol=0.1, atol=0.1)


def forged(adapter: Path, to: Path, change: dict[str, Any]) -> Path:
    """A copy of an adapter whose settings were changed."""
    import json
    import shutil

    shutil.copytree(adapter, to)
    settings = json.loads((to / lora.CONFIG).read_text())
    (to / lora.CONFIG).write_text(json.dumps(settings | change))
    return to


def shape(adapted: Path) -> dict[str, Any]:
    from peft import LoraConfig

    return LoraConfig.from_pretrained(str(adapted / "adapter")).to_dict()


def test_an_adapter_is_refused_on_other_weights(adapted: Path, world: Any, model: str, tmp_path: Path) -> None:
    from dataclasses import replace

    started = replace(UPPER, start=str(adapted / "adapter"))
    found = ran(world, Task(model, samples=4, lora=started, trainer=RUN | {"max_steps": 2}), tmp_path / "on")
    assert len(found["settings"]["lora"]["start"]) == 64, "the adapter is named by its content"
    other = cases.tiny(tmp_path / "other", context=300)
    with pytest.raises(ArtifactError, match=r"was trained on other weights \(\w{12}\) than this model's \(\w{12}\)"):
        ran(world, Task(other, samples=4, lora=started, trainer=RUN), tmp_path / "out")
    with pytest.raises(SettingsError, match="has another shape: rank differ"):
        ran(world, Task(model, samples=4, lora=replace(started, rank=2), trainer=RUN), tmp_path / "out2")
    for harm in ({"peft_type": "PROMPT_TUNING"}, {"use_dora": True}, {"megatron_core": "os"}, {"new": 1}):
        with pytest.raises(SettingsError, match=f"has another shape: {next(iter(harm))} differ"):
            lora.ensure_shape(forged(adapted / "adapter", tmp_path / next(iter(harm)), harm), shape(adapted))
    away = forged(adapted / "adapter", tmp_path / "away", {})
    (away / lora.WEIGHTS).unlink()
    (away / lora.WEIGHTS).symlink_to(adapted / "adapter" / lora.WEIGHTS)
    with pytest.raises(ArtifactError, match="link out of"):
        lora.ensure_shape(away, shape(adapted))
    with pytest.raises(ArtifactError, match="cannot be read"):
        ran(world, Task(model, samples=4, lora=Lora(start=str(tmp_path)), trainer=RUN), tmp_path / "out3")


def test_an_instructed_model_reads_a_message(world: Any, model: str, tmp_path: Path) -> None:
    instructed = language_model.load(Task(model))
    assert instructed.chat and instructed.prompts(["a b"]) == [[{"role": "user", "content": "a b"}]]
    words = instructed.tokenizer.convert_ids_to_tokens(instructed.tokens(["why cats"])[0])
    assert words == ["<s>", "why", "cats", "</s>"], "as the template says, and no second <s>"
    plain = language_model.load(Task(model, chat=False))
    assert plain.prompts(["a b"]) == ["a b"]
    assert plain.tokenizer.convert_ids_to_tokens(plain.tokens(["why cats"])[0]) == ["<s>", "why", "cats"]
    assert not language_model.load(Task(cases.tiny(tmp_path / "plain"))).chat
    broken = language_model.load(Task(cases.tiny(tmp_path / "broken", template="{{ raise_exception('no users') }}")))
    with pytest.raises(EncoderError, match="chat template fails: no users; give --no-chat"):
        broken.tokens(["why"])


def test_padding_by_the_end_of_text_changes_no_answer(model: str) -> None:
    import polars as pl
    from transformers import GenerationConfig

    from polypref.align.measures import answers

    asked = language_model.load(Task(model, dtype="float32"))
    assert asked.tokenizer.pad_token == asked.tokenizer.eos_token
    how = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=3, eos_token_id=3)
    texts = ["why", "why cats like dogs long short good bad one", "cats dogs"]
    together = answers(asked.model, asked, pl.DataFrame({"prompt": texts}), how, 0)
    alone = [answers(asked.model, asked, pl.DataFrame({"prompt": [text]}), how, 0)[0] for text in texts]
    assert together == alone


def test_a_question_longer_than_the_context(world: Any, tmp_path: Path) -> None:
    short = cases.tiny(tmp_path / "short", context=8)
    with pytest.raises(InputError) as caught:
        ran(world, Task(short, samples=4, trainer=RUN), tmp_path / "out")
    assert "tokens and an answer may have 6; the model's context is 8. Leave the question out" in str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_batch_too_large_for_memory_is_halved_and_the_update_is_the_same(
    world: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file

    from polypref.policy.trl import PGRPOTrainer

    task = Task(model, samples=4, lora=UPPER, trainer=RUN | {"optim": "sgd", "learning_rate": 1.0})
    ran(world, task, tmp_path / "whole")
    own = PGRPOTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["prompt_ids"]) > 4 and self.state.global_step >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PGRPOTrainer, "compute_loss", compute_loss)
    found = ran(world, task, tmp_path / "halved")
    assert found["halvings"] == 1
    assert "memory does not suffice: 4 completions at a time instead of 8; the update is the same" in (
        capsys.readouterr().err
    )
    whole, halved = (load_file(tmp_path / one / "adapter/adapter_model.safetensors") for one in ("whole", "halved"))
    for name, value in whole.items():
        torch.testing.assert_close(halved[name], value, rtol=1e-3, atol=1e-5)
    with pytest.raises(SettingsError, match=r"memory does not suffice for a batch of 1 completions; lower"):
        smaller(task, tmp_path / "none", 4)


def test_vllm_is_refused_in_one_line_where_it_is_not_installed(
    world: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught:
        ran(world, Task(model, samples=4, trainer=RUN | {"use_vllm": True}), tmp_path / "out")
    assert str(caught.value).startswith(
        "the trainer's use_vllm needs vLLM, not installed here: pip install 'trl[vllm]'"
    )
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_file_of_the_trainer_that_is_not_there_is_one_line(world: Any, model: str, tmp_path: Path) -> None:
    lost = RUN | {"fsdp": "full_shard", "fsdp_config": "lost.json"}
    with pytest.raises(SettingsError, match=r"the trainer's settings cannot work: .*lost\.json"):
        ran(world, Task(model, samples=4, trainer=lost), tmp_path / "out")


def test_the_example_for_smollm2_runs_on_a_tiny_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parents[1] / "examples/align-smollm2.toml", "align.toml")
    simulate("two-tastes", users=8, judgements=20).table().write_ndjson("people.jsonl")
    for out, learner in (("scorer", "individual"), ("judge", "pooled")):
        assert main(["fit", "people.jsonl", "--encoder", "static", "--learner", learner, "--out", out]) == 0
    small = ["--lora", "rank=4", "upper=1", "--samples", "4"]
    small += ["--trainer", "per_device_train_batch_size=8", "max_completion_length=6", "max_steps=2", "beta=0.05"]
    assert main(["align", "--config", "align.toml", "--model", model, *small]) == 0
    found = json.loads(Path("aligned/align.json").read_text())
    assert found["chat"] and [one["step"] for one in found["curve"]] == [1, 2]
    assert found["settings"]["template"].startswith("{prompt} Answer the {group}")


# --- collapse


def test_shares_of_distinct_words_and_completions() -> None:
    assert shares(seen(["a b c d", "A a a a"])) == {WORDS: (1 + 0.25) / 2, COMPLETIONS: 1.0}
    assert shares(seen([[{"role": "assistant", "content": "a b"}], "a b", "c"]))[COMPLETIONS] == 0.5
    assert shares(seen(["a b", "a b"]))[COMPLETIONS] == 0.0
    empty = shares(seen(["", " "]))
    assert empty[WORDS] != empty[WORDS] and empty[COMPLETIONS] == 1.0


def test_a_collapse_is_so_many_bad_steps_in_a_row() -> None:
    log = [{"step": at + 1, WORDS: share, COMPLETIONS: 1.0} for at, share in enumerate([0.9, 0.1, 0.1, 0.9, 0.1, 0.1])]
    assert collapsed_at(log, 0.2, 3) is None and collapsed_at(log, 0.2, 2) == 3
    assert collapsed_at([*log, {"step": 6, "train_loss": 1.0}, {"step": 7, WORDS: 0.1, COMPLETIONS: 1.0}], 0.2, 3) == 7
    assert collapsed_at(log, 0.2, 0) is None and collapsed_at(log, 0.05, 2) is None
    same = [{"step": at, WORDS: 1.0, COMPLETIONS: 0.0} for at in (1, 2)]
    assert collapsed_at(same, 0.2, 2) == 2, "one answer to everything"


def test_a_policy_that_collapses_is_stopped_and_the_result_says_so(
    world: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polypref.align.rewards import ScorerReward

    def repeats(self: Any, *, prompts: Any, completions: Any, **_: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        return [float(text.split().count("cats")) for text in texts]

    monkeypatch.setattr(ScorerReward, "__call__", repeats)
    pushed = RUN | {"max_steps": 60, "learning_rate": 0.05, "per_device_train_batch_size": 16, "beta": 0.001}
    task = Task(model, samples=4, collapse_floor=0.5, collapse_steps=2, trainer=pushed)
    found = ran(world, task, tmp_path / "out")
    steps = [one["step"] for one in found["curve"]]
    assert 2 <= found["collapsed"] < 60 and steps[-1] == found["collapsed"]
    assert found["curve"][-1]["distinct_words"] < 0.5 < found["curve"][0]["distinct_words"]
    assert found["curve"][-1]["kl"] > found["curve"][0]["kl"]
    assert json.loads((tmp_path / "out/align.json").read_text())["collapsed"] == found["collapsed"]
    told = f"collapsed at step {found['collapsed']}"
    assert told in summary(found) and told in page(found)
    (tmp_path / "out/align.json").unlink()
    again: list[int] = []
    assert ran(world, task, tmp_path / "out", lambda step, *_: again.append(step))["collapsed"] == found["collapsed"]
    assert again == [], "the step of the collapse was saved, and is not taken again"


def test_every_question_that_is_shown_is_asked_for_every_group(adapted: Path) -> None:
    found = json.loads((adapted / "align.json").read_text())
    asked = {one["asked"] for one in found["examples"]}
    pairs = [(one["asked"], one["group"]) for one in found["examples"]]
    assert sorted(pairs) == sorted((question, group) for question in asked for group in ("even", "odd"))
    assert len(asked) == 4 and asked <= set(found["held_out"]), "and none of them is trained on"


@pytest.mark.parametrize(
    ("climbed", "judge", "said"),
    [
        ((-0.1, 1.0), (2.0, 3.0), "no sure gain, so nothing can be said"),
        ((1.0, 2.0), (0.1, 0.9), "over-optimised: the judge saw +0.50 of +1.50 spreads; the rest is"),
        ((1.0, 2.0), (-3.0, -2.0), "over-optimised: the judge saw −2.50 of +1.50 spreads"),
        ((0.1, 0.5), (-0.1, 0.9), "the judge saw +0.40 of +0.30 spreads, a gain that is not sure"),
        ((0.1, 0.5), (0.2, 0.9), "the judge's gain is sure, and not surely less"),
    ],
)
def test_over_optimised_is_a_gain_that_the_judge_surely_did_not_see(
    climbed: tuple[float, float], judge: tuple[float, float], said: str
) -> None:
    about = {
        name: {"gain": (lo + hi) / 2, "lo": lo, "hi": hi} for name, (lo, hi) in (("reward", climbed), ("judge", judge))
    }
    [line] = over_optimised({"groups": {"a": about}})
    assert line.startswith("a: ") and said in line
    assert ("over-optimised" in line) == ("or the judge's own" in line), "a judge with errors sees less, too"
    assert over_optimised({"groups": {"a": {"reward": about["reward"]}}}) == []
