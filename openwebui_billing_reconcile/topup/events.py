"""What is said about new outcomes: one log line each, and the listeners of the ``topup_reconciled`` hook."""

from __future__ import annotations

import logging
import queue
import threading
import time

from cachetools import LRUCache

from openwebui_billing_reconcile.hookspecs import Hooks, TopupRecord
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import LedgerLine

log = logging.getLogger(__name__)

_HOLDS_REMEMBERED = 4096
_BACKLOG = 1000


class News:
    """Tells each credit, each cancellation, and each hold once per payment and reason in this process.

    Listeners run one after the other on a thread of their own, so a slow one delays no answer; more than
    1,000 outcomes behind, they miss the newest, and a log line says so.
    """

    def __init__(self, hook: Hooks) -> None:
        self._hook = hook
        self._holds: LRUCache[tuple[str, HoldReason], bool] = LRUCache(_HOLDS_REMEMBERED)
        self._backlog: queue.Queue[TopupRecord] = queue.Queue(_BACKLOG)
        self._lock = threading.Lock()
        self._teller: threading.Thread | None = None

    def credited(self, payment_id: str, line: LedgerLine) -> None:
        """This payment's credit is now in the ledger."""
        log.info(
            "Top-up credited: payment=%s user=%s wallet=%s kopeks=%d currency=%s",
            payment_id,
            line.user_id,
            line.wallet_id,
            line.money.kopeks,
            line.money.currency,
        )
        self._tell(
            TopupRecord(
                outcome="credited",
                payment_id=payment_id,
                user_id=line.user_id,
                at=time.time(),
                wallet_id=line.wallet_id,
                amount_kopeks=line.money.kopeks,
                currency=line.money.currency,
            )
        )

    def canceled(self, payment_id: str, user_id: str) -> None:
        """The provider canceled this payment and our record now says so."""
        self._tell(TopupRecord("canceled", payment_id, user_id, at=time.time()))

    def held(self, payment_id: str, user_id: str, reason: HoldReason) -> None:
        """This payment is not credited, and a person has to look."""
        with self._lock:
            if (payment_id, reason) in self._holds:
                return
            self._holds[payment_id, reason] = True
        log.warning(
            "Top-up held, nothing credited: payment=%s user=%s reason=%s",
            payment_id,
            user_id,
            reason.value,
        )
        self._tell(TopupRecord("held", payment_id, user_id, at=time.time(), reason=reason.value))

    def _tell(self, record: TopupRecord) -> None:
        try:
            self._backlog.put_nowait(record)
        except queue.Full:
            log.warning("Listeners are too slow and miss an outcome: payment=%s", record.payment_id)
            return
        with self._lock:
            if self._teller is None or not self._teller.is_alive():
                self._teller = threading.Thread(
                    target=self._tell_all, name="billing-reconcile-news", daemon=True
                )
                self._teller.start()

    def _tell_all(self) -> None:
        while True:
            record = self._backlog.get()
            try:
                self._hook.topup_reconciled(record=record)
            except Exception as error:  # noqa: BLE001 - a listener's fault is not the next one's
                log.warning("A listener failed: %s", type(error).__name__)
