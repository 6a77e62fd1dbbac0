"""The provider's HTTP statuses as the errors that gateways raise, whichever client asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
)

from .cooldown import DEFAULT_COOLDOWN, MAX_COOLDOWN

_MAX_ERROR_CHARACTERS: Final = 4096


def error_for_status(status: int | None, pause: float = DEFAULT_COOLDOWN) -> GatewayError:
    """The error for an HTTP status of the provider; ``None``: there was no answer with a status."""
    if status == 404:
        return PaymentNotFoundError("the provider does not know this payment")
    if status in {400, 401, 403}:
        return GatewayRejectedError(f"the provider answered {status}")
    if status == 429:
        return GatewayThrottledError("the provider asks for a pause", retry_after=pause)
    return GatewayError(f"the provider answered {status}" if status else "the provider did not answer")


def parse_retry_after(text: object) -> float:
    """Return the seconds of ``retry_after``, at most ``MAX_COOLDOWN``, in the text of the provider's error.

    It is in milliseconds there.
    """
    body = _json(text)
    milliseconds = body.get("retry_after") if isinstance(body, Mapping) else None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return DEFAULT_COOLDOWN
    if not milliseconds >= 0:  # also NaN, which JSON as Python reads it can hold
        return DEFAULT_COOLDOWN
    return min(milliseconds, MAX_COOLDOWN * 1000) / 1000


def _json(text: object) -> object:
    try:
        return json.loads(str(text)) if len(str(text)) <= _MAX_ERROR_CHARACTERS else None
    except (ValueError, RecursionError):
        return None
