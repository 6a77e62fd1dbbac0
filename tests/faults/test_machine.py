"""Payments, webhooks, calls, refunds, faults and killed workers in any order: the invariants hold."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from openwebui_billing_reconcile.provider.client import ANSWER_TTL
from tests.support.harness.host import PACKAGE, Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document

from .host_pair import THOROUGH, HostPair
from .payments import FOREIGN, assert_books_balance, at_once, paid, topups, unrecorded

RUNS = 500 if THOROUGH else 25  # on each of the two databases
STEPS = 50 if THOROUGH else 15
CONTROL_RUNS = 40
SLACK = 0.5  # seconds between the provider's answer and its arrival

Credit = tuple[str, str, int, str]

FAULTS: tuple[Document, ...] = (
    {"status": 500},
    {"status": 401},
    {"status": 404},
    {"reset": True},
    {"raw": "<html>"},
    {"body": {}},
)
BENT: tuple[Document, ...] = (
    {"paid": False},
    {"amount": {"value": "1.00", "currency": "RUB"}},
    {"amount": {"value": "1000.00", "currency": "USD"}},
    {"amount": {"value": 1000, "currency": "RUB"}},
    {"recipient": {"account_id": "another-shop"}},
    {"refunded_amount": {"value": "0.01", "currency": "RUB"}},
    {"status": "pending"},
    {"status": "unheard_of"},
)
HONEST: Document = {
    "status": "succeeded",
    "paid": True,
    "amount": {"value": "1000.00", "currency": "RUB"},
    "recipient": {"account_id": "100500"},
    "refunded_amount": {"value": "0.00", "currency": "RUB"},
}


def confirms(document: Document) -> bool:
    """Return whether this answer says that 1,000 roubles came in and are still there."""
    fields = ("status", "paid", "amount", "refunded_amount")
    return {name: document.get(name) for name in fields} == {
        name: HONEST[name] for name in fields
    } and document["recipient"]["account_id"] == HONEST["recipient"]["account_id"]


@dataclass
class Payment:
    """A payment, and what the provider would have answered about it at each moment."""

    id: str
    owner: User
    told: list[tuple[float, Document]] = field(default_factory=list)
    """The provider's answers, each with the moment from which it counts."""
    settled_by_hand: bool = False

    def told_at(self, moment: float) -> Document:
        """Return what the provider would have answered then."""
        return next(document for since, document in reversed(self.told) if since <= moment)


class PaymentHistories(RuleBasedStateMachine):
    """Two users and their payments at one host."""

    host: ClassVar[Host]
    payments: Bundle[Payment] = Bundle("payments")

    @initialize(target=payments)
    def two_users_arrive_and_each_pays(self) -> MultipleResults[Payment]:
        self.users = [self.host.new_user(), self.host.new_user()]
        self.known: list[Payment] = []
        self.ledger: dict[str, list[Credit]] = {}
        return multiple(*(self.noted(Payment(paid(user), user)) for user in self.users))

    def teardown(self) -> None:
        if not getattr(self, "known", None):
            return
        self.host.simulator.clear_faults()
        for payment in self.known:
            if self.is_due(payment):
                wait_until(partial(self.owner_is_credited, payment), 10, f"{payment} is not credited")
        self.books_are_right()

    # --- What happens to payments --------------------------------------------------------------------

    @rule(target=payments, owner=st.integers(0, 1), recorded=st.booleans())
    def somebody_pays(self, owner: int, recorded: bool) -> Payment:
        user = self.users[owner]
        return self.noted(Payment(paid(user) if recorded else unrecorded(user), user))

    @rule(payment=payments, change=st.sampled_from(["pay", "decline", "hold", "refund"]))
    def the_payment_moves_on(self, payment: Payment, change: str) -> None:
        with suppress(httpx.HTTPStatusError):  # nothing to give back
            getattr(self.host.simulator, change)(payment.id)
        self.noted(payment)

    @rule(payment=payments, fields=st.sampled_from([*BENT, HONEST, HONEST]))
    def the_provider_says_something_else(self, payment: Payment, fields: Document) -> None:
        self.host.simulator.change(payment.id, **fields)
        self.noted(payment)

    @rule(payment=payments, fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def the_provider_is_in_trouble(self, payment: Payment, fault: Document, times: int) -> None:
        self.host.simulator.fault(payment_id=payment.id, times=times, **fault)

    # --- What happens at the host --------------------------------------------------------------------

    @rule(payment=payments, event=st.sampled_from(["succeeded", "canceled", "waiting_for_capture"]))
    def the_webhook_comes(self, payment: Payment, event: str) -> None:
        self.host.webhook(payment.id, f"payment.{event}")
        self.look_into_the_ledger()

    @rule(payment=payments, status=st.sampled_from(["pending", "canceled", "failed"]))
    def the_host_overwrites_the_status(self, payment: Payment, status: str) -> None:
        if self.host.books.record(payment.id):
            self.host.books.change_record(payment.id, status=status)

    @rule(payment=payments, rarely=st.booleans())
    def the_record_is_deleted(self, payment: Payment, rarely: bool) -> None:
        if rarely and self.host.books.record(payment.id):
            self.host.books.delete_record(payment.id)

    @rule(payment=payments, rarely=st.booleans())
    def an_administrator_settles_it_by_hand(self, payment: Payment, rarely: bool) -> None:
        if not rarely:
            return
        body = {"delta_topup_kopeks": 5, "reason": "by hand", "reference_id": payment.id}
        path = f"/api/v1/admin/billing/users/{payment.owner.id}/wallet/adjust"
        self.host.http.post(path, json=body, headers=self.host.admin.headers).raise_for_status()
        payment.settled_by_hand = True

    @rule(rarely=st.integers(0, 9), which=st.integers(0, 99))
    def a_worker_dies(self, rarely: int, which: int) -> None:
        alive = workers(self.host) if rarely == 9 else []
        if len(alive) > 1:
            os.kill(alive[which % len(alive)], signal.SIGKILL)

    # --- What is promised ----------------------------------------------------------------------------

    @rule(payment=payments, user_id=st.integers(0, 1))
    def somebody_reconciles(self, payment: Payment, user_id: int) -> None:
        self.reconcile(payment, self.users[user_id])

    @rule(payment=payments)
    def the_owner_reconciles(self, payment: Payment) -> None:
        self.reconcile(payment, payment.owner)

    @rule(payment=payments, webhooks=st.integers(0, 2))
    def everybody_comes_at_once(self, payment: Payment, webhooks: int) -> None:
        began = time.time()
        calls: list[Callable[[], object]] = [
            lambda: self.call(payment, payment.owner),
            lambda: self.call(payment, payment.owner),
            lambda: self.call(payment, self.other(payment.owner)),
        ]
        calls += [lambda: self.host.webhook(payment.id)] * webhooks
        at_once(calls)
        before = self.ledger[payment.id]
        self.look_into_the_ledger()
        self.books_are_right()
        if not webhooks:
            self.check_new_credit(payment, before, began)

    def reconcile(self, payment: Payment, user_id: User) -> httpx.Response:
        """Reconcile, and check what the call has done."""
        before, began = self.ledger[payment.id], time.time()
        was = self.host.books.record(payment.id)
        response = self.call(payment, user_id)
        self.look_into_the_ledger()
        self.check_new_credit(payment, before, began)
        record = self.host.books.record(payment.id)
        if response.status_code == 200:
            assert response.json()["payment_status"] == (record and record["status"])
            assert response.json()["credited"] is bool(self.ledger[payment.id])
            if record and self.ledger[payment.id]:
                assert record["status"] == "succeeded"  # whatever the host had made of it
        if was and was["status"] == "succeeded":
            assert record == was
        return response

    def call(self, payment: Payment, user_id: User) -> httpx.Response:
        """Reconcile, and check the answer."""
        response = user_id.reconcile(payment.id)
        status = response.status_code
        assert status in {200, 403, 409, 502, 503}, response.text
        if user_id != payment.owner:
            assert status in {403, 502, 503}, response.text
            assert (status == 403) == (response.json()["detail"] == FOREIGN)
        elif status == 200 and response.json()["credited"]:
            (credit,) = topups(self.host.books, payment.id)
            assert credit[0] == user_id.id
        return response

    def check_new_credit(self, payment: Payment, before: list[Credit], began: float) -> None:
        """Check that a new credit is what the provider confirmed, in the owner's wallet."""
        after = self.ledger[payment.id]
        if after == before:
            return
        wallet = self.host.books.wallet(payment.owner.id)["id"]
        assert before == []
        assert after == [(payment.owner.id, wallet, PACKAGE, "RUB")]
        assert not payment.settled_by_hand
        queried = [seen.epoch for seen in self.host.simulator.requests(payment.id) if seen.method == "GET"]
        fresh = [moment for moment in queried if moment > began - ANSWER_TTL - SLACK]
        assert any(confirms(payment.told_at(moment)) for moment in fresh)

    def look_into_the_ledger(self) -> None:
        """Check that each payment is credited at most once, and that a credit stays as it is."""
        for payment in self.known:
            before = self.ledger[payment.id]
            after = self.ledger[payment.id] = topups(self.host.books, payment.id)
            assert len(after) <= 1
            assert before in ([], after)

    def books_are_right(self) -> None:
        """Check that each wallet holds the sum of its entries."""
        for user in self.users:
            assert_books_balance(user)

    def is_due(self, payment: Payment) -> bool:
        """Return whether the next call must credit the owner, where nothing is in trouble."""
        record = self.host.books.record(payment.id)
        if self.ledger[payment.id]:
            # The host's webhook makes a missing record after whatever the provider says by then.
            agrees = record is None or (record["amount_kopeks"], record["currency"]) == (PACKAGE, "RUB")
            return agrees and topups(self.host.books, payment.id)[0][2:] == (PACKAGE, "RUB")
        stuck = record is not None and record["status"] == "succeeded"
        return confirms(payment.told[-1][1]) and not payment.settled_by_hand and not stuck

    def owner_is_credited(self, payment: Payment) -> bool:
        """Reconcile as the owner; the answer used may still be a moment old."""
        response = self.reconcile(payment, payment.owner)
        return response.status_code == 200 and response.json()["credited"] is True

    def noted(self, payment: Payment) -> Payment:
        """Note what the provider answers from now on."""
        if not payment.told:
            self.known.append(payment)
            self.ledger[payment.id] = []
        payment.told.append((time.time(), self.host.simulator.payment(payment.id)))
        return payment

    def other(self, user: User) -> User:
        """Return the other user."""
        return next(one for one in self.users if one != user)


def workers(host: Host) -> list[int]:
    """Return the process ids of a host's workers."""
    children = Path(f"/proc/{host.server.pid}/task/{host.server.pid}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def explore(host: Host, runs: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    """Run that many histories."""
    machine = type("HistoriesAtThisHost", (PaymentHistories,), {"host": host})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS,
            deadline=None,
            report_multiple_bugs=False,
            derandomize=not THOROUGH,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_invariants_hold_whatever_happens(four_workers: Host) -> None:
    explore(four_workers, RUNS)


# --- Negative controls -------------------------------------------------------------------------------


@pytest.mark.parametrize("mutation", ["no owner", "provider not believed", "no repair"])
def test_without_its_guard_the_proof_fails(sqlite_pair: HostPair, mutation: str) -> None:
    with sqlite_pair.mutated(mutation), pytest.raises(AssertionError):
        explore(sqlite_pair.host, CONTROL_RUNS, (Phase.generate,))
