"""What all tests share."""

from __future__ import annotations

import os

import pytest


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Bytes are named by their size: content such as gzip's holds the time, and test processes must agree on names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands see one core and compute in this process; each worker process would load torch anew."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
