"""What we read in the host's tables. Everything here blocks, so call it on a thread."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Row, Table
from sqlalchemy.orm import Session

from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.money.rules import named_wallet
from openwebui_billing_reconcile.money.values import (
    CAPTURED_AT,
    RECONCILED_BY,
    RELEASE_ID,
    CreditedTopup,
    LedgerEntry,
    LocalState,
    Money,
    OpenTopup,
    PaymentRecord,
    ProviderPayment,
    Wallet,
)

from .statements import (
    count_open_topups,
    credited_topups,
    open_topups,
    open_topups_of_user,
    other_entries_naming,
    record_and_topups,
    records_and_topups,
    users_among,
    wallet_by,
    wallets_with_ids,
)


class Tables(Protocol):
    """The host's billing tables and sessions to read them with."""

    def session(self) -> AbstractContextManager[Session]:
        """A database session, closed at the end of the ``with``."""

    def table(self, model: str) -> Table:
        """The table of a model: Payment, Wallet, LedgerEntry."""


class LedgerReader:
    """The host's payments, wallets and ledger entries, to be read.

    Whatever the database raises goes through unchanged.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def read(self, payment_id: str) -> LocalState:
        """Return what the tables say about the payment now."""
        with self._tables.session() as session:
            return self._read(session, payment_id)

    def read_with_wallet(self, payment: ProviderPayment, user_id: str) -> tuple[LocalState, Wallet | None]:
        """Return the same, and the wallet that ``payment`` would be credited to.

        That is the wallet named, or where none is named the user's own in the payment's currency. Nobody
        else's payment leads to a wallet.
        """
        with self._tables.session() as session:
            local = self._read(session, payment.id)
            return local, self._wallet_for(session, payment, local, user_id)

    def read_with_wallets(
        self, payment: ProviderPayment, user_id: str
    ) -> tuple[LocalState, Wallet | None, Wallet | None]:
        """Return the same, and besides the user's own wallet in the payment's currency."""
        with self._tables.session() as session:
            local = self._read(session, payment.id)
            wallet = self._wallet_for(session, payment, local, user_id)
            if payment.amount is None:
                return local, wallet, None
            return local, wallet, self._wallet(session, None, user_id, payment.amount.currency)

    def adjusted_kopeks(self, payment_id: str, local: LocalState, currency: str) -> int:
        """Return by how many kopeks of ``currency`` other entries that name the payment changed the wallet.

        ``local`` is what the tables say about the payment.
        """
        with self._tables.session() as session:
            others = self._other_entries(session, payment_id, local.record)
        return sum(other.amount_kopeks for other in others if other.currency == currency)

    def read_many(self, payment_ids: Sequence[str]) -> dict[str, LocalState]:
        """Return what the tables say about many payments, in one statement, other entries left out."""
        statement = records_and_topups(self._tables.table("Payment"), self._tables.table("LedgerEntry"))
        with self._tables.session() as session:
            rows = session.execute(statement, {"payment_ids": list(payment_ids)}).all()
        rows_of = defaultdict(list)
        for row in rows:
            rows_of[row.payment_id].append(row)
        states = {payment_id: LocalState() for payment_id in payment_ids}
        for payment_id, found in rows_of.items():
            states[payment_id] = LocalState(_record(found[0]), tuple(_topups(found)))
        return states

    def wallets(self, wallet_ids: Sequence[str]) -> dict[str, Wallet]:
        """Return the wallets that exist, by their ids."""
        with self._tables.session() as session:
            rows = session.execute(
                wallets_with_ids(self._tables.table("Wallet")), {"ids": list(wallet_ids)}
            ).all()
        return {row.id: Wallet(*row) for row in rows}

    def users_among(self, user_ids: Sequence[str]) -> set[str]:
        """Return those of the users that have a wallet or a payment here."""
        statement = users_among(self._tables.table("Payment"), self._tables.table("Wallet"))
        with self._tables.session() as session:
            return set(session.execute(statement, {"user_ids": list(user_ids)}).scalars())

    def credited_topups(self, since: float, until: float, most: int) -> Iterator[list[CreditedTopup]]:
        """Yield the credits entered from ``since`` to before ``until`` (epoch seconds), a page at a time.

        The session ends before each page is yielded.
        """
        statement = credited_topups(self._tables.table("Payment"), self._tables.table("LedgerEntry"))
        names = {"since": int(since), "until": int(until), "after": "", "most": most}
        while True:
            with self._tables.session() as session:
                rows = session.execute(statement, names).all()
            if not rows:
                return
            yield [_credited(row) for row in rows]
            names["after"] = rows[-1].id

    def count_open_topups(self, until: float) -> int:
        """Return how many pending top-ups were made up to ``until`` (epoch seconds)."""
        statement = count_open_topups(self._tables.table("Payment"))
        with self._tables.session() as session:
            count: int = session.execute(statement, {"until": int(until)}).scalar_one()
        return count

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
        with self._tables.session() as session:
            rows = session.execute(open_topups(self._tables.table("Payment")), names).all()
        return [OpenTopup(*row) for row in rows]

    def open_topups_of_user(self, user_id: str, since: float, most: int) -> list[str]:
        """Return the payment ids of the user's pending top-ups, newest first.

        ``since`` is in epoch seconds.
        """
        statement = open_topups_of_user(self._tables.table("Payment"))
        names = {"user_id": user_id, "since": int(since), "most": most}
        with self._tables.session() as session:
            return list(session.execute(statement, names).scalars())

    def _read(self, session: Session, payment_id: str) -> LocalState:
        payment, entry = self._tables.table("Payment"), self._tables.table("LedgerEntry")
        rows = session.execute(record_and_topups(payment, entry), {"payment_id": payment_id}).all()
        record = _record(rows[0])
        topups = tuple(_topups(rows))
        if topups:
            return LocalState(record, topups)
        return LocalState(record, other_entries=len(self._other_entries(session, payment_id, record)))

    def _other_entries(
        self, session: Session, payment_id: str, record: PaymentRecord | None
    ) -> Sequence[Row[Any]]:
        statement = other_entries_naming(self._tables.table("LedgerEntry"))
        names = {"payment_id": payment_id, "record_id": record.id if record else payment_id}
        return session.execute(statement, names).all()

    def _wallet_for(
        self, session: Session, payment: ProviderPayment, local: LocalState, user_id: str
    ) -> Wallet | None:
        owner = local.record.user_id if local.record else payment.topup.user_id
        if payment.amount is None or owner != user_id:
            return None
        return self._wallet(session, named_wallet(payment, local), user_id, payment.amount.currency)

    def _wallet(self, session: Session, wallet_id: str | None, user_id: str, currency: str) -> Wallet | None:
        key = {"id": wallet_id} if wallet_id else {"user_id": user_id, "currency": currency}
        row = session.execute(wallet_by(self._tables.table("Wallet"), *key), key).first()
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
                row.entry_id,
                row.user_id,
                row.wallet_id,
                Money(row.amount_kopeks, row.currency),
                _release_id(row.entry_metadata),
            )


def _release_id(entry_metadata: object) -> str | None:
    metadata = _mapping(entry_metadata)
    return metadata.get(RELEASE_ID) if metadata.get(RECONCILED_BY) == Way.RELEASE else None


def _credited(row: Row[Any]) -> CreditedTopup:
    # A release stands with the entry itself, since a webhook beside it may overwrite the payment's payload.
    metadata = _mapping(row.entry_metadata)
    if RECONCILED_BY not in metadata:
        metadata = _mapping(_mapping(row.payload).get("metadata"))
    return CreditedTopup(
        row.payment_id,
        Money(row.amount_kopeks, row.currency),
        row.created_at,
        metadata.get(RECONCILED_BY),
        metadata.get(CAPTURED_AT),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    """Return what a column of JSON holds; read from a database whose columns say so, or as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}
