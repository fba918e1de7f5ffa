"""What is read whole goes through one bounded reader, and nothing else in the source reads a file."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from polypref import forgetting
from polypref.bounds.bounds_file import read_bounds
from polypref.cli.check import Check
from polypref.cli.settings import read_toml
from polypref.errors import PolyprefError
from polypref.evaluation.collect_results import collect
from polypref.features.hf import HuggingFace
from polypref.finetune import tuning
from polypref.policy import history_file
from polypref.policy.advantages import Normalizer
from polypref.regular_files import content_of

SOURCE = Path(forgetting.__file__).parent

# --- nothing else reads

READS = {"read_text", "read_bytes", "memmap", "fromfile", "safe_open", "load_file", "load_from_json", "from_pretrained"}
OF_FILES = {("json", "load"), ("np", "load"), ("tomllib", "load"), ("torch", "load"), ("pickle", "load")}
TABLES = re.compile("(read|scan)_(parquet|csv|ndjson|json|ipc|excel|avro)")
REASONS = {
    "regular_files.py": "the reader",
    "files/__init__.py": "opens what it writes",
    "files/locks.py": "opens what it locks; the kernel's tables",
    "cli/__init__.py": "os.devnull in place of a standard output that is full",
    "data/files/textfiles.py": "data files are read in pieces within `Limits`; ensure_regular has looked at them",
    "data/files/jsonlines.py": "a class's method called open; blocks in memory",
    "data/files/csvfiles.py": "a class's method called open; blocks in memory",
    "data/files/sources.py": "opens the classes above",
    "data/files/parquet.py": "Parquet is read in row groups; ensure_regular has looked at it",
    "data/published/rows.py": "Parquet is mapped; ensure_regular has looked at it",
    "data/mapped.py": "a nameless file that this process wrote and alone can open",
    "features/encode_once.py": "a folder that this run wrote and alone can read",
    "features/cache.py": "rows are mapped, not read whole; that the file is regular is tested before",
    "features/hf.py": "folders that `model_folder.locate` has looked over, file by file",
    "features/smollm2.py": "a file that is known by its hash",
    "features/minilm.py": "folders whose files are known by their hashes",
    "features/word_vectors.py": "a folder whose files are known by their hashes",
    "features/static.py": "a folder whose files are known by their hashes",
    "finetune/recipe.py": "folders that `features.model_folder.locate` has looked over",
    "judges/local.py": "folders that `features.model_folder.locate` has looked over",
    "align/language_model.py": "folders that `features.model_folder.locate` has looked over, and what this run wrote",
    "align/lora.py": "adapters, whose weights were read through `regular_files` for their hash",
    "align/run.py": "checkpoints of this very run",
    "report/groups.py": "templates of this package",
    "report/page.py": "templates of this package",
    "report/readable.py": "templates of this package",
    "studies/policy/readable.py": "a folder that `features.model_folder.locate` has looked over",
    "studies/policy/readable_study.py": "a study of this package",
    "studies/policy/style_judge.py": "texts of this package",
    "serve/running/log.py": "opens what it appends to",
    "serve/store/held_open.py": "the store's own files, which must not be closed; ensure_regular has looked at them",
    "report/systems.py": "templates of this package",
    "report/tax.py": "templates of this package",
    "report/audit.py": "templates of this package",
    "report/alignment.py": "templates of this package",
    "report/paper.py": "a table of this package",
    "worlds/text.py": "a table of this package",
    "traits/table.py": "a table of this package",
    "serve/routes/page.py": "a page of this package",
}


def reads(source: str) -> Iterator[str]:
    """Calls that read a file, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        call = node.func
        name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
        owner = call.value.id if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) else ""
        if (owner, name) in OF_FILES or TABLES.fullmatch(name):
            found = not (node.args and ast.unparse(node.args[0]).startswith(("BytesIO(", "io.BytesIO(")))
        else:
            found = name in READS or name == "open"
        if found:
            yield f"{node.lineno}: {ast.unparse(call)}"


def test_nobody_else_reads():
    found = {str(path.relative_to(SOURCE)): list(reads(path.read_text())) for path in sorted(SOURCE.rglob("*.py"))}
    assert len(found) > 100
    strangers = [f"{name}:{one}" for name, ones in found.items() for one in ones if name not in REASONS]
    assert not strangers, "\n".join(strangers)
    assert all(found[name] for name in REASONS), "a reason that is needed no more"


@pytest.mark.parametrize(
    "planted",
    [
        "p.read_text()",
        "Path(p).read_bytes()",
        "open(p)",
        "p.open('rb')",
        "json.load(file)",
        "np.load(p)",
        "tomllib.load(file)",
        "pl.read_parquet(p)",
        "safe_open(p, 'np')",
        "AutoModel.from_pretrained(p)",
    ],
)
def test_a_planted_read_is_seen(planted):
    assert len(list(reads(planted))) == 1
    assert not list(reads("json.loads(x); np.load(BytesIO(x)); pl.read_csv(io.BytesIO(x)); content_of(p)"))


# --- every reader


def made(folder: Path, name: str, content: bytes = b"") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def of_history(folder: Path) -> object:
    return history_file.load(folder / history_file.NAME, [Normalizer()])


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {  # the file's name, and what reads its folder
    "settings": ("s.toml", lambda folder: read_toml(folder / "s.toml", Check, "check")),
    "bounds": ("bounds.toml", lambda folder: read_bounds(folder / "bounds.toml")),
    "results": ("results.json", lambda folder: collect([str(folder)])),
    "people": ("users.parquet", lambda folder: collect([str(folder)])),
    "history": (history_file.NAME, of_history),
    "steps": ("tuned.json", tuning._read),
    "adapter": ("adapter_model.safetensors", tuning._read),
    "tokenizer": ("tokenizer_config.json", lambda folder: HuggingFace(str(folder)).plan()),
    "residue": ("left.txt", lambda folder: forgetting.residue(folder, "u") or 1 / 0),
}
"""``artifact`` has tests of its own, in tests/test_artifact.py."""


@pytest.fixture
def beside(tmp_path) -> Path:
    """A folder in which whatever else a reader wants is there."""
    folder = tmp_path / "folder"
    made(folder, "results.json", b'{"schema": 1}')
    made(folder, "tuned.json", b'{"steps": 1}')
    made(folder, "config.json", b'{"model_type": "bert"}')
    return folder


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "huge", "rubbish"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_bounded_file_is_one_line(beside, reader, what):
    name, read = READERS[reader]
    path = beside / name
    path.unlink(missing_ok=True)
    if reader == "residue" and what in ("pipe", "device", "folder", "rubbish"):
        pytest.skip("skipped: what is no file holds no text, and what is one is read as bytes")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.write_bytes(np.random.default_rng(0).bytes(400))
    with pytest.raises(PolyprefError) as caught:
        read(beside)
    assert "\n" not in str(caught.value) and str(beside) in str(caught.value)


@pytest.mark.parametrize("reader", ["steps", "adapter", "residue"])
def test_links_out_of_a_folder_from_elsewhere_are_not_followed(beside, reader):
    name, read = READERS[reader]
    made(beside.parent, name, (beside / name).read_bytes() if (beside / name).exists() else b"u")
    (beside / name).unlink(missing_ok=True)
    (beside / name).symlink_to(beside.parent / name)
    with pytest.raises(PolyprefError, match="a link out of"):
        read(beside)


def test_links_within_a_folder_are_followed(tmp_path):
    made(tmp_path, "a", b"abc")
    (tmp_path / "b").symlink_to("a")
    assert content_of(tmp_path / "b", within=tmp_path) == b"abc"
    (tmp_path / "round").symlink_to("round")
    for within in (None, tmp_path):
        with pytest.raises(OSError):
            content_of(tmp_path / "round", within=within)
