"""New outcomes: an event each for every listener of the ``topup_outcome`` hook, and a line in the log.

A cancellation has no line: nobody has to act.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Literal

from cachetools import LRUCache

from openwebui_billing_reconcile.errors import PaymentHeldError
from openwebui_billing_reconcile.hookspecs import Hooks, TopupEvent, Way
from openwebui_billing_reconcile.money.values import LedgerEntry, parse_time

log = logging.getLogger(__name__)

_MAX_REPORTED = 4096
_MAX_BACKLOG = 1000


class EventDispatcher:
    """Reports credits, cancellations and holds; what would be done, once in this process.

    Listeners run one after the other on a thread of their own, so a slow one delays no answer. When they are
    more than 1,000 events behind they miss the newest, and a log line says so.
    """

    def __init__(self, hook: Hooks) -> None:
        self._hook = hook
        self._reported: LRUCache[tuple[str, str], bool] = LRUCache(_MAX_REPORTED)
        self._backlog: queue.Queue[TopupEvent] = queue.Queue(_MAX_BACKLOG)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def credited(self, payment_id: str, entry: LedgerEntry, way: Way, captured_at: str | None) -> None:
        """Report that this payment's credit is now in the ledger.

        ``captured_at`` is the provider's text.
        """
        self._credit("credited", payment_id, entry, way, captured_at)

    def would_credit(self, payment_id: str, credit: LedgerEntry, way: Way) -> None:
        """Report that ``credit`` would be entered for this payment, were we not only observing."""
        if self._is_first(payment_id, "would_credit"):
            self._credit("would_credit", payment_id, credit, way, None)

    def _credit(
        self,
        outcome: Literal["credited", "would_credit"],
        payment_id: str,
        entry: LedgerEntry,
        way: Way,
        captured_at: str | None,
    ) -> None:
        log.info(
            "Top-up %s: payment=%s user=%s wallet=%s kopeks=%d currency=%s way=%s",
            "credited" if outcome == "credited" else "would be credited",
            payment_id,
            entry.user_id,
            entry.wallet_id,
            entry.money.kopeks,
            entry.money.currency,
            way.value,
        )
        self._dispatch(
            TopupEvent(
                outcome=outcome,
                payment_id=payment_id,
                user_id=entry.user_id,
                way=way,
                at=time.time(),
                wallet_id=entry.wallet_id,
                amount_kopeks=entry.money.kopeks,
                currency=entry.money.currency,
                captured_at=parse_time(captured_at),
            )
        )

    def canceled(self, payment_id: str, user_id: str, way: Way) -> None:
        """Report that the provider canceled this payment and the host's record now says so."""
        self._dispatch(TopupEvent("canceled", payment_id, user_id, way, at=time.time()))

    def held(self, payment_id: str, user_id: str, held: PaymentHeldError, way: Way) -> None:
        """Report that this payment is not credited and a person has to look."""
        log.warning(
            "Top-up held, nothing credited: payment=%s user=%s reason=%s kopeks=%s currency=%s way=%s",
            payment_id,
            user_id,
            held.reason,
            held.amount_kopeks,
            held.currency,
            way.value,
        )
        self._dispatch(
            TopupEvent(
                outcome="held",
                payment_id=payment_id,
                user_id=user_id,
                way=way,
                at=time.time(),
                amount_kopeks=held.amount_kopeks,
                currency=held.currency,
                reason=held.reason,
            )
        )

    def would_cancel(self, payment_id: str, user_id: str, way: Way) -> None:
        """Report that this payment's record would be canceled, were we not only observing."""
        if self._is_first(payment_id, "would_cancel"):
            log.info("Top-up would be canceled: payment=%s user=%s way=%s", payment_id, user_id, way.value)
            self._dispatch(TopupEvent("would_cancel", payment_id, user_id, way, at=time.time()))

    def _is_first(self, payment_id: str, what: str) -> bool:
        """Whether this has not been reported of the payment yet; from now on it has."""
        with self._lock:
            is_first = (payment_id, what) not in self._reported
            self._reported[payment_id, what] = True
            return is_first

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
