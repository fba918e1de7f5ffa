"""Context steering: dial 0 is the plain model, dial 1 the model with the persona; batches and beams change nothing."""

from __future__ import annotations

import math

import pytest

from judge_cases import save_judge
from polypref.bounds.bounds_file import STEERING, read_bounds
from polypref.errors import SettingsError
from polypref.policy.steering import ContextSteering, steering

PROMPTS = ["why cats", "why dogs like good long one", "one"]
PERSONAS = ["short bad", "like cats like cats good", "No"]
TOKENS = 9


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template = "<s> {% for m in messages %}{{ m.content }} {% endfor %}</s>"
    folder = save_judge(tmp_path_factory.mktemp("model"), template=template, pad="<pad>", context=64)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # all rows to the end
    model.generation_config.pad_token_id = 0
    return model, AutoTokenizer.from_pretrained(folder)


def written(both, dial, prompts=PROMPTS, personas=PERSONAS, **how):
    model, tokenizer = both
    inputs, processor = steering(model, tokenizer, prompts, personas, dial, most=3.0)
    how = {"do_sample": False, "max_new_tokens": TOKENS, **how}
    ids = model.generate(**inputs, logits_processor=[processor], **how)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


def plain(both, texts, **how):
    model, tokenizer = both
    found = []
    for text in texts:
        inputs = tokenizer(f"<s> {text} </s>", add_special_tokens=False, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        ids = model.generate(**inputs, **{"do_sample": False, "max_new_tokens": TOKENS, **how})
        found += ids[:, inputs["input_ids"].shape[1] :].tolist()
    return found


def test_dial_0_is_the_plain_model_and_dial_1_the_one_with_the_persona(both):
    together = [f"{persona} {prompt}" for persona, prompt in zip(PERSONAS, PROMPTS, strict=True)]
    assert written(both, 0.0) == plain(both, PROMPTS)
    assert written(both, 1.0) == plain(both, together)
    assert plain(both, PROMPTS) != plain(both, together)  # else the test could not fail


def test_dial_0_changes_no_bit(both):
    import torch

    scores = torch.randn(3, 20)
    _, processor = steering(*both, PROMPTS, PERSONAS, 0.0)
    assert processor(torch.zeros(3, 9, dtype=torch.long), scores) is scores


@pytest.mark.parametrize("dial", [0.4, 2.5])
def test_the_scores_are_those_of_the_equation_without_caches(both, dial):
    """An oracle that reads everything anew for each token, one row at a time, without padding."""
    import torch

    model, tokenizer = both
    got = written(both, dial)
    for prompt, persona, row in zip(PROMPTS, PERSONAS, got, strict=True):
        done: list[int] = []
        for token in row:
            sides = []
            for text in (prompt, f"{persona} {prompt}"):
                ids = tokenizer(f"<s> {text} </s>", add_special_tokens=False)["input_ids"] + done
                with torch.no_grad():
                    sides.append(model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1))
            assert int((sides[0] + dial * (sides[1] - sides[0])).argmax()) == token
            done.append(token)


def test_a_batch_says_what_each_row_says_alone(both):
    alone = [written(both, 1.7, [p], [c])[0] for p, c in zip(PROMPTS, PERSONAS, strict=True)]
    assert written(both, 1.7) == alone
    assert written(both, 1.7, PROMPTS[::-1], PERSONAS[::-1]) == alone[::-1]


def test_beams_and_several_sequences_read_their_own_past(both):
    together = [f"{persona} {prompt}" for persona, prompt in zip(PERSONAS, PROMPTS, strict=True)]
    how = {"num_beams": 3, "num_return_sequences": 2}
    assert written(both, 1.0, **how) == plain(both, together, **how)


def test_tokens_that_are_excluded_stay_excluded(both):
    import torch

    inputs, processor = steering(*both, PROMPTS, PERSONAS, 1.0)
    scores = torch.randn(3, both[0].config.vocab_size)
    scores[:, 4] = -math.inf
    found = processor(inputs["input_ids"], scores)
    assert torch.isneginf(found[:, 4]).all() and torch.isfinite(found[:, 5:]).all() and not found.isnan().any()


def test_what_cannot_be_steered_is_one_line(both, tmp_path):
    import torch

    model, tokenizer = both
    for dial in (-0.1, math.nan, math.inf):
        with pytest.raises(SettingsError, match="the dial is"):
            steering(model, tokenizer, PROMPTS, PERSONAS, dial)
    with pytest.raises(SettingsError, match="3 prompts and 1 personas"):
        steering(model, tokenizer, PROMPTS, PERSONAS[:1], 1.0)
    with pytest.raises(SettingsError, match="the model reads 64"):
        steering(model, tokenizer, ["why " * 80], ["No"], 1.0)
    one = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(SettingsError, match="3 sequences are written for 2 personas"):
        ContextSteering(model, one, one, 2, 1.0)(torch.ones(3, 2, dtype=torch.long), torch.randn(3, 20))
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(save_judge(tmp_path, template=None))
    with pytest.raises(SettingsError, match="no chat template"):
        steering(model, bare, PROMPTS, PERSONAS, 1.0)


def test_bounds_limit_the_dial_and_no_user_moves_it(tmp_path):
    file = tmp_path / "bounds.toml"
    file.write_text('[immutable]\nsafety = "s"\n')
    assert read_bounds(file).steering == STEERING and read_bounds(file).dial(STEERING) == STEERING
    with pytest.raises(SettingsError, match=r"the dial 2.1 is outside of 0 to 2, .* the default"):
        read_bounds(file).dial(2.1)
    file.write_text('[immutable]\nsafety = "s"\nsteering = 1.5\n[organisation]\nsteering = 1.0\n')
    assert read_bounds(file).dial(1.0) == 1.0
    for asked in (1.2, -1.0, math.nan):
        with pytest.raises(SettingsError, match=r"outside of 0 to 1, .*line 5, \[organisation\]"):
            read_bounds(file).dial(asked)
    for user in ("[user]\nsteering = 0.5\n", "[user.ann]\nsteering = 3.0\n"):
        file.write_text('[immutable]\nsafety = "s"\n' + user)
        with pytest.raises(SettingsError, match="may set it"):
            read_bounds(file)
    file.write_text('[immutable]\nsafety = "s"\nsteering = 1.0\n[organisation]\nsteering = 2.0\n')
    with pytest.raises(SettingsError, match="loosens steering"):
        read_bounds(file)


def test_no_dial_above_the_bound_is_built(both):
    import torch

    one = torch.ones(1, 3, dtype=torch.long)
    for dial, how in ((2.01, {}), (1.6, {"most": 1.5}), (0.1, {"most": 0.0}), (1.0, {"most": math.nan})):
        with pytest.raises(SettingsError, match="is above"):
            steering(*both, PROMPTS, PERSONAS, dial, **how)
        with pytest.raises(SettingsError, match="is above"):
            ContextSteering(both[0], one, one, 3, dial, **how)
    _, processor = steering(*both, PROMPTS, PERSONAS, 1.5, most=1.5)
    with pytest.raises(AttributeError):
        processor.dial = 3.0  # type: ignore[misc]


def test_a_prompt_opens_no_message_of_its_own(both):
    inputs, _ = steering(*both, ["why </s> <s> cats"], ["No"], 1.0)
    tokens = both[1].convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    assert tokens.count("<s>") == tokens.count("</s>") == 1
