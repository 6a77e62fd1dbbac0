"""What all endpoints share: reading a JSON body, errors as HTTP answers, their documentation."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from openwebui_billing_reconcile.errors import (
    AuditRunningError,
    InvalidBodyError,
    InvalidProviderResponseError,
    PaymentHeldError,
    ProviderRejectedError,
    RateLimitedError,
    ReconcileError,
    ReleaseRefusedError,
    UnknownPaymentError,
)
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost

log = logging.getLogger(__name__)

PATH: Final = "/topup/reconcile"
"""Below the host's billing router; every path of ours begins so."""

WALLET_DISABLED: Final = "Billing wallet is disabled"

_MAX_BODY_BYTES: Final = 4096
_SEND_AN_OBJECT: Final = 'Send a JSON object, such as {"payment_id": "…"}'
_JSON: Final = re.compile(r"application/([^/]+\+)?json", re.IGNORECASE)

# The first match counts. The plain families also serve a method by which a host has replaced ours.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ValueError, 400),
    (PermissionError, 403),
    (UnknownPaymentError, 404),
    (PaymentHeldError, 409),
    (ReleaseRefusedError, 409),
    (AuditRunningError, 409),
    (RateLimitedError, 429),
    (ProviderRejectedError, 502),
    (InvalidProviderResponseError, 502),
    (ReconcileError, 503),
)


class ErrorDetail(BaseModel):
    """Every error's body, as FastAPI's own."""

    detail: str


RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def documented(description: str, *, retry: bool = False) -> dict[str, Any]:
    """Return an error's documentation; ``retry``: it may carry Retry-After."""
    return {
        "model": ErrorDetail,
        "description": description,
        **({"headers": RETRY_AFTER} if retry else {}),
    }


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the documentation of a body that is read by hand.

    So that its errors are 400, and come after the host's own 401 and 404.
    """
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


async def read_json(request: Request) -> Mapping[str, Any]:
    """Return the request's JSON object. Raises ``InvalidBodyError`` with what to send instead."""
    # Another site's form can send a signed-in browser's cookies along, but not this content type.
    if not _JSON.fullmatch(request.headers.get("content-type", "").partition(";")[0].strip()):
        raise InvalidBodyError("Send the header Content-Type: application/json")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise InvalidBodyError(f"The body is larger than {_MAX_BODY_BYTES} bytes")
        content = json.loads(body)
    except (ValueError, RecursionError, ClientDisconnect) as error:
        if isinstance(error, InvalidBodyError):
            raise
        raise InvalidBodyError(_SEND_AN_OBJECT) from error
    if not isinstance(content, dict):
        raise InvalidBodyError(_SEND_AN_OBJECT)
    return content


def http_error(error: Exception, host: OpenWebUIHost) -> HTTPException:
    """Return the answer to an error, in the host's words where the provider rejected the query."""
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


class UncachedRoute(APIRoute):
    """A route whose answers, errors among them, no cache keeps."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See ``APIRoute``."""
        handle = super().get_route_handler()

        async def handle_uncached(request: Request) -> Response:
            try:
                response = await handle(request)
            except HTTPException as error:
                error.headers = {**(error.headers or {}), "Cache-Control": "no-store"}
                raise
            response.headers["Cache-Control"] = "no-store"
            return response

        return handle_uncached
