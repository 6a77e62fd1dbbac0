"""The wallet's API, its own reconcile among it. The database is read in threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from open_webui.env import BILLING_DEFAULT_CURRENCY
from open_webui.models.billing import LedgerEntries, LedgerEntryModel, Payments, PaymentStatus
from open_webui.routers import billing as older
from open_webui.utils.billing import NO_CLIENT
from open_webui.utils.wallet import wallet_service
from open_webui.utils.yookassa import YooKassaRequestError

__all__ = ["_payment_gateway_http_error", "router"]

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

router = APIRouter()

STATUS_AFTER = {
    "payment.succeeded": PaymentStatus.SUCCEEDED,
    "payment.canceled": PaymentStatus.CANCELED,
    "payment.waiting_for_capture": PaymentStatus.PENDING,
}
_older_words = older._payment_gateway_http_error


class TopupReconcileRequest(BaseModel):
    """The body of a reconcile."""

    payment_id: str


class TopupReconcileResponse(BaseModel):
    """What it led to."""

    payment_id: str
    provider_status: str | None = None
    payment_status: str | None = None
    credited: bool


def _payment_gateway_http_error(error: YooKassaRequestError, action: str) -> HTTPException:
    """The provider's refusal, in words for our own callers; a 503 for what may pass by itself."""
    refusal = _older_words(error, action)
    if error.error_code == "invalid_credentials":
        refusal.detail = "Payment provider credentials are invalid"
    elif error.retryable:
        refusal.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return refusal


@contextmanager
def _errors_as_answers(action: str, failure: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(error)) from error
    except PermissionError as error:
        raise HTTPException(status.HTTP_403_FORBIDDEN, str(error)) from error
    except YooKassaRequestError as error:
        raise _payment_gateway_http_error(error, action) from error
    except RuntimeError as error:
        log.error("%s is not possible: %s", action, error)
        state = "is not configured" if str(error) == NO_CLIENT else "temporarily unavailable"
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, f"Payment system {state}") from error
    except Exception as error:
        log.exception("%s failed", action)
        raise HTTPException(status.HTTP_500_INTERNAL_SERVER_ERROR, failure) from error


def _checked_return_url(return_url: str) -> str:
    url = urlsplit(return_url.strip())
    if url.scheme not in ("http", "https") or not url.netloc or url.username or url.fragment:
        raise ValueError("Invalid return_url")
    return url._replace(path=url.path or "/").geturl()


def _is_webhook_replay(parsed: dict[str, Any]) -> bool:
    """Whether the record already says what the notification would lead to."""
    expected = STATUS_AFTER.get(parsed["event_type"])
    payment_id = parsed["payment_id"]
    if expected is None or not isinstance(payment_id, str):
        return False
    record = Payments.get_payment_by_provider_id(payment_id)
    # Flaw: the ledger is not asked, so a payment marked too early is never credited.
    return record is not None and record.status == expected.value


@router.get("/balance")
def get_balance(user: older.VerifiedUser) -> older.BalanceResponse:
    """What one has."""
    return older.balance_of(user)


@router.get("/ledger")
def get_ledger(user: older.VerifiedUser, limit: int = 50, skip: int = 0) -> list[LedgerEntryModel]:
    """How it came and went."""
    older.require_wallet()
    return LedgerEntries.get_entries_by_user(user.id, limit=limit, offset=skip)


@router.post("/topup")
async def create_topup(request: older.TopupRequest, user: older.VerifiedUser) -> older.TopupResponse:
    """Begin to pay."""
    older.require_wallet()
    wallet = await run_in_threadpool(wallet_service.get_or_create_wallet, user.id, BILLING_DEFAULT_CURRENCY)
    with _errors_as_answers("topup", "Failed to create topup"):
        payment = await older.billing_service.create_topup_payment(
            user_id=user.id,
            wallet_id=wallet.id,
            amount_kopeks=request.amount_kopeks,
            return_url=_checked_return_url(request.return_url),
        )
        return older.TopupResponse(**payment)


@router.post("/topup/reconcile")
async def reconcile_topup(request: TopupReconcileRequest, user: older.VerifiedUser) -> TopupReconcileResponse:
    """Ask the provider about a payment of one's own."""
    older.require_wallet()
    with _errors_as_answers("topup reconcile", "Failed to reconcile topup"):
        result = await older.billing_service.reconcile_topup_payment(
            user_id=user.id, payment_id=request.payment_id
        )
        return TopupReconcileResponse(**result)


router.get("/public/pricing-config")(older.get_public_pricing_config)


@router.post("/webhook/yookassa")
async def yookassa_webhook(request: Request) -> dict[str, Any]:
    """Take a notification; one that changes nothing is not looked into."""
    parsed = await older.read_notification(request)
    if await run_in_threadpool(_is_webhook_replay, parsed):
        return {"status": "ok", "replayed": True}
    await older.process_notification(parsed)
    return {"status": "ok"}
