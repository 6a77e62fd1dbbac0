"""The reference host with two more endpoints, for comparison, and one that sweeps when it is told to.

The two answer in the plugin's four keys and are written as the host writes its own: `async def`, with
database calls on the event loop.
"""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from functools import cache
from typing import Any

from fastapi import Depends, HTTPException
from open_webui.internal.db import engine
from open_webui.models.billing import PaymentKind, PaymentStatus
from open_webui.routers.billing import billing_service, router
from open_webui.utils.auth import get_verified_user
from open_webui.utils.yookassa import YooKassaRequestError, get_yookassa_client
from pydantic import BaseModel
from sqlalchemy import event

from openwebui_billing_reconcile.attachment.plugins import Plugins
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.operate.sweep import Sweep
from openwebui_billing_reconcile.settings import Settings
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.resources import Resources

SUCCEEDED = PaymentStatus.SUCCEEDED.value


class ReconcileRequest(BaseModel):
    """The request body."""

    payment_id: str


class State(BaseModel):
    """The response body."""

    payment_id: str
    provider_status: str | None
    payment_status: str | None
    credited: bool


@router.post("/bench/floor")
async def floor(request: ReconcileRequest, user: Any = Depends(get_verified_user)) -> State:
    """Do the least an endpoint of this host can do about a payment: one indexed read."""
    record = _own_record(request.payment_id, user.id)
    return _state(record, None)


@router.post("/bench/straightforward")
async def straightforward(request: ReconcileRequest, user: Any = Depends(get_verified_user)) -> State:
    """Query the provider each time and call the host's crediting path on the event loop."""
    payment_id = request.payment_id
    _own_record(payment_id, user.id)
    try:
        payment = await get_yookassa_client().get_payment(payment_id)
    except YooKassaRequestError as error:
        raise HTTPException(502, "The provider did not answer") from error
    if payment.get("status") == SUCCEEDED and payment.get("paid") is True:
        _credit(payment_id, payment)
    return _state(_own_record(payment_id, user.id), payment.get("status"))


@router.post("/bench/sweep")
async def make_pass() -> dict[str, float]:
    """Make one pass of the plugin's sweep, the first one of a new process."""
    counter: Counter[str] = Counter()
    _statements.set(counter)
    sweep = Sweep(_host(), Reconciler(Resources(_host(), Settings())), interval=3600)
    done = await sweep.make_pass()
    return {"seconds": done.seconds, "listed": done.listed, "statements": counter["statements"]}


@cache
def _host() -> OpenWebUIHost:
    plugins = Plugins()
    plugins.load()
    return OpenWebUIHost(plugins)


_statements: ContextVar[Counter[str] | None] = ContextVar("statements", default=None)


@event.listens_for(engine, "before_cursor_execute")
def _count_statement(*_: Any) -> None:
    counter = _statements.get()  # a pass and its threads share it, and nobody else
    if counter is not None:
        counter["statements"] += 1


def _own_record(payment_id: str, user_id: str) -> Any:
    record = billing_service.payments.get_payment_by_provider_id(payment_id)
    if record is None or record.user_id != user_id or record.kind != PaymentKind.TOPUP.value:
        raise HTTPException(403, "Not yours")
    return record


def _credit(payment_id: str, payment: dict[str, Any]) -> None:
    event = "payment.succeeded"
    billing_service._process_topup_webhook(
        event_type=event,
        payment_id=payment_id,
        webhook_data={
            "event_type": event,
            "payment_id": payment_id,
            "status": SUCCEEDED,
            "amount": payment["amount"]["value"],
            "currency": payment["amount"]["currency"],
            "metadata": payment["metadata"],
        },
    )


def _state(record: Any, provider_status: str | None) -> State:
    return State(
        payment_id=record.provider_payment_id,
        provider_status=provider_status,
        payment_status=record.status,
        credited=record.status == SUCCEEDED,
    )


# Last: it includes the router with the routes that are on it by then.
from open_webui.main import app  # noqa: E402

__all__ = ["app"]
