"""How things stand before a test, and what must (not) have changed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from tests.support.harness.host import PACKAGE, Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document, Simulator

T = TypeVar("T")

StartHost = Callable[..., Host]
"""Called with a simulator, or `None`, and settings: a running host. See the fixture `start_host`."""


def each(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``case`` over the values, with the keys as ids."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def paid(user: User, kopeks: int = PACKAGE) -> str:
    """A top-up of this user, paid at the provider, of which the host has not heard."""
    payment_id = user.topup(kopeks)
    user.host.simulator.pay(payment_id)
    return payment_id


def unrecorded(owner: User, *, metadata: Document | None = None, **fields: Any) -> str:
    """A paid top-up that only the provider knows: there is no record of it in the host."""
    about = {"kind": "topup", "user_id": owner.id} | (metadata or {})
    document = owner.host.simulator.create(metadata=about, **fields)
    return str(document["id"])


def books_about(user: User, payment_id: str) -> Document:
    """All that the host has written down about a payment and its owner's money."""
    books = user.host.books
    return {
        "record": books.record(payment_id),
        "entries": books.entries(payment_id),
        "wallets": books.wallets(user.id),
    }


@contextmanager
def nothing_written(*users: User, about: str) -> Iterator[None]:
    """The books about a payment are afterwards what they were before, to the last column."""
    before = [books_about(user, about) for user in users]
    yield
    assert [books_about(user, about) for user in users] == before


@contextmanager
def nobody_asked(simulator: Simulator) -> Iterator[None]:
    """Not one request reaches the provider meanwhile."""
    simulator.forget_requests()
    yield
    assert simulator.requests() == []


def assert_credited_once(
    user: User, payment_id: str, kopeks: int = PACKAGE, *, wallet: str | None = None, currency: str = "RUB"
) -> None:
    """Ledger, wallet and record agree: this money came in, once, and no other."""
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


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextmanager
def asking(
    user: User, payment_id: str, delay_seconds: float = 0.7, **answered: Any
) -> Iterator[Future[httpx.Response]]:
    """A reconcile call whose question has reached the provider; the answer is under way.

    It tells how things stood when the question came, unless the provider is told what to answer.
    """
    simulator = user.host.simulator
    questions = simulator.questions(payment_id)
    simulator.fault(payment_id=payment_id, sequence=[{"delay_seconds": delay_seconds} | answered])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(user.reconcile, payment_id)
        wait_until(lambda: simulator.questions(payment_id) > questions, 10, "the provider was not asked")
        yield answer
