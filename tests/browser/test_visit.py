"""What a user sees who comes without a stored top-up: too late, with another browser, or to an open tab."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

from .browser_user import BrowserUser
from .conftest import NewBrowserUser

EMPTY = "₽0.00"
FULL = "₽1,000.00"
TWICE = "₽2,000.00"
ELEVEN_MINUTES = 11 * 60
RELOAD_SECONDS = 3  # the answer, the reload, and the page's own request
IDLE_SECONDS = 40  # the script counts a user as idle after 30 s
LONG = 120


def visit(browser_user: BrowserUser) -> None:
    """Load the balance page and leave it time for a reload."""
    browser_user.open_balance()
    browser_user.wait(RELOAD_SECONDS)


def assert_shown_by_one_reload(browser_user: BrowserUser, balance: str = FULL, *, loads: int = 2) -> None:
    """Assert that the balance is shown, and that the page stays as it is from now on."""
    browser_user.assert_balance(balance)
    expect(browser_user.page.locator(".entries .sum").first).to_be_visible()
    browser_user.idle(LONG)
    assert browser_user.loads == loads
    assert browser_user.user.balance() == (200_000 if balance == TWICE else 100_000)


# --- No stored top-up of its own ---


def test_the_user_returns_after_eleven_minutes(browser_user: BrowserUser) -> None:
    payment = browser_user.user.topup()
    started_at = int((time.time() - ELEVEN_MINUTES) * 1000)
    browser_user.store(browser_user.flow(payment, started_at_ms=started_at))
    browser_user.simulator.pay(payment)
    visit(browser_user)
    assert_shown_by_one_reload(browser_user)
    browser_user.assert_no_topup()
    assert browser_user.polled_at == []
    assert browser_user.simulator.questions(payment) == 1


def test_the_user_pays_on_the_phone_and_looks_at_the_desk(
    browser_user: BrowserUser, new_browser_user: NewBrowserUser
) -> None:
    payment = browser_user.start_topup()
    browser_user.simulator.pay(payment)
    desk = new_browser_user()
    desk.stop_clock()
    desk.user = browser_user.user
    desk.store(None)
    visit(desk)
    assert_shown_by_one_reload(desk)
    assert desk.simulator.questions(payment) == 1


def test_a_second_topup_overwrites_the_first(browser_user: BrowserUser) -> None:
    first = browser_user.start_topup()
    browser_user.simulator.pay(first)  # and the tab is closed
    second = browser_user.start_topup()
    browser_user.simulator.pay(second)
    browser_user.return_from_provider()
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.stored is None
    assert browser_user.visited_at == []
    visit(browser_user)
    assert_shown_by_one_reload(browser_user, TWICE, loads=3)
    assert [browser_user.simulator.questions(payment) for payment in (first, second)] == [1, 1]


def test_the_payment_settles_while_the_page_is_open(browser_user: BrowserUser) -> None:
    payment = browser_user.user.topup()
    browser_user.store(None)
    browser_user.open_balance()
    browser_user.wait(20)
    browser_user.assert_balance(EMPTY)
    browser_user.simulator.pay(payment)
    browser_user.wait(10 + RELOAD_SECONDS)
    assert_shown_by_one_reload(browser_user)
    # By the server's schedule, and once after the reload.
    assert browser_user.visited_at == pytest.approx([0, 3, 8, 16, 29, 31], abs=2)
    assert browser_user.simulator.questions(payment) == 5


# --- A tab that was left open ---


def test_the_user_pays_elsewhere_and_looks_at_the_open_tab(browser_user: BrowserUser) -> None:
    browser_user.store(None)
    browser_user.open_balance()
    browser_user.set_visibility("hidden")
    payment = browser_user.user.topup()
    browser_user.simulator.pay(payment)
    browser_user.idle(ELEVEN_MINUTES)
    browser_user.assert_balance(EMPTY)
    assert browser_user.simulator.questions(payment) == 0
    browser_user.set_visibility("visible")
    browser_user.wait(RELOAD_SECONDS)
    assert_shown_by_one_reload(browser_user)
    assert browser_user.simulator.questions(payment) == 1


def test_a_returned_user_hides_the_page_until_it_is_too_late(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    browser_user.return_from_provider()
    browser_user.set_visibility("hidden")
    browser_user.simulator.pay(payment)
    browser_user.idle(ELEVEN_MINUTES)
    browser_user.assert_state("pending")
    assert browser_user.polled_at == [0]
    browser_user.set_visibility("visible")
    browser_user.wait(RELOAD_SECONDS)
    assert_shown_by_one_reload(browser_user)
    assert browser_user.polled_at == [0]


# --- What it costs ---


def test_without_open_topups_nobody_is_asked(browser_user: BrowserUser) -> None:
    canceled = browser_user.user.topup()
    browser_user.host.books.change_record(canceled, status="canceled")
    browser_user.simulator.forget_requests()
    browser_user.store(None)
    visit(browser_user)
    browser_user.idle(LONG)
    browser_user.set_visibility("hidden")
    browser_user.set_visibility("visible")
    browser_user.idle(LONG)
    browser_user.assert_balance(EMPTY)
    assert browser_user.visited_at == pytest.approx([0, LONG + RELOAD_SECONDS])
    assert browser_user.simulator.requests() == []
    assert browser_user.loads == 1


def test_a_credit_that_every_visit_reports_reloads_once(browser_user: BrowserUser) -> None:
    payment = browser_user.user.topup()
    browser_user.simulator.pay(payment)
    browser_user.store(None)
    with browser_user.host.books.refusing(
        "UPDATE", browser_user.host.books.payments, provider_payment_id=payment
    ):
        visit(browser_user)
        visit(browser_user)
        assert_shown_by_one_reload(browser_user, loads=3)
    assert browser_user.user.reconcile_pending().json()["payments"][0]["credited"]


# --- The reload waits ---


def test_no_reload_while_a_dialog_is_open(browser_user: BrowserUser) -> None:
    payment = browser_user.user.topup()
    browser_user.store(None)
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'visits')")
    visit(browser_user)
    browser_user.simulator.pay(payment)
    browser_user.wait(LONG)
    assert browser_user.user.balance() == 100_000
    expect(browser_user.page.get_by_role("dialog")).to_be_visible()
    browser_user.assert_balance(EMPTY)
    assert browser_user.loads == 1
    browser_user.page.get_by_role("button", name="Allow").click()
    browser_user.wait(IDLE_SECONDS)
    assert_shown_by_one_reload(browser_user)


def test_no_reload_of_an_amount_typed_before_the_user_looked_away(browser_user: BrowserUser) -> None:
    browser_user.context.route(
        "**/api/v1/billing/public/pricing-config", lambda route: route.fulfill(body="{}")
    )
    browser_user.store(None)
    visit(browser_user)
    field = browser_user.page.get_by_label("Another amount")
    field.press_sequentially("15")
    browser_user.set_visibility("hidden")
    payment = browser_user.user.topup()
    browser_user.simulator.pay(payment)
    browser_user.idle(LONG)
    browser_user.set_visibility("visible")
    browser_user.idle(LONG)
    assert browser_user.user.balance() == 100_000
    expect(field).to_have_value("15")
    assert browser_user.loads == 1
    field.fill("")
    browser_user.wait(IDLE_SECONDS)
    assert_shown_by_one_reload(browser_user)
