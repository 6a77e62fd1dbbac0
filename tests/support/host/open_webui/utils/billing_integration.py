"""What the features that cost money ask before they start."""

from __future__ import annotations

from fastapi import HTTPException, status

from open_webui.env import BILLING_DEFAULT_CURRENCY, ENABLE_BILLING_WALLET
from open_webui.utils.billing import billing_service
from open_webui.utils.wallet import wallet_service


async def require_funds(user_id: str, required_kopeks: int, reason: str) -> None:
    """Refuse with 402 if the wallet does not suffice; a low one may top itself up first."""
    if not ENABLE_BILLING_WALLET:
        return
    wallet = wallet_service.get_or_create_wallet(user_id, BILLING_DEFAULT_CURRENCY)
    available = wallet.balance_topup_kopeks + wallet.balance_included_kopeks
    result = await billing_service.maybe_trigger_auto_topup(
        user_id, wallet.id, available, required_kopeks, reason
    )
    if available < required_kopeks:
        raise HTTPException(
            status_code=status.HTTP_402_PAYMENT_REQUIRED,
            detail={
                "error": "insufficient_funds",
                "available_kopeks": available,
                "required_kopeks": required_kopeks,
                "currency": wallet.currency,
                "auto_topup_status": result.status,
            },
        )
