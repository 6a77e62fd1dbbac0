"""403: one status and one wording, so that no caller learns which payments exist and whose they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.harness.host import Host, User

from . import answers
from .scenarios import assert_credited_once, no_queries, nothing_written, paid, unrecorded


def their_pending_topup(stranger: User) -> str:
    return stranger.topup()


def their_paid_topup(stranger: User) -> str:
    return paid(stranger)


def their_canceled_topup(stranger: User) -> str:
    payment_id = stranger.topup()
    stranger.host.simulator.decline(payment_id)
    return payment_id


def their_credited_topup(stranger: User) -> str:
    payment_id = paid(stranger)
    answers.credited(stranger.reconcile(payment_id), payment_id)
    return payment_id


def their_credit_without_a_record(stranger: User) -> str:
    payment_id = their_credited_topup(stranger)
    stranger.host.books.delete_record(payment_id)
    return payment_id


def their_subscription(stranger: User) -> str:
    payment_id = paid(stranger)
    stranger.host.books.change_record(payment_id, kind="subscription")
    return payment_id


def unknown_payment(_stranger: User) -> str:
    return "11111111-2222-4333-8444-555555555555"


def theirs_by_the_provider_only(stranger: User) -> str:
    return unrecorded(stranger)


def theirs_and_pending_by_the_provider_only(stranger: User) -> str:
    return unrecorded(stranger, status="pending")


def theirs_and_canceled_by_the_provider_only(stranger: User) -> str:
    return unrecorded(stranger, status="canceled")


def theirs_and_of_another_kind(stranger: User) -> str:
    return unrecorded(stranger, metadata={"kind": "subscription"})


def without_metadata(stranger: User) -> str:
    return str(stranger.host.simulator.create(remove=["metadata"])["id"])


def settled_by_hand_for_them(stranger: User) -> str:
    payment_id = unrecorded(stranger)
    stranger.balance()
    books = stranger.host.books
    wallet_id = books.wallet(stranger.id)["id"]
    books.add_entry(
        stranger.id, wallet_id, type="adjustment", reference_type="by_hand", reference_id=payment_id
    )
    return payment_id


NOT_OWNED: list[Callable[[User], str]] = [
    their_pending_topup,
    their_paid_topup,
    their_canceled_topup,
    their_credited_topup,
    their_credit_without_a_record,
    their_subscription,
    unknown_payment,
    theirs_by_the_provider_only,
    theirs_and_pending_by_the_provider_only,
    theirs_and_canceled_by_the_provider_only,
    theirs_and_of_another_kind,
    without_metadata,
    settled_by_hand_for_them,
]


@pytest.mark.parametrize("scenario", NOT_OWNED, ids=lambda scenario: scenario.__name__)
def test_what_is_not_proved_mine_is_403_in_the_same_words(
    user: User, stranger: User, scenario: Callable[[User], str]
) -> None:
    payment_id = scenario(stranger)
    with nothing_written(user, stranger, about=payment_id):
        answers.not_owned(user.reconcile(payment_id))


def test_administrators_are_no_exception(host: Host, user: User) -> None:
    payment_id = paid(user)
    with nothing_written(user, host.admin, about=payment_id):
        answers.not_owned(host.admin.reconcile(payment_id))


def test_provider_is_not_queried_about_anothers_record(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(stranger)
    with no_queries(host.simulator):
        answers.not_owned(user.reconcile(payment_id))


def test_answer_to_the_owner_is_not_shared_with_others(host: Host, user: User, stranger: User) -> None:
    payment_id = unrecorded(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    answers.not_owned(stranger.reconcile(payment_id))
    assert_credited_once(user, payment_id)
    assert host.books.wallets(stranger.id) == []


def test_answer_to_another_does_not_spoil_the_owners(user: User, stranger: User) -> None:
    payment_id = unrecorded(user)
    answers.not_owned(stranger.reconcile(payment_id))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_record_that_says_anothers_beats_metadata_that_says_mine(
    host: Host, user: User, stranger: User
) -> None:
    payment_id = paid(stranger)
    host.simulator.change(payment_id, metadata={"kind": "topup", "user_id": user.id})
    with nothing_written(user, stranger, about=payment_id):
        answers.not_owned(user.reconcile(payment_id))
    answers.credited(stranger.reconcile(payment_id), payment_id)
    assert_credited_once(stranger, payment_id)
