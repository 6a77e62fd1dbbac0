"""The ledger decides first: before the query, after it, and after every remembered answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document

from . import answers
from .scenarios import (
    assert_credited_once,
    each,
    no_queries,
    nothing_written,
    paid,
    query_in_flight,
    unrecorded,
)


@pytest.fixture
def credited(user: User) -> str:
    """Return the id of a credited top-up of the user."""
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    return payment_id


# --- Proof ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "canceled", "failed"])
def test_overwritten_status_of_a_credited_payment_is_repaired(
    host: Host, user: User, credited: str, status: str
) -> None:
    host.books.change_record(credited, status=status)
    with no_queries(host.simulator):
        answers.credited(user.reconcile(credited), credited)
    assert_credited_once(user, credited)


def test_credit_is_proved_also_where_its_status_cannot_be_repaired(
    host: Host, user: User, credited: str
) -> None:
    host.books.change_record(credited, status="canceled")
    with host.books.refusing("UPDATE", host.books.payments, provider_payment_id=credited):
        answers.credited(user.reconcile(credited), credited, payment_status="canceled")
    answers.credited(user.reconcile(credited), credited)
    assert_credited_once(user, credited)


def test_credit_is_proved_without_a_record(host: Host, user: User, stranger: User, credited: str) -> None:
    host.books.delete_record(credited)
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.credited(user.reconcile(credited), credited, payment_status=None)
        answers.not_owned(stranger.reconcile(credited))


def test_record_that_names_no_wallet_is_proved_by_any_entry_of_its_owner(
    host: Host, user: User, credited: str
) -> None:
    host.books.change_record(credited, wallet_id=None, status="pending")
    answers.credited(user.reconcile(credited), credited)
    assert_credited_once(user, credited)


def test_spent_credit_is_still_a_credit(host: Host, user: User, credited: str) -> None:
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.change_wallet(wallet_id, balance_topup_kopeks=0)
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.credited(user.reconcile(credited), credited)


def test_refunded_credit_is_still_a_credit(host: Host, user: User, credited: str) -> None:
    """Refund state is as of the provider's answer; a later refund does not change the result."""
    host.simulator.refund(credited)
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.credited(user.reconcile(credited), credited)


# --- Credited, but not as expected ---------------------------------------------------------------


# One case for each column that is read; all differences are in tests/unit/test_ledger_entries.py.
@each(
    {
        "another amount": {"amount_kopeks": 99_999},
        "another currency": {"currency": "USD"},
        "another wallet": {"wallet_id": "another"},
        "another user": {"user_id": "another"},
    }
)
def test_entry_that_differs_is_held(host: Host, user: User, credited: str, case: Document) -> None:
    (entry,) = host.books.entries(credited)
    host.books.change_entry(entry["id"], **case)
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.held(user.reconcile(credited), HoldReason.CREDITED_ELSEWHERE)


def test_entry_in_anothers_wallet_is_held_for_the_owner_and_not_owned_by_the_other(
    host: Host, user: User, stranger: User, credited: str
) -> None:
    (entry,) = host.books.entries(credited)
    host.books.change_entry(entry["id"], user_id=stranger.id, wallet_id=host.books.add_wallet(stranger.id))
    with no_queries(host.simulator), nothing_written(user, stranger, about=credited):
        answers.held(user.reconcile(credited), HoldReason.CREDITED_ELSEWHERE)
        answers.not_owned(stranger.reconcile(credited))


# --- Succeeded, but not credited -----------------------------------------------------------------


def test_record_marked_succeeded_without_an_entry_is_held(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status="succeeded")
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)


def test_record_whose_entry_is_gone_is_held(host: Host, user: User, credited: str) -> None:
    (entry,) = host.books.entries(credited)
    host.books.delete_entry(entry["id"])
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.held(user.reconcile(credited), HoldReason.SUCCEEDED_WITHOUT_LEDGER)


# --- Settled by hand -----------------------------------------------------------------------------

BY_HAND: dict[str, Document] = {
    "an adjustment": {"type": "adjustment", "reference_type": "admin_wallet_adjustment"},
    "an adjustment of the payment": {"type": "adjustment", "reference_type": "payment"},
    "a refund": {"type": "refund", "reference_type": "payment"},
    "a charge": {"type": "charge", "reference_type": "chat"},
    "a hold": {"type": "hold", "reference_type": "estimate"},
    "a top-up of another kind": {"type": "topup", "reference_type": "by_hand"},
    "a top-up of no kind": {"type": "topup", "reference_type": None},
    "an adjustment of no kind": {"type": "adjustment", "reference_type": None},
    "of an empty kind": {"type": "adjustment", "reference_type": ""},
    "of the last kind in the alphabet": {"type": "adjustment", "reference_type": "яяя"},
    "of no money": {"type": "adjustment", "reference_type": "by_hand", "amount_kopeks": 0},
    "in another currency": {"type": "adjustment", "reference_type": "by_hand", "currency": "USD"},
    "for another user": {"type": "adjustment", "reference_type": "by_hand", "user_id": "another"},
    "by its idempotency key": {"type": "adjustment", "reference_type": "x", "key": True},
    "by its idempotency key, of no kind": {"type": "adjustment", "reference_type": None, "key": True},
    "a top-up by its idempotency key": {"type": "topup", "reference_type": "payment", "key": True},
}


def settle_by_hand(owner: User, payment_id: str, *, key: bool = False, **columns: Any) -> None:
    """Add an administrator's entry that names the payment as its reference or its idempotency key."""
    owner.balance()
    books = owner.host.books
    naming = {"idempotency_key": payment_id} if key else {"reference_id": payment_id}
    elsewhere = {"reference_id": f"by hand for {payment_id}"} if key else {}
    books.add_entry(
        **{"user_id": owner.id, "wallet_id": books.wallet(owner.id)["id"]} | naming | elsewhere | columns
    )


@each(BY_HAND)
def test_payment_settled_by_hand_is_held(host: Host, user: User, case: Document) -> None:
    payment_id = paid(user)
    settle_by_hand(user, payment_id, **case)
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.SETTLED_BY_HAND)


# One case for each way in which an entry may name the payment: what it says beyond that is read as above.
@each(
    {name: BY_HAND[name] for name in ("an adjustment", "an adjustment of no kind", "by its idempotency key")}
)
def test_unrecorded_payment_settled_by_hand_is_held(user: User, case: Document) -> None:
    payment_id = unrecorded(user)
    settle_by_hand(user, payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.SETTLED_BY_HAND)


def test_entry_that_carries_our_own_ids_idempotency_key_settles_it(host: Host, user: User) -> None:
    payment_id = paid(user)
    record = host.books.record(payment_id)
    assert record is not None
    settle_by_hand(user, payment_id, type="adjustment", reference_id=None, idempotency_key=record["id"])
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.SETTLED_BY_HAND)


def test_entries_of_other_payments_settle_nothing(host: Host, user: User) -> None:
    payment_id = paid(user)
    for other in (f"{payment_id}0", payment_id[:-1], payment_id.upper(), f"{payment_id} "):
        settle_by_hand(user, other, type="adjustment", reference_type="by_hand")
        settle_by_hand(user, other, type="adjustment", reference_type=None)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert len(host.books.entries(payment_id)) == 1


def test_adjustment_beside_a_credit_changes_nothing(host: Host, user: User, credited: str) -> None:
    settle_by_hand(user, credited, type="adjustment", reference_type="by_hand")
    with no_queries(host.simulator), nothing_written(user, about=credited):
        answers.credited(user.reconcile(credited), credited)


# --- While the provider is answering --------------------------------------------------------------


def test_payment_settled_by_hand_while_the_provider_answers_is_held(user: User) -> None:
    payment_id = paid(user)
    with query_in_flight(user, payment_id) as answer:
        settle_by_hand(user, payment_id, type="adjustment", reference_type="by_hand")
        with nothing_written(user, about=payment_id):
            answers.held(answer.result(), HoldReason.SETTLED_BY_HAND)


def test_record_that_turns_anothers_while_the_provider_answers_is_not_owned(
    host: Host, user: User, stranger: User
) -> None:
    payment_id = paid(user)
    with query_in_flight(user, payment_id) as answer:
        host.books.change_record(payment_id, user_id=stranger.id)
        with nothing_written(user, stranger, about=payment_id):
            answers.not_owned(answer.result())


def test_credit_that_lands_while_the_provider_answers_is_found(host: Host, user: User) -> None:
    payment_id = paid(user)
    with query_in_flight(user, payment_id) as answer:
        assert host.webhook(payment_id) == 200
        with nothing_written(user, about=payment_id):
            answers.credited(answer.result(), payment_id)
    assert_credited_once(user, payment_id)


@pytest.mark.parametrize("status", ["pending", "canceled", "waiting_for_capture"])
def test_old_answer_does_not_overwrite_a_credit(host: Host, user: User, status: str) -> None:
    """The answer describes the payment at the time of the query; it was paid after that."""
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status)
    with query_in_flight(user, payment_id) as answer:
        host.simulator.pay(payment_id)
        assert host.webhook(payment_id) == 200
        with nothing_written(user, about=payment_id):
            assert answers.reconciled(answer.result()) == {
                "payment_id": payment_id,
                "provider_status": status,
                "payment_status": "succeeded",
                "credited": True,
            }
    assert_credited_once(user, payment_id)


# --- When writing fails --------------------------------------------------------------------------


def test_credit_that_cannot_be_written_is_503_and_succeeds_later(host: Host, user: User) -> None:
    payment_id = paid(user)
    with (
        host.books.refusing("INSERT", host.books.ledger, reference_id=payment_id),
        nothing_written(user, about=payment_id),
    ):
        answers.temporarily_unavailable(user.reconcile(payment_id))
        answers.temporarily_unavailable(user.reconcile(payment_id))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_remembered_answer_is_held_against_the_ledger_again(host: Host, user: User) -> None:
    payment_id = paid(user)
    with host.books.refusing("INSERT", host.books.ledger, reference_id=payment_id, type="topup"):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    settle_by_hand(user, payment_id, type="adjustment", reference_type="by_hand")
    with nothing_written(user, about=payment_id):
        answers.held(user.reconcile(payment_id), HoldReason.SETTLED_BY_HAND)


def test_credit_whose_record_cannot_be_marked_is_a_credit(host: Host, user: User) -> None:
    payment_id = paid(user)
    with host.books.refusing("UPDATE", host.books.payments, provider_payment_id=payment_id):
        answers.credited(user.reconcile(payment_id), payment_id, payment_status="pending")
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_unrecorded_payment_that_cannot_be_recorded_is_503_and_succeeds_later(host: Host, user: User) -> None:
    payment_id = unrecorded(user)
    with host.books.refusing("INSERT", host.books.payments, provider_payment_id=payment_id):
        answers.temporarily_unavailable(user.reconcile(payment_id))
        assert host.books.entries(payment_id) == []
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_wallet_that_cannot_be_made_is_503_and_succeeds_later(host: Host, user: User) -> None:
    payment_id = unrecorded(user)
    with (
        host.books.refusing("INSERT", host.books.wallet_table, user_id=user.id),
        nothing_written(user, about=payment_id),
    ):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_database_that_cannot_be_read_is_503(host: Host, user: User) -> None:
    payment_id = paid(user)
    with host.books.missing(host.books.ledger), no_queries(host.simulator):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_held_wallets_are_503_soon_and_harm_their_owners_only(postgres_host: Host) -> None:
    """More wallets are held than the plugin has threads."""
    owners, other_user = [postgres_host.new_user() for _ in range(6)], postgres_host.new_user()
    payments, other = [paid(owner) for owner in owners], paid(other_user)
    books = postgres_host.books
    with ExitStack() as held:
        for owner in owners:
            held.enter_context(books.holding_wallet(books.wallet(owner.id)["id"]))
        started_at = time.monotonic()
        with ThreadPoolExecutor(len(owners)) as pool:
            calls = [pool.submit(u.reconcile, p) for u, p in zip(owners, payments, strict=True)]
            wait_until(lambda: postgres_host.simulator.questions(payments[-1]), 10, "no query was sent")
            answers.credited(other_user.reconcile(other), other)
            assert not any(call.done() for call in calls)
            for call in calls:
                answers.temporarily_unavailable(call.result())
        assert time.monotonic() - started_at < 10
        assert not any(books.entries(payment_id) for payment_id in payments)
    for owner, payment_id in zip(owners, payments, strict=True):
        answers.credited(owner.reconcile(payment_id), payment_id)
        assert_credited_once(owner, payment_id)


def test_wallet_that_is_held_for_a_moment_is_waited_for(postgres_host: Host) -> None:
    user = postgres_host.new_user()
    payment_id, books = paid(user), postgres_host.books
    with ThreadPoolExecutor(1) as pool:
        with books.holding_wallet(books.wallet(user.id)["id"]):
            call = pool.submit(user.reconcile, payment_id)
            wait_until(lambda: postgres_host.simulator.questions(payment_id), 10, "no query was sent")
        answers.credited(call.result(), payment_id)
    assert_credited_once(user, payment_id)


def test_status_that_somebody_gave_is_not_overwritten(host: Host, user: User, credited: str) -> None:
    host.simulator.refund(credited)
    host.books.change_record(credited, status="refunded")
    with nothing_written(user, about=credited):
        answers.credited(user.reconcile(credited), credited, payment_status="refunded")
