"""How long a caller waits for a reply, and that it gets nothing but a known error."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from openwebui_billing_reconcile.concurrency import InFlightLimitError
from openwebui_billing_reconcile.errors import (
    RateLimitedError,
    ReconcileError,
    StillBeingCheckedError,
    UnexpectedError,
)

log = logging.getLogger(__name__)

REPLY_TIMEOUT: Final = 12.0
"""The longest a caller waits for the whole reply, in seconds."""


def reply_expires_at() -> float:
    """Return when nobody waits any more for the reply to a call that begins now, by the monotonic clock."""
    return time.monotonic() + REPLY_TIMEOUT


def check_not_expired(expires_at: float) -> None:
    """Raise ``StillBeingCheckedError`` when nobody waits any more: the next call asks anew."""
    if time.monotonic() > expires_at:
        raise StillBeingCheckedError


@asynccontextmanager
async def reply(expires_at: float) -> AsyncIterator[None]:
    """Bound a reply's time, and raise nothing but ``ReconcileError``."""
    try:
        async with asyncio.timeout(expires_at - time.monotonic()):
            yield
    except ReconcileError:
        raise
    except TimeoutError:
        raise StillBeingCheckedError from None
    except InFlightLimitError:
        raise RateLimitedError(retry_after=1) from None
    except Exception as error:
        log.error("Reconciling a top-up failed unexpectedly: %s", type(error).__name__)
        raise UnexpectedError from error
