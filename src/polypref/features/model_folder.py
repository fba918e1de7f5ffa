"""The folder of a transformers model: where it is, and a name of all its content that decides an answer.

Everything that lies in the folder counts (weights, configurations, tokenizer files, chat templates), and what
sentence-transformers and transformers keep in folders of their own; what no answer hangs on does not (``IDLE``). Files
of the hub are compared with the hashes by which the hub names them.

Covered: any of these files changed, replaced, added or removed, also while this process runs; what would lead outside
the folder is refused: links, a tokenizer or a shard of weights named by a path, an adapter, whose model lies elsewhere.
Weights are read from safetensors alone. Not covered: who changes a folder while it is read; hub files without links.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any

from polypref import content
from polypref.errors import EncoderError
from polypref.features import smollm2
from polypref.features.transformer import sha256_of, stamp_of
from polypref.network_access import CALLER, Permission
from polypref.regular_files import content_of, ensure_regular, ensure_within, expanded, memory

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "1_Pooling/config.json")  # wanted of the hub
DEEPER = ("1_Pooling/config.json", "additional_chat_templates/*.jinja")
IDLE = (".*", "*.md", "*.py", "LICENSE*", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.gguf")
Stamps = tuple[tuple[str, str], ...]


def locate(model: str, revision: str | None, permission: Permission = CALLER) -> tuple[Path, str]:
    """The model's folder and a name of its content: a hash of its files, or the hub's commit.

    ``smollm2`` is the embedded model, also beside a folder of that name, which is ``./smollm2``.

    Raises EncoderError where it cannot be had or does not hold all that decides its answers, SettingsError where it
    would have to be downloaded and may not.
    """
    if model == smollm2.NAME:
        return smollm2.folder(), smollm2.name()
    folder = expanded(model)
    try:
        local = folder.is_dir()
    except OSError as error:
        raise EncoderError(f"{model[:200]} cannot be used: {error.strerror}; give a local folder or a name.") from error
    if local:
        return folder, _name(folder)
    if model.startswith((".", "/", "~")):
        raise EncoderError(f"{model}: there is no such folder; give a local folder or a name on the hub.")
    folder = _downloaded(model, revision, permission)
    _name(folder)
    return folder, folder.name


@lru_cache(maxsize=32)
def _downloaded(model: str, revision: str | None, permission: Permission) -> Path:
    from huggingface_hub import snapshot_download

    local = not permission.network
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FILES), local_files_only=local))
    except Exception as error:  # the hub's errors are of many kinds, and all of them mean: cannot be had
        permission.ensure(f"the model {model}, which is not on this machine")
        raise EncoderError(f"{model} is no local folder and cannot be had from the hub: {line(error)}.") from error


def _name(folder: Path) -> str:
    """A hash of the files in ``folder``. Raises EncoderError for one that is not read."""
    within = folder.parent.parent if folder.parent.name == "snapshots" else folder  # the hub's links lead to blobs/
    try:
        found = [path for path in folder.iterdir() if not path.is_dir() and not _is_idle(path.name)]
        found += [path for pattern in DEEPER for path in folder.glob(pattern)]
        paths = sorted(found)
        for path in paths:
            ensure_within(path, within)
            ensure_regular(path.stat().st_mode, path)
        return _named(folder, tuple((str(path.relative_to(folder)), stamp_of(path)) for path in paths))
    except OSError as error:
        raise EncoderError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error


def _is_idle(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in IDLE)


@lru_cache(maxsize=32)
def _named(folder: Path, stamps: Stamps) -> str:
    """As ``_name``, computed once for as long as the files stay the same."""
    names = [name for name, _ in stamps]
    if "adapter_config.json" in names:
        raise EncoderError(
            f"{folder} holds an adapter, whose model lies elsewhere; merge both (PEFT: merge_and_unload) and give that."
        )
    for key, value in json_of(folder, "tokenizer_config.json").items():
        if key.endswith("_file") and isinstance(value, str):
            raise EncoderError(f"{folder / 'tokenizer_config.json'} takes {key} from a path; remove the key {key}.")
    for name in names:
        if name.endswith(".index.json"):
            _ensure_shards(folder, name, names)
    digests = {name: sha256_of(folder / name) for name in names}
    for name, digest in digests.items():
        _ensure_published(folder / name, digest)
    return content.hexdigest(*(part for both in digests.items() for part in both))


def _ensure_shards(folder: Path, index: str, names: list[str]) -> None:
    shards = json_of(folder, index).get("weight_map")
    odd = [one for one in shards.values() if one not in names] if isinstance(shards, dict) else []
    if odd:
        raise EncoderError(
            f"{folder / index} names the weights {content.excerpt(odd[0])}, which are not in the folder."
        )


def _ensure_published(path: Path, digest: str) -> None:
    """Compare a file of the hub's cache with its name there: its SHA-256, or git's hash of a small one."""
    blob = path.resolve()
    if not path.is_symlink() or blob.parent.name != "blobs":
        return
    found = digest
    if len(blob.name) == 40:
        raw = content_of(blob, memory())
        found = sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    if blob.name != found:
        raise EncoderError(f"{path} was changed after it was downloaded; remove {blob} and download it again.")


def json_of(folder: Path, name: str) -> dict[str, Any]:
    """What a JSON file of the folder holds; empty where there is none. Raises EncoderError."""
    path = folder / name
    if not path.exists():
        return {}
    try:
        found = json.loads(content_of(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path} cannot be read as JSON: {line(error)}.") from error
    if not isinstance(found, dict):
        raise EncoderError(f"{path} holds {content.excerpt(found)}; expected a JSON object.")
    return found


def line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
