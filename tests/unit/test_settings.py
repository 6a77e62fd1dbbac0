"""The flags."""

from __future__ import annotations

from dataclasses import replace

import limits
import pytest

from openwebui_billing_reconcile import settings
from openwebui_billing_reconcile.settings import FLAGS, Flag, Settings

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"
FRONTEND = "ENABLE_BILLING_TOPUP_RECONCILE_FRONTEND"
RATE = "BILLING_TOPUP_RECONCILE_RATE_LIMIT"
DEADLINE = "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS"
TESTS = "BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS"
BLOCKED = "BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS"


def test_without_flags_the_defaults_hold() -> None:
    settings = Settings.read({})
    assert settings == Settings(
        enabled=True,
        frontend=True,
        rate_limit=(limits.parse("30/minute"),),
        deadline_seconds=8.0,
        accept_test_payments=None,
        blocked_plugins=frozenset(),
        problems=(),
    )


def test_each_flag_is_listed_and_read() -> None:
    assert [flag for flag in vars(settings).values() if isinstance(flag, Flag) and flag not in FLAGS] == []
    # No text but a list of names can be read so.
    assert [flag.name for flag in FLAGS if Settings.read({flag.name: "?"}) == Settings.read({})] == []


@pytest.mark.parametrize("flag", [SWITCH, FRONTEND])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, True) for text in ("true", "1", "yes", "on", "TRUE", " On ", "")],
        *[(text, False) for text in ("false", "0", "no", "off", "False", " OFF ")],
    ],
)
def test_switches_are_read_in_any_case(flag: str, text: str, value: bool) -> None:
    settings = Settings.read({flag: text})
    assert (settings.enabled if flag == SWITCH else settings.frontend) is value
    assert not settings.problems


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (FRONTEND, "maybe"),
        (RATE, "many"),
        (RATE, "30/fortnight"),
        (RATE, "30/minute;"),
        (RATE, "30/minute;many"),
        (RATE, "0/minute"),
        (RATE, "30/minute;00/hour"),
        (RATE, "30/0 minutes"),
        (RATE, "1000001/minute"),
        (RATE, "1/10000000000000 years"),
        (RATE, "9" * 5000 + "/minute"),
        (DEADLINE, "soon"),
        (DEADLINE, "0"),
        (DEADLINE, "-1"),
        (DEADLINE, "nan"),
        (DEADLINE, "60"),
        (TESTS, "sometimes"),
    ],
)
def test_a_bad_value_is_named_and_the_default_holds(flag: str, text: str) -> None:
    settings = Settings.read({flag: text})
    (problem,) = settings.problems
    assert flag in problem
    assert replace(settings, problems=()) == Settings.read({})


@pytest.mark.parametrize("text", ["0/minute", "many"])
def test_a_bad_rate_is_told_what_to_use(text: str) -> None:
    (problem,) = Settings.read({RATE: text}).problems
    assert '"30/minute;100/hour", with numbers from 1 to 1000000' in problem


@pytest.mark.parametrize(
    "text", ["30/minute;100/hour", "30/minute, 100/hour", "30 per minute | 100 per 1 hour"]
)
def test_several_rates_are_read(text: str) -> None:
    settings = Settings.read({RATE: text})
    assert settings.rate_limit == (limits.parse("30/minute"), limits.parse("100/hour"))
    assert not settings.problems


def test_a_bad_switch_means_off() -> None:
    settings = Settings.read({SWITCH: "ture"})
    assert settings.enabled is False
    assert SWITCH in settings.problems[0]


def test_values_are_read() -> None:
    settings = Settings.read({RATE: "5/second", DEADLINE: "2.5", TESTS: "true", BLOCKED: " a, b ,,c"})
    assert settings.rate_limit == (limits.parse("5/second"),)
    assert settings.deadline_seconds == 2.5
    assert settings.accept_test_payments is True
    assert settings.blocked_plugins == {"a", "b", "c"}
    assert Settings.read({TESTS: "auto"}).accept_test_payments is None
    assert Settings.read({TESTS: "off"}).accept_test_payments is False


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ENABLE_BILLING_TOPUP_RECONCILE_SWEEPS", "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP"),
        ("BILLING_TOPUP_RECONCILE_SWEEP_SECOND", "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS"),
        ("BILLING_TOPUP_RECONCILE_RATELIMIT", RATE),
        ("BILLING_TOPUP_RECONCILE_MODUS", "BILLING_TOPUP_RECONCILE_MODE"),
    ],
)
def test_a_variable_that_resembles_a_flag_is_named_with_the_one_it_resembles(name: str, meant: str) -> None:
    (problem,) = Settings.read({name: "1", "BILLING_TOPUP_TTL_DAYS": "3", SWITCH: "on"}).problems
    assert problem == f"{name} is no flag of this plugin and has no effect: is {meant} meant?"


@pytest.mark.parametrize(("text", "words"), [("", "sweeps every 120 s"), ("30.5", "sweeps every 30.5 s")])
def test_how_often_it_sweeps_is_said(text: str, words: str) -> None:
    assert Settings.read({"BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": text}).words == words
    assert Settings.read({"ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "off"}).words == "does not sweep"


@pytest.mark.parametrize("text", ["0.9", "3601", "nan", "inf", "often", "-5"])
def test_a_bad_interval_is_named_and_the_default_holds(text: str) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": text})
    assert settings.sweep_seconds == 120
    (problem,) = settings.problems
    assert problem.endswith("use a number of seconds from 1 to 3600")


@pytest.mark.parametrize(
    ("text", "mode"), [("", "credit"), ("credit", "credit"), ("OBSERVE", "observe"), ("watch", "observe")]
)
def test_a_mode_that_there_is_not_means_observe(text: str, mode: str) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_MODE": text})
    assert settings.mode == mode
    assert bool(settings.problems) is (text == "watch")
    assert settings.words.startswith("only observes, ") is (mode == "observe")
