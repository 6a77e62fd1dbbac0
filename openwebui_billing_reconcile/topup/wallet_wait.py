"""How long a call goes on trying to write where somebody else holds the wallet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from openwebui_billing_reconcile.errors import StillBeingCheckedError, WalletBusyError

log = logging.getLogger(__name__)

T = TypeVar("T")

MIN_WAIT: Final = 3.0
"""No call gives up before it has tried for so many seconds, unless its own time is over."""

MIN_TRIES: Final = 5
"""Nor before so many tries: in a crowd the time passes in the queue for the thread."""

_PAUSE: Final = 0.03  # seconds


async def when_wallet_is_free(payment_id: str, write: Callable[[], Awaitable[T]]) -> T:
    """Return what ``write`` returns; it is called anew while it raises ``WalletBusyError``.

    On SQLite whoever writes anything holds every wallet. Raises what ``write`` raises last.
    """
    gives_up_at = time.monotonic() + MIN_WAIT
    tries = 0
    while True:
        try:
            return await write()
        except WalletBusyError:
            tries += 1
            if tries >= MIN_TRIES and time.monotonic() > gives_up_at:
                _log_busy(payment_id)
                raise
        except StillBeingCheckedError:
            if tries:
                _log_busy(payment_id)
            raise
        await asyncio.sleep(_PAUSE)


def _log_busy(payment_id: str) -> None:
    log.warning("The lock of the wallet could not be had: payment=%s", payment_id)
