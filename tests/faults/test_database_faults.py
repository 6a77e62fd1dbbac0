"""The database is locked, cut off, read-only, without connections, or a row in it is held."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import pytest
from sqlalchemy import Connection, text

from openwebui_billing_reconcile.topup.reply import REPLY_TIMEOUT
from openwebui_billing_reconcile.topup.wallet_wait import MIN_WAIT
from tests.support.harness.books import Books
from tests.support.harness.host import User
from tests.support.harness.postgres import Postgres, closing_engine
from tests.support.harness.waiting import wait_until

from .bystander import unharmed
from .checkpoints import CREDITING_STEPS
from .host_pair import HostPair
from .payments import (
    assert_books_balance,
    assert_credited,
    assert_no_credit,
    assert_one_credit,
    assert_refused,
    at_once,
    paid,
)

SOON = 3.0  # seconds, on a busy machine
PATIENCE = 1.5  # what a busy machine may add
STEPS_AT_THE_DATABASE = CREDITING_STEPS[CREDITING_STEPS.index("provider answered") :]


def timed(user: User, payment_id: str, seconds: float = REPLY_TIMEOUT) -> httpx.Response:
    """Reconcile, and assert that the reply comes within so many seconds."""
    began = time.monotonic()
    response = user.reconcile(payment_id)
    elapsed = time.monotonic() - began
    assert elapsed < seconds + PATIENCE, f"the reply took {elapsed:.1f} s"
    return response


# --- SQLite ------------------------------------------------------------------------------------------


@contextmanager
def locked(books: Books, how: str) -> Iterator[None]:
    """Lock the database for a long write (IMMEDIATE: others may read; EXCLUSIVE: they may not)."""
    with books.transaction() as connection:
        connection.execute(text(f"BEGIN {how}"))
        yield


def test_sqlite_locked_by_a_writer_is_503_and_heals(sqlite_pair: HostPair) -> None:
    host = sqlite_pair.host
    user, bystander = host.new_user(), host.new_user()
    payment_id = paid(user)
    # The host itself writes after every request, and each of its writers waits with a connection in hand.
    with unharmed(bystander, pause=1), locked(host.books, "IMMEDIATE"):
        assert_refused(timed(user, payment_id), 503)
    assert_no_credit(user, payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def reconcile_while_unreadable(host_pair: HostPair, user: User, payment_id: str) -> httpx.Response:
    """From the provider's answer on the database cannot even be read; the host answers all the same."""
    with ExitStack() as lock:

        def take_lock(_: object) -> None:
            lock.enter_context(locked(host_pair.host.books, "EXCLUSIVE"))

        with (
            unharmed(host_pair.host.new_user(), only_health=True),
            host_pair.checkpoints.at("provider answered", payment_id, take_lock),
        ):
            return timed(user, payment_id)


def test_sqlite_that_cannot_be_read_is_503_and_heals(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()
    payment_id = paid(user)
    assert_refused(reconcile_while_unreadable(sqlite_pair, user, payment_id), 503)
    assert_no_credit(user, payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def test_without_threads_of_our_own_the_proof_fails(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()
    payment_id = paid(user)
    with sqlite_pair.mutated("no threads"), pytest.raises(AssertionError, match="longest wait"):
        reconcile_while_unreadable(sqlite_pair, user, payment_id)


# --- Both --------------------------------------------------------------------------------------------


def test_read_only_database_is_503_and_heals(host_pair: HostPair, user: User) -> None:
    payment_id = paid(user)
    with unharmed(host_pair.host.new_user(), pause=1), host_pair.read_only():
        assert_refused(timed(user, payment_id), 503)
    assert_no_credit(user, payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def test_read_only_database_does_not_deny_a_credit(host_pair: HostPair, user: User) -> None:
    payment_id = paid(user)
    assert_credited(user.reconcile(payment_id), payment_id)
    host_pair.host.books.change_record(payment_id, status="canceled")
    with host_pair.read_only():
        assert_credited(timed(user, payment_id), payment_id, payment_status="canceled")
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def test_without_the_proof_a_read_only_database_is_told_as_a_credit(host_pair: HostPair, user: User) -> None:
    with host_pair.mutated("no proof"), pytest.raises(AssertionError, match="200 == 503"):
        test_read_only_database_is_503_and_heals(host_pair, user)


def test_no_connection_left_is_503_and_heals(postgres_pair: HostPair) -> None:
    host_pair, user = postgres_pair, postgres_pair.host.new_user()
    payment_id = paid(user)
    with ExitStack() as trouble:
        take_all = lambda _: trouble.enter_context(host_pair.exhausted())  # noqa: E731
        with host_pair.checkpoints.at("provider answered", payment_id, take_all):
            assert_refused(timed(user, payment_id), 503)
        assert_no_credit(user, payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


# --- PostgreSQL --------------------------------------------------------------------------------------


@contextmanager
def at_the_server(postgres: Postgres) -> Iterator[Connection]:
    """Connect to the server's own database as its administrator."""
    with closing_engine(postgres.url) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def cut(postgres: Postgres, host_pair: HostPair) -> None:
    """Break all connections to this database."""
    name = host_pair.host.environment["DATABASE_URL"].rpartition("/")[2]
    with at_the_server(postgres) as server:
        server.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
    for host in (host_pair.host, host_pair.other):
        host.books.close()  # ours are broken as well


@contextmanager
def down(postgres: Postgres, host_pair: HostPair) -> Iterator[None]:
    """Break all connections to this database, and allow no new ones for a while."""
    name = host_pair.host.environment["DATABASE_URL"].rpartition("/")[2]
    with at_the_server(postgres) as server:
        server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
    cut(postgres, host_pair)
    try:
        yield
    finally:
        with at_the_server(postgres) as server:
            server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))


@pytest.mark.parametrize("step", STEPS_AT_THE_DATABASE)
def test_postgres_that_restarts_at_any_step_credits_once(
    postgres_pair: HostPair, postgres: Postgres, step: str
) -> None:
    user = postgres_pair.host.new_user()
    payment_id = paid(user)
    with postgres_pair.checkpoints.at(step, payment_id, lambda _: cut(postgres, postgres_pair)):
        response = timed(user, payment_id)
    if response.status_code == 200:
        assert_credited(response, payment_id)
    else:
        assert_refused(response, 503)
        assert_no_credit(user, payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


@pytest.mark.parametrize("step", STEPS_AT_THE_DATABASE[:-1])
def test_postgres_that_goes_down_at_any_step_is_503_and_heals(
    postgres_pair: HostPair, postgres: Postgres, step: str
) -> None:
    user = postgres_pair.host.new_user()
    payment_id = paid(user)
    with ExitStack() as outage:
        go_down: Callable[[object], object] = lambda _: outage.enter_context(  # noqa: E731
            down(postgres, postgres_pair)
        )
        with postgres_pair.checkpoints.at(step, payment_id, go_down):
            assert_refused(timed(user, payment_id), 503)
    assert_books_balance(user)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


# --- A row is held by another transaction --------------------------------------------------------------


@contextmanager
def holding_wallet(user: User) -> Iterator[None]:
    """Lock the row of this user's wallet."""
    user.balance()  # the host creates the wallet
    with user.host.books.holding_wallet(user.host.books.wallet(user.id)["id"]):
        yield


def is_credited(user: User, payment_id: str) -> bool:
    """Reconcile; return whether the payment is credited."""
    response = user.reconcile(payment_id)
    return response.status_code == 200 and response.json()["credited"] is True


def leave_at_once(user: User, payment_id: str) -> None:
    """Reconcile without waiting for the answer."""
    with pytest.raises(httpx.ReadTimeout):
        user.reconcile(payment_id, timeout=0.5)


def owner_of_a_held_wallet_is_told(pair: HostPair) -> None:
    """Its owner is told soon to come again, and nobody else notices."""
    host = pair.host
    stuck, other = host.new_user(), host.new_user()
    payments = [paid(stuck) for _ in range(5)]
    others = [paid(other) for _ in range(3)]
    with unharmed(host.new_user()), ThreadPoolExecutor(1) as pool, holding_wallet(stuck):
        tell_in_time = [partial(timed, stuck, payment_id, MIN_WAIT) for payment_id in payments]
        calls = pool.submit(at_once, tell_in_time)
        is_tried = lambda: any("second read" in pair.checkpoints.steps(p) for p in payments)  # noqa: E731
        wait_until(is_tried, 10, "no call came to the wallet")
        for payment_id in others:
            assert_credited(other.reconcile(payment_id, timeout=SOON), payment_id)
        are_waiting = ["path entered" in pair.checkpoints.steps(payment_id) for payment_id in payments]
        assert not any(are_waiting), "a thread waits for the wallet"
        for response in calls.result():
            assert_refused(response, 503)
    for payment_id in payments:
        assert_credited(stuck.reconcile(payment_id), payment_id)
    assert stuck.balance() == len(payments) * 100_000
    assert_books_balance(stuck)


def test_held_wallet_is_503_for_its_owner_and_nothing_to_anybody_else(postgres_pair: HostPair) -> None:
    owner_of_a_held_wallet_is_told(postgres_pair)


def test_without_a_look_at_the_wallet_the_proof_fails(postgres_pair: HostPair) -> None:
    with (
        postgres_pair.mutated("no wallet check"),
        pytest.raises(AssertionError, match="a thread waits for the wallet"),
    ):
        owner_of_a_held_wallet_is_told(postgres_pair)


def others_are_credited(pair: HostPair) -> None:
    """A payment's row is held while its owner calls again and again; another user is credited."""
    stuck, other = pair.host.new_user(), pair.host.new_user()
    payments, theirs = [paid(stuck) for _ in range(4)], paid(other)
    with ExitStack() as held:
        for payment_id in payments:
            held.enter_context(stuck.host.books.holding_record(payment_id))
        at_once([partial(leave_at_once, stuck, payment_id) for payment_id in payments])
        try:
            assert_credited(other.reconcile(theirs, timeout=SOON), theirs)
        except httpx.ReadTimeout:
            raise AssertionError("the other is kept waiting") from None


def test_held_rows_of_one_user_keep_nobody_else_waiting(postgres_pair: HostPair) -> None:
    others_are_credited(postgres_pair)


def test_without_user_locks_the_proof_fails(postgres_pair: HostPair) -> None:
    with (
        postgres_pair.mutated("no user lock"),
        pytest.raises(AssertionError, match="kept waiting"),
    ):
        others_are_credited(postgres_pair)


def credit_is_told_at_once(pair: HostPair) -> None:
    """A credit whose record lags behind is told at once, however often, though the record is held."""
    stuck, other = pair.host.new_user(), pair.host.new_user()
    payment_id, theirs = paid(stuck), paid(other)
    assert_credited(stuck.reconcile(payment_id), payment_id)
    pair.host.books.change_record(payment_id, status="pending")
    try:
        with stuck.host.books.holding_record(payment_id):
            for _ in range(5):
                response = stuck.reconcile(payment_id, timeout=SOON)
                assert_credited(response, payment_id, payment_status="pending")
            assert_credited(other.reconcile(theirs, timeout=SOON), theirs)
    except httpx.ReadTimeout:
        raise AssertionError("somebody is kept waiting") from None
    is_repaired = lambda: stuck.reconcile(payment_id).json()["payment_status"] == "succeeded"  # noqa: E731
    wait_until(is_repaired, 10, "the record still lags behind")
    assert_one_credit(stuck, payment_id)


def test_credit_is_told_at_once_though_its_record_is_held(postgres_pair: HostPair) -> None:
    credit_is_told_at_once(postgres_pair)


def test_without_the_timeouts_the_proof_fails(postgres_pair: HostPair) -> None:
    with (
        postgres_pair.mutated("no repair timeout", "no lock timeout"),
        pytest.raises(AssertionError, match="kept waiting"),
    ):
        credit_is_told_at_once(postgres_pair)


# --- The provider's answer is old when it is acted upon -------------------------------------------------


def refunded_meanwhile_is_not_credited(pair: HostPair, *mutations: str) -> None:
    """The provider's answer has waited so long that nobody waits for the call any more."""
    user = pair.host.new_user()
    payment_id = paid(user)
    with pair.mutated("short reply timeout", *mutations):
        with pair.checkpoints.stopping("provider answered", payment_id):
            assert_refused(user.reconcile(payment_id), 503)
            pair.host.simulator.refund(payment_id)
        wait_until(lambda: "settled" in pair.checkpoints.steps(payment_id), 10, "the call does not end")
    assert_no_credit(user, payment_id)
    # At this host the old answer counts as new for a second after it has been let go.
    assert_refused(pair.elsewhere(user).reconcile(payment_id), 409, "refunded")


def test_answer_that_has_waited_too_long_credits_nothing(host_pair: HostPair) -> None:
    refunded_meanwhile_is_not_credited(host_pair)


def test_without_expiry_the_proof_fails(sqlite_pair: HostPair) -> None:
    with pytest.raises(AssertionError, match="'RUB'"):
        refunded_meanwhile_is_not_credited(sqlite_pair, "no expiry")
