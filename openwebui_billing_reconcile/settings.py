"""The flags: environment variables in the host's style, read when the plugin attaches.

A value that cannot be read is named in ``Settings.problems`` and its default counts instead; for the switch
itself it means off, for the mode it means observe. So is a variable that begins like a flag and is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Generic, TypeVar

import limits

T = TypeVar("T")


class Mode(StrEnum):
    """Whether what is decided is written."""

    CREDIT = "credit"
    OBSERVE = "observe"
    """Ask, decide and tell, and write nothing."""


_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("use true or false")


def _boolean_or_auto(text: str) -> bool | None:
    return None if text.lower() == "auto" else _boolean(text)


def _rates(text: str) -> tuple[limits.RateLimitItem, ...]:
    # `limits` takes "30/0minute" for "30/minute", so the numbers are looked at in the text.
    try:
        rates = tuple(limits.parse_many(text))
        if all(1 <= int(number) <= 1_000_000 for number in re.findall("[0-9]+", text)):
            return rates
    except ValueError:
        pass
    raise ValueError(
        'use one or more rates such as "30/minute" or "30/minute;100/hour", with numbers from 1 to 1000000'
    )


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= most:
            raise ValueError(f"use a number of seconds from {least:g} to {most:g}")
        return seconds

    return read


def _mode(text: str) -> Mode:
    try:
        return Mode(text.lower())
    except ValueError:
        raise ValueError("use credit or observe") from None


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class Flag(Generic[T]):
    """One environment variable: its name, how its text is read, what holds without it and on bad text."""

    name: str
    read: Callable[[str], T]
    default: T
    on_bad_value: T
    shown_default: str

    def of(self, environ: Mapping[str, str], problems: list[str]) -> T:
        text = environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.read(text)
        except ValueError as error:
            problems.append(f"{self.name} has a value that cannot be read: {error}")
            return self.on_bad_value


def _flag(name: str, read: Callable[[str], T], default: str) -> Flag[T]:
    return Flag(name, read, read(default), read(default), default)


ENABLED = Flag("ENABLE_BILLING_TOPUP_RECONCILE", _boolean, True, on_bad_value=False, shown_default="true")
FRONTEND = _flag("ENABLE_BILLING_TOPUP_RECONCILE_FRONTEND", _boolean, "true")
RATE_LIMIT = _flag("BILLING_TOPUP_RECONCILE_RATE_LIMIT", _rates, "30/minute")
DEADLINE = _flag("BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS", _seconds(0.1, 10), "8")
"""At most 10 s, since the whole reply has 12, see ``topup.reply``."""

TEST_PAYMENTS = _flag("BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS", _boolean_or_auto, "auto")
BLOCKED = _flag("BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS", _names, "")
MODE = Flag("BILLING_TOPUP_RECONCILE_MODE", _mode, Mode.CREDIT, Mode.OBSERVE, shown_default="credit")
"""Who asks for a mode that there is not gets the one that writes nothing."""

SWEEP = _flag("ENABLE_BILLING_TOPUP_RECONCILE_SWEEP", _boolean, "true")
SWEEP_SECONDS = _flag("BILLING_TOPUP_RECONCILE_SWEEP_SECONDS", _seconds(1, 3600), "120")

TAKE_OVER = _flag("BILLING_TOPUP_RECONCILE_TAKE_OVER", _boolean, "false")

# What is not in here is reported as no flag of ours.
FLAGS: tuple[Flag[Any], ...] = (
    ENABLED,
    FRONTEND,
    RATE_LIMIT,
    DEADLINE,
    TEST_PAYMENTS,
    BLOCKED,
    MODE,
    SWEEP,
    SWEEP_SECONDS,
    TAKE_OVER,
)


_PREFIXES = ("BILLING_TOPUP_RECONCILE", "ENABLE_BILLING_TOPUP_RECONCILE")


def _unknown_flags(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with each variable that begins like a flag and is none."""
    names = [flag.name for flag in FLAGS]
    for name in sorted(environ):
        if name.startswith(_PREFIXES) and name not in names:
            (nearest,) = get_close_matches(name, names, n=1, cutoff=0)
            yield f"{name} is no flag of this plugin and has no effect: is {nearest} meant?"


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags as read. All rates of ``rate_limit`` hold.

    ``accept_test_payments`` is ``None`` for ``auto``: only in a test shop. ``sweep_seconds`` is the time
    from one pass to the next. ``take_over``: replace a reconcile that the host has of its own.
    """

    enabled: bool = ENABLED.default
    frontend: bool = FRONTEND.default
    rate_limit: tuple[limits.RateLimitItem, ...] = RATE_LIMIT.default
    deadline_seconds: float = DEADLINE.default
    accept_test_payments: bool | None = TEST_PAYMENTS.default
    blocked_plugins: frozenset[str] = BLOCKED.default
    mode: Mode = MODE.default
    sweep: bool = SWEEP.default
    sweep_seconds: float = SWEEP_SECONDS.default
    take_over: bool = TAKE_OVER.default
    problems: tuple[str, ...] = ()

    def accepts_test_payments(self, is_test_shop: bool | None) -> bool:
        """Whether test payments are credited in such a shop; ``None``, not known, counts as live."""
        accepts = self.accept_test_payments
        return is_test_shop is True if accepts is None else accepts

    @property
    def words(self) -> str:
        """Whether it writes, sweeps, and how often: for the line at start and for ``status``."""
        sweeping = f"sweeps every {self.sweep_seconds:g} s" if self.sweep else "does not sweep"
        return f"only observes, {sweeping}" if self.mode is Mode.OBSERVE else sweeping

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that ``environ`` asks for. Never raises: see ``problems``."""
        problems = list(_unknown_flags(environ))
        return cls(
            enabled=ENABLED.of(environ, problems),
            frontend=FRONTEND.of(environ, problems),
            rate_limit=RATE_LIMIT.of(environ, problems),
            deadline_seconds=DEADLINE.of(environ, problems),
            accept_test_payments=TEST_PAYMENTS.of(environ, problems),
            blocked_plugins=BLOCKED.of(environ, problems),
            mode=MODE.of(environ, problems),
            sweep=SWEEP.of(environ, problems),
            sweep_seconds=SWEEP_SECONDS.of(environ, problems),
            take_over=TAKE_OVER.of(environ, problems),
            problems=tuple(problems),
        )
