"""``hf://`` paths: files of data sets on the Hugging Face hub, found and downloaded by its own client.

Files go to the client's cache, so the next command reads them from disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polypref.errors import InputError, MissingExtra, PolyprefError


def hub() -> Any:
    """The hub's client. Raises MissingExtra if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("reading hf:// paths", "hub") from error
    return huggingface_hub


def hub_files(path: str) -> list[str]:
    """The files that match an ``hf://`` path or pattern. Raises InputError if the hub cannot be reached."""
    with _reaching(path):
        system = hub().HfFileSystem()
        if any(c in path for c in "*?["):
            return [f"hf://{file.removeprefix('hf://')}" for file in sorted(system.glob(path))]
        try:
            return [path] if system.info(path)["type"] == "file" else []
        except FileNotFoundError:
            return []


def fetch(path: str) -> str:
    """The local copy of an ``hf://`` file. Raises InputError if it is not available."""
    with _reaching(path):
        place = hub().HfFileSystem().resolve_path(path)
        return hub().hf_hub_download(
            place.repo_id, place.path_in_repo, repo_type=place.repo_type, revision=place.revision
        )


@contextmanager
def _reaching(path: str) -> Iterator[None]:
    try:
        yield
    except PolyprefError:
        raise
    except Exception as error:  # the client raises a dozen unrelated kinds for no network, no such set, no access
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"cannot reach {path} ({reason}). Check the name and the network, or download the file and give its path."
        ) from error
