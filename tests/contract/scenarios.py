"""Payments to reconcile, and what must or must not have changed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest
from sqlalchemy import select

from tests.support.harness.host import PACKAGE, Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document, Simulator
from tests.support.yookassa.process import running_simulator

T = TypeVar("T")

StartHost = Callable[..., Host]
"""Returns a running host for a simulator, or ``None``, and settings. See the fixture ``start_host``."""


def each(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``case`` over the values, with the keys as ids."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


@contextmanager
def host_with_a_provider(
    program: Program, postgres: Postgres, database: str, env: Mapping[str, str]
) -> Iterator[Host]:
    """Start a host whose provider is its own: SQLite and one worker, or PostgreSQL and two."""
    options: dict[str, Any] = {}
    if database == "postgres":
        options = {"database_url": postgres.new_database(), "workers": 2}
    with (
        running_simulator() as provider,
        running_host(program, simulator=provider, env=env, **options) as host,
    ):
        yield host


def paid(user: User, kopeks: int = PACKAGE) -> str:
    """Return the id of a top-up of this user, paid at the provider, whose webhook never came."""
    payment_id = user.topup(kopeks)
    user.host.simulator.pay(payment_id)
    return payment_id


def unrecorded(owner: User, *, metadata: Document | None = None, **fields: Any) -> str:
    """Return the id of a paid top-up that only the provider knows: the host has no record of it."""
    about = {"kind": "topup", "user_id": owner.id} | (metadata or {})
    document = owner.host.simulator.create(metadata=about, **fields)
    return str(document["id"])


def stored_rows(user: User, payment_id: str) -> Document:
    """Return the host's rows about a payment and its owner's wallets."""
    books = user.host.books
    return {
        "record": books.record(payment_id),
        "entries": books.entries(payment_id),
        "wallets": books.wallets(user.id),
    }


def dump(host: Host) -> list[list[Any]]:
    """Return all rows of all billing tables."""
    tables = (host.books.payments, host.books.wallet_table, host.books.ledger)
    with host.books.transaction() as connection:
        return [sorted(map(tuple, connection.execute(select(table)).all()), key=repr) for table in tables]


@contextmanager
def nothing_written(*users: User, about: str) -> Iterator[None]:
    """Assert that the host's rows about a payment are the same afterwards, in every column."""
    before = [stored_rows(user, about) for user in users]
    yield
    assert [stored_rows(user, about) for user in users] == before


@contextmanager
def no_queries(simulator: Simulator) -> Iterator[None]:
    """Assert that no request reaches the provider meanwhile."""
    simulator.forget_requests()
    yield
    assert simulator.requests() == []


def assert_credited_once(
    user: User, payment_id: str, kopeks: int = PACKAGE, *, wallet: str | None = None, currency: str = "RUB"
) -> None:
    """Assert that ledger, wallet and record agree on this one credit."""
    books = user.host.books
    into = books.wallet(user.id, currency)
    assert wallet in {None, into["id"]}
    (entry,) = books.entries(payment_id)
    assert {
        "user_id": user.id,
        "wallet_id": into["id"],
        "currency": currency,
        "type": "topup",
        "amount_kopeks": kopeks,
        "reference_type": "payment",
        "reference_id": payment_id,
    }.items() <= entry.items()
    assert into["balance_topup_kopeks"] == kopeks
    record = books.record(payment_id)
    assert record is not None
    assert record["status"] == "succeeded"


def concurrently(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls at the same time and return their results."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextmanager
def query_in_flight(
    user: User, payment_id: str, delay_seconds: float = 0.7, **answered: Any
) -> Iterator[Future[httpx.Response]]:
    """Yield a reconcile call whose query has reached the provider; the answer is delayed.

    The answer describes the payment at the time of the query, unless ``answered`` says otherwise.
    """
    simulator = user.host.simulator
    queries = simulator.questions(payment_id)
    simulator.fault(payment_id=payment_id, sequence=[{"delay_seconds": delay_seconds} | answered])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(user.reconcile, payment_id)
        wait_until(lambda: simulator.questions(payment_id) > queries, 10, "the provider was not queried")
        yield answer
