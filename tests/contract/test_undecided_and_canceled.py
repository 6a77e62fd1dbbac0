"""Undecided payments write nothing; a cancellation is recorded once, and only on a pending record."""

from __future__ import annotations

import time

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until

from . import answers
from .scenarios import assert_credited_once, nothing_written, paid, query_in_flight

ON_RECORD = ["pending", "canceled", "failed"]


def topup_that_is(user: User, status: str) -> str:
    """Return the id of a top-up that has this status at the provider."""
    payment_id = user.topup()
    simulator = user.host.simulator
    if status == "canceled":
        simulator.decline(payment_id)
    elif status == "waiting_for_capture":
        simulator.hold(payment_id)
    return payment_id


# --- Undecided -----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_record", ON_RECORD)
@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_undecided_payment_writes_nothing(host: Host, user: User, status: str, on_record: str) -> None:
    payment_id = topup_that_is(user, status)
    host.books.change_record(payment_id, status=on_record)
    with nothing_written(user, about=payment_id):
        answers.undecided(user.reconcile(payment_id), payment_id, status, on_record)


def test_held_money_is_not_the_shops_yet(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "waiting_for_capture")
    assert host.simulator.payment(payment_id)["paid"] is True
    with nothing_written(user, about=payment_id):
        answers.undecided(user.reconcile(payment_id), payment_id, "waiting_for_capture", "pending")


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture", "canceled"])
def test_payment_of_another_shop_is_held_in_any_state(host: Host, user: User, status: str) -> None:
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status, recipient={"account_id": "100501"})
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.OTHER_SHOP)


# --- Canceled ------------------------------------------------------------------------------------


def test_cancellation_is_recorded(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    before = host.books.record(payment_id)
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    after = host.books.record(payment_id)
    assert before is not None
    assert after is not None
    changed = {name for name in after if after[name] != before[name]}
    assert "status" in changed
    assert changed <= {"status", "updated_at", "auto_topup_claim_key"}
    assert after.get("auto_topup_claim_key") is None  # so that the wallet can be topped up again
    assert time.time() - 60 < after["updated_at"] <= time.time()
    assert host.books.entries(payment_id) == []


def test_recorded_cancellation_is_not_recorded_again(user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    with nothing_written(user, about=payment_id):
        answers.canceled(user.reconcile(payment_id), payment_id, "canceled")


@pytest.mark.parametrize("on_record", ["canceled", "failed"])
def test_cancellation_changes_only_what_was_pending(host: Host, user: User, on_record: str) -> None:
    payment_id = topup_that_is(user, "canceled")
    host.books.change_record(payment_id, status=on_record)
    with nothing_written(user, about=payment_id):
        answers.canceled(user.reconcile(payment_id), payment_id, on_record)


# --- Canceled automatic top-ups ------------------------------------------------------------------


def canceled_auto_topup(user: User, failures: int) -> str:
    """Return the id of a declined automatic top-up of a wallet that counts so many failures."""
    payment_id = topup_that_is(user, "canceled")
    books, simulator = user.host.books, user.host.simulator
    books.change_wallet(books.wallet(user.id)["id"], auto_topup_enabled=True, auto_topup_fail_count=failures)
    metadata = simulator.payment(payment_id)["metadata"] | {"auto_topup": "true"}
    simulator.change(payment_id, metadata=metadata)
    books.change_record(payment_id, metadata_json=metadata)
    return payment_id


def auto_topup(user: User) -> tuple[int, bool]:
    """Return how many failures the wallet counts, and whether it still tops itself up."""
    wallet = user.host.books.wallet(user.id)
    return wallet["auto_topup_fail_count"], bool(wallet["auto_topup_enabled"])


def test_canceled_automatic_topup_is_counted_once(host: Host, user: User) -> None:
    payment_id = canceled_auto_topup(user, failures=0)
    for _ in range(3):
        answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    assert auto_topup(user) == (1, True)


def test_automatic_topup_that_is_marked_in_the_record_alone_is_counted(host: Host, user: User) -> None:
    payment_id = canceled_auto_topup(user, failures=0)
    host.simulator.change(payment_id, metadata={})
    host.books.change_record(payment_id, metadata_json={"auto_topup": True})
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    assert auto_topup(user) == (1, True)


def test_card_that_is_declined_is_given_up_as_by_webhooks(host: Host, user: User) -> None:
    for failures in range(3):
        assert auto_topup(user) == (failures, True) if failures else True
        payment_id = canceled_auto_topup(user, failures)
        answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    assert auto_topup(user) == (3, False)


def test_cancellation_that_the_webhook_recorded_is_not_counted_again(host: Host, user: User) -> None:
    payment_id = canceled_auto_topup(user, failures=0)
    assert host.webhook(payment_id, "payment.canceled") == 200
    assert auto_topup(user) == (1, True)
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    assert auto_topup(user) == (1, True)


def test_cancellation_of_any_other_topup_counts_no_failure(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    wallet = host.books.wallet(user.id)
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    assert host.books.wallet(user.id) == wallet


# --- Canceled, and something else happened -------------------------------------------------------


def test_cancellation_too_late_for_the_record_is_still_answered(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    with query_in_flight(user, payment_id) as answer:
        host.books.change_record(payment_id, status="failed")
        with nothing_written(user, about=payment_id):
            answers.canceled(answer.result(), payment_id, "failed")


def test_cancellation_that_cannot_be_recorded_is_503(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    with (
        host.books.refusing("UPDATE", host.books.payments, provider_payment_id=payment_id),
        nothing_written(user, about=payment_id),
    ):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")


def test_canceled_topup_that_was_paid_after_all_is_credited(host: Host, user: User) -> None:
    payment_id = topup_that_is(user, "canceled")
    answers.canceled(user.reconcile(payment_id), payment_id, "canceled")
    host.simulator.pay(payment_id)
    # An answer is remembered for a moment.
    wait_until(lambda: user.reconcile(payment_id).json()["credited"], 5, "it still counts as canceled")
    assert_credited_once(user, payment_id)


def test_late_cancellation_does_not_touch_a_credit(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    host.simulator.change(payment_id, status="canceled", paid=False)
    with nothing_written(user, about=payment_id):
        answers.credited(user.reconcile(payment_id), payment_id)
