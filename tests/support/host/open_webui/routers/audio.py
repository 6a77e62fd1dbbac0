"""Speech: here only as a feature that costs money, and so imports billing first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from open_webui.models.users import UserModel
from open_webui.utils.auth import get_verified_user
from open_webui.utils.billing_integration import require_funds

KOPEKS_PER_CHARACTER = 1

router = APIRouter()


class SpeechForm(BaseModel):
    """The body of a request for speech."""

    input: str


@router.post("/speech")
async def speech(
    form_data: SpeechForm, user: Annotated[UserModel, Depends(get_verified_user)]
) -> dict[str, int]:
    """Say what it would cost, if there is money for it."""
    cost = len(form_data.input) * KOPEKS_PER_CHARACTER
    await require_funds(user.id, cost, "tts_preflight")
    return {"cost_kopeks": cost}
