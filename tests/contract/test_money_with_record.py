"""Credits with a local record: the record decides amount and wallet."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document, rubles

from . import answers
from .scenarios import assert_credited_once, each, no_queries, nothing_written, paid

# --- The provider's object: one case for each reason; every shape is in tests/unit/provider_objects.py ---

HELD: dict[str, tuple[HoldReason, Document]] = {
    "malformed": (HoldReason.MALFORMED, {"amount": rubles(1000.0)}),
    "incomplete": (HoldReason.INCOMPLETE, {"remove": ["paid", "amount"]}),
    "not paid": (HoldReason.NOT_PAID, {"paid": False}),
    "refunded": (HoldReason.REFUNDED, {"refunded_amount": rubles("250.00")}),
    "other shop": (HoldReason.OTHER_SHOP, {"recipient": {"account_id": "100501"}}),
    "other amount": (HoldReason.AMOUNT_MISMATCH, {"amount": rubles("1000.01")}),
    "other currency": (HoldReason.CURRENCY_MISMATCH, {"amount": {"value": "1000.00", "currency": "USD"}}),
}
INVALID: dict[str, Document] = {
    "no object": {"body": []},
    "empty body": {"raw": ""},
    "a string": {"raw": '"succeeded"', "content_type": "application/json"},
    "an error with status 200": {"body": {"type": "error", "code": "internal_server_error"}},
}


def test_answer_without_what_may_be_absent_credits(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, remove=["test", "recipient", "refunded_amount", "metadata"])
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


@each(HELD)
def test_answer_that_does_not_add_up_is_held(
    host: Host, user: User, case: tuple[HoldReason, Document]
) -> None:
    reason, fields = case
    payment_id = paid(user)
    host.simulator.change(payment_id, **fields)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), reason)


@each({"unknown status": {"status": "refunded"}, "no status": {"remove": ["status"]}, "no id": {"id": None}})
def test_answer_without_id_or_status_is_an_invalid_response(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile(payment_id))


@each(INVALID)
def test_answer_that_is_no_payment_is_an_invalid_response(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile(payment_id))


def test_anothers_payment_in_the_answer_is_an_invalid_response(
    host: Host, user: User, stranger: User
) -> None:
    mine, theirs = user.topup(), paid(stranger)
    host.simulator.fault(payment_id=mine, body=host.simulator.payment(theirs))
    with nothing_written(user, stranger, about=mine), nothing_written(user, stranger, about=theirs):
        answers.invalid_response(user.reconcile(mine))


def test_redirect_to_another_payment_is_an_invalid_response(host: Host, user: User, stranger: User) -> None:
    mine, theirs = user.topup(), paid(stranger)
    host.simulator.fault(payment_id=mine, redirect=f"/v3/payments/{theirs}")
    with nothing_written(user, stranger, about=mine):
        answers.invalid_response(user.reconcile(mine))


def test_refunded_topup_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.refund(payment_id)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.REFUNDED)


def test_what_is_held_is_credited_once_it_adds_up(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, paid=False)
    answers.held(user.reconcile(payment_id), HoldReason.NOT_PAID)
    host.simulator.change(payment_id, paid=True)
    # An answer is remembered for a moment.
    wait_until(lambda: user.reconcile(payment_id).status_code == 200, 5, "it is still held")
    assert_credited_once(user, payment_id)


# --- Metadata has no say -------------------------------------------------------------------------


def test_metadata_has_no_say(host: Host, user: User) -> None:
    payment_id = paid(user)
    other = dict.fromkeys(("kind", "user_id", "wallet_id", "amount_kopeks", "note"), "other")
    host.simulator.change(payment_id, metadata=other)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_metadata_that_names_another_user_and_wallet_pays_them_nothing(
    host: Host, user: User, stranger: User
) -> None:
    payment_id = paid(user)
    stranger.balance()
    theirs = host.books.wallet(stranger.id)["id"]
    metadata = {"kind": "topup", "user_id": stranger.id, "wallet_id": theirs, "amount_kopeks": "99999900"}
    host.simulator.change(payment_id, metadata=metadata)
    with nothing_written(stranger, about="nothing"):
        answers.not_owned(stranger.reconcile(payment_id))
        answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_credited_automatic_topup_starts_the_hosts_count_of_failures_anew(host: Host, user: User) -> None:
    payment_id = paid(user)
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.change_wallet(wallet_id, auto_topup_fail_count=2)
    sound = host.simulator.payment(payment_id)["metadata"]
    host.simulator.change(payment_id, metadata=sound | {"auto_topup": "true"})
    host.books.change_record(payment_id, metadata_json=sound | {"auto_topup": True})
    answers.credited(user.reconcile(payment_id), payment_id)
    assert host.books.wallet(user.id)["auto_topup_fail_count"] == 0


# --- What the record says ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "canceled", "failed"])
def test_paid_record_is_credited_whatever_its_status(host: Host, user: User, status: str) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status=status)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_record_of_another_kind_is_no_topup(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, kind="subscription")
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.NOT_A_TOPUP)


def test_record_of_another_amount_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, amount_kopeks=99_999)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.AMOUNT_MISMATCH)


def test_record_in_another_currency_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, currency="USD")
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.CURRENCY_MISMATCH)


def test_kopeks_are_not_lost(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, amount_kopeks=123_456_789_01)
    host.simulator.change(payment_id, amount=rubles("123456789.01"))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, 123_456_789_01)


# --- The wallet ----------------------------------------------------------------------------------


def test_missing_wallet_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.delete_wallet(host.books.wallet(user.id)["id"])
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_MISSING)


def test_anothers_wallet_is_held(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=host.books.add_wallet(stranger.id))
    with nothing_written(user, stranger, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_FOREIGN)


def test_wallet_of_another_currency_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=host.books.add_wallet(user.id, "USD"))
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_CURRENCY)


def test_record_that_names_no_wallet_goes_to_the_owners(host: Host, user: User) -> None:
    payment_id = paid(user)
    mine = host.books.wallet(user.id)["id"]
    host.books.change_record(payment_id, wallet_id=None)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, wallet=mine)


def test_record_that_names_no_wallet_makes_one(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=None)
    host.books.delete_wallet(host.books.wallet(user.id)["id"])
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_no_wallet_is_made_in_another_currency(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=None, currency="USD")
    host.simulator.change(payment_id, amount={"value": "1000.00", "currency": "USD"})
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.WALLET_MISSING)


def test_wallet_of_another_currency_is_credited_in_that_currency(host: Host, user: User) -> None:
    payment_id = paid(user)
    dollars = host.books.add_wallet(user.id, "USD")
    host.books.change_record(payment_id, wallet_id=dollars, currency="USD")
    host.simulator.change(payment_id, amount={"value": "1000.00", "currency": "USD"})
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, wallet=dollars, currency="USD")
    assert user.balance() == 0
