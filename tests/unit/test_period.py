"""Days as the provider counts them, and which days may be asked about."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwebui_billing_reconcile.errors import InvalidPeriodError
from openwebui_billing_reconcile.operate.period import DEFAULT_DAYS, MAX_DAYS, Period, moscow_day
from openwebui_billing_reconcile.operate.sweep import OLDEST_OPEN


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


NOW = seconds("2026-03-10T20:59:59Z")  # 23:59:59 in Moscow


# --- Which days ------------------------------------------------------------------------------------------


def test_by_default_it_is_the_last_thirty_days_with_today() -> None:
    assert Period.parse(None, None, NOW) == Period(date(2026, 2, 9), date(2026, 3, 11))


def test_by_default_there_are_days_that_are_open_too_long() -> None:
    assert DEFAULT_DAYS * 24 * 60 * 60 > OLDEST_OPEN


def test_today_is_moscows() -> None:
    assert Period.parse(None, None, NOW + 1) == Period(date(2026, 2, 10), date(2026, 3, 12))


@pytest.mark.parametrize("absent", [None, ""])
def test_one_of_the_days_may_be_left_out(absent: str | None) -> None:
    since, until = "2026-03-01", "2026-02-08"
    assert Period.parse(since, absent, NOW) == Period(date(2026, 3, 1), date(2026, 3, 11))
    assert Period.parse(absent, until, NOW) == Period(date(2026, 1, 9), date(2026, 2, 8))


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        ("2026-03-01", "2026-03-02", 1),
        ("2026-01-01", "2026-04-03", MAX_DAYS),
        ("2030-01-01", "2030-01-02", 1),
    ],
)
def test_one_day_to_ninety_two_may_be_asked_about(since: str, until: str, days: int) -> None:
    period = Period.parse(since, until, NOW)
    assert len(period.days) == days
    assert period.days[0] == period.since
    assert period.until not in period.days
    assert MAX_DAYS == 92


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-03-01", "2026-03-01"),
        ("2026-03-02", "2026-03-01"),
        ("2026-01-01", "2026-04-04"),
        ("2026-03-11", None),
        ("2025-03-11", None),
        ("9999-12-31", None),
    ],
)
def test_no_other_number_of_days(since: str, until: str | None) -> None:
    with pytest.raises(InvalidPeriodError, match="until must be 1 to 92 days after since"):
        Period.parse(since, until, NOW)


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-02-30",
        "2026-13-01",
        "2026-00-01",
        "10.03.2026",
        "03/10/2026",
        "20260310",
        "2026-W10-1",
        "2026-03",
        "26-03-10",
        "2026-03-10T00:00",
        " 2026-03-10",
        "2026-03-10 ",
        "2026-03-10\n",
        "-2026-03-10",
        "1773133200",
        "0",
        "🗓",
    ],
)
def test_what_is_no_date_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidPeriodError, match="since and until must be dates as YYYY-MM-DD"):
        Period.parse(*((text, "2026-03-11") if name == "since" else ("2026-03-10", text)), NOW)


@pytest.mark.parametrize(
    ("since", "until", "name"),
    [
        (None, "0001-01-03", "until"),
        ("0001-01-01", "0001-01-02", "until"),
        ("1999-12-31", "2000-01-02", "since"),
    ],
)
def test_a_year_that_cannot_be_meant_is_refused(since: str | None, until: str, name: str) -> None:
    with pytest.raises(InvalidPeriodError, match="since and until must not be before the year 2000"):
        Period.parse(since, until, NOW)


# --- Which moments ---------------------------------------------------------------------------------------

DAY = Period(date(2026, 3, 10), date(2026, 3, 11))


def test_a_day_is_from_midnight_to_midnight_in_moscow() -> None:
    assert DAY.start == seconds("2026-03-09T21:00:00Z")
    assert DAY.end == seconds("2026-03-10T21:00:00Z")


@pytest.mark.parametrize(
    ("timestamp", "is_in"),
    [
        ("2026-03-09T20:59:59.999Z", False),
        ("2026-03-09T21:00:00.000Z", True),
        ("2026-03-10T00:00:00.000+03:00", True),
        ("2026-03-10T20:59:59.999Z", True),
        ("2026-03-10T21:00:00.000Z", False),
    ],
)
def test_the_end_is_not_in_it(timestamp: str, is_in: bool) -> None:
    assert DAY.has(timestamp) is is_in


@pytest.mark.parametrize("timestamp", [None, "", "odd", "2020-01-01T00:00:00"])
def test_a_moment_that_cannot_be_read_is_in_every_period(timestamp: str | None) -> None:
    assert DAY.has(timestamp)


@given(st.datetimes(datetime(2014, 11, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - made aware below
def test_each_moment_is_in_its_day_and_in_no_other(moment: datetime) -> None:
    timestamp = moment.replace(tzinfo=UTC)
    day = moscow_day(timestamp.timestamp())
    one = timedelta(days=1)
    for start, is_in in ((day - one, False), (day, True), (day + one, False)):
        assert Period(start, start + one).has(timestamp.isoformat()) is is_in


def test_the_last_days_end_with_today() -> None:
    assert Period.last(1, NOW) == DAY
    assert Period.last(30, NOW) == Period(date(2026, 2, 9), date(2026, 3, 11))
