"""The report: how many credits came which way, how late, and what is open."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.reader import LedgerReader
from openwebui_billing_reconcile.money.values import parse_time
from openwebui_billing_reconcile.operate import report
from openwebui_billing_reconcile.operate.period import Period
from openwebui_billing_reconcile.operate.report import OPEN_AGES, PATHS, Report
from openwebui_billing_reconcile.operate.sweep import Pass
from tests.unit.desk import Desk
from tests.unit.stub_host import StubHost

HOUR = 60 * 60
DAY = 24 * HOUR


def seconds(text: str) -> int:
    moment = parse_time(text)
    assert moment is not None
    return int(moment)


NOW = seconds("2026-03-10T09:00:00Z")
"""Noon in Moscow."""


class Reporting(Desk):
    """A host whose credits are counted."""

    def __init__(self, stub: StubHost) -> None:
        super().__init__(stub)
        self.stub = stub
        self.credits = 0

    def add_credit(
        self,
        at: int = NOW,
        kopeks: int = 100,
        currency: str = "RUB",
        entry: object = None,
        payload: object = None,
        **changes: Any,
    ) -> None:
        """Add a credit that says ``entry`` of itself and ``payload`` with its payment."""
        self.credits += 1
        payment_id = f"pay-{self.credits}"
        self.stub.add_payment(
            id=payment_id,
            provider_payment_id=payment_id,
            status="succeeded",
            raw_payload_json=payload,
        )
        row = {
            "id": payment_id,
            "user_id": "me",
            "wallet_id": "w1",
            "currency": currency,
            "type": "topup",
            "amount_kopeks": kopeks,
            "reference_type": "payment",
            "reference_id": payment_id,
            "metadata_json": entry,
            "created_at": at,
        }
        self.stub.add("LedgerEntry", **row | changes)

    def read(self, days: int = 1, last_pass: Pass | None = None) -> dict[str, Any]:
        """Return the report."""
        return Report(Ledger(self.host), "RUB").read(Period.last(days, NOW), last_pass)

    def paths(self) -> dict[str, tuple[int, int]]:
        """Return how many credits and kopeks came each way today, where there are any."""
        (today,) = self.read()["days"]
        totals = {path: (today[path]["count"], today[path]["kopeks"]) for path in PATHS}
        return {path: total for path, total in totals.items() if total != (0, 0)}


@pytest.fixture
def desk(host: StubHost, mocker: MockerFixture) -> Reporting:
    """Return a host at noon."""
    mocker.patch.object(report, "time").time.return_value = float(NOW)
    return Reporting(host)


def came(way: object, captured_at: object = None) -> dict[str, Any]:
    """Return what stands with a payment."""
    return {"reconciled_by": way, "captured_at": captured_at}


# --- Ways ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["return", "visit", "sweep", "release"])
def test_the_payments_payload_says_which_way_a_credit_came(desk: Reporting, way: str) -> None:
    desk.add_credit(payload={"metadata": came(way)})
    assert desk.paths() == {way: (1, 100)}


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"metadata": {"kind": "topup"}},
        {"metadata": "odd"},
        {"metadata": None},
        ["odd"],
        "odd",
        1,
        {"reconciled_by": "sweep"},
    ],
)
def test_what_says_nothing_came_by_webhook(desk: Reporting, payload: object) -> None:
    desk.add_credit(payload=payload)
    assert desk.paths() == {"webhook": (1, 100)}


@pytest.mark.parametrize("way", ["webhook", "other", "", 1, None, ["sweep"], {"sweep": 1}])
def test_so_does_what_says_something_unknown(desk: Reporting, way: object) -> None:
    desk.add_credit(payload={"metadata": came(way, "2026-03-10T08:00:00Z")})
    assert desk.paths() == {"webhook": (1, 100)}
    assert desk.read()["delay_seconds"] == {"median": None, "p95": None}


def test_the_entry_counts_before_the_payload(desk: Reporting) -> None:
    released = came("release", "2026-03-10T08:59:00Z")
    desk.add_credit(entry=released, payload={"metadata": came("sweep", "2026-03-10T08:00:00Z")})
    desk.add_credit(entry=released, payload={"metadata": {"kind": "topup"}})
    desk.add_credit(entry={"provider": "yookassa"}, payload={"metadata": came("visit")})
    assert desk.paths() == {"release": (2, 200), "visit": (1, 100)}
    assert desk.read()["delay_seconds"]["median"] == 60.0


def test_columns_of_text_are_read_as_well(desk: Reporting) -> None:
    desk.add_credit(entry='{"reconciled_by": "release"}')
    desk.add_credit(entry="{odd", payload='{"metadata": {"reconciled_by": "sweep"}}')
    assert desk.paths() == {"release": (1, 100), "sweep": (1, 100)}


def test_amounts_are_summed_of_the_hosts_currency_only(desk: Reporting) -> None:
    desk.add_credit(kopeks=1)
    desk.add_credit(kopeks=20)
    desk.add_credit(kopeks=300, currency="USD")
    assert desk.paths() == {"webhook": (3, 21)}


@pytest.mark.parametrize("changes", [{"type": "adjustment"}, {"reference_type": "manual"}])
def test_only_what_credits_a_payment_counts(desk: Reporting, changes: dict[str, Any]) -> None:
    desk.add_credit(**changes)
    assert desk.paths() == {}


def test_all_pages_count(desk: Reporting, mocker: MockerFixture) -> None:
    mocker.patch.object(report, "_PAGE", 2)
    for _ in range(5):
        desk.add_credit()
    assert desk.paths() == {"webhook": (5, 500)}


# --- Days ------------------------------------------------------------------------------------------------


def test_days_are_moscows_and_todays_is_the_last(desk: Reporting) -> None:
    for text in (
        "2026-03-07T20:59:59Z",
        "2026-03-07T21:00:00Z",
        "2026-03-08T20:59:59Z",
        "2026-03-09T21:00:00Z",
        "2026-03-10T20:59:59Z",
        "2026-03-10T21:00:00Z",
    ):
        desk.add_credit(seconds(text))
    answer = desk.read(3)
    days = answer["days"]
    assert [(day["date"], day["webhook"]["count"]) for day in days] == [
        ("2026-03-08", 2),
        ("2026-03-09", 0),
        ("2026-03-10", 2),
    ]
    assert (answer["since"], answer["until"]) == ("2026-03-08", "2026-03-11")
    assert (answer["totals"].keys(), answer["totals"]["webhook"]["count"]) == (set(PATHS), 4)
    assert all(day.keys() == {"date", *PATHS} for day in days)
    assert PATHS == ("webhook", "return", "visit", "sweep", "release")


def test_a_day_without_credits_is_there_as_well(desk: Reporting) -> None:
    days = desk.read(92)["days"]
    assert len(days) == 92
    assert date.fromisoformat(days[0]["date"]) == date(2025, 12, 9)


# --- Delays ----------------------------------------------------------------------------------------------


def after(delay: int) -> str:
    """Return when a payment was captured that is credited ``delay`` seconds later, now."""
    hours, rest = divmod(9 * HOUR - delay, HOUR)
    return f"2026-03-10T{hours:02d}:{rest // 60:02d}:{rest % 60:02d}.000Z"


def delays(desk: Reporting) -> tuple[float | None, float | None]:
    delay = desk.read()["delay_seconds"]
    assert delay.keys() == {"median", "p95"}
    return delay["median"], delay["p95"]


def test_without_credits_of_ours_there_is_no_delay(desk: Reporting) -> None:
    desk.add_credit(payload={"metadata": {"captured_at": after(60)}})
    desk.add_credit(payload={"metadata": came("sweep")})
    desk.add_credit(payload={"metadata": came("sweep", "odd")})
    desk.add_credit(payload={"metadata": came("sweep", "2026-03-10T08:00:00")})
    assert delays(desk) == (None, None)


def test_one_is_the_median_and_all(desk: Reporting) -> None:
    desk.add_credit(payload={"metadata": came("return", after(60))})
    assert delays(desk) == (60.0, 60.0)


def test_delays_of_all_our_ways_count_in_order(desk: Reporting) -> None:
    for number in range(101):
        way = ("return", "visit", "sweep")[number % 3]
        desk.add_credit(payload={"metadata": came(way, after(number * 10))})
    assert delays(desk) == (500.0, 950.0)


def test_clocks_that_differ_make_no_negative_delay(desk: Reporting) -> None:
    desk.add_credit(payload={"metadata": came("return", "2026-03-10T09:00:01.000Z")})
    assert delays(desk) == (0.0, 0.0)


# --- The rest --------------------------------------------------------------------------------------------


def test_open_topups_are_counted_by_their_age(desk: Reporting) -> None:
    ages = (0, HOUR - 1, HOUR, DAY - 1, DAY, 8 * DAY - 1, 8 * DAY, 400 * DAY)
    for number, age in enumerate(ages):
        name = f"open-{number}"
        desk.stub.add_payment(id=name, provider_payment_id=name, created_at=NOW - age)
    desk.stub.add_payment(id="a", provider_payment_id="a", status="canceled")
    desk.stub.add_payment(id="b", provider_payment_id="b", kind="subscription")
    assert desk.read()["open"] == [
        {"older_than": HOUR, "count": 6},
        {"older_than": DAY, "count": 4},
        {"older_than": 8 * DAY, "count": 2},
    ]
    assert OPEN_AGES == (HOUR, DAY, 8 * DAY)


def test_the_last_pass_is_told_as_it_is(desk: Reporting) -> None:
    assert desk.read()["last_pass"] is None
    last_pass = desk.read(1, Pass(1.0, 2.0, listed=3, is_complete=True))["last_pass"]
    assert (last_pass["began_at"], last_pass["listed"], last_pass["is_complete"]) == (1.0, 3, True)


@pytest.mark.parametrize("method", ["credited_topups", "count_open_topups"])
def test_a_database_that_does_not_answer_is_try_later(
    desk: Reporting, mocker: MockerFixture, method: str
) -> None:
    error = OperationalError("x", {}, Exception("secret"))
    mocker.patch.object(LedgerReader, method, side_effect=error)
    with pytest.raises(TemporarilyUnavailableError) as raised:
        desk.read()
    assert raised.value.reason == "database_unavailable"
