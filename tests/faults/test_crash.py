"""The worker is killed at an exact step; the next call, or the webhook, still brings exactly one credit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.support.harness.books import Books
from tests.support.harness.host import Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator

from .checkpoints import CREDITING_STEPS, Checkpoints
from .host_pair import THOROUGH, mutate, watched_host
from .payments import assert_books_balance, assert_credited, assert_one_credit, paid, topups

# One call stops at each step, in this order, and all are killed together. The call that stops last holds
# SQLite's only write lock, for which all that write later would wait.
WHILE_WRITING = "credit not committed"
LAST_STEPS = (*(step for step in CREDITING_STEPS if step != WHILE_WRITING), WHILE_WRITING)


class RestartableHost:
    """A host of one worker that can be killed and started again on the same database."""

    def __init__(
        self,
        folder: Path,
        program: Program,
        simulator: Simulator,
        checkpoints: Checkpoints,
        url: str | None,
        **flags: str,
    ) -> None:
        self._options: dict[str, Any] = {
            "env": flags,
            "program": program,
            "simulator": simulator,
            "checkpoints": checkpoints,
            "database_url": url,
            "data_dir": folder,
        }
        self._running = ExitStack()
        self.host: Host = self._running.enter_context(watched_host(**self._options))

    @property
    def url(self) -> str:
        """Its database, the same after each start."""
        return self.host.environment["DATABASE_URL"]

    def start(self) -> None:
        """Start it again; the administrator is still the same."""
        admin = self.host.admin
        self.host = self._running.enter_context(watched_host(**self._options))
        self.host.admin = replace(admin, host=self.host)

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        os.kill(self.host.server.pid, signal.SIGKILL)
        self.await_end()

    def await_end(self) -> None:
        """Wait until the process, which has been told to, has ended."""
        wait_until(lambda: self.host.server.returncode is not None, 10, "it survived")
        with pytest.raises(RuntimeError, match="died"):
            self._running.close()

    def close(self) -> None:
        """Stop it."""
        self._running.close()


@pytest.fixture(scope="module")
def sqlite_restartable(
    program: Program, simulator: Simulator, checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RestartableHost]:
    restartable = RestartableHost(
        tmp_path_factory.mktemp("restartable"), program, simulator, checkpoints, None
    )
    yield restartable
    restartable.close()


@pytest.fixture(scope="module")
def postgres_restartable(
    program: Program,
    simulator: Simulator,
    checkpoints: Checkpoints,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
) -> Iterator[RestartableHost]:
    url = postgres.new_database()
    restartable = RestartableHost(
        tmp_path_factory.mktemp("restartable"), program, simulator, checkpoints, url
    )
    yield restartable
    restartable.close()


@pytest.fixture(params=["sqlite_restartable", "postgres_restartable"], ids=["sqlite", "postgres"])
def restartable(request: pytest.FixtureRequest) -> RestartableHost:
    """A host to be killed, on either database."""
    restartable: RestartableHost = request.getfixturevalue(request.param)
    return restartable


def kill_at(
    restartable: RestartableHost, checkpoints: Checkpoints, stops: Sequence[tuple[str, ...]]
) -> list[tuple[User, str]]:
    """Let one call stop at each step, then kill the worker. Return each call's user and payment.

    A stop is the name of the step and of the mutations under which the call gets there.
    """
    users = [restartable.host.new_user() for _ in stops]
    payments = [(user, paid(user)) for user in users]
    calls: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(len(stops)) as pool, ExitStack() as stopping:
        for (step, *mutations), (user, payment_id) in zip(stops, payments, strict=True):
            # A worker has fewer threads than there are calls to stop.
            mutate(restartable.host, "no thread slot", *mutations)
            arrived = stopping.enter_context(checkpoints.stopping(step, payment_id))
            calls.append(pool.submit(user.reconcile, payment_id))
            assert arrived.wait(10), f"the call did not reach: {step}"
        restartable.kill()
    assert all(isinstance(call.exception(), httpx.TransportError) for call in calls)
    return payments


def assert_no_lock_is_left(database_url: str, seconds: float = 5) -> None:
    """There is no transaction on this database any more, and anybody may write."""
    with closing(Books(database_url)) as books, books.transaction() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(text("PRAGMA busy_timeout = 0"))
            connection.execute(text("BEGIN IMMEDIATE"))
            return
        others = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
        )
        # PostgreSQL has to notice the death first.
        wait_until(lambda: connection.scalar(others) == 0, seconds, "a transaction was left behind")


def by_call(user: User, payment_id: str) -> None:
    """The user calls again."""
    assert_credited(user.reconcile(payment_id), payment_id)


def by_webhook(user: User, payment_id: str) -> None:
    """The provider's notification arrives after all."""
    assert user.host.webhook(payment_id) == 200


Recovery = Callable[[User, str], None]


def assert_recovered_once(recover: Recovery, user: User, payment_id: str) -> None:
    """After the recovery the money is there, once."""
    recover(user, payment_id)
    assert_one_credit(user, payment_id)


# Each step is recovered from in one way on SQLite and in the other on PostgreSQL; in the long version both
# ways on both.
@pytest.mark.parametrize("swapped", [False, True] if THOROUGH else [False])
def test_killed_worker_loses_nothing_and_credits_once(
    restartable: RestartableHost, checkpoints: Checkpoints, swapped: bool
) -> None:
    recoveries = [by_call, by_webhook]
    if restartable.url.startswith("sqlite") is swapped:
        recoveries.reverse()
    payments = kill_at(restartable, checkpoints, [(step,) for step in LAST_STEPS])
    books = restartable.host.books
    assert_no_lock_is_left(restartable.url)
    for step, (user, payment_id) in zip(LAST_STEPS, payments, strict=True):
        is_committed = CREDITING_STEPS.index(step) >= CREDITING_STEPS.index("ledger committed")
        assert len(topups(books, payment_id)) == is_committed
        assert_books_balance(user)
    restartable.start()
    for (user, payment_id), recover in zip(payments, cycle(recoveries), strict=False):
        survivor = replace(user, host=restartable.host)
        assert_recovered_once(recover, survivor, payment_id)
        assert_recovered_once(by_call, survivor, payment_id)


# --- Negative controls -------------------------------------------------------------------------------


def test_without_its_guard_the_proof_fails(
    sqlite_restartable: RestartableHost, checkpoints: Checkpoints
) -> None:
    step = "ledger committed"
    credited, credited_without_key = kill_at(
        sqlite_restartable, checkpoints, [(step,), (step, "own crediting path")]
    )
    sqlite_restartable.start()
    for mutation, recover, (user, payment_id), failure in (
        ("no repair", by_call, credited, "'payment_status': 'pending'"),
        ("own crediting path", by_webhook, credited_without_key, "one more item"),
    ):
        mutate(sqlite_restartable.host, mutation)
        with pytest.raises(AssertionError, match=failure):
            assert_recovered_once(recover, replace(user, host=sqlite_restartable.host), payment_id)
    mutate(sqlite_restartable.host)


def test_lock_that_is_left_is_noticed(restartable: RestartableHost) -> None:
    books = restartable.host.books
    user = restartable.host.new_user()
    user.balance()
    with books.transaction() as holder:
        if holder.dialect.name == "sqlite":
            holder.execute(text("BEGIN IMMEDIATE"))
        holder.execute(books.wallet_table.update().values(updated_at=1))
        with pytest.raises(Exception, match=r"locked|left behind"):
            assert_no_lock_is_left(restartable.url, 0.1)
