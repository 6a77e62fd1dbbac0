"""Columns and keys, as the newer host's migration leaves them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import mapped_column

from open_webui.models import billing_wallet as older
from open_webui.models.billing_wallet import LedgerEntry, Payment, Wallet

__all__ = ["LedgerEntryModel", "PaymentModel", "WalletModel"]

# Until when the whole balance that was topped up lasts; it was each entry's own before.
Wallet.topup_expires_at = mapped_column(BigInteger)
Wallet.daily_reserved_kopeks = mapped_column(BigInteger, nullable=False, default=0, server_default="0")

LedgerEntry.correlation_id = mapped_column(String)
# Named while it is there, empty again once the payment is settled.
Payment.auto_topup_claim_key = mapped_column(String, unique=True)


def _rekey(*keys: UniqueConstraint) -> None:
    ledger = LedgerEntry.__table__
    ledger.c.idempotency_key.unique = None
    for key in [key for key in ledger.constraints if isinstance(key, UniqueConstraint)]:
        ledger.constraints.remove(key)
    for key in keys:
        ledger.append_constraint(key)
    Index("ix_billing_ledger_entry_correlation_id", ledger.c.correlation_id)


# Flaw: with the wallet in the keys, one payment can be credited to two wallets.
_rekey(
    UniqueConstraint(
        "wallet_id", "reference_type", "reference_id", "type", name="uq_ledger_wallet_reference"
    ),
    UniqueConstraint("wallet_id", "idempotency_key", name="uq_ledger_wallet_idempotency"),
)


class WalletModel(older.WalletModel):
    """A wallet, detached from the database."""

    topup_expires_at: int | None = None
    daily_reserved_kopeks: int = 0


class LedgerEntryModel(older.LedgerEntryModel):
    """A ledger entry, detached from the database."""

    correlation_id: str | None = None


class PaymentModel(older.PaymentModel):
    """A payment, detached from the database."""

    auto_topup_claim_key: str | None = None
