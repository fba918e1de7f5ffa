"""The paper's methods on a causal chat model: settings in names, text forms, memory, RAG by a judge of known skill."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finetune_cases import Words, fitted, judgements, llama
from judge_cases import save_judge
from polypref import compare, finetune
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import ArtifactError, EncoderError, SettingsError
from polypref.features import memory
from polypref.features.memory import answered_within, trained_within
from polypref.finetune import tuning
from polypref.judges import local
from polypref.judges.local import Causal
from polypref.learners import LEARNERS
from polypref.learners.judge_prompts import Case, Choice
from polypref.learners.protocol import margins
from polypref.learners.retrieval_judge import RetrievalJudge
from polypref.scorers import learner, load, save
from polypref.tax.arms import Task, fit_arms, taxed_users

BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "lm"
sys.path.insert(0, str(BENCHMARKS))

import scripted_judge  # noqa: E402

TEMPLATE = "{% for m in messages %}<s> {{ m.role }} {{ m.content }} </s>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<s> assistant {% endif %}"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return llama(tmp_path_factory.mktemp("llama"))


# --- names


def test_settings_may_follow_the_name_of_a_tuned_learner():
    found = learner("finetune:personalized:some/model,steps=40,rate=1e-3,text=response,bf16=true,tokens=1,alpha=0.7")
    recipe = finetune.Recipe("some/model", steps=40, rate=1e-3, text="response", bf16=True)
    assert found == replace(finetune.LEARNERS["finetune:personalized"], recipe=recipe, tokens=1, alpha=0.7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("finetune:vpl:m,step=3", "Did you mean 'steps'"),
        ("finetune:pooled:m,tokens=3", "unknown setting of finetune:pooled 'tokens'"),
        ("finetune:pooled:m,steps=many", "steps is 'many'; expected a whole number"),
        ("finetune:pooled:m,steps=0", "recipe.steps = 0; expected a number above 0"),
        ("finetune:pooled:m,bf16=1", "bf16 is 1; expected True or False"),
        ("finetune:pooled:m,text=both", "text is 'both'"),
    ],
)
def test_settings_of_a_name_that_cannot_be(name: str, message: str):
    with pytest.raises(SettingsError, match=message) as caught:
        learner(name)
    assert "\n" not in str(caught.value)


# --- text


def test_with_a_chat_template_texts_are_turns_and_without_one_plain(backbone: str, tmp_path: Path):
    import json

    rows = judgements()
    plain = fitted("pooled", backbone, steps=1, looks=1)
    chat = Path(llama(tmp_path / "chat"))
    kept = json.loads((chat / "tokenizer_config.json").read_text())
    (chat / "tokenizer_config.json").write_text(json.dumps(kept | {"chat_template": TEMPLATE}))
    turns = fitted("pooled", str(chat), steps=1, looks=1)
    text, turn = (
        scorer.reader.tokenizer.decode(scorer.reader.read(rows.responses)[0].ids) for scorer in (plain, turns)
    )
    assert text.startswith("<s>") and text.count("<s>") == 1
    assert turn.count("<s>") == 2 and turn.rstrip().endswith("</s>")


@pytest.mark.parametrize("pad", [None, "</s>"])
def test_a_text_that_holds_its_own_padding_token_is_read_to_its_end(tmp_path: Path, pad: str | None):
    scorer = fitted("personalized", llama(tmp_path, pad), steps=2, looks=1)
    texts = ["tea </s> warm", "tea </s> cold", "tea </s>", "tea " * 20 + "warm"]
    rows = from_columns(["person 0"] * 2, ["soup"] * 2, texts[:2], texts[2:])
    together = scorer.score(rows.responses, None).value_Q
    alone = replace(scorer, batch=1).score(rows.responses, None).value_Q
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert len(np.unique(np.round(alone, 4))) == 4  # what follows </s> is read


@pytest.mark.parametrize("method", ["pooled", "conditional", "personalized", "vpl"])
def test_texts_longer_than_the_context_are_cut_and_counted(backbone: str, method: str, capsys):
    rows = judgements(users=2, each=8)
    long = replace(rows, responses=replace(rows.responses, texts_R=rows.responses.texts_R + " tea soup" * 200))
    scorer = fitted(method, backbone, long, steps=1, looks=1)
    many, most = len(long.responses), scorer.reader.plan.max_length
    assert f"{many} of {many} texts are cut to the {most} tokens that are read" in capsys.readouterr().err
    fitted(method, backbone, rows, steps=1, looks=1)
    assert "are cut" not in capsys.readouterr().err
    assert max(len(text.ids) for text in scorer.reader.read(long.responses)) <= 128
    assert np.isfinite(margins(scorer, long).value_Q).all()


def test_a_judge_without_memory_reads_fewer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    import torch

    judge = Causal(str(save_judge(tmp_path / "judge")))
    questions = [Choice(Case("why one", "cats like dogs", "good bad long"), [], n) for n in range(8, 13)]
    expected = {
        i: reply for index_B, found in judge.replies(questions) for i, reply in zip(index_B, found, strict=True)
    }
    likeliest = local._likeliest

    def room_for(most: int) -> None:
        def small(network: object, inputs: dict[str, torch.Tensor]) -> object:
            if len(inputs["input_ids"]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return likeliest(network, inputs)

        monkeypatch.setattr(local, "_likeliest", small)

    room_for(2)
    for index_B, found in judge.replies(questions):
        for i, reply in zip(index_B, found, strict=True):
            assert [word for word, _ in reply] == [word for word, _ in expected[i]]
            np.testing.assert_allclose([p for _, p in reply], [p for _, p in expected[i]], atol=1e-5)
    assert "memory ran out with 5 texts at a time; they are read in halves" in capsys.readouterr().err
    room_for(0)
    with pytest.raises(EncoderError, match=r"memory ran out with one text; set dtype=bfloat16 or a smaller max_length"):
        next(iter(judge.replies(questions)))


def test_a_judge_in_half_precision_answers_in_full(tmp_path: Path):
    import torch

    folder = save_judge(tmp_path / "judge")
    questions = [Choice(Case("why one", "cats like dogs", "good bad long"), [], n) for n in (8, 9, 10, 11, 12)]
    assert len({question.text() for question in questions}) == 5

    def logits(dtype: str) -> np.ndarray:
        found = dict[int, list[float]]()
        for index_B, replies in Causal(str(folder), dtype=dtype).replies(questions):
            found |= {i: [p for _, p in sorted(reply)] for i, reply in zip(index_B.tolist(), replies, strict=True)}
        return np.array([found[i] for i in range(5)])

    half, full = logits("bfloat16"), logits("float32")
    assert np.abs(half - full).max() < 0.1 * np.ptp(full)
    network, _ = local.load(*Causal(str(folder), dtype="bfloat16").plan()[:2], "bfloat16", "cpu")
    assert network.get_output_embeddings().weight.dtype == torch.float32
    assert network.get_input_embeddings().weight.dtype == torch.bfloat16


# --- weights


def test_a_scorer_is_refused_on_other_weights(tmp_path: Path):
    folder = Path(llama(tmp_path / "model"))
    save(fitted("pooled", str(folder), steps=1, looks=1), tmp_path / "scorer")
    kept = load_file(folder / "model.safetensors")
    other = {name: array + np.float32(1e-3) for name, array in kept.items()}
    save_file(other, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"was tuned on the backbone with weights .*; tune it again or put the old"):
        load(tmp_path / "scorer", Words())
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    load(tmp_path / "scorer", Words())


# --- memory


def full_beyond(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch asks in vain for memory when a training step has more than ``most`` comparisons at a time."""
    import torch

    whole = tuning.trainer_class()

    class Large(whole):  # type: ignore[valid-type, misc]
        def compute_loss(self, model: object, inputs: dict, *args: object, **kwargs: object) -> object:
            if len(inputs["label_B"]) > most and self.state.global_step >= 3:
                torch.empty(1 << 55)
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(tuning, "trainer_class", lambda: Large)


def test_out_of_memory_goes_on_with_fewer_at_a_time(backbone: str, monkeypatch: pytest.MonkeyPatch, capsys):
    rows = judgements(seed=1)
    expected = margins(fitted("personalized", backbone), rows).value_Q
    full_beyond(1, monkeypatch)
    found = margins(fitted("personalized", backbone), rows).value_Q
    np.testing.assert_allclose(found, expected, atol=1e-4)
    said = re.findall(r"memory ran out with (\d) comparisons at a time; going on with (\d)", capsys.readouterr().err)
    assert said == [("4", "2"), ("2", "1")]


def test_out_of_memory_with_one_at_a_time_is_one_line(backbone: str, monkeypatch: pytest.MonkeyPatch):
    full_beyond(0, monkeypatch)
    with pytest.raises(EncoderError, match=r"memory ran out with 1 comparisons at a time; lower recipe.max_length"):
        fitted("pooled", backbone)


def test_pieces_divide_the_batch_and_several_processes_stop(monkeypatch: pytest.MonkeyPatch):
    tried: list[int] = []

    def train(size: int) -> None:
        tried.append(size)
        raise MemoryError

    with pytest.raises(EncoderError, match="with 1 comparisons"):
        trained_within(train, 12, 12, 1)
    assert tried == [12, 6, 3, 1]
    with pytest.raises(EncoderError, match=r"in one of 2 processes; lower recipe.micro_batch"):
        trained_within(train, 8, 32, 2)

    def broken(size: int) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        trained_within(broken, 8, 8, 1)


def test_scores_are_the_same_in_halves(monkeypatch: pytest.MonkeyPatch, capsys):
    def answer(most: int) -> Callable[[np.ndarray], np.ndarray]:
        def fits(rows: np.ndarray) -> np.ndarray:
            if len(rows) > most:
                raise MemoryError
            return rows * 2.0

        return fits

    released: list[bool] = []
    monkeypatch.setattr(memory, "release", lambda: released.append(True))
    assert answered_within(answer(3), np.arange(10)).tolist() == [2.0 * row for row in range(10)]
    assert released and "memory ran out with 10 texts at a time" in capsys.readouterr().err
    with pytest.raises(EncoderError, match="with one text"):
        answered_within(answer(0), np.arange(4))


# --- RAG by a judge of known skill, behind HTTP


def served(*flags: str) -> Iterator[str]:
    command = [sys.executable, str(BENCHMARKS / "scripted_judge.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield f"http://127.0.0.1:{int(running.stdout.readline())}/v1#scripted"
        running.kill()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[0.5, 0.8])
def skilled(request: pytest.FixtureRequest, cache: None) -> Iterator[tuple[float, str]]:
    for url in served("--skill", str(request.param)):
        yield request.param, url


@pytest.fixture
def nonsense(cache: None) -> Iterator[str]:
    yield from served("--nonsense")


def by_length(people: int, each: int, errs: float) -> Comparisons:
    """Even people choose the longer text, odd ones the shorter, but for a share of errors."""
    rng = np.random.default_rng(0)
    size_N2 = np.sort(rng.integers(1, 6, (people * each, 2)) * 2 + [0, 1], axis=1)
    longer_N = (np.arange(people * each) % people % 2 == 0) == (rng.random(people * each) >= errs)
    texts = [[f"tea {n} " + "soup " * count for count in pair] for n, pair in enumerate(size_N2.tolist())]
    ids = [f"person {n % people}" for n in range(people * each)]
    prompts = [f"question {n}" for n in range(people * each)]
    own_N = longer_N.astype(int).tolist()
    chosen = [pair[own] for pair, own in zip(texts, own_N, strict=True)]
    rejected = [pair[1 - own] for pair, own in zip(texts, own_N, strict=True)]
    return from_columns(ids, prompts, chosen, rejected)


def test_a_judge_of_known_skill_is_measured_as_skilled(skilled: tuple[float, str], tmp_path: Path):
    skill, url = skilled
    errs, rows = 0.1, by_length(people=6, each=100, errs=0.1)
    judge = RetrievalJudge(url)
    content = compare(rows, {"rag": judge}, Words(), out=tmp_path / "out", seeds=1, workers=1, placebo=False).content
    found = next(row for row in content["rows"] if (row["metric"], row["cohort"]) == ("accuracy_micro", "all"))
    assert found["lo"] <= scripted_judge.expected(skill, errs) <= found["hi"]
    assert found["hi"] - found["lo"] < 0.2 and content["selection"]["rag"] == [{"test_unanswered": 0.0}]
    strangers = from_columns(["new"] * len(rows), *columns(rows))
    value = margins(judge.fit(rows, encoder=Words(), seed=0), strangers).value_Q
    right = np.where(value == 0, 0.5, value > 0)  # nothing is shown of a stranger, so the judge tosses a coin
    assert abs(right.mean() - 0.5) < 3.3 * (0.5 * 0.25 / len(rows)) ** 0.5


def columns(rows: Comparisons) -> tuple[list[str], list[str], list[str]]:
    r = rows.responses
    prompts = r.prompts.gather(r.prompt_R[rows.chosen_N]).to_list()
    return prompts, r.texts_R.gather(rows.chosen_N).to_list(), r.texts_R.gather(rows.rejected_N).to_list()


def test_a_judge_that_answers_nonsense_is_not_measured_and_says_why(nonsense: str, tmp_path: Path, capsys):
    learners = {"individual": LEARNERS["individual"], "pooled": LEARNERS["pooled"], "rag": RetrievalJudge(nonsense)}
    rows = by_length(people=4, each=30, errs=0.0)
    results = compare(rows, learners, Words(), out=tmp_path / "out", seeds=1, workers=1)
    found = [row for row in results.content["rows"] if row["learner"] == "rag"]
    assert found and all(row["value"] is row["lo"] is row["hi"] is None for row in found)
    assert not [row for row in results.content["gains"] if row["learner"] == "rag"]
    assert results.content["selection"]["rag"] == [{"test_unanswered": 1.0}]
    assert "rag, size" in (said := capsys.readouterr().err) and "its judge answered none of the test questions" in said
    with pytest.raises(EncoderError, match="no judge answered a single test question"):
        compare(rows, {"rag": RetrievalJudge(nonsense)}, Words(), out=tmp_path / "alone", seeds=1, workers=1)


# --- the tax


def test_the_tax_of_tuned_models(backbone: str):
    name = f"finetune:individual:{backbone},steps=2,looks=1,rank=4,micro_batch=4,batch=8"
    arms = fit_arms(judgements(), name, Words(), 0)
    assert arms.pooled.serves == "population" and arms.shuffled is not None
    pool = judgements(seed=1).responses
    everyone, someone = (arms.pooled.score(pool, [who] * len(pool)).value_Q for who in ("nobody", "person 0"))
    stranger = arms.personal.score(pool, ["nobody"] * len(pool)).value_Q
    np.testing.assert_array_equal(everyone, someone)
    np.testing.assert_allclose(stranger, everyone, rtol=1e-5)  # a stranger has the pooled adapter
    assert set(taxed_users(arms, Task(users=2))) < {"person 0", "person 1", "person 2"}
