"""The endpoints: wire models and status codes, nothing else."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from openwebui_billing_reconcile.errors import (
    InvalidPaymentIdError,
    InvalidProviderResponseError,
    PaymentHeldError,
    PaymentNotOwnedError,
    ProviderRejectedError,
    RateLimitedError,
    ReconcileError,
)
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import PAYMENT_ID_PATTERN, UNDECIDED, parse_payment_id
from openwebui_billing_reconcile.topup.reconcile import Reconciler

log = logging.getLogger(__name__)

PATH = "/topup/reconcile"
PENDING_PATH = f"{PATH}/pending"
_MAX_BODY_BYTES = 4096
_HELD = frozenset(reason.value for reason in HoldReason)
_JSON = re.compile(r"application/([^/]+\+)?json", re.IGNORECASE)

# The first match counts. The plain families come last: a host may replace our method by one of its own.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (InvalidPaymentIdError, 400),
    (PaymentNotOwnedError, 403),
    (PaymentHeldError, 409),
    (RateLimitedError, 429),
    (ProviderRejectedError, 502),
    (InvalidProviderResponseError, 502),
    (ReconcileError, 503),
    (ValueError, 400),
    (PermissionError, 403),
)


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


class ErrorDetail(BaseModel):
    """Every error's body, as FastAPI's own."""

    detail: str


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def _documented(description: str, *, retry: bool = False) -> dict[str, Any]:
    return {
        "model": ErrorDetail,
        "description": description,
        **({"headers": _RETRY_AFTER} if retry else {}),
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The state of the payment. Retry-After is there while it is undecided.",
        "headers": _RETRY_AFTER,
    },
    400: _documented("The body or payment_id is not valid."),
    401: _documented("Not signed in."),
    403: _documented("The payment is not proved to be the user's."),
    404: _documented("The billing wallet is disabled."),
    409: _documented("It does not add up, or is not a top-up; nothing was credited."),
    429: _documented("This user has caused too many provider queries.", retry=True),
    502: _documented("The provider rejected the query, or its response is not valid."),
    503: _documented("Not configured, or a later call can succeed.", retry=True),
}
_PENDING_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The user's open top-ups. Retry-After is there while one is undecided.",
        "headers": _RETRY_AFTER,
    },
    401: _RESPONSES[401],
    404: _RESPONSES[404],
    503: _RESPONSES[503],
}
# The body is read by hand, so that its errors are 400, and come after the host's own 401 and 404.
_OPENAPI_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TopupReconcileRequest.model_json_schema()}},
    }
}


def make_router(host: OpenWebUIHost, reconciler: Reconciler) -> APIRouter:
    """Return the endpoint for ``host``'s billing router."""
    router = APIRouter()

    @router.post(PATH, responses=_RESPONSES, openapi_extra=_OPENAPI_BODY)
    async def reconcile_topup(
        request: Request, response: Response, user: Any = Depends(host.get_verified_user)
    ) -> TopupReconcileResponse:
        """Ask the payment provider about a top-up and credit the wallet if it was paid.

        For the user who comes back from the provider's page while its webhook is late or lost. Idempotent.
        """
        if not host.wallet_enabled:
            raise HTTPException(404, "Billing wallet is disabled")
        try:
            payment_id = parse_payment_id(await _payment_id_in(request))
            result = await host.billing_service.reconcile_topup_payment(
                user_id=user.id, payment_id=payment_id
            )
        except Exception as error:
            raise _http_error(error, host) from error
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
            raise HTTPException(404, "Billing wallet is disabled")
        try:
            result = await host.billing_service.reconcile_pending_topups(user_id=user.id)
        except Exception as error:
            raise _http_error(error, host) from error
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


async def _payment_id_in(request: Request) -> object:
    # Another site's form can send a signed-in browser's cookies along, but not this content type.
    if not _JSON.fullmatch(request.headers.get("content-type", "").partition(";")[0].strip()):
        raise InvalidPaymentIdError("Send the header Content-Type: application/json")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise InvalidPaymentIdError(f"The body is larger than {_MAX_BODY_BYTES} bytes")
        content = json.loads(body)
    except (ValueError, RecursionError, ClientDisconnect) as error:
        if isinstance(error, InvalidPaymentIdError):
            raise
        raise InvalidPaymentIdError('Send a JSON body: {"payment_id": "…"}') from error
    if not isinstance(content, dict):
        raise InvalidPaymentIdError('Send a JSON object: {"payment_id": "…"}')
    return content.get("payment_id")


def _http_error(error: Exception, host: OpenWebUIHost) -> HTTPException:
    status = next((status for family, status in _STATUS if isinstance(error, family)), None)
    if status is None:
        if not isinstance(error, RuntimeError):
            log.error("Reconciling a top-up failed: %s", type(error).__name__)
        return HTTPException(503, "Payment system temporarily unavailable")
    detail = str(error)
    if isinstance(error, ProviderRejectedError):
        detail = host.provider_error_detail(error) or detail
    retry_after = getattr(error, "retry_after", None)
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return HTTPException(status, detail, headers=headers)
