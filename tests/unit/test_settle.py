"""Settling on one thread: what is written, what is reported, and which errors a caller gets."""

from __future__ import annotations

import time
from dataclasses import replace
from unittest.mock import Mock

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import (
    PaymentHeldError,
    PaymentNotOwnedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.rules import Shop
from openwebui_billing_reconcile.money.values import (
    LedgerEntry,
    LocalState,
    Money,
    PaymentRecord,
    ProviderPayment,
    ReconcileResult,
    Wallet,
)
from openwebui_billing_reconcile.topup.events import EventDispatcher
from openwebui_billing_reconcile.topup.settle import ReconcileCall, Settlement

RUB = Money(100000, "RUB")
RECORD = PaymentRecord("p1", "pending", "topup", "me", "w1", RUB)
ENTRY = LedgerEntry("me", "w1", RUB)
OPEN = LocalState(RECORD)
CREDITED = LocalState(replace(RECORD, status="succeeded"), (ENTRY,))
WALLET = Wallet("w1", "me", "RUB")
SHOP = Shop(None, accepts_test_payments=False, default_currency="RUB")
PAID = ProviderPayment.parse(
    {"id": "x", "status": "succeeded", "paid": True, "amount": {"value": "1000.00", "currency": "RUB"}}, "x"
)
CANCELED = replace(PAID, status="canceled", paid=False)


class Settling:
    """A settlement whose ledger and events are stand-ins."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.ledger: Mock = mocker.create_autospec(Ledger, instance=True)
        self.events: Mock = mocker.create_autospec(EventDispatcher, instance=True)
        self.ledger.read_with_wallet.return_value = (OPEN, WALLET)
        self.ledger.read.return_value = CREDITED
        self.ledger.credit.return_value = True

    def __call__(self, payment: ProviderPayment | None = PAID, *, expires_in: float = 60) -> ReconcileResult:
        call = ReconcileCall(object(), "me", "x", time.monotonic() + expires_in)
        return Settlement(self.ledger, self.events).settle(call, payment, SHOP)


@pytest.fixture
def settle(mocker: MockerFixture) -> Settling:
    """Return a settlement of a paid top-up whose ledger works."""
    return Settling(mocker)


def database_error() -> OperationalError:
    return OperationalError("select", {}, Exception("down"))


def test_a_credit_is_written_proved_and_reported(settle: Settling) -> None:
    assert settle() == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    settle.ledger.credit.assert_called_once()
    settle.events.credited.assert_called_once_with("x", ENTRY)


def test_a_call_that_nobody_waits_for_reads_and_writes_nothing(settle: Settling) -> None:
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle(expires_in=-1)
    assert raised.value.reason == "timeout"
    assert not settle.ledger.mock_calls


def test_a_credit_that_another_entered_is_not_reported_as_ours(settle: Settling) -> None:
    settle.ledger.credit.return_value = False
    assert settle().credited
    settle.events.credited.assert_not_called()


def test_only_the_ledger_proves_a_credit(settle: Settling) -> None:
    settle.ledger.read.return_value = OPEN
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert raised.value.reason == "not_written"
    settle.events.credited.assert_not_called()


@pytest.mark.parametrize("failure", [ValueError("no"), database_error(), RuntimeError("no")])
def test_a_failure_of_the_path_is_try_later(settle: Settling, failure: Exception) -> None:
    settle.ledger.credit.side_effect = failure
    settle.ledger.read.return_value = OPEN
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert raised.value.retry_after


@pytest.mark.parametrize("fault", [TypeError("no"), AttributeError("no"), NameError("no"), ImportError("no")])
def test_a_programming_error_of_the_path_is_not_try_later(settle: Settling, fault: Exception) -> None:
    settle.ledger.credit.side_effect = fault
    settle.ledger.read.return_value = OPEN
    with pytest.raises(UnexpectedError) as raised:
        settle()
    assert raised.value.retry_after is None


def test_whatever_the_path_raises_a_credit_in_the_ledger_counts(settle: Settling) -> None:
    settle.ledger.credit.side_effect = TypeError("after the commit")
    assert settle().credited


def test_a_wallet_that_somebody_holds_is_not_waited_for(settle: Settling) -> None:
    settle.ledger.credit.side_effect = WalletBusyError()
    with pytest.raises(WalletBusyError):
        settle()
    settle.ledger.read.assert_not_called()


def test_a_database_that_does_not_answer_is_try_later(settle: Settling) -> None:
    settle.ledger.read_with_wallet.side_effect = database_error()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert raised.value.reason == "database_unavailable"


def test_a_programming_error_is_not_blamed_on_the_database(settle: Settling) -> None:
    settle.ledger.read_with_wallet.side_effect = TypeError("no")
    with pytest.raises(TypeError):
        settle()


@pytest.mark.parametrize("status", ["pending", "failed", "canceled"])
def test_a_status_left_behind_is_put_right(settle: Settling, status: str) -> None:
    behind = LocalState(replace(RECORD, status=status), (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (behind, WALLET)
    assert settle().payment_status == "succeeded"
    settle.ledger.mark_succeeded.assert_called_once()


@pytest.mark.parametrize("status", ["succeeded", "refunded", "disputed", ""])
def test_a_status_that_we_do_not_know_is_left(settle: Settling, status: str) -> None:
    known = LocalState(replace(RECORD, status=status), (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (known, WALLET)
    assert settle() == ReconcileResult("x", "succeeded", status, credited=True)
    settle.ledger.mark_succeeded.assert_not_called()


@pytest.mark.parametrize("failure", [WalletBusyError(), database_error(), TypeError("no")])
def test_a_repair_that_fails_does_not_change_the_answer(settle: Settling, failure: Exception) -> None:
    behind = LocalState(RECORD, (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (behind, WALLET)
    settle.ledger.mark_succeeded.side_effect = failure
    assert settle() == ReconcileResult("x", "succeeded", "pending", credited=True)


def test_a_cancellation_that_is_recorded_is_counted_and_reported(settle: Settling) -> None:
    settle.ledger.cancel.return_value = True
    settle.ledger.read.return_value = LocalState(replace(RECORD, status="canceled"))
    assert settle(CANCELED) == ReconcileResult("x", "canceled", "canceled", credited=False)
    settle.ledger.count_auto_topup_failure.assert_called_once()
    settle.events.canceled.assert_called_once_with("x", "me")


def test_a_cancellation_that_another_recorded_is_not_counted_again(settle: Settling) -> None:
    settle.ledger.cancel.return_value = False
    settle.ledger.read.return_value = LocalState(replace(RECORD, status="canceled"))
    settle(CANCELED)
    settle.ledger.count_auto_topup_failure.assert_not_called()
    settle.events.canceled.assert_not_called()


@pytest.mark.parametrize("status", ["canceled", "failed", "refunded"])
def test_a_cancellation_changes_only_what_is_pending(settle: Settling, status: str) -> None:
    settle.ledger.read_with_wallet.return_value = (LocalState(replace(RECORD, status=status)), WALLET)
    assert settle(CANCELED).payment_status == status
    settle.ledger.cancel.assert_not_called()


def test_a_payment_that_the_provider_does_not_know_is_not_owned_without_a_record(settle: Settling) -> None:
    settle.ledger.read.return_value = LocalState()
    with pytest.raises(PaymentNotOwnedError):
        settle(None)


def test_what_does_not_add_up_is_held_and_reported(settle: Settling) -> None:
    with pytest.raises(PaymentHeldError) as raised:
        settle(replace(PAID, amount=Money(1, "RUB")))
    assert raised.value.reason == "amount_mismatch"
    settle.events.held.assert_called_once()
    settle.ledger.credit.assert_not_called()
