"""The OpenAPI document describes what the endpoint does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.harness.host import RECONCILE, Host
from tests.support.yookassa.client import Document

from . import answers

STATUSES = {"200", "400", "401", "403", "404", "409", "429", "502", "503"}


@pytest.fixture
def document(host: Host) -> Document:
    """Return the host's document."""
    return dict(host.http.get("/openapi.json").raise_for_status().json())


@pytest.fixture
def operation(document: Document) -> Document:
    """Return its part about the endpoint."""
    path: Document = document["paths"][RECONCILE]
    assert path.keys() == {"post"}
    return dict(path["post"])


def resolved(document: Document, schema: Document) -> Document:
    """Return the schema behind a reference."""
    while "$ref" in schema:
        found: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        schema = found
    return schema


def content(document: Document, holder: Document) -> Document:
    """Return the schema of a JSON body."""
    assert holder["content"].keys() == {"application/json"}
    return resolved(document, holder["content"]["application/json"]["schema"])


def test_every_status_is_documented_and_422_is_none(operation: Document) -> None:
    assert operation["responses"].keys() == STATUSES
    assert all(response["description"] for response in operation["responses"].values())


def test_body_is_the_payments_id(document: Document, operation: Document) -> None:
    assert operation["requestBody"]["required"] is True
    schema = content(document, operation["requestBody"])
    assert schema["properties"].keys() == {"payment_id"}
    assert schema["required"] == ["payment_id"]
    assert schema["properties"]["payment_id"]["type"] == "string"


def test_pattern_lets_through_what_the_endpoint_does(document: Document, operation: Document) -> None:
    schema = content(document, operation["requestBody"])["properties"]["payment_id"]
    pattern = re.compile(schema["pattern"])
    for good in ("x", "x" * 64, " x ", "11111111-2222-4333-8444-555555555555", "A_b-9"):
        assert pattern.search(good), good
    for bad in ("", " ", "../refunds/1", "x y", "x" * 65, "платёж"):
        assert not pattern.search(bad), bad


def test_answer_has_exactly_four_keys(document: Document, operation: Document) -> None:
    schema = content(document, operation["responses"]["200"])
    assert schema["properties"].keys() == answers.KEYS
    assert set(schema["required"]) == answers.KEYS
    assert schema["additionalProperties"] is False
    types = {name: kinds(value) for name, value in schema["properties"].items()}
    assert types == {
        "payment_id": {"string"},
        "provider_status": {"string"},
        "payment_status": {"string", "null"},
        "credited": {"boolean"},
    }


def kinds(schema: Document) -> set[str]:
    """Return the JSON types a schema allows."""
    return {part["type"] for part in schema.get("anyOf", [schema])}


@pytest.mark.parametrize("status", sorted(STATUSES - {"200"}))
def test_error_is_a_detail(document: Document, operation: Document, status: str) -> None:
    schema = content(document, operation["responses"][status])
    assert schema["properties"].keys() == {"detail"}
    assert schema["properties"]["detail"]["type"] == "string"


def test_retry_after_is_documented_where_it_is_sent(operation: Document) -> None:
    saying = {
        s for s, response in operation["responses"].items() if "Retry-After" in response.get("headers", {})
    }
    assert saying == {"200", "429", "503"}


def test_the_body_is_the_only_parameter(operation: Document) -> None:
    assert operation.get("parameters", []) == []


def test_token_is_documented_as_for_the_hosts_own_endpoints(document: Document, operation: Document) -> None:
    own = document["paths"]["/api/v1/billing/topup"]["post"]
    assert operation.get("security") == own.get("security")
    assert operation["tags"] == own["tags"]


def test_the_endpoint_for_open_topups_is_described(document: Document) -> None:
    path = document["paths"][f"{RECONCILE}/pending"]
    assert path.keys() == {"post"}
    assert "requestBody" not in path["post"]
    assert path["post"]["responses"].keys() == {"200", "401", "404", "503"}
    payments = content(document, path["post"]["responses"]["200"])["properties"]["payments"]
    topup = resolved(document, payments["items"])
    assert topup["properties"].keys() == answers.KEYS | {"reason"}
    assert set(topup["required"]) == answers.KEYS
