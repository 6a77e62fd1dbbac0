"""An audit's result as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import date

import pytest

from openwebui_billing_reconcile.money.findings import Finding, FindingClass
from openwebui_billing_reconcile.money.values import Money
from openwebui_billing_reconcile.operate.audit import AuditResult
from openwebui_billing_reconcile.operate.audit_output import as_csv, as_json, as_text
from openwebui_billing_reconcile.operate.period import Period

PERIOD = Period(date(2026, 3, 9), date(2026, 3, 12))
CAPTURED_AT = "2026-03-10T09:00:00.000Z"
HELD = Finding(
    FindingClass.HELD, "pay-1", "me", "w1", Money(99_905, "RUB"), "refunded", CAPTURED_AT, releasable=True
)
FINDINGS = [
    HELD,
    replace(HELD, payment_id="pay-2", money=Money(95, "RUB"), reason="other_shop", releasable=False),
    replace(HELD, payment_id="pay-3", money=None, reason="malformed", captured_at="odd", releasable=False),
    Finding(FindingClass.OPEN_TOO_LONG, "pay-4", "ж", None, Money(500, "USD")),
]
UNCREDITED = replace(HELD, kind=FindingClass.UNCREDITED, reason="uncredited")
RESULT = AuditResult(PERIOD, 7, 5, others=2, unreadable=1, settled=3, findings=FINDINGS)
NOTHING = AuditResult(PERIOD, 7, 5, others=2, unreadable=1, settled=3)
NAMES = [
    "class",
    "payment_id",
    "user_id",
    "wallet_id",
    "amount_kopeks",
    "currency",
    "reason",
    "captured_at",
    "releasable",
]


def test_text_says_uncredited_once() -> None:
    line = as_text(replace(RESULT, findings=[UNCREDITED]), "RUB").splitlines()[-1]
    assert line.startswith("uncredited (releasable): pay-1 ")


def test_text_is_for_a_person() -> None:
    assert as_text(RESULT, "RUB").splitlines() == [
        "2026-03-09 to 2026-03-12 (not included, Moscow time)",
        (
            "7 captured payments and 5 credits were compared; 2 payments are no top-ups of this host, "
            "3 were settled by hand, 1 could not be read"
        ),
        "",
        "held                        3        1000.00 RUB",
        "open_too_long               1           0.00 RUB",
        "",
        "held (refunded, releasable): pay-1 999.05 RUB user me captured 2026-03-10 12:00:00",
        "held (other_shop): pay-2 0.95 RUB user me captured 2026-03-10 12:00:00",
        "held (malformed): pay-3 unknown amount user me captured odd",
        "open_too_long: pay-4 5.00 USD user ж",
    ]


def test_text_says_when_there_is_nothing() -> None:
    lines = as_text(NOTHING, "RUB").splitlines()
    assert lines[2:] == ["nothing to look at"]
    assert lines[:2] == as_text(RESULT, "RUB").splitlines()[:2]


def test_json_is_what_the_endpoint_answers() -> None:
    text = as_json(RESULT, "RUB")
    assert "ж" in text
    answer = json.loads(text)
    assert list(answer) == ["since", "until", "checked", "settled", "totals", "findings"]
    assert answer["totals"]["held"] == {"count": 3, "kopeks": 100_000}
    assert answer["totals"]["open_too_long"] == {"count": 1, "kopeks": 0}
    assert answer["totals"]["uncredited"] == {"count": 0, "kopeks": 0}
    assert answer["totals"].keys() == set(FindingClass)
    assert list(answer["findings"][0]) == NAMES
    assert [found["payment_id"] for found in answer["findings"]] == ["pay-1", "pay-2", "pay-3", "pay-4"]


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_is_a_line_a_finding_under_their_names() -> None:
    names, *lines = read(as_csv(RESULT))
    assert names == NAMES
    assert lines[0] == ["held", "pay-1", "me", "w1", "99905", "RUB", "refunded", CAPTURED_AT, "True"]
    assert lines[3] == ["open_too_long", "pay-4", "ж", "", "500", "USD", "", "", "False"]
    assert len(lines) == 4


def test_csv_of_nothing_is_its_names() -> None:
    assert read(as_csv(NOTHING)) == [NAMES]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        '=HYPERLINK("http://evil.example","x")',
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        "-",
        '=cmd|"/C calc"!A0',
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    odd = Finding(FindingClass.HELD, text, text, text, Money(-5, text), text, text)
    _, line = read(as_csv(AuditResult(PERIOD, findings=[odd])))
    assert line == ["held", *[f"'{text}"] * 3, "'-5", *[f"'{text}"] * 3, "False"]


@pytest.mark.parametrize("text", ['a"b', "a,b", "a\nb", "a\r=1+1", "a;b", "a=1", "1-1", " =1", "ж"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    odd = replace(HELD, user_id=text)
    assert read(as_csv(AuditResult(PERIOD, findings=[odd])))[1][2] == text
