"""In the worker: the steps of a reconcile call, at each of which the test is asked whether to go on.

Nothing in the package knows of this. Its methods and the host's are wrapped from outside, and only what a
reconcile call does is watched: the same functions run by a webhook pass freely.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from open_webui.internal import db
from open_webui.models.billing import LedgerEntry, Payments
from open_webui.utils.billing import BillingService
from open_webui.utils.wallet import wallet_service
from sqlalchemy import event
from sqlalchemy.orm import Session

from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.values import LocalState
from openwebui_billing_reconcile.provider.host_gateway import HostGateway
from openwebui_billing_reconcile.topup import reconcile

from . import CHECKPOINTS

Function = Callable[..., Any]


@dataclass
class _Call:
    """One reconcile call on its way; its threads share it."""

    payment_id: str
    reading: bool = False
    reads: int = 0
    in_host_path: bool = False
    path_taken: bool = False
    books: LocalState | None = None


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


def install() -> None:
    """Watch every reconcile call of this process."""
    _wrap(reconcile._Case, "run", _watch_run)
    _wrap(Ledger, "read", _watch_read)
    _wrap(Ledger, "wallet", lambda wallet: _after(wallet, "wallet read"))
    _wrap(Ledger, "cancel", lambda cancel: _after(_before(cancel, "cancel entered"), "canceled"))
    _wrap(HostGateway, "get_payment", _watch_question)
    _wrap(BillingService, "_process_topup_webhook", _watch_host_path)
    _wrap(type(Payments), "get_payment_by_provider_id", _watch_record)
    _wrap(type(wallet_service), "apply_topup", lambda apply: _after(apply, "ledger committed"))
    event.listen(Session, "before_commit", _before_commit)


def reached(step: str) -> None:
    """Tell the test, and go on when it says so. On a thread."""
    call = _call.get()
    checkpoints = _director()
    if call is None or checkpoints is None:
        return
    with socket.create_connection(checkpoints) as connection, connection.makefile("rwb") as line:
        line.write(_message(call, step))
        line.flush()
        line.readline()


async def _reached(step: str) -> None:
    """The same on the event loop, which goes on serving others."""
    call = _call.get()
    checkpoints = _director()
    if call is None or checkpoints is None:
        return
    reader, writer = await asyncio.open_connection(*checkpoints)
    try:
        writer.write(_message(call, step))
        await reader.readline()
    finally:
        writer.close()


def _director() -> tuple[str, int] | None:
    port = os.environ.get(CHECKPOINTS)
    return ("127.0.0.1", int(port)) if port else None


def _message(call: _Call, step: str) -> bytes:
    told = {
        "step": step,
        "payment_id": call.payment_id,
        "pid": os.getpid(),
        "connections": db.engine.pool.checkedout(),
    }
    return json.dumps(told).encode() + b"\n"


def _wrap(owner: type, name: str, wrapper: Callable[[Function], Function]) -> None:
    original: Function = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrapper(original)))


def _before(function: Function, step: str) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        reached(step)
        return function(*arguments, **named)

    return wrapped


def _after(function: Function, step: str) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        reached(step)
        return result

    return wrapped


def _watch_run(run: Function) -> Function:
    async def wrapped(case: reconcile._Case) -> Any:
        _call.set(_Call(case.payment_id))
        return await run(case)

    return wrapped


def _watch_read(read: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        call = _call.get() or _Call("")
        call.reading = True
        books = read(*arguments, **named)
        call.reading = False
        call.reads += 1
        if call.path_taken:
            reached("proof read")
        else:
            reached("record read" if call.reads == 1 else "books read again")
        return books

    return wrapped


def _watch_record(get_payment: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        record = get_payment(*arguments, **named)
        call = _call.get()
        if call and call.reading and not call.reads:
            reached("row read")
        elif call and call.in_host_path:
            reached("path has the record")
        return record

    return wrapped


def _watch_question(ask: Function) -> Function:
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        await _reached("provider asked")
        answer = await ask(*arguments, **named)
        await _reached("provider answered")
        return answer

    return wrapped


def _watch_host_path(path: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> None:
        call = _call.get()
        if call is None:
            path(*arguments, **named)
            return
        reached("path entered")
        call.in_host_path = True
        try:
            path(*arguments, **named)
        finally:
            call.in_host_path = False
            call.path_taken = True
        reached("status written")

    return wrapped


def _before_commit(session: Session) -> None:
    if any(isinstance(row, LedgerEntry) for row in session.new):
        session.flush()
        reached("credit not committed")
