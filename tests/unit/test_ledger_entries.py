"""A ledger entry proves the credit only when it is the one that crediting would have written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Hold,
    HoldReason,
    NotOwned,
    decide_locally,
)
from openwebui_billing_reconcile.money.values import LedgerEntry, LocalState, Money, PaymentRecord

from .provider_objects import each

RUB = Money(100_000, "RUB")
RECORD = PaymentRecord("record", "succeeded", "topup", "user", "wallet", RUB)
ENTRY = LedgerEntry("e1", "user", "wallet", RUB)
DIFFERENCES: dict[str, dict[str, Any]] = {
    "a kopek less": {"money": Money(99_999, "RUB")},
    "a kopek more": {"money": Money(100_001, "RUB")},
    "nothing": {"money": Money(0, "RUB")},
    "less than nothing": {"money": Money(-100_000, "RUB")},
    "in another currency": {"money": Money(100_000, "USD")},
    "into another wallet": {"wallet_id": "another"},
    "to another user": {"user_id": "another"},
}

any_status = pytest.mark.parametrize("status", ["succeeded", "pending", "canceled", "failed"])


@any_status
def test_entry_as_expected_proves_the_credit(status: str) -> None:
    local = LocalState(replace(RECORD, status=status), (ENTRY,))
    assert decide_locally(local, "user") == AlreadyCredited(ENTRY)


@any_status
@each(DIFFERENCES)
def test_entry_that_differs_from_the_record_is_held(case: dict[str, Any], status: str) -> None:
    local = LocalState(replace(RECORD, status=status), (replace(ENTRY, **case),))
    assert decide_locally(local, "user") == Hold(HoldReason.CREDITED_ELSEWHERE)


@pytest.mark.parametrize("kopeks", [0, -100_000])
def test_entry_without_a_record_and_without_money_is_held(kopeks: int) -> None:
    entry = LedgerEntry("e1", "user", "wallet", Money(kopeks, "RUB"))
    assert decide_locally(LocalState(topups=(entry,)), "user") == Hold(HoldReason.CREDITED_ELSEWHERE)


@any_status
def test_entry_of_another_user_does_not_change_the_records_owner(status: str) -> None:
    local = LocalState(replace(RECORD, status=status), (replace(ENTRY, user_id="another"),))
    assert decide_locally(local, "another") == NotOwned()


def test_entry_of_a_kopek_is_a_credit() -> None:
    entry = replace(ENTRY, money=Money(1, "RUB"))
    assert decide_locally(LocalState(None, (entry,)), "user") == AlreadyCredited(entry)
