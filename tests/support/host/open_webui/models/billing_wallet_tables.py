"""Reads and writes of the billing tables, each in a session of its own."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from open_webui.internal.db import Base, get_db
from open_webui.models.billing_models import Transaction, TransactionModel
from open_webui.models.billing_wallet import (
    JsonDict,
    LedgerEntry,
    LedgerEntryModel,
    Payment,
    PaymentModel,
    Wallet,
    WalletModel,
)


def _update(db: Session, row: Base, updates: JsonDict) -> None:
    for name, value in (updates | {"updated_at": int(time.time())}).items():
        setattr(row, name, value)
    db.commit()


class WalletsTable:
    """Wallets without any locking."""

    def get_wallet_by_id(self, wallet_id: str) -> WalletModel | None:
        """One wallet."""
        with get_db() as db:
            wallet = db.get(Wallet, wallet_id)
            return WalletModel.model_validate(wallet) if wallet else None

    def get_wallet_by_user(self, user_id: str, currency: str) -> WalletModel | None:
        """Somebody's wallet in a currency."""
        query = select(Wallet).where(Wallet.user_id == user_id, Wallet.currency == currency)
        with get_db() as db:
            wallet = db.scalar(query)
            return WalletModel.model_validate(wallet) if wallet else None

    def update_wallet(self, wallet_id: str, updates: JsonDict) -> WalletModel | None:
        """Set some columns."""
        with get_db() as db:
            wallet = db.get(Wallet, wallet_id)
            if wallet is None:
                return None
            _update(db, wallet, updates)
            return WalletModel.model_validate(wallet)


class LedgerEntriesTable:
    """The ledger, to be read."""

    def get_entries_by_user(self, user_id: str, limit: int = 100, offset: int = 0) -> list[LedgerEntryModel]:
        """Somebody's movements, newest first."""
        query = (
            select(LedgerEntry)
            .where(LedgerEntry.user_id == user_id)
            .order_by(LedgerEntry.created_at.desc())
            .offset(offset)
            .limit(limit)
        )
        with get_db() as db:
            return [LedgerEntryModel.model_validate(entry) for entry in db.scalars(query)]


class PaymentsTable:
    """Our records of payments."""

    def create_payment(self, payment_data: PaymentModel) -> PaymentModel:
        """Add a record."""
        with get_db() as db:
            payment = Payment(**payment_data.model_dump())
            db.add(payment)
            db.commit()
            return PaymentModel.model_validate(payment)

    def get_payment_by_id(self, payment_id: str) -> PaymentModel | None:
        """One record, by our own id."""
        return self._first(select(Payment).where(Payment.id == payment_id))

    def get_payment_by_provider_id(self, provider_payment_id: str) -> PaymentModel | None:
        """One record, by the provider's id."""
        return self._first(select(Payment).where(Payment.provider_payment_id == provider_payment_id))

    def update_payment_by_id(self, payment_id: str, updates: JsonDict) -> PaymentModel | None:
        """Set some columns, found by our own id."""
        return self._update_first(select(Payment).where(Payment.id == payment_id), updates)

    def update_payment_by_provider_id(
        self, provider_payment_id: str, updates: JsonDict
    ) -> PaymentModel | None:
        """Set some columns, whatever the record's state."""
        query = select(Payment).where(Payment.provider_payment_id == provider_payment_id)
        return self._update_first(query, updates)

    def list_payments_by_wallet(
        self, wallet_id: str, status: str | None = None, kind: str | None = None, limit: int = 20
    ) -> list[PaymentModel]:
        """A wallet's payments, newest first."""
        query = self._of_wallet(wallet_id, status, kind).limit(limit)
        with get_db() as db:
            return [PaymentModel.model_validate(payment) for payment in db.scalars(query)]

    def get_latest_payment_with_method(
        self, wallet_id: str, status: str | None = None, kind: str | None = None
    ) -> PaymentModel | None:
        """The wallet's newest payment whose means of payment was saved."""
        query = self._of_wallet(wallet_id, status, kind)
        return self._first(query.where(Payment.payment_method_id.is_not(None)))

    def _update_first(self, query: Select[Any], updates: JsonDict) -> PaymentModel | None:
        with get_db() as db:
            payment = db.scalar(query)
            if payment is None:
                return None
            _update(db, payment, updates)
            return PaymentModel.model_validate(payment)

    def _of_wallet(self, wallet_id: str, status: str | None, kind: str | None) -> Select[Any]:
        query = select(Payment).where(Payment.wallet_id == wallet_id)
        if status:
            query = query.where(Payment.status == status)
        if kind:
            query = query.where(Payment.kind == kind)
        return query.order_by(Payment.created_at.desc())

    def _first(self, query: Select[Any]) -> PaymentModel | None:
        with get_db() as db:
            payment = db.scalars(query.limit(1)).first()
            return PaymentModel.model_validate(payment) if payment else None


class TransactionsTable:
    """Subscription payments."""

    def get_transaction_by_id(self, transaction_id: str) -> TransactionModel | None:
        """One of them."""
        with get_db() as db:
            transaction = db.get(Transaction, transaction_id)
            return TransactionModel.model_validate(transaction) if transaction else None

    def update_transaction(self, transaction_id: str, updates: JsonDict) -> TransactionModel | None:
        """Set some columns."""
        with get_db() as db:
            transaction = db.get(Transaction, transaction_id)
            if transaction is None:
                return None
            _update(db, transaction, updates)
            return TransactionModel.model_validate(transaction)


Wallets = WalletsTable()
LedgerEntries = LedgerEntriesTable()
Payments = PaymentsTable()
Transactions = TransactionsTable()
