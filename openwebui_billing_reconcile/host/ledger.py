"""What we read and write in the host's tables. Everything here blocks, so call it on a thread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError, WalletBusyError
from openwebui_billing_reconcile.money.rules import named_wallet
from openwebui_billing_reconcile.money.values import (
    CANCELED,
    PENDING,
    REPAIRABLE,
    SUCCEEDED,
    TOPUP,
    LedgerEntry,
    LocalState,
    Money,
    OpenTopup,
    PaymentRecord,
    ProviderPayment,
    Wallet,
)

from .entry_watch import EntryWatch
from .locks import bounded_lock_waits, is_lock_timeout, lock_sqlite
from .open_webui import OpenWebUIHost
from .requirements import AUTO_TOPUP, AUTO_TOPUP_FAILURE, FAIL_COUNT
from .statements import (
    change_status,
    failures_of,
    lock_wallet,
    open_topups,
    open_topups_of_user,
    other_entries_naming,
    record_and_topups,
    records_and_topups,
    wallet_and_metadata,
    wallet_by,
    wallets_with_ids,
)


class Ledger:
    """The host's payments, wallets and ledger entries.

    Whatever the database or the host raises goes through unchanged.
    """

    def __init__(self, host: OpenWebUIHost) -> None:
        self._host = host
        self._entries = EntryWatch(host.model("LedgerEntry"))

    def read(self, payment_id: str) -> LocalState:
        """Return what the tables say about the payment now."""
        with self._host.session() as session:
            return self._read(session, payment_id)

    def read_with_wallet(
        self, payment_id: str, payment: ProviderPayment, user_id: str
    ) -> tuple[LocalState, Wallet | None]:
        """Return the same, and the wallet that ``payment`` would be credited to.

        That is the wallet named, or where none is named the user's own in the payment's currency. Nobody
        else's payment leads to a wallet.
        """
        with self._host.session() as session:
            local = self._read(session, payment_id)
            owner = local.record.user_id if local.record else payment.topup.user_id
            if payment.amount is None or owner != user_id:
                return local, None
            wallet_id = named_wallet(payment, local)
            return local, self._wallet(session, wallet_id, user_id, payment.amount.currency)

    def read_many(self, payment_ids: Sequence[str]) -> dict[str, LocalState]:
        """Return what the tables say about many payments, in one statement, other entries left out."""
        statement = records_and_topups(self._host.table("Payment"), self._host.table("LedgerEntry"))
        with self._host.session() as session:
            rows = session.execute(statement, {"payment_ids": list(payment_ids)}).all()
        rows_of = defaultdict(list)
        for row in rows:
            rows_of[row.payment_id].append(row)
        return {
            payment_id: LocalState(_record(found[0]), tuple(_topups(found))) if found else LocalState()
            for payment_id, found in ((payment_id, rows_of[payment_id]) for payment_id in payment_ids)
        }

    def wallets(self, wallet_ids: Sequence[str]) -> dict[str, Wallet]:
        """Return the wallets that exist, by their ids."""
        with self._host.session() as session:
            rows = session.execute(
                wallets_with_ids(self._host.table("Wallet")), {"ids": list(wallet_ids)}
            ).all()
        return {row.id: Wallet(*row) for row in rows}

    def open_topups(self, since: float, until: float, after: OpenTopup | None, most: int) -> list[OpenTopup]:
        """Return pending top-ups made from ``since`` to ``until`` (epoch seconds), the oldest first.

        ``after`` is the last one of the page before.
        """
        names = {
            "since": int(since),
            "until": int(until),
            "after_created_at": after.created_at if after else -1,
            "after_payment_id": after.payment_id if after else "",
            "most": most,
        }
        with self._host.session() as session:
            rows = session.execute(open_topups(self._host.table("Payment")), names).all()
        return [OpenTopup(*row) for row in rows]

    def open_topups_of_user(self, user_id: str, since: float, most: int) -> list[str]:
        """Return the payment ids of the user's pending top-ups, newest first.

        ``since`` is in epoch seconds.
        """
        statement = open_topups_of_user(self._host.table("Payment"))
        names = {"user_id": user_id, "since": int(since), "most": most}
        with self._host.session() as session:
            return list(session.execute(statement, names).scalars())

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
            self._run_crediting_path(service, payment_id, wallet, money, metadata)

    def take_entered(self, entry: LedgerEntry) -> bool:
        """Return whether a call of ours, in this process, entered ``entry``; true once for each entry."""
        return self._entries.take(entry.id)

    def _run_crediting_path(
        self, service: Any, payment_id: str, wallet: Wallet, money: Money, metadata: Mapping[str, Any]
    ) -> None:
        service._process_topup_webhook(
            event_type=f"payment.{SUCCEEDED}",
            payment_id=payment_id,
            webhook_data={
                "event_type": f"payment.{SUCCEEDED}",
                "payment_id": payment_id,
                "status": SUCCEEDED,
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
        statement = change_status(payment, entry, where_credited=new == SUCCEEDED)
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

    def _read(self, session: Session, payment_id: str) -> LocalState:
        payment, entry = self._host.table("Payment"), self._host.table("LedgerEntry")
        rows = session.execute(record_and_topups(payment, entry), {"payment_id": payment_id}).all()
        record = _record(rows[0])
        topups = tuple(_topups(rows))
        if topups:
            return LocalState(record, topups)
        names = {"payment_id": payment_id, "record_id": record.id if record else payment_id}
        others = session.execute(other_entries_naming(entry), names).all()
        return LocalState(record, other_entries=len(others))

    def _wallet(self, session: Session, wallet_id: str | None, user_id: str, currency: str) -> Wallet | None:
        key = {"id": wallet_id} if wallet_id else {"user_id": user_id, "currency": currency}
        row = session.execute(wallet_by(self._host.table("Wallet"), *key), key).first()
        return Wallet(*row) if row else None


def _record(row: Row[Any]) -> PaymentRecord | None:
    if row.record_id is None:
        return None
    return PaymentRecord(
        id=row.record_id,
        status=row.status,
        kind=row.kind,
        user_id=row.record_user_id,
        wallet_id=row.record_wallet_id or None,
        money=Money(row.record_kopeks, row.record_currency),
    )


def _topups(rows: Sequence[Row[Any]]) -> Iterator[LedgerEntry]:
    for row in rows:
        if row.entry_id is not None:
            yield LedgerEntry(
                row.entry_id, row.user_id, row.wallet_id, Money(row.amount_kopeks, row.currency)
            )
