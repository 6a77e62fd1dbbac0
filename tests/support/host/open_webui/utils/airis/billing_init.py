"""Billing's part of the application's start."""

from __future__ import annotations

import logging

from open_webui.env import YOOKASSA_API_URL, YOOKASSA_SECRET_KEY, YOOKASSA_SHOP_ID
from open_webui.utils.yookassa import YooKassaConfig, init_yookassa

log = logging.getLogger(__name__)


async def init_billing_on_startup() -> None:
    """Make the provider's client, if the shop is known."""
    if not (YOOKASSA_SHOP_ID and YOOKASSA_SECRET_KEY):
        log.info("YooKassa is not set up: no shop id or no secret key")
        return
    init_yookassa(
        YooKassaConfig(shop_id=YOOKASSA_SHOP_ID, secret_key=YOOKASSA_SECRET_KEY, api_url=YOOKASSA_API_URL)
    )
    log.info("YooKassa is set up for shop %s", YOOKASSA_SHOP_ID)
