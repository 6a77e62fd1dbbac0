"""What the use cases of one host share: its ledger, the provider client, threads and locks, events."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, TypeVar

from openwebui_billing_reconcile.concurrency import (
    InFlight,
    InFlightLimit,
    PerLoop,
    SerialThread,
    SingleFlight,
    TaskSet,
)
from openwebui_billing_reconcile.errors import NotConfiguredError
from openwebui_billing_reconcile.hookspecs import PaymentGateway
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.rules import Shop
from openwebui_billing_reconcile.provider.client import OnQuery, ProviderClient, ignore_query
from openwebui_billing_reconcile.provider.cooldown import Cooldown
from openwebui_billing_reconcile.provider.shared_redis import open_redis
from openwebui_billing_reconcile.provider.shop import shop_of
from openwebui_billing_reconcile.provider.user_rate_limit import RateLimiter
from openwebui_billing_reconcile.settings import Settings

from .events import EventDispatcher
from .once_a_day import OnceADay
from .user_write_lock import UserWriteLock

T = TypeVar("T")

MAX_PAYMENTS_UNDER_WAY: Final = 6
"""Payments of one user that are reconciled at a time, per event loop. Others need slots, too."""

OVERDUE_AFTER: Final = 1.0
"""The seconds after which a thread that is still at one call gives its place to a spare one."""

THREADS: Final = 4
"""One that works and its spare ones, per event loop: few of the host's pool of 5 + 10 connections."""


class LoopResources:
    """What the calls of one event loop share."""

    def __init__(self, deadline: float, cooldown: Cooldown, on_query: OnQuery) -> None:
        self.provider = ProviderClient(deadline, cooldown=cooldown, on_query=on_query)
        self.tasks = TaskSet()
        self.single_flight = SingleFlight(self.tasks)
        self.payments_under_way = InFlightLimit(MAX_PAYMENTS_UNDER_WAY)
        self.settling = InFlight()
        self.thread = SerialThread(THREADS - 1, OVERDUE_AFTER)
        self.user_write_lock = UserWriteLock(self.thread)

    async def read(self, work: Callable[[], T], key: Hashable | None = None) -> T:
        """Run ``work``, which reads, on a thread; callers with the same ``key`` share it until it begins.

        It is dropped where the last caller leaves before that. Once begun it keeps its thread until it ends,
        whoever leaves, so that a database that hangs holds no more threads than there are.
        """
        run = partial(self.thread.run, work)
        return await self.single_flight.run(key or object(), self.thread.slot(), run)


class Resources:
    """What the use cases of one host share. Used from any number of event loops."""

    def __init__(self, host: OpenWebUIHost, settings: Settings, on_query: OnQuery = ignore_query) -> None:
        """``on_query`` is called after each exchange with the provider; see ``ProviderClient``."""
        self.host = host
        self.settings = settings
        self.ledger = Ledger(host)
        self.events = EventDispatcher(host.hook)
        redis = open_redis(host.redis_url, host.redis_key_prefix)
        self.rate_limiter = RateLimiter(settings.rate_limit, redis)
        self.holds_reported = OnceADay(redis)
        cooldown = Cooldown(redis)
        self._loops = PerLoop(lambda: LoopResources(settings.deadline_seconds, cooldown, on_query))

    def of_loop(self) -> LoopResources:
        """Return what belongs to the running event loop."""
        return self._loops.get()

    def gateway(self, payment_id: str) -> PaymentGateway:
        """Return the gateway to ask about a payment, "" for a list. Raises ``NotConfiguredError``."""
        gateway = self.host.hook.payment_gateway(host=self.host, payment_id=payment_id)
        if gateway is None:
            raise NotConfiguredError
        return gateway

    def shop(self, gateway: PaymentGateway) -> Shop:
        """Return the host's side of payments that ``gateway`` knows."""
        return shop_of(gateway, self.settings, self.host.default_currency)
