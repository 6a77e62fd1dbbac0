"""When money moves: the rule as a table, and by properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Cancel,
    Credit,
    Decision,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    StillPending,
    decide,
    decide_locally,
    owner_of,
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

RUB = Money(100000, "RUB")
SHOP = Shop(account_id="100500", accepts_test_payments=False, default_currency="RUB")
MINE = Wallet("w1", "me", "RUB")
RECORD = PaymentRecord("p1", "pending", "topup", "me", "w1", RUB)
ENTRY = LedgerEntry("e1", "me", "w1", RUB)
PAID = ProviderPayment(
    id="x",
    status="succeeded",
    paid=True,
    amount=RUB,
    test=False,
    account_id="100500",
    refunded=None,
    captured_at=None,
    topup=TopupMetadata("topup", "me", "w1", 100000),
    metadata={},
    malformed=frozenset(),
)
WITH_RECORD = LocalState(record=RECORD)
WITHOUT_RECORD = LocalState()


def decision(
    payment: ProviderPayment = PAID,
    local: LocalState = WITH_RECORD,
    wallet: Wallet | None = MINE,
    user_id: str = "me",
    shop: Shop = SHOP,
) -> Decision:
    return decide(payment, local, wallet, user_id, shop)


def paid(**changes: Any) -> ProviderPayment:
    return replace(PAID, **changes)


def record(**changes: Any) -> LocalState:
    return LocalState(record=replace(RECORD, **changes))


def topup(**changes: Any) -> ProviderPayment:
    return paid(topup=replace(PAID.topup, **changes))


BOTH = pytest.mark.parametrize("local", [WITH_RECORD, WITHOUT_RECORD], ids=["record", "no record"])


@BOTH
def test_a_paid_top_up_is_credited(local: LocalState) -> None:
    assert decision(local=local) == Credit(RUB, MINE)


@BOTH
@pytest.mark.parametrize(
    ("payment", "reason"),
    [
        (paid(account_id="999"), HoldReason.OTHER_SHOP),
        (paid(paid=False), HoldReason.NOT_PAID),
        (paid(paid=None), HoldReason.INCOMPLETE),
        (paid(amount=None), HoldReason.INCOMPLETE),
        (paid(refunded=RUB), HoldReason.REFUNDED),
        (paid(refunded=Money(1, "RUB")), HoldReason.REFUNDED),
        (paid(refunded=Money(1, "USD")), HoldReason.REFUNDED),
        (paid(test=True), HoldReason.TEST_PAYMENT),
        (paid(amount=Money(100, "RUB")), HoldReason.AMOUNT_MISMATCH),
        (paid(amount=Money(100001, "RUB")), HoldReason.AMOUNT_MISMATCH),
        *[
            (paid(malformed=frozenset({field})), HoldReason.MALFORMED)
            for field in ("paid", "amount", "test", "recipient", "refunded_amount", "metadata")
        ],
    ],
)
def test_what_does_not_add_up_is_held(
    local: LocalState, payment: ProviderPayment, reason: HoldReason
) -> None:
    assert decision(payment, local) == Hold(reason)


@pytest.mark.parametrize(
    ("payment", "reason"),
    [
        (topup(kind="subscription"), HoldReason.NOT_A_TOPUP),
        (topup(kind=None), HoldReason.NOT_A_TOPUP),
        (topup(amount_kopeks=99), HoldReason.AMOUNT_MISMATCH),
        (paid(amount=Money(0, "RUB"), topup=TopupMetadata("topup", "me")), HoldReason.AMOUNT_MISMATCH),
        (paid(malformed=frozenset({"metadata.amount_kopeks"})), HoldReason.MALFORMED),
        (paid(malformed=frozenset({"metadata.wallet_id"})), HoldReason.MALFORMED),
    ],
)
def test_without_a_record_the_metadata_must_prove_a_top_up(
    payment: ProviderPayment, reason: HoldReason
) -> None:
    assert decision(payment, WITHOUT_RECORD) == Hold(reason)


def test_without_a_record_metadata_need_not_repeat_the_amount() -> None:
    assert decision(topup(amount_kopeks=None), WITHOUT_RECORD) == Credit(RUB, MINE)


@pytest.mark.parametrize("status", ["succeeded", "pending", "waiting_for_capture", "canceled"])
@pytest.mark.parametrize("named", [None, "somebody"])
def test_without_a_record_only_the_named_owner_learns_anything(status: str, named: str | None) -> None:
    payment = replace(topup(user_id=named), status=status)
    assert decision(payment, WITHOUT_RECORD) == NotOwned()


@pytest.mark.parametrize(
    "metadata",
    [
        TopupMetadata(),
        TopupMetadata("subscription", "somebody", "w9", 1),
    ],
)
def test_with_a_record_the_metadata_has_no_say(metadata: TopupMetadata) -> None:
    payment = paid(topup=metadata, malformed=frozenset({"metadata.amount_kopeks"}))
    assert decision(payment) == Credit(RUB, MINE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "subscription"}, HoldReason.NOT_A_TOPUP),
        ({"kind": "adjustment"}, HoldReason.NOT_A_TOPUP),
        ({"status": "succeeded"}, HoldReason.SUCCEEDED_WITHOUT_LEDGER),
        ({"money": Money(100000, "USD")}, HoldReason.CURRENCY_MISMATCH),
        ({"money": Money(99999, "RUB")}, HoldReason.AMOUNT_MISMATCH),
    ],
)
def test_the_record_must_agree(changes: dict[str, Any], reason: HoldReason) -> None:
    assert decision(local=record(**changes)) == Hold(reason)


@pytest.mark.parametrize("status", ["canceled", "failed", "pending"])
def test_a_record_wrongly_given_up_is_credited_all_the_same(status: str) -> None:
    assert decision(local=record(status=status)) == Credit(RUB, MINE)


@BOTH
@pytest.mark.parametrize(
    ("wallet", "reason"),
    [
        (None, HoldReason.WALLET_MISSING),
        (Wallet("w1", "somebody", "RUB"), HoldReason.WALLET_FOREIGN),
        (Wallet("w1", "me", "USD"), HoldReason.WALLET_CURRENCY),
    ],
)
def test_the_wallet_named_must_be_the_users(
    local: LocalState, wallet: Wallet | None, reason: HoldReason
) -> None:
    assert decision(local=local, wallet=wallet) == Hold(reason)


@pytest.mark.parametrize(
    ("payment", "local"),
    [(PAID, record(wallet_id=None)), (topup(wallet_id=None), WITHOUT_RECORD)],
    ids=["record", "no record"],
)
def test_without_a_named_wallet_one_is_created_only_in_the_default_currency(
    payment: ProviderPayment, local: LocalState
) -> None:
    assert decision(payment, local, wallet=MINE) == Credit(RUB, MINE)
    assert decision(payment, local, wallet=None) == Credit(RUB, None)
    dollars = replace(SHOP, default_currency="USD")
    assert decision(payment, local, wallet=None, shop=dollars) == Hold(HoldReason.WALLET_MISSING)


def test_a_shop_that_takes_test_payments_credits_them() -> None:
    assert decision(paid(test=True), shop=replace(SHOP, accepts_test_payments=True)) == Credit(RUB, MINE)


@pytest.mark.parametrize(("ours", "theirs"), [(None, "100500"), ("100500", None), (None, None)])
def test_shops_are_compared_only_where_both_are_known(ours: str | None, theirs: str | None) -> None:
    assert decision(paid(account_id=theirs), shop=replace(SHOP, account_id=ours)) == Credit(RUB, MINE)


def test_a_refund_of_nothing_is_no_refund() -> None:
    assert decision(paid(refunded=Money(0, "RUB"))) == Credit(RUB, MINE)


@BOTH
@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_an_undecided_payment_waits(local: LocalState, status: str) -> None:
    assert decision(paid(status=status, paid=None, amount=None), local) == StillPending()


@BOTH
def test_a_canceled_payment_is_canceled(local: LocalState) -> None:
    assert decision(paid(status="canceled", paid=False), local) == Cancel()


@BOTH
@pytest.mark.parametrize("status", ["canceled", "pending"])
def test_nothing_is_believed_of_another_shops_payment(local: LocalState, status: str) -> None:
    assert decision(paid(status=status, account_id="999"), local) == Hold(HoldReason.OTHER_SHOP)


@pytest.mark.parametrize("others", [1, 2])
def test_a_payment_settled_by_hand_is_not_credited_again(others: int) -> None:
    for local in (LocalState(RECORD, other_entries=others), LocalState(other_entries=others)):
        assert decision(local=local) == Hold(HoldReason.SETTLED_BY_HAND)


@pytest.mark.parametrize("status", ["pending", "canceled", "failed", "succeeded"])
def test_the_ledger_entry_is_the_proof_whatever_the_status_says(status: str) -> None:
    local = LocalState(replace(RECORD, status=status), (ENTRY,))
    assert decide_locally(local, "me") == AlreadyCredited(ENTRY)
    assert decision(paid(status="canceled"), local) == AlreadyCredited(ENTRY)


def test_without_a_record_the_entry_says_whose_payment_it_is() -> None:
    assert decide_locally(LocalState(topups=(ENTRY,)), "me") == AlreadyCredited(ENTRY)
    assert decide_locally(LocalState(topups=(ENTRY,)), "somebody") == NotOwned()


def test_a_record_without_a_wallet_is_proved_by_an_entry_in_any_of_the_owners() -> None:
    assert decide_locally(LocalState(replace(RECORD, wallet_id=None), (ENTRY,)), "me") == AlreadyCredited(
        ENTRY
    )


@pytest.mark.parametrize(
    "line",
    [
        LedgerEntry("e1", "somebody", "w1", RUB),
        LedgerEntry("e1", "me", "w2", RUB),
        LedgerEntry("e1", "me", "w1", Money(99999, "RUB")),
        LedgerEntry("e1", "me", "w1", Money(100000, "USD")),
    ],
)
def test_an_entry_that_differs_from_the_record_is_held(line: LedgerEntry) -> None:
    assert decide_locally(LocalState(RECORD, (line,)), "me") == Hold(HoldReason.CREDITED_ELSEWHERE)
    assert decide_locally(LocalState(RECORD, (ENTRY, line)), "me") == Hold(HoldReason.CREDITED_ELSEWHERE)


def test_an_entry_of_nothing_proves_nothing() -> None:
    line = LedgerEntry("e1", "me", "w1", Money(0, "RUB"))
    assert decide_locally(LocalState(topups=(line,)), "me") == Hold(HoldReason.CREDITED_ELSEWHERE)


def test_every_reason_has_words_of_its_own() -> None:
    assert len({reason.message for reason in HoldReason}) == len(HoldReason)


USERS = st.sampled_from(["me", "somebody"])
WALLET_IDS = st.sampled_from(["w1", "w2"])
MONEY = st.builds(Money, st.sampled_from([0, 1, 100000]), st.sampled_from(["RUB", "USD"]))
PAYMENTS = st.builds(
    ProviderPayment,
    id=st.just("x"),
    status=st.sampled_from(["pending", "waiting_for_capture", "succeeded", "canceled"]),
    paid=st.sampled_from([True, False, None]),
    amount=st.none() | MONEY,
    test=st.booleans(),
    account_id=st.sampled_from([None, "100500", "999"]),
    refunded=st.none() | MONEY,
    topup=st.builds(
        TopupMetadata,
        kind=st.sampled_from([None, "topup", "subscription"]),
        user_id=st.none() | USERS,
        wallet_id=st.none() | WALLET_IDS,
        amount_kopeks=st.sampled_from([None, 1, 100000]),
    ),
    metadata=st.just({}),
    malformed=st.frozensets(st.sampled_from(["paid", "amount", "metadata", "metadata.kind"]), max_size=1),
)
RECORDS = st.builds(
    PaymentRecord,
    id=st.just("p1"),
    status=st.sampled_from(["pending", "succeeded", "failed", "canceled"]),
    kind=st.sampled_from(["topup", "subscription"]),
    user_id=USERS,
    wallet_id=st.none() | WALLET_IDS,
    money=MONEY,
)
ENTRIES = st.builds(LedgerEntry, st.just("e1"), USERS, WALLET_IDS, MONEY)
STATES = st.builds(
    LocalState,
    record=st.none() | RECORDS,
    topups=st.lists(ENTRIES, max_size=1).map(tuple),
    other_entries=st.integers(0, 1),
)
WALLETS = st.none() | st.builds(Wallet, WALLET_IDS, USERS, st.sampled_from(["RUB", "USD"]))
SHOPS = st.builds(
    Shop, st.sampled_from([None, "100500"]), st.booleans(), default_currency=st.sampled_from(["RUB", "USD"])
)


@given(PAYMENTS, STATES, WALLETS, SHOPS)
def test_whatever_is_credited_is_paid_unrefunded_and_the_users(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, shop: Shop
) -> None:
    result = decide(payment, local, wallet, "me", shop)
    if not isinstance(result, Credit):
        return
    assert payment.status == "succeeded"
    assert payment.paid is True
    assert payment.amount == result.money
    assert result.money.kopeks > 0
    assert not (payment.refunded and payment.refunded.kopeks)
    assert not local.topups
    assert not local.other_entries
    if local.record:
        assert (local.record.user_id, local.record.money) == ("me", result.money)
        assert local.record.kind == "topup"
    else:
        assert (payment.topup.user_id, payment.topup.kind) == ("me", "topup")
    if result.wallet:
        assert (result.wallet.user_id, result.wallet.currency) == ("me", result.money.currency)
    else:
        assert result.money.currency == shop.default_currency


@given(PAYMENTS, STATES, WALLETS, SHOPS)
def test_who_is_not_the_owner_learns_nothing_but_that(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, shop: Shop
) -> None:
    owner = local.record.user_id if local.record else None
    if owner is None and local.topups:
        owner = local.topups[0].user_id
    assume((owner or payment.topup.user_id) != "me")
    assert decide(payment, local, wallet, "me", shop) == NotOwned()


@given(PAYMENTS, STATES, WALLETS, SHOPS)
def test_credited_is_said_only_of_an_entry_of_the_users(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, shop: Shop
) -> None:
    result = decide(payment, local, wallet, "me", shop)
    if isinstance(result, AlreadyCredited):
        assert result.entry in local.topups
        assert result.entry.user_id == "me"
        assert local.record is None or local.record.money == result.entry.money


@pytest.mark.parametrize("status", ["refunded", "disputed", ""])
def test_a_record_of_a_status_that_we_do_not_know_is_held(status: str) -> None:
    local = LocalState(replace(RECORD, status=status))
    assert decide(PAID, local, MINE, "me", SHOP) == Hold(HoldReason.UNKNOWN_STATUS)


@pytest.mark.parametrize("contradiction", [{"paid": True}, {"malformed": frozenset({"recipient"})}])
def test_a_cancellation_that_contradicts_itself_is_held(contradiction: dict[str, Any]) -> None:
    canceled = replace(PAID, status="canceled", paid=False)
    assert decide(canceled, LocalState(RECORD), MINE, "me", SHOP) == Cancel()
    odd = replace(canceled, **contradiction)
    assert decide(odd, LocalState(RECORD), MINE, "me", SHOP) == Hold(HoldReason.MALFORMED)


# --- Whose top-up a listed payment is ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["topup", "subscription"])
def test_a_record_says_whose_topup_it_is_whatever_the_metadata_says(kind: str) -> None:
    local = LocalState(replace(RECORD, user_id="recorded", kind=kind), (ENTRY,))
    assert owner_of(PAID, local, MINE) == ("recorded" if kind == "topup" else None)


def test_an_entry_says_whose_topup_it_is_where_there_is_no_record() -> None:
    entered = LocalState(topups=(replace(ENTRY, user_id="entered"),))
    assert owner_of(PAID, entered, MINE) == "entered"


def test_a_wallet_of_the_named_user_proves_that_a_payment_was_made_here() -> None:
    assert owner_of(PAID, LocalState(), MINE) == "me"


@pytest.mark.parametrize(
    ("topup", "wallet"),
    [
        (PAID.topup, None),
        (PAID.topup, replace(MINE, user_id="somebody")),
        (replace(PAID.topup, user_id=None), MINE),
        (replace(PAID.topup, kind="subscription"), MINE),
        (replace(PAID.topup, kind=None), MINE),
        (replace(PAID.topup, kind="subscription"), None),
    ],
)
def test_without_that_proof_it_is_nobodys_here(topup: TopupMetadata, wallet: Wallet | None) -> None:
    assert owner_of(replace(PAID, topup=topup), LocalState(), wallet) is None
