"""Credits without a local record: the provider's metadata must prove whose payment it is."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.yookassa.client import Document, rubles

from . import answers
from .scenarios import assert_credited_once, each, nothing_written, unrecorded

DOLLARS = {"value": "1000.00", "currency": "USD"}

# --- The provider's object: one case for each reason; every shape is in tests/unit/provider_objects.py ---

SOUND: dict[str, Document] = {
    "with all the host writes": {},
    "without what may be absent": {"remove": ["test", "recipient", "refunded_amount"]},
    "with more in the metadata": {"metadata": {"note": "x", "auto_topup": "false"}},
}
HELD: dict[str, tuple[HoldReason, Document]] = {
    "another kind": (HoldReason.NOT_A_TOPUP, {"metadata": {"kind": "subscription"}}),
    "no kind": (HoldReason.NOT_A_TOPUP, {"remove": ["metadata.kind"]}),
    "malformed": (HoldReason.MALFORMED, {"amount": rubles(1000.0)}),
    "malformed metadata": (HoldReason.MALFORMED, {"metadata": {"amount_kopeks": "1000.00"}}),
    "incomplete": (HoldReason.INCOMPLETE, {"remove": ["paid"]}),
    "not paid": (HoldReason.NOT_PAID, {"paid": False}),
    "refunded": (HoldReason.REFUNDED, {"refunded_amount": rubles("0.01")}),
    "other shop": (HoldReason.OTHER_SHOP, {"recipient": {"account_id": "100501"}}),
    "other amount": (HoldReason.AMOUNT_MISMATCH, {"metadata": {"amount_kopeks": "99999"}}),
}


def ordered(owner: User, case: Document) -> str:
    """Create a payment of 1000.00 with all the metadata that the host writes, changed so; return its id."""
    owner.balance()
    sound = {"wallet_id": owner.host.books.wallet(owner.id)["id"], "amount_kopeks": "100000"}
    return unrecorded(owner, **case | {"metadata": sound | case.get("metadata", {})})


@each(SOUND)
def test_sound_answer_credits(user: User, case: Document) -> None:
    payment_id = ordered(user, case)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


@each(HELD)
def test_answer_that_does_not_add_up_is_held(user: User, case: tuple[HoldReason, Document]) -> None:
    reason, fields = case
    payment_id = ordered(user, fields)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), reason)


@each({"unknown status": {"status": "refunded"}, "no id": {"remove": ["id"]}})
def test_answer_without_id_or_status_is_an_invalid_response(host: Host, user: User, case: Document) -> None:
    payment_id = ordered(user, {})
    host.simulator.change(payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile(payment_id))


def test_answer_that_is_no_payment_is_an_invalid_response(host: Host, user: User) -> None:
    payment_id = ordered(user, {})
    host.simulator.fault(payment_id=payment_id, body=[])
    with nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile(payment_id))


def test_mine_in_answer_to_an_unknown_id_is_an_invalid_response(host: Host, user: User) -> None:
    payment_id = ordered(user, {})
    host.simulator.fault(payment_id="made_up", times=1, body=host.simulator.payment(payment_id))
    with nothing_written(user, about="made_up"), nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile("made_up"))


# --- The amount ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kopeks"), [("0.01", 1), ("0.99", 99), ("777.07", 77_707), ("999999999999.99", 10**14 - 1)]
)
def test_amount_paid_counts_where_metadata_names_none(user: User, value: str, kopeks: int) -> None:
    payment_id = unrecorded(user, amount=rubles(value))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, kopeks)


def test_no_money_is_held(user: User) -> None:
    payment_id = unrecorded(user, amount=rubles("0.00"))
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.AMOUNT_MISMATCH)


# --- The wallet ----------------------------------------------------------------------------------


def test_wallet_is_made_where_there_is_none(host: Host, user: User) -> None:
    payment_id = unrecorded(user)
    assert host.books.wallets(user.id) == []
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)
    assert user.balance() == 100_000


def test_own_wallet_is_used_where_none_is_named(host: Host, user: User) -> None:
    user.balance()
    mine = host.books.wallet(user.id)["id"]
    payment_id = unrecorded(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, wallet=mine)


def test_missing_wallet_is_held(user: User) -> None:
    payment_id = ordered(user, {"metadata": {"wallet_id": "no_such_wallet"}})
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_MISSING)


def test_anothers_wallet_is_held(host: Host, user: User, stranger: User) -> None:
    payment_id = ordered(user, {"metadata": {"wallet_id": host.books.add_wallet(stranger.id)}})
    with nothing_written(user, stranger, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_FOREIGN)


def test_wallet_of_another_currency_is_held(user: User) -> None:
    payment_id = ordered(user, {"amount": DOLLARS})
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_CURRENCY)


def test_no_wallet_is_made_in_another_currency(user: User) -> None:
    payment_id = unrecorded(user, amount=DOLLARS)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_MISSING)


def test_own_wallet_of_another_currency_is_credited_in_that_currency(host: Host, user: User) -> None:
    payment_id = unrecorded(user, amount=DOLLARS)
    dollars = host.books.add_wallet(user.id, "USD")
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, wallet=dollars, currency="USD")
    assert user.balance() == 0


# --- Undecided, canceled -------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_undecided_payment_leaves_no_trace(user: User, status: str) -> None:
    payment_id = ordered(user, {"status": status})
    with nothing_written(user, about=payment_id):
        answers.undecided(user.reconcile(payment_id), payment_id, status, None)


def test_canceled_payment_leaves_no_trace(user: User) -> None:
    payment_id = ordered(user, {"status": "canceled"})
    with nothing_written(user, about=payment_id):
        answers.canceled(user.reconcile(payment_id), payment_id, None)
