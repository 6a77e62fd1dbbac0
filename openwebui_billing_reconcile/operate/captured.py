"""The provider's list of captured payments, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from openwebui_billing_reconcile.errors import InvalidProviderResponseError
from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway

PAGE_INTERVAL: Final = 0.2
"""Seconds between two pages: reading one takes the interpreter from everybody for a moment."""

ListCaptured = Callable[[ListingGateway, float, str | None], Awaitable[CapturedPage]]
"""``ProviderClient.list_captured``."""


async def captured_pages(
    list_captured: ListCaptured, gateway: ListingGateway, since: float
) -> AsyncIterator[CapturedPage]:
    """Yield the pages of what was captured at ``since`` (epoch seconds) or later, the newest first.

    Raises as ``list_captured``, and ``InvalidProviderResponseError`` where the list does not end.
    """
    cursor: str | None = None
    cursors: set[str] = set()
    while True:
        page = await list_captured(gateway, since, cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return
        if cursor in cursors:
            raise InvalidProviderResponseError("Payment provider's list does not end")
        cursors.add(cursor)
        await asyncio.sleep(PAGE_INTERVAL)
