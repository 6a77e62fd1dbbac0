"""Settling on one thread: what is written, what is reported, and which errors a caller gets."""

from __future__ import annotations

import time
from dataclasses import replace
from unittest.mock import Mock, call

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import (
    InvalidProviderResponseError,
    PaymentHeldError,
    PaymentNotOwnedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import PROJECT, Way
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.rules import HoldReason, Shop
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
from openwebui_billing_reconcile.topup.settle import Observation, ReconcileCall, Settlement

RUB = Money(100000, "RUB")
RECORD = PaymentRecord("p1", "pending", "topup", "me", "w1", RUB)
ENTRY = LedgerEntry("e1", "me", "w1", RUB)
OPEN = LocalState(RECORD)
CREDITED = LocalState(replace(RECORD, status="succeeded"), (ENTRY,))
WALLET = Wallet("w1", "me", "RUB")
SERVICE = object()
SHOP = Shop(None, accepts_test_payments=False, default_currency="RUB")
PAID = ProviderPayment.parse(
    {
        "id": "x",
        "status": "succeeded",
        "paid": True,
        "captured_at": "2026-01-01T10:00:00.000Z",
        "amount": {"value": "1000.00", "currency": "RUB"},
        "metadata": {"kind": "topup", "user_id": "me"},
    },
    "x",
)
METADATA = {**PAID.metadata, "reconciled_by": "return", "captured_at": "2026-01-01T10:00:00.000Z"}
CANCELED = replace(PAID, status="canceled", paid=False)


class Settling:
    """A settlement whose ledger and events are stand-ins."""

    def __init__(self, ledger: Mock, events: Mock) -> None:
        self.ledger, self.events = ledger, events
        for stand_in in (ledger, events):
            stand_in.reset_mock(return_value=True, side_effect=True)
        self.ledger.read_with_wallet.return_value = (OPEN, WALLET)
        self.ledger.read.return_value = CREDITED
        self.ledger.take_entered.return_value = True
        self.ledger.credits_without_wallet.return_value = True

    def __call__(self, payment: ProviderPayment | None = PAID, *, expires_in: float = 60) -> ReconcileResult:
        call = ReconcileCall(SERVICE, "me", "x", time.monotonic() + expires_in)
        return Settlement(self.ledger, self.events).settle(call, payment, SHOP)


@pytest.fixture(scope="module")
def ledger(module_mocker: MockerFixture) -> Mock:
    """Return a stand-in, once: to make one takes longer than most of these tests."""
    ledger: Mock = module_mocker.create_autospec(Ledger, instance=True)
    return ledger


@pytest.fixture(scope="module")
def events(module_mocker: MockerFixture) -> Mock:
    """Return a stand-in, once as well."""
    events: Mock = module_mocker.create_autospec(EventDispatcher, instance=True)
    return events


@pytest.fixture
def settle(ledger: Mock, events: Mock) -> Settling:
    """Return a settlement of a paid top-up whose ledger works."""
    return Settling(ledger, events)


def database_error() -> OperationalError:
    return OperationalError("select", {}, Exception("down"))


def test_a_credit_is_written_proved_and_reported(settle: Settling) -> None:
    assert settle() == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    assert settle.ledger.mock_calls == [
        call.read_with_wallet(PAID, "me"),
        call.credit(SERVICE, "x", WALLET, RUB, METADATA),
        call.read("x"),
        call.take_entered(ENTRY),
    ]
    assert settle.events.mock_calls == [call.credited("x", ENTRY, Way.RETURN, PAID.captured_at)]


def test_a_call_that_nobody_waits_for_reads_and_writes_nothing(settle: Settling) -> None:
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle(expires_in=-1)
    assert (raised.value.reason, str(raised.value)) == ("timeout", "Payment is still being checked")
    assert not settle.ledger.mock_calls


def test_a_credit_that_another_entered_is_not_reported_as_ours(settle: Settling) -> None:
    settle.ledger.take_entered.return_value = False
    assert settle().credited
    settle.events.credited.assert_not_called()


def test_only_the_ledger_proves_a_credit(settle: Settling) -> None:
    settle.ledger.read.return_value = OPEN
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert (raised.value.reason, str(raised.value)) == ("not_written", "Payment could not be credited yet")
    settle.events.credited.assert_not_called()


@pytest.mark.parametrize("failure", [ValueError("no"), database_error(), RuntimeError("no")])
def test_a_failure_of_the_path_is_try_later_and_logged_by_its_name(
    settle: Settling, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    settle.ledger.credit.side_effect = failure
    settle.ledger.read.return_value = OPEN
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert raised.value.retry_after
    assert caplog.messages == [f"Crediting did not go through: payment=x error={type(failure).__name__}"]


@pytest.mark.parametrize("fault", [TypeError("no"), AttributeError("no"), NameError("no"), ImportError("no")])
def test_a_programming_error_of_the_path_is_not_try_later(settle: Settling, fault: Exception) -> None:
    settle.ledger.credit.side_effect = fault
    settle.ledger.read.return_value = OPEN
    with pytest.raises(UnexpectedError) as raised:
        settle()
    assert raised.value.retry_after is None


def test_whatever_the_path_raises_a_credit_in_the_ledger_counts(settle: Settling) -> None:
    settle.ledger.credit.side_effect = TypeError("after the commit")
    assert settle() == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    settle.events.credited.assert_called_once_with("x", ENTRY, Way.RETURN, PAID.captured_at)


def test_a_credit_whose_proof_fails_is_reported_by_the_next_call(settle: Settling) -> None:
    settle.ledger.read.side_effect = database_error()
    with pytest.raises(TemporarilyUnavailableError):
        settle()
    settle.events.credited.assert_not_called()
    settle.ledger.read_with_wallet.return_value = (CREDITED, WALLET)
    assert settle().credited
    settle.events.credited.assert_called_once_with("x", ENTRY, Way.RETURN, PAID.captured_at)


def test_a_wallet_that_nobody_names_is_created(settle: Settling) -> None:
    nameless = LocalState(replace(RECORD, wallet_id=None))
    settle.ledger.read_with_wallet.side_effect = [(nameless, None), (nameless, WALLET)]
    assert settle().credited
    assert settle.ledger.mock_calls[1:5] == [
        call.create_wallet("me", "RUB"),
        call.read_with_wallet(PAID, "me"),
        call.credits_without_wallet(),
        call.credit(SERVICE, "x", WALLET, RUB, METADATA),
    ]


def test_where_the_hosts_path_wants_a_wallet_in_the_record_its_wallet_service_credits(
    settle: Settling,
) -> None:
    nameless = replace(RECORD, wallet_id=None)
    settle.ledger.read_with_wallet.return_value = LocalState(nameless), WALLET
    settle.ledger.credits_without_wallet.return_value = False
    assert settle().credited
    about = {"reconciled_by": "return", "captured_at": PAID.captured_at}
    settle.ledger.credit_directly.assert_called_once_with(SERVICE, "x", nameless, WALLET, RUB, about)
    settle.ledger.credit.assert_not_called()


def test_what_is_settled_by_hand_while_a_wallet_is_created_is_not_credited_too(settle: Settling) -> None:
    nameless = LocalState(replace(RECORD, wallet_id=None))
    by_hand = replace(nameless, other_entries=1)
    settle.ledger.read_with_wallet.side_effect = [(nameless, None), (by_hand, WALLET)]
    with pytest.raises(PaymentHeldError) as raised:
        settle()
    assert raised.value.reason == "settled_by_hand"
    settle.ledger.credit.assert_not_called()


def test_a_wallet_that_cannot_be_created_is_try_later(
    settle: Settling, caplog: pytest.LogCaptureFixture
) -> None:
    settle.ledger.read_with_wallet.return_value = (LocalState(replace(RECORD, wallet_id=None)), None)
    settle.ledger.create_wallet.side_effect = database_error()
    settle.ledger.read.return_value = OPEN
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle()
    assert raised.value.reason == "not_written"
    settle.ledger.credit.assert_not_called()
    assert caplog.messages == ["Creating the wallet did not go through: payment=x error=OperationalError"]


def test_what_does_not_add_up_after_the_path_is_held(settle: Settling) -> None:
    settle.ledger.read.return_value = LocalState(RECORD, (replace(ENTRY, wallet_id="another"),))
    with pytest.raises(PaymentHeldError) as raised:
        settle()
    assert raised.value.reason == "credited_elsewhere"
    assert (raised.value.amount_kopeks, raised.value.currency) == (100_000, "RUB")


def test_a_credit_whose_status_lags_behind_is_put_right_at_once(settle: Settling) -> None:
    settle.ledger.read.side_effect = [LocalState(RECORD, (ENTRY,)), CREDITED]
    assert settle() == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    settle.ledger.mark_succeeded.assert_called_once_with("x")


def test_a_wallet_that_somebody_holds_is_not_waited_for(settle: Settling) -> None:
    settle.ledger.credit.side_effect = WalletBusyError()
    with pytest.raises(WalletBusyError):
        settle()
    settle.ledger.read.assert_not_called()


@pytest.mark.parametrize("payment", [PAID, None], ids=["known", "unknown"])
def test_a_database_that_does_not_answer_is_try_later(
    settle: Settling, payment: ProviderPayment | None, caplog: pytest.LogCaptureFixture
) -> None:
    settle.ledger.read_with_wallet.side_effect = settle.ledger.read.side_effect = database_error()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle(payment)
    assert raised.value.reason == "database_unavailable"
    assert str(raised.value) == "Billing is temporarily unavailable"
    assert caplog.records[0].name.startswith(f"{PROJECT}.")  # whose level an operator sets
    assert caplog.messages == ["The billing database did not answer: payment=x error=OperationalError"]


def test_an_error_tells_what_the_provider_said(settle: Settling) -> None:
    settle.ledger.credit.side_effect = WalletBusyError()
    with pytest.raises(WalletBusyError) as raised:
        settle()
    assert raised.value.provider_status == "succeeded"


def test_a_programming_error_is_not_blamed_on_the_database(settle: Settling) -> None:
    settle.ledger.read_with_wallet.side_effect = TypeError("no")
    with pytest.raises(TypeError):
        settle()


@pytest.mark.parametrize("status", ["pending", "failed", "canceled"])
def test_a_status_left_behind_is_put_right(settle: Settling, status: str) -> None:
    behind = LocalState(replace(RECORD, status=status), (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (behind, WALLET)
    assert settle() == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    assert settle.ledger.mock_calls[2:] == [call.mark_succeeded("x"), call.read("x")]


@pytest.mark.parametrize("status", ["succeeded", "refunded", "disputed", ""])
def test_a_status_that_we_do_not_know_is_left(settle: Settling, status: str) -> None:
    known = LocalState(replace(RECORD, status=status), (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (known, WALLET)
    assert settle() == ReconcileResult("x", "succeeded", status, credited=True)
    settle.ledger.mark_succeeded.assert_not_called()


@pytest.mark.parametrize("failure", [WalletBusyError(), database_error(), TypeError("no")])
def test_a_repair_that_fails_does_not_change_the_answer(
    settle: Settling, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    behind = LocalState(RECORD, (ENTRY,))
    settle.ledger.read_with_wallet.return_value = (behind, WALLET)
    settle.ledger.mark_succeeded.side_effect = failure
    assert settle() == ReconcileResult("x", "succeeded", "pending", credited=True)
    name = type(failure).__name__
    assert caplog.messages == [f"A credited payment could not be marked succeeded: payment=x error={name}"]


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_an_undecided_payment_is_answered_as_it_stands(settle: Settling, status: str) -> None:
    assert settle(replace(PAID, status=status, paid=False)) == ReconcileResult(
        "x", status, "pending", credited=False
    )
    settle.ledger.credit.assert_not_called()
    assert not settle.events.mock_calls


def test_a_payment_that_is_not_proved_to_be_the_users_is_not_owned(settle: Settling) -> None:
    settle.ledger.read_with_wallet.return_value = (LocalState(replace(RECORD, user_id="another")), None)
    with pytest.raises(PaymentNotOwnedError):
        settle()
    settle.ledger.credit.assert_not_called()
    assert not settle.events.mock_calls


def test_observing_reads_once(settle: Settling) -> None:
    observation = Observation(settle.ledger, settle.events)
    observed = observation.settle(ReconcileCall(SERVICE, "me", "x", time.monotonic() + 60), PAID, SHOP)
    assert observed == ReconcileResult("x", "succeeded", "pending", credited=False)
    assert settle.ledger.mock_calls == [call.read_with_wallet(PAID, "me")]


@pytest.mark.parametrize("is_ours", [True, False])
def test_only_what_a_call_of_ours_wrote_is_new(settle: Settling, *, is_ours: bool) -> None:
    settle.ledger.take_entered.return_value = settle.ledger.cancel.return_value = is_ours
    assert settle().is_new is is_ours
    settle.ledger.read.return_value = LocalState(replace(RECORD, status="canceled"))
    assert settle(CANCELED).is_new is is_ours


def test_a_cancellation_that_is_recorded_is_reported(settle: Settling) -> None:
    settle.ledger.cancel.return_value = True
    settle.ledger.read.return_value = LocalState(replace(RECORD, status="canceled"))
    assert settle(CANCELED) == ReconcileResult("x", "canceled", "canceled", credited=False)
    assert settle.ledger.mock_calls[1:] == [
        call.cancel(SERVICE, "x", CANCELED.metadata),
        call.read("x"),
    ]
    assert settle.events.mock_calls == [call.canceled("x", "me", Way.RETURN)]


def test_a_credit_that_lands_beside_a_cancellation_counts(settle: Settling) -> None:
    settle.ledger.cancel.return_value = settle.ledger.take_entered.return_value = False
    settle.ledger.read.side_effect = [LocalState(RECORD, (ENTRY,)), CREDITED]
    assert settle(CANCELED) == ReconcileResult("x", "canceled", "succeeded", credited=True)
    settle.ledger.mark_succeeded.assert_called_once_with("x")
    assert not settle.events.mock_calls
    settle.ledger.take_entered.assert_called_once_with(ENTRY)


def test_a_cancellation_that_cannot_be_recorded_is_try_later(
    settle: Settling, caplog: pytest.LogCaptureFixture
) -> None:
    settle.ledger.cancel.side_effect = database_error()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        settle(CANCELED)
    assert raised.value.reason == "database_unavailable"
    assert caplog.messages == ["The billing database did not answer: payment=x error=OperationalError"]


def test_a_cancellation_that_another_recorded_is_not_reported(settle: Settling) -> None:
    settle.ledger.cancel.return_value = False
    settle.ledger.read.return_value = LocalState(replace(RECORD, status="canceled"))
    settle(CANCELED)
    settle.events.canceled.assert_not_called()


@pytest.mark.parametrize("status", ["canceled", "failed"])
def test_a_cancellation_changes_only_what_is_pending(settle: Settling, status: str) -> None:
    settle.ledger.read_with_wallet.return_value = (LocalState(replace(RECORD, status=status)), WALLET)
    assert settle(CANCELED) == ReconcileResult("x", "canceled", status, credited=False)
    settle.ledger.cancel.assert_not_called()


def test_a_payment_that_the_provider_does_not_know_is_not_owned_without_a_record(settle: Settling) -> None:
    settle.ledger.read.return_value = LocalState()
    with pytest.raises(PaymentNotOwnedError):
        settle(None)


def test_a_credit_that_the_provider_does_not_know_is_one(settle: Settling) -> None:
    settle.ledger.read.side_effect = [LocalState(RECORD, (ENTRY,)), CREDITED]
    assert settle(None) == ReconcileResult("x", "succeeded", "succeeded", credited=True)
    settle.ledger.mark_succeeded.assert_called_once_with("x")
    settle.events.credited.assert_called_once_with("x", ENTRY, Way.RETURN, None)


def test_our_own_payment_that_the_provider_does_not_know_is_an_invalid_response(settle: Settling) -> None:
    settle.ledger.read.return_value = OPEN
    with pytest.raises(InvalidProviderResponseError, match=r"^Payment provider does not know this payment$"):
        settle(None)


def test_anothers_payment_that_the_provider_does_not_know_is_not_owned(settle: Settling) -> None:
    settle.ledger.read.return_value = LocalState(replace(RECORD, user_id="another"))
    with pytest.raises(PaymentNotOwnedError):
        settle(None)


def test_what_does_not_add_up_is_held_with_what_is_at_stake(settle: Settling) -> None:
    with pytest.raises(PaymentHeldError) as raised:
        settle(replace(PAID, amount=Money(1, "RUB")))
    assert raised.value.reason == "amount_mismatch"
    assert str(raised.value) == HoldReason.AMOUNT_MISMATCH.message
    assert (raised.value.amount_kopeks, raised.value.currency) == (1, "RUB")
    settle.ledger.credit.assert_not_called()
