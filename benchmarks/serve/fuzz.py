"""Hostile requests to ``polypref serve``: no failure, no status that ``/openapi.json`` does not declare.

    python benchmarks/serve/fuzz.py [--requests 10000] [--seed 0] [--examples 100]

First ``tests/serve_fuzz.py``'s requests (odd ids, addresses and bodies), then schemathesis with as many examples for
each operation of the schema. A short form is ``tests/test_serve_fuzz.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from polypref.serve.app import app_of
from serve_cases import core
from serve_fuzz import fuzzed


def by_schema(app: object, examples: int) -> tuple[Counter[int], list[str]]:
    """Statuses of schemathesis' requests, and what was not declared or failed."""
    statuses, wrong = Counter[int](), []
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def asked(case):
            answered = case.call()
            statuses[answered.status_code] += 1
            declared = case.operation.definition.raw["responses"]
            if answered.status_code >= 500 or str(answered.status_code) not in declared:
                wrong.append(f"{case.operation.label}: {answered.status_code} {answered.text[:200]}")

        asked()
    return statuses, wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        served, begun = core(Path(folder) / "s.db", bounded=True), time.perf_counter()
        statuses, wrong = asyncio.run(fuzzed(app_of(served), asked.requests, asked.seed))
        seconds = time.perf_counter() - begun
        print(f"{statuses.total():,} hostile requests in {seconds:.0f} s: {dict(statuses.most_common())}")
        for why, request, found in wrong[:20]:
            print(why, request.method, request.target[:200], request.headers, request.body[:300], found.body[:300])
        served.store.close()
        served = core(Path(folder) / "t.db", bounded=True)
        more, undeclared = by_schema(app_of(served), asked.examples)
        print(f"{more.total():,} requests of schemathesis: {dict(more.most_common())}")
        print(*undeclared[:20], sep="\n")
        served.store.close()
    return 1 if wrong or undeclared else 0


if __name__ == "__main__":
    raise SystemExit(main())
