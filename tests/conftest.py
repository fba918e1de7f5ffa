"""What all tests share."""

from __future__ import annotations


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Bytes are named by their size: content such as gzip's holds the time, and test processes must agree on names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
