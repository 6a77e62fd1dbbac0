"""What we write in the host's tables, mostly by the host's own code. Everything here blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from typing import Any, Final

from sqlalchemy import Update
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError, WalletBusyError
from openwebui_billing_reconcile.money.values import (
    CANCELED,
    PENDING,
    REPAIRABLE,
    SUCCEEDED,
    TOPUP,
    WAITING_FOR_CAPTURE,
    LedgerEntry,
    LocalState,
    Money,
    PaymentRecord,
    Wallet,
)

from .database_locks import bounded_lock_waits, is_lock_timeout, lock_sqlite
from .entry_watch import EntryWatch
from .open_webui import OpenWebUIHost
from .reader import LedgerReader
from .requirements import AUTO_TOPUP, AUTO_TOPUP_FAILURE, FAIL_COUNT
from .statements import (
    REFERENCE_TYPE,
    assign_wallet,
    change_status,
    failures_of,
    lock_wallet,
    wallet_and_metadata,
)

_DAY: Final = 24 * 60 * 60  # seconds


class Ledger(LedgerReader):
    """The host's payments, wallets and ledger entries, to be read and written.

    Whatever the database or the host raises goes through unchanged.
    """

    def __init__(self, host: OpenWebUIHost) -> None:
        super().__init__(host)
        self._host = host
        self._entries = EntryWatch(host.model("LedgerEntry"))

    def create_wallet(self, user_id: str, currency: str) -> None:
        """Have the host create the user's wallet in that currency. It may wait for others.

        Raises what the host raised where the wallet is not there then.
        """
        # The host's own function loses the race against a second creator with an IntegrityError; by then
        # the wallet is there.
        error: Exception | None = None
        try:
            with bounded_lock_waits(self._host.engine):
                self._host.wallet_service.get_or_create_wallet(user_id=user_id, currency=currency)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the wallet's being there decides
            error = failure
        with self._host.session() as session:
            if self._wallet(session, None, user_id, currency) is None:
                raise error or LookupError("the host created no wallet")

    def credit(
        self, service: Any, payment_id: str, wallet: Wallet, money: Money, metadata: Mapping[str, Any]
    ) -> None:
        """Have the host credit ``money`` to ``wallet`` for the payment, by its own path.

        ``service`` is the host's ``BillingService``. The path returns nothing and swallows failures, so only
        the ledger tells whether it credited, and ``take_entered`` whether it was a call of ours that did.
        ``metadata`` is the provider's; what we verified is laid over it, because the host believes it.
        Raises ``WalletBusyError`` where the path would wait for the wallet's row.
        """
        self._check_wallet_is_free(wallet.id)
        with self._entries.watch(payment_id), bounded_lock_waits(self._host.engine):
            self._run_path(service, SUCCEEDED, payment_id, wallet, money, metadata)

    def credit_directly(
        self,
        service: Any,
        payment_id: str,
        record: PaymentRecord | None,
        wallet: Wallet,
        money: Money,
        metadata: Mapping[str, Any],
    ) -> None:
        """Credit ``money`` to ``wallet`` where the host's crediting path would not.

        By the host's wallet service, under the same unique key as that path: a payment that is credited
        already is left as it is. ``metadata`` stands with the entry. Raises ``WalletBusyError`` where it
        would wait for the wallet's row.
        """
        with self._entries.watch(payment_id), bounded_lock_waits(self._host.engine):
            if not self._bind(service, payment_id, record, wallet, money):
                return
            self._check_wallet_is_free(wallet.id)  # last, since binding may have waited
            self._host.wallet_service.apply_topup(
                wallet_id=wallet.id,
                amount_kopeks=money.kopeks,
                reference_id=payment_id,
                reference_type=REFERENCE_TYPE,
                idempotency_key=record.id if record else payment_id,
                expires_at=self._expires_at(),
                metadata=dict(metadata),
            )

    def credits_without_wallet(self) -> bool:
        """Whether the host's crediting path credits a payment whose record names no wallet."""
        return not self._host.ledger_key_has_wallet

    def _bind(
        self, service: Any, payment_id: str, record: PaymentRecord | None, wallet: Wallet, money: Money
    ) -> bool:
        """Let the payment's record name ``wallet`` where it has to; return whether it may be credited.

        It has to where the ledger's key leaves room for a credit in each wallet: the host credits the
        record's.
        """
        if not self._host.ledger_key_has_wallet:
            return True
        # First, so that who tries anew finds the record as it was; but for a lock that is taken just after.
        self._check_wallet_is_free(wallet.id)
        if self.read(payment_id).record != record:
            return False  # somebody has changed it since it was decided about
        if record is None:
            self._run_path(service, WAITING_FOR_CAPTURE, payment_id, wallet, money, {})  # makes the record
        elif record.wallet_id != wallet.id:
            names = {
                "payment_id": payment_id,
                "wallet": wallet.id,
                "old_wallet": record.wallet_id,
                "now": int(time.time()),
            }
            self._execute(assign_wallet(self._host.table("Payment"), self._host.table("LedgerEntry")), names)
        # That may have waited: whoever has credited it or settled it by hand meanwhile came first.
        now = self.read(payment_id)
        return bool(now.record and now.record.wallet_id == wallet.id) and now == LocalState(now.record)

    def _expires_at(self) -> int | None:
        days = self._host.topup_ttl_days
        return int(time.time()) + days * _DAY if days else None

    def take_entered(self, entry: LedgerEntry) -> bool:
        """Return whether a call of ours, in this process, entered ``entry``; true once for each entry."""
        return self._entries.take(entry.id)

    def _run_path(
        self,
        service: Any,
        status: str,
        payment_id: str,
        wallet: Wallet,
        money: Money,
        metadata: Mapping[str, Any],
    ) -> None:
        """Run the host's own path for a payment that has this status at the provider."""
        service._process_topup_webhook(
            event_type=f"payment.{status}",
            payment_id=payment_id,
            webhook_data={
                "event_type": f"payment.{status}",
                "payment_id": payment_id,
                "status": status,
                "amount": money.value,
                "currency": money.currency,
                "metadata": {
                    **metadata,
                    "kind": TOPUP,
                    "user_id": wallet.user_id,
                    "wallet_id": wallet.id,
                    "amount_kopeks": money.kopeks,
                },
            },
        )

    def mark_succeeded(self, payment_id: str) -> bool:
        """Mark a payment whose credit is in the ledger as succeeded; return whether that changed anything.

        By one statement that looks at entry and status again, not by the host's path: that would also reset
        the failures of an auto top-up, and credit anew where the entry has been taken back meanwhile.
        """
        return self._change_status(payment_id, REPAIRABLE, SUCCEEDED)

    def cancel(self, service: Any, payment_id: str, metadata: Mapping[str, Any]) -> bool:
        """Record that the provider canceled the payment; return whether that changed anything.

        A payment that is no longer pending, or that has been credited, stays as it is. A canceled auto top-up
        is counted first, as the host counts it: it makes no new attempt while this one is pending, so that a
        declining card is not tried more often than by webhooks. What comes between, a crash say, counts once
        more. ``metadata`` is the provider's. Raises ``WalletBusyError`` where counting would wait.
        """
        if not self._count_auto_topup_failure(service, payment_id, metadata):
            return False
        return self._change_status(payment_id, {PENDING}, CANCELED)

    def _change_status(self, payment_id: str, old: Set[str], new: str) -> bool:
        names = {"payment_id": payment_id, "old": sorted(old), "new": new, "now": int(time.time())}
        payment, entry = self._host.table("Payment"), self._host.table("LedgerEntry")
        return self._execute(change_status(payment, entry, where_credited=new == SUCCEEDED), names)

    def _execute(self, statement: Update, names: Mapping[str, object]) -> bool:
        """Execute and commit; return whether that changed anything."""
        with bounded_lock_waits(self._host.engine), self._host.session() as session:
            result = session.execute(statement, names)
            session.commit()
        return bool(getattr(result, "rowcount", 0))

    def _count_auto_topup_failure(self, service: Any, payment_id: str, metadata: Mapping[str, Any]) -> bool:
        """Count where it is an auto top-up; return whether the cancellation may be recorded then.

        The host counts in its path for ``payment.canceled``, which would overwrite a credit that lands.
        """
        if FAIL_COUNT not in self._host.table("Wallet").c:
            return True  # a host that has no auto top-up
        is_auto_topup = getattr(service, AUTO_TOPUP, None)
        record_failure = getattr(service, AUTO_TOPUP_FAILURE, None)
        if is_auto_topup is None or record_failure is None:
            return False  # it counts in some other way: that is left to its webhook
        with self._host.session() as session:
            row = session.execute(
                wallet_and_metadata(self._host.table("Payment")), {"payment_id": payment_id}
            ).first()
        if row is None or not (is_auto_topup(metadata=row.metadata_json) or is_auto_topup(metadata=metadata)):
            return True
        wallet_id = str(row.wallet_id or metadata.get("wallet_id"))
        failures = self._failures(wallet_id)
        if failures is None:
            return True  # there is no such wallet
        self._check_wallet_is_free(wallet_id)
        with bounded_lock_waits(self._host.engine):
            record_failure(wallet_id=wallet_id, fail_count=failures)
        if (self._failures(wallet_id) or 0) <= failures:
            raise TemporarilyUnavailableError("Payment could not be checked yet", reason="not_written")
        return True

    def _failures(self, wallet_id: str) -> int | None:
        with self._host.session() as session:
            row = session.execute(failures_of(self._host.table("Wallet")), {"id": wallet_id}).first()
        return (row.failures or 0) if row else None

    def _check_wallet_is_free(self, wallet_id: str) -> None:
        """Raise ``WalletBusyError`` where the host would wait for the wallet: nothing may wait after this.

        What is settled by other means while it waits would be paid a second time.
        """
        engine = self._host.engine
        with engine.connect() as connection:
            try:
                if engine.dialect.name == "sqlite":
                    lock_sqlite(connection)
                else:
                    connection.execute(lock_wallet(self._host.table("Wallet")), {"id": wallet_id})
            except OperationalError as error:
                if is_lock_timeout(error):
                    raise WalletBusyError from error
                raise
