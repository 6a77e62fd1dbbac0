"""Everything about the billing tables under one name."""

from open_webui.models.billing_models import Transaction, TransactionModel, TransactionStatus
from open_webui.models.billing_wallet import (
    LedgerEntry,
    LedgerEntryModel,
    LedgerEntryType,
    Payment,
    PaymentKind,
    PaymentModel,
    PaymentStatus,
    Wallet,
    WalletModel,
)
from open_webui.models.billing_wallet_tables import (
    LedgerEntries,
    Payments,
    Transactions,
    Wallets,
)

__all__ = [
    "LedgerEntries",
    "LedgerEntry",
    "LedgerEntryModel",
    "LedgerEntryType",
    "Payment",
    "PaymentKind",
    "PaymentModel",
    "PaymentStatus",
    "Payments",
    "Transaction",
    "TransactionModel",
    "TransactionStatus",
    "Transactions",
    "Wallet",
    "WalletModel",
    "Wallets",
]
