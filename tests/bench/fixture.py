"""One running host with its tables, and open connections to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.harness.host import RECONCILE as RECONCILE_PATH
from tests.support.harness.host import Host

from .client import Answer, Connection, get, post
from .process import busy_seconds, resident_megabytes, until_still
from .provider import PAID, Provider
from .samples import FLOOR, RECONCILE, STRAIGHTFORWARD, Samples
from .seed_data import Payment, Stock

_PATHS = {
    RECONCILE: RECONCILE_PATH,
    STRAIGHTFORWARD: "/api/v1/billing/bench/straightforward",
    FLOOR: "/api/v1/billing/bench/floor",
}


class Bed:
    """A host with as many old payments in its tables as it was given, and as many callers."""

    def __init__(self, host: Host, provider: Provider, old_payments: int, callers: int) -> None:
        self.old_payments = old_payments
        self.provider = provider
        self.times = Samples()
        self.work = Samples()
        """Of the host's processor, background work included, in milliseconds."""
        self.wrong_answers: Counter[str] = Counter()
        """Answers that were not as they should be, by side and status."""
        self.stock = Stock(host)
        self.stock.add_old_payments(old_payments)
        self.people = self.stock.people(callers)
        (bystander,) = self.stock.people(1)
        # Not the balance: for it this host looks through all payments, so that it is slow by itself.
        self.unrelated = (get("/health"), get("/api/v1/billing/ledger", bystander.token))
        self.callers: list[Connection] = []
        self.bystanders: list[Connection] = []
        self._host = host

    async def __aenter__(self) -> Self:
        self.callers = [await Connection.to(self._host.base_url) for _ in self.people]
        self.bystanders = [await Connection.to(self._host.base_url) for _ in self.unrelated]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for connection in (*self.callers, *self.bystanders):
            await connection.close()

    async def ask(self, caller: Connection, side: str, payment: Payment) -> Answer:
        """Have one of the sides see to a payment."""
        request = post(_PATHS[side], payment.owner.token, {"payment_id": payment.id})
        answer = await caller.send(request)
        right = answer.status == 200 and (
            side == FLOOR or json.loads(answer.body)["credited"] == payment.id.startswith(PAID)
        )
        if not right:
            self.wrong_answers[f"{side} {answer.status}"] += 1
        return answer

    async def ask_unrelated(self, bystander: Connection, request: bytes) -> float:
        """The milliseconds that somebody waits who wants something else of the host."""
        answer = await bystander.send(request)
        if answer.status != 200:
            self.wrong_answers[f"unrelated {answer.status}"] += 1
        return answer.milliseconds

    @contextmanager
    def measuring_work(self, row: str, side: str) -> Iterator[None]:
        """Note how long the host's processor was busy meanwhile."""
        before = busy_seconds(self._host.server.pid)
        yield
        self.work.add(row, side, (busy_seconds(self._host.server.pid) - before) * 1000)

    def forget(self) -> None:
        """What has been measured so far was to warm up."""
        self.times, self.work = Samples(), Samples()

    async def until_still(self) -> None:
        """StillPending until the host has nothing left to do."""
        await until_still(self._host.server.pid)

    async def memory_at_rest(self) -> float:
        """The host's memory, in megabytes."""
        await self.until_still()
        return resident_megabytes(self._host.server.pid)
