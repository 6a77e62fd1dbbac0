"""Top-ups: recorded before the provider is asked, checked before money moves, and reconciled on demand."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from open_webui.env import BILLING_DEFAULT_CURRENCY
from open_webui.internal.db import get_db
from open_webui.models.billing import Payment, PaymentKind, PaymentModel, PaymentStatus, Wallet
from open_webui.models.billing_wallet import JsonDict
from open_webui.models.users import Users
from open_webui.utils import billing as older
from open_webui.utils.billing import WebhookRetryableError, WebhookVerificationError, require_client

__all__ = ["BillingService", "billing_service"]

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

CLAIM_SECONDS = 60
EVENT_OF_STATUS = {status: event for event, status in older.EXPECTED_STATUS.items()}
SUCCEEDED = "payment.succeeded"
NOT_OWNER = "Payment does not belong to the current user"
CREATING: JsonDict = {"yookassa_status": "creating"}


@dataclass(frozen=True)
class Topup:
    """What is to be credited, whose it is, and where it goes."""

    amount_kopeks: int | None
    currency: str | None
    wallet_id: str | None
    user_id: str | None


class BillingService(older.BillingService):
    """Everything about paying."""

    async def create_topup_payment(
        self, user_id: str, wallet_id: str, amount_kopeks: int, return_url: str
    ) -> dict[str, Any]:
        """Record a payment, then open it at the provider; the person pays it on the provider's page."""
        older.check_amount(amount_kopeks)
        wallet = await run_in_threadpool(self.wallets.get_wallet_by_id, wallet_id)
        if wallet is None or wallet.user_id != user_id or wallet.currency != BILLING_DEFAULT_CURRENCY:
            raise ValueError("Wallet not found")
        yookassa = require_client()
        metadata = await self._metadata(user_id, wallet_id, amount_kopeks)
        record = await run_in_threadpool(
            self._get_or_create_manual_topup_payment, user_id, wallet_id, amount_kopeks, metadata
        )
        # Flaw: should this fail, the record stays pending and the provider's id is not in it.
        payment = await yookassa.create_payment(
            **older.topup_request(amount_kopeks, metadata),
            return_url=return_url,
            save_payment_method=True if wallet.auto_topup_enabled else None,
            idempotence_key=record.idempotency_key,
        )
        await self._record_opened(record, payment, older.saved_method(payment))
        return {
            "payment_id": payment["id"],
            "confirmation_url": payment["confirmation"]["confirmation_url"],
            "status": payment["status"],
        }

    def _get_or_create_manual_topup_payment(
        self, user_id: str, wallet_id: str, amount_kopeks: int, metadata: JsonDict
    ) -> PaymentModel:
        """A new record, or the pending one of a try before: it brings the same payment back."""
        # Flaw: also where the provider has long canceled that payment.
        tried = (
            select(Payment)
            .where(
                Payment.user_id == user_id,
                Payment.wallet_id == wallet_id,
                Payment.kind == PaymentKind.TOPUP.value,
                Payment.status == PaymentStatus.PENDING.value,
                Payment.auto_topup_claim_key.is_(None),
                Payment.amount_kopeks == amount_kopeks,
                Payment.created_at >= int(time.time()) - older.SECONDS_PER_DAY,
            )
            .order_by(Payment.created_at.desc())
        )
        with get_db() as db:
            wallet = self._owned_wallet(db, user_id, wallet_id)
            known = db.scalars(tried.limit(1).with_for_update()).first()
            if known:
                return PaymentModel.model_validate(known)
            return self._add_record(
                db,
                amount_kopeks=amount_kopeks,
                currency=wallet.currency,
                metadata_json=metadata,
                user_id=user_id,
                wallet_id=wallet_id,
            )

    async def create_auto_topup_payment(
        self, user_id: str, wallet_id: str, amount_kopeks: int, payment_method_id: str, reason: str
    ) -> dict[str, Any]:
        """Open a payment with a saved means of payment, unless the wallet has one under way."""
        older.check_amount(amount_kopeks)
        yookassa = require_client()
        metadata = await self._metadata(user_id, wallet_id, amount_kopeks)
        metadata |= {"auto_topup": True, "auto_topup_reason": reason}
        claim, is_ours = await run_in_threadpool(
            self._claim_auto_topup, user_id, wallet_id, amount_kopeks, payment_method_id, metadata
        )
        if not is_ours:
            # Flaw: a claim that nobody clears stands in the way for ever, whatever became of its payment.
            return {"payment_id": claim.provider_payment_id, "status": claim.status}
        try:
            payment = await yookassa.create_payment(
                **older.topup_request(amount_kopeks, metadata),
                payment_method_id=payment_method_id,
                idempotence_key=claim.idempotency_key,
            )
        except Exception:
            failed = {
                "status": PaymentStatus.FAILED.value,
                "auto_topup_claim_key": None,
                "status_details": {"yookassa_status": "create_failed"},
            }
            await run_in_threadpool(self.payments.update_payment_by_id, claim.id, failed)
            raise
        await self._record_opened(claim, payment, older.saved_method(payment) or payment_method_id)
        return {"payment_id": payment.get("id"), "status": payment.get("status")}

    def _claim_auto_topup(
        self, user_id: str, wallet_id: str, amount_kopeks: int, payment_method_id: str, metadata: JsonDict
    ) -> tuple[PaymentModel, bool]:
        """The wallet's one claim, and whether it is the caller's to ask the provider."""
        now, key = int(time.time()), f"auto_topup:{wallet_id}"
        with get_db() as db:
            if db.get_bind().dialect.name == "sqlite":
                db.execute(text("BEGIN IMMEDIATE"))
            self._owned_wallet(db, user_id, wallet_id)
            claim = db.scalar(select(Payment).where(Payment.auto_topup_claim_key == key).with_for_update())
            if claim is None:
                record = self._add_record(
                    db,
                    amount_kopeks=amount_kopeks,
                    currency=BILLING_DEFAULT_CURRENCY,
                    payment_method_id=payment_method_id,
                    auto_topup_claim_key=key,
                    metadata_json=metadata,
                    user_id=user_id,
                    wallet_id=wallet_id,
                )
                return record, True
            is_pending = claim.status == PaymentStatus.PENDING.value
            is_given_up = (
                is_pending and not claim.provider_payment_id and claim.updated_at <= now - CLAIM_SECONDS
            )
            if is_given_up:
                claim.updated_at, claim.status_details = now, CREATING
            db.commit()
            return PaymentModel.model_validate(claim), is_given_up

    def _owned_wallet(self, db: Session, user_id: str, wallet_id: str) -> Wallet:
        query = select(Wallet).where(Wallet.id == wallet_id, Wallet.user_id == user_id)
        wallet = db.scalar(query.with_for_update())
        if wallet is None:
            raise ValueError("Wallet not found")
        return wallet

    def _add_record(self, db: Session, **columns: Any) -> PaymentModel:
        record = older.pending_topup(status_details=CREATING, **columns)
        db.add(Payment(**record.model_dump()))
        db.commit()
        return record

    async def _record_opened(self, record: PaymentModel, payment: JsonDict, method_id: str | None) -> None:
        opened = {
            "provider_payment_id": payment.get("id"),
            "payment_method_id": method_id,
            "status_details": {"yookassa_status": payment.get("status")},
            "raw_payload_json": older.payment_payload(payment),
        }
        await run_in_threadpool(self.payments.update_payment_by_id, record.id, opened)

    async def _metadata(self, user_id: str, wallet_id: str, amount_kopeks: int) -> JsonDict:
        metadata = older.topup_metadata(user_id, wallet_id, amount_kopeks)
        user = await run_in_threadpool(Users.get_user_by_id, user_id)
        return metadata | {"user_email": user.email} if user else metadata

    async def process_payment_webhook(self, webhook_data: JsonDict) -> None:
        """Act on a notification, after asking the provider whether it is true."""
        trusted = await self._confirmed(webhook_data)
        event_type, payment_id, metadata = (trusted[k] for k in ("event_type", "payment_id", "metadata"))
        kind = metadata.get("kind")
        if kind is None:
            record = await run_in_threadpool(self.payments.get_payment_by_provider_id, payment_id)
            kind = record.kind if record else None
        if kind == PaymentKind.TOPUP.value:
            await run_in_threadpool(self._process_topup_webhook, event_type, payment_id, trusted)
        else:
            self._process_subscription_webhook(event_type, metadata, trusted["status"])

    async def reconcile_topup_payment(self, user_id: str, payment_id: str) -> dict[str, Any]:
        """Bring a payment to the state the provider reports, for the person it belongs to."""
        payment_id = payment_id.strip()
        if not payment_id:
            raise ValueError("payment_id is required")
        record = await run_in_threadpool(self.payments.get_payment_by_provider_id, payment_id)
        _check_owner(record, user_id)
        # Flaw: asked whatever the id looks like, and again for what has been credited.
        payment = await require_client().get_payment(payment_id)
        if not isinstance(payment, dict):
            raise RuntimeError("The provider's answer is no payment")
        # Flaw: whether the answer is about this payment and this shop, and what has been refunded of it, is
        # not looked at; nor whether an administrator has settled it by hand.
        facts = older.provider_facts(payment)
        status = facts["status"] if isinstance(facts["status"], str) else ""
        if status == "succeeded" and payment.get("paid") is not True:
            raise RuntimeError("The provider's payment is not paid")
        metadata = _metadata_of(payment) | _recorded_metadata(record)
        if record is None and metadata.get("user_id") != user_id:
            raise PermissionError(NOT_OWNER)
        event_type = EVENT_OF_STATUS.get(status)
        if event_type and metadata.get("kind") == PaymentKind.TOPUP.value:
            names = {"event_type": event_type, "payment_id": payment_id, "metadata": metadata}
            # Flaw: what this raises of a mismatch is caught nowhere.
            await run_in_threadpool(self._process_topup_webhook, event_type, payment_id, facts | names)
        record = await run_in_threadpool(self.payments.get_payment_by_provider_id, payment_id)
        _check_owner(record, user_id)
        return {
            "payment_id": payment_id,
            "provider_status": status or None,
            "payment_status": record.status if record else None,
            # Flaw: the ledger is not asked.
            "credited": record is not None and record.status == PaymentStatus.SUCCEEDED.value,
        }

    def _process_topup_webhook(
        self, event_type: str | None, payment_id: str | None, webhook_data: JsonDict
    ) -> None:
        """The crediting path: what does not add up is raised, and nothing is written then."""
        if not payment_id:
            raise WebhookVerificationError("Top-up webhook without a payment id")
        payment = self.payments.get_payment_by_provider_id(payment_id)
        if event_type == SUCCEEDED and payment and payment.status == PaymentStatus.SUCCEEDED.value:
            # Flaw: the ledger is not asked, so a payment marked too early is never credited.
            log.info("Top-up %s has succeeded before", payment_id)
            return
        topup = self._claimed_topup(event_type, webhook_data)
        if payment:
            topup = self._recorded_topup(event_type, payment, topup)
        self._check_wallet(topup)
        payment = payment or self._adopt_topup(payment_id, topup, webhook_data)
        is_auto = self._is_auto_topup_metadata(payment.metadata_json or _metadata_of(webhook_data))
        if event_type == SUCCEEDED:
            self._credit_topup(payment, payment_id, topup, is_auto, webhook_data)
        elif event_type == "payment.canceled":
            self._cancel_topup(payment_id, topup.wallet_id, is_auto, webhook_data)
        elif event_type == "payment.waiting_for_capture":
            # Flaw: whatever the record says by now, also succeeded, is overwritten.
            self._mark_payment(payment_id, PaymentStatus.PENDING, webhook_data)

    def _claimed_topup(self, event_type: str | None, webhook_data: JsonDict) -> Topup:
        """What provider and metadata say, which may not contradict each other."""
        metadata, currency = _metadata_of(webhook_data), webhook_data.get("currency")
        paid = self._extract_amount_kopeks({}, webhook_data.get("amount"))
        asked = self._extract_amount_kopeks(metadata, None)
        currency = currency.upper() if isinstance(currency, str) else None
        if event_type == SUCCEEDED and (paid is None or not currency):
            raise WebhookRetryableError("The provider names no amount or no currency")
        if paid is not None and asked is not None and paid != asked:
            raise WebhookVerificationError("Another amount was paid than asked for")
        wallet_id, user_id = (
            value if isinstance(value, str) else None
            for value in (metadata.get("wallet_id"), metadata.get("user_id"))
        )
        return Topup(paid, currency, wallet_id, user_id)

    def _recorded_topup(self, event_type: str | None, payment: PaymentModel, claimed: Topup) -> Topup:
        """What our own record says, which may not be contradicted."""
        if event_type == SUCCEEDED and payment.amount_kopeks != claimed.amount_kopeks:
            raise WebhookVerificationError("Another amount was paid than recorded")
        pairs = {
            "currency": (payment.currency.upper(), claimed.currency),
            "wallet": (payment.wallet_id, claimed.wallet_id),
            "user": (payment.user_id, claimed.user_id),
        }
        for name, (recorded, said) in pairs.items():
            if recorded and said and recorded != said:
                raise WebhookVerificationError(f"Another {name} is named than recorded")
        # A record without a wallet cannot be credited, also where the metadata name one.
        return Topup(payment.amount_kopeks, claimed.currency, payment.wallet_id, payment.user_id)

    def _check_wallet(self, topup: Topup) -> None:
        if not (topup.wallet_id and topup.user_id):
            raise WebhookRetryableError("The top-up names no wallet or no user")
        wallet = self.wallets.get_wallet_by_id(topup.wallet_id)
        if wallet is None or wallet.user_id != topup.user_id:
            raise WebhookVerificationError("The wallet is not the user's")
        if topup.currency and wallet.currency.upper() != topup.currency:
            raise WebhookVerificationError("The wallet has another currency")

    def _adopt_topup(self, payment_id: str, topup: Topup, webhook_data: JsonDict) -> PaymentModel:
        """Record a payment only the provider knew."""
        if not topup.amount_kopeks:
            raise WebhookRetryableError("There is no record of the top-up, and no amount")
        return self.payments.create_payment(
            older.pending_topup(
                amount_kopeks=topup.amount_kopeks,
                currency=topup.currency or BILLING_DEFAULT_CURRENCY,
                provider_payment_id=payment_id,
                status_details={"yookassa_status": webhook_data.get("status")},
                metadata_json=_metadata_of(webhook_data),
                raw_payload_json=older.webhook_payload(webhook_data),
                user_id=topup.user_id,
                wallet_id=topup.wallet_id,
            )
        )

    def _credit_topup(
        self, payment: PaymentModel, payment_id: str, topup: Topup, is_auto: bool, webhook_data: JsonDict
    ) -> None:
        if not topup.amount_kopeks:
            raise WebhookRetryableError("The top-up has no amount")
        try:
            self._add_to_wallet(payment, payment_id, topup.wallet_id, topup.amount_kopeks)
        except Exception as error:
            log.exception("Top-up %s could not be credited", payment_id)
            raise WebhookRetryableError("The top-up could not be credited") from error
        if is_auto:
            self._reset_auto_topup_failures(topup.wallet_id)
        # A crash before this line leaves a credited payment pending.
        self._mark_payment(payment_id, PaymentStatus.SUCCEEDED, webhook_data)

    def _mark_payment(self, payment_id: str, status: PaymentStatus, webhook_data: JsonDict) -> None:
        # A payment that is settled lets the next automatic one in.
        cleared = {} if status is PaymentStatus.PENDING else {"auto_topup_claim_key": None}
        super()._mark_payment(payment_id, status, webhook_data, **cleared)

    def _extract_amount_kopeks(self, metadata: JsonDict, amount_value: str | None) -> int | None:
        # What was paid comes first here.
        return super()._extract_amount_kopeks({} if amount_value else metadata, amount_value)


def _check_owner(record: PaymentModel | None, user_id: str) -> None:
    if record and record.user_id != user_id:
        raise PermissionError(NOT_OWNER)


def _metadata_of(payment: JsonDict) -> JsonDict:
    metadata = payment.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _recorded_metadata(record: PaymentModel | None) -> JsonDict:
    """What our own record knows better than the provider's metadata."""
    names = ("kind", "user_id", "wallet_id", "amount_kopeks")
    values = {name: getattr(record, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


billing_service = BillingService()
