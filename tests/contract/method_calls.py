"""Calls of the service method, made inside a host: run by the host's own Python in its own folder.

It reads the calls as JSON and prints their outcomes. It imports nothing of the plugin, only what a host's own
code can rely on.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from typing import Any

import httpx
import open_webui.main
from open_webui.routers import billing
from open_webui.utils.auth import get_verified_user

MARK = "outcomes of the calls: "
Report = dict[str, Any]
FAMILIES = (ValueError, PermissionError, RuntimeError)


async def outcome(call: Report) -> Report:
    """Return the result or the error, as far as plain Python shows it."""
    try:
        result = await billing.billing_service.reconcile_topup_payment(**call)
    except Exception as error:  # noqa: BLE001 - it is what the test is about
        return {
            "families": [family.__name__ for family in FAMILIES if isinstance(error, family)],
            "words": str(error),
            "reason": getattr(error, "reason", None),
            "retry_after": getattr(error, "retry_after", None),
        }
    return {"is_dict": isinstance(result, dict), "result": result}


class Stub:
    """A service that replaces the host's."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[Report] = []

    async def reconcile_topup_payment(self, **call: Any) -> Any:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


RESULT = {"payment_id": "x", "provider_status": "pending", "payment_status": None, "credited": False}
STUBS = {
    "result": Stub(RESULT),
    "ValueError": Stub(ValueError("bad")),
    "PermissionError": Stub(PermissionError("not yours")),
    "RuntimeError": Stub(RuntimeError("secret details")),
    "unexpected": Stub(KeyError("secret details")),
}


async def through(stub: Stub, http: httpx.AsyncClient) -> Report:
    """Return the endpoint's answer while ``stub`` replaces the host's service."""
    kept = billing.billing_service
    billing.billing_service = stub
    try:
        response = await http.post("/api/v1/billing/topup/reconcile", json={"payment_id": " x "})
    finally:
        billing.billing_service = kept
    return {"status": response.status_code, "body": response.json(), "calls": stub.calls}


async def wallet_off(http: httpx.AsyncClient) -> int:
    """Return the endpoint's status while the flag is off on the host's own module."""
    kept = billing.ENABLE_BILLING_WALLET
    billing.ENABLE_BILLING_WALLET = False
    try:
        return (await http.post("/api/v1/billing/topup/reconcile", json={"payment_id": "x"})).status_code
    finally:
        billing.ENABLE_BILLING_WALLET = kept


class SignedInUser:
    """The user that ``get_verified_user`` is overridden to return."""

    id = "signed_in"


async def main() -> None:
    app = open_webui.main.app
    calls = json.load(sys.stdin)
    async with app.router.lifespan_context(app):
        outcomes = {name: await outcome(call) for name, call in calls.items()}
        app.dependency_overrides[get_verified_user] = SignedInUser
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as http:
            stubs = {name: await through(stub, http) for name, stub in STUBS.items()}
            off = await wallet_off(http)
    method = billing.billing_service.reconcile_topup_payment
    report = {
        "outcomes": outcomes,
        "stubs": stubs,
        "off": off,
        "is_async": inspect.iscoroutinefunction(method),
        "parameters": list(inspect.signature(method).parameters),
    }
    sys.stdout.write(f"\n{MARK}{json.dumps(report)}\n")


asyncio.run(main())
