"""Assertions about the endpoint's answers. Each checks the whole answer, also for what must be absent."""

from __future__ import annotations

from typing import Any

import httpx

from openwebui_billing_reconcile.money.rules import HoldReason

NOT_OWNED = "Payment does not belong to the current user"
NOT_CONFIGURED = "Payment system is not configured"
WALLET_OFF = "Billing wallet is disabled"
UNDECIDED = {"pending", "waiting_for_capture"}
KEYS = {"payment_id", "provider_status", "payment_status", "credited"}


def reconciled(response: httpx.Response) -> dict[str, Any]:
    """Return the four keys of a 200; Retry-After is there exactly while the payment is undecided."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body.keys() == KEYS
    is_undecided = not body["credited"] and body["provider_status"] in UNDECIDED
    assert ("retry-after" in response.headers) is is_undecided
    if is_undecided:
        assert retry_after(response) >= 1
    return body


def credited(response: httpx.Response, payment_id: str, payment_status: str | None = "succeeded") -> None:
    """Assert that the money is in the wallet."""
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": payment_status,
        "credited": True,
    }


def credited_concurrently(response: httpx.Response, payment_id: str) -> None:
    """Assert that the money is in the wallet; another call may still have to mark the record."""
    answer = reconciled(response)
    assert answer.pop("payment_status") in {None, "pending", "succeeded"}
    assert answer == {"payment_id": payment_id, "provider_status": "succeeded", "credited": True}


def undecided(response: httpx.Response, payment_id: str, status: str, payment_status: str | None) -> None:
    """Assert that the provider has not decided."""
    assert status in UNDECIDED
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": status,
        "payment_status": payment_status,
        "credited": False,
    }


def canceled(response: httpx.Response, payment_id: str, payment_status: str | None) -> None:
    """Assert that the payment is canceled."""
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": "canceled",
        "payment_status": payment_status,
        "credited": False,
    }


def error(response: httpx.Response, status: int, *, retryable: bool = False) -> str:
    """Return the detail of an error; Retry-After is there exactly where a later call can succeed."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"detail"}
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail
    assert ("retry-after" in response.headers) is retryable
    if retryable:
        assert retry_after(response) >= 1
    return detail


def invalid(response: httpx.Response) -> None:
    """Assert 400: the body or the id is not valid."""
    error(response, 400)


def not_owned(response: httpx.Response) -> None:
    """Assert 403 in the same words whatever the cause."""
    assert error(response, 403) == NOT_OWNED


def held(response: httpx.Response, reason: HoldReason) -> None:
    """Assert 409 with the reason's message."""
    assert error(response, 409) == reason.message


def invalid_response(response: httpx.Response) -> None:
    """Assert 502: the provider's answer cannot be about this payment."""
    error(response, 502)


def temporarily_unavailable(response: httpx.Response) -> int:
    """Assert 503 and return the seconds after which a later call can succeed."""
    error(response, 503, retryable=True)
    return retry_after(response)


def retry_after(response: httpx.Response) -> int:
    """Return Retry-After in whole seconds."""
    value = response.headers["retry-after"]
    assert value.isascii()
    assert value.isdecimal()
    return int(value)
