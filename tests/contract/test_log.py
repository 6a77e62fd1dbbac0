"""What our loggers write into the host's log, and what they never do."""

from __future__ import annotations

import re

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until

from . import answers
from .scenarios import paid


def lines_about(host: Host, payment_id: str, words: str) -> list[str]:
    """Return the log's lines with these words and this payment."""
    return [line for line in host.log.splitlines() if words in line and payment_id in line]


def wait_for_line(host: Host, payment_id: str, words: str) -> str:
    """Wait for a line, since the log comes through a pipe and may lag behind the answer."""
    wait_until(lambda: lines_about(host, payment_id, words), 5, f"no line {words!r}")
    return lines_about(host, payment_id, words)[0]


def ours(host: Host) -> list[str]:
    """Return the lines of our loggers."""
    return [line for line in host.log.splitlines() if "openwebui_billing_reconcile" in line]


def test_credit_is_one_line_with_payment_user_wallet_and_amount(host: Host, user: User) -> None:
    payment_id = paid(user)
    for _ in range(3):
        answers.credited(user.reconcile(payment_id), payment_id)
    line = wait_for_line(host, payment_id, "Top-up credited")
    assert "INFO" in line
    wallet_id = host.books.wallet(user.id)["id"]
    assert re.search(rf"user={user.id} wallet={wallet_id} kopeks=100000\b", line)
    assert len(lines_about(host, payment_id, "Top-up credited")) == 1


def test_hold_is_one_warning_with_its_reason_code(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, paid=False)
    for _ in range(6):
        answers.held(user.reconcile(payment_id), HoldReason.NOT_PAID)
    line = wait_for_line(host, payment_id, "Top-up held")
    assert "WARNING" in line
    assert f"user={user.id} reason=not_paid" in line
    assert len(lines_about(host, payment_id, "Top-up held")) <= host.workers


def test_each_reason_is_logged(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status="succeeded")
    answers.held(user.reconcile(payment_id), HoldReason.SUCCEEDED_WITHOUT_LEDGER)
    host.books.change_record(payment_id, status="pending", kind="subscription")
    answers.held(user.reconcile(payment_id), HoldReason.NOT_A_TOPUP)
    wait_for_line(host, payment_id, "reason=succeeded_without_ledger")
    wait_for_line(host, payment_id, "reason=not_a_topup")


def test_secrets_and_the_providers_text_stay_out(host: Host, user: User) -> None:
    marker = "do-not-log-this-body"
    for answer in (
        {"status": 500, "raw": marker},
        {"status": 401, "raw": marker},
        {"status": 404, "raw": marker},
        {"raw": f"<html>{marker}</html>"},
        {"body": {"id": marker, "status": marker}},
        {"body": [marker]},
    ):
        payment_id = paid(user)
        host.simulator.fault(payment_id=payment_id, **answer)
        assert user.reconcile(payment_id).status_code in {502, 503}
    payment_id = paid(user)
    sound = host.simulator.payment(payment_id)["metadata"]
    host.simulator.change(payment_id, metadata=sound | {"note": marker})
    answers.credited(user.reconcile(payment_id), payment_id)
    wait_for_line(host, payment_id, "Top-up credited")
    written = "\n".join(ours(host))
    assert written
    for secret in (marker, user.token, user.email, host.simulator.secret_key, "Basic ", "Bearer "):
        assert secret not in written


def test_expected_errors_leave_no_stack_trace(host: Host, user: User, stranger: User) -> None:
    before = len(host.log)
    answers.invalid(user.reconcile("../x"))
    answers.not_owned(user.reconcile(paid(stranger)))
    answers.not_owned(user.reconcile("unknown-to-all"))
    payment_id = paid(user)
    host.simulator.change(payment_id, paid=False)
    answers.held(user.reconcile(payment_id), HoldReason.NOT_PAID)
    wait_for_line(host, payment_id, "Top-up held")
    assert "Traceback" not in "".join(ours(host))
    frames = [line for line in host.log[before:].splitlines() if "openwebui_billing_reconcile/" in line]
    assert frames == []


def test_what_the_provider_wrote_with_a_401_is_in_no_line_of_our_making(host: Host, user: User) -> None:
    """The host's words for it are asked for, and the host logs the text of what it is given."""
    payment_id = paid(user)
    host.simulator.fault(
        payment_id=payment_id, status=401, body={"type": "error", "description": "canary-401"}
    )
    detail = answers.error(user.reconcile(payment_id), 502)
    assert detail == "Payment provider credentials are invalid"
    wait_until(lambda: "YooKassa topup reconcile failed" in host.log, 5, "the host logs nothing")
    lines = [line for line in host.log.splitlines() if "YooKassa topup reconcile failed" in line]
    assert "canary-401" not in "".join([*lines, *ours(host)])
