"""Where the proofs take place: hosts whose workers are watched, and what must be true afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.support.harness.books import Books
from tests.support.harness.host import PACKAGE, Host, Program, User, running_host
from tests.support.yookassa.client import Document

from . import CHECKPOINTS, MUTATIONS
from .checkpoints import Checkpoints

T = TypeVar("T")

THOROUGH = os.environ.get("PROVE", "") not in {"", "0"}
"""Whether to take the time for the long versions: PROVE=1."""

APP = "tests.faults.app:app"
ROOT = Path(__file__).parents[2]
FOREIGN = "Payment does not belong to the current user"
WEBHOOK = "/api/v1/billing/webhook/yookassa"


@dataclass(frozen=True)
class HostPair:
    """One database, and two workers of one host on it; one of them is watched."""

    host: Host
    other: Host
    checkpoints: Checkpoints

    @contextmanager
    def mutated(self, *guards: str) -> Iterator[None]:
        """The watched worker with guards taken out."""
        mutate(self.host, *guards)
        try:
            yield
        finally:
            mutate(self.host)

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """The watched worker with no database connection left for anybody."""
        self.host.http.post("/faults/exhaust", json=True).raise_for_status()
        try:
            yield
        finally:
            self.host.http.post("/faults/exhaust", json=False).raise_for_status()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The watched worker cannot write to its database."""
        self.host.http.post("/faults/read_only", json=True).raise_for_status()
        try:
            yield
        finally:
            self.host.http.post("/faults/read_only", json=False).raise_for_status()

    def elsewhere(self, user: User) -> User:
        """The same person at the other worker."""
        return replace(user, host=self.other)


def mutate(host: Host, *guards: str) -> None:
    """Let a watched worker run on without these guards, and with all others."""
    host.http.post("/faults/mutations", json=[*guards]).raise_for_status()


def watched_host(
    program: Program,
    *,
    checkpoints: Checkpoints | None = None,
    without: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> AbstractContextManager[Host]:
    """A host whose workers are watched, or have guards taken out from their start on."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths)}
    if checkpoints:
        variables[CHECKPOINTS] = str(checkpoints.port)
    if without:
        variables[MUTATIONS] = json.dumps([*without])
    return running_host(program, app=APP, env=variables | dict(env or {}), **options)


def paid(user: User, kopeks: int = PACKAGE) -> str:
    """A top-up of this user, paid at the provider, of which the host has not heard."""
    payment_id = user.topup(kopeks)
    user.host.simulator.pay(payment_id)
    return payment_id


def unrecorded(owner: User, **fields: Any) -> str:
    """A paid top-up into the owner's wallet, of which only the provider knows."""
    owner.balance()  # the host makes the wallet
    metadata = {
        "kind": "topup",
        "user_id": owner.id,
        "wallet_id": owner.host.books.wallet(owner.id)["id"],
        "amount_kopeks": str(PACKAGE),
    }
    document = owner.host.simulator.create(**({"metadata": metadata} | fields))
    return str(document["id"])


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def notification(document: Document, event: str = "payment.succeeded") -> Document:
    """What the provider posts about a payment."""
    return {"type": "notification", "event": event, "object": document}


def assert_credited(response: httpx.Response, payment_id: str, **columns: Any) -> None:
    """The money is in the wallet, says the host."""
    assert response.status_code == 200, response.text
    expected = {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
    }
    assert response.json() == expected | columns


def assert_refused(response: httpx.Response, status: int, words: str = "") -> None:
    """An error of the contract; it says when to come again exactly where that can help."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"detail"}
    assert words in response.json()["detail"]
    assert ("retry-after" in response.headers) is (status in {429, 503})


def topups(books: Books, payment_id: str) -> list[tuple[str, str, int, str]]:
    """Each credit that names the payment: to whom, into which wallet, how much."""
    return [
        (e["user_id"], e["wallet_id"], e["amount_kopeks"], e["currency"])
        for e in books.entries(payment_id)
        if e["type"] == "topup"
    ]


def assert_books_balance(user: User) -> None:
    """What is in each wallet is what its ledger says came in."""
    books = user.host.books
    entry = books.ledger.c
    for wallet in books.wallets(user.id):
        came_in = sum(e["amount_kopeks"] for e in books._all(books.ledger, entry.wallet_id == wallet["id"]))
        assert wallet["balance_topup_kopeks"] + wallet["balance_included_kopeks"] == came_in


def assert_one_credit(user: User, payment_id: str, *, beside: int = 0, recorded: bool = True) -> None:
    """One entry, in the owner's wallet, and the exact balance; other money may lie beside it."""
    books = user.host.books
    wallet = books.wallet(user.id)
    assert topups(books, payment_id) == [(user.id, wallet["id"], PACKAGE, "RUB")]
    assert wallet["balance_topup_kopeks"] == PACKAGE + beside
    record = books.record(payment_id)
    assert (record["status"] if record else None) == ("succeeded" if recorded else None)


def assert_no_credit(user: User, payment_id: str, *, beside: int = 0) -> None:
    """No entry, and nothing in any wallet but other money."""
    books = user.host.books
    assert topups(books, payment_id) == []
    assert sum(wallet["balance_topup_kopeks"] for wallet in books.wallets(user.id)) == beside
