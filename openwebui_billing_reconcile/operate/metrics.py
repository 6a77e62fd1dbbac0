"""Metrics through OpenTelemetry, where the host has set that up: the second built-in plugin.

Nothing is imported for it: a host that measures has imported ``opentelemetry.metrics`` itself, and without
that nothing happens. No attribute names a payment or a user.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from types import ModuleType
from typing import Any, Final, Literal

from openwebui_billing_reconcile.hookspecs import PROJECT, TopupEvent, hookimpl

log = logging.getLogger(__name__)

_API: Final = "opentelemetry.metrics"


@hookimpl
def topup_outcome(event: TopupEvent) -> None:
    """Count credits and holds, and how late a credit came."""
    if event.outcome == "credited":
        _measure("counter", "billing.topup.credited", 1, {"path": event.way.value})
        if event.captured_at is not None:
            _measure("histogram", "billing.topup.credit.delay", max(0.0, event.at - event.captured_at))
    elif event.outcome == "held":
        _measure("counter", "billing.topup.held", 1, {"reason": event.reason or ""})


def count_query(kind: str, outcome: str) -> None:
    """Count a query to the provider; see ``ProviderClient``."""
    _measure("counter", "billing.topup.provider.requests", 1, {"kind": kind, "outcome": outcome})


def set_last_success(at: float) -> None:
    """Note when a pass of the sweep was complete, in epoch seconds."""
    _measure("gauge", "billing.topup.sweep.last_success", at)


_RECORD: Final = {"counter": "add", "histogram": "record", "gauge": "set"}


def _measure(
    kind: Literal["counter", "histogram", "gauge"],
    name: str,
    value: float,
    attributes: dict[str, str] | None = None,
) -> None:
    """Record a value where the host measures. What goes wrong there harms nobody."""
    api = sys.modules.get(_API)
    if api is None:
        return
    try:
        getattr(_instrument(api, kind, name), _RECORD[kind])(value, attributes)
    except Exception as error:  # noqa: BLE001 - money does not depend on metrics
        _log_once(name, type(error).__name__)


@cache
def _instrument(api: ModuleType, kind: str, name: str) -> Any:
    unit = "1" if kind == "counter" else "s"
    return getattr(_meter(api), f"create_{kind}")(name, unit=unit)


@cache
def _meter(api: ModuleType) -> Any:
    return api.get_meter(PROJECT)


@cache
def _log_once(name: str, error: str) -> None:
    log.warning("A metric cannot be recorded: %s (%s)", name, error)
