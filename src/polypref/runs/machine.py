"""The environment of results: this machine's cores and memory, and the versions of packages that affect figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("polypref", "numpy", "scipy", "polars", "torch", "transformers", "sentence-transformers")


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Versions of the packages that affect the figures, and of ``more`` that do here; those installed."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Cores and memory of this machine, and its kind."""
    import platform

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        memory = None
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": cores(),
        "memory_gib": None if memory is None else round(memory, 1),
    }


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
