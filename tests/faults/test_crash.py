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

from .checkpoints import ON_THE_WAY, Checkpoints
from .host_pair import (
    THOROUGH,
    assert_books_balance,
    assert_credited,
    assert_one_credit,
    mutate,
    paid,
    topups,
    watched_host,
)

# Calls stop together at the steps of one row, in that order, and die together. A worker has two threads to
# read and two to write, and one call may hold the only write lock: so who would be in the way comes last.
DEATHS = (
    ("provider asked", "provider answered", "path entered", "path has the record", "row read", "record read"),
    ("ledger committed", "status written", "books read again", "wallet read"),
    ("proof read", "credit not committed"),
)


class RestartableHost:
    """A host of one worker that can be killed and started again on the same database."""

    def __init__(
        self, folder: Path, program: Program, simulator: Simulator, checkpoints: Checkpoints, url: str | None
    ) -> None:
        self._options: dict[str, Any] = {
            "program": program,
            "simulator": simulator,
            "checkpoints": checkpoints,
            "database_url": url,
            "data_dir": folder,
        }
        self._life = ExitStack()
        self.host: Host = self._life.enter_context(watched_host(**self._options))

    @property
    def url(self) -> str:
        """Its database, in all its lives."""
        return self.host.environment["DATABASE_URL"]

    def start(self) -> None:
        """A new life; the administrator is still the same."""
        admin = self.host.admin
        self.host = self._life.enter_context(watched_host(**self._options))
        self.host.admin = replace(admin, host=self.host)

    def kill(self) -> None:
        """The process is gone at once, whatever it was doing."""
        os.kill(self.host.server.pid, signal.SIGKILL)
        wait_until(lambda: self.host.server.returncode is not None, 10, "it survived")
        with pytest.raises(RuntimeError, match="died"):
            self._life.close()

    def close(self) -> None:
        """No more lives."""
        self._life.close()


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
    """A host that dies, on either database."""
    restartable: RestartableHost = request.getfixturevalue(request.param)
    return restartable


def die(
    restartable: RestartableHost, checkpoints: Checkpoints, steps: Sequence[str]
) -> dict[str, tuple[User, str]]:
    """Let a call come to each step, then kill the worker; whose payment died where."""
    users = {step: restartable.host.new_user() for step in steps}
    payments = {step: (user, paid(user)) for step, user in users.items()}
    calls: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(len(steps)) as pool, ExitStack() as stops:
        for step, (user, payment_id) in payments.items():
            arrived = stops.enter_context(checkpoints.stopping(step, payment_id))
            calls.append(pool.submit(user.reconcile, payment_id))
            assert arrived.wait(10), f"the call did not come to: {step}"
        restartable.kill()
    assert all(isinstance(call.exception(), httpx.TransportError) for call in calls)
    return payments


def assert_no_lock_is_left(database_url: str, seconds: float = 5) -> None:
    """Nobody is in a transaction on this database any more, and anybody may write."""
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
    """The person comes back."""
    assert_credited(user.reconcile(payment_id), payment_id)


def by_webhook(user: User, payment_id: str) -> None:
    """The provider's notification arrives after all."""
    assert user.host.webhook(payment_id) == 200


Healer = Callable[[User, str], None]


def healed_once(heal: Healer, user: User, payment_id: str) -> None:
    """After that the money is there, once."""
    heal(user, payment_id)
    assert_one_credit(user, payment_id)


def test_all_steps_are_died_at() -> None:
    assert sorted(step for steps in DEATHS for step in steps) == sorted(ON_THE_WAY)


# Each step is healed in one way on SQLite and in the other on PostgreSQL; with time, the other way round too.
@pytest.mark.parametrize("swapped", [False, True] if THOROUGH else [False])
@pytest.mark.parametrize("steps", DEATHS, ids=["early", "midway", "late"])
def test_killed_worker_loses_nothing_and_credits_once(
    restartable: RestartableHost, checkpoints: Checkpoints, steps: Sequence[str], swapped: bool
) -> None:
    by_turns = (
        [by_call, by_webhook]
        if restartable.url.startswith("sqlite") is not swapped
        else [by_webhook, by_call]
    )
    payments = die(restartable, checkpoints, steps)
    books = restartable.host.books
    assert_no_lock_is_left(restartable.url)
    for step, (user, payment_id) in payments.items():
        committed = ON_THE_WAY.index(step) >= ON_THE_WAY.index("ledger committed")
        assert len(topups(books, payment_id)) == committed
        assert_books_balance(user)
    restartable.start()
    for (user, payment_id), heal in zip(payments.values(), cycle(by_turns), strict=False):
        survivor = replace(user, host=restartable.host)
        healed_once(heal, survivor, payment_id)
        healed_once(by_call, survivor, payment_id)


# --- Negative controls -------------------------------------------------------------------------------


@pytest.mark.parametrize(("guard", "heal"), [("repair", by_call), ("the host's path", by_webhook)])
def test_without_its_guard_the_proof_fails(
    sqlite_restartable: RestartableHost, checkpoints: Checkpoints, guard: str, heal: Healer
) -> None:
    mutate(sqlite_restartable.host, guard)
    user, payment_id = die(sqlite_restartable, checkpoints, ["ledger committed"])["ledger committed"]
    sqlite_restartable.start()
    mutate(sqlite_restartable.host, guard)
    survivor = replace(user, host=sqlite_restartable.host)
    with pytest.raises(AssertionError):
        healed_once(heal, survivor, payment_id)
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
