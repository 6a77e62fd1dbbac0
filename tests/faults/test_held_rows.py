"""Rows and locks that somebody else holds harm their owners only, and nothing is paid twice while we wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial

import httpx
from sqlalchemy import Connection, text, update

from openwebui_billing_reconcile.topup.resources import MAX_PAYMENTS_UNDER_WAY
from tests.support.harness.books import Books
from tests.support.harness.host import PACKAGE, User
from tests.support.harness.waiting import wait_until

from .host_pair import HostPair
from .payments import assert_credited, at_once, paid, topups

THREADS = 4
"""All that the plugin has for the database: held up by as many users, it would serve nobody."""


def canceled_auto_topup(user: User) -> str:
    """Return the id of an auto top-up that the provider canceled, and no webhook told of."""
    payment_id = user.topup()
    books, simulator = user.host.books, user.host.simulator
    books.change_wallet(books.wallet(user.id)["id"], auto_topup_enabled=True, auto_topup_fail_count=0)
    metadata = simulator.payment(payment_id)["metadata"] | {"auto_topup": "true"}
    simulator.change(payment_id, metadata=metadata)
    simulator.decline(payment_id)
    return payment_id


def leave(user: User, payment_id: str) -> None:
    """Ask, and go away before the answer."""
    with suppress(httpx.TransportError):
        user.reconcile(payment_id, timeout=0.5)


def failures(user: User) -> int:
    """Return how many auto top-ups the user's wallet counts as failed."""
    return int(user.host.books.wallet(user.id)["auto_topup_fail_count"])


def status(books: Books, payment_id: str) -> str:
    """Return a record's status."""
    record = books.record(payment_id)
    assert record is not None
    return str(record["status"])


@contextmanager
def writing(books: Books) -> Iterator[Connection]:
    """Hold SQLite's lock for writing, as the host's own transactions do."""
    with books.transaction() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        yield connection


def test_sqlite_settled_by_hand_while_we_wait_is_not_credited_too(sqlite_pair: HostPair) -> None:
    host = sqlite_pair.host
    user, books = host.new_user(), host.books
    payment_id = paid(user)
    wallet_id = books.wallet(user.id)["id"]
    with ThreadPoolExecutor(1) as pool:
        with writing(books) as connection:
            answer = pool.submit(user.reconcile, payment_id)
            until_settling(sqlite_pair, payment_id)
            connection.execute(
                update(books.wallet_table)
                .where(books.wallet_table.c.id == wallet_id)
                .values(balance_topup_kopeks=PACKAGE)
            )
            connection.execute(
                books.ledger.insert().values(
                    id=f"by hand {payment_id}",
                    user_id=user.id,
                    wallet_id=wallet_id,
                    currency="RUB",
                    type="adjustment",
                    amount_kopeks=PACKAGE,
                    balance_included_after=0,
                    balance_topup_after=PACKAGE,
                    reference_type="admin_wallet_adjustment",
                    reference_id=payment_id,
                    created_at=int(time.time()),
                )
            )
        assert answer.result().status_code == 409
    assert books.wallet(user.id)["balance_topup_kopeks"] == PACKAGE
    assert topups(books, payment_id) == []


def until_settling(pair: HostPair, payment_id: str) -> None:
    """Wait until a call has begun to settle what the provider answered."""
    wait_until(lambda: "second read" in pair.checkpoints.steps(payment_id), 10, "nothing is settled")


def test_sqlite_readers_do_not_wait_for_a_writer(sqlite_pair: HostPair) -> None:
    host = sqlite_pair.host
    users = [host.new_user() for _ in range(2 * THREADS)]
    payments = [paid(user) for user in users]
    other = host.new_user()
    theirs = paid(other)
    assert_credited(other.reconcile(theirs), theirs)
    with ThreadPoolExecutor(len(users)) as pool:
        with writing(host.books):
            calls: list[Future[httpx.Response]] = []
            for user, payment_id in zip(users, payments, strict=True):
                calls.append(pool.submit(user.reconcile, payment_id))
            for payment_id in payments:
                until_settling(sqlite_pair, payment_id)
            assert_credited(other.reconcile(theirs, timeout=2), theirs)
        assert {call.result().status_code for call in calls} <= {200, 503}


def test_a_held_wallet_leaves_a_canceled_auto_topup_for_the_next_call(postgres_pair: HostPair) -> None:
    user = postgres_pair.host.new_user()
    payment_id = canceled_auto_topup(user)
    books = user.host.books
    with books.holding_wallet(books.wallet(user.id)["id"]):
        assert user.reconcile(payment_id).status_code == 503
        assert (status(books, payment_id), failures(user)) == ("pending", 0)
    assert user.reconcile(payment_id).status_code == 200
    assert (status(books, payment_id), failures(user)) == ("canceled", 1)


Held = Callable[[User, str], AbstractContextManager[object]]


def others_are_credited(pair: HostPair, new_payment: Callable[[User], str], held: Held) -> dict[str, User]:
    """Hold something of as many users as there are threads, let each ask, and see somebody else credited.

    Return the users by their payments.
    """
    users = [pair.host.new_user() for _ in range(THREADS)]
    payments = {new_payment(user): user for user in users}
    other = pair.host.new_user()
    theirs = paid(other)
    with ExitStack() as stack:
        for payment_id, user in payments.items():
            stack.enter_context(held(user, payment_id))
        at_once([partial(leave, user, payment_id) for payment_id, user in payments.items()])
        for payment_id in payments:
            until_settling(pair, payment_id)
        assert_credited(other.reconcile(theirs, timeout=5), theirs)
    return payments


def test_held_wallets_of_canceled_auto_topups_harm_their_owners_only(postgres_pair: HostPair) -> None:
    books = postgres_pair.host.books
    held: Held = lambda user, _: books.holding_wallet(books.wallet(user.id)["id"])  # noqa: E731
    others_are_credited(postgres_pair, canceled_auto_topup, held)


def test_held_records_harm_their_owners_only(postgres_pair: HostPair) -> None:
    """The host's path marks the record after the credit, and would wait for its row without limit."""
    books = postgres_pair.host.books
    held: Held = lambda _, payment_id: books.holding_record(payment_id)  # noqa: E731
    for payment_id, user in others_are_credited(postgres_pair, paid, held).items():
        assert_credited(user.reconcile(payment_id), payment_id)


def test_a_repair_does_not_forgive_a_declining_card(sqlite_pair: HostPair) -> None:
    """A late notification sets an old credited auto top-up back; the card has failed twice since."""
    user = sqlite_pair.host.new_user()
    books, simulator = user.host.books, user.host.simulator
    payment_id = user.topup()
    metadata = simulator.payment(payment_id)["metadata"] | {"auto_topup": "true"}
    simulator.change(payment_id, metadata=metadata)
    simulator.pay(payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    books.change_wallet(books.wallet(user.id)["id"], auto_topup_enabled=True, auto_topup_fail_count=2)
    simulator.hold(payment_id)
    assert sqlite_pair.other.webhook(payment_id, "payment.waiting_for_capture") == 200
    simulator.pay(payment_id)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert (status(books, payment_id), failures(user)) == ("succeeded", 2)


def test_hanging_payments_of_one_user_keep_nobody_else_waiting(sqlite_pair: HostPair) -> None:
    host = sqlite_pair.host
    user, other = host.new_user(), host.new_user()
    hanging = [paid(user) for _ in range(MAX_PAYMENTS_UNDER_WAY)]
    theirs = paid(other)
    for payment_id in hanging:
        host.simulator.fault(payment_id=payment_id, hang=True)
    with ThreadPoolExecutor(len(hanging)) as pool:
        calls = [pool.submit(leave, user, payment_id) for payment_id in hanging]
        for payment_id in hanging:
            wait_until(partial(host.simulator.questions, payment_id), 10, "the slots are not taken")
        assert_credited(other.reconcile(theirs, timeout=2), theirs)
        for call in calls:
            call.result()
