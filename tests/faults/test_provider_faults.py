"""The provider is slow, odd, huge, or changes its mind. The contract tests hold what one plain answer may get
wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from openwebui_billing_reconcile.topup.reply import REPLY_TIMEOUT
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document

from .bystander import unharmed
from .conftest import DEADLINE
from .host_pair import HostPair
from .payments import assert_credited, assert_no_credit, assert_one_credit, assert_refused, at_once, paid

HUGE = 20_000_000
PATIENCE = 3.0  # what a busy machine may add

SLOW: dict[str, Document] = {
    "hangs": {"hang": True},
    "late": {"delay_seconds": DEADLINE + 1},
    "drips": {"drip_seconds_per_byte": 0.05},
    "late and cut off": {"delay_seconds": DEADLINE - 1, "truncate": 50},
    "late and reset": {"delay_seconds": DEADLINE - 1, "reset": True},
}
ODD: dict[str, tuple[Document, int]] = {
    "no content": ({"status": 204, "raw": ""}, 502),
    "not modified": ({"status": 304, "raw": ""}, 502),
    "unknown charset": ({"raw": "{}", "content_type": "application/json; charset=klingon"}, 502),
    "not really gzip": ({"raw": "{}", "headers": {"Content-Encoding": "gzip"}}, 503),
    "byte order mark": ({"raw": "\ufeff{}", "content_type": "application/json"}, 503),
    "redirect in circles": ({"redirect": "/v3/payments/in-circles"}, 503),
    "redirect to a file": ({"redirect": "file:///etc/passwd"}, 503),
    "redirect to nowhere": ({"redirect": "http://"}, 503),
    "redirect to the list": ({"redirect": "/v3/payments"}, 502),
    "huge list": ({"raw": f"[{'1,' * (HUGE // 2)}1]", "content_type": "application/json"}, 502),
    "huge text": ({"raw": "x" * HUGE}, 503),
    "huge refusal": ({"status": 500, "raw": "x" * HUGE}, 503),
    "huge field": ({"body": {"id": "x" * HUGE, "status": "succeeded"}}, 502),
}


# --- Slow ----------------------------------------------------------------------------------------------


def answered_in_time(user: User, payment_id: str, seconds: float) -> httpx.Response:
    """Reconcile, and assert that the reply does not take longer."""
    began = time.monotonic()
    try:
        response = user.reconcile(payment_id, timeout=seconds)
    except httpx.ReadTimeout:
        raise AssertionError(f"no answer in {seconds} s") from None
    assert time.monotonic() - began < seconds
    return response


def test_slow_provider_delays_nobody_else_and_credits_nothing_late(sqlite_pair: HostPair) -> None:
    host = sqlite_pair.host
    users = [host.new_user() for _ in range(4)]
    payments = [(user, paid(user)) for user in users for _ in SLOW]
    for (_, payment_id), fault in zip(payments, [*SLOW.values()] * len(users), strict=True):
        host.simulator.fault(payment_id=payment_id, **fault)
    with unharmed(host.new_user()):
        calls = [
            partial(answered_in_time, user, payment_id, DEADLINE + PATIENCE) for user, payment_id in payments
        ]
        for response in at_once(calls):
            assert_refused(response, 503)
    for user, payment_id in payments:
        assert_no_credit(user, payment_id)
    host.simulator.clear_faults()
    for user, payment_id in payments:
        assert_credited(user.reconcile(payment_id), payment_id)
    for user in users:
        assert user.balance() == len(SLOW) * 100_000


def test_without_the_deadline_the_proof_fails(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()
    payment_id = paid(user)
    sqlite_pair.host.simulator.fault(payment_id=payment_id, hang=True, times=1)
    limit = DEADLINE + PATIENCE
    with sqlite_pair.mutated("no deadline"), pytest.raises(AssertionError, match="no answer"):
        answered_in_time(user, payment_id, limit)


# --- Odd and huge --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ODD)
def test_odd_answer_credits_nothing_and_the_next_call_heals(sqlite_pair: HostPair, case: str) -> None:
    fault, status = ODD[case]
    user = sqlite_pair.host.new_user()
    payment_id = paid(user)
    simulator = sqlite_pair.host.simulator
    simulator.fault(payment_id="in-circles", redirect="/v3/payments/in-circles")
    simulator.fault(payment_id=payment_id, **fault)
    with unharmed(sqlite_pair.host.new_user()):
        assert_refused(answered_in_time(user, payment_id, REPLY_TIMEOUT), status)
    assert_no_credit(user, payment_id)
    simulator.clear_faults()
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def test_redirect_to_the_honest_answer_is_that_answer(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()
    payment_id = paid(user)
    sqlite_pair.host.simulator.fault(payment_id=payment_id, redirect=f"/v3/payments/{payment_id}", times=1)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


def test_huge_answers_are_not_hoarded(sqlite_pair: HostPair) -> None:
    hoards_nothing(sqlite_pair)


def test_with_errors_kept_the_proof_fails(sqlite_pair: HostPair) -> None:
    with sqlite_pair.mutated("errors kept"), pytest.raises(AssertionError, match="resident_bytes"):
        hoards_nothing(sqlite_pair)


def hoards_nothing(sqlite_pair: HostPair) -> None:
    """Many huge answers do not make the worker much larger."""
    host = sqlite_pair.host
    user = host.new_user()
    payments = [paid(user) for _ in range(12)]
    host.simulator.fault(status=500, raw="x" * HUGE)
    try:
        assert_refused(user.reconcile(payments.pop()), 503)
        before = resident_bytes(host)
        for payment_id in payments:
            assert_refused(user.reconcile(payment_id), 503)
    finally:
        host.simulator.clear_faults()
    assert resident_bytes(host) - before < 4 * HUGE


def resident_bytes(host: Host) -> int:
    """Return how much memory the worker has."""
    pages = int(Path(f"/proc/{host.server.pid}/statm").read_text().split()[1])
    return pages * 4096


# --- Changing its mind ---------------------------------------------------------------------------------

HONEST: Document = {}


def differing(**fields: object) -> Document:
    """Return the provider's answer about a payment, with some fields replaced."""
    return {"differing": fields}


@pytest.mark.parametrize(
    "answers",
    [
        [{"status": 500}, {"reset": True}, {"raw": "<html>"}, {"status": 404}, HONEST],
        [differing(status="pending", paid=False), HONEST],
        [differing(status="canceled", paid=False), HONEST],
        [differing(status="waiting_for_capture"), differing(status="canceled", paid=False), HONEST],
        [differing(paid=False), differing(amount={"value": "1.00", "currency": "RUB"}), HONEST],
        [differing(refunded_amount={"value": "1000.00", "currency": "RUB"}), HONEST],
        [differing(id="another"), differing(status="refunded"), HONEST],
    ],
    ids=["trouble", "pending", "canceled", "captured", "less", "refunded", "nonsense"],
)
def test_provider_that_changes_its_mind_is_believed_once_it_adds_up(
    host_pair: HostPair, user: User, answers: Sequence[Document]
) -> None:
    payment_id = paid(user)
    answer_with(host_pair, payment_id, answers)
    statuses = []

    def is_credited() -> bool:
        response = user.reconcile(payment_id)
        statuses.append(response.status_code)
        credited = response.status_code == 200 and response.json()["credited"]
        if not credited:
            assert_no_credit(user, payment_id)
        return bool(credited)

    wait_until(is_credited, 15, "it is not credited")
    assert set(statuses) <= {200, 409, 502, 503}
    assert_one_credit(user, payment_id)


@pytest.mark.parametrize(
    "later",
    [
        differing(status="canceled", paid=False),
        differing(status="pending", paid=False),
        differing(refunded_amount={"value": "1000.00", "currency": "RUB"}),
        differing(amount={"value": "99999.00", "currency": "RUB"}),
        {"status": 404},
    ],
    ids=["canceled", "pending", "refunded", "more", "unknown"],
)
def test_credit_stands_whatever_the_provider_says_later(
    host_pair: HostPair, user: User, later: Document
) -> None:
    payment_id = paid(user)
    assert_credited(user.reconcile(payment_id), payment_id)
    answer_with(host_pair, payment_id, [later] * 3)
    host_pair.host.books.change_record(payment_id, status="pending")
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)
    host_pair.host.simulator.clear_faults()


def answer_with(host_pair: HostPair, payment_id: str, answers: Sequence[Document]) -> None:
    """Let the provider give these answers, one after the other."""
    honest = host_pair.host.simulator.payment(payment_id)
    sequence = [
        {"body": honest | answer["differing"]} if "differing" in answer else answer for answer in answers
    ]
    host_pair.host.simulator.fault(payment_id=payment_id, sequence=sequence)
