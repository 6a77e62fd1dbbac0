"""The audit: every class of finding, the same by endpoint and by command, and nothing written."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import fork_server
from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.yookassa.client import rubles
from tests.support.yookassa.process import running_simulator

from . import answers
from .scenarios import dump, host_with_a_provider, paid, unrecorded

DAY = 24 * 60 * 60
NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest, program: Program, postgres: Postgres) -> Iterator[Host]:
    """Yield a host with a provider of its own: SQLite and one worker, PostgreSQL and two."""
    with host_with_a_provider(program, postgres, request.param, {}) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    host.simulator.clear_faults()
    user = host.new_user()
    user.balance()
    return user


def mixture(user: User) -> dict[str, dict[str, Any]]:
    """Make payments of every class; what is to be said of each, by its id."""
    host, provider, books = user.host, user.host.simulator, user.host.books
    wallet_id = books.wallet(user.id)["id"]
    credited = [paid(user) for _ in range(4)]
    for payment_id in credited:
        answers.credited(user.reconcile(payment_id), payment_id)
    fine, given_back, unpaid, differs = credited
    provider.refund(given_back, "400.00")
    provider.change(unpaid, status="canceled", paid=False, remove=["captured_at"])
    provider.change(differs, amount=rubles("1.00"))
    lost, short = paid(user), paid(user)
    provider.change(short, amount=rubles("1.00"))
    by_hand = paid(user)
    books.add_entry(user.id, wallet_id, type="adjustment", reference_id=by_hand)
    homeless = unrecorded(user, metadata={"wallet_id": "gone"})
    forgotten = user.topup()
    books.change_record(forgotten, created_at=int(time.time()) - 10 * DAY)
    invented = "made-up-by-hand"
    books.add_entry(user.id, wallet_id, reference_id=invented, idempotency_key=invented)
    unrecorded(user, metadata={"user_id": "elsewhere"})  # of another system in the same shop
    assert host.webhook(fine) == 200

    def found(kind: str, kopeks: int, **more: Any) -> dict[str, Any]:
        usual = {"class": kind, "user_id": user.id, "wallet_id": wallet_id, "reason": None}
        return usual | {"amount_kopeks": kopeks, "currency": "RUB", "releasable": False} | more

    return {
        given_back: found("refunded_after_credit", 40_000),
        unpaid: found("credited_unpaid", 100_000),
        invented: found("credited_unpaid", 100_000),
        differs: found("amount_differs", 100),
        lost: found("uncredited", 100_000, reason="uncredited", releasable=True),
        short: found("held", 100, reason="amount_mismatch", releasable=True),
        homeless: found("unknown_here", 100_000, wallet_id="gone", reason="wallet_missing", releasable=True),
        forgotten: found("open_too_long", 100_000),
    }


def days(before: int) -> dict[str, str]:
    """Return the period that begins so many days ago, and ends tomorrow."""
    moscow = time.time() + 3 * 60 * 60
    since, until = (time.strftime("%Y-%m-%d", time.gmtime(moscow + n * DAY)) for n in (-before, 1))
    return {"since": since, "until": until}


def of_user(user: User, findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        found.pop("payment_id"): {name: value for name, value in found.items() if name != "captured_at"}
        for found in map(dict, findings)
        if found["user_id"] == user.id
    }


def command(host: Host, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside the host, in its environment."""
    program = [host.program.python, "-m", "openwebui_billing_reconcile", "audit", *options]
    return fork_server.run(program, host.environment, host.program.folder, timeout=120)


def test_endpoint_stream_and_command_name_the_same_truth_and_write_nothing(host: Host, user: User) -> None:
    expected = mixture(user)
    before = dump(host)
    period = days(20)
    answer = host.admin.audit(**period).raise_for_status().json()
    assert of_user(user, answer["findings"]) == expected
    assert {name: answer[name] for name in period} == period
    for kind, total in answer["totals"].items():
        of_kind = [found for found in answer["findings"] if found["class"] == kind]
        assert total == {"count": len(of_kind), "kopeks": sum(found["amount_kopeks"] for found in of_kind)}
    assert answer["settled"] >= 1
    assert answer["checked"]["others"] >= 1
    assert answer["checked"]["entries"] >= 5

    lines = [json.loads(line) for line in host.admin.audit(NDJSON, **period).text.splitlines()]
    kinds = [next(iter(line)) for line in lines]
    assert kinds[0] == "progress"
    assert kinds == sorted(kinds, key=["progress", "finding", "since"].index)
    assert [line["finding"] for line in lines if "finding" in line] == answer["findings"]
    assert lines[-1] == {name: value for name, value in answer.items() if name != "findings"}

    options = ("--since", period["since"], "--until", period["until"])
    done = command(host, "--json", *options)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == answer
    rows = list(csv.DictReader(io.StringIO(command(host, "--csv", *options).stdout)))
    assert [row["payment_id"] for row in rows] == [found["payment_id"] for found in answer["findings"]]
    text = command(host, *options).stdout
    assert all(payment_id in text for payment_id in expected)
    assert dump(host) == before


def test_the_command_runs_while_the_host_is_stopped(program: Program, postgres: Postgres) -> None:
    with running_simulator() as provider:
        with running_host(program, simulator=provider, database_url=postgres.new_database()) as host:
            lost = paid(host.new_user())
        done = command(host, "--json")
        assert (done.returncode, done.stderr) == (1, "")
        (found,) = json.loads(done.stdout)["findings"]
        assert (found["payment_id"], found["class"]) == (lost, "uncredited")
        assert command(host, "--since", "2026-01-01", "--until", "2026-01-02").returncode == 0
        provider.fault(sequence=[{"status": 401}])
        failed = command(host)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "could not be made" in failed.stderr
        assert provider.secret_key not in failed.stderr


def test_a_day_is_the_providers_and_the_last_one_is_not_included(host: Host, user: User) -> None:
    inside, outside = paid(user), paid(user)
    host.simulator.change(inside, captured_at="2026-01-09T20:59:59.999Z")
    host.simulator.change(outside, captured_at="2026-01-09T21:00:00.000Z")
    answer = host.admin.audit(since="2026-01-09", until="2026-01-10").json()
    assert of_user(user, answer["findings"]).keys() == {inside}
    answer = host.admin.audit(since="2026-01-10", until="2026-01-11").json()
    assert of_user(user, answer["findings"]).keys() == {outside}


@pytest.mark.parametrize(
    "period",
    [
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"since": "2026-01-02", "until": "2026-01-02"},
        {"since": "2026-01-01", "until": "2026-04-04"},
    ],
)
def test_bad_days_are_refused(host: Host, period: dict[str, str]) -> None:
    answers.error(host.admin.audit(**period), 400)


def test_what_the_provider_refuses_is_an_error_before_and_a_line_after_the_start(
    host: Host, user: User
) -> None:
    for _ in range(101):
        unrecorded(user, metadata={"kind": "other"})
    host.simulator.fault(sequence=[{"status": 500}])
    answers.temporarily_unavailable(host.admin.audit(NDJSON))
    host.simulator.fault(sequence=[{}, {"status": 500}])
    lines = host.admin.audit(NDJSON).text.splitlines()
    assert json.loads(lines[-1])["error"]["detail"]
    host.simulator.clear_faults()
    assert host.admin.audit().status_code == 200
