"""What a release may credit: as a table, and by properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwebui_billing_reconcile.money.release import (
    RELEASABLE,
    UNCREDITED,
    NotHeld,
    ReleaseReason,
    decide_release,
)
from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Credit,
    Decision,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    decide,
    named_wallet,
)
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
PAID = ProviderPayment(
    id="x",
    status="succeeded",
    paid=True,
    amount=RUB,
    test=False,
    account_id="100500",
    refunded=None,
    captured_at=None,
    topup=TopupMetadata("topup", "me", "w1", 100_000),
    metadata={},
    malformed=frozenset(),
)
OPEN = LocalState(RECORD)
UNRECORDED = LocalState()
DONE = LocalState(replace(RECORD, status="succeeded"))
NAMES = frozenset({"metadata.amount_kopeks", "metadata.wallet_id"})

Release = Decision | NotHeld
REASONS: list[ReleaseReason] = [UNCREDITED, *HoldReason]


def paid(**changes: Any) -> ProviderPayment:
    return replace(PAID, **changes)


def release(
    reason: ReleaseReason,
    payment: ProviderPayment = PAID,
    local: LocalState = OPEN,
    wallet: Wallet | None = MINE,
    own_wallet: Wallet | None = MINE,
    user_id: str = "me",
    shop: Shop = SHOP,
) -> Release:
    return decide_release(payment, local, wallet, own_wallet, user_id, shop, reason)


BOTH = pytest.mark.parametrize("local", [OPEN, UNRECORDED], ids=["record", "no record"])


# --- What is credited ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "payment", "local", "kopeks"),
    [
        (HoldReason.AMOUNT_MISMATCH, paid(amount=Money(50_000, "RUB")), OPEN, 50_000),
        (HoldReason.AMOUNT_MISMATCH, paid(amount=Money(150_000, "RUB")), OPEN, 150_000),
        (HoldReason.AMOUNT_MISMATCH, paid(amount=Money(1, "RUB")), UNRECORDED, 1),
        (HoldReason.REFUNDED, paid(refunded=Money(1, "RUB")), OPEN, 99_999),
        (HoldReason.REFUNDED, paid(refunded=Money(99_999, "RUB")), UNRECORDED, 1),
        (HoldReason.TEST_PAYMENT, paid(test=True), OPEN, 100_000),
        (HoldReason.TEST_PAYMENT, paid(test=True), UNRECORDED, 100_000),
        (HoldReason.SUCCEEDED_WITHOUT_LEDGER, PAID, DONE, 100_000),
        (HoldReason.SUCCEEDED_WITHOUT_LEDGER, paid(refunded=Money(40_000, "RUB")), DONE, 60_000),
    ],
)
def test_what_the_provider_holds_is_credited_to_the_wallet_named(
    reason: HoldReason, payment: ProviderPayment, local: LocalState, kopeks: int
) -> None:
    assert release(reason, payment, local) == Credit(Money(kopeks, "RUB"), MINE)


@BOTH
def test_where_the_wallet_named_is_missing_the_owners_own_is_credited(local: LocalState) -> None:
    own = Wallet("w9", "me", "RUB")
    assert release(HoldReason.WALLET_MISSING, PAID, local, None, own) == Credit(RUB, own)


@BOTH
def test_one_is_created_where_there_is_none_and_only_in_the_default_currency(local: LocalState) -> None:
    assert release(HoldReason.WALLET_MISSING, PAID, local, None, None) == Credit(RUB, None)
    dollars = replace(SHOP, default_currency="USD")
    refused = release(HoldReason.WALLET_MISSING, PAID, local, None, None, shop=dollars)
    assert refused == Hold(HoldReason.WALLET_MISSING)


@BOTH
@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (Wallet("w9", "somebody", "RUB"), HoldReason.WALLET_FOREIGN),
        (Wallet("w9", "me", "USD"), HoldReason.WALLET_CURRENCY),
    ],
)
def test_no_other_wallet_is(local: LocalState, own: Wallet, reason: HoldReason) -> None:
    assert release(HoldReason.WALLET_MISSING, PAID, local, None, own) == Hold(reason)


# --- What is refused -------------------------------------------------------------------------------------


@BOTH
def test_what_nothing_holds_is_not_released(local: LocalState) -> None:
    for reason in HoldReason:
        assert release(reason, PAID, local) == NotHeld()


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture", "canceled"])
def test_what_is_not_paid_is_not_uncredited(status: str) -> None:
    assert release(UNCREDITED, paid(status=status, paid=False)) == NotHeld()


HELD: dict[HoldReason, tuple[ProviderPayment, LocalState, Wallet | None]] = {
    HoldReason.NOT_A_TOPUP: (PAID, LocalState(replace(RECORD, kind="subscription")), MINE),
    HoldReason.CREDITED_ELSEWHERE: (PAID, LocalState(RECORD, (LedgerEntry("e", "me", "w2", RUB),)), MINE),
    HoldReason.SUCCEEDED_WITHOUT_LEDGER: (PAID, DONE, MINE),
    HoldReason.SETTLED_BY_HAND: (PAID, LocalState(RECORD, other_entries=1), MINE),
    HoldReason.UNKNOWN_STATUS: (PAID, LocalState(replace(RECORD, status="disputed")), MINE),
    HoldReason.OTHER_SHOP: (paid(account_id="999"), OPEN, MINE),
    HoldReason.MALFORMED: (paid(malformed=frozenset({"test"})), OPEN, MINE),
    HoldReason.INCOMPLETE: (paid(paid=None), OPEN, MINE),
    HoldReason.NOT_PAID: (paid(paid=False), OPEN, MINE),
    HoldReason.REFUNDED: (paid(refunded=Money(1, "RUB")), OPEN, MINE),
    HoldReason.TEST_PAYMENT: (paid(test=True), OPEN, MINE),
    HoldReason.AMOUNT_MISMATCH: (paid(amount=Money(1, "RUB")), OPEN, MINE),
    HoldReason.CURRENCY_MISMATCH: (paid(amount=Money(100_000, "USD")), OPEN, MINE),
    HoldReason.WALLET_MISSING: (PAID, OPEN, None),
    HoldReason.WALLET_FOREIGN: (PAID, OPEN, replace(MINE, user_id="somebody")),
    HoldReason.WALLET_CURRENCY: (PAID, OPEN, replace(MINE, currency="USD")),
}
"""A payment that is held for each reason, and for that alone."""


def test_there_is_one_for_each_reason() -> None:
    assert HELD.keys() == set(HoldReason)
    for reason, (payment, local, wallet) in HELD.items():
        assert decide(payment, local, wallet, "me", SHOP) == Hold(reason)


@pytest.mark.parametrize("held", HoldReason)
def test_only_the_reason_it_is_held_for_releases_it_and_only_if_it_may_be(held: HoldReason) -> None:
    payment, local, wallet = HELD[held]
    for named in REASONS:
        decision = release(named, payment, local, wallet)
        if named is held and held in RELEASABLE:
            assert isinstance(decision, Credit)
        else:
            assert decision == Hold(held)


def test_what_may_be_released_is_what_was_decided() -> None:
    assert {reason.value for reason in RELEASABLE} == {
        "amount_mismatch",
        "refunded",
        "test_payment",
        "wallet_missing",
        "succeeded_without_ledger",
    }


@BOTH
@pytest.mark.parametrize(
    "refunded", [RUB, Money(100_001, "RUB"), Money(1, "USD")], ids=["all", "more", "in another currency"]
)
def test_of_what_the_provider_holds_nothing_or_an_unknown_sum_nothing_is(
    local: LocalState, refunded: Money
) -> None:
    for reason in HoldReason:
        assert release(reason, paid(refunded=refunded), local) == Hold(HoldReason.REFUNDED)


def test_nor_of_what_is_done_without_an_entry() -> None:
    for payment in (paid(refunded=RUB), paid(amount=None), paid(malformed=frozenset({"refunded_amount"}))):
        refused = release(HoldReason.SUCCEEDED_WITHOUT_LEDGER, payment, DONE)
        assert refused == Hold(HoldReason.SUCCEEDED_WITHOUT_LEDGER)


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ({"account_id": "999"}, HoldReason.OTHER_SHOP),
        ({"malformed": frozenset({"test"})}, HoldReason.MALFORMED),
        ({"paid": None}, HoldReason.INCOMPLETE),
        ({"paid": False}, HoldReason.NOT_PAID),
        ({"status": "pending"}, HoldReason.NOT_PAID),
        ({"status": "waiting_for_capture"}, HoldReason.NOT_PAID),
        ({"status": "canceled", "paid": False}, HoldReason.NOT_PAID),
        ({"test": True}, HoldReason.TEST_PAYMENT),
        ({"amount": Money(100_000, "USD")}, HoldReason.CURRENCY_MISMATCH),
    ],
)
def test_what_else_is_wrong_with_a_payment_marked_done_holds_it(
    obstacle: dict[str, Any], reason: HoldReason
) -> None:
    assert release(HoldReason.SUCCEEDED_WITHOUT_LEDGER, paid(**obstacle), DONE) == Hold(reason)


@pytest.mark.parametrize(
    ("wallet", "reason"),
    [
        (None, HoldReason.WALLET_MISSING),
        (replace(MINE, user_id="somebody"), HoldReason.WALLET_FOREIGN),
        (replace(MINE, currency="USD"), HoldReason.WALLET_CURRENCY),
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        HoldReason.AMOUNT_MISMATCH,
        HoldReason.REFUNDED,
        HoldReason.TEST_PAYMENT,
        HoldReason.SUCCEEDED_WITHOUT_LEDGER,
    ],
)
def test_a_wallet_that_does_not_fit_holds_whatever_else_is_released(
    named: HoldReason, wallet: Wallet | None, reason: HoldReason
) -> None:
    payment, local, _ = HELD[named]
    assert release(named, payment, local, wallet) == Hold(reason)


def test_what_was_settled_by_hand_stays_so_although_it_is_marked_done() -> None:
    local = replace(DONE, other_entries=1)
    assert release(HoldReason.SUCCEEDED_WITHOUT_LEDGER, PAID, local) == Hold(HoldReason.SETTLED_BY_HAND)


def test_what_is_credited_is_not_credited_again() -> None:
    entry = LedgerEntry("e1", "me", "w1", RUB, release_id="r1")
    for record in (RECORD, DONE.record, None):
        credited = LocalState(record, (entry,))
        for reason in REASONS:
            assert release(reason, local=credited) == AlreadyCredited(entry)


def test_somebody_elses_is_not_released_to_one() -> None:
    for reason, (payment, local, wallet) in HELD.items():
        assert release(reason, payment, local, wallet, user_id="somebody") == NotOwned()
    assert release(UNCREDITED, user_id="somebody") == NotOwned()


# --- Properties ------------------------------------------------------------------------------------------

USERS = st.sampled_from(["me", "somebody"])
WALLET_IDS = st.sampled_from(["w1", "w2"])
CURRENCIES = st.sampled_from(["RUB", "USD"])
MONEY = st.builds(Money, st.sampled_from([0, 1, 60_000, 100_000]), CURRENCIES)
PAYMENTS = st.builds(
    ProviderPayment,
    id=st.just("x"),
    status=st.sampled_from(["succeeded", "succeeded", "succeeded", "pending", "canceled"]),
    paid=st.sampled_from([True, True, True, False, None]),
    amount=st.none() | MONEY,
    test=st.booleans(),
    account_id=st.sampled_from([None, "100500", "100500", "999"]),
    refunded=st.none() | MONEY,
    captured_at=st.none(),
    topup=st.builds(
        TopupMetadata,
        kind=st.sampled_from(["topup", "topup", "subscription", None]),
        user_id=st.none() | USERS,
        wallet_id=st.none() | WALLET_IDS,
        amount_kopeks=st.sampled_from([None, 1, 100_000]),
    ),
    metadata=st.just({}),
    malformed=st.frozensets(st.sampled_from(["refunded_amount", "test", *NAMES]), max_size=1),
)
STATES = st.builds(
    LocalState,
    record=st.none()
    | st.builds(
        PaymentRecord,
        id=st.just("p1"),
        status=st.sampled_from(["pending", "succeeded", "failed", "canceled", "disputed"]),
        kind=st.sampled_from(["topup", "topup", "subscription"]),
        user_id=USERS,
        wallet_id=st.none() | WALLET_IDS,
        money=MONEY,
    ),
    topups=st.sampled_from([(), (), (), (LedgerEntry("e1", "me", "w1", RUB),)]),
    other_entries=st.sampled_from([0, 0, 0, 1]),
)
WALLETS = st.none() | st.builds(Wallet, WALLET_IDS, USERS, CURRENCIES)
SHOPS = st.builds(Shop, st.sampled_from([None, "100500"]), st.booleans(), CURRENCIES)


@given(PAYMENTS, STATES, WALLETS, WALLETS, SHOPS, st.sampled_from(REASONS))
def test_a_release_credits_only_what_is_held_paid_and_the_owners(
    payment: ProviderPayment,
    local: LocalState,
    wallet: Wallet | None,
    own: Wallet | None,
    shop: Shop,
    reason: ReleaseReason,
) -> None:
    current = decide(payment, local, wallet, "me", shop)
    decision = decide_release(payment, local, wallet, own, "me", shop, reason)
    if not isinstance(decision, Credit):
        return
    if reason == UNCREDITED:
        assert decision == current
        return
    assert isinstance(reason, HoldReason)
    assert current == Hold(reason)
    assert reason in RELEASABLE
    assert payment.status == "succeeded"
    assert payment.paid is True
    assert None in {payment.account_id, shop.account_id} or payment.account_id == shop.account_id
    assert not payment.malformed - (NAMES if local.record else frozenset())
    assert not payment.test or shop.accepts_test_payments or reason is HoldReason.TEST_PAYMENT
    assert payment.amount
    refunded = payment.refunded.kopeks if payment.refunded else 0
    assert 0 < decision.money.kopeks == payment.amount.kopeks - refunded
    assert payment.refunded is None or payment.refunded.currency == payment.amount.currency
    assert decision.money.currency == payment.amount.currency
    assert not local.topups
    assert not local.other_entries
    if local.record:
        assert (local.record.user_id, local.record.kind) == ("me", "topup")
        assert local.record.money.currency == decision.money.currency
        assert local.record.status != "succeeded" or reason is HoldReason.SUCCEEDED_WITHOUT_LEDGER
    else:
        assert (payment.topup.user_id, payment.topup.kind) == ("me", "topup")
    if decision.wallet:
        assert (decision.wallet.user_id, decision.wallet.currency) == ("me", decision.money.currency)
        is_named = reason is not HoldReason.WALLET_MISSING and named_wallet(payment, local)
        assert decision.wallet == (wallet if is_named else own)
    else:
        assert decision.money.currency == shop.default_currency


@given(PAYMENTS, STATES, WALLETS, WALLETS, SHOPS)
def test_at_most_one_reason_releases_a_payment(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, own: Wallet | None, shop: Shop
) -> None:
    released = [
        reason
        for reason in REASONS
        if isinstance(decide_release(payment, local, wallet, own, "me", shop, reason), Credit)
    ]
    assert len(released) <= 1
