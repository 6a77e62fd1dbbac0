"""A period of whole days, as the provider counts them: Moscow's, from ``since`` to before ``until``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

from openwebui_billing_reconcile.errors import InvalidPeriodError
from openwebui_billing_reconcile.money.values import parse_time

MOSCOW: Final = timezone(timedelta(hours=3))
"""Without summer time since 2014, so no time zone data is needed."""

DEFAULT_DAYS: Final = 30
"""More than the eight days after which a top-up is open too long."""

MAX_DAYS: Final = 92

_FIRST_YEAR: Final = 2000
"""Earlier years cannot be meant, and those near the first one cannot be reckoned with."""


@dataclass(frozen=True, slots=True)
class Period:
    """Days from ``since`` to before ``until``."""

    since: date
    until: date

    @classmethod
    def parse(cls, since: str | None, until: str | None, now: float) -> Period:
        """Parse two dates as YYYY-MM-DD; by default the last ``DEFAULT_DAYS``, today's included.

        ``now`` is in epoch seconds. Raises ``InvalidPeriodError``.
        """
        end = _date(until) if until else moscow_day(now) + timedelta(days=1)
        start = _date(since) if since else end - timedelta(days=DEFAULT_DAYS)
        if not 1 <= (end - start).days <= MAX_DAYS:
            raise InvalidPeriodError(f"until must be 1 to {MAX_DAYS} days after since; it is not included")
        return cls(start, end)

    @classmethod
    def last(cls, days: int, now: float) -> Period:
        """Return the last ``days`` days, today's included."""
        end = moscow_day(now) + timedelta(days=1)
        return cls(end - timedelta(days=days), end)

    @property
    def start(self) -> float:
        """The beginning, in epoch seconds."""
        return _midnight(self.since)

    @property
    def end(self) -> float:
        """The end, which is not included, in epoch seconds."""
        return _midnight(self.until)

    @property
    def days(self) -> list[date]:
        """Each day."""
        return [self.since + timedelta(days=n) for n in range((self.until - self.since).days)]

    def has(self, timestamp: str | None) -> bool:
        """Whether a provider's timestamp is in the period; so is one that cannot be read."""
        seconds = parse_time(timestamp)
        return seconds is None or self.start <= seconds < self.end


def moscow_day(seconds: float) -> date:
    """Return the day of a moment in epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC).astimezone(MOSCOW).date()


def _date(text: str) -> date:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=MOSCOW).date()
    except ValueError:
        raise InvalidPeriodError("since and until must be dates as YYYY-MM-DD") from None
    if day.year < _FIRST_YEAR:
        raise InvalidPeriodError(f"since and until must not be before the year {_FIRST_YEAR}")
    return day


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=MOSCOW).timestamp()
