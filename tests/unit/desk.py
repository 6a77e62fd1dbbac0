"""A host with a database, a provider and a reconciler between them, all in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from openwebui_billing_reconcile.hookspecs import Host, PaymentGateway, TopupEvent
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import DB, TABLES
from openwebui_billing_reconcile.money.values import ReconcileResult
from openwebui_billing_reconcile.settings import Settings
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.resources import Resources
from tests.unit.stub_host import StubHost


@dataclass
class Provider:
    """The hooks, and the gateway they hand out; it answers when the test lets it."""

    account_id: str | None = None
    is_test_shop: bool | None = None
    is_configured: bool = True
    status: str = "succeeded"
    amount: str = "1000.00"
    is_test: bool = False
    queries: list[str] = field(default_factory=list)
    events: list[TopupEvent] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None:
        return self if self.is_configured else None

    def topup_outcome(self, *, event: TopupEvent) -> None:
        self.events.append(event)

    async def get_payment(self, payment_id: str) -> object:
        self.queries.append(payment_id)
        await self.may_answer.wait()
        amount = {"value": self.amount, "currency": "RUB"}
        return {
            "id": payment_id,
            "status": self.status,
            "paid": self.status == "succeeded",
            "amount": amount,
            "test": self.is_test,
        }


class Desk:
    """A host with a database, a provider and the reconciler between them."""

    def __init__(self, stub: StubHost) -> None:
        stub.load()
        stub.create_tables()
        self._stub = stub
        self.provider = Provider()
        self.provider.may_answer.set()
        self.host = OpenWebUIHost(self.provider)
        self.reconciler = Reconciler(Resources(self.host, Settings()))

    def add_payment(
        self,
        payment_id: str = "pay-1",
        user_id: str = "me",
        status: str = "pending",
        kind: str = "topup",
        age: float = 0,
    ) -> None:
        """Add a top-up of 1000.00, made ``age`` seconds ago, and its wallet."""
        wallet_id = f"wallet of {user_id}"
        self._stub.add_wallet(id=wallet_id, user_id=user_id)
        self._stub.add_payment(
            id=f"record of {payment_id}",
            provider_payment_id=payment_id,
            status=status,
            kind=kind,
            user_id=user_id,
            wallet_id=wallet_id,
            created_at=int(time.time() - age),
        )

    async def __call__(self, payment_id: object = "pay-1", user_id: str = "me") -> ReconcileResult:
        return await self.reconciler.reconcile(self.host.billing_service, user_id, payment_id)

    def start(self, *arguments: str) -> asyncio.Task[ReconcileResult]:
        """Begin a call."""
        work: Coroutine[Any, Any, ReconcileResult] = self(*arguments)
        return asyncio.create_task(work)

    def entries(self) -> list[str]:
        """Return the payments that the ledger credits."""
        with self._stub.module(DB).get_db() as session:
            rows = session.query(self._stub.module(TABLES).LedgerEntry).all()
            return [row.reference_id for row in rows]


async def until(condition: Callable[[], object]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
