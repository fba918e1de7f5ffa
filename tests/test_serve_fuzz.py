"""What nobody should send gets a declared refusal in one line, never a failure; ``/openapi.json`` says all of it."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from polypref.serve.app import app_of
from serve_cases import PROMPT, TEXTS, UNSAFE, core
from serve_fuzz import Answered, fuzzed, wrong_with


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    served = core(tmp_path_factory.mktemp("fuzz") / "s.db", bounded=True)
    yield app_of(served)
    served.store.close()


def test_hostile_requests_are_refused_and_nothing_fails(app):
    statuses, wrong = asyncio.run(fuzzed(app, 600, seed=0))
    assert not wrong, wrong[0]
    assert statuses[200] > 50 and statuses[400] > 100 and statuses[404] > 5  # it gets to the routes


def test_what_must_not_be_is_seen():
    good = {b"x-request-id": b"0" * 32}
    assert wrong_with(Answered(200, good, b"{}"), {200}) is None
    assert wrong_with(Answered(200, {}, b"{}"), {200}) == "no id"
    for status in (500, 503, 418):
        assert wrong_with(Answered(status, good, b"{}"), {200, 500, 503}) == f"status {status}"
    assert "line" in str(wrong_with(Answered(400, good, b'{"message": "a\\nb"}'), {400}))


def test_every_operation_keeps_to_its_schema(app, tmp_path):
    """Schemathesis makes requests from the schema; a longer run is benchmarks/serve/fuzz.py."""
    served = core(tmp_path / "s.db", bounded=True)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app_of(served))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(
            max_examples=4,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def asked(case):
            found = case.call()
            case.validate_response(found, checks=[not_a_server_error])
            assert str(found.status_code) in case.operation.definition.raw["responses"], found.status_code

        asked()
    served.store.close()


def test_errors_have_the_shape_that_is_declared(app):
    import jsonschema_rs

    with TestClient(app) as client:
        whole = client.get("/openapi.json").json()
        assert "HTTPValidationError" not in str(whole) and "422" not in whole["paths"]["/rerank"]["post"]["responses"]
        error = {"$ref": "#/components/schemas/Error", "components": whole["components"]}
        fits = jsonschema_rs.validator_for(error).is_valid
        for body in (
            {},
            {"query": 1, "texts": ["a"]},
            {"query": "q", "documents": []},
            {"query": "q", "texts": [], "user": "a\0"},
        ):
            found = client.post("/rerank", json=body)
            assert found.status_code == 400 and fits(found.json()), found.text
        assert fits(client.get("/nothing").json()) and fits({"status": "DOWN", "failing": ["store"]})
        assert not fits({"detail": "x"}) and not fits({})
        good = client.post("/rerank", json={"query": PROMPT, "documents": [*TEXTS, UNSAFE]})
        assert good.status_code == 200 and not fits(good.json())
