"""How often the provider is asked, by whom, and when to come again."""

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
    asking,
    assert_credited_once,
    at_once,
    nobody_asked,
    nothing_written,
    paid,
    unrecorded,
)

# --- One question --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_undecided_answer_is_remembered_for_a_second(host: Host, user: User, status: str) -> None:
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status)
    began = time.monotonic()
    for _ in range(5):
        answers.undecided(user.reconcile(payment_id), payment_id, status, "pending")
    assert host.simulator.questions(payment_id) <= host.workers * (1 + int(time.monotonic() - began))


def test_after_that_second_the_provider_is_asked_again(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = user.topup()
    answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")
    sqlite_host.simulator.pay(payment_id)
    (asked,) = [seen.monotonic for seen in sqlite_host.simulator.requests(payment_id)]
    deadline = time.monotonic() + 5
    while not user.reconcile(payment_id).json()["credited"]:
        assert time.monotonic() < deadline
    (_, again) = [seen.monotonic for seen in sqlite_host.simulator.requests(payment_id)]
    assert again - asked >= 1


def test_callers_at_once_share_a_question_but_not_the_verdict(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(user)
    host.books.delete_record(payment_id)
    host.simulator.fault(payment_id=payment_id, delay_seconds=0.5)
    callers = [user, stranger] * 4
    responses = at_once([partial(caller.reconcile, payment_id) for caller in callers])
    assert host.simulator.questions(payment_id) <= host.workers
    for caller, response in zip(callers, responses, strict=True):
        if caller is stranger:
            answers.foreign(response)
        elif response.status_code == 503:
            # The host cannot record one payment in two workers at once; the loser is sent round again.
            assert host.workers > 1
            answers.try_later(response)
        else:
            answers.proved(response, payment_id)
    wait_until(lambda: user.reconcile(payment_id).status_code == 200, 5, "it is not credited")
    assert_credited_once(user, payment_id)


def test_caller_who_comes_later_joins_the_question(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = paid(user)
    with asking(user, payment_id) as answer:
        answers.credited(user.reconcile(payment_id), payment_id)
        answers.credited(answer.result(), payment_id)
    assert sqlite_host.simulator.questions(payment_id) == 1


# --- When to come again --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_first_appointment_is_in_three_seconds(host: Host, user: User, status: str) -> None:
    payment_id = user.topup()
    host.simulator.change(payment_id, status=status)
    assert answers.retry_after(user.reconcile(payment_id)) == 3


def test_who_keeps_the_appointment_is_given_a_later_one(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    payment_id = user.topup()
    began = time.monotonic()
    assert answers.retry_after(user.reconcile(payment_id)) == 3
    time.sleep(1)
    assert answers.retry_after(user.reconcile(payment_id)) in {1, 2}
    time.sleep(max(0.0, began + 3 - time.monotonic()))
    assert answers.retry_after(user.reconcile(payment_id)) in {4, 5}


def test_appointments_of_different_payments_are_their_own(sqlite_host: Host) -> None:
    user = sqlite_host.new_user()
    first, second = user.topup(), user.topup()
    assert answers.retry_after(user.reconcile(first)) == 3
    time.sleep(1)
    assert answers.retry_after(user.reconcile(first)) in {1, 2}
    assert answers.retry_after(user.reconcile(second)) == 3


# --- The budget ----------------------------------------------------------------------------------


class TestBudget:
    """Three questions a minute, here."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, simulator: Simulator) -> Host:
        """A host with a small budget."""
        return start_host(simulator, BILLING_TOPUP_RECONCILE_RATE_LIMIT="3/minute")

    def spend(self, user: User, units: int = 3) -> None:
        """All of it, unless less is wanted."""
        for payment_id in [user.topup() for _ in range(units)]:
            answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")

    def used_up(self, user: User, payment_id: str) -> None:
        """No more questions, and when there will be."""
        response = user.reconcile(payment_id)
        answers.refused(response, 429, come_again=True)
        assert 1 <= answers.retry_after(response) <= 60

    def test_more_questions_than_the_budget_are_429(self, host: Host, user: User) -> None:
        self.spend(user)
        payment_id = paid(user)
        with nobody_asked(host.simulator), nothing_written(user, about=payment_id):
            self.used_up(user, payment_id)

    def test_budget_is_each_users_own(self, user: User, stranger: User) -> None:
        self.spend(user)
        self.used_up(user, user.topup())
        payment_id = paid(stranger)
        answers.credited(stranger.reconcile(payment_id), payment_id)

    def test_unknown_id_costs_one(self, host: Host, user: User) -> None:
        for payment_id in ("unknown_1", "unknown_2", "unknown_3"):
            answers.foreign(user.reconcile(payment_id))
        with nobody_asked(host.simulator):
            self.used_up(user, "unknown_4")

    def test_unknown_id_costs_one_each_time_asked_or_remembered(self, host: Host, user: User) -> None:
        for _ in range(3):
            answers.foreign(user.reconcile("unknown"))
        assert host.simulator.questions("unknown") == 1
        self.used_up(user, "unknown")

    @pytest.mark.parametrize("recorded", [True, False])
    def test_anothers_payment_costs_one(self, user: User, stranger: User, recorded: bool) -> None:
        payment_id = paid(stranger) if recorded else unrecorded(stranger)
        for _ in range(3):
            answers.foreign(user.reconcile(payment_id))
        self.used_up(user, payment_id)

    def test_anothers_payment_costs_its_owner_nothing(self, user: User, stranger: User) -> None:
        payment_id = paid(user)
        for _ in range(3):
            answers.foreign(stranger.reconcile(payment_id))
        answers.credited(user.reconcile(payment_id), payment_id)

    def test_anothers_credit_costs_one(self, user: User, stranger: User) -> None:
        payment_id = paid(stranger)
        answers.credited(stranger.reconcile(payment_id), payment_id)
        for _ in range(3):
            answers.foreign(user.reconcile(payment_id))
        self.used_up(user, payment_id)

    def test_remembered_answer_costs_nothing(self, user: User) -> None:
        payment_id = user.topup()
        for response in [user.reconcile(payment_id) for _ in range(6)]:
            answers.undecided(response, payment_id, "pending", "pending")
        other = paid(user)
        answers.credited(user.reconcile(other), other)

    def test_shared_question_costs_one(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, delay_seconds=0.3)
        for response in at_once([lambda: user.reconcile(payment_id)] * 6):
            answers.credited(response, payment_id)
        other = paid(user)
        answers.credited(user.reconcile(other), other)

    def test_proved_credit_costs_nothing(self, user: User) -> None:
        payment_id = paid(user)
        for _ in range(6):
            answers.credited(user.reconcile(payment_id), payment_id)
        self.spend(user, 2)  # the first went into the credit
        self.used_up(user, user.topup())
        answers.credited(user.reconcile(payment_id), payment_id)

    def test_invalid_id_costs_nothing_and_stays_400(self, user: User) -> None:
        for _ in range(5):
            answers.invalid(user.reconcile("../x"))
        self.spend(user)
        answers.invalid(user.reconcile("../x"))
        answers.invalid(user.reconcile_raw(b""))

    def test_what_the_books_settle_costs_nothing(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.books.change_record(payment_id, status="succeeded")
        for _ in range(5):
            answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)
        self.spend(user)
        answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)

    def test_question_that_failed_costs_one(self, host: Host, user: User) -> None:
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, status=500, times=3)
        for _ in range(3):
            answers.try_later(user.reconcile(payment_id))
        self.used_up(user, payment_id)
