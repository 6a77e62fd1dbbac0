"""A paid top-up is credited once, to the right user, in the right amount."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until

from . import answers
from .scenarios import assert_credited_once, concurrently, no_queries, nothing_written, paid, unrecorded


def test_paid_topup_is_credited(user: User) -> None:
    payment_id = paid(user)
    assert user.balance() == 0
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)
    assert user.balance() == 100_000


def test_the_payment_says_how_its_credit_came(host: Host, user: User) -> None:
    ours, webhooks = paid(user), paid(user)
    answers.credited(user.reconcile(ours), ours)
    assert host.webhook(webhooks) == 200
    captured_at = host.simulator.payment(ours)["captured_at"]
    assert stored_metadata(host, ours) >= {("reconciled_by", "return"), ("captured_at", captured_at)}
    assert not {"reconciled_by", "captured_at"} & {name for name, _ in stored_metadata(host, webhooks)}


def stored_metadata(host: Host, payment_id: str) -> set[tuple[str, Any]]:
    """Return the metadata that the host's crediting path stored with the payment."""
    record = host.books.record(payment_id)
    assert record is not None
    return set(record["raw_payload_json"]["metadata"].items())


@pytest.mark.parametrize("kopeks", [150_000, 500_000, 1_000_000])
def test_amount_is_the_one_ordered(user: User, kopeks: int) -> None:
    payment_id = paid(user, kopeks)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id, kopeks)


def test_second_call_credits_nothing_and_sends_no_query(host: Host, user: User) -> None:
    payment_id = paid(user)
    first = user.reconcile(payment_id)
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        second = user.reconcile(payment_id)
    assert second.json() == first.json()
    answers.credited(second, payment_id)


def test_two_topups_are_two_credits(user: User) -> None:
    for payment_id in (paid(user), paid(user)):
        answers.credited(user.reconcile(payment_id), payment_id)
    assert user.balance() == 200_000


def test_local_payment_id_is_not_the_providers(host: Host, user: User) -> None:
    payment_id = paid(user)
    record = host.books.record(payment_id)
    assert record is not None
    with nothing_written(user, about=payment_id):
        answers.not_owned(user.reconcile(record["id"]))


def test_callers_at_once_share_one_query_and_one_credit(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, delay_seconds=0.5)
    responses = concurrently([lambda: user.reconcile(payment_id)] * 12)
    for response in responses:
        answers.credited_concurrently(response, payment_id)
    assert host.simulator.questions(payment_id) <= host.workers
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_topups_at_once_are_all_credited(user: User) -> None:
    payments = [paid(user) for _ in range(6)]
    for response in concurrently([partial(user.reconcile, payment_id) for payment_id in payments]):
        assert answers.reconciled(response)["credited"] is True
    assert user.balance() == 600_000


def test_first_topups_at_once_share_one_new_wallet(host: Host, user: User) -> None:
    payments = [unrecorded(user) for _ in range(4)]
    for response in concurrently([partial(user.reconcile, payment_id) for payment_id in payments]):
        assert answers.reconciled(response)["credited"] is True
    (wallet,) = host.books.wallets(user.id)
    assert wallet["balance_topup_kopeks"] == 400_000


def test_caller_that_disconnects_is_credited_nevertheless(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, delay_seconds=1.5, times=1)
    with pytest.raises(httpx.ReadTimeout):
        user.reconcile(payment_id, timeout=0.6)
    wait_until(lambda: user.balance() == 100_000, 10, "the credit did not land")
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)
