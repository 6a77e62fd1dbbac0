"""A sweep is killed, stopped and raced at each step of a credit, and everybody has their money once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.support.harness.host import Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import running_simulator

from .checkpoints import SETTLING_STEPS, Checkpoint, Checkpoints
from .host_pair import THOROUGH
from .payments import WEBHOOK, assert_books_balance, assert_one_credit, topups
from .test_crash import RestartableHost

SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1",
}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    """Yield a provider of our own: every payment of the shop is swept."""
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def sweeping(
    request: pytest.FixtureRequest,
    program: Program,
    provider: Simulator,
    checkpoints: Checkpoints,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
) -> Iterator[RestartableHost]:
    """Yield a host that sweeps every second, on either database."""
    url = postgres.new_database() if request.param == "postgres" else None
    folder: Path = tmp_path_factory.mktemp("sweeping")
    restartable = RestartableHost(folder, program, provider, checkpoints, url, **SWEEPING)
    yield restartable
    restartable.close()


def until_credited(user: User, payment_id: str) -> None:
    """Wait until the sweep has done all there is to do, and see that it did so once."""

    def is_done() -> bool:
        record = user.host.books.record(payment_id)
        return (
            bool(topups(user.host.books, payment_id))
            and record is not None
            and record["status"] == "succeeded"
        )

    wait_until(is_done, PATIENCE, "the sweep did not credit it")
    assert_one_credit(user, payment_id)


@pytest.mark.parametrize("step", SETTLING_STEPS if THOROUGH else ["second read", "ledger committed"])
def test_killed_at_a_step_it_loses_nothing_and_credits_once(
    sweeping: RestartableHost, checkpoints: Checkpoints, step: str
) -> None:
    user = sweeping.host.new_user()
    payment_id = user.topup()
    with checkpoints.stopping(step, payment_id) as arrived:
        user.host.simulator.pay(payment_id)
        assert arrived.wait(PATIENCE), f"the sweep did not reach: {step}"
        sweeping.kill()
    sweeping.start()
    until_credited(replace(user, host=sweeping.host), payment_id)


def test_a_webhook_at_any_step_of_it_leaves_one_credit(
    sweeping: RestartableHost, checkpoints: Checkpoints
) -> None:
    simulator = sweeping.host.simulator
    simulator.webhooks(url=f"{sweeping.host.base_url}{WEBHOOK}")
    # A credit that is not committed holds SQLite's only lock for writing, for which a webhook would wait.
    steps = [step for step in SETTLING_STEPS if step != "credit not committed"]
    users = [sweeping.host.new_user() for _ in steps]
    payments = [user.topup() for user in users]
    with ExitStack() as meetings:
        for step, payment_id in zip(steps, payments, strict=True):

            def deliver(reached: Checkpoint) -> None:
                simulator.deliver(reached.payment_id, "payment.succeeded")

            meetings.enter_context(checkpoints.at(step, payment_id, deliver))
        for payment_id in payments:
            simulator.pay(payment_id)
        for user, payment_id in zip(users, payments, strict=True):
            until_credited(user, payment_id)
    for user in users:
        assert_books_balance(user)


def answers(host: Host) -> bool:
    """Whether the host takes requests."""
    try:
        return host.http.get("/health").is_success
    except httpx.TransportError:
        return False


def test_a_stop_finishes_the_credit_under_way_and_begins_no_other(
    sweeping: RestartableHost, checkpoints: Checkpoints
) -> None:
    under_way, later = sweeping.host.new_user(), sweeping.host.new_user()
    first, second = under_way.topup(), later.topup()
    with checkpoints.stopping("path entered", first) as arrived:
        under_way.host.simulator.pay(first)
        assert arrived.wait(PATIENCE), "the sweep did not come"
        later.host.simulator.pay(second)
        os.kill(sweeping.host.server.pid, signal.SIGTERM)
        wait_until(lambda: not answers(sweeping.host), 10, "the stop has not begun")
    began = time.monotonic()
    sweeping.await_end()
    assert time.monotonic() - began < 5  # a second for the credit, and some for the rest of the host
    sweeping.start()
    assert topups(sweeping.host.books, first)
    for user, payment_id in ((under_way, first), (later, second)):
        until_credited(replace(user, host=sweeping.host), payment_id)
