"""The payment provider's API, asked up to three times."""

from __future__ import annotations

import asyncio
import json
import uuid
from decimal import Decimal
from typing import Any

import aiohttp

from open_webui.utils import yookassa as older

__all__ = ["YooKassaClient", "YooKassaRequestError"]

MOST_ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 0.25
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class YooKassaRequestError(older.YooKassaRequestError):
    """The provider refused, was out of reach or answered something unreadable."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        response_text: str = "",
        *,
        retryable: bool = False,
        error_code: str | None = None,
        source: str = "provider",
    ) -> None:
        super().__init__(message, status_code, response_text)
        self.retryable = retryable
        self.error_code = error_code
        self.source = source


def _error_code(answer: str) -> str | None:
    try:
        code = json.loads(answer).get("code")
    except (ValueError, AttributeError):
        return None
    return code if isinstance(code, str) else None


def _explained(error: YooKassaRequestError) -> YooKassaRequestError:
    """Say of an error whether it may pass by itself."""
    status, retryable, source = error.status_code, error.status_code in RETRYABLE_STATUSES, "provider"
    match error.__cause__:
        case TimeoutError():
            retryable, source = True, "timeout"
        case aiohttp.ClientError():
            retryable, source = True, "network"
        case json.JSONDecodeError():
            # Flaw: an answer that nobody can read counts as one with status 200.
            status = 200
        case Exception():
            source = "unexpected"
    return YooKassaRequestError(
        str(error),
        status,
        error.response_text,
        retryable=retryable,
        error_code=_error_code(error.response_text),
        source=source,
    )


class YooKassaClient(older.YooKassaClient):
    """Calls of the provider's API."""

    async def create_payment(
        self,
        amount: Decimal,
        currency: str = "RUB",
        description: str = "",
        return_url: str | None = None,
        metadata: dict[str, Any] | None = None,
        receipt: dict[str, Any] | None = None,
        capture: bool = True,
        payment_method_id: str | None = None,
        save_payment_method: bool | None = None,
        idempotence_key: str | None = None,
    ) -> dict[str, Any]:
        """Open a payment; under a key that was used before, the same one again."""
        body = {
            "amount": {"value": str(amount), "currency": currency},
            "capture": capture,
            "description": description,
            "metadata": metadata,
            "receipt": receipt,
            "payment_method_id": payment_method_id,
            "save_payment_method": save_payment_method,
        }
        return await self._open_payment(body, return_url, idempotence_key or str(uuid.uuid4()))

    async def _request(
        self,
        method: str,
        endpoint: str,
        data: dict[str, Any] | None = None,
        idempotence_key: str | None = None,
    ) -> dict[str, Any]:
        for attempt in range(MOST_ATTEMPTS):
            try:
                return await super()._request(method, endpoint, data, idempotence_key)
            except YooKassaRequestError as error:
                failure = _explained(error)
            if not failure.retryable:
                break
            if attempt < MOST_ATTEMPTS - 1:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        raise failure
