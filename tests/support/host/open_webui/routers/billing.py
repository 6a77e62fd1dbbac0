"""The wallet's API."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, status
from pydantic import BaseModel

# By name: whoever replaces a flag has to replace it here, not in `env`.
from open_webui.env import (
    BILLING_DEFAULT_CURRENCY,
    BILLING_TOPUP_PACKAGES_KOPEKS,
    ENABLE_BILLING_WALLET,
)
from open_webui.models.billing import (
    LedgerEntries,
    LedgerEntryModel,
    PaymentKind,
    Payments,
    PaymentStatus,
    WalletModel,
)
from open_webui.models.users import UserModel
from open_webui.shape import take_shape
from open_webui.utils.auth import get_verified_user
from open_webui.utils.billing import (
    WebhookRetryableError,
    WebhookVerificationError,
    billing_service,
)
from open_webui.utils.wallet import wallet_service
from open_webui.utils.yookassa import YooKassaRequestError, YooKassaWebhookHandler

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

router = APIRouter()

VerifiedUser = Annotated[UserModel, Depends(get_verified_user)]


class TopupRequest(BaseModel):
    """The body of a top-up."""

    amount_kopeks: int
    return_url: str


class TopupResponse(BaseModel):
    """Where to pay."""

    payment_id: str
    confirmation_url: str
    status: str


class BalanceResponse(BaseModel):
    """The wallet, as its owner sees it."""

    balance_topup_kopeks: int
    balance_included_kopeks: int
    included_expires_at: int | None = None
    max_reply_cost_kopeks: int | None = None
    daily_cap_kopeks: int | None = None
    daily_spent_kopeks: int
    daily_reset_at: int | None = None
    auto_topup_enabled: bool = False
    auto_topup_threshold_kopeks: int | None = None
    auto_topup_amount_kopeks: int | None = None
    auto_topup_fail_count: int = 0
    auto_topup_last_failed_at: int | None = None
    auto_topup_payment_method_saved: bool = False
    currency: str


def _payment_gateway_http_error(error: YooKassaRequestError, action: str) -> HTTPException:
    """The provider's refusal, in words for our own callers."""
    words = {
        400: "rejected the payment request",
        401: "credentials are invalid",
        403: "credentials are invalid",
        429: "is rate-limiting requests",
    }
    log.error("YooKassa %s failed (%s): %s", action, error.status_code, error.response_text)
    return HTTPException(
        status_code=status.HTTP_502_BAD_GATEWAY,
        detail="Payment provider " + words.get(error.status_code, "is temporarily unavailable"),
    )


def require_wallet() -> None:
    """Raise the 404 of a host that has its wallets switched off."""
    if not ENABLE_BILLING_WALLET:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Billing wallet is disabled")


def balance_of(user: UserModel) -> BalanceResponse:
    """Read the user's wallet; make it, if it is not there."""
    require_wallet()
    wallet = wallet_service.get_or_create_wallet(user.id, BILLING_DEFAULT_CURRENCY)
    saved = Payments.get_latest_payment_with_method(
        wallet.id, PaymentStatus.SUCCEEDED.value, PaymentKind.TOPUP.value
    )
    return BalanceResponse(
        **WalletModel.model_validate(wallet).model_dump(),
        auto_topup_payment_method_saved=saved is not None,
    )


@router.get("/balance")
async def get_balance(user: VerifiedUser) -> BalanceResponse:
    """What one has."""
    return balance_of(user)


@router.get("/ledger")
async def get_ledger(user: VerifiedUser, limit: int = 50, skip: int = 0) -> list[LedgerEntryModel]:
    """How it came and went."""
    require_wallet()
    return LedgerEntries.get_entries_by_user(user.id, limit=limit, offset=skip)


@router.post("/topup")
async def create_topup(request: TopupRequest, user: VerifiedUser) -> TopupResponse:
    """Begin to pay."""
    require_wallet()
    wallet = wallet_service.get_or_create_wallet(user.id, BILLING_DEFAULT_CURRENCY)
    try:
        payment = await billing_service.create_topup_payment(
            user_id=user.id,
            wallet_id=wallet.id,
            amount_kopeks=request.amount_kopeks,
            return_url=request.return_url,
        )
        return TopupResponse(**payment)
    except ValueError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(error)) from error
    except YooKassaRequestError as error:
        raise _payment_gateway_http_error(error, action="topup") from error
    except RuntimeError as error:
        log.error("Top-ups are not possible: %s", error)
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE, "Payment system temporarily unavailable"
        ) from error
    except Exception as error:
        log.exception("Top-up failed")
        raise HTTPException(status.HTTP_500_INTERNAL_SERVER_ERROR, "Failed to create topup") from error


@router.get("/public/pricing-config")
async def get_public_pricing_config() -> dict[str, Any]:
    """What anybody may know about prices."""
    rubles = {amount // 100 for amount in BILLING_TOPUP_PACKAGES_KOPEKS}
    free = ("text_in", "text_out", "images", "tts_minutes", "stt_minutes")
    return {
        "topup_amounts_rub": sorted(rubles),
        "free_limits": dict.fromkeys(free, 0),
        "popular_model_ids": [],
        "recommended_model_ids": dict.fromkeys(("text", "image", "audio")),
    }


async def read_notification(request: Request) -> dict[str, Any]:
    """A notification, flattened; the 400 for what is none."""
    try:
        webhook_data = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Invalid JSON payload") from error
    try:
        return YooKassaWebhookHandler.parse_webhook(webhook_data)
    except (ValueError, AttributeError) as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Invalid webhook payload") from error


async def process_notification(parsed: dict[str, Any]) -> None:
    """Act on it; anything but 200 makes the provider send it again."""
    try:
        await billing_service.process_payment_webhook(parsed)
    except WebhookVerificationError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Webhook verification failed") from error
    except WebhookRetryableError as error:
        log.warning("Webhook to be sent again: %s", error)
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE, "Temporary error processing webhook"
        ) from error
    except Exception as error:
        log.exception("Webhook failed")
        raise HTTPException(status.HTTP_500_INTERNAL_SERVER_ERROR, "Failed to process webhook") from error
    log.info("Webhook about %s done", parsed["payment_id"])


@router.post("/webhook/yookassa")
async def yookassa_webhook(request: Request) -> dict[str, str]:
    """Take a notification."""
    await process_notification(await read_notification(request))
    return {"status": "ok"}


take_shape(__name__, "routes")
