"""An administrator releases a held payment: what the provider holds, to its owner, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from openwebui_billing_reconcile.money.release import UNCREDITED, ReleaseReason
from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import rubles

from . import answers
from .scenarios import concurrently, dump, host_with_a_provider, nothing_written, paid, unrecorded

LIVE = {"BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS": "false"}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest, program: Program, postgres: Postgres) -> Iterator[Host]:
    """Yield a host that credits no test payments: SQLite and one worker, PostgreSQL and two."""
    with host_with_a_provider(program, postgres, request.param, LIVE) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    host.simulator.clear_faults()
    return host.new_user()


def mismatched(user: User) -> str:
    """Less was paid than ordered."""
    payment_id = paid(user)
    user.host.simulator.change(payment_id, amount=rubles("250.50"), test=False)
    return payment_id


def refunded(user: User) -> str:
    """A part was given back."""
    payment_id = paid(user)
    user.host.simulator.refund(payment_id, "100.00")
    user.host.simulator.change(payment_id, test=False)
    return payment_id


def test_payment(user: User) -> str:
    payment_id = paid(user)
    user.host.simulator.change(payment_id, test=True)
    return payment_id


def walletless(user: User) -> str:
    """The wallet that the record names is gone; the user has another one."""
    payment_id = paid(user)
    user.host.simulator.change(payment_id, test=False)
    user.host.books.change_record(payment_id, wallet_id="gone")
    return payment_id


def forgotten(user: User) -> str:
    """In order, and nobody has credited it."""
    payment_id = paid(user)
    user.host.simulator.change(payment_id, test=False)
    return payment_id


def marked(user: User) -> str:
    """Marked succeeded, and the ledger has nothing."""
    payment_id = paid(user)
    user.host.simulator.change(payment_id, test=False)
    user.host.books.change_record(payment_id, status="succeeded")
    return payment_id


test_payment.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """How a payment comes to be held, and what a release credits."""

    make: Callable[[User], str]
    reason: ReleaseReason
    kopeks: int


CASES = [
    Case(mismatched, HoldReason.AMOUNT_MISMATCH, 25_050),
    Case(refunded, HoldReason.REFUNDED, 90_000),
    Case(test_payment, HoldReason.TEST_PAYMENT, 100_000),
    Case(walletless, HoldReason.WALLET_MISSING, 100_000),
    Case(marked, HoldReason.SUCCEEDED_WITHOUT_LEDGER, 100_000),
]
UNHELD = Case(forgotten, UNCREDITED, 100_000)


def each_of(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[str(case.reason) for case in cases])


def released(response: httpx.Response, user: User, payment_id: str, kopeks: int) -> None:
    """Assert that the money was credited."""
    assert response.status_code == 200, response.text
    assert response.json() == {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
        "amount_kopeks": kopeks,
        "currency": "RUB",
        "user_id": user.id,
        "wallet_id": user.host.books.wallet(user.id)["id"],
    }


def refused(response: httpx.Response, reason: str) -> None:
    """Assert 409 with the reason's code."""
    assert response.status_code == 409, response.text
    body = response.json()
    assert body.keys() == {"detail", "reason"}
    assert body["reason"] == reason
    assert body["detail"]


def entry_of(user: User, payment_id: str) -> dict[str, Any]:
    (entry,) = user.host.books.entries(payment_id)
    return entry


@each_of(*CASES)
def test_what_is_released_is_held_until_then(user: User, case: Case) -> None:
    assert isinstance(case.reason, HoldReason)
    answers.held(user.reconcile(case.make(user)), case.reason)


@each_of(*CASES, UNHELD)
def test_each_reason_is_released_once_and_nothing_later_adds_to_it(
    host: Host, user: User, case: Case
) -> None:
    payment_id = case.make(user)
    preview = host.admin.release(payment_id, case.reason, confirm=False, note="")
    assert (preview.json()["credited"], preview.json()["amount_kopeks"]) == (False, case.kopeks)
    assert host.books.entries(payment_id) == []

    released(host.admin.release(payment_id, case.reason), user, payment_id, case.kopeks)
    assert user.balance() == case.kopeks
    refused(host.admin.release(payment_id, case.reason), "already_credited")
    assert host.webhook(payment_id) == 200
    answers.credited(user.reconcile(payment_id), payment_id)
    assert user.balance() == case.kopeks
    assert entry_of(user, payment_id)["amount_kopeks"] == case.kopeks
    assert payment_id not in {found["payment_id"] for found in host.admin.audit().json()["findings"]}


@each_of(*CASES, UNHELD)
def test_two_workers_at_the_same_moment_release_once(host: Host, user: User, case: Case) -> None:
    payment_id = case.make(user)
    user.balance()
    release = partial(host.admin.release, payment_id, case.reason)
    with ThreadPoolExecutor(1) as pool:
        webhook = pool.submit(host.webhook, payment_id)
        statuses = [response.status_code for response in concurrently([release] * 8)]
        webhook.result()
    assert set(statuses) <= {200, 409, 503}
    assert statuses.count(200) <= 1
    entry = entry_of(user, payment_id)
    assert user.balance() == entry["amount_kopeks"]
    if 200 in statuses:
        assert entry["amount_kopeks"] == case.kopeks


def test_a_webhook_that_comes_first_makes_the_release_a_second_one(host: Host, user: User) -> None:
    payment_id = walletless(user)
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.change_record(payment_id, wallet_id=wallet_id)
    assert host.webhook(payment_id) == 200
    refused(host.admin.release(payment_id, HoldReason.WALLET_MISSING), "already_credited")
    assert user.balance() == 100_000


def test_who_why_and_when_stand_with_the_entry_and_in_the_log(host: Host, user: User) -> None:
    payment_id = mismatched(user)
    before = int(time.time())
    note = "Paid less\nby agreement"
    released(host.admin.release(payment_id, "amount_mismatch", note=f"  {note} "), user, payment_id, 25_050)
    metadata = entry_of(user, payment_id)["metadata_json"]
    assert metadata["reconciled_by"] == "release"
    assert (metadata["released_by"], metadata["reason"]) == (host.admin.id, "amount_mismatch")
    assert metadata["note"] == note
    assert before <= metadata["released_at"] <= time.time()
    credited_line = f"Top-up credited: payment={payment_id}"  # the last of them
    wait_until(lambda: credited_line in host.log, 30, f"not logged: {credited_line}")
    (line,) = [line for line in host.log.splitlines() if f"Top-up released: payment={payment_id}" in line]
    assert "WARNING" in line
    assert f"by={host.admin.id} note={note!r}" in line
    assert "kopeks=25050 currency=RUB way=release" in host.log


def test_only_what_is_held_for_exactly_that_reason_is_released(host: Host, user: User) -> None:
    payment_id, ready, undecided = mismatched(user), paid(user), user.topup()
    host.simulator.change(ready, test=False)
    with nothing_written(user, about=payment_id):
        refused(host.admin.release(payment_id, "refunded"), "amount_mismatch")
    refused(host.admin.release(ready, "amount_mismatch"), "not_held")
    refused(host.admin.release(undecided, "amount_mismatch"), "not_held")
    refused(host.admin.release(undecided, "uncredited"), "not_held")
    with nothing_written(user, about=payment_id):
        refused(host.admin.release(payment_id, "uncredited"), "amount_mismatch")
    assert user.balance() == 0


@pytest.mark.parametrize(
    ("reason", "oddity"),
    [
        ("not_paid", {"paid": False}),
        ("malformed", {"amount": {"value": "1", "currency": "RUB"}}),
        ("other_shop", {"recipient": {"account_id": "999", "gateway_id": "1"}}),
        ("currency_mismatch", {"amount": {"value": "1000.00", "currency": "USD"}}),
        ("refunded", {"refunded_amount": rubles("1000.00")}),
    ],
)
def test_what_nobody_may_release_stays_held(
    host: Host, user: User, reason: str, oddity: dict[str, Any]
) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, test=False, **oddity)
    with nothing_written(user, about=payment_id):
        refused(host.admin.release(payment_id, reason), reason)


def test_an_obstacle_that_is_not_named_still_holds(host: Host, user: User) -> None:
    payment_id = refunded(user)
    host.simulator.change(payment_id, test=True)
    refused(host.admin.release(payment_id, "refunded"), "test_payment")
    host.simulator.change(payment_id, test=False)
    host.books.change_record(payment_id, wallet_id="gone")
    refused(host.admin.release(payment_id, "refunded"), "wallet_missing")
    assert user.balance() == 0


def test_the_provider_is_asked_anew(host: Host, user: User) -> None:
    payment_id = mismatched(user)
    host.admin.release(payment_id, "amount_mismatch", confirm=False)
    host.simulator.refund(payment_id, "250.50")
    refused(host.admin.release(payment_id, "amount_mismatch"), "refunded")
    assert user.balance() == 0


def test_without_a_record_the_wallets_owner_is_credited(host: Host, user: User) -> None:
    user.balance()
    wallet_id = host.books.wallet(user.id)["id"]
    payment_id = unrecorded(user, metadata={"wallet_id": wallet_id, "amount_kopeks": "5000"}, test=False)
    response = host.admin.release(payment_id, "amount_mismatch")
    assert response.status_code == 200
    assert response.json()["payment_status"] in {None, "succeeded"}  # newer hosts need a record first
    assert user.balance() == 100_000
    assert host.webhook(payment_id) == 200
    assert user.balance() == 100_000


def test_anothers_payment_of_the_shop_is_released_to_nobody(host: Host, user: User) -> None:
    foreign = str(host.simulator.create(metadata={"kind": "topup", "user_id": "elsewhere"})["id"])
    refused(host.admin.release(foreign, "wallet_missing"), "not_a_topup")


@pytest.mark.parametrize(
    "body",
    [
        {"note": ""},
        {"note": "   "},
        {"note": "x" * 501},
        {"note": 5},
        {"reason": "because"},
        {"reason": None},
        {"confirm": None},
        {"confirm": "true"},
        {"payment_id": "../refunds"},
    ],
)
def test_an_order_that_is_not_clear_is_refused(host: Host, user: User, body: dict[str, Any]) -> None:
    payment_id = mismatched(user)
    with nothing_written(user, about=payment_id):
        order = {"payment_id": payment_id, "reason": "amount_mismatch"} | body
        answers.error(host.admin.release(**order), 400)


def test_a_payment_that_the_provider_does_not_know_is_404(host: Host) -> None:
    answers.error(host.admin.release("unknown", "refunded"), 404)


def test_users_are_refused_and_nothing_is_cached(host: Host, user: User) -> None:
    payment_id = mismatched(user)
    before = dump(host)
    for response in (user.release(payment_id, "amount_mismatch"), user.audit(), user.report()):
        assert response.status_code in {401, 403}
        assert response.headers["cache-control"] == "no-store"
        assert response.json().keys() == {"detail"}
    for response in (host.admin.audit(), host.admin.report(), host.admin.release("x", "y")):
        assert response.headers["cache-control"] == "no-store"
    assert dump(host) == before
