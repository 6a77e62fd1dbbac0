"""Answers for the payments of a second provider beside YooKassa, in YooKassa's shape.

The provider is made up: ``GET /orders/{id}`` with a bearer key answers ``order``, ``state``, ``sum``,
``returned``, ``currency``, ``paid_at``, ``merchant``, ``sandbox`` and ``extra``; sums are in hundredths,
``paid_at`` is in epoch seconds. For a real one ``to_payment`` and ``_error`` change; the rest stays.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from fastapi import APIRouter

from openwebui_billing_reconcile import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentGateway,
    PaymentNotFoundError,
    hookimpl,
)

PREFIX: Final = "second-"
"""What the ids of this provider's payments begin with."""

TIMEOUT: Final = 7.0
"""Seconds; the host gives up after ``BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS``, 8 by default."""

PAUSE: Final = 5.0
"""The pause in seconds after a 429 that does not say how long."""

# A returned order stays "succeeded", as at YooKassa: refunded_amount tells that the money went back.
STATUSES: Final = {
    "NEW": "pending",
    "AUTHORIZED": "waiting_for_capture",
    "PAID": "succeeded",
    "RETURNED": "succeeded",
    "DECLINED": "canceled",
}
PAID_STATES: Final = frozenset({"AUTHORIZED", "PAID", "RETURNED"})


class SecondProvider:
    """The provider as a ``PaymentGateway``. Each event loop of the host has a client of its own."""

    def __init__(self, url: str, key: str, merchant: str) -> None:
        self.account_id = merchant
        self.is_test_shop = key.startswith("sandbox_")
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Keep a client open while the application runs."""
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=TIMEOUT) as client:
            self._clients[loop] = client
            try:
                yield
            finally:
                del self._clients[loop]

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``."""
        client = self._clients.get(asyncio.get_running_loop())
        if client is None:
            raise GatewayError("the application has not started, or stops")
        try:
            response = await client.get(f"/orders/{payment_id}")
            if response.status_code != httpx.codes.OK:
                raise _error(response)
            return to_payment(response.json())
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise GatewayError("no answer, or one that cannot be read") from error


def to_payment(order: Mapping[str, Any]) -> dict[str, object]:
    """Return an order as YooKassa would tell it; raises ``KeyError``, ``TypeError`` or ``ValueError``.

    Nothing is filled in: the id is the one that the provider answered about, not the one asked for, and what
    it did not say raises. So the rules of money see what is wrong with an answer, and hold the payment.
    """
    payment: dict[str, object] = {
        "id": order["order"],
        "status": STATUSES[order["state"]],
        "paid": order["state"] in PAID_STATES,
        "amount": _amount(order["sum"], order["currency"]),
        "refunded_amount": _amount(order["returned"], order["currency"]),
        "metadata": order["extra"],
        "test": order["sandbox"],
        "recipient": {"account_id": order["merchant"]},
    }
    if order["paid_at"] is not None:
        payment["captured_at"] = datetime.fromtimestamp(order["paid_at"], UTC).isoformat()
    return payment


def _amount(hundredths: object, currency: object) -> dict[str, object]:
    if type(hundredths) is not int or hundredths < 0:  # money is never a float, and True is no 1
        raise ValueError("a sum is a number of hundredths")
    return {"value": f"{hundredths // 100}.{hundredths % 100:02}", "currency": currency}


def _error(response: httpx.Response) -> GatewayError:
    match response.status_code:
        case 404:
            return PaymentNotFoundError("the provider does not know this payment")
        case 400 | 401 | 403:
            return GatewayRejectedError(f"the provider answered {response.status_code}")
        case 429:
            pause = response.headers.get("Retry-After", "")
            return GatewayThrottledError(
                "the provider asks for a pause", retry_after=float(pause) if pause.isdecimal() else PAUSE
            )
        case status:
            return GatewayError(f"the provider answered {status}")


_gateway: SecondProvider | None = None


@hookimpl
def billing_router() -> APIRouter:
    """No routes: only a lifespan, which opens and closes the client."""
    global _gateway
    _gateway = SecondProvider(
        os.environ["SECOND_PROVIDER_URL"],
        os.environ["SECOND_PROVIDER_KEY"],
        os.environ["SECOND_PROVIDER_MERCHANT"],
    )
    return APIRouter(lifespan=_gateway.lifespan)


@hookimpl
def payment_gateway(payment_id: str) -> PaymentGateway | None:
    """Answer for this provider's payments and leave all others, and lists, to the next plugin."""
    return _gateway if payment_id.startswith(PREFIX) else None
