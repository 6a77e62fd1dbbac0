"""The use case: read our side, ask the provider, settle.

Reads on a thread, asks on the event loop, and hands over to ``Settlement.settle`` on a thread, anew while
somebody else holds the wallet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from openwebui_billing_reconcile.errors import (
    PaymentHeldError,
    PaymentNotOwnedError,
    ReconcileError,
    StillBeingCheckedError,
)
from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway, PaymentGateway, Way
from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Hold,
    NotOwned,
    Shop,
    decide_locally,
)
from openwebui_billing_reconcile.money.values import (
    PENDING,
    SUCCEEDED,
    LedgerEntry,
    LocalState,
    OpenTopup,
    ProviderPayment,
    ReconcileResult,
    VisitedTopup,
    parse_payment_id,
)
from openwebui_billing_reconcile.provider.client import ANSWER_TTL, charge_nothing
from openwebui_billing_reconcile.settings import Mode

from .backlog import Backlog, Unsettled
from .reply import REPLY_TIMEOUT, check_not_expired, reply, reply_expires_at
from .resources import LoopResources, Resources
from .settle import Observation, ReconcileCall, Settlement, held_error, needs_repair
from .wallet_wait import when_wallet_is_free

REPAIR_TIMEOUT: Final = 1.0
"""The longest an answer waits for a status to be put right, in seconds."""


class Reconciler:
    """Reconciles top-ups of one host. Used from any number of event loops."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settlement = Observation if resources.settings.mode is Mode.OBSERVE else Settlement
        self._settlement = settlement(resources.ledger, resources.events)
        self._backlog = Backlog(resources.ledger)

    async def reconcile(
        self,
        service: Any,
        user_id: str,
        payment_id: object,
        way: Way = Way.RETURN,
        expires_at: float | None = None,
    ) -> ReconcileResult:
        """Bring the top-up ``payment_id`` of ``user_id`` to the state the provider reports.

        ``service`` is the host's ``BillingService``. Raises the errors of ``errors.ReconcileError``, and only
        those, by ``expires_at``, in seconds of the monotonic clock, or else within ``REPLY_TIMEOUT`` seconds;
        work under way then goes on without its caller.
        """
        expires_at = reply_expires_at() if expires_at is None else expires_at
        call = ReconcileCall(service, user_id, parse_payment_id(payment_id), expires_at, way)
        async with reply(call.expires_at):
            return await self._reconcile(call, self._resources.of_loop())

    async def reconcile_open(self, service: Any, user_id: str) -> list[VisitedTopup]:
        """Reconcile the user's open top-ups of the last 24 hours, the newest five, each with its own outcome.

        All within one reply's time. Raises as ``reconcile`` does, but only where they cannot be listed.
        """
        shared, expires_at = self._resources.of_loop(), reply_expires_at()
        async with reply(expires_at):
            list_open = partial(self._backlog.open_of_user, user_id)
            payment_ids = await shared.read(list_open, key=("list", user_id))
        return await asyncio.gather(
            *(self._visit(service, user_id, payment_id, expires_at) for payment_id in payment_ids)
        )

    async def _visit(self, service: Any, user_id: str, payment_id: str, expires_at: float) -> VisitedTopup:
        try:
            result = await self.reconcile(service, user_id, payment_id, Way.VISIT, expires_at)
        except ReconcileError as error:
            return VisitedTopup(payment_id, error.provider_status, PENDING, False, error.reason)
        return VisitedTopup(payment_id, result.provider_status, result.payment_status, result.credited)

    async def settle_listed(
        self, service: Any, user_id: str, payment: ProviderPayment, gateway: PaymentGateway
    ) -> ReconcileResult:
        """Settle a payment from the provider's list for the user whose top-up it is.

        Raises as ``reconcile`` does. A wallet that somebody holds is not waited for: the next pass comes.
        """
        call = ReconcileCall(service, user_id, payment.id, reply_expires_at(), Way.SWEEP)
        shared = self._resources.of_loop()
        async with reply(call.expires_at):
            return await shared.tasks.run(self._settle(call, shared, payment, self._resources.shop(gateway)))

    async def list_captured(self, gateway: ListingGateway, since: float, cursor: str | None) -> CapturedPage:
        """Return a page of the provider's list; see ``ProviderClient.list_captured``."""
        return await self._resources.of_loop().provider.list_captured(gateway, since, cursor)

    async def find_unsettled(self, items: Sequence[object]) -> Unsettled:
        """Return what a page of the provider's list leaves to do; see ``Backlog.unsettled``."""
        return await self._resources.of_loop().read(partial(self._backlog.unsettled, items))

    async def list_open(self, since: float, until: float, after: OpenTopup | None) -> list[OpenTopup]:
        """Return a page of the host's open top-ups; see ``Backlog.open``."""
        return await self._resources.of_loop().read(partial(self._backlog.open, since, until, after))

    def retry_after(self, payment_id: str) -> int:
        """Return the seconds after which to poll again for an undecided payment."""
        return self._resources.of_loop().provider.retry_after(payment_id)

    async def _reconcile(self, call: ReconcileCall, shared: LoopResources) -> ReconcileResult:
        with shared.payments_under_way.track(call.user_id, call.payment_id):
            local = await self._read(call, shared)  # dropped, where the caller leaves before it has begun
        decision = decide_locally(local, call.user_id)
        if isinstance(decision, AlreadyCredited):
            return await self._complete(call, shared, local, decision.entry)
        if isinstance(decision, NotOwned):
            await self._resources.rate_limiter.hit(call.user_id)
            raise PaymentNotOwnedError
        gateway = self._resources.gateway(call.payment_id)
        if isinstance(decision, Hold):
            held = held_error(decision.reason, local.money)
            await self._report_held(call, held)
            raise held
        # From here on the work belongs to nobody's request: a client that disconnects cancels nothing.
        return await shared.tasks.run(self._fetch_and_settle(call, shared, local, gateway))

    async def _read(self, call: ReconcileCall, shared: LoopResources) -> LocalState:
        key = "read", call.user_id, call.payment_id
        return await shared.read(partial(self._settlement.read, call), key)

    async def _fetch_and_settle(
        self, call: ReconcileCall, shared: LoopResources, local: LocalState, gateway: PaymentGateway
    ) -> ReconcileResult:
        with shared.payments_under_way.track(call.user_id, call.payment_id):
            payment = await self._fetch(call, shared, local, gateway)
            with shared.settling.track((call.user_id, call.payment_id)):
                settle = partial(self._settle, call, shared, payment, self._resources.shop(gateway))
                return await when_wallet_is_free(call.payment_id, settle)

    async def _fetch(
        self, call: ReconcileCall, shared: LoopResources, local: LocalState, gateway: PaymentGateway
    ) -> ProviderPayment | None:
        # The person's rate limit is for what the person asks.
        hit = (
            charge_nothing
            if call.way is Way.SWEEP
            else partial(self._resources.rate_limiter.hit, call.user_id)
        )
        has_record = local.record is not None
        if not has_record:
            # It costs a unit whether or not a query is sent for it, so that nobody learns from the price
            # whether an id exists.
            await hit()
        # While another call settles an answer about this payment, whoever comes late joins it.
        is_settling = (call.user_id, call.payment_id) in shared.settling
        return await shared.provider.fetch(
            gateway,
            call.payment_id,
            on_new_query=hit if has_record else charge_nothing,
            max_age=REPLY_TIMEOUT if is_settling else ANSWER_TTL,
        )

    async def _settle(
        self, call: ReconcileCall, shared: LoopResources, payment: ProviderPayment | None, shop: Shop
    ) -> ReconcileResult:
        settle = partial(self._settlement.settle, call, payment, shop)
        # Ids will do: what waits keeps service and payment alive.
        key = "settle", id(call.service), call.user_id, call.payment_id, id(payment)
        while True:
            lock = shared.user_write_lock.hold(call.user_id, call.expires_at)
            try:
                return await shared.single_flight.run(key, lock, partial(shared.thread.run, settle))
            except StillBeingCheckedError:
                check_not_expired(call.expires_at)  # else it was the time of a call that this one had joined
            except PaymentHeldError as held:
                await self._report_held(call, held)
                raise

    async def _report_held(self, call: ReconcileCall, held: PaymentHeldError) -> None:
        if await self._resources.holds_reported.is_first(f"{call.payment_id}:{held.reason}"):
            self._resources.events.held(call.payment_id, call.user_id, held, call.way)

    async def _complete(
        self, call: ReconcileCall, shared: LoopResources, local: LocalState, entry: LedgerEntry
    ) -> ReconcileResult:
        """Answer from the ledger alone; a status left behind is put right, if that works at once."""
        complete = partial(self._settlement.complete, call, local, entry, SUCCEEDED)
        if not needs_repair(local):
            return complete()
        if not shared.user_write_lock.is_held(call.user_id):
            with suppress(TimeoutError):
                async with asyncio.timeout(REPAIR_TIMEOUT):
                    repair = shared.user_write_lock.run(call.user_id, call.expires_at, complete)
                    return await shared.tasks.run(repair)
        return ReconcileResult(call.payment_id, SUCCEEDED, local.status, credited=True)
