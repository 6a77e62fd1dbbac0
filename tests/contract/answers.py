"""What the endpoint may answer: each answer is checked whole, also for what must not be there."""

from __future__ import annotations

from typing import Any

import httpx

from openwebui_billing_reconcile.money.rules import HoldReason

FOREIGN = "Payment does not belong to the current user"
NOT_CONFIGURED = "Payment system is not configured"
WALLET_OFF = "Billing wallet is disabled"
UNDECIDED = {"pending", "waiting_for_capture"}
KEYS = {"payment_id", "provider_status", "payment_status", "credited"}


def reconciled(response: httpx.Response) -> dict[str, Any]:
    """The four keys of a 200; it says when to come again exactly while nothing is decided."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body.keys() == KEYS
    is_undecided = not body["credited"] and body["provider_status"] in UNDECIDED
    assert ("retry-after" in response.headers) is is_undecided
    if is_undecided:
        assert retry_after(response) >= 1
    return body


def credited(response: httpx.Response, payment_id: str, payment_status: str | None = "succeeded") -> None:
    """The money is in the wallet, says the host."""
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": payment_status,
        "credited": True,
    }


def proved(response: httpx.Response, payment_id: str) -> None:
    """The money is in the wallet; whoever put it there at this moment may still have to mark the record."""
    answer = reconciled(response)
    assert answer.pop("payment_status") in {None, "pending", "succeeded"}
    assert answer == {"payment_id": payment_id, "provider_status": "succeeded", "credited": True}


def undecided(response: httpx.Response, payment_id: str, status: str, payment_status: str | None) -> None:
    """Nobody knows yet."""
    assert status in UNDECIDED
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": status,
        "payment_status": payment_status,
        "credited": False,
    }


def canceled(response: httpx.Response, payment_id: str, payment_status: str | None) -> None:
    """There will be no money."""
    assert reconciled(response) == {
        "payment_id": payment_id,
        "provider_status": "canceled",
        "payment_status": payment_status,
        "credited": False,
    }


def refused(response: httpx.Response, status: int, *, come_again: bool = False) -> str:
    """The words of an error; it says when to come again exactly where that can help."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"detail"}
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail
    assert ("retry-after" in response.headers) is come_again
    if come_again:
        assert retry_after(response) >= 1
    return detail


def invalid(response: httpx.Response) -> None:
    """The body or the id is not valid."""
    refused(response, 400)


def foreign(response: httpx.Response) -> None:
    """Not the user_id's: the same words whatever the reason."""
    assert refused(response, 403) == FOREIGN


def held(response: httpx.Response, reason: HoldReason) -> None:
    """It does not add up."""
    assert refused(response, 409) == reason.message


def nonsense(response: httpx.Response) -> None:
    """The provider's answer cannot be about this payment."""
    refused(response, 502)


def try_later(response: httpx.Response) -> int:
    """A later call can succeed; in so many seconds."""
    refused(response, 503, come_again=True)
    return retry_after(response)


def retry_after(response: httpx.Response) -> int:
    """Whole seconds."""
    value = response.headers["retry-after"]
    assert value.isascii()
    assert value.isdecimal()
    return int(value)
