"""The official ``yookassa`` SDK as a gateway: lists payments, and serves hosts without a YooKassa client.

The SDK is imported with the first query, on a thread: importing it takes about a second, which the event loop
must not wait for.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from openwebui_billing_reconcile.errors import GatewayError, NotConfiguredError, PaymentNotFoundError
from openwebui_billing_reconcile.hookspecs import CapturedPage

from .client import MAX_QUERIES_IN_FLIGHT
from .http_errors import error_for_status, parse_retry_after
from .shop import is_test_key

log = logging.getLogger(__name__)

EXCHANGE_TIMEOUT: Final = 12.0
"""The longest one exchange takes in all, in seconds. Who asks about one payment gives up earlier."""


class Exchange:
    """The connections of one query, to be shut down when nobody waits for its answer any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_aborted = False

    def add(self, connection: socket.socket) -> None:
        """Take note of a connection.

        Closes it and raises ``ConnectionAbortedError`` where the query is given up already.
        """
        # A copy: TLS takes the original over, and a file descriptor of our own is never reused by others.
        copy = connection.dup()
        with self._lock:
            if not self._is_aborted:
                self._sockets.append(copy)
                return
        copy.close()
        connection.close()
        raise ConnectionAbortedError("the query was given up")

    def abort(self) -> None:
        """Shut the connections down: a thread that reads from one or writes to it fails at once."""
        with self._lock:
            self._is_aborted = True
            sockets, self._sockets = self._sockets, []
        for connection in sockets:
            with suppress(OSError):  # the provider may have closed it
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class SdkGateway:
    """The shop's account, queried through the official SDK, on threads of its own."""

    def __init__(self, shop_id: str, secret_key: str, api_url: str) -> None:
        self.account_id: str | None = shop_id
        self.is_test_shop: bool | None = is_test_key(secret_key)
        self._shop = shop_id, secret_key, api_url
        # Not the limiter of anyio: it lets go of an abandoned thread while that still runs.
        self._threads = ThreadPoolExecutor(MAX_QUERIES_IN_FLIGHT, "billing-reconcile-sdk")
        self._is_missing_reported = False

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``. Raises ``NotConfiguredError`` where the SDK cannot be imported."""
        return await self._get(f"/payments/{quote(payment_id, safe='')}", {})

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        """See ``ListingGateway``. Raises ``NotConfiguredError`` where the SDK cannot be imported."""
        parameters = {"status": "succeeded", "captured_at.gte": _timestamp(since), "limit": "100"}
        if cursor is not None:
            parameters["cursor"] = cursor
        try:
            answer = await self._get("/payments", parameters)
        except PaymentNotFoundError as error:  # a 404 here is about the address, not about a payment
            raise GatewayError("the provider has no list there") from error
        return _read_page(answer)

    async def _get(self, path: str, parameters: Mapping[str, str]) -> object:
        exchange = Exchange()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                return await loop.run_in_executor(self._threads, self._fetch, path, parameters, exchange)
        except TimeoutError as error:
            raise error_for_status(None) from error
        finally:
            exchange.abort()

    def _fetch(self, path: str, parameters: Mapping[str, str], exchange: Exchange) -> object:
        try:
            from . import sdk_client
        except ImportError as error:
            self._report_missing(error)
            raise NotConfiguredError from error
        try:
            return sdk_client.get(*self._shop, path, parameters, exchange)
        except sdk_client.StatusError as error:
            raise error_for_status(error.status_code, parse_retry_after(error.response_text)) from error
        except Exception as error:
            # The SDK leaks others: no connection is an AttributeError, an HTML page a JSONDecodeError.
            raise error_for_status(None) from error

    def _report_missing(self, error: ImportError) -> None:
        if not self._is_missing_reported:
            self._is_missing_reported = True
            log.error("The official YooKassa SDK cannot be imported (%s): pip install yookassa", error)


def _timestamp(seconds: float) -> str:
    """Return epoch seconds as the provider writes them: UTC, milliseconds, Z."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_page(answer: object) -> CapturedPage:
    """Raises ``GatewayError`` for anything but a page, which must not count as the end of the list."""
    match answer:
        case {"type": "list", "items": list(items), **rest}:
            cursor = rest.get("next_cursor")
            if cursor is None or (isinstance(cursor, str) and cursor):
                return CapturedPage(items, cursor)
    raise GatewayError("the provider's list cannot be read")
