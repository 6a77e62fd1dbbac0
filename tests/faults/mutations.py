"""In the worker: the package with a guard taken out, to see that the proof then fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from fastapi import HTTPException
from sqlalchemy import select, update

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError
from openwebui_billing_reconcile.host.ledger import Ledger, _record
from openwebui_billing_reconcile.money.rules import decide, decide_locally
from openwebui_billing_reconcile.money.values import LocalState, ProviderPayment
from openwebui_billing_reconcile.provider import client as pacing
from openwebui_billing_reconcile.provider.client import Pacing, _Talk
from openwebui_billing_reconcile.topup import reconcile
from openwebui_billing_reconcile.topup.reconcile import _Case
from openwebui_billing_reconcile.web import endpoint as api

from . import watched_steps as steps

Swap = tuple[object, str, Any]


def _one_question() -> Swap:
    """Every caller asks the provider."""
    return _Talk, "open_question", lambda _talk, _now, _memory: None


def _host_path() -> Swap:
    """We credit by ourselves: balance read, balance written, no lock and no key."""

    def credit(ledger: Ledger, _service: Any, payment_id: str, wallet: Any, money: Any, _: Any) -> None:
        host = ledger._host
        wallets, entry, payment = (host.table(n) for n in ("Wallet", "LedgerEntry", "Payment"))
        with host.session() as session:
            balance = session.execute(
                select(wallets.c.balance_topup_kopeks).where(wallets.c.id == wallet.id)
            ).scalar_one()
        with host.session() as session:
            new = balance + money.kopeks
            session.execute(update(wallets).where(wallets.c.id == wallet.id).values(balance_topup_kopeks=new))
            session.execute(
                entry.insert().values(
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
        steps.reached("ledger committed")
        with host.session() as session:
            done = payment.c.provider_payment_id == payment_id
            session.execute(update(payment).where(done).values(status="succeeded"))
            session.commit()

    return Ledger, "credit", credit


def _second_look() -> Swap:
    """What our books said before the question counts after it."""
    read = Ledger.read

    def remembered(ledger: Ledger, service: Any, payment_id: str) -> LocalState:
        call = steps._call.get()
        if call is None or call.path_taken:
            return read(ledger, service, payment_id)
        if call.books is None:
            call.books = read(ledger, service, payment_id)
        return call.books

    return Ledger, "read", remembered


def _record_before_ledger() -> Swap:
    """The ledger is read first and the record after it."""
    read = Ledger.read

    def reversed_read(ledger: Ledger, service: Any, payment_id: str) -> LocalState:
        nobody = SimpleNamespace(
            payments=SimpleNamespace(get_payment_by_provider_id=lambda _payment_id: None)
        )
        books = read(ledger, nobody, payment_id)
        steps.reached("row read")
        record = _record(service.payments.get_payment_by_provider_id(payment_id))
        return LocalState(record, books.topups, books.others)

    return Ledger, "read", reversed_read


def _careful_cancel() -> Swap:
    """A cancellation is recorded whatever the record says by now."""

    def cancel(ledger: Ledger, payment_id: str) -> bool:
        steps.reached("cancel entered")
        payment = ledger._host.table("Payment")
        with ledger._host.session() as session:
            about = payment.c.provider_payment_id == payment_id
            session.execute(update(payment).where(about).values(status="canceled"))
            session.commit()
        steps.reached("canceled")
        return True

    return Ledger, "cancel", cancel


def _proof() -> Swap:
    """The host's path returned, so the money must be there."""

    async def credit(case: Any, credit: Any, payment: ProviderPayment) -> Any:
        await case.pace.writing(lambda: case._write(credit, payment))
        books, _ = await case._read()
        return case._answer(books, payment.status, credited=True)

    return _Case, "_credit", credit


def _repair() -> Swap:
    """A status left behind stays behind."""

    async def proved(case: Any, proof: Any) -> Any:
        return case._answer(proof.books, proof.provider_status, credited=True)

    return _Case, "_proved", proved


def _owner() -> Swap:
    """Whoever asks is the owner."""
    return reconcile, "decide_locally", lambda books, _asker: _judge_for_owner(books)


def _judge_for_owner(books: LocalState) -> Any:
    owner = books.record.user_id if books.record else ""
    return decide_locally(books, owner)


def _provider_word() -> Swap:
    """Whatever the provider says about a payment of ours, it was paid."""

    def judging(payment: ProviderPayment, books: LocalState, *others: Any) -> Any:
        said: dict[str, Any] = {"status": "succeeded", "paid": True, "refunded": None, "account_id": None}
        if books.record:
            said |= {"amount": books.record.money, "malformed": frozenset()}
        return decide(replace(payment, **said), books, *others)

    return reconcile, "decide", judging


def _answer_id() -> Swap:
    """An answer about another payment is believed."""
    of_answer = ProviderPayment.of_answer

    def believing(answer: Any, asked_for: str) -> ProviderPayment:
        if isinstance(answer, Mapping):
            answer = {**answer, "id": asked_for}
        return of_answer(answer, asked_for)

    return ProviderPayment, "of_answer", believing


def _deadline() -> Swap:
    """The provider may take its time."""

    async def question(pace: Any, gateway: Any, payment_id: str, talk: Any) -> Any:
        answer = await gateway.get_payment(payment_id)
        talk.answered_at = pace._clock()
        return ProviderPayment.of_answer(answer, payment_id)

    return Pacing, "_question", question


def _reply_limit() -> Swap:
    """A reply may take its time."""
    return pacing, "REPLY_SECONDS", 3600.0


def _threads() -> Swap:
    """Our database work is done on the event loop."""

    async def here(_pace: Pacing, work: Callable[[], Any]) -> Any:
        return work()

    return Pacing, "_on_thread", here


def _turn() -> Swap:
    """All calls of a user write at the same time."""

    @asynccontextmanager
    async def at_once(_pace: Pacing, _user_id: str) -> AsyncIterator[None]:
        yield

    return Pacing, "turn", at_once


def _briefly() -> Swap:
    """A status is put right however long that takes."""

    async def wait(_pace: Pacing, work: Any) -> Any:
        return await work

    return Pacing, "briefly", wait


def _long_replies() -> Swap:
    """No guard, but the patience of a test: a reply has two seconds."""
    return pacing, "REPLY_SECONDS", 2.0


def _long_validity() -> Swap:
    """And an answer counts for as long."""
    return reconcile, "REPLY_SECONDS", 2.0


def _forgetting() -> Swap:
    """What a failed question left behind is kept."""
    explained = Pacing._explained
    kept: list[Exception] = []

    def hoarding(pace: Any, error: Exception) -> Any:
        kept.append(error)
        return explained(pace, error)

    return Pacing, "_explained", hoarding


def _young_answer() -> Swap:
    """An answer counts however old it is."""
    return reconcile, "REPLY_SECONDS", 3600.0


def _id_shape() -> Swap:
    """Any text is a payment id."""
    return api, "parse_payment_id", str


def _id_shape_inside() -> Swap:
    """The same for the method."""
    return reconcile, "parse_payment_id", str


def _documented_statuses() -> Swap:
    """A bad request is answered as FastAPI would."""

    def unprocessable(error: Exception, _host: Any) -> HTTPException:
        return HTTPException(422, str(error))

    return api, "_http_error", unprocessable


def _discretion() -> Swap:
    """What went wrong is logged in full."""

    def explained(pace: Any, error: Exception) -> Any:
        log = logging.getLogger(pacing.__name__)
        response = getattr(error.__cause__, "response_text", "")
        log.debug("The provider said %s", response, exc_info=error)
        return TemporarilyUnavailableError("out of reach")

    return Pacing, "_explained", explained


def _budget() -> Swap:
    """Questions cost nothing."""
    return pacing.Budget, "spend", lambda _budget, _user_id: None


GUARDS: dict[str, Callable[[], Swap]] = {
    "one question": _one_question,
    "the host's path": _host_path,
    "second look": _second_look,
    "record before ledger": _record_before_ledger,
    "careful cancel": _careful_cancel,
    "proof": _proof,
    "repair": _repair,
    "owner": _owner,
    "the provider's word": _provider_word,
    "answer's id": _answer_id,
    "deadline": _deadline,
    "reply limit": _reply_limit,
    "threads": _threads,
    "turn": _turn,
    "briefly": _briefly,
    "long replies": _long_replies,
    "long validity": _long_validity,
    "young answer": _young_answer,
    "forgetting": _forgetting,
    "id shape": _id_shape,
    "id shape inside": _id_shape_inside,
    "documented statuses": _documented_statuses,
    "discretion": _discretion,
    "budget": _budget,
}

_taken_out = ExitStack()


def mutate(names: list[str]) -> None:
    """Take these guards out and put all others back."""
    global _taken_out
    _taken_out.close()
    _taken_out = ExitStack()
    for name in names:
        owner, attribute, replacement = GUARDS[name]()
        _taken_out.enter_context(patch.object(owner, attribute, replacement))
