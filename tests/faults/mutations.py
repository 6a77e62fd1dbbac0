"""In the worker: the package with a guard taken out, or a wait shortened.

Each negative control applies one and expects its proof to fail. They patch public names only, so that a
change inside a module leaves them alone. There is no pytest here, hence no ``mocker``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

import anyio.to_thread
from fastapi import HTTPException
from open_webui.internal.db import get_db
from open_webui.models.billing import LedgerEntry, Payments, Wallet
from open_webui.utils.wallet import wallet_service
from sqlalchemy import insert, select, update

from openwebui_billing_reconcile.concurrency import KeyedLock, SerialThread, TaskSet
from openwebui_billing_reconcile.errors import StillBeingCheckedError
from openwebui_billing_reconcile.host import database_locks
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money import values
from openwebui_billing_reconcile.money.rules import AlreadyCredited, decide, decide_locally
from openwebui_billing_reconcile.money.values import LocalState, ProviderPayment
from openwebui_billing_reconcile.provider import client
from openwebui_billing_reconcile.provider.client import ProviderClient, QueryState
from openwebui_billing_reconcile.topup import reconcile, reply, settle
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.web import endpoint, wire

from . import watched_steps

Patch = tuple[object, str, Any]

SHORT: Final = 0.5  # seconds; shorter than a stuck thread keeps its slot
ENDLESS: Final = 3600.0  # seconds


# --- Reading, deciding, writing ----------------------------------------------------------------------


def _no_second_read() -> Iterator[Patch]:
    """What the tables said before the provider was asked counts after it."""
    read_with_wallet = Ledger.read_with_wallet

    def outdated(ledger: Ledger, *arguments: Any) -> Any:
        state, wallet = read_with_wallet(ledger, *arguments)
        call = watched_steps.current_call()
        return (call and call.first_state) or state, wallet

    yield Ledger, "read_with_wallet", outdated


def _ledger_before_record() -> Iterator[Patch]:
    """The ledger is read first and the record after it."""
    read = Ledger.read

    def in_two(ledger: Ledger, payment_id: str) -> LocalState:
        ledger_first = read(ledger, payment_id)
        return replace(ledger_first, record=read(ledger, payment_id).record)

    yield Ledger, "read", in_two


def _own_crediting_path() -> Iterator[Patch]:
    """The plugin credits by itself: it reads and writes the balance without lock and key."""

    def credit(_ledger: Ledger, _service: Any, payment_id: str, wallet: Any, money: Any, _: Any) -> None:
        with get_db() as session:
            balance = session.scalars(select(Wallet.balance_topup_kopeks).where(Wallet.id == wallet.id)).one()
        time.sleep(0.3)  # so that calls at the same time do meet, also on a busy machine
        with get_db() as session:
            new = balance + money.kopeks
            session.execute(update(Wallet).where(Wallet.id == wallet.id).values(balance_topup_kopeks=new))
            session.execute(
                insert(LedgerEntry).values(
                    id=str(uuid4()),
                    user_id=wallet.user_id,
                    wallet_id=wallet.id,
                    currency=money.currency,
                    type="topup",
                    amount_kopeks=money.kopeks,
                    balance_included_after=0,
                    balance_topup_after=new,
                    reference_type=f"payment-{uuid4()}",
                    reference_id=payment_id,
                    created_at=0,
                )
            )
            session.commit()
        watched_steps.reached("ledger committed")
        Payments.update_payment_by_provider_id(payment_id, {"status": "succeeded"})

    yield Ledger, "credit", credit


def _any_wallet() -> Iterator[Patch]:
    """Credits go to another wallet of the user's than the one that the payment's record names."""

    def credit(_ledger: Ledger, _service: Any, payment_id: str, wallet: Any, money: Any, _: Any) -> None:
        others = select(Wallet.id).where(Wallet.user_id == wallet.user_id, Wallet.id != wallet.id)
        with get_db() as session:
            (other,) = session.scalars(others).all()
        wallet_service.apply_topup(
            wallet_id=other,
            amount_kopeks=money.kopeks,
            reference_id=payment_id,
            reference_type="payment",
        )

    yield Ledger, "credit", credit


def _no_wallet_check() -> Iterator[Patch]:
    """The host's path is run without a look whether the wallet's row can be had."""

    def credit(
        _ledger: Ledger, service: Any, payment_id: str, wallet: Any, money: Any, metadata: Mapping[str, Any]
    ) -> None:
        verified = {"kind": "topup", "user_id": wallet.user_id, "wallet_id": wallet.id}
        service._process_topup_webhook(
            event_type="payment.succeeded",
            payment_id=payment_id,
            webhook_data={
                "event_type": "payment.succeeded",
                "payment_id": payment_id,
                "status": "succeeded",
                "amount": money.value,
                "currency": money.currency,
                "metadata": {**metadata, **verified, "amount_kopeks": money.kopeks},
            },
        )

    yield Ledger, "credit", credit


def _unconditional_cancel() -> Iterator[Patch]:
    """A cancellation is recorded whatever the record says by now."""

    def cancel(_ledger: Ledger, _service: Any, payment_id: str, _metadata: Mapping[str, Any]) -> bool:
        watched_steps.reached("cancel entered")
        Payments.update_payment_by_provider_id(payment_id, {"status": "canceled"})
        watched_steps.reached("canceled")
        return True

    yield Ledger, "cancel", cancel


def _no_proof() -> Iterator[Patch]:
    """Where the host's path has returned, the credit counts as written."""

    def believing(local: LocalState, user_id: str) -> Any:
        decision = decide_locally(local, user_id)
        if decision is None and local.record and local.record.wallet_id:
            entry = values.LedgerEntry("", user_id, local.record.wallet_id, local.record.money)
            return AlreadyCredited(entry)
        return decision

    yield settle, "decide_locally", believing


def _no_repair() -> Iterator[Patch]:
    """A status left behind is not put right."""
    yield Ledger, "mark_succeeded", lambda *_: None


def _no_owner() -> Iterator[Patch]:
    """Every caller counts as the owner."""

    def for_the_owner(local: LocalState, _user_id: str) -> Any:
        return decide_locally(local, local.record.user_id if local.record else "")

    yield reconcile, "decide_locally", for_the_owner


def _provider_not_believed() -> Iterator[Patch]:
    """Whatever the provider says about a payment that the host knows, it counts as paid."""

    def as_paid(payment: ProviderPayment, local: LocalState, *others: Any) -> Any:
        fields: dict[str, Any] = {"status": "succeeded", "paid": True, "refunded": None, "account_id": None}
        if local.record:
            fields |= {"amount": local.record.money, "malformed": frozenset()}
        return decide(replace(payment, **fields), local, *others)

    yield settle, "decide", as_paid


def _no_expiry() -> Iterator[Patch]:
    """A provider's answer counts however long it has waited for a thread."""
    yield settle, "check_not_expired", lambda _expires_at: None


# --- Locks, threads, waits ---------------------------------------------------------------------------


def _no_user_lock() -> Iterator[Patch]:
    """All calls of a user settle at the same time."""

    @asynccontextmanager
    async def unlocked(_lock: KeyedLock, _key: Any) -> AsyncIterator[None]:
        yield

    yield KeyedLock, "__call__", unlocked


def _no_thread_slot() -> Iterator[Patch]:
    """Any number of threads work at the same time."""

    @asynccontextmanager
    async def free(_slots: SerialThread) -> AsyncIterator[None]:
        yield

    async def on_a_thread(_slots: SerialThread, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work)

    yield SerialThread, "slot", free
    yield SerialThread, "run", on_a_thread


def _no_threads() -> Iterator[Patch]:
    """The plugin works on the database on the event loop."""

    async def here(_slots: SerialThread, work: Callable[[], Any]) -> Any:
        return work()

    yield SerialThread, "run", here


def _no_repair_timeout() -> Iterator[Patch]:
    """A status is put right however long that takes."""
    yield reconcile, "REPAIR_TIMEOUT", ENDLESS


def _no_lock_timeout() -> Iterator[Patch]:
    """A row of PostgreSQL is waited for however long that takes."""
    yield database_locks, "LOCK_TIMEOUT", int(ENDLESS)


def _short_reply_timeout() -> Iterator[Patch]:
    """No guard is missing: a reply has half a second, so that tests need not wait for twelve."""
    yield reply, "REPLY_TIMEOUT", SHORT


def _call_outlives_its_caller() -> Iterator[Patch]:
    """The caller is answered after half a second; its call goes on as if the caller waited."""
    original, tasks = Reconciler.reconcile, TaskSet()

    async def detached(*arguments: Any) -> Any:
        try:
            async with asyncio.timeout(SHORT):
                return await tasks.run(original(*arguments))
        except TimeoutError:
            raise StillBeingCheckedError from None

    yield reply, "REPLY_TIMEOUT", ENDLESS
    yield Reconciler, "reconcile", detached


# --- The provider ------------------------------------------------------------------------------------


def _no_shared_query() -> Iterator[Patch]:
    """Every call queries the provider."""
    yield QueryState, "current", lambda _state, _now, _max_age: None


def _no_deadline() -> Iterator[Patch]:
    """The provider may take any time."""

    async def fetch(_client: Any, gateway: Any, payment_id: str, **_: Any) -> ProviderPayment:
        return ProviderPayment.parse(await gateway.get_payment(payment_id), payment_id)

    yield ProviderClient, "fetch", fetch


def _errors_kept() -> Iterator[Patch]:
    """The error of each failed query is kept."""
    original, kept = ProviderClient.fetch, []

    async def fetch(*arguments: Any, **named: Any) -> Any:
        try:
            return await original(*arguments, **named)
        except Exception as error:
            kept.append(error)
            raise

    yield ProviderClient, "fetch", fetch


def _errors_logged_in_full() -> Iterator[Patch]:
    """The provider's errors are logged in full, by the module's own lines."""
    yield client, "log", _InFull(client.log)


class _InFull(logging.LoggerAdapter[logging.Logger]):
    """Adds the error being handled to each line, and what the provider answered."""

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        error = sys.exception()
        response = getattr(error and error.__cause__, "response_text", "")
        return f"{msg}: {response.replace('%', '%%')}", {**kwargs, "exc_info": True}


# --- The endpoint ------------------------------------------------------------------------------------


def _any_payment_id() -> Iterator[Patch]:
    """Any text is a payment id."""
    yield endpoint, "parse_payment_id", str
    yield reconcile, "parse_payment_id", str


def _undocumented_statuses() -> Iterator[Patch]:
    """A bad request is answered as FastAPI would."""

    def unprocessable(status: int, detail: str, **named: Any) -> HTTPException:
        return HTTPException(422 if status == 400 else status, detail, **named)

    yield wire, "HTTPException", unprocessable


MUTATIONS: dict[str, Callable[[], Iterator[Patch]]] = {
    "no second read": _no_second_read,
    "ledger read before record": _ledger_before_record,
    "own crediting path": _own_crediting_path,
    "any wallet": _any_wallet,
    "no wallet check": _no_wallet_check,
    "unconditional cancel": _unconditional_cancel,
    "no proof": _no_proof,
    "no repair": _no_repair,
    "no owner": _no_owner,
    "provider not believed": _provider_not_believed,
    "no expiry": _no_expiry,
    "no user lock": _no_user_lock,
    "no thread slot": _no_thread_slot,
    "no threads": _no_threads,
    "no repair timeout": _no_repair_timeout,
    "no lock timeout": _no_lock_timeout,
    "short reply timeout": _short_reply_timeout,
    "call outlives its caller": _call_outlives_its_caller,
    "no shared query": _no_shared_query,
    "no deadline": _no_deadline,
    "errors kept": _errors_kept,
    "errors logged in full": _errors_logged_in_full,
    "any payment id": _any_payment_id,
    "undocumented statuses": _undocumented_statuses,
}

_applied = ExitStack()


def apply(names: list[str]) -> None:
    """Apply these mutations and undo all others."""
    global _applied
    _applied.close()
    _applied = ExitStack()
    for name in names:
        for owner, attribute, replacement in MUTATIONS[name]():
            _applied.enter_context(patch.object(owner, attribute, replacement))
