"""The console with a fake of the endpoints that it asks: nothing here credits anything."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from openwebui_billing_reconcile.web import console

BASE = "/api/v1/billing"
ADMIN, USER = "administrator's token", "user's token"
OWNER = "5f3c1c0a-2f4e-4a39-9d62-0c6f3a1be001"
WALLET = "b41f7d6e-8f5a-4b67-a2f0-6f0d7a3c9e02"
HELD = "2e5d7a10-000f-5000-a000-1c2b3d4e5f60"
REFUNDED = "2e5d7a10-000f-5000-a000-1c2b3d4e5f61"
FOREIGN = "2e5d7a10-000f-5000-a000-1c2b3d4e5f62"
UNCREDITED = "2e5d7a10-000f-5000-a000-1c2b3d4e5f63"


def finding(class_: str, payment_id: str, **fields: Any) -> dict[str, Any]:
    """A finding of an audit, as it is on the wire."""
    return {
        "class": class_,
        "payment_id": payment_id,
        "user_id": OWNER,
        "wallet_id": WALLET,
        "amount_kopeks": 90_000,
        "currency": "RUB",
        "reason": None,
        "captured_at": "2026-11-23T21:14:05.120Z",
        "releasable": False,
        **fields,
    }


def findings() -> list[dict[str, Any]]:
    """What an audit finds."""
    return [
        finding("held", HELD, reason="amount_mismatch", releasable=True),
        finding("held", REFUNDED, reason="refunded", releasable=True, amount_kopeks=25_050),
        finding("held", FOREIGN, reason="wallet_foreign", user_id=None),
        finding("uncredited", UNCREDITED, reason="uncredited", releasable=True, amount_kopeks=100_000),
        finding("open_too_long", "2e5d7a10-000f-5000-a000-1c2b3d4e5f64", captured_at=None),
    ]


def day(back: int) -> dict[str, Any]:
    """What was credited on a day, so many days back: more by webhooks than by all other ways."""
    counts = {
        "webhook": 9 + back * 7 % 6,
        "return": back % 4,
        "visit": (back + 1) % 3,
        "sweep": 6 if back in {4, 5} else back % 2,
        "release": int(back == 3),
    }
    sums = {way: {"count": count, "kopeks": count * 100_000} for way, count in counts.items()}
    return {"date": (date(2026, 11, 24) - timedelta(days=back)).isoformat(), **sums}


def report() -> dict[str, Any]:
    """What the report says, but for the days."""
    return {
        "open": [
            {"older_than": 3600, "count": 3},
            {"older_than": 86_400, "count": 1},
            {"older_than": 691_200, "count": 0},
        ],
        "delay_seconds": {"median": 12.0, "p95": 95.0},
        "last_pass": {
            "began_at": 1_795_512_000,
            "seconds": 1.2,
            "listed": 100,
            "credited": 1,
            "canceled": 0,
            "held": 2,
            "failed": 0,
            "others": 3,
            "unreadable": 0,
        },
        "mode": "credit",
        "version": "0.1.0",
        "plugins": ["builtin"],
    }


@dataclass
class FakeApi:
    """What the fake answers; the tests change it."""

    url: str = ""
    """Where it is served."""
    report: dict[str, Any] = field(default_factory=report)
    findings: list[dict[str, Any]] = field(default_factory=findings)
    fails_with: tuple[int, dict[str, Any]] | None = None
    """The status and the body of every answer."""
    audit_error: str | None = None
    """The words with which an audit breaks off."""
    may_end: threading.Event = field(default_factory=threading.Event)
    """Lets an audit that has reported progress and its first finding go on."""
    running: int = 0
    """Audits that are not over."""
    audited: list[tuple[str, str]] = field(default_factory=list)
    """The days of each audit."""
    released: list[dict[str, Any]] = field(default_factory=list)
    """The requests to release, previews too."""

    def __post_init__(self) -> None:
        self.may_end.set()


@contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    """Serve the console with ``api`` behind it."""
    app = FastAPI()
    app.include_router(console.make_router(), prefix=BASE)
    app.include_router(_endpoints(api), prefix=f"{BASE}/topup/reconcile")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield api  # connections wait until it accepts them
        finally:
            api.may_end.set()
            server.should_exit = True
            thread.join()


def _endpoints(api: FakeApi) -> APIRouter:
    def administrator(request: Request) -> None:
        token = request.headers.get("authorization", "")
        if token == f"Bearer {USER}":
            raise HTTPException(403, "Not an administrator")
        if token != f"Bearer {ADMIN}":
            raise HTTPException(401, "Not signed in")

    router = APIRouter(dependencies=[Depends(administrator)])

    @router.get("/report")
    async def get_report(days: int) -> Response:
        return _failing(api) or JSONResponse({**api.report, "days": [day(back) for back in range(days)]})

    @router.get("/audit")
    async def get_audit(since: str, until: str) -> Response:
        api.audited.append((since, until))
        lines = _audit(api, since, until)
        return _failing(api) or StreamingResponse(lines, media_type="application/x-ndjson")

    @router.post("/release")
    async def post_release(request: Request) -> Response:
        asked = await request.json()
        api.released.append(asked)
        return _failing(api) or _release(api, asked)

    return router


def _failing(api: FakeApi) -> Response | None:
    if api.fails_with is None:
        return None
    status, body = api.fails_with
    return JSONResponse(body, status, headers={"Retry-After": "7"})


async def _audit(api: FakeApi, since: str, until: str) -> AsyncIterator[str]:
    api.running += 1
    try:
        first, *others = api.findings
        yield _line(progress={"payments": 100, "entries": 97})
        yield _line(finding=first)
        while not api.may_end.is_set():
            yield _line(progress={"payments": 100, "entries": 97})  # notices a reader that went away
            await asyncio.sleep(0.02)
        if api.audit_error:
            yield _line(error={"detail": api.audit_error})
            return
        for other in others:
            yield _line(finding=other)
        totals: dict[str, dict[str, int]] = {}
        for found in api.findings:
            total = totals.setdefault(found["class"], {"count": 0, "kopeks": 0})
            total["count"] += 1
            total["kopeks"] += found["amount_kopeks"]
        checked = {"payments": 212, "entries": 208, "others": 14, "unreadable": 0}
        yield _line(since=since, until=until, checked=checked, settled=2, totals=totals)
    finally:
        api.running -= 1


def _line(**fields: Any) -> str:
    return json.dumps(fields) + "\n"


def _release(api: FakeApi, asked: dict[str, Any]) -> Response:
    confirmed = [earlier for earlier in api.released[:-1] if earlier["confirm"]]
    if any(earlier["payment_id"] == asked["payment_id"] for earlier in confirmed):
        return JSONResponse({"detail": "Already credited", "reason": "already_credited"}, 409)
    held = next(found for found in api.findings if found["payment_id"] == asked["payment_id"])
    answer = {
        "payment_id": held["payment_id"],
        "provider_status": "succeeded",
        "payment_status": "succeeded" if asked["confirm"] else "pending",
        "credited": asked["confirm"],
        "amount_kopeks": held["amount_kopeks"],
    }
    preview = {"user_id": OWNER, "wallet_id": WALLET, "currency": "RUB"}
    return JSONResponse(answer if asked["confirm"] else answer | preview)
