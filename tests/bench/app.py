"""The reference host with two more endpoints, for comparison. They answer in the plugin's four keys.

Both are written as the host writes its own: `async def`, with database calls on the event loop.
"""

from __future__ import annotations

from typing import Any

from fastapi import Depends, HTTPException
from open_webui.models.billing import PaymentKind, PaymentStatus
from open_webui.routers.billing import billing_service, router
from open_webui.utils.auth import get_verified_user
from open_webui.utils.yookassa import YooKassaRequestError, get_yookassa_client
from pydantic import BaseModel

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
