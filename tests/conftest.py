"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from postgres_cases import Cluster


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Bytes are named by their size: content such as gzip's holds the time, and test processes must agree on names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL of the tests' own; the test is skipped where it is not installed."""
    from postgres_cases import cluster

    found = cluster()
    yield found
    found.remove()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; the test is skipped where there is none.

    It ends with its file: while it is open an event loop runs in this thread, so ``asyncio.run`` fails elsewhere.
    """
    from chromium_cases import chromium

    with chromium() as opened:
        yield opened


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands see one core and compute in this process; each worker process would load torch anew."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
