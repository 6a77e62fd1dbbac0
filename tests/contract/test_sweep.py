"""The sweep: nobody comes back and no webhook comes, and everybody gets their money once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tests.support.harness.host import Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Seen, Simulator, rubles

from . import answers
from .scenarios import assert_credited_once, concurrently, host_with_a_provider, paid, unrecorded

INTERVAL = 1.0
SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": f"{INTERVAL:g}",
}
HOUR = 60 * 60
THROTTLED = {"status": 429, "body": {"type": "error", "code": "too_many_requests", "retry_after": 100}}
PATIENCE = 60.0


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest, program: Program, postgres: Postgres) -> Iterator[Host]:
    """Yield a host that sweeps every second: SQLite and one worker, PostgreSQL and two."""
    with host_with_a_provider(program, postgres, request.param, SWEEPING) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    """Return a new user of a host whose provider answers."""
    host.simulator.clear_faults()
    return host.new_user()


def lists(simulator: Simulator) -> list[Seen]:
    """Return the lists that were asked for, the first pages only."""
    return [
        seen
        for seen in simulator.requests()
        if seen.payment_id is None and seen.method == "GET" and "cursor=" not in seen.target
    ]


def passes(host: Host, count: int) -> None:
    """Wait until so many passes have been made from here on: the next list after them has begun."""
    before = len(lists(host.simulator))
    wait_until(
        lambda: len(lists(host.simulator)) > before + count, PATIENCE, f"the host did not list {count} times"
    )


def is_credited(host: Host, payment_id: str) -> bool:
    record = host.books.record(payment_id)
    return bool(host.books.entries(payment_id)) and record is not None and record["status"] == "succeeded"


def credited(host: Host, payment_id: str) -> None:
    """Wait until a payment is credited."""
    wait_until(lambda: is_credited(host, payment_id), PATIENCE, f"{payment_id} was not credited")


def test_thirty_people_pay_and_nobody_returns(host: Host, user: User) -> None:
    people = [host.new_user() for _ in range(30)]
    payments = concurrently([partial(paid, who) for who in people])
    passes(host, 2)
    for who, payment_id in zip(people, payments, strict=True):
        assert_credited_once(who, payment_id)
        record = host.books.record(payment_id)
        assert record is not None
        assert record["raw_payload_json"]["metadata"]["reconciled_by"] == "sweep"
        assert f"Top-up credited: payment={payment_id} " in host.log


def test_all_workers_together_make_one_pass_an_interval(host: Host, user: User) -> None:
    passes(host, 1)
    host.simulator.forget_requests()
    began = time.monotonic()
    passes(host, 8)
    elapsed = time.monotonic() - began
    assert len(lists(host.simulator)) <= 1.3 * elapsed / INTERVAL + 1


def test_other_payments_of_the_shop_are_touched_by_nobody(host: Host, user: User) -> None:
    wallet_id = host.books.wallet(user.id)["id"] if user.balance() == 0 else ""
    theirs = [
        unrecorded(user),  # no wallet is named
        unrecorded(user, metadata={"wallet_id": "elsewhere"}),
        unrecorded(user, metadata={"kind": "subscription", "wallet_id": wallet_id}),
        unrecorded(user, metadata={"user_id": "elsewhere", "wallet_id": wallet_id}),
        str(host.simulator.create(metadata={})["id"]),
    ]
    ours = unrecorded(user, metadata={"wallet_id": wallet_id})
    credited(host, ours)
    passes(host, 2)
    assert user.balance() == 100_000
    for payment_id in theirs:
        assert host.books.record(payment_id) is None
        assert host.books.entries(payment_id) == []
        assert payment_id not in host.log


def test_what_does_not_add_up_is_held(host: Host, user: User) -> None:
    refunded, mismatch = user.topup(), user.topup()
    captured_at = datetime.now(UTC).isoformat()
    oddities: dict[str, Any] = {
        mismatch: {"amount": rubles("1.00")},
        refunded: {"refunded_amount": rubles("1.00")},
    }
    for payment_id, oddity in oddities.items():
        host.simulator.change(payment_id, status="succeeded", paid=True, captured_at=captured_at, **oddity)
    passes(host, 2)
    assert user.balance() == 0
    for payment_id, why in (
        (mismatch, "reason=amount_mismatch kopeks=100"),
        (refunded, "reason=refunded kopeks=99900"),
    ):
        assert f"payment={payment_id} user={user.id} {why} currency=RUB way=sweep" in host.log


@pytest.mark.parametrize("fault", [{"status": 500}, THROTTLED, {"raw": "<html>"}, {"reset": True}])
def test_a_provider_that_fails_for_several_passes_is_healed(
    host: Host, user: User, fault: dict[str, Any]
) -> None:
    payment_id = user.topup()
    host.simulator.fault(**fault)
    host.simulator.pay(payment_id)
    passes(host, 2)
    assert not host.books.entries(payment_id)
    host.simulator.clear_faults()
    credited(host, payment_id)
    assert_credited_once(user, payment_id)


def test_a_canceled_topup_that_nobody_returns_to_is_closed(host: Host, user: User) -> None:
    payment_id = user.topup()
    host.simulator.decline(payment_id)
    host.books.change_record(payment_id, created_at=int(time.time()) - 2 * HOUR)

    def status() -> str:
        record = host.books.record(payment_id)
        assert record is not None
        return str(record["status"])

    wait_until(lambda: status() == "canceled", PATIENCE, "the payment was not closed")
    assert host.simulator.questions(payment_id) == 1


def test_a_topup_wrongly_canceled_here_is_credited(host: Host, user: User) -> None:
    payment_id = user.topup()
    host.books.change_record(payment_id, status="canceled")
    host.simulator.pay(payment_id)
    credited(host, payment_id)
    assert_credited_once(user, payment_id)


def test_webhook_return_visit_and_sweep_at_once_credit_once(host: Host, user: User) -> None:
    people = [host.new_user() for _ in range(8)]
    payments = [paid(who) for who in people]
    host.simulator.webhooks(url=f"{host.base_url}/api/v1/billing/webhook/yookassa")
    calls: list[Callable[[], object]] = []
    for who, payment_id in zip(people, payments, strict=True):
        calls += [partial(who.reconcile, payment_id), who.reconcile_pending]
        calls += [partial(host.simulator.deliver, payment_id, "payment.succeeded")]
    concurrently(calls)
    passes(host, 2)
    for who, payment_id in zip(people, payments, strict=True):
        assert_credited_once(who, payment_id)
        answers.credited(who.reconcile(payment_id), payment_id)
