"""In the worker: report the steps of each reconcile call, and wait at each until the test lets it go on.

The package knows nothing of this: its methods and the host's are wrapped from outside. Only reconcile calls
are watched; the same functions run freely in a webhook.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import threading
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
from openwebui_billing_reconcile.money.values import LocalState, ProviderPayment
from openwebui_billing_reconcile.provider.host_gateway import HostGateway
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.settle import Settlement

from . import CHECKPOINTS

Function = Callable[..., Any]


@dataclass
class WatchedCall:
    """One reconcile call; its tasks and threads share it."""

    payment_id: str
    first_state: LocalState | None = None
    read_step: str | None = None
    """The step to report between the first and the second statement of the read under way."""
    statements: int = 0
    in_host_path: bool = False
    has_left_path: bool = False


_call: ContextVar[WatchedCall | None] = ContextVar("call", default=None)


def install() -> None:
    """Watch every reconcile call of this process."""
    _wrap(Reconciler, "reconcile", _watch_call)
    _wrap(Reconciler, "settle_listed", _watch_listed)
    _wrap(Ledger, "read", _watch_read)
    _wrap(Ledger, "read_with_wallet", _watch_second_read)
    _wrap(Ledger, "cancel", lambda cancel: _after(_before(cancel, "cancel entered"), "canceled"))
    _wrap(Settlement, "settle", _watch_settle)
    _wrap(HostGateway, "get_payment", _watch_query)
    _wrap(BillingService, "_process_topup_webhook", _watch_host_path)
    _wrap(type(Payments), "get_payment_by_provider_id", _watch_record)
    _wrap(type(wallet_service), "apply_topup", lambda apply: _after(apply, "ledger committed"))
    event.listen(Session, "before_commit", _before_commit)
    event.listen(db.engine, "before_cursor_execute", _before_statement)


def current_call() -> WatchedCall | None:
    """Return the reconcile call in which this code runs; ``None`` outside of any."""
    return _call.get()


def reached(step: str) -> None:
    """Report a step from a thread, and wait until the test lets the call go on."""
    call, address = _call.get(), _address()
    if call is None or address is None:
        return
    with socket.create_connection(address) as connection, connection.makefile("rwb") as line:
        line.write(_message(call, step))
        line.flush()
        line.readline()


async def _reached(step: str) -> None:
    """Report a step from the event loop, which goes on serving others."""
    call, address = _call.get(), _address()
    if call is None or address is None:
        return
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(_message(call, step))
        await reader.readline()
    finally:
        writer.close()


def _address() -> tuple[str, int] | None:
    port = os.environ.get(CHECKPOINTS)
    return ("127.0.0.1", int(port)) if port else None


def _message(call: WatchedCall, step: str) -> bytes:
    checkpoint = {
        "step": step,
        "payment_id": call.payment_id,
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "connections": db.engine.pool.checkedout(),
    }
    return json.dumps(checkpoint).encode() + b"\n"


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


def _watch_call(reconcile: Function) -> Function:
    async def wrapped(reconciler: Reconciler, service: Any, user_id: str, payment_id: str, *more: Any) -> Any:
        _call.set(WatchedCall(payment_id))
        await _reached("call received")
        return await reconcile(reconciler, service, user_id, payment_id, *more)

    return wrapped


def _watch_listed(settle_listed: Function) -> Function:
    async def wrapped(
        reconciler: Reconciler, service: Any, user_id: str, payment: ProviderPayment, gateway: Any
    ) -> Any:
        _call.set(WatchedCall(payment.id, first_state=LocalState()))
        return await settle_listed(reconciler, service, user_id, payment, gateway)

    return wrapped


def _watch_read(read: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        call = _call.get()
        if call is None or call.first_state is not None:
            state = read(*arguments, **named)
            reached("proof read" if call and call.has_left_path else "later read")
            return state
        call.read_step, call.statements = "record read", 0
        try:
            state = call.first_state = read(*arguments, **named)
        finally:
            call.read_step = None
        reached("first read")
        return state

    return wrapped


def _watch_second_read(read: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        call = _call.get()
        if call is None:
            return read(*arguments, **named)
        call.read_step, call.statements = "record read again", 0
        try:
            state = read(*arguments, **named)
        finally:
            call.read_step = None
        reached("second read")
        return state

    return wrapped


def _before_statement(*_: Any) -> None:
    # The rows of the first statement have been fetched by now, so no lock is held while this waits.
    call = _call.get()
    if call and call.read_step:
        call.statements += 1
        if call.statements == 2:
            reached(call.read_step)


def _watch_record(get_payment: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        record = get_payment(*arguments, **named)
        call = _call.get()
        if call and call.in_host_path:
            reached("path has the record")
        return record

    return wrapped


def _watch_query(get_payment: Function) -> Function:
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        await _reached("provider queried")
        answer = await get_payment(*arguments, **named)
        await _reached("provider answered")
        return answer

    return wrapped


def _watch_settle(settle: Function) -> Function:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return settle(*arguments, **named)
        finally:
            reached("settled")

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
            call.has_left_path = True
        reached("status written")

    return wrapped


def _before_commit(session: Session) -> None:
    if any(isinstance(row, LedgerEntry) for row in session.new):
        session.flush()
        reached("credit not committed")
