"""Starts top-ups at a second provider beside YooKassa, and answers for them in YooKassa's shape.

The provider is made up: ``GET /orders/{id}`` with a bearer key answers ``order``, ``state``, ``sum``,
``returned``, ``currency``, ``paid_at``, ``merchant``, ``sandbox`` and ``extra``; sums are in hundredths,
``paid_at`` is in epoch seconds. ``POST /orders`` takes ``sum``, ``currency`` and ``extra``, and answers
``order`` and ``pay_at``, the page to pay on. For a real one ``create_order``, ``to_payment``, ``_to_started``
and ``_error`` change; the rest stays.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

import httpx
from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from openwebui_billing_reconcile import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    Host,
    PaymentGateway,
    PaymentNotFoundError,
    hookimpl,
)

T = TypeVar("T")

PREFIX: Final = "second-"
"""What the ids of this provider's payments begin with in the host; the provider does not know it."""

TIMEOUT: Final = 7.0
"""Seconds; the host gives up after ``BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS``, 8 by default."""

PAUSE: Final = 5.0
"""The pause in seconds after a 429 that does not say how long."""

MIN_KOPEKS: Final = 100_00
MAX_KOPEKS: Final = 100_000_00

# A returned order stays "succeeded", as at YooKassa: refunded_amount tells that the money went back.
STATUSES: Final = {
    "NEW": "pending",
    "AUTHORIZED": "waiting_for_capture",
    "PAID": "succeeded",
    "RETURNED": "succeeded",
    "DECLINED": "canceled",
}
PAID_STATES: Final = frozenset({"AUTHORIZED", "PAID", "RETURNED"})


class TopupOrder(BaseModel):
    """What the route takes."""

    amount_kopeks: int = Field(strict=True, ge=MIN_KOPEKS, le=MAX_KOPEKS)


class StartedTopup(BaseModel):
    """What the route answers: the id in the host, and the page to pay on."""

    payment_id: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$")
    confirmation_url: str


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
        return await self._ask(to_payment, "GET", f"/orders/{payment_id.removeprefix(PREFIX)}")

    async def create_order(self, user_id: str, kopeks: int, currency: str) -> StartedTopup:
        """Open an order for a user; raises ``GatewayError``."""
        # It comes back with the order, and says whose it is where the host has no record after a crash.
        extra = {"kind": "topup", "user_id": user_id, "amount_kopeks": kopeks}
        order = {"sum": kopeks, "currency": currency, "extra": extra}
        return await self._ask(_to_started, "POST", "/orders", order)

    async def _ask(
        self, read: Callable[[Any], T], method: str, path: str, body: Mapping[str, object] | None = None
    ) -> T:
        """Return the provider's answer as ``read`` understands it; raises ``GatewayError``."""
        client = self._clients.get(asyncio.get_running_loop())
        if client is None:
            raise GatewayError("the application has not started, or stops")
        try:
            response = await client.request(method, path, json=body)
            if response.status_code != httpx.codes.OK:
                raise _error(response)
            return read(response.json())
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise GatewayError("no answer, or one that cannot be read") from error


def to_payment(order: Mapping[str, Any]) -> dict[str, object]:
    """Return an order as YooKassa would tell it; raises ``KeyError``, ``TypeError`` or ``ValueError``.

    Nothing is filled in: the id is the one that the provider answered about, not the one asked for, and what
    it did not say raises. So the rules of money see what is wrong with an answer, and hold the payment.
    """
    payment: dict[str, object] = {
        "id": PREFIX + order["order"],
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


def _to_started(order: Mapping[str, Any]) -> StartedTopup:
    return StartedTopup(payment_id=PREFIX + order["order"], confirmation_url=order["pay_at"])


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
def billing_router(host: Host) -> APIRouter:
    """Return the route that starts a top-up, with a lifespan that opens and closes the client."""
    global _gateway
    provider = _gateway = SecondProvider(
        os.environ["SECOND_PROVIDER_URL"],
        os.environ["SECOND_PROVIDER_KEY"],
        os.environ["SECOND_PROVIDER_MERCHANT"],
    )
    router = APIRouter(lifespan=provider.lifespan)

    @router.post("/topup/second")
    async def start_topup(order: TopupOrder, user: Any = Depends(host.get_verified_user)) -> StartedTopup:
        """Open an order at the provider and record it as pending."""
        if not host.wallet_enabled:
            raise HTTPException(404, "Billing wallet is disabled")
        try:
            started = await provider.create_order(user.id, order.amount_kopeks, host.default_currency)
        except GatewayError as error:
            raise HTTPException(502, "The payment provider does not answer") from error
        await asyncio.to_thread(_record, host, started.payment_id, user.id, order.amount_kopeks)
        return started

    return router


def _record(host: Host, payment_id: str, user_id: str, kopeks: int) -> None:
    """Insert the pending record, by which return, visit and sweep find the payment. Blocks."""
    # Not at the top: the host is still being imported then, and `status` never imports it.
    from open_webui.models.billing import PaymentModel

    now = int(time.time())
    host.billing_service.payments.create_payment(
        PaymentModel(
            id=str(uuid4()),
            provider="second",
            status="pending",
            kind="topup",
            amount_kopeks=kopeks,
            currency=host.default_currency,
            provider_payment_id=payment_id,
            user_id=user_id,  # without a wallet_id: the user's own wallet in this currency
            created_at=now,
            updated_at=now,
        )
    )


@hookimpl
def payment_gateway(payment_id: str) -> PaymentGateway | None:
    """Answer for this provider's payments and leave all others, and lists, to the next plugin."""
    return _gateway if payment_id.startswith(PREFIX) else None
