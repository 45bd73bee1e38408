"""Requests made up from the OpenAPI document."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = (
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "GET /v1/steerers",
    "GET /v1/steerers/{name}",
    "PUT /v1/steerers/{name}",
    "DELETE /v1/steerers/{name}",
    "GET /health",
    "GET /metrics",
    "POST /playground/trajectory",
)


@pytest.fixture(scope="module")
def operations(server: Server) -> dict[str, Any]:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    found = [result.ok() for result in document.get_all_operations()]
    return {operation.label: operation for operation in found}


def test_all_operations_are_tried(operations: dict[str, Any]) -> None:
    assert {*operations} == {*OPERATIONS}


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((label, GenerationMode.NEGATIVE) for label in OPERATIONS if label.startswith("POST")),
    ],
)
def test_no_request_makes_the_server_fail(
    operations: dict[str, Any], label: str, mode: Any
) -> None:
    """Nor is anything answered that the document does not tell of."""

    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def _try(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and label.startswith("POST /v1"):
            case.body |= {"model": "bundled+truth@1", "max_tokens": 4, "steering": []}
        case.call_and_validate(checks=CHECKS, timeout=30)

    _try()
