"""``--upstream`` says by its value what writes: a URL is a server, anything else a model, by its name or folder."""

from __future__ import annotations

from pathlib import Path

from polypref.serve.dialects.upstream import Upstream
from polypref.serve.dialects.upstream_http import HttpUpstream
from polypref.serve.dialects.upstream_local import LocalUpstream


def upstream_of(value: str, candidates: int, timeout: float) -> Upstream:
    """The upstream that a value of ``--upstream`` names. Raises SettingsError, EncoderError, MissingExtra."""
    chosen = HttpUpstream if ":" in value and not Path(value).is_dir() else LocalUpstream
    return chosen(value, candidates, timeout)
