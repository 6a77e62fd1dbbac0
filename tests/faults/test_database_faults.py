"""The database at its worst: locked, cut off, read-only, without connections, a row held by somebody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import pytest
from sqlalchemy import Connection, select, text

from openwebui_billing_reconcile.provider.client import REPLY_SECONDS
from tests.support.harness.books import Books
from tests.support.harness.host import User
from tests.support.harness.postgres import Postgres, closing_engine
from tests.support.harness.waiting import wait_until

from .bystander import unharmed
from .checkpoints import ON_THE_WAY
from .host_pair import (
    HostPair,
    assert_books_balance,
    assert_credited,
    assert_no_credit,
    assert_one_credit,
    assert_refused,
    at_once,
    paid,
)

SOON = 3.0  # seconds, on a busy machine
STEPS_AT_THE_DATABASE = ON_THE_WAY[ON_THE_WAY.index("provider answered") :]


def timed(user: User, payment_id: str) -> httpx.Response:
    """Reconcile; the reply comes within its time."""
    began = time.monotonic()
    response = user.reconcile(payment_id)
    assert time.monotonic() - began < REPLY_SECONDS + 1
    return response


# --- SQLite ------------------------------------------------------------------------------------------


@contextmanager
def locked(books: Books, how: str) -> Iterator[None]:
    """Somebody else writes (IMMEDIATE: others may read; EXCLUSIVE: they may not) and takes long."""
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
    """The database cannot even be read from the provider's answer on; the host answers all the same."""
    with ExitStack() as lock:

        def take_lock(_: object) -> None:
            lock.enter_context(locked(host_pair.host.books, "EXCLUSIVE"))

        with (
            unharmed(host_pair.host.new_user(), alive=True),
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
    with sqlite_pair.mutated("threads"), pytest.raises(AssertionError, match="longest wait"):
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


def test_without_the_proof_a_read_only_database_tells_lies(host_pair: HostPair, user: User) -> None:
    with host_pair.mutated("proof"), pytest.raises(AssertionError):
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
    """The server's administrator, in another database."""
    with closing_engine(postgres.url) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def cut(postgres: Postgres, host_pair: HostPair) -> None:
    """All connections of this database break."""
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
    """All connections of this database break, and there are no new ones for a while."""
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


# --- One wallet's row is held by another transaction ---------------------------------------------------


@contextmanager
def holding(user: User) -> Iterator[None]:
    """Somebody else works on this user's wallet and does not finish."""
    books = user.host.books
    user.balance()  # the host makes the wallet
    with books.transaction() as connection:
        mine = books.wallet_table.c.user_id == user.id
        connection.execute(select(books.wallet_table).where(mine).with_for_update())
        yield


def is_credited(user: User, payment_id: str) -> bool:
    """Whether a call says so."""
    response = user.reconcile(payment_id)
    return response.status_code == 200 and response.json()["credited"] is True


def leave_at_once(user: User, payment_id: str) -> None:
    """Ask and do not wait for the answer."""
    with pytest.raises(httpx.ReadTimeout):
        user.reconcile(payment_id, timeout=0.5)


def test_held_wallet_is_503_for_its_owner_and_nothing_to_anybody_else(postgres_pair: HostPair) -> None:
    host = postgres_pair.host
    stuck, other = host.new_user(), host.new_user()
    payments = [paid(stuck) for _ in range(5)]
    others = [paid(other) for _ in range(3)]
    with unharmed(host.new_user()), ThreadPoolExecutor(1) as pool, holding(stuck):
        calls = pool.submit(at_once, [partial(timed, stuck, payment_id) for payment_id in payments])
        wait_until(
            lambda: any("path entered" in postgres_pair.checkpoints.steps(p) for p in payments),
            10,
            "nobody came to the wallet",
        )
        for payment_id in others:
            assert_credited(other.reconcile(payment_id, timeout=SOON), payment_id)
        for response in calls.result():
            assert_refused(response, 503)
    # What was under way lands; the rest is credited by the next call.
    for payment_id in payments:
        wait_until(partial(is_credited, stuck, payment_id), 10, "it is not credited")
    assert stuck.balance() == len(payments) * 100_000
    assert_books_balance(stuck)


def others_are_credited(host_pair: HostPair) -> None:
    """One person's wallet is held while that person asks again and again; another is credited."""
    stuck, other = host_pair.host.new_user(), host_pair.host.new_user()
    payments, theirs = [paid(stuck) for _ in range(4)], paid(other)
    with holding(stuck):
        at_once([partial(leave_at_once, stuck, payment_id) for payment_id in payments])
        try:
            assert_credited(other.reconcile(theirs, timeout=SOON), theirs)
        except httpx.ReadTimeout:
            raise AssertionError("the other is kept waiting") from None


def test_held_wallet_keeps_nobody_else_waiting(postgres_pair: HostPair) -> None:
    others_are_credited(postgres_pair)


def test_without_turns_the_proof_fails(postgres_pair: HostPair) -> None:
    with postgres_pair.mutated("turn"), pytest.raises(AssertionError, match="kept waiting"):
        others_are_credited(postgres_pair)


def credit_is_told_at_once(host_pair: HostPair) -> None:
    """A credit whose record lags is told at once, however often, though its wallet is held."""
    stuck, other = host_pair.host.new_user(), host_pair.host.new_user()
    payment_id, theirs = paid(stuck), paid(other)
    assert_credited(stuck.reconcile(payment_id), payment_id)
    host_pair.host.books.change_record(payment_id, status="pending")
    try:
        with holding(stuck):
            for _ in range(5):
                response = stuck.reconcile(payment_id, timeout=SOON)
                assert_credited(response, payment_id, payment_status="pending")
            assert_credited(other.reconcile(theirs, timeout=SOON), theirs)
    except httpx.ReadTimeout:
        raise AssertionError("somebody is kept waiting") from None
    finished = partial(host_pair.host.books.record, payment_id)
    wait_until(lambda: (finished() or {})["status"] == "succeeded", 10, "the record still lags")
    assert_one_credit(stuck, payment_id)


def test_credit_is_told_at_once_though_its_wallet_is_held(postgres_pair: HostPair) -> None:
    credit_is_told_at_once(postgres_pair)


def test_without_the_short_wait_the_proof_fails(postgres_pair: HostPair) -> None:
    with postgres_pair.mutated("briefly"), pytest.raises(AssertionError, match="kept waiting"):
        credit_is_told_at_once(postgres_pair)


def refunded_meanwhile_is_not_credited(host_pair: HostPair) -> None:
    """The provider's answer has waited so long for a thread that it is no longer true."""
    host = host_pair.host
    first, second, late = (host.new_user() for _ in range(3))
    payments = {user.id: paid(user) for user in (first, second, late)}
    with ExitStack() as held:
        for user in (first, second):  # both of the threads that write
            held.enter_context(holding(user))
            leave_at_once(user, payments[user.id])
        assert_refused(late.reconcile(payments[late.id]), 503)
        host.simulator.refund(payments[late.id])
    for user in (first, second):
        wait_until(partial(is_credited, user, payments[user.id]), 10, "it is not credited")
    looks = ("books read again", "proof read")
    wait_until(
        lambda: sum(step in looks for step in host_pair.checkpoints.steps(payments[late.id])) > 1,
        10,
        "the late call does not come to its end",
    )
    assert_no_credit(late, payments[late.id])
    assert_refused(late.reconcile(payments[late.id]), 409, "refunded")


SHORT: tuple[str, ...] = ("long replies", "long validity")


def test_answer_that_has_waited_too_long_credits_nothing(postgres_pair: HostPair) -> None:
    with postgres_pair.mutated(*SHORT):
        refunded_meanwhile_is_not_credited(postgres_pair)


def test_without_the_answers_age_the_proof_fails(postgres_pair: HostPair) -> None:
    with postgres_pair.mutated(*SHORT, "young answer"), pytest.raises(AssertionError):
        refunded_meanwhile_is_not_credited(postgres_pair)
