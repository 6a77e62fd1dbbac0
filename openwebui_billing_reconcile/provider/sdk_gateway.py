"""The official ``yookassa`` SDK as a gateway, for hosts that have no YooKassa client of their own.

The SDK keeps one shop for the whole process in class attributes, which a host may use for another shop; has
no socket timeout; logs the Authorization header where a logger is set; and turns amounts into floats. So it
is given a client of our own here, and asked for the raw JSON. Imported only where it is needed: the SDK is an
extra, ``pip install openwebui-billing-reconcile[sdk]``.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import anyio.to_thread
import requests
from anyio import CapacityLimiter
from yookassa.client import ApiClient
from yookassa.domain.common import UserAgent
from yookassa.domain.exceptions import ApiError

from .client import MAX_QUERIES_IN_FLIGHT
from .host_gateway import error_for_status, parse_retry_after

# Connecting, and each wait for bytes; the pacing's deadline bounds the whole.
_SOCKET_SECONDS = (3.05, 8.0)


class SdkGateway:
    """The shop's account, asked through the official SDK, on threads of its own."""

    def __init__(self, shop_id: str, secret_key: str, api_url: str) -> None:
        self.account_id: str | None = shop_id
        self.is_test_shop: bool | None = secret_key.startswith("test_")
        self._client = _Client(shop_id, secret_key, api_url)
        self._threads: CapacityLimiter | None = None

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``."""
        if self._threads is None:
            self._threads = CapacityLimiter(MAX_QUERIES_IN_FLIGHT)
        query = partial(self._client.request, "GET", f"/payments/{quote(payment_id, safe='')}")
        try:
            answer: object = await anyio.to_thread.run_sync(
                query, limiter=self._threads, abandon_on_cancel=True
            )
        except ApiError as error:
            raise error_for_status(error.HTTP_CODE, parse_retry_after(error.content)) from error
        except Exception as error:
            # The SDK leaks others: no connection is an AttributeError, an HTML page a JSONDecodeError.
            raise error_for_status(None) from error
        return answer


class _Client(ApiClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client without the process-wide configuration."""

    def __init__(self, shop_id: str, secret_key: str, api_url: str) -> None:
        # Not super().__init__(): that reads the process-wide configuration.
        self.configuration = SimpleNamespace(verify=None)
        self.endpoint = api_url
        self.shop_id = shop_id
        self.shop_password = secret_key
        self.auth_token = None
        self.timeout = 0
        self.max_attempts = 0
        self.user_agent = UserAgent()

    def get_session(self) -> requests.Session:
        return _Session()

    def log_request(self, *_: Any) -> None:
        """Nothing: it would log the Authorization header."""

    def log_response(self, *_: Any) -> None:
        """Nothing: it would log the provider's body."""


class _Session(requests.Session):
    """A session that gives up, and that sends the credentials nowhere else."""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        options.update(timeout=_SOCKET_SECONDS, allow_redirects=False)
        return super().request(*arguments, **options)
