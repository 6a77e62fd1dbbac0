"""Whatever is sent to the endpoint, it answers as its own OpenAPI document says, and never fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from openwebui_billing_reconcile.money.values import PAYMENT_ID_PATTERN
from tests.support.harness.host import RECONCILE, Host, User
from tests.support.yookassa.client import Document

from .host_pair import THOROUGH, HostPair

Operation = schemathesis.APIOperation[Any, Any, Any, Any]
Mode = schemathesis.GenerationMode

CASES = 1000 if THOROUGH else 60
# "positive_data_acceptance" is not among them: a valid id of nobody's payment is a 403, not a 200.
CHECKS: list[CheckFunction] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]

fuzzing = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=not THOROUGH,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def host(sqlite_pair: HostPair) -> Host:
    """The host to send requests to."""
    return sqlite_pair.host


@pytest.fixture(scope="module")
def user(host: Host) -> User:
    """A user without any payment."""
    return host.new_user()


@pytest.fixture(scope="module")
def operation(host: Host) -> Operation:
    """The endpoint, as its host documents it."""
    return schemathesis.openapi.from_url(f"{host.base_url}/openapi.json")[RECONCILE]["POST"]


# --- By the document -----------------------------------------------------------------------------------


def answers_as_documented(
    operation: Operation, headers: dict[str, str], expected: dict[Mode, set[int]], cases: int = CASES
) -> None:
    """Send valid and invalid requests made from the document; check that each is answered as it says."""

    @settings(fuzzing, max_examples=cases)
    @given(data=st.data(), mode=st.sampled_from(Mode))
    def each(data: st.DataObject, mode: Mode) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        response = case.call_and_validate(headers=headers, checks=CHECKS)
        assert response.status_code in expected[mode], response.text

    each()


def test_signed_in_anything_is_answered_as_documented(operation: Operation, user: User) -> None:
    answers_as_documented(operation, user.headers, {Mode.POSITIVE: {403}, Mode.NEGATIVE: {400, 401, 403}})


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic dXNlcjpwYXNz"}],
    ids=["no token", "bad token", "password"],
)
def test_not_signed_in_anything_is_401(operation: Operation, headers: dict[str, str]) -> None:
    answers_as_documented(operation, headers, {Mode.POSITIVE: {401}, Mode.NEGATIVE: {401}}, CASES // 3)


def test_answers_about_real_payments_are_as_documented(operation: Operation, user: User) -> None:
    simulator = user.host.simulator
    faults: list[Document] = [{}, {"status": 500}, {"status": 401}, {"body": {}}, {"raw": "<html>"}]
    for fault in faults:
        payment_id = user.topup()
        if fault:
            simulator.fault(payment_id=payment_id, **fault)
        for _ in range(2):
            case = operation.Case(body={"payment_id": payment_id}, media_type="application/json")
            case.call_and_validate(headers=user.headers, checks=CHECKS)
            simulator.clear_faults()
            simulator.pay(payment_id)


# --- By bytes and by ids -------------------------------------------------------------------------------

VALID_ID = st.from_regex(PAYMENT_ID_PATTERN, fullmatch=True)
HOSTILE_IDS = (
    "../refunds",
    "..",
    "x/../y",
    "x?y=1",
    "x#y",
    "%2e%2e%2frefunds",
    quote("../refunds", safe=""),
    "x\r\nHost: elsewhere",
    "x\x00",
    "\u0430bc",  # a Cyrillic letter that looks like a Latin one
    "\uff11\uff12",  # wide digits
    "\u0661\u0662",  # Arabic digits
    "x\u200b",
    "\ud800",
    "x" * 65,
    "a b",
    "http://127.0.0.1:9/",
    "@elsewhere",
    "x" * 1_000_000,
)


def bodies() -> st.SearchStrategy[bytes]:
    """Return bodies that are nearly a request."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
    documents = st.fixed_dictionaries({"payment_id": anything | VALID_ID}) | anything
    as_json = documents.map(lambda document: json.dumps(document).encode())
    recoded = as_json.flatmap(
        lambda raw: st.sampled_from(
            [raw, raw[:-1], raw * 2, b"\xef\xbb\xbf" + raw, raw.decode().encode("utf-16"), b" " * 4096 + raw]
        )
    )
    return st.binary() | recoded


def drip(raw: bytes) -> Iterator[bytes]:
    """Send the body in chunks, without a length."""
    for start in range(0, len(raw), 7):
        yield raw[start : start + 7]


@fuzzing
@given(raw=bodies(), in_chunks=st.booleans(), content_type=st.sampled_from(["application/json", "x", ""]))
def test_any_bytes_are_400_or_nobodys_payment(
    user: User, raw: bytes, in_chunks: bool, content_type: str
) -> None:
    response = user.reconcile_raw(drip(raw) if in_chunks else raw, content_type)
    assert response.status_code in {400, 403}, response.text
    assert response.json().keys() == {"detail"}


def is_never_queried(user: User, payment_id: str) -> None:
    """Reconcile, and assert that it is 400 and the provider is not queried."""
    simulator = user.host.simulator
    simulator.forget_requests()
    # By hand: a lone surrogate cannot be encoded otherwise.
    response = user.reconcile_raw(json.dumps({"payment_id": payment_id}).encode())
    assert response.status_code == 400, response.text
    assert simulator.requests() == []


@pytest.mark.parametrize("payment_id", HOSTILE_IDS, ids=lambda payment_id: repr(payment_id[:20]))
def test_hostile_id_never_reaches_the_provider(user: User, payment_id: str) -> None:
    is_never_queried(user, payment_id)


@fuzzing
@given(payment_id=st.text().filter(lambda text: not text.strip().isalnum()))
def test_no_text_but_an_id_reaches_the_provider(user: User, payment_id: str) -> None:
    simulator = user.host.simulator
    simulator.forget_requests()
    user.reconcile_raw(json.dumps({"payment_id": payment_id}).encode())
    queried = [seen.target.removeprefix("/v3/payments/") for seen in simulator.requests()]
    assert queried in ([], [payment_id.strip()])
    assert all(target.isascii() and target.replace("-", "").replace("_", "").isalnum() for target in queried)


# --- Negative controls -------------------------------------------------------------------------------


def test_without_the_shape_of_ids_the_proof_fails(sqlite_pair: HostPair, user: User) -> None:
    with sqlite_pair.mutated("any payment id"):
        for payment_id in ("../refunds", "x?y=1"):
            with pytest.raises(AssertionError):
                is_never_queried(user, payment_id)


def test_without_documented_statuses_the_proof_fails(
    sqlite_pair: HostPair, operation: Operation, user: User
) -> None:
    any_status = {mode: {401, 422} for mode in Mode}
    with sqlite_pair.mutated("undocumented statuses"), pytest.raises(FailureGroup) as failed:
        answers_as_documented(operation, user.headers, any_status)
    assert "Undocumented" in repr(failed.value.exceptions)
