"""The administrators' side of billing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, status
from pydantic import BaseModel, Field

from open_webui.env import BILLING_DEFAULT_CURRENCY, ENABLE_BILLING_WALLET
from open_webui.models.billing import LedgerEntryModel, WalletModel, Wallets
from open_webui.models.users import UserModel, Users
from open_webui.utils.auth import get_admin_user
from open_webui.utils.wallet import WalletError, wallet_service

router = APIRouter()


class AdjustUserWalletRequest(BaseModel):
    """The body of an adjustment by hand."""

    delta_topup_kopeks: int = 0
    delta_included_kopeks: int = 0
    reason: str = Field(min_length=1, max_length=500)
    idempotency_key: str | None = Field(default=None, max_length=128)
    reference_id: str | None = Field(default=None, max_length=128)


class AdjustUserWalletResponse(BaseModel):
    """What it led to."""

    success: bool
    wallet: WalletModel
    ledger_entry: LedgerEntryModel


@router.post("/users/{user_id}/wallet/adjust")
async def adjust_user_wallet(
    user_id: str,
    request: AdjustUserWalletRequest,
    admin_user: Annotated[UserModel, Depends(get_admin_user)],
) -> AdjustUserWalletResponse:
    """Change somebody's balances by hand."""
    if not ENABLE_BILLING_WALLET:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Billing wallet is disabled")
    if Users.get_user_by_id(user_id) is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"User '{user_id}' not found")
    wallet = wallet_service.get_or_create_wallet(user_id, BILLING_DEFAULT_CURRENCY)
    try:
        entry = wallet_service.adjust_balances(
            wallet_id=wallet.id, admin_user_id=admin_user.id, **request.model_dump()
        )
    except WalletError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(error)) from error
    return AdjustUserWalletResponse(
        success=True,
        wallet=Wallets.get_wallet_by_id(wallet.id),
        ledger_entry=LedgerEntryModel.model_validate(entry),
    )
