"""The report counts what was done, by the way it came."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.harness.host import Host, Program
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import rubles

from . import answers
from .scenarios import host_with_a_provider, paid

SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1",
}
DAY = 24 * 60 * 60


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest, program: Program, postgres: Postgres) -> Iterator[Host]:
    """Yield a host that sweeps every second: SQLite and one worker, PostgreSQL and two."""
    with host_with_a_provider(program, postgres, request.param, SWEEPING) as host:
        yield host


def report(host: Host) -> dict[str, Any]:
    answer: dict[str, Any] = host.admin.report(2).raise_for_status().json()
    return answer


def totals(answer: dict[str, Any]) -> dict[str, tuple[int, int]]:
    paths = ("webhook", "return", "visit", "sweep", "release")
    return {
        path: (
            sum(day[path]["count"] for day in answer["days"]),
            sum(day[path]["kopeks"] for day in answer["days"]),
        )
        for path in paths
    }


def test_counts_are_what_was_done(host: Host) -> None:
    user = host.new_user()
    # Not listed yet, so that the sweep leaves them to the others.
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds")
    old = (datetime.now(UTC) - timedelta(days=3)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    by_webhook, returned, visited, short = (user.topup() for _ in range(4))
    for payment_id in (by_webhook, returned, visited, short):
        host.simulator.change(payment_id, status="succeeded", paid=True, captured_at=old)
    host.simulator.change(short, amount=rubles("1.00"))
    assert host.webhook(by_webhook) == 200
    answers.credited(user.reconcile(returned), returned)
    assert user.reconcile_pending().status_code == 200
    assert host.admin.release(short, "amount_mismatch").status_code == 200
    swept = paid(user)
    wait_until(lambda: host.books.entries(swept), 60, "not swept")

    answer = report(host)
    assert totals(answer) == {
        "webhook": (1, 100_000),
        "return": (1, 100_000),
        "visit": (1, 100_000),
        "sweep": (1, 100_000),
        "release": (1, 100),
    }
    assert answer["delay_seconds"]["p95"] >= 2 * DAY
    assert [day["date"] for day in answer["days"]] == sorted(day["date"] for day in answer["days"])
    assert len(answer["days"]) == 2
    assert (answer["mode"], answer["plugins"]) == ("credit", ["builtin", "builtin_metrics"])
    assert tomorrow


def test_open_topups_are_counted_by_age(host: Host) -> None:
    user = host.new_user()
    before = {row["older_than"]: row["count"] for row in report(host)["open"]}
    assert list(before) == [60 * 60, DAY, 8 * DAY]
    for age in (2 * DAY, 9 * DAY):
        host.books.change_record(user.topup(), created_at=int(time.time() - age))
    after = {row["older_than"]: row["count"] for row in report(host)["open"]}
    assert {age: after[age] - before[age] for age in after} == {60 * 60: 2, DAY: 2, 8 * DAY: 1}


def test_the_last_pass_is_told_by_the_worker_that_made_it(host: Host) -> None:
    def has_pass() -> bool:
        last_pass = report(host)["last_pass"]
        return last_pass is not None and last_pass["is_complete"] and last_pass["began_at"] > began

    began = time.time()
    wait_until(has_pass, 60, "no pass is told")


@pytest.mark.parametrize("days", ["0", "93", "x", "-1", "1.5", "٣"])
def test_a_bad_number_of_days_is_refused(host: Host, days: str) -> None:
    answers.error(host.admin.report(days), 400)
