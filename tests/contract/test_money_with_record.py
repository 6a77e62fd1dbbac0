"""When money moves, where the host has a record of its own: the record decides amount and wallet."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document, rubles
from tests.unit.provider_objects import (
    INCOMPLETE,
    NO_ANSWERS,
    NO_MONEY_TO_READ,
    NO_PAYMENTS,
    NOT_PAID,
    OTHER_AMOUNT,
    OTHER_CURRENCY,
    OTHER_SHOP,
    REFUNDED,
    SOUND,
    UNREADABLE,
    instead_of,
    judged_table,
    table,
)

from . import answers
from .scenarios import assert_credited_once, nobody_asked, nothing_written, paid

# --- What the provider says ----------------------------------------------------------------------


@table(SOUND)
def test_sound_answer_credits(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, **case)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


@judged_table(
    (HoldReason.MALFORMED, NO_MONEY_TO_READ | UNREADABLE),
    (HoldReason.INCOMPLETE, INCOMPLETE),
    (HoldReason.NOT_PAID, NOT_PAID),
    (HoldReason.REFUNDED, REFUNDED),
    (HoldReason.OTHER_SHOP, OTHER_SHOP),
    (HoldReason.AMOUNT_MISMATCH, OTHER_AMOUNT),
    (HoldReason.CURRENCY_MISMATCH, OTHER_CURRENCY),
)
def test_answer_that_does_not_add_up_is_held(
    host: Host, user: User, case: Document, reason: HoldReason
) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), reason)


@table(NO_PAYMENTS)
def test_answer_that_cannot_be_about_the_payment_is_nonsense(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.nonsense(user.reconcile(payment_id))


@table(NO_ANSWERS)
def test_answer_that_is_no_payment_is_nonsense(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.nonsense(user.reconcile(payment_id))


def test_anothers_paid_payment_in_answer_to_mine_is_nonsense(host: Host, user: User, stranger: User) -> None:
    mine, theirs = user.topup(), paid(stranger)
    host.simulator.fault(payment_id=mine, body=host.simulator.payment(theirs))
    with nothing_written(user, stranger, about=mine), nothing_written(user, stranger, about=theirs):
        answers.nonsense(user.reconcile(mine))


def test_redirect_to_another_payment_is_nonsense(host: Host, user: User, stranger: User) -> None:
    mine, theirs = user.topup(), paid(stranger)
    host.simulator.fault(payment_id=mine, redirect=f"/v3/payments/{theirs}")
    with nothing_written(user, stranger, about=mine):
        answers.nonsense(user.reconcile(mine))


@pytest.mark.parametrize("amount", ["250.00", None], ids=["in part", "whole"])
def test_refunded_topup_is_held(host: Host, user: User, amount: str | None) -> None:
    payment_id = paid(user)
    host.simulator.refund(payment_id, amount)
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


@table(
    instead_of("metadata.kind", "subscription", "TOPUP", "", None, 1)
    | instead_of("metadata.user_id", "somebody", "", None, 1, [])
    | instead_of("metadata.wallet_id", "no such wallet", "", None, 1, {})
    | instead_of("metadata.amount_kopeks", "1", 1, "99999900", -1, "", None, 1e9, "1e9", True)
    | {"all of it": {f"metadata.{name}": "other" for name in ("kind", "user_id", "wallet_id", "note")}}
)
def test_metadata_has_no_say(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    sound = host.simulator.payment(payment_id)["metadata"]
    changed = {name.removeprefix("metadata."): value for name, value in case.items()}
    host.simulator.change(payment_id, metadata=sound | changed)
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
        answers.foreign(stranger.reconcile(payment_id))
        answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_credited_automatic_topup_starts_the_hosts_count_of_failures_anew(host: Host, user: User) -> None:
    payment_id = paid(user)
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.change_wallet(wallet_id, auto_topup_fail_count=2)
    sound = host.simulator.payment(payment_id)["metadata"]
    host.simulator.change(payment_id, metadata=sound | {"auto_topup": "true"})
    answers.credited(user.reconcile(payment_id), payment_id)
    assert host.books.wallet(user.id)["auto_topup_fail_count"] == 0


# --- What the record says ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "canceled", "failed"])
def test_paid_record_is_credited_whatever_its_status(host: Host, user: User, status: str) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status=status)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


@pytest.mark.parametrize("kind", ["subscription", "adjustment"])
def test_record_of_another_kind_is_no_topup(host: Host, user: User, kind: str) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, kind=kind)
    with nobody_asked(host.simulator), nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.NOT_A_TOPUP)


@pytest.mark.parametrize("kopeks", [99_999, 100_001, 1, 100, 10_000_000])
def test_record_of_another_amount_is_held(host: Host, user: User, kopeks: int) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, amount_kopeks=kopeks)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.AMOUNT_MISMATCH)


def test_record_of_no_money_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, amount_kopeks=0)
    host.simulator.change(payment_id, amount=rubles("0.00"))
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
