"""The audit: the provider's list against the host's tables, both ways. It reads only.

First the list of what was captured, against records and ledger; then the ledger's entries whose payments were
not listed, each by its id; then what is pending for too long. The same engine serves the endpoint, and the
command, which runs without the host.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from openwebui_billing_reconcile.errors import AuditRunningError, InvalidPaymentIdError, NotConfiguredError
from openwebui_billing_reconcile.hookspecs import ListingGateway, PaymentGateway
from openwebui_billing_reconcile.host.database_errors import database_errors
from openwebui_billing_reconcile.host.reader import LedgerReader
from openwebui_billing_reconcile.money.findings import (
    AuditedState,
    Finding,
    FindingClass,
    NoFinding,
    check_credit,
    find,
)
from openwebui_billing_reconcile.money.rules import AlreadyCredited, Shop, decide_locally, owner_of
from openwebui_billing_reconcile.money.values import (
    TOPUP,
    CreditedTopup,
    LocalState,
    OpenTopup,
    ProviderPayment,
    parse_listed,
    parse_payment_id,
)
from openwebui_billing_reconcile.provider.client import ProviderClient
from openwebui_billing_reconcile.topup.resources import Resources

from .captured import captured_pages
from .period import Period
from .sweep import OLDEST_OPEN

T = TypeVar("T")

QUERY_INTERVAL: Final = 0.2
"""Seconds before each query about one payment, so that people's own come first."""

_PAGE: Final = 200


class AuditSources(Protocol):
    """What an audit reads: the host's tables and the provider."""

    @property
    def reader(self) -> LedgerReader: ...

    @property
    def provider(self) -> ProviderClient: ...

    def gateway(self, payment_id: str) -> PaymentGateway:
        """Return the gateway to ask about a payment, "" for a list. Raises ``NotConfiguredError``."""

    def shop(self, gateway: PaymentGateway) -> Shop:
        """Return the host's side of the payments that ``gateway`` knows."""

    def read(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run ``work``, which blocks, on a thread."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much has been checked so far."""

    payments: int
    entries: int


@dataclass(slots=True)
class AuditResult:
    """What an audit found.

    ``payments`` were captured in the period, as the provider lists them; of these ``others`` are no top-ups
    of this host, and ``settled`` were settled by hand. ``unreadable`` are items of the list that are no
    payments, ``entries`` those of the ledger that credit one.
    """

    period: Period
    payments: int = 0
    entries: int = 0
    others: int = 0
    unreadable: int = 0
    settled: int = 0
    findings: list[Finding] = field(default_factory=list)

    def summary(self, currency: str) -> dict[str, Any]:
        """Return everything but the findings, for JSON; totals count kopeks of ``currency`` only."""
        return {
            "since": self.period.since.isoformat(),
            "until": self.period.until.isoformat(),
            "checked": {
                "payments": self.payments,
                "entries": self.entries,
                "others": self.others,
                "unreadable": self.unreadable,
            },
            "settled": self.settled,
            "totals": {kind.value: self.total(kind, currency) for kind in FindingClass},
        }

    def total(self, kind: FindingClass, currency: str) -> dict[str, int]:
        """Return how many findings of a class there are, and how many kopeks of ``currency``."""
        found = [finding for finding in self.findings if finding.kind is kind]
        amounts = (finding.money for finding in found)
        kopeks = sum(money.kopeks for money in amounts if money and money.currency == currency)
        return {"count": len(found), "kopeks": kopeks}

    def as_json(self, currency: str) -> dict[str, Any]:
        """Return the whole result for JSON; see ``summary``."""
        return {**self.summary(currency), "findings": [finding_as_json(found) for found in self.findings]}


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON."""
    return {
        "class": finding.kind.value,
        "payment_id": finding.payment_id,
        "user_id": finding.user_id,
        "wallet_id": finding.wallet_id,
        "amount_kopeks": finding.money.kopeks if finding.money else None,
        "currency": finding.money.currency if finding.money else None,
        "reason": finding.reason,
        "captured_at": finding.captured_at,
        "releasable": finding.releasable,
    }


class Auditor:
    """Makes audits of one host, one at a time in this process."""

    def __init__(self, sources: Callable[[], AuditSources]) -> None:
        """``sources`` makes what an audit reads from, for the running event loop."""
        self._sources = sources
        self._lock = threading.Lock()

    async def run(self, period: Period) -> AsyncGenerator[Progress | AuditResult]:
        """Yield as ``Audit.run``; raises ``AuditRunningError`` besides."""
        if not self._lock.acquire(blocking=False):
            raise AuditRunningError
        try:
            async for step in Audit(self._sources(), period).run():
                yield step
        finally:
            self._lock.release()


class HostSources:
    """What an audit in the host's own process reads from. Belongs to one event loop."""

    def __init__(self, resources: Resources) -> None:
        shared = resources.of_loop()
        self.reader: LedgerReader = resources.ledger
        self.provider = shared.provider
        self.gateway = resources.gateway
        self.shop = resources.shop
        self.read = shared.read


class Audit:
    """One audit of a period."""

    def __init__(self, sources: AuditSources, period: Period) -> None:
        self._sources = sources
        self._period = period
        self._result = AuditResult(period)
        self._listed: set[str] = set()

    async def run(self) -> AsyncGenerator[Progress | AuditResult]:
        """Yield how far it is, and last the result.

        Raises ``TemporarilyUnavailableError``, ``NotConfiguredError`` where the provider cannot list, and
        what ``ProviderClient`` raises.
        """
        async for _ in self._check_listed():
            yield self._progress
        async for _ in self._check_entries():
            yield self._progress
        await self._check_open()
        self._result.findings.sort(key=lambda finding: (finding.captured_at or "", finding.payment_id))
        yield self._result

    @property
    def _progress(self) -> Progress:
        return Progress(self._result.payments, self._result.entries)

    async def _read(self, work: Callable[[], T]) -> T:
        def read() -> T:
            with database_errors("audit"):
                return work()

        return await self._sources.read(read)

    async def _check_listed(self) -> AsyncIterator[None]:
        gateway = self._sources.gateway("")
        if not isinstance(gateway, ListingGateway):
            raise NotConfiguredError
        shop = self._sources.shop(gateway)
        list_captured = self._sources.provider.list_captured
        async for page in captured_pages(list_captured, gateway, self._period.start):
            await self._read(partial(self._judge_page, page.items, shop))
            yield

    def _judge_page(self, items: Sequence[object], shop: Shop) -> None:
        readable = [payment for payment in map(parse_listed, items) if payment]
        self._result.unreadable += len(items) - len(readable)
        self._listed.update(payment.id for payment in readable)
        payments = [payment for payment in readable if self._period.has(payment.captured_at)]
        self._result.payments += len(payments)
        for payment, owner, local in self._owned(payments):
            if owner is None:
                self._result.others += 1
            else:
                self._note(find(payment, self._state(payment, owner, local), shop))

    def _owned(
        self, payments: Sequence[ProviderPayment]
    ) -> Iterator[tuple[ProviderPayment, str | None, LocalState]]:
        """Yield each payment with whose it is, ``None`` where it is no top-up of this host."""
        reader = self._sources.reader
        states = reader.read_many([payment.id for payment in payments]) if payments else {}
        named = [p.topup for p in payments if states[p.id] == LocalState() and p.topup.kind == TOPUP]
        wallets = reader.wallets([topup.wallet_id for topup in named if topup.wallet_id]) if named else {}
        users = reader.users_among([topup.user_id for topup in named if topup.user_id]) if named else set()
        for payment in payments:
            local = states[payment.id]
            owner = owner_of(payment, local, wallets.get(payment.topup.wallet_id or ""))
            if owner is None and payment.topup in named and payment.topup.user_id in users:
                owner = payment.topup.user_id
            yield payment, owner, local

    def _state(self, payment: ProviderPayment, owner: str, local: LocalState) -> AuditedState:
        """Return what finding needs. What the ledger proves needs no wallet."""
        reader = self._sources.reader
        match decide_locally(local, owner):
            case AlreadyCredited(entry) if payment.is_refunded:
                adjusted = reader.adjusted_kopeks(payment.id, local, entry.money.currency)
                return AuditedState(owner, local, adjusted_kopeks=adjusted)
            case AlreadyCredited():
                return AuditedState(owner, local)
        return AuditedState(owner, *reader.read_with_wallets(payment, owner))

    async def _check_entries(self) -> AsyncIterator[None]:
        pages = self._sources.reader.credited_topups(self._period.start, self._period.end, _PAGE)
        while page := await self._read(partial(next, pages, None)):
            for credit in page:
                self._result.entries += 1
                if credit.payment_id not in self._listed:
                    await self._check_unlisted(credit)
                    yield
            yield

    async def _check_unlisted(self, credit: CreditedTopup) -> None:
        """Check a credit whose payment was not captured since the period began, as far as the list says."""
        payment, shop = await self._fetch(credit.payment_id)
        if payment is None or shop is None:
            await self._read(partial(self._judge_unknown, credit.payment_id))
        elif self._period.has(payment.captured_at):
            await self._read(partial(self._judge_one, payment, shop))

    async def _fetch(self, payment_id: str) -> tuple[ProviderPayment | None, Shop | None]:
        try:
            gateway = self._sources.gateway(parse_payment_id(payment_id))
        except InvalidPaymentIdError:
            return None, None  # the provider cannot know it
        await asyncio.sleep(QUERY_INTERVAL)
        payment = await self._sources.provider.fetch(gateway, payment_id, max_age=0)
        return payment, self._sources.shop(gateway)

    def _judge_unknown(self, payment_id: str) -> None:
        for entry in self._sources.reader.read(payment_id).topups:
            self._note(check_credit(payment_id, None, entry))

    def _judge_one(self, payment: ProviderPayment, shop: Shop) -> None:
        local = self._sources.reader.read(payment.id)
        owner = owner_of(payment, local, None)
        if owner is not None:
            self._note(find(payment, self._state(payment, owner, local), shop))

    async def _check_open(self) -> None:
        until = min(self._period.end - 1, time.time() - OLDEST_OPEN)
        last: OpenTopup | None = None
        while page := await self._read(partial(self._read_open, until, last)):
            await self._read(partial(self._judge_open, page))
            last = page[-1]

    def _read_open(self, until: float, last: OpenTopup | None) -> list[OpenTopup]:
        return self._sources.reader.open_topups(self._period.start, until, last, _PAGE)

    def _judge_open(self, page: Sequence[OpenTopup]) -> None:
        unpaid = [topup.payment_id for topup in page if topup.payment_id not in self._listed]
        for payment_id, local in self._sources.reader.read_many(unpaid).items():
            if local.record and not local.topups:
                record = local.record
                kind = FindingClass.OPEN_TOO_LONG
                self._note(Finding(kind, payment_id, record.user_id, record.wallet_id, record.money))

    def _note(self, found: Finding | NoFinding) -> None:
        match found:
            case Finding():
                self._result.findings.append(found)
            case NoFinding.OTHER:
                self._result.others += 1
            case NoFinding.SETTLED_BY_HAND:
                self._result.settled += 1
