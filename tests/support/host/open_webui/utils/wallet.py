"""Money in wallets: every movement under a lock and with a ledger entry."""

from __future__ import annotations

import time
import uuid

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from open_webui.internal.db import get_db
from open_webui.models.billing import LedgerEntry, LedgerEntryType, Wallet
from open_webui.models.billing_wallet import JsonDict
from open_webui.shape import take_shape


class WalletError(Exception):
    """A movement that cannot be made."""


def new_wallet(user_id: str, currency: str) -> Wallet:
    """An empty wallet, yet to be stored."""
    now = int(time.time())
    return Wallet(id=str(uuid.uuid4()), user_id=user_id, currency=currency, created_at=now, updated_at=now)


class WalletService:
    """Movements of money."""

    def get_or_create_wallet(self, user_id: str, currency: str) -> Wallet:
        """Somebody's wallet in a currency, an empty one at first."""
        query = select(Wallet).where(Wallet.user_id == user_id, Wallet.currency == currency)
        with get_db() as db:
            wallet = db.scalar(query)
            if wallet is None:
                wallet = new_wallet(user_id, currency)
                db.add(wallet)
                # Flaw: of two that come here at once, one gets an IntegrityError.
                db.commit()
                db.refresh(wallet)
            return wallet

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
        """Add a top-up, or find that the reference was credited before."""
        if amount_kopeks <= 0:
            raise WalletError("Topup amount must be positive")
        with get_db() as db:
            wallet = self._lock_wallet(db, wallet_id)
            # The entry is looked up whoever's wallet it stands in.
            known = db.scalar(
                select(LedgerEntry).where(
                    LedgerEntry.reference_type == reference_type,
                    LedgerEntry.reference_id == reference_id,
                    LedgerEntry.type == LedgerEntryType.TOPUP.value,
                )
            )
            if known:
                return known
            wallet.balance_topup_kopeks += amount_kopeks
            return self._record(
                db,
                wallet,
                type=LedgerEntryType.TOPUP.value,
                amount_kopeks=amount_kopeks,
                reference_id=reference_id,
                reference_type=reference_type,
                idempotency_key=idempotency_key,
                expires_at=expires_at,
                metadata_json=metadata,
            )

    def adjust_balances(
        self,
        wallet_id: str,
        delta_topup_kopeks: int,
        delta_included_kopeks: int,
        reason: str,
        admin_user_id: str,
        idempotency_key: str | None = None,
        reference_id: str | None = None,
        reference_type: str = "admin_wallet_adjustment",
    ) -> LedgerEntry:
        """Change the balances by an administrator's hand."""
        if delta_topup_kopeks == 0 and delta_included_kopeks == 0:
            raise WalletError("At least one balance delta must be non-zero")
        # Flaw: nothing looks whether the reference is a payment, or one already credited.
        reference = reference_id or str(uuid.uuid4())
        with get_db() as db:
            wallet = self._lock_wallet(db, wallet_id)
            known = self._find_adjustment(db, wallet, reference_type, reference, idempotency_key)
            if known:
                return known
            wallet.balance_topup_kopeks += delta_topup_kopeks
            wallet.balance_included_kopeks += delta_included_kopeks
            return self._record(
                db,
                wallet,
                type=LedgerEntryType.ADJUSTMENT.value,
                amount_kopeks=delta_topup_kopeks + delta_included_kopeks,
                reference_id=reference,
                reference_type=reference_type,
                idempotency_key=idempotency_key,
                metadata_json={"reason": reason, "admin_user_id": admin_user_id},
            )

    def _lock_wallet(self, db: Session, wallet_id: str) -> Wallet:
        """The wallet, nobody else's to change until the session ends."""
        self._begin(db)
        # Flaw: elsewhere the lock is waited for without end, a pool's connection in hand.
        wallet = db.scalar(select(Wallet).where(Wallet.id == wallet_id).with_for_update())
        if wallet is None:
            raise WalletError(f"Wallet {wallet_id} not found")
        return wallet

    def _begin(self, db: Session) -> None:
        if db.get_bind().dialect.name == "sqlite":
            db.execute(text("BEGIN IMMEDIATE"))

    def _find_adjustment(
        self,
        db: Session,
        wallet: Wallet,
        reference_type: str,
        reference_id: str,
        idempotency_key: str | None,
    ) -> LedgerEntry | None:
        mine = select(LedgerEntry).where(
            LedgerEntry.wallet_id == wallet.id,
            LedgerEntry.type == LedgerEntryType.ADJUSTMENT.value,
            LedgerEntry.reference_type == reference_type,
        )
        if idempotency_key:
            entry = db.scalar(mine.where(LedgerEntry.idempotency_key == idempotency_key))
            if entry:
                return entry
        return db.scalar(mine.where(LedgerEntry.reference_id == reference_id))

    def _record(self, db: Session, wallet: Wallet, **columns: object) -> LedgerEntry:
        """Write the entry together with the wallet's new balance."""
        now = int(time.time())
        wallet.updated_at = now
        entry = LedgerEntry(
            id=str(uuid.uuid4()),
            user_id=wallet.user_id,
            wallet_id=wallet.id,
            currency=wallet.currency,
            balance_included_after=wallet.balance_included_kopeks,
            balance_topup_after=wallet.balance_topup_kopeks,
            created_at=now,
            **columns,
        )
        db.add(entry)
        db.commit()
        db.refresh(entry)
        return entry


wallet_service = WalletService()

take_shape(__name__, "wallet")
