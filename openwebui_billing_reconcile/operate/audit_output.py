"""An audit's result as text, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Final

from openwebui_billing_reconcile.money.findings import Finding, FindingClass
from openwebui_billing_reconcile.money.values import Money, parse_time

from .audit import AuditResult, finding_as_json
from .period import MOSCOW

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet takes for a formula."""


def as_json(result: AuditResult, currency: str) -> str:
    """Return the same object as the endpoint."""
    return json.dumps(result.as_json(currency), indent=2, ensure_ascii=False)


def as_csv(result: AuditResult) -> str:
    """Return a line for each finding, under a line of names. No cell can be taken for a formula."""
    text = io.StringIO()
    # Older Pythons leave a carriage return unquoted, and what follows it would be a cell of its own.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(finding_as_json(_SAMPLE))
    for finding in result.findings:
        writer.writerow(_cell(value) for value in finding_as_json(finding).values())
    return text.getvalue().rstrip("\n")


def as_text(result: AuditResult, currency: str) -> str:
    """Return the result for a person."""
    period = f"{result.period.since} to {result.period.until} (not included, Moscow time)"
    checked = (
        f"{result.payments} captured payments and {result.entries} credits were compared; "
        f"{result.others} payments are no top-ups of this host, {result.settled} were settled by hand, "
        f"{result.unreadable} could not be read"
    )
    if not result.findings:
        return f"{period}\n{checked}\nnothing to look at"
    totals = [
        f"{kind.value:<22} {total['count']:>6} {Money(total['kopeks'], currency).value:>14} {currency}"
        for kind in FindingClass
        if (total := result.total(kind, currency))["count"]
    ]
    return "\n".join([period, checked, "", *totals, "", *map(_line, result.findings)])


def _line(finding: Finding) -> str:
    money = f"{finding.money.value} {finding.money.currency}" if finding.money else "unknown amount"
    about = [finding.reason] if finding.reason and finding.reason != finding.kind else []
    about += ["releasable"] if finding.releasable else []
    reason = f" ({', '.join(about)})" if about else ""
    captured = f" captured {_in_moscow(finding.captured_at)}" if finding.captured_at else ""
    return f"{finding.kind.value}{reason}: {finding.payment_id} {money} user {finding.user_id}{captured}"


def _in_moscow(captured_at: str) -> str:
    """Return the time as the days are counted; as the provider wrote it where it cannot be read."""
    seconds = parse_time(captured_at)
    return captured_at if seconds is None else f"{datetime.fromtimestamp(seconds, MOSCOW):%Y-%m-%d %H:%M:%S}"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_SAMPLE: Final = Finding(FindingClass.HELD, "", "", None, None)
