"""The provider's rejections, errors and timeouts as statuses. None of them moves money."""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document, Simulator

from . import answers
from .scenarios import (
    StartHost,
    assert_credited_once,
    concurrently,
    each,
    nothing_written,
    paid,
    query_in_flight,
    unrecorded,
)

REJECTED = "Payment provider rejected the payment request"
CREDENTIALS = "Payment provider credentials are invalid"

UNREACHABLE: dict[str, Document] = {
    "500": {"status": 500},
    "501": {"status": 501},
    "502": {"status": 502, "raw": "<html>Bad Gateway</html>"},
    "503": {"status": 503, "raw": ""},
    "504": {"status": 504, "raw": "Gateway Timeout", "content_type": "text/plain"},
    "500 with a payment": {"status": 500, "body": {"status": "succeeded", "paid": True}},
    "reset": {"reset": True},
    "truncated to nothing": {"truncate": 0},
    "truncated": {"truncate": 100},
    "HTML": {"raw": "<html>Maintenance</html>"},
    "text": {"body": "succeeded"},
    "broken JSON": {"raw": '{"status": "succeeded"', "content_type": "application/json"},
    "bottomless JSON": {"raw": "[" * 100_000, "content_type": "application/json"},
    "redirect to a closed port": {"redirect": "http://127.0.0.1:9/"},
}


@pytest.mark.parametrize(
    ("status", "words"), [(400, REJECTED), (401, CREDENTIALS), (403, CREDENTIALS)], ids=str
)
def test_rejected_query_is_502_in_the_hosts_words(host: Host, user: User, status: int, words: str) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, status=status)
    with nothing_written(user, about=payment_id):
        assert answers.error(user.reconcile(payment_id), 502) == words
    host.simulator.clear_faults()
    answers.credited(user.reconcile(payment_id), payment_id)


def test_rejected_query_about_an_unrecorded_payment_is_502_too(host: Host, user: User) -> None:
    host.simulator.fault(payment_id="rejected", status=401)
    assert answers.error(user.reconcile("rejected"), 502) == CREDENTIALS


def test_own_payment_that_the_provider_does_not_know_is_502(host: Host, user: User) -> None:
    host.books.add_record(user.id, payment_id := f"lost-{user.id}")
    with nothing_written(user, about=payment_id):
        answers.invalid_response(user.reconcile(payment_id))


def test_own_credit_that_lands_while_the_provider_denies_the_payment_is_found(host: Host, user: User) -> None:
    payment_id = paid(user)
    with query_in_flight(user, payment_id, status=404) as answer:
        assert host.webhook(payment_id) == 200
        answers.credited(answer.result(), payment_id)
    assert_credited_once(user, payment_id)


@each(UNREACHABLE)
def test_unreachable_provider_is_503_and_a_later_call_succeeds(
    host: Host, user: User, case: Document
) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    host.simulator.clear_faults()
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


@each({"500": {"status": 500}, "reset": {"reset": True}, "HTML": {"raw": "<html></html>"}})
def test_unreachable_provider_is_503_for_an_unrecorded_payment_too(
    host: Host, user: User, case: Document
) -> None:
    payment_id = unrecorded(user)
    host.simulator.fault(payment_id=payment_id, **case)
    with nothing_written(user, about=payment_id):
        answers.temporarily_unavailable(user.reconcile(payment_id))
    host.simulator.clear_faults()
    answers.credited(user.reconcile(payment_id), payment_id)


def test_failed_query_is_shared_but_not_remembered(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, status=500, times=host.attempts)
    answers.temporarily_unavailable(user.reconcile(payment_id))
    answers.credited(user.reconcile(payment_id), payment_id)
    assert host.simulator.questions(payment_id) == host.attempts + 1


def test_slow_answer_is_waited_for(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.fault(payment_id=payment_id, delay_seconds=1.5)
    answers.credited(user.reconcile(payment_id), payment_id)


def test_queries_in_flight_at_a_worker_are_ten_at_most(sqlite_host: Host) -> None:
    users = [sqlite_host.new_user() for _ in range(3)]
    payments = [(user, paid(user)) for user in users for _ in range(5)]
    for _, payment_id in payments:
        sqlite_host.simulator.fault(payment_id=payment_id, delay_seconds=0.5)
    sqlite_host.simulator.forget_requests()
    responses = concurrently([partial(user.reconcile, payment_id) for user, payment_id in payments])
    assert sqlite_host.simulator.in_flight().peak <= 10
    for response in responses:
        assert answers.reconciled(response)["credited"] is True


class TestDeadline:
    """A provider query may take one second on this host."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, simulator: Simulator) -> Host:
        """Return a host that waits a second for its provider."""
        return start_host(simulator, BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS="1")

    @pytest.fixture(autouse=True)
    @staticmethod
    def no_cooldown(host: Host) -> None:
        """Wait until the cooldown of an earlier test is over."""
        host.simulator.clear_faults()
        other = host.new_user()
        payment_id = other.topup()
        wait_until(lambda: other.reconcile(payment_id).status_code == 200, 10, "the cooldown does not end")

    @each(
        {
            "hang": {"hang": True},
            "slow": {"delay_seconds": 3},
            "drip": {"drip_seconds_per_byte": 0.05},
        }
    )
    def test_timeout_is_503_in_time_and_a_later_call_succeeds(
        self, host: Host, user: User, case: Document
    ) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, **case)
        started_at = time.monotonic()
        with nothing_written(user, about=payment_id):
            answers.temporarily_unavailable(user.reconcile(payment_id))
        assert 0.9 < time.monotonic() - started_at < 5
        host.simulator.clear_faults()
        answers.credited(user.reconcile(payment_id), payment_id)

    def test_throttling_starts_a_cooldown_for_all_payments(self, host: Host, user: User) -> None:
        first, second = paid(user), paid(user)
        busy = {"type": "error", "code": "too_many_requests", "retry_after": 2500}
        host.simulator.fault(payment_id=first, status=429, body=busy)
        with nothing_written(user, about=first):
            assert answers.temporarily_unavailable(user.reconcile(first)) == 3
        started_at = time.monotonic()
        host.simulator.clear_faults()
        # No query is sent meanwhile, not even about another payment.
        for payment_id in (first, second):
            assert answers.temporarily_unavailable(user.reconcile(payment_id)) in {1, 2, 3}
        assert host.simulator.questions(first) == host.attempts
        assert host.simulator.questions(second) == 0
        wait_until(lambda: user.reconcile(second).status_code == 200, 10, "the cooldown does not end")
        assert time.monotonic() - started_at > 2
        assert host.simulator.questions(second) == 1
        assert_credited_once(user, second)

    def test_proved_credit_needs_no_query_and_ignores_the_cooldown(self, host: Host, user: User) -> None:
        credited, other = paid(user), paid(user)
        answers.credited(user.reconcile(credited), credited)
        busy = {"type": "error", "code": "too_many_requests", "retry_after": 1000}
        host.simulator.fault(payment_id=other, status=429, body=busy)
        answers.temporarily_unavailable(user.reconcile(other))
        answers.credited(user.reconcile(credited), credited)

    @each({"absent": {"status": 429}, "none": {"status": 429, "body": {"retry_after": 0}}})
    def test_cooldown_without_a_length_is_short(self, host: Host, user: User, case: Document) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, **case)
        assert 1 <= answers.temporarily_unavailable(user.reconcile(payment_id)) <= 5
