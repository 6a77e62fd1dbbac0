"""Everything we read or write in the host's tables. All of it blocks: call it on a thread.

Reads take the record before the ledger: the host writes them the other way round, so a credit that lands
between the two is seen as "not marked yet" and never as "marked without an entry".
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    and_,
    bindparam,
    func,
    not_,
    select,
    union,
    update,
)

from openwebui_billing_reconcile.money.values import (
    CANCELED,
    PENDING,
    SUCCEEDED,
    TOPUP,
    Books,
    LedgerLine,
    Money,
    PaymentRecord,
    Wallet,
)

from .open_webui import OpenWebUIHost

# The reference type under which the host enters a top-up.
PAYMENT = "payment"

_TABLES = 8  # a process has one host; its tests may have several


class Ledger:
    """The host's payments, wallets and ledger entries.

    ``service`` is the host's ``BillingService``, which reads payments and owns the crediting path.
    Whatever the database or the host raises goes through unchanged.
    """

    def __init__(self, host: OpenWebUIHost) -> None:
        self._host = host

    def read(self, service: Any, payment_id: str) -> Books:
        """What the tables say about the payment now."""
        record = _record(service.payments.get_payment_by_provider_id(payment_id))
        entry = self._host.table("LedgerEntry")
        names = {"payment_id": payment_id, "record_id": record.id if record else payment_id}
        with self._host.session() as session:
            rows = session.execute(_crediting(entry), names).all()
            if not rows:
                rows = session.execute(_naming(entry), names).all()
        topups = tuple(
            LedgerLine(r.user_id, r.wallet_id, Money(r.amount_kopeks, r.currency))
            for r in rows
            if (r.reference_type, r.reference_id, r.type) == (PAYMENT, payment_id, TOPUP)
        )
        return Books(record, topups, others=len(rows) - len(topups))

    def wallet(self, wallet_id: str | None, user_id: str, currency: str) -> Wallet | None:
        """The wallet named, or where none is named the user's own in that currency."""
        key = {"id": wallet_id} if wallet_id else {"user_id": user_id, "currency": currency}
        with self._host.session() as session:
            row = session.execute(_wallet(self._host.table("Wallet"), *key), key).first()
        return Wallet(*row) if row else None

    def create_wallet(self, user_id: str, currency: str) -> Wallet:
        """The user's wallet in that currency, created where there is none."""
        # The host's own function loses the race against a second creator with an IntegrityError; by then
        # the wallet is there.
        error: Exception | None = None
        try:
            self._host.wallet_service.get_or_create_wallet(user_id, currency)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the wallet's being there decides
            error = failure
        wallet = self.wallet(None, user_id, currency)
        if wallet is None:
            raise error or LookupError("the host created no wallet")
        return wallet

    def credit(
        self, service: Any, payment_id: str, wallet: Wallet, money: Money, metadata: dict[str, Any]
    ) -> None:
        """Have the host credit ``money`` to ``wallet`` for the payment, by its own path.

        It returns nothing and swallows failures, so only the ledger tells whether it did. ``metadata`` is
        the provider's; what we verified is laid over it, because the host believes it.
        """
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

    def mark_succeeded(self, service: Any, payment_id: str, line: LedgerLine) -> None:
        """Mark a payment whose credit is in the ledger as succeeded, by the host's own path.

        That path finds the entry and credits nothing more: the key lets one top-up stand per payment.
        """
        wallet = Wallet(line.wallet_id, line.user_id, line.money.currency)
        self.credit(service, payment_id, wallet, line.money, {})

    def cancel(self, payment_id: str) -> bool:
        """Record that the provider canceled the payment; whether that changed anything.

        One statement: a payment that is no longer pending, or that has been credited, stays as it is.
        """
        payment, entry = self._host.table("Payment"), self._host.table("LedgerEntry")
        credited = select(entry.c.id).where(_is_topup_of(entry, payment_id)).exists()
        with self._host.session() as session:
            result = session.execute(
                update(payment)
                .where(
                    payment.c.provider_payment_id == payment_id,
                    payment.c.status == PENDING,
                    not_(credited),
                )
                .values(status=CANCELED, updated_at=int(time.time()))
            )
            session.commit()
        return bool(getattr(result, "rowcount", 0))


def _is_topup_of(entry: Table, payment_id: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(
        entry.c.reference_type == PAYMENT,
        entry.c.reference_id == payment_id,
        entry.c.type == TOPUP,
    )


# SQLAlchemy takes longer to build these than the database to answer them, so each is built once.

_ENTRY_COLUMNS = (
    "id",
    "user_id",
    "wallet_id",
    "amount_kopeks",
    "currency",
    "type",
    "reference_type",
    "reference_id",
)
_PAYMENT_ID: BindParameter[str] = bindparam("payment_id")
_RECORD_ID: BindParameter[str] = bindparam("record_id")


@lru_cache(maxsize=_TABLES)
def _wallet(wallet: Table, *key: str) -> Select[Any]:
    """The wallet with this key."""
    wanted = (wallet.c[name] == bindparam(name) for name in key)
    return select(wallet.c.id, wallet.c.user_id, wallet.c.currency).where(*wanted)


@lru_cache(maxsize=_TABLES)
def _crediting(entry: Table) -> Select[Any]:
    """The entries that credit the payment; of all questions about it the one asked most."""
    return _entries(entry).where(_is_topup_of(entry, _PAYMENT_ID))


@lru_cache(maxsize=_TABLES)
def _naming(entry: Table) -> CompoundSelect[Any]:
    """The entries of any kind that name the payment.

    There is no index on ``reference_id`` alone, so this walks the few distinct reference types through the
    ledger's unique key and looks the payment up under each: the cost does not grow with the ledger.
    """
    types = select(func.min(entry.c.reference_type).label("reference_type")).cte(recursive=True)
    following = select(func.min(entry.c.reference_type)).where(
        entry.c.reference_type > types.c.reference_type
    )
    types = types.union_all(select(following.scalar_subquery()).where(types.c.reference_type.is_not(None)))
    named = _entries(entry)
    return union(
        named.join(types, entry.c.reference_type == types.c.reference_type).where(
            entry.c.reference_id == _PAYMENT_ID
        ),
        named.where(entry.c.reference_type.is_(None), entry.c.reference_id == _PAYMENT_ID),
        named.where(entry.c.idempotency_key.in_([_PAYMENT_ID, _RECORD_ID])),
    )


def _entries(entry: Table) -> Select[Any]:
    return select(*(entry.c[name] for name in _ENTRY_COLUMNS))


def _record(row: Any) -> PaymentRecord | None:
    if row is None:
        return None
    return PaymentRecord(
        id=row.id,
        status=str(getattr(row.status, "value", row.status)),
        kind=str(getattr(row.kind, "value", row.kind)),
        user_id=row.user_id,
        wallet_id=row.wallet_id or None,
        money=Money(row.amount_kopeks, row.currency),
    )
