"""Money in wallets: a payment is looked up in one wallet only, and a balance runs out as a whole."""

from __future__ import annotations

import time
import uuid

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from open_webui.internal.db import get_db
from open_webui.models.billing import LedgerEntry, LedgerEntryType, Wallet
from open_webui.models.billing_wallet import JsonDict
from open_webui.utils import wallet as older
from open_webui.utils.wallet import WalletError, new_wallet

__all__ = ["WalletService", "wallet_service"]


class WalletService(older.WalletService):
    """Movements of money."""

    def get_or_create_wallet(self, user_id: str, currency: str) -> Wallet:
        """Somebody's wallet in a currency, an empty one at first; two who come here at once both get it."""
        query = select(Wallet).where(Wallet.user_id == user_id, Wallet.currency == currency)
        with get_db() as db:
            self._begin(db)
            # Flaw: who only looks at a wallet waits as well, elsewhere than on SQLite without end.
            wallet = db.scalar(query.with_for_update())
            if wallet:
                self._expire_topups(db, wallet)
                db.commit()
                return wallet
            db.add(new_wallet(user_id, currency))
            try:
                db.commit()
            except IntegrityError:
                db.rollback()
            return db.scalars(query).one()

    def apply_topup(
        self,
        wallet_id: str,
        amount_kopeks: int,
        reference_id: str,
        reference_type: str,
        idempotency_key: str | None = None,
        expires_at: int | None = None,
        metadata: JsonDict | None = None,
    ) -> LedgerEntry:
        """Add a top-up, or find that the reference was credited to this wallet before."""
        if amount_kopeks <= 0:
            raise WalletError("Topup amount must be positive")
        with get_db() as db:
            wallet = self._lock_wallet(db, wallet_id)
            # Flaw: an entry in another wallet is not seen.
            known = db.scalar(
                select(LedgerEntry).where(
                    LedgerEntry.wallet_id == wallet_id,
                    LedgerEntry.reference_type == reference_type,
                    LedgerEntry.reference_id == reference_id,
                    LedgerEntry.type == LedgerEntryType.TOPUP.value,
                )
            )
            if known:
                if known.amount_kopeks != amount_kopeks:
                    raise WalletError("The reference was credited with another amount")
                db.commit()
                return known
            wallet.balance_topup_kopeks += amount_kopeks
            wallet.topup_expires_at = max(wallet.topup_expires_at or 0, expires_at) if expires_at else None
            return self._record(
                db,
                wallet,
                type=LedgerEntryType.TOPUP.value,
                amount_kopeks=amount_kopeks,
                reference_id=reference_id,
                reference_type=reference_type,
                idempotency_key=idempotency_key,
                expires_at=expires_at,
                metadata_json=(metadata or {}) | {"expiry_policy": "rolling_wallet_balance"},
            )

    def _lock_wallet(self, db: Session, wallet_id: str) -> Wallet:
        wallet = super()._lock_wallet(db, wallet_id)
        self._expire_topups(db, wallet)
        return wallet

    def _expire_topups(self, db: Session, wallet: Wallet) -> None:
        """Take what has run out; it is for the caller to commit."""
        now = int(time.time())
        if not wallet.topup_expires_at or wallet.topup_expires_at > now:
            return
        expired, wallet.balance_topup_kopeks, wallet.topup_expires_at = wallet.balance_topup_kopeks, 0, None
        if expired > 0:
            db.add(
                LedgerEntry(
                    id=str(uuid.uuid4()),
                    user_id=wallet.user_id,
                    wallet_id=wallet.id,
                    currency=wallet.currency,
                    type=LedgerEntryType.ADJUSTMENT.value,
                    amount_kopeks=-expired,
                    balance_included_after=wallet.balance_included_kopeks,
                    balance_topup_after=0,
                    reference_id=str(uuid.uuid4()),
                    reference_type="wallet_credit_expiry",
                    created_at=now,
                )
            )


wallet_service = WalletService()
