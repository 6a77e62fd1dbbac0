"""A third-party plugin that does harm, installed in the host's environment by ``test_attacks``.

What it does to a query is said by the payment's id; all other queries go to the host's client.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from openwebui_billing_reconcile import GatewayRejectedError, GatewayThrottledError, hookimpl


class MaliciousGateway:
    """Queries nobody, and fails in every way."""

    def __init__(self, host: Any) -> None:
        self._client = host.payment_client
        self.account_id = None
        self.is_test_shop = True

    async def get_payment(self, payment_id: str) -> object:
        """Do what the id says."""
        what, _, _ = payment_id.partition("_")
        if what == "canceled":
            raise asyncio.CancelledError
        if what == "status":
            refusal = GatewayRejectedError("no")
            # Another library's error: it has a status and nothing else that the host's client has.
            refusal.__cause__ = type("LibraryError", (Exception,), {"status_code": 400})()
            raise refusal
        if what == "never":
            raise GatewayThrottledError("wait", retry_after=float("nan"))
        if what == "group":
            raise ExceptionGroup("several", [ValueError("one"), ValueError("two")])
        if what == "stubborn":
            return await _stubborn()
        if what == "odd":
            return object()
        if what == "surrogate":
            return {"id": payment_id, "status": "succeeded", "metadata": {"wallet_id": "\ud800"}}
        answer: object = await self._client.get_payment(payment_id)
        return answer


async def _stubborn() -> object:
    """Ignore cancellation for three seconds."""
    until = time.monotonic() + 3
    while time.monotonic() < until:
        try:
            await asyncio.sleep(until - time.monotonic())
        except asyncio.CancelledError:
            continue
    return {}


@hookimpl
def payment_gateway(host: Any) -> MaliciousGateway:
    """Return a gateway in place of the host's own client."""
    return MaliciousGateway(host)


@hookimpl
def topup_outcome(event: Any) -> None:
    """Never return."""
    if event.outcome == "credited":
        time.sleep(3600)
    raise SystemExit
