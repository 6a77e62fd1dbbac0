"""Each shape of the provider's payment object gives the decision it must, with and without a local record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openwebui_billing_reconcile.errors import InvalidProviderResponseError
from openwebui_billing_reconcile.money.rules import (
    Cancel,
    Credit,
    Decision,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    StillPending,
    decide,
)
from openwebui_billing_reconcile.money.values import LocalState, Money, PaymentRecord, ProviderPayment, Wallet
from tests.support.yookassa.client import Document, rubles

from .provider_objects import (
    INCOMPLETE,
    NO_MONEY,
    NO_MONEY_TO_READ,
    NO_OWNER,
    NO_PAYMENT,
    NOT_PAID,
    OTHER_AMOUNT,
    OTHER_CURRENCY,
    OTHER_KIND,
    OTHER_METADATA_AMOUNT,
    OTHER_PAYMENT,
    OTHER_SHOP,
    PAYMENT_ID,
    REFUNDED,
    SHOP_ID,
    SOUND,
    SOUND_WITH_RECORD,
    STATUSES,
    TEST_PAYMENT,
    UNREADABLE,
    UNREADABLE_METADATA,
    UNREADABLE_METADATA_FIELD,
    USER_ID,
    WALLET_ID,
    changed_payment,
    each,
    each_with_reason,
    in_states,
)

ORDERED = Money(100_000, "RUB")
WALLET = Wallet(WALLET_ID, USER_ID, "RUB")
SHOP = Shop(account_id=SHOP_ID, accepts_test_payments=False, default_currency="RUB")
RECORD = PaymentRecord("record", "pending", "topup", USER_ID, WALLET_ID, ORDERED)
WITH_RECORD = LocalState(RECORD)
WITHOUT_RECORD = LocalState()

with_and_without_record = pytest.mark.parametrize(
    "local", [WITH_RECORD, WITHOUT_RECORD], ids=["recorded", "unrecorded"]
)


def decision(case: Document, local: LocalState) -> Decision:
    """Return what is to be done for the user about a sound payment object changed as ``case`` says."""
    payment = ProviderPayment.parse(changed_payment(case), PAYMENT_ID)
    return decide(payment, local, WALLET, USER_ID, SHOP)


def recorded(**changes: Any) -> LocalState:
    """Return the state of the host's tables with a record changed so."""
    return LocalState(replace(RECORD, **changes))


# --- Credit --------------------------------------------------------------------------------------


@with_and_without_record
@each(SOUND)
def test_sound_payment_is_credited(case: Document, local: LocalState) -> None:
    assert decision(case, local) == Credit(ORDERED, WALLET)


@each(SOUND_WITH_RECORD)
def test_metadata_has_no_say_where_there_is_a_record(case: Document) -> None:
    assert decision(case, WITH_RECORD) == Credit(ORDERED, WALLET)


@pytest.mark.parametrize(
    ("value", "kopeks"), [("0.01", 1), ("0.99", 99), ("777.07", 77_707), ("999999999999.99", 10**14 - 1)]
)
def test_amount_paid_counts_where_metadata_names_none(value: str, kopeks: int) -> None:
    case: Document = {"amount": rubles(value), "remove": ["metadata.amount_kopeks"]}
    assert decision(case, WITHOUT_RECORD) == Credit(Money(kopeks, "RUB"), WALLET)


# --- Hold ----------------------------------------------------------------------------------------


@with_and_without_record
@each_with_reason(
    (HoldReason.MALFORMED, NO_MONEY_TO_READ | UNREADABLE),
    (HoldReason.INCOMPLETE, INCOMPLETE),
    (HoldReason.NOT_PAID, NOT_PAID),
    (HoldReason.REFUNDED, REFUNDED),
    (HoldReason.TEST_PAYMENT, TEST_PAYMENT),
    (HoldReason.OTHER_SHOP, in_states(STATUSES, OTHER_SHOP)),
    (HoldReason.AMOUNT_MISMATCH, OTHER_AMOUNT | NO_MONEY),
)
def test_payment_that_does_not_add_up_is_held(case: Document, reason: HoldReason, local: LocalState) -> None:
    assert decision(case, local) == Hold(reason)


@each_with_reason(
    (HoldReason.MALFORMED, UNREADABLE_METADATA),
    (HoldReason.CURRENCY_MISMATCH, OTHER_CURRENCY),
)
def test_recorded_payment_that_does_not_add_up_is_held(case: Document, reason: HoldReason) -> None:
    assert decision(case, WITH_RECORD) == Hold(reason)


@each_with_reason(
    (HoldReason.NOT_A_TOPUP, in_states(STATUSES, OTHER_KIND)),
    (HoldReason.MALFORMED, UNREADABLE_METADATA_FIELD),
    (HoldReason.AMOUNT_MISMATCH, OTHER_METADATA_AMOUNT),
    (HoldReason.WALLET_CURRENCY, OTHER_CURRENCY),
)
def test_unrecorded_payment_that_does_not_add_up_is_held(case: Document, reason: HoldReason) -> None:
    assert decision(case, WITHOUT_RECORD) == Hold(reason)


@pytest.mark.parametrize("kopeks", [0, 1, 100, 99_999, 100_001, 10_000_000])
def test_record_of_another_amount_is_held(kopeks: int) -> None:
    assert decision({}, recorded(money=Money(kopeks, "RUB"))) == Hold(HoldReason.AMOUNT_MISMATCH)


def test_record_of_no_money_is_held() -> None:
    local = recorded(money=Money(0, "RUB"))
    assert decision({"amount": rubles("0.00")}, local) == Hold(HoldReason.AMOUNT_MISMATCH)


@pytest.mark.parametrize("kind", ["subscription", "adjustment", "", "TOPUP"])
@pytest.mark.parametrize("status", STATUSES)
def test_record_of_another_kind_is_no_topup(kind: str, status: str) -> None:
    assert decision({"status": status}, recorded(kind=kind)) == Hold(HoldReason.NOT_A_TOPUP)


# --- Not proved to be the user's -----------------------------------------------------------------


@each(in_states(STATUSES, NO_OWNER))
def test_unrecorded_payment_that_names_no_owner_is_not_owned(case: Document) -> None:
    assert decision(case, WITHOUT_RECORD) == NotOwned()


# --- Undecided, canceled -------------------------------------------------------------------------


@with_and_without_record
@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
@pytest.mark.parametrize("paid", [True, False])
def test_undecided_payment_is_still_pending(status: str, paid: bool, local: LocalState) -> None:
    assert decision({"status": status, "paid": paid}, local) == StillPending()


@with_and_without_record
def test_canceled_payment_is_a_cancellation(local: LocalState) -> None:
    assert decision({"status": "canceled", "paid": False}, local) == Cancel()


# --- Invalid responses ---------------------------------------------------------------------------


@each(NO_PAYMENT)
def test_answer_that_is_no_payment_object_is_an_invalid_response(case: object) -> None:
    with pytest.raises(InvalidProviderResponseError):
        ProviderPayment.parse(case, PAYMENT_ID)


@each(OTHER_PAYMENT)
def test_answer_that_is_not_about_the_payment_is_an_invalid_response(case: Document) -> None:
    with pytest.raises(InvalidProviderResponseError):
        ProviderPayment.parse(changed_payment(case), PAYMENT_ID)
