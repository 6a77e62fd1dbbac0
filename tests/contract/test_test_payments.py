"""A test payment is held in a live shop, unless its operator accepts test payments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import running_simulator

from . import answers
from .scenarios import StartHost, assert_credited_once, nothing_written, paid, unrecorded

ACCEPT = "BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS"


@pytest.fixture(scope="session")
def live_simulator() -> Iterator[Simulator]:
    """Yield the provider with a live shop."""
    with running_simulator(secret_key="live_secret") as provider:
        yield provider


def topup(user: User, *, recorded: bool, test: bool) -> str:
    """Return the id of a paid top-up, made in test mode or live."""
    payment_id = paid(user) if recorded else unrecorded(user)
    user.host.simulator.change(payment_id, test=test)
    return payment_id


with_and_without_record = pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])


class TestLiveShop:
    """The secret key is a live one."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, live_simulator: Simulator) -> Host:
        return start_host(live_simulator)

    @with_and_without_record
    def test_test_payment_is_held(self, user: User, recorded: bool) -> None:
        payment_id = topup(user, recorded=recorded, test=True)
        with nothing_written(user, about=payment_id):
            answers.held(user.reconcile(payment_id), HoldReason.TEST_PAYMENT)

    @with_and_without_record
    def test_live_payment_is_credited(self, user: User, recorded: bool) -> None:
        payment_id = topup(user, recorded=recorded, test=False)
        answers.credited(user.reconcile(payment_id), payment_id)
        assert_credited_once(user, payment_id)

    @with_and_without_record
    def test_payment_that_does_not_say_is_a_live_one(self, host: Host, user: User, recorded: bool) -> None:
        payment_id = topup(user, recorded=recorded, test=True)
        host.simulator.change(payment_id, remove=["test"])
        answers.credited(user.reconcile(payment_id), payment_id)


class TestLiveShopThatAcceptsThem:
    """The operator accepts test payments."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, live_simulator: Simulator) -> Host:
        return start_host(live_simulator, **{ACCEPT: "true"})

    @pytest.mark.parametrize("test", [True, False])
    @with_and_without_record
    def test_either_is_credited(self, user: User, recorded: bool, test: bool) -> None:
        payment_id = topup(user, recorded=recorded, test=test)
        answers.credited(user.reconcile(payment_id), payment_id)
        assert_credited_once(user, payment_id)


class TestTestShopThatRejectsThem:
    """The secret key is a test key, but the operator does not accept test payments."""

    @pytest.fixture(scope="class")
    @staticmethod
    def host(start_host: StartHost, simulator: Simulator) -> Host:
        return start_host(simulator, **{ACCEPT: "false"})

    @with_and_without_record
    def test_test_payment_is_held(self, user: User, recorded: bool) -> None:
        payment_id = topup(user, recorded=recorded, test=True)
        with nothing_written(user, about=payment_id):
            answers.held(user.reconcile(payment_id), HoldReason.TEST_PAYMENT)


@pytest.mark.parametrize("test", [True, False])
@with_and_without_record
def test_test_shop_credits_either(sqlite_host: Host, recorded: bool, test: bool) -> None:
    user = sqlite_host.new_user()
    payment_id = topup(user, recorded=recorded, test=test)
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)
