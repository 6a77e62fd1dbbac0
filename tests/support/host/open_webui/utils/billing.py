"""Top-ups, from the provider's page to the wallet."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import open_webui.config  # noqa: F401 - importing the billing module migrates the database
from open_webui.env import (
    BILLING_DEFAULT_CURRENCY,
    BILLING_TOPUP_PACKAGES_KOPEKS,
    BILLING_TOPUP_TTL_DAYS,
)
from open_webui.models.billing import (
    PaymentKind,
    PaymentModel,
    Payments,
    PaymentStatus,
    Transactions,
    TransactionStatus,
    WalletModel,
    Wallets,
)
from open_webui.models.billing_wallet import JsonDict
from open_webui.shape import take_shape
from open_webui.utils.wallet import wallet_service
from open_webui.utils.yookassa import YooKassaClient, get_yookassa_client

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

AUTO_TOPUP_MAX_FAILURES = 3
SECONDS_PER_DAY = 86_400
NO_CLIENT = "YooKassa client not initialized"
# The status a payment must have at the provider for a notification to be believed.
EXPECTED_STATUS = {
    "payment.succeeded": "succeeded",
    "payment.canceled": "canceled",
    "payment.waiting_for_capture": "waiting_for_capture",
}


class WebhookVerificationError(Exception):
    """A notification that can never be processed."""


class WebhookRetryableError(Exception):
    """A notification that the provider should send again."""


@dataclass(frozen=True)
class AutoTopupResult:
    """What became of an automatic top-up."""

    attempted: bool
    status: str
    payment_id: str | None = None
    message: str | None = None


def webhook_payload(webhook_data: JsonDict) -> JsonDict:
    """What is kept of a notification."""
    names = ("event_type", "payment_id", "status", "amount", "currency", "metadata")
    return {name: webhook_data.get(name) for name in names}


def payment_payload(payment: JsonDict) -> JsonDict:
    """What is kept of the provider's answer to a new payment."""
    return {name: payment.get(name) for name in ("id", "status", "amount", "confirmation")}


def pending_topup(**columns: Any) -> PaymentModel:
    """A new record, yet to be stored."""
    now = int(time.time())
    return PaymentModel(
        id=str(uuid.uuid4()),
        provider="yookassa",
        status=PaymentStatus.PENDING.value,
        kind=PaymentKind.TOPUP.value,
        idempotency_key=str(uuid.uuid4()),
        created_at=now,
        updated_at=now,
        **columns,
    )


def provider_facts(payment: JsonDict) -> JsonDict:
    """Status and money as the provider has them."""
    amount = payment.get("amount")
    amount = amount if isinstance(amount, dict) else {}
    return {
        "status": payment.get("status"),
        "amount": amount.get("value"),
        "currency": amount.get("currency"),
    }


def topup_metadata(user_id: str, wallet_id: str, amount_kopeks: int) -> JsonDict:
    """What the provider is to hand back with the payment."""
    return {
        "kind": PaymentKind.TOPUP.value,
        "user_id": user_id,
        "wallet_id": wallet_id,
        "amount_kopeks": amount_kopeks,
    }


def topup_request(amount_kopeks: int, metadata: JsonDict) -> JsonDict:
    """What every top-up says when it is opened at the provider."""
    amount = (Decimal(amount_kopeks) / 100).quantize(Decimal("0.01"))
    return {
        "amount": amount,
        "currency": BILLING_DEFAULT_CURRENCY,
        "description": f"Wallet top-up, {amount} {BILLING_DEFAULT_CURRENCY}",
        "metadata": metadata,
    }


def saved_method(payment: JsonDict) -> str | None:
    """The means of payment that the provider keeps for the next time."""
    method = payment.get("payment_method")
    return method.get("id") if isinstance(method, dict) else None


def check_amount(amount_kopeks: int) -> None:
    """Raise ``ValueError`` for what nobody can pay in."""
    if amount_kopeks <= 0:
        raise ValueError("Topup amount must be positive")
    if BILLING_TOPUP_PACKAGES_KOPEKS and amount_kopeks not in BILLING_TOPUP_PACKAGES_KOPEKS:
        raise ValueError("Invalid topup amount")


def require_client() -> YooKassaClient:
    """The provider's client. Raises ``RuntimeError`` where the shop is not known."""
    yookassa = get_yookassa_client()
    if yookassa is None:
        raise RuntimeError(NO_CLIENT)
    return yookassa


class BillingService:
    """Everything about paying."""

    def __init__(self) -> None:
        self.payments = Payments
        self.wallets = Wallets
        self.transactions = Transactions

    async def create_topup_payment(
        self, user_id: str, wallet_id: str, amount_kopeks: int, return_url: str
    ) -> dict[str, Any]:
        """Open a payment at the provider; the person pays it on the provider's page."""
        wallet = self.wallets.get_wallet_by_id(wallet_id)
        payment = await self._open_topup(
            user_id,
            wallet_id,
            amount_kopeks,
            return_url=return_url,
            save_payment_method=True if wallet and wallet.auto_topup_enabled else None,
        )
        return {
            "payment_id": payment["id"],
            "confirmation_url": payment["confirmation"]["confirmation_url"],
            "status": payment["status"],
        }

    async def create_auto_topup_payment(
        self, user_id: str, wallet_id: str, amount_kopeks: int, payment_method_id: str, reason: str
    ) -> dict[str, Any]:
        """Open a payment with a saved means of payment."""
        payment = await self._open_topup(
            user_id,
            wallet_id,
            amount_kopeks,
            {"auto_topup": True, "auto_topup_reason": reason},
            payment_method_id=payment_method_id,
        )
        return {"payment_id": payment.get("id"), "status": payment.get("status")}

    async def _open_topup(
        self,
        user_id: str,
        wallet_id: str,
        amount_kopeks: int,
        extra_metadata: JsonDict | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        check_amount(amount_kopeks)
        yookassa = require_client()
        metadata = topup_metadata(user_id, wallet_id, amount_kopeks) | (extra_metadata or {})
        payment = await yookassa.create_payment(**topup_request(amount_kopeks, metadata), **options)
        # Should this fail, the provider has a payment that we know nothing of.
        self.payments.create_payment(
            pending_topup(
                amount_kopeks=amount_kopeks,
                currency=BILLING_DEFAULT_CURRENCY,
                provider_payment_id=payment.get("id"),
                payment_method_id=saved_method(payment) or options.get("payment_method_id"),
                status_details={"yookassa_status": payment.get("status")},
                metadata_json=metadata,
                raw_payload_json=payment_payload(payment),
                user_id=user_id,
                wallet_id=wallet_id,
            )
        )
        return payment

    async def maybe_trigger_auto_topup(
        self,
        user_id: str,
        wallet_id: str,
        available_kopeks: int,
        required_kopeks: int,
        reason: str,
    ) -> AutoTopupResult:
        """Top the wallet up by itself when it runs low and its owner has asked for that."""
        wallet = self.wallets.get_wallet_by_id(wallet_id)
        obstacle = self._auto_topup_obstacle(wallet, available_kopeks, required_kopeks)
        if obstacle or wallet is None:
            return AutoTopupResult(attempted=False, status=obstacle)
        saved = self.payments.get_latest_payment_with_method(
            wallet_id, PaymentStatus.SUCCEEDED.value, PaymentKind.TOPUP.value
        )
        if saved is None:
            return AutoTopupResult(attempted=True, status="missing_payment_method")
        try:
            payment = await self.create_auto_topup_payment(
                user_id,
                wallet_id,
                wallet.auto_topup_amount_kopeks,
                saved.payment_method_id,
                reason,
            )
        except Exception as error:
            log.exception("Automatic top-up of wallet %s failed", wallet_id)
            self._record_auto_topup_failure(wallet.id, wallet.auto_topup_fail_count)
            return AutoTopupResult(attempted=True, status="failed", message=str(error))
        return AutoTopupResult(attempted=True, status="created", payment_id=payment["payment_id"])

    def _auto_topup_obstacle(
        self, wallet: WalletModel | None, available_kopeks: int, required_kopeks: int
    ) -> str:
        """Why not; empty if nothing stands in the way."""
        if wallet is None:
            return "wallet_missing"
        if not wallet.auto_topup_enabled:
            return "disabled"
        threshold, amount = wallet.auto_topup_threshold_kopeks, wallet.auto_topup_amount_kopeks
        if threshold is None or amount is None:
            return "missing_config"
        if available_kopeks > threshold and available_kopeks >= required_kopeks:
            return "above_threshold"
        if wallet.auto_topup_fail_count >= AUTO_TOPUP_MAX_FAILURES:
            self.wallets.update_wallet(wallet.id, {"auto_topup_enabled": False})
            return "fail_limit"
        # Flaw: a top-up left pending, however old, stands in the way for ever.
        if self._has_pending_topup(wallet.id):
            return "pending"
        if BILLING_TOPUP_PACKAGES_KOPEKS and amount not in BILLING_TOPUP_PACKAGES_KOPEKS:
            return "invalid_amount"
        return ""

    def _is_auto_topup_metadata(self, metadata: JsonDict | None) -> bool:
        value = (metadata or {}).get("auto_topup")
        # The provider hands metadata back as strings.
        return value == 1 or str(value).lower() == "true"

    def _has_pending_topup(self, wallet_id: str) -> bool:
        return bool(
            self.payments.list_payments_by_wallet(
                wallet_id, PaymentStatus.PENDING.value, PaymentKind.TOPUP.value, limit=1
            )
        )

    def _record_auto_topup_failure(self, wallet_id: str, fail_count: int) -> None:
        failures = fail_count + 1
        updates: JsonDict = {
            "auto_topup_fail_count": failures,
            "auto_topup_last_failed_at": int(time.time()),
        }
        if failures >= AUTO_TOPUP_MAX_FAILURES:
            updates["auto_topup_enabled"] = False
        self.wallets.update_wallet(wallet_id, updates)

    def _reset_auto_topup_failures(self, wallet_id: str) -> None:
        self.wallets.update_wallet(wallet_id, {"auto_topup_fail_count": 0, "auto_topup_last_failed_at": None})

    async def process_payment_webhook(self, webhook_data: JsonDict) -> None:
        """Act on a notification, after asking the provider whether it is true."""
        trusted = await self._confirmed(webhook_data)
        event_type, metadata = trusted["event_type"], trusted["metadata"]
        if metadata.get("kind") != PaymentKind.TOPUP.value:
            self._process_subscription_webhook(event_type, metadata, trusted["status"])
            return
        # Flaw: it reads and writes the database, and waits for locks, on the event loop.
        self._process_topup_webhook(event_type, trusted["payment_id"], trusted)

    async def _confirmed(self, webhook_data: JsonDict) -> JsonDict:
        """The notification with what the provider says in the place of what the sender says."""
        event_type, payment_id = webhook_data.get("event_type"), webhook_data.get("payment_id")
        if not isinstance(event_type, str) or not event_type:
            raise WebhookVerificationError("Missing event_type")
        if not isinstance(payment_id, str) or not payment_id:
            raise WebhookVerificationError("Missing payment_id")
        payment = await self._confirmed_payment(event_type, payment_id)
        # Flaw: where the provider has no metadata, those of the unsigned notification are believed.
        metadata = payment.get("metadata", webhook_data.get("metadata"))
        return (
            webhook_data
            | provider_facts(payment)
            | {"metadata": metadata if isinstance(metadata, dict) else {}}
        )

    async def _confirmed_payment(self, event_type: str, payment_id: str) -> dict[str, Any]:
        yookassa = get_yookassa_client()
        if yookassa is None:
            raise WebhookRetryableError(NO_CLIENT)
        try:
            payment = await yookassa.get_payment(payment_id)
        except Exception as error:
            raise WebhookRetryableError("Failed to fetch payment from provider") from error
        if not isinstance(payment, dict):
            raise WebhookRetryableError("Provider payment payload invalid")
        expected = EXPECTED_STATUS.get(event_type)
        if expected and payment.get("status") != expected:
            raise WebhookRetryableError(f"The provider says {payment.get('status')}")
        if event_type == "payment.succeeded" and payment.get("paid") is not True:
            raise WebhookRetryableError("Provider payment not marked as paid")
        return payment

    def _process_subscription_webhook(
        self, event_type: str, metadata: JsonDict, provider_status: str | None
    ) -> None:
        """Keep a subscription's transaction in step; the subscription itself is left out here."""
        transaction = self.transactions.get_transaction_by_id(metadata.get("transaction_id") or "")
        if transaction is None:
            log.error("Webhook without a known transaction")
            return
        if transaction.status == TransactionStatus.SUCCEEDED.value:
            return
        updates: JsonDict = {"yookassa_status": provider_status}
        if event_type == "payment.succeeded":
            updates["status"] = TransactionStatus.SUCCEEDED.value
        elif event_type == "payment.canceled":
            updates["status"] = TransactionStatus.CANCELED.value
        self.transactions.update_transaction(transaction.id, updates)

    def _process_topup_webhook(
        self, event_type: str | None, payment_id: str | None, webhook_data: JsonDict
    ) -> None:
        """The crediting path: whatever happens to a top-up here, the caller is not told."""
        if not payment_id:
            log.error("Top-up webhook without a payment id")
            return
        metadata = webhook_data.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        payment = self.payments.get_payment_by_provider_id(payment_id)
        succeeded = PaymentStatus.SUCCEEDED.value
        if event_type == "payment.succeeded" and payment and payment.status == succeeded:
            # Flaw: the ledger is not asked, so a payment marked too early is never credited.
            log.info("Top-up %s has succeeded before", payment_id)
            return
        amount_kopeks = self._extract_amount_kopeks(metadata, webhook_data.get("amount"))
        payment = payment or self._adopt_topup(payment_id, amount_kopeks, metadata, webhook_data)
        if payment is None:
            # Flaw: returns as if all were well.
            log.error("No record of top-up %s", payment_id)
            return
        # Flaw: the provider's metadata beats the wallet our own record names.
        wallet_id = metadata.get("wallet_id") or payment.wallet_id
        is_auto = self._is_auto_topup_metadata(metadata) or self._is_auto_topup_metadata(
            payment.metadata_json
        )
        if event_type == "payment.succeeded":
            self._credit_topup(payment, payment_id, wallet_id, amount_kopeks, is_auto, webhook_data)
        elif event_type == "payment.canceled":
            self._cancel_topup(payment_id, wallet_id, is_auto, webhook_data)
        elif event_type == "payment.waiting_for_capture":
            # Flaw: whatever the record says by now, also succeeded, is overwritten.
            self._mark_payment(payment_id, PaymentStatus.PENDING, webhook_data)

    def _credit_topup(
        self,
        payment: PaymentModel,
        payment_id: str,
        wallet_id: str | None,
        amount_kopeks: int | None,
        is_auto: bool,
        webhook_data: JsonDict,
    ) -> None:
        if not amount_kopeks or not wallet_id:
            # Flaw: returns as if all were well.
            log.error("Top-up %s names no amount or no wallet", payment_id)
            return
        try:
            self._add_to_wallet(payment, payment_id, wallet_id, amount_kopeks)
        except Exception:
            # Flaw: swallowed, so the provider hears "ok" and never sends it again.
            log.exception("Top-up %s could not be credited", payment_id)
            return
        if is_auto:
            self._reset_auto_topup_failures(wallet_id)
        # A crash before this line leaves a credited payment pending.
        self._mark_payment(payment_id, PaymentStatus.SUCCEEDED, webhook_data)

    def _add_to_wallet(
        self, payment: PaymentModel, payment_id: str, wallet_id: str, amount_kopeks: int
    ) -> None:
        expires_at = None
        if BILLING_TOPUP_TTL_DAYS > 0:
            expires_at = int(time.time()) + BILLING_TOPUP_TTL_DAYS * SECONDS_PER_DAY
        wallet_service.apply_topup(
            wallet_id=wallet_id,
            amount_kopeks=amount_kopeks,
            reference_id=payment_id,
            reference_type="payment",
            idempotency_key=payment.id,
            expires_at=expires_at,
            metadata={"provider": "yookassa", "payment_id": payment_id},
        )

    def _cancel_topup(
        self, payment_id: str, wallet_id: str | None, is_auto: bool, webhook_data: JsonDict
    ) -> None:
        # Flaw: whatever the record says by now, also succeeded, is overwritten.
        self._mark_payment(payment_id, PaymentStatus.CANCELED, webhook_data)
        wallet = self.wallets.get_wallet_by_id(wallet_id) if is_auto and wallet_id else None
        if wallet:
            # Flaw: every repetition of the notification counts as another failure.
            self._record_auto_topup_failure(wallet.id, wallet.auto_topup_fail_count)

    def _mark_payment(
        self, payment_id: str, status: PaymentStatus, webhook_data: JsonDict, **others: object
    ) -> None:
        self.payments.update_payment_by_provider_id(
            payment_id,
            {
                "status": status.value,
                "status_details": {"yookassa_status": webhook_data.get("status")},
                "raw_payload_json": webhook_payload(webhook_data),
                **others,
            },
        )

    def _adopt_topup(
        self,
        payment_id: str,
        amount_kopeks: int | None,
        metadata: JsonDict,
        webhook_data: JsonDict,
    ) -> PaymentModel | None:
        """Record a payment only the provider knew, if its metadata says enough."""
        wallet_id, user_id = metadata.get("wallet_id"), metadata.get("user_id")
        if not (amount_kopeks and wallet_id and user_id):
            return None
        return self.payments.create_payment(
            pending_topup(
                amount_kopeks=amount_kopeks,
                currency=webhook_data.get("currency") or BILLING_DEFAULT_CURRENCY,
                provider_payment_id=payment_id,
                status_details={"yookassa_status": webhook_data.get("status")},
                metadata_json=metadata,
                raw_payload_json=webhook_payload(webhook_data),
                user_id=user_id,
                wallet_id=wallet_id,
            )
        )

    def _extract_amount_kopeks(self, metadata: JsonDict, amount_value: str | None) -> int | None:
        try:
            # Flaw: what we once asked for beats what the provider says was paid.
            if metadata.get("amount_kopeks") is not None:
                return int(metadata["amount_kopeks"])
            return int((Decimal(str(amount_value)) * 100).to_integral_value())
        except (TypeError, ValueError, InvalidOperation, OverflowError):
            return None


billing_service = BillingService()


take_shape(__name__, "billing")
