"""New outcomes: one log line each, and an event for every listener of the ``topup_outcome`` hook."""

from __future__ import annotations

import logging
import queue
import threading
import time

from cachetools import LRUCache

from openwebui_billing_reconcile.hookspecs import Hooks, TopupEvent, Way
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import LedgerEntry

log = logging.getLogger(__name__)

_MAX_HOLDS = 4096
_MAX_BACKLOG = 1000


class EventDispatcher:
    """Reports each credit, each cancellation, and each hold once per payment and reason in this process.

    Listeners run one after the other on a thread of their own, so a slow one delays no answer. When they are
    more than 1,000 events behind they miss the newest, and a log line says so.
    """

    def __init__(self, hook: Hooks) -> None:
        self._hook = hook
        self._holds: LRUCache[tuple[str, HoldReason], bool] = LRUCache(_MAX_HOLDS)
        self._backlog: queue.Queue[TopupEvent] = queue.Queue(_MAX_BACKLOG)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def credited(self, payment_id: str, entry: LedgerEntry, way: Way) -> None:
        """Report that this payment's credit is now in the ledger."""
        log.info(
            "Top-up credited: payment=%s user=%s wallet=%s kopeks=%d currency=%s way=%s",
            payment_id,
            entry.user_id,
            entry.wallet_id,
            entry.money.kopeks,
            entry.money.currency,
            way.value,
        )
        self._dispatch(
            TopupEvent(
                outcome="credited",
                payment_id=payment_id,
                user_id=entry.user_id,
                way=way,
                at=time.time(),
                wallet_id=entry.wallet_id,
                amount_kopeks=entry.money.kopeks,
                currency=entry.money.currency,
            )
        )

    def canceled(self, payment_id: str, user_id: str, way: Way) -> None:
        """Report that the provider canceled this payment and the host's record now says so."""
        self._dispatch(TopupEvent("canceled", payment_id, user_id, way, at=time.time()))

    def held(self, payment_id: str, user_id: str, reason: HoldReason, way: Way) -> None:
        """Report that this payment is not credited and a person has to look."""
        with self._lock:
            if (payment_id, reason) in self._holds:
                return
            self._holds[payment_id, reason] = True
        log.warning(
            "Top-up held, nothing credited: payment=%s user=%s reason=%s way=%s",
            payment_id,
            user_id,
            reason.value,
            way.value,
        )
        self._dispatch(TopupEvent("held", payment_id, user_id, way, at=time.time(), reason=reason.value))

    def _dispatch(self, event: TopupEvent) -> None:
        try:
            self._backlog.put_nowait(event)
        except queue.Full:
            log.warning("Listeners are too slow and miss an outcome: payment=%s", event.payment_id)
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._dispatch_all, name="billing-reconcile-events", daemon=True
                )
                self._thread.start()

    def _dispatch_all(self) -> None:
        while True:
            event = self._backlog.get()
            try:
                self._hook.topup_outcome(event=event)
            except BaseException as error:  # noqa: BLE001 - a host's own relay may let an exit through
                log.warning("A listener failed: %s", type(error).__name__)
