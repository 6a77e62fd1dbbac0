"""The fixture of a measurement: a running host with seed data, and open connections to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.harness.host import RECONCILE as RECONCILE_PATH
from tests.support.harness.host import Host

from .client import Answer, Connection, get, post
from .process import busy_seconds, resident_megabytes, until_idle
from .provider import PAID, Provider
from .samples import FLOOR, RECONCILE, STRAIGHTFORWARD, Samples
from .seed_data import Payment, SeedData

_PATHS = {
    RECONCILE: RECONCILE_PATH,
    STRAIGHTFORWARD: "/api/v1/billing/bench/straightforward",
    FLOOR: "/api/v1/billing/bench/floor",
}
_SWEEP = "/api/v1/billing/bench/sweep"


class Fixture:
    """A host with so many old payments in its tables, and so many callers."""

    def __init__(self, host: Host, provider: Provider, old_payments: int, callers: int) -> None:
        self.old_payments = old_payments
        self.provider = provider
        self.times = Samples()
        self.work = Samples()
        """Processor time of the host in milliseconds, background work included."""
        self.wrong_answers: Counter[str] = Counter()
        """Counts of wrong answers by side and status."""
        self.seed_data = SeedData(host)
        self.seed_data.add_old_payments(old_payments)
        self.users = self.seed_data.users(callers)
        (bystander,) = self.seed_data.users(1)
        # Not the balance: this host scans all payments for it, so it is slow by itself.
        self.unrelated = (get("/health"), get("/api/v1/billing/ledger", bystander.token))
        self.callers: list[Connection] = []
        self.bystanders: list[Connection] = []
        self._host = host

    async def __aenter__(self) -> Self:
        self.callers = [await Connection.to(self._host.base_url) for _ in self.users]
        self.bystanders = [await Connection.to(self._host.base_url) for _ in self.unrelated]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for connection in (*self.callers, *self.bystanders):
            await connection.close()

    async def call(self, caller: Connection, side: str, payment: Payment) -> Answer:
        """Send one side's request about a payment and check its answer."""
        request = post(_PATHS[side], payment.owner.token, {"payment_id": payment.id})
        answer = await caller.send(request)
        right = answer.status == 200 and (
            side == FLOOR or json.loads(answer.body)["credited"] == payment.id.startswith(PAID)
        )
        if not right:
            self.wrong_answers[f"{side} {answer.status}"] += 1
        return answer

    async def sweep(self) -> dict[str, float]:
        """Have the host make one pass; return its seconds, and what it listed and executed."""
        answer = await self.callers[0].send(post(_SWEEP, "", {}))
        figures: dict[str, float] = json.loads(answer.body)
        return figures

    async def send_unrelated(self, bystander: Connection, request: bytes) -> float:
        """Send an unrelated request and return its milliseconds."""
        answer = await bystander.send(request)
        if answer.status != 200:
            self.wrong_answers[f"unrelated {answer.status}"] += 1
        return answer.milliseconds

    @contextmanager
    def measuring_work(self, row: str, side: str) -> Iterator[None]:
        """Record the host's processor time meanwhile."""
        before = busy_seconds(self._host.server.pid)
        yield
        self.work.add(row, side, (busy_seconds(self._host.server.pid) - before) * 1000)

    def discard_warm_up(self) -> None:
        """Discard the samples so far."""
        self.times, self.work = Samples(), Samples()

    async def until_idle(self) -> None:
        """Wait until the host is idle."""
        await until_idle(self._host.server.pid)

    async def memory_at_rest(self) -> float:
        """Return the idle host's memory in megabytes."""
        await self.until_idle()
        return resident_megabytes(self._host.server.pid)
