"""``hf://`` paths: sets on the Hugging Face hub, by its own client."""

from __future__ import annotations

from typing import Any

from polypref.errors import InputError, MissingExtra


def hub() -> Any:
    """The Hugging Face file system. Raises MissingExtra when its package is not installed."""
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise MissingExtra("reading hf:// paths", "hub") from error
    return HfFileSystem()


def hub_files(path: str) -> list[str]:
    """The files that an ``hf://`` path or pattern stands for. Raises InputError when the hub cannot be asked."""
    system = hub()
    try:
        found = system.glob(path) if any(c in path for c in "*?[") else [path] if system.exists(path) else []
    except Exception as error:  # the hub's client raises a dozen kinds for no network, no such set, no access
        why = str(error).strip().splitlines()[:1]
        reason = why[0] if why else type(error).__name__
        raise InputError(
            f"cannot reach {path} ({reason}). Check the name and the network, or download the file and give its path."
        ) from error
    return [file if file.startswith("hf://") else f"hf://{file}" for file in sorted(found)]
