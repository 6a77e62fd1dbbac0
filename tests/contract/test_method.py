"""`BillingService.reconcile_topup_payment`: the same as the endpoint, for the host's own code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host
from tests.support.yookassa.client import Document

from . import answers
from .scenarios import paid, unrecorded

SCRIPT = Path(__file__).with_name("method_calls.py")
MARK = "outcomes of the calls: "
SECONDS = 120


class MethodCalls:
    """Payments in every state, and the outcome of calling the method for each."""

    def __init__(self, host: Host) -> None:
        self.user, self.stranger = host.new_user(), host.new_user()
        self.paid = paid(self.user)
        self.unrecorded = unrecorded(self.user)
        self.pending = self.user.topup()
        self.anothers = paid(self.stranger)
        self.unpaid = paid(self.user)
        host.simulator.change(self.unpaid, paid=False)
        self.failing, self.rejected, self.invalid = (paid(self.user) for _ in range(3))
        host.simulator.fault(payment_id=self.failing, status=500)
        host.simulator.fault(payment_id=self.rejected, status=401)
        host.simulator.fault(payment_id=self.invalid, body=[])
        ids = {
            **{name: value for name, value in vars(self).items() if isinstance(value, str)},
            "paid again": self.paid,
            "unknown": "unknown",
            "none": None,
            "blank": " ",
            "number": 5,
            "hostile": "../refunds",
        }
        report = self._run(
            host, {name: {"user_id": self.user.id, "payment_id": value} for name, value in ids.items()}
        )
        self.outcomes: dict[str, Document] = report["outcomes"]
        self.stubs: dict[str, Document] = report["stubs"]
        self.report = report

    def _run(self, host: Host, calls: Document) -> Document:
        """Make the calls in a process of its own beside the host's, on the host's database."""
        static = Path(host.environment["DATA_DIR"]) / "static_of_the_method"
        static.mkdir()
        done = subprocess.run(
            [host.program.python, SCRIPT],
            cwd=host.program.folder,
            # A script's own folder comes first on the path, and the host's is not on it.
            env={**host.environment, "STATIC_DIR": str(static), "PYTHONPATH": str(host.program.folder)},
            input=json.dumps(calls),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        marked = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        assert marked, done.stdout + done.stderr
        report: Document = json.loads(marked[0].removeprefix(MARK))
        return report


@pytest.fixture(scope="session")
def calls(sqlite_host: Host) -> MethodCalls:
    """Return the outcomes of calls made once for all tests."""
    return MethodCalls(sqlite_host)


def test_method_is_async_and_takes_user_and_payment(calls: MethodCalls) -> None:
    assert calls.report["is_async"] is True
    assert calls.report["parameters"] == ["user_id", "payment_id"]


@pytest.mark.parametrize("name", ["paid", "paid again", "unrecorded"])
def test_credit_is_a_dict_of_four_keys(calls: MethodCalls, name: str) -> None:
    outcome = calls.outcomes[name]
    assert outcome["is_dict"] is True
    assert outcome["result"] == {
        "payment_id": getattr(calls, name.split()[0]),
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
    }


def test_credits_are_in_the_ledger(calls: MethodCalls) -> None:
    books = calls.user.host.books
    for payment_id in (calls.paid, calls.unrecorded):
        assert len(books.entries(payment_id)) == 1
    assert books.wallet(calls.user.id)["balance_topup_kopeks"] == 200_000


def test_undecided_is_a_dict_of_four_keys(calls: MethodCalls) -> None:
    assert calls.outcomes["pending"]["result"] == {
        "payment_id": calls.pending,
        "provider_status": "pending",
        "payment_status": "pending",
        "credited": False,
    }


@pytest.mark.parametrize("name", ["none", "blank", "number", "hostile"])
def test_bad_id_is_a_value_error(calls: MethodCalls, name: str) -> None:
    outcome = calls.outcomes[name]
    assert outcome["families"] == ["ValueError"]
    assert outcome["reason"] == "invalid_payment_id"
    assert outcome["retry_after"] is None


@pytest.mark.parametrize("name", ["anothers", "unknown"])
def test_payment_not_owned_is_a_permission_error(calls: MethodCalls, name: str) -> None:
    assert calls.outcomes[name] == {
        "families": ["PermissionError"],
        "words": answers.NOT_OWNED,
        "reason": "not_owned",
        "retry_after": None,
    }


def test_hold_is_a_runtime_error_with_its_reason(calls: MethodCalls) -> None:
    assert calls.outcomes["unpaid"] == {
        "families": ["RuntimeError"],
        "words": HoldReason.NOT_PAID.message,
        "reason": "not_paid",
        "retry_after": None,
    }


@pytest.mark.parametrize("name", ["rejected", "invalid"])
def test_rejected_query_and_invalid_response_are_runtime_errors(calls: MethodCalls, name: str) -> None:
    assert calls.outcomes[name]["families"] == ["RuntimeError"]
    assert calls.outcomes[name]["retry_after"] is None


def test_provider_error_is_a_runtime_error_that_says_when_to_retry(calls: MethodCalls) -> None:
    assert calls.outcomes["failing"]["families"] == ["RuntimeError"]
    assert calls.outcomes["failing"]["retry_after"] >= 1


# --- The endpoint calls the host's service, whatever it is ---------------------------------------


def test_endpoint_calls_the_service_of_the_router(calls: MethodCalls) -> None:
    assert calls.stubs["result"] == {
        "status": 200,
        "body": {"payment_id": "x", "provider_status": "pending", "payment_status": None, "credited": False},
        "calls": [{"user_id": "signed_in", "payment_id": "x"}],
    }


@pytest.mark.parametrize(
    ("name", "status"),
    [("ValueError", 400), ("PermissionError", 403), ("RuntimeError", 503), ("unexpected", 503)],
)
def test_plain_errors_of_a_service_have_their_status(calls: MethodCalls, name: str, status: int) -> None:
    stub = calls.stubs[name]
    assert stub["status"] == status
    assert stub["body"].keys() == {"detail"}
    assert "secret" not in stub["body"]["detail"]


def test_endpoint_reads_the_flag_where_the_host_has_it(calls: MethodCalls) -> None:
    assert calls.report["off"] == 404
