"""The report: how many credits came which way, how late, and what is open."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median, quantiles
from typing import Any, Final

from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.host.database_errors import database_errors
from openwebui_billing_reconcile.host.reader import LedgerReader
from openwebui_billing_reconcile.money.values import CreditedTopup, parse_time

from .period import Period, moscow_day
from .sweep import DAY, HOUR, OLDEST_OPEN, Pass

WEBHOOK: Final = "webhook"
PATHS: Final = (WEBHOOK, *(way.value for way in Way))
"""The ways in which a credit comes."""

OPEN_AGES: Final = (HOUR, DAY, OLDEST_OPEN)
"""The ages by which open top-ups are counted, in seconds."""

_PAGE: Final = 1000


class Report:
    """Reads a report from the host's tables. Its methods block: call them on a thread."""

    def __init__(self, reader: LedgerReader, currency: str) -> None:
        """Kopeks are counted of ``currency`` only."""
        self._reader = reader
        self._currency = currency

    def read(self, period: Period, last_pass: Pass | None) -> dict[str, Any]:
        """Return the report of a period for JSON. Raises ``TemporarilyUnavailableError``."""
        now = time.time()
        days = {day: _zeros() for day in period.days}
        totals = _zeros()
        delays: list[float] = []
        with database_errors("report"):
            for page in self._reader.credited_topups(period.start, period.end, _PAGE):
                for credit in page:
                    self._count(credit, days[moscow_day(credit.credited_at)])
                    self._count(credit, totals)
                delays += _delays(page)
            open_topups = [
                {"older_than": age, "count": self._reader.count_open_topups(now - age)} for age in OPEN_AGES
            ]
        return {
            "since": period.since.isoformat(),
            "until": period.until.isoformat(),
            "totals": totals,
            "days": [{"date": day.isoformat(), **paths} for day, paths in days.items()],
            "open": open_topups,
            "delay_seconds": _delay(delays),
            "last_pass": asdict(last_pass) if last_pass else None,
        }

    def _count(self, credit: CreditedTopup, paths: dict[str, dict[str, int]]) -> None:
        total = paths[_path(credit)]
        total["count"] += 1
        if credit.money.currency == self._currency:
            total["kopeks"] += credit.money.kopeks


def _zeros() -> dict[str, dict[str, int]]:
    return {path: {"count": 0, "kopeks": 0} for path in PATHS}


def _path(credit: CreditedTopup) -> str:
    return credit.reconciled_by if credit.reconciled_by in PATHS else WEBHOOK


def _delays(credits_: Iterable[CreditedTopup]) -> list[float]:
    """From capture to credit, of those that did not come by webhook, in seconds."""
    return [
        max(0.0, credit.credited_at - captured_at)
        for credit in credits_
        if _path(credit) != WEBHOOK and (captured_at := parse_time(credit.captured_at)) is not None
    ]


def _delay(delays: Sequence[float]) -> dict[str, float | None]:
    if not delays:
        return {"median": None, "p95": None}
    p95 = quantiles(delays, n=20, method="inclusive")[-1] if len(delays) > 1 else delays[0]
    return {"median": round(median(delays), 1), "p95": round(p95, 1)}
