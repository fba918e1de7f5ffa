"""The scripts of ``benchmarks/truth`` as modules, for the tests that run a short form of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent.parent / "benchmarks/truth"


def script(name: str) -> ModuleType:
    """``benchmarks/truth/<name>.py``, loaded once."""
    known = f"truth_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, FOLDER / f"{name}.py")
        assert spec and spec.loader
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]
