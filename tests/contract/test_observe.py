"""While only observing everything is asked, decided and told, and nothing is written, whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.harness.host import Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until

from . import answers
from .scenarios import dump, host_with_a_provider, paid

OBSERVING = {
    "BILLING_TOPUP_RECONCILE_MODE": "observe",
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1",
}
HOUR = 60 * 60


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest, program: Program, postgres: Postgres) -> Iterator[Host]:
    """Yield a host that observes and sweeps every second: SQLite and one worker, PostgreSQL and two."""
    with host_with_a_provider(program, postgres, request.param, OBSERVING) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    return host.new_user()


def logged(host: Host, words: str) -> None:
    """Wait for a line of the log."""
    wait_until(lambda: words in host.log, 30, f"not logged: {words}")


def test_nothing_is_written_whoever_asks(host: Host, user: User) -> None:
    returned, visited, swept, canceled, lagging = (paid(user) for _ in range(5))
    host.simulator.change(canceled, status="canceled", paid=False)
    host.books.change_record(canceled, created_at=int(time.time()) - 2 * HOUR)
    assert host.webhook(lagging) == 200
    host.books.change_record(lagging, status="failed")
    before = dump(host)
    response = user.reconcile(returned)
    assert response.json() == {
        "payment_id": returned,
        "provider_status": "succeeded",
        "payment_status": "pending",
        "credited": False,
    }
    assert {topup["credited"] for topup in user.reconcile_pending().json()["payments"]} == {False}
    answers.credited(user.reconcile(lagging), lagging, payment_status="failed")
    for payment_id in (returned, visited, swept):
        logged(host, f"Top-up would be credited: payment={payment_id} user={user.id} wallet=")
    logged(host, f"Top-up would be canceled: payment={canceled} user={user.id} way=")
    assert dump(host) == before
    assert "Top-up credited: " not in host.log
    assert "Top-up sweep: " not in host.log  # it would say that something was written


def test_what_it_would_do_is_said_once(host: Host, user: User) -> None:
    payment_id = paid(user)
    logged(host, f"Top-up would be credited: payment={payment_id}")
    for _ in range(3):
        user.reconcile(payment_id)
    assert host.log.count(f"Top-up would be credited: payment={payment_id}") <= host.workers


def test_it_says_so_at_start(host: Host) -> None:
    assert "; only observes, sweeps every 1 s; " in host.log
