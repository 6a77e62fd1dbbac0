"""The webhook is unchanged. Whichever of webhook and reconcile comes first credits, and only that one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.harness.host import Host, User

from . import answers
from .scenarios import assert_credited_once, concurrently, no_queries, nothing_written, paid, query_in_flight


def test_webhook_after_reconcile_credits_nothing_more(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    with nothing_written(user, about=payment_id):
        assert host.webhook(payment_id) == 200
        assert host.webhook(payment_id) == 200


def test_reconcile_after_webhook_credits_nothing_more_and_sends_no_query(host: Host, user: User) -> None:
    payment_id = paid(user)
    assert host.webhook(payment_id) == 200
    assert_credited_once(user, payment_id)
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        answers.credited(user.reconcile(payment_id), payment_id)


def test_webhook_that_comes_while_the_provider_answers_is_the_one_credit(host: Host, user: User) -> None:
    payment_id = paid(user)
    with query_in_flight(user, payment_id) as answer:
        assert host.webhook(payment_id) == 200
        answers.credited(answer.result(), payment_id)
    assert_credited_once(user, payment_id)


@pytest.mark.parametrize("_round", range(3))
def test_webhooks_and_callers_at_once_are_one_credit(host: Host, user: User, _round: int) -> None:
    payment_id = paid(user)
    with ThreadPoolExecutor() as pool:
        notified = [pool.submit(host.webhook, payment_id) for _ in range(3)]
        responses = concurrently([lambda: user.reconcile(payment_id)] * 6)
    assert [webhook.result() for webhook in notified] == [200] * 3
    for response in responses:
        answers.credited_concurrently(response, payment_id)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_webhook_of_a_pending_topup_changes_nothing_about_reconcile(host: Host, user: User) -> None:
    payment_id = user.topup()
    answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")
    host.simulator.pay(payment_id)
    assert host.webhook(payment_id) == 200
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_late_waiting_for_capture_that_overwrote_a_credit_is_repaired(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    host.simulator.change(payment_id, status="waiting_for_capture")
    assert host.webhook(payment_id, "payment.waiting_for_capture") == 200
    record = host.books.record(payment_id)
    assert record is not None
    assert record["status"] == "pending", "this host no longer has the flaw that is tested for"
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_late_cancellation_that_overwrote_a_credit_is_repaired(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    host.simulator.change(payment_id, status="canceled", paid=False)
    assert host.webhook(payment_id, "payment.canceled") == 200
    record = host.books.record(payment_id)
    assert record is not None
    assert record["status"] == "canceled", "this host no longer has the flaw that is tested for"
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)
