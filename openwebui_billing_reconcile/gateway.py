"""How the provider is asked: through the host's own client."""

from __future__ import annotations

import json
from typing import Any

from .errors import GatewayBusyError, GatewayError, GatewayRejectedError, PaymentUnknownError
from .hookspecs import Host

# A 429 that does not say how long: what a person would wait.
_PAUSE_SECONDS = 5.0


class HostGateway:
    """The host's initialised YooKassa client as a ``PaymentGateway``."""

    def __init__(self, client: Any, shop_id: str, secret_key: str) -> None:
        """``shop_id`` and ``secret_key`` count where the client does not carry its own; "" is not known."""
        config = getattr(client, "config", None)
        secret_key = str(getattr(config, "secret_key", "") or secret_key)
        self._client = client
        self.account_id = str(getattr(config, "shop_id", "") or shop_id) or None
        # The provider's test shops have keys that begin with "test_".
        self.is_test_shop = secret_key.startswith("test_") if secret_key else None

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``."""
        try:
            answer: object = await self._client.get_payment(payment_id)
        except Exception as error:
            raise _named(error) from error
        return answer


def host_gateway(host: Host) -> HostGateway | None:
    """The host's client as a gateway; ``None`` while it is not initialised."""
    client = host.payment_client
    return HostGateway(client, host.shop_id, host.shop_secret_key) if client else None


def _named(error: Exception) -> GatewayError:
    """The host's client raises one class for everything and carries the HTTP status where there was one."""
    status = getattr(error, "status_code", None)
    if status == 404:
        return PaymentUnknownError("the provider does not know this payment")
    if status in {400, 401, 403}:
        return GatewayRejectedError(f"the provider answered {status}")
    if status == 429:
        pause = _pause_seconds(getattr(error, "response_text", ""))
        return GatewayBusyError("the provider asks for a pause", retry_after=pause)
    return GatewayError(f"{type(error).__name__}, HTTP status {status}")


def _pause_seconds(body: object) -> float:
    """``retry_after`` of the provider's error body, which is in milliseconds."""
    try:
        milliseconds = json.loads(str(body))["retry_after"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return _PAUSE_SECONDS
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return _PAUSE_SECONDS
    return milliseconds / 1000
