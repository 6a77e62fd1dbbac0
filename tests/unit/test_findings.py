"""What an audit says about one payment: each class of finding, and what is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openwebui_billing_reconcile.money.findings import (
    AuditedState,
    Finding,
    FindingClass,
    NoFinding,
    check_credit,
    find,
)
from openwebui_billing_reconcile.money.release import RELEASABLE, UNCREDITED
from openwebui_billing_reconcile.money.rules import HoldReason, Shop
from openwebui_billing_reconcile.money.values import (
    LedgerEntry,
    LocalState,
    Money,
    PaymentRecord,
    ProviderPayment,
    TopupMetadata,
    Wallet,
)

RUB = Money(100_000, "RUB")
SHOP = Shop(account_id="100500", accepts_test_payments=False, default_currency="RUB")
MINE = Wallet("w1", "me", "RUB")
RECORD = PaymentRecord("p1", "pending", "topup", "me", "w1", RUB)
ENTRY = LedgerEntry("e1", "me", "w1", RUB)
NOON = "2026-03-10T09:00:00.000Z"
PAID = ProviderPayment(
    id="x",
    status="succeeded",
    paid=True,
    amount=RUB,
    test=False,
    account_id="100500",
    refunded=None,
    captured_at=NOON,
    topup=TopupMetadata("topup", "me", "w1", 100_000),
    metadata={},
    malformed=frozenset(),
)
OPEN = LocalState(RECORD)
CREDITED = LocalState(replace(RECORD, status="succeeded"), (ENTRY,))
FIRST_KOPEK = Money(1, "RUB")


def paid(**changes: Any) -> ProviderPayment:
    return replace(PAID, **changes)


def found(
    payment: ProviderPayment = PAID,
    local: LocalState = OPEN,
    wallet: Wallet | None = MINE,
    own_wallet: Wallet | None = MINE,
) -> Finding | NoFinding:
    return find(payment, AuditedState("me", local, wallet, own_wallet), SHOP)


def finding(kind: FindingClass, money: Money | None = RUB, **changes: Any) -> Finding:
    return replace(Finding(kind, "x", "me", "w1", money, captured_at=NOON), **changes)


def uncredited(**changes: Any) -> Finding:
    return finding(FindingClass.UNCREDITED, reason=UNCREDITED, releasable=True, **changes)


# --- Not credited ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [OPEN, LocalState()], ids=["record", "no record"])
def test_what_adds_up_is_uncredited_and_can_be_released(local: LocalState) -> None:
    assert found(local=local) == uncredited()


def test_without_a_wallet_named_the_owners_own_is_meant() -> None:
    local = LocalState(replace(RECORD, wallet_id=None))
    assert found(local=local) == uncredited()
    assert found(local=local, wallet=None, own_wallet=None) == uncredited(wallet_id=None)


@pytest.mark.parametrize(
    ("payment", "local", "reason", "kopeks"),
    [
        (paid(amount=Money(90_000, "RUB")), OPEN, HoldReason.AMOUNT_MISMATCH, 90_000),
        (paid(refunded=FIRST_KOPEK), OPEN, HoldReason.REFUNDED, 99_999),
        (paid(test=True), OPEN, HoldReason.TEST_PAYMENT, 100_000),
        (PAID, LocalState(CREDITED.record), HoldReason.SUCCEEDED_WITHOUT_LEDGER, 100_000),
        (paid(account_id="999"), OPEN, HoldReason.OTHER_SHOP, 100_000),
        (paid(paid=False), OPEN, HoldReason.NOT_PAID, 100_000),
        (paid(malformed=frozenset({"test"})), OPEN, HoldReason.MALFORMED, 100_000),
        (PAID, LocalState(RECORD, (replace(ENTRY, wallet_id="w2"),)), HoldReason.CREDITED_ELSEWHERE, 100_000),
        (PAID, LocalState(replace(RECORD, status="disputed")), HoldReason.UNKNOWN_STATUS, 100_000),
    ],
)
def test_what_does_not_add_up_is_held_and_says_why(
    payment: ProviderPayment, local: LocalState, reason: HoldReason, kopeks: int
) -> None:
    is_releasable = reason in RELEASABLE
    expected = finding(FindingClass.HELD, Money(kopeks, "RUB"), reason=reason.value, releasable=is_releasable)
    assert found(payment, local) == expected


def test_what_the_answer_does_not_say_is_no_amount() -> None:
    expected = finding(FindingClass.HELD, None, reason="malformed")
    assert found(paid(malformed=frozenset({"refunded_amount"}))) == expected


@pytest.mark.parametrize(
    ("local", "wallet"), [(OPEN, MINE), (LocalState(), None), (LocalState(CREDITED.record), MINE)]
)
def test_what_was_refunded_whole_and_never_credited_needs_nobody(
    local: LocalState, wallet: Wallet | None
) -> None:
    assert found(paid(refunded=RUB), local, wallet) is NoFinding.FINE


def test_what_was_refunded_whole_and_credited_elsewhere_does() -> None:
    elsewhere = LocalState(RECORD, (replace(ENTRY, wallet_id="w2"),))
    expected = finding(FindingClass.HELD, Money(0, "RUB"), reason="credited_elsewhere")
    assert found(paid(refunded=RUB), elsewhere) == expected


def test_what_is_held_for_two_reasons_cannot_be_released() -> None:
    expected = finding(FindingClass.HELD, reason="succeeded_without_ledger")
    assert found(paid(test=True), LocalState(CREDITED.record)) == expected


def test_with_a_record_a_missing_wallet_is_held() -> None:
    expected = finding(FindingClass.HELD, reason="wallet_missing", releasable=True)
    assert found(wallet=None) == expected
    assert found(wallet=None, own_wallet=None) == expected


@pytest.mark.parametrize(
    ("wallet", "reason", "is_releasable"),
    [
        (None, "wallet_missing", True),
        (Wallet("w1", "somebody", "RUB"), "wallet_foreign", False),
    ],
)
def test_without_a_record_a_wallet_that_is_not_the_users_is_unknown_here(
    wallet: Wallet | None, reason: str, is_releasable: bool
) -> None:
    expected = finding(FindingClass.UNKNOWN_HERE, reason=reason, releasable=is_releasable)
    assert found(PAID, LocalState(), wallet) == expected


def test_with_a_record_a_foreign_wallet_is_held() -> None:
    foreign = Wallet("w1", "somebody", "RUB")
    assert found(wallet=foreign) == finding(FindingClass.HELD, reason="wallet_foreign")


# --- Credited --------------------------------------------------------------------------------------------


def test_what_was_credited_as_paid_is_fine() -> None:
    assert found(local=CREDITED) is NoFinding.FINE
    assert found(paid(refunded=Money(0, "RUB")), CREDITED) is NoFinding.FINE


@pytest.mark.parametrize("refunded", [FIRST_KOPEK, RUB])
def test_what_was_refunded_after_its_credit_is_found(refunded: Money) -> None:
    assert found(paid(refunded=refunded), CREDITED) == finding(FindingClass.REFUNDED_AFTER_CREDIT, refunded)


@pytest.mark.parametrize("credit", [ENTRY, replace(ENTRY, release_id="r1")], ids=["credited", "released"])
def test_what_is_left_of_it_after_a_correction_by_hand_is_found(credit: LedgerEntry) -> None:
    refunded = paid(refunded=Money(60_000, "RUB"))
    local = replace(CREDITED, topups=(credit,))

    def corrected(by: int) -> Finding | NoFinding:
        return find(refunded, AuditedState("me", local, adjusted_kopeks=by), SHOP)

    assert corrected(-60_000) is NoFinding.FINE
    left = finding(FindingClass.REFUNDED_AFTER_CREDIT, Money(20_000, "RUB"))
    assert corrected(-40_000) == left
    twice = finding(FindingClass.REFUNDED_AFTER_CREDIT, Money(160_000, "RUB"))
    assert corrected(100_000) == twice


def test_a_correction_of_more_than_was_refunded_is_found() -> None:
    state = AuditedState("me", CREDITED, adjusted_kopeks=-60_001)
    expected = finding(FindingClass.AMOUNT_DIFFERS, Money(40_000, "RUB"))
    assert find(paid(refunded=Money(60_000, "RUB")), state, SHOP) == expected


@pytest.mark.parametrize("amount", [Money(99_999, "RUB"), Money(100_001, "RUB"), Money(100_000, "USD")])
def test_a_credit_of_another_amount_than_was_paid_is_found(amount: Money) -> None:
    assert found(paid(amount=amount), CREDITED) == finding(FindingClass.AMOUNT_DIFFERS, amount)


def test_so_is_one_that_was_credited_twice() -> None:
    twice = replace(CREDITED, topups=(ENTRY, replace(ENTRY, id="e2")))
    assert found(PAID, twice) == finding(FindingClass.AMOUNT_DIFFERS)


@pytest.mark.parametrize("field", ["amount", "refunded_amount"])
def test_so_is_one_where_what_the_provider_holds_cannot_be_read(field: str) -> None:
    unreadable = paid(malformed=frozenset({field}), **({"amount": None} if field == "amount" else {}))
    assert found(unreadable, CREDITED) == finding(FindingClass.AMOUNT_DIFFERS, None)


@pytest.mark.parametrize(
    "payment",
    [
        paid(status="canceled", paid=False, captured_at=None),
        paid(status="pending", paid=False, captured_at=None),
        paid(status="waiting_for_capture", captured_at=None),
        paid(paid=False, captured_at=None),
        paid(paid=None, captured_at=None),
    ],
)
def test_a_credit_of_what_the_provider_does_not_call_paid_is_found(payment: ProviderPayment) -> None:
    expected = finding(FindingClass.CREDITED_UNPAID, captured_at=None)
    assert found(payment, CREDITED) == expected


def test_so_is_one_that_differs_from_its_record() -> None:
    elsewhere = LocalState(RECORD, (replace(ENTRY, wallet_id="w2", money=FIRST_KOPEK),))
    expected = finding(FindingClass.CREDITED_UNPAID, FIRST_KOPEK, wallet_id="w2", captured_at=None)
    assert found(paid(status="canceled", paid=False, captured_at=None), elsewhere) == expected


def test_so_is_one_of_a_payment_the_provider_does_not_know() -> None:
    expected = finding(FindingClass.CREDITED_UNPAID, captured_at=None)
    assert check_credit("x", None, ENTRY) == expected
    assert check_credit("x", None, replace(ENTRY, release_id="r1")) == expected


# --- Released --------------------------------------------------------------------------------------------

RELEASED = replace(ENTRY, money=Money(60_000, "RUB"), wallet_id="w2", release_id="r1")


@pytest.mark.parametrize(
    "payment",
    [
        PAID,
        paid(amount=Money(60_000, "RUB")),
        paid(refunded=Money(40_000, "RUB")),
        paid(test=True),
    ],
)
def test_what_was_released_is_settled(payment: ProviderPayment) -> None:
    assert found(payment, LocalState(RECORD, (RELEASED,))) is NoFinding.FINE


@pytest.mark.parametrize(
    ("refunded", "excess"),
    [
        (Money(40_001, "RUB"), FIRST_KOPEK),
        (RUB, Money(60_000, "RUB")),
        (Money(1, "USD"), None),
    ],
)
def test_what_was_refunded_after_its_release_is_found(refunded: Money, excess: Money | None) -> None:
    expected = finding(FindingClass.REFUNDED_AFTER_CREDIT, excess, wallet_id="w2")
    assert found(paid(refunded=refunded), LocalState(RECORD, (RELEASED,))) == expected


def test_what_was_released_and_is_not_paid_any_more_is_found() -> None:
    canceled = paid(status="canceled", paid=False, captured_at=None)
    expected = finding(FindingClass.CREDITED_UNPAID, RELEASED.money, wallet_id="w2", captured_at=None)
    assert found(canceled, LocalState(RECORD, (RELEASED,))) == expected


# --- None ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payment", "local", "expected"),
    [
        (PAID, LocalState(replace(RECORD, kind="subscription")), NoFinding.OTHER),
        (paid(topup=TopupMetadata("subscription", "me")), LocalState(), NoFinding.OTHER),
        (PAID, LocalState(RECORD, other_entries=1), NoFinding.SETTLED_BY_HAND),
        (PAID, LocalState(other_entries=1), NoFinding.SETTLED_BY_HAND),
        (paid(status="pending", paid=False), OPEN, NoFinding.FINE),
        (paid(status="canceled", paid=False), OPEN, NoFinding.FINE),
        (paid(status="canceled", paid=True), OPEN, NoFinding.FINE),
        (paid(status="canceled", account_id="999"), OPEN, NoFinding.FINE),
        (paid(topup=TopupMetadata("topup", "somebody")), LocalState(), NoFinding.FINE),
    ],
)
def test_what_needs_nobody_is_no_finding(
    payment: ProviderPayment, local: LocalState, expected: NoFinding
) -> None:
    assert found(payment, local) is expected
