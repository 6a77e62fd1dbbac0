"""How often the provider is queried, for whom, and when the client should poll again."""

from __future__ import annotations

import time
from functools import partial

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator

from . import answers
from .scenarios import (
    StartHost,
    assert_credited_once,
    concurrently,
    no_queries,
    nothing_written,
    paid,
    query_in_flight,
    unrecorded,
)

# --- One query -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_undecided_answer_is_remembered_for_a_second(host: Host, user: User, status: str) -> None:
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status)
    started_at = time.monotonic()
    for _ in range(5):
        answers.undecided(user.reconcile(payment_id), payment_id, status, "pending")
    assert host.simulator.questions(payment_id) <= host.workers * (1 + int(time.monotonic() - started_at))


def test_after_that_second_the_provider_is_queried_again(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = user.topup()
    answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")
    sqlite_host.simulator.pay(payment_id)
    (first,) = [seen.monotonic for seen in sqlite_host.simulator.requests(payment_id)]
    deadline = time.monotonic() + 5
    while not user.reconcile(payment_id).json()["credited"]:
        assert time.monotonic() < deadline
    (_, second) = [seen.monotonic for seen in sqlite_host.simulator.requests(payment_id)]
    assert second - first >= 1


def test_callers_at_once_share_a_query_but_not_the_decision(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(user)
    host.books.delete_record(payment_id)
    host.simulator.fault(payment_id=payment_id, delay_seconds=0.5)
    callers = [user, stranger] * 4
    responses = concurrently([partial(caller.reconcile, payment_id) for caller in callers])
    assert host.simulator.questions(payment_id) <= host.workers
    for caller, response in zip(callers, responses, strict=True):
        if caller is stranger:
            answers.not_owned(response)
        elif response.status_code == 503:
            # The host cannot record one payment in two workers at once; the loser is sent round again.
            assert host.workers > 1
            answers.temporarily_unavailable(response)
        else:
            answers.credited_concurrently(response, payment_id)
    wait_until(lambda: user.reconcile(payment_id).status_code == 200, 5, "it is not credited")
    assert_credited_once(user, payment_id)


def test_caller_who_comes_later_joins_the_query(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = paid(user)
    with query_in_flight(user, payment_id) as answer:
        answers.credited(user.reconcile(payment_id), payment_id)
        answers.credited(answer.result(), payment_id)
    assert sqlite_host.simulator.questions(payment_id) == 1


# --- The poll schedule ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_first_poll_is_due_in_three_seconds(host: Host, user: User, status: str) -> None:
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status)
    assert answers.retry_after(user.reconcile(payment_id)) == 3


def test_client_that_polls_when_due_is_given_a_longer_interval(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = user.topup()
    assert answers.retry_after(user.reconcile(payment_id)) == 3
    answered_at = time.monotonic()
    time.sleep(1)  # the time that passes is what the schedule counts
    assert answers.retry_after(user.reconcile(payment_id)) in {1, 2}
    # From the answer on, as a client counts: the schedule has begun a little earlier.
    time.sleep(max(0.0, answered_at + 3 - time.monotonic()))
    assert answers.retry_after(user.reconcile(payment_id)) in {4, 5}


def test_each_payment_has_a_schedule_of_its_own(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    first, second = user.topup(), user.topup()
    assert answers.retry_after(user.reconcile(first)) == 3
    time.sleep(1)
    assert answers.retry_after(user.reconcile(first)) in {1, 2}
    assert answers.retry_after(user.reconcile(second)) == 3


# --- The rate limit ------------------------------------------------------------------------------


class TestRateLimit:
    """Three queries a minute on this host."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, simulator: Simulator) -> Host:
        """Return a host with a low rate limit."""
        return start_host(simulator, BILLING_TOPUP_RECONCILE_RATE_LIMIT="3/minute")

    def hit_limit(self, user: User, queries: int = 3) -> None:
        """Cause as many queries as the limit allows, or fewer."""
        for payment_id in [user.topup() for _ in range(queries)]:
            answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")

    def assert_limited(self, user: User, payment_id: str) -> None:
        """Assert 429 with the time when the next query is allowed."""
        response = user.reconcile(payment_id)
        answers.error(response, 429, retryable=True)
        assert 1 <= answers.retry_after(response) <= 60

    def test_more_queries_than_the_limit_are_429(self, host: Host, user: User) -> None:
        self.hit_limit(user)
        payment_id = paid(user)
        with no_queries(host.simulator), nothing_written(user, about=payment_id):
            self.assert_limited(user, payment_id)

    def test_limit_is_each_users_own(self, user: User, stranger: User) -> None:
        self.hit_limit(user)
        self.assert_limited(user, user.topup())
        payment_id = paid(stranger)
        answers.credited(stranger.reconcile(payment_id), payment_id)

    def test_unknown_id_costs_one(self, host: Host, user: User) -> None:
        for payment_id in ("unknown_1", "unknown_2", "unknown_3"):
            answers.not_owned(user.reconcile(payment_id))
        with no_queries(host.simulator):
            self.assert_limited(user, "unknown_4")

    def test_unknown_id_costs_one_each_time_queried_or_remembered(self, host: Host, user: User) -> None:
        for _ in range(3):
            answers.not_owned(user.reconcile("unknown"))
        assert host.simulator.questions("unknown") == 1
        self.assert_limited(user, "unknown")

    @pytest.mark.parametrize("recorded", [True, False])
    def test_anothers_payment_costs_one(self, user: User, stranger: User, recorded: bool) -> None:
        payment_id = paid(stranger) if recorded else unrecorded(stranger)
        for _ in range(3):
            answers.not_owned(user.reconcile(payment_id))
        self.assert_limited(user, payment_id)

    def test_anothers_payment_costs_its_owner_nothing(self, user: User, stranger: User) -> None:
        payment_id = paid(user)
        for _ in range(3):
            answers.not_owned(stranger.reconcile(payment_id))
        answers.credited(user.reconcile(payment_id), payment_id)

    def test_anothers_credit_costs_one(self, user: User, stranger: User) -> None:
        payment_id = paid(stranger)
        answers.credited(stranger.reconcile(payment_id), payment_id)
        for _ in range(3):
            answers.not_owned(user.reconcile(payment_id))
        self.assert_limited(user, payment_id)

    def test_remembered_answer_costs_nothing(self, user: User) -> None:
        payment_id = user.topup()
        for response in [user.reconcile(payment_id) for _ in range(6)]:
            answers.undecided(response, payment_id, "pending", "pending")
        other = paid(user)
        answers.credited(user.reconcile(other), other)

    def test_shared_query_costs_one(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, delay_seconds=0.3)
        for response in concurrently([lambda: user.reconcile(payment_id)] * 6):
            answers.credited(response, payment_id)
        other = paid(user)
        answers.credited(user.reconcile(other), other)

    def test_proved_credit_costs_nothing(self, user: User) -> None:
        payment_id = paid(user)
        for _ in range(6):
            answers.credited(user.reconcile(payment_id), payment_id)
        self.hit_limit(user, 2)  # the credit took the first
        self.assert_limited(user, user.topup())
        answers.credited(user.reconcile(payment_id), payment_id)

    def test_invalid_id_costs_nothing_and_stays_400(self, user: User) -> None:
        for _ in range(5):
            answers.invalid(user.reconcile("../x"))
        self.hit_limit(user)
        answers.invalid(user.reconcile("../x"))
        answers.invalid(user.reconcile_raw(b""))

    def test_what_the_local_state_decides_costs_nothing(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.books.change_record(payment_id, status="succeeded")
        for _ in range(5):
            answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)
        self.hit_limit(user)
        answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)

    def test_failed_query_costs_one(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, status=500, times=3 * host.attempts)
        for _ in range(3):
            answers.temporarily_unavailable(user.reconcile(payment_id))
        self.assert_limited(user, payment_id)
