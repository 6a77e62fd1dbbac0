"""Payments to reconcile, and what must be true about them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from tests.support.harness.books import Books
from tests.support.harness.host import PACKAGE, User
from tests.support.yookassa.client import Document

T = TypeVar("T")

FOREIGN = "Payment does not belong to the current user"
WEBHOOK = "/api/v1/billing/webhook/yookassa"


def paid(user: User, kopeks: int = PACKAGE) -> str:
    """Create a top-up of this user and pay it at the provider; the host is not told."""
    payment_id = user.topup(kopeks)
    user.host.simulator.pay(payment_id)
    return payment_id


def unrecorded(owner: User, **fields: Any) -> str:
    """Create a paid top-up into the owner's wallet that only the provider knows."""
    owner.balance()  # the host creates the wallet
    metadata = {
        "kind": "topup",
        "user_id": owner.id,
        "wallet_id": owner.host.books.wallet(owner.id)["id"],
        "amount_kopeks": str(PACKAGE),
    }
    document = owner.host.simulator.create(**({"metadata": metadata} | fields))
    return str(document["id"])


def at_once(calls: Sequence[Callable[[], T]], threads: int | None = None) -> list[T]:
    """Make all calls at the same time, or as many at a time as there are ``threads``."""
    with ThreadPoolExecutor(threads or len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def notification(document: Document, event: str = "payment.succeeded") -> Document:
    """Return what the provider posts about a payment."""
    return {"type": "notification", "event": event, "object": document}


def assert_credited(response: httpx.Response, payment_id: str, **columns: Any) -> None:
    """The answer says that the money is in the wallet."""
    assert response.status_code == 200, response.text
    expected = {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
    }
    assert response.json() == expected | columns


def assert_refused(response: httpx.Response, status: int, words: str = "") -> None:
    """The answer is an error of the contract, with ``Retry-After`` exactly where a later call can succeed."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"detail"}
    assert words in response.json()["detail"]
    assert ("retry-after" in response.headers) is (status in {429, 503})


def topups(books: Books, payment_id: str) -> list[tuple[str, str, int, str]]:
    """Return user, wallet, kopeks and currency of each credit that names the payment."""
    return [
        (e["user_id"], e["wallet_id"], e["amount_kopeks"], e["currency"])
        for e in books.entries(payment_id)
        if e["type"] == "topup"
    ]


def assert_books_balance(user: User) -> None:
    """Each wallet holds the sum of its ledger entries."""
    books = user.host.books
    entry = books.ledger.c
    for wallet in books.wallets(user.id):
        total = sum(e["amount_kopeks"] for e in books._all(books.ledger, entry.wallet_id == wallet["id"]))
        assert wallet["balance_topup_kopeks"] + wallet["balance_included_kopeks"] == total


def assert_one_credit(user: User, payment_id: str, *, beside: int = 0, recorded: bool = True) -> None:
    """There is one entry, in the owner's wallet, and the exact balance; ``beside`` is other money in it."""
    books = user.host.books
    wallet = books.wallet(user.id)
    assert topups(books, payment_id) == [(user.id, wallet["id"], PACKAGE, "RUB")]
    assert wallet["balance_topup_kopeks"] == PACKAGE + beside
    record = books.record(payment_id)
    assert (record["status"] if record else None) == ("succeeded" if recorded else None)


def assert_no_credit(user: User, payment_id: str, *, beside: int = 0) -> None:
    """There is no entry, and nothing in any wallet but ``beside``."""
    books = user.host.books
    assert topups(books, payment_id) == []
    assert sum(wallet["balance_topup_kopeks"] for wallet in books.wallets(user.id)) == beside
