"""New outcomes: what is logged and what listeners get."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from openwebui_billing_reconcile.hookspecs import Host, PaymentGateway, TopupEvent, Way
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import LedgerEntry, Money
from openwebui_billing_reconcile.topup.events import EventDispatcher
from openwebui_billing_reconcile.topup.settle import held_error

ENTRY = LedgerEntry("e1", "me", "w1", Money(100000, "RUB"))


class Listener:
    """The hooks, with one listener that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.events: list[TopupEvent] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.called = threading.Semaphore(0)

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None:
        raise NotImplementedError

    def topup_outcome(self, *, event: TopupEvent) -> None:
        self.may_go_on.wait(30)
        self.events.append(event)
        self.called.release()
        if event.payment_id == "fails":
            raise ValueError("secret words")
        if event.payment_id == "exits":
            raise SystemExit("secret words")

    def wait(self, events: int) -> None:
        """Wait until so many more events have arrived."""
        for _ in range(events):
            assert self.called.acquire(timeout=30)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_a_credit_is_one_line_and_one_event(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        EventDispatcher(listener).credited("pay-1", ENTRY, Way.SWEEP, "2026-01-01T00:00:00.500Z")
    listener.wait(1)
    assert caplog.messages == [
        "Top-up credited: payment=pay-1 user=me wallet=w1 kopeks=100000 currency=RUB way=sweep"
    ]
    (event,) = listener.events
    assert (event.outcome, event.payment_id, event.user_id) == ("credited", "pay-1", "me")
    assert (event.wallet_id, event.amount_kopeks, event.currency) == ("w1", 100000, "RUB")
    assert event.captured_at == 1767225600.5


def test_a_hold_is_one_line_and_one_event_with_what_is_at_stake(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    held = held_error(HoldReason.REFUNDED, Money(99_900, "RUB"))
    EventDispatcher(listener).held("pay-1", "me", held, Way.VISIT)
    listener.wait(1)
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.getMessage() == (
        "Top-up held, nothing credited: "
        "payment=pay-1 user=me reason=refunded kopeks=99900 currency=RUB way=visit"
    )
    (event,) = listener.events
    assert (event.outcome, event.reason) == ("held", "refunded")
    assert (event.amount_kopeks, event.currency, event.wallet_id) == (99_900, "RUB", None)


def test_a_hold_of_an_unknown_amount_says_so(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    EventDispatcher(listener).held("pay-1", "me", held_error(HoldReason.MALFORMED, None), Way.VISIT)
    listener.wait(1)
    assert "kopeks=None currency=None" in caplog.text
    assert listener.events[0].amount_kopeks is None


def test_a_listener_that_is_too_slow_misses_the_newest(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventDispatcher(listener)
    listener.may_go_on.clear()
    for n in range(1100):
        events.canceled(f"pay-{n}", "me", Way.SWEEP)
    assert 99 <= len(caplog.records) <= 100  # 1,000 wait, and one may be under way
    assert all("too slow" in message for message in caplog.messages)
    listener.may_go_on.set()
    listener.wait(1000)
    assert [event.payment_id for event in listener.events[:1000]] == [f"pay-{n}" for n in range(1000)]


def test_a_listener_that_fails_is_named_and_hears_the_next(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventDispatcher(listener)
    for payment_id in ("fails", "exits"):
        events.canceled(payment_id, "me", Way.SWEEP)
        listener.wait(1)
    thread = events._thread
    events.canceled("pay-2", "me", Way.SWEEP)
    listener.wait(1)
    assert events._thread is thread
    assert caplog.messages == ["A listener failed: ValueError", "A listener failed: SystemExit"]
    assert "secret" not in caplog.text


def test_a_cancellation_is_one_event(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    before = time.time()
    with caplog.at_level(logging.INFO):
        EventDispatcher(listener).canceled("pay-1", "me", Way.SWEEP)
    listener.wait(1)
    (event,) = listener.events
    assert before <= event.at <= time.time()
    assert event == TopupEvent("canceled", "pay-1", "me", Way.SWEEP, event.at)
    assert not caplog.records
