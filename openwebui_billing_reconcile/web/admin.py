"""The administrators' endpoints: audit, release, report."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Final, cast

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from openwebui_billing_reconcile.errors import (
    InvalidPeriodError,
    InvalidReleaseError,
    ReleaseRefusedError,
)
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.operate.audit import Auditor, AuditResult, Progress, finding_as_json
from openwebui_billing_reconcile.operate.period import DEFAULT_DAYS, MAX_DAYS, Period
from openwebui_billing_reconcile.topup.release import ReleaseOrder, Releaser

from .admin_models import (
    AuditResponse,
    ReleaseRefusal,
    ReleaseRequest,
    ReleaseResponse,
    ReportResponse,
)
from .wire import PATH, WALLET_DISABLED, UncachedRoute, documented, http_error, json_body, read_json

NDJSON: Final = "application/x-ndjson"

_ADMINISTRATORS: Final[dict[int | str, dict[str, Any]]] = {
    401: documented("Not signed in, or no administrator."),
    403: documented("No administrator."),
}
_PROVIDER: Final[dict[int | str, dict[str, Any]]] = {
    502: documented("The provider rejected the query, or its response is not valid."),
    503: documented("Not configured, or a later call can succeed.", retry=True),
}
_AUDIT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **_ADMINISTRATORS,
    **_PROVIDER,
    200: {
        "model": AuditResponse,
        "description": (
            "What was found. With Accept: application/x-ndjson a line {progress} now and then, then a line "
            "{finding} each, last a line with the rest, or with {error}."
        ),
        "content": {NDJSON: {"schema": {"type": "string"}}},
    },
    400: documented("The days are not valid."),
    409: documented("Another audit is under way.", retry=True),
}
_RELEASE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **_ADMINISTRATORS,
    **_PROVIDER,
    400: documented("The body, payment_id, reason, note or confirm is not valid."),
    404: documented("The provider does not know this payment, or the billing wallet is disabled."),
    409: {"model": ReleaseRefusal, "description": "Nothing was released; reason says how it is now."},
}
_REPORT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **_ADMINISTRATORS,
    400: documented("The days are not valid."),
    503: documented("A later call can succeed.", retry=True),
}


def make_router(
    host: OpenWebUIHost, auditor: Auditor, releaser: Releaser, report: Callable[[Period], Awaitable[Any]]
) -> APIRouter:
    """Return the administrators' endpoints for ``host``'s billing router.

    ``report`` returns the report of a period, for JSON.
    """
    router = APIRouter(route_class=UncachedRoute)

    @router.get(
        f"{PATH}/audit",
        responses=_AUDIT_RESPONSES,
        openapi_extra=_parameters(
            since=f"The first day, Moscow time; by default the last {DEFAULT_DAYS} days.",
            until=f"The day after the last one, at most {MAX_DAYS} days later; by default tomorrow.",
        ),
    )
    async def audit_topups(request: Request, _: Any = Depends(host.get_admin_user)) -> Response:
        """Compare the provider's list of captured payments with the host's tables. Writes nothing."""
        asked = request.query_params
        try:
            _check_names(request, "since", "until")
            period = Period.parse(asked.get("since"), asked.get("until"), time.time())
            steps = auditor.run(period)
            first = await anext(steps)  # what cannot begin is an ordinary error
        except Exception as error:
            raise http_error(error, host) from error
        if NDJSON in request.headers.get("accept", ""):
            return _Stream(_lines(first, steps, host), media_type=NDJSON)
        try:
            return JSONResponse((await _last(first, steps)).as_json(host.default_currency))
        except Exception as error:
            raise http_error(error, host) from error

    @router.post(f"{PATH}/release", responses=_RELEASE_RESPONSES, openapi_extra=json_body(ReleaseRequest))
    async def release_topup(
        request: Request, administrator: Any = Depends(host.get_admin_user)
    ) -> ReleaseResponse:
        """Credit what the provider holds of a held or uncredited payment to its owner, once.

        The provider is asked anew and the decision is made anew: the payment is released only if
        exactly the reason named is still true. With ``confirm: false`` nothing is written.
        """
        if not host.wallet_enabled:
            raise HTTPException(404, WALLET_DISABLED)
        try:
            body = await read_json(request)
            confirm = _confirm(body)
            asked = body.get("payment_id"), body.get("reason"), body.get("note")
            order = ReleaseOrder.parse(*asked, administrator.id, confirm=confirm)
            result = await releaser.release(order, confirm=confirm)
        except ReleaseRefusedError as error:
            refusal = {"detail": str(error), "reason": error.reason}
            return cast("ReleaseResponse", JSONResponse(refusal, 409))
        except Exception as error:
            raise http_error(error, host) from error
        return ReleaseResponse(**asdict(result))

    @router.get(
        f"{PATH}/report",
        responses=_REPORT_RESPONSES,
        openapi_extra=_parameters(
            days=f"How many days, today's included, 1 to {MAX_DAYS}; by default {DEFAULT_DAYS}.",
            since="In place of days: the first day, Moscow time.",
            until=f"The day after the last one, at most {MAX_DAYS} days later; by default tomorrow.",
        ),
    )
    async def report_topups(request: Request, _: Any = Depends(host.get_admin_user)) -> ReportResponse:
        """Return how many credits came which way, how late, what is open, and what the sweep did last."""
        try:
            _check_names(request, "days", "since", "until")
            return ReportResponse.model_validate(await report(_report_period(request.query_params)))
        except Exception as error:
            raise http_error(error, host) from error

    return router


def _parameters(**descriptions: str) -> dict[str, Any]:
    """Return the documentation of query parameters that are read by hand, so that their errors are 400."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in descriptions.items()
        ]
    }


def _check_names(request: Request, *known: str) -> None:
    """Refuse what would be ignored: an answer about other days than were meant is a wrong number."""
    if request.query_params.keys() - set(known):
        raise InvalidPeriodError("The audit takes since and until, the report takes these or days")


def _report_period(asked: Mapping[str, str]) -> Period:
    now = time.time()
    if "days" in asked and len(asked) > 1:
        raise InvalidPeriodError("Ask for days, or for since and until")
    if "since" in asked or "until" in asked:
        return Period.parse(asked.get("since"), asked.get("until"), now)
    return Period.last(_days(asked.get("days", str(DEFAULT_DAYS))), now)


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAX_DAYS and len(text) < 4:
        return int(text)
    raise InvalidPeriodError(f"days must be a number from 1 to {MAX_DAYS}")


def _confirm(body: Mapping[str, Any]) -> bool:
    confirm = body.get("confirm")
    if not isinstance(confirm, bool):
        raise InvalidReleaseError("confirm must be true, or false to see what would be done")
    return confirm


async def _last(first: Progress | AuditResult, steps: AsyncGenerator[Progress | AuditResult]) -> AuditResult:
    last = first
    async with aclosing(steps):
        async for step in steps:
            last = step
    assert isinstance(last, AuditResult)  # noqa: S101 - for the type checker
    return last


async def _lines(
    first: Progress | AuditResult, steps: AsyncGenerator[Progress | AuditResult], host: OpenWebUIHost
) -> AsyncIterator[str]:
    """Yield an audit as lines of JSON."""
    async with aclosing(steps):
        step: Progress | AuditResult | None = first
        while step is not None:
            if isinstance(step, Progress):
                yield _line({"progress": asdict(step)})
            else:
                for found in step.findings:
                    yield _line({"finding": finding_as_json(found)})
                yield _line(step.summary(host.default_currency))
            try:
                step = await anext(steps, None)
            except Exception as error:  # noqa: BLE001 - the status is sent: the last line says that it failed
                yield _line({"error": {"detail": http_error(error, host).detail}})
                return


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


class _Stream(StreamingResponse):
    """Ends what it streams when the reader goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[str]", self.body_iterator)):
            await super().__call__(scope, receive, send)
