"""A shop's account at the provider, in this process: asked by id and by list."""

from __future__ import annotations

import asyncio
from typing import Any

from openwebui_billing_reconcile.errors import PaymentNotFoundError
from openwebui_billing_reconcile.hookspecs import CapturedPage, Host, PaymentGateway, TopupEvent
from openwebui_billing_reconcile.money.values import parse_time

CAPTURED_AT = "2026-03-10T09:00:00.000Z"


def payment(payment_id: str = "pay-1", value: str = "1000.00", **fields: Any) -> dict[str, Any]:
    """Return a paid payment as the provider tells it."""
    return {
        "id": payment_id,
        "status": "succeeded",
        "paid": True,
        "amount": rub(value),
        "captured_at": CAPTURED_AT,
    } | fields


def unpaid(payment_id: str, status: str) -> dict[str, Any]:
    """Return a payment that nobody has paid."""
    return {"id": payment_id, "status": status, "paid": False, "amount": rub("1000.00")}


def rub(value: str) -> dict[str, str]:
    return {"value": value, "currency": "RUB"}


def for_user(user_id: str = "me", wallet_id: str | None = None, **fields: str) -> dict[str, Any]:
    """Return what a host writes on a top-up."""
    wallet = {"wallet_id": wallet_id} if wallet_id else {}
    return {"metadata": {"kind": "topup", "user_id": user_id, **wallet, **fields}}


class Account:
    """A gateway, and the hooks that hand it out. It lists two payments a page."""

    account_id: str | None = "100500"
    is_test_shop: bool | None = False

    def __init__(self) -> None:
        self.payments: dict[str, dict[str, Any]] = {}
        self.odd: list[object] = []
        """What is listed before the payments."""
        self.errors: dict[str, Exception] = {}
        """By payment id, or by the cursor of a page, "" for the first."""
        self.is_configured = True
        self.queries: list[str] = []
        self.lists: list[tuple[float, str | None]] = []
        self.events: list[TopupEvent] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def add(self, *payments: dict[str, Any]) -> None:
        """Let the provider know these."""
        self.payments |= {payment["id"]: payment for payment in payments}

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None:
        return self if self.is_configured else None

    def topup_outcome(self, *, event: TopupEvent) -> None:
        self.events.append(event)

    async def get_payment(self, payment_id: str) -> object:
        self.queries.append(payment_id)
        await self.may_answer.wait()
        if payment_id in self.errors:
            raise self.errors[payment_id]
        if payment_id not in self.payments:
            raise PaymentNotFoundError(payment_id)
        return self.payments[payment_id]

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        self.lists.append((since, cursor))
        await self.may_answer.wait()
        if (cursor or "") in self.errors:
            raise self.errors[cursor or ""]
        captured = [p for p in self.payments.values() if _is_captured(p, since)]
        items = [*self.odd, *captured]
        start = int(cursor or 0)
        end = start + 2
        return CapturedPage(items[start:end], str(end) if end < len(items) else None)


def _is_captured(payment: dict[str, Any], since: float) -> bool:
    return payment["status"] == "succeeded" and (parse_time(payment["captured_at"]) or since) >= since
