"""The endpoints: wire models and status codes, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import PAYMENT_ID_PATTERN, UNDECIDED, parse_payment_id
from openwebui_billing_reconcile.topup.reconcile import Reconciler

from .wire import PATH, RETRY_AFTER, WALLET_DISABLED, documented, http_error, json_body, read_json

PENDING_PATH = f"{PATH}/pending"
_HELD = frozenset(reason.value for reason in HoldReason)


class TopupReconcileRequest(BaseModel):
    """What the endpoint takes."""

    payment_id: str = Field(
        pattern=rf"^\s*{PAYMENT_ID_PATTERN}\s*$",
        description="The id that POST /topup returned.",
    )


class TopupReconcileResponse(BaseModel):
    """What the endpoint answers."""

    model_config = ConfigDict(extra="forbid")

    payment_id: str
    provider_status: str = Field(description="The payment's status at the provider.")
    payment_status: str | None = Field(
        description="The local record's status; null where there is no record."
    )
    credited: bool = Field(description="Whether the wallet's ledger holds this payment's credit.")


class VisitedTopupResponse(BaseModel):
    """One of the user's open top-ups."""

    model_config = ConfigDict(extra="forbid")

    payment_id: str
    provider_status: str | None = Field(
        description="The payment's status at the provider; null where it did not answer."
    )
    payment_status: str | None = Field(description="The local record's status.")
    credited: bool = Field(description="Whether the wallet's ledger holds this payment's credit.")
    reason: str | None = Field(
        default=None, description="Why it could not be reconciled; only there where that is so."
    )


class PendingTopupsResponse(BaseModel):
    """What the endpoint for open top-ups answers."""

    model_config = ConfigDict(extra="forbid")

    payments: list[VisitedTopupResponse]


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The state of the payment. Retry-After is there while it is undecided.",
        "headers": RETRY_AFTER,
    },
    400: documented("The body or payment_id is not valid."),
    401: documented("Not signed in."),
    403: documented("The payment is not proved to be the user's."),
    404: documented("The billing wallet is disabled."),
    409: documented("It does not add up, or is not a top-up; nothing was credited."),
    429: documented("This user has caused too many provider queries.", retry=True),
    502: documented("The provider rejected the query, or its response is not valid."),
    503: documented("Not configured, or a later call can succeed.", retry=True),
}
_PENDING_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The user's open top-ups. Retry-After is there while one is undecided.",
        "headers": RETRY_AFTER,
    },
    401: _RESPONSES[401],
    404: _RESPONSES[404],
    503: _RESPONSES[503],
}


def make_router(host: OpenWebUIHost, reconciler: Reconciler) -> APIRouter:
    """Return the endpoint for ``host``'s billing router."""
    router = APIRouter()

    @router.post(PATH, responses=_RESPONSES, openapi_extra=json_body(TopupReconcileRequest))
    async def reconcile_topup(
        request: Request, response: Response, user: Any = Depends(host.get_verified_user)
    ) -> TopupReconcileResponse:
        """Ask the payment provider about a top-up and credit the wallet if it was paid.

        For the user who comes back from the provider's page while its webhook is late or lost. Idempotent.
        """
        if not host.wallet_enabled:
            raise HTTPException(404, WALLET_DISABLED)
        try:
            payment_id = parse_payment_id((await read_json(request)).get("payment_id"))
            result = await host.billing_service.reconcile_topup_payment(
                user_id=user.id, payment_id=payment_id
            )
        except Exception as error:
            raise http_error(error, host) from error
        if not result["credited"] and result["provider_status"] in UNDECIDED:
            response.headers["Retry-After"] = str(reconciler.retry_after(payment_id))
        return TopupReconcileResponse(**result)

    @router.post(
        PENDING_PATH,
        responses=_PENDING_RESPONSES,
        response_model_exclude_unset=True,
        name="reconcile_pending",
    )
    async def reconcile_pending_topups(
        response: Response, user: Any = Depends(host.get_verified_user)
    ) -> PendingTopupsResponse:
        """Ask the payment provider about the user's own open top-ups, and credit those that were paid.

        For the user who looks at the balance on another device or another day: the newest five of the last 24
        hours, each with its own outcome. Without open top-ups nobody is asked.
        """
        if not host.wallet_enabled:
            raise HTTPException(404, WALLET_DISABLED)
        try:
            result = await host.billing_service.reconcile_pending_topups(user_id=user.id)
        except Exception as error:
            raise http_error(error, host) from error
        polls = [
            reconciler.retry_after(topup["payment_id"]) for topup in filter(_is_open, result["payments"])
        ]
        if polls:
            response.headers["Retry-After"] = str(min(polls))
        return PendingTopupsResponse(**result)

    return router


def _is_open(topup: Mapping[str, Any]) -> bool:
    """Whether asking again can help: the provider has not decided or not answered, and nothing is held."""
    return topup["provider_status"] in {None, *UNDECIDED} and topup.get("reason") not in _HELD
