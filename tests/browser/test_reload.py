"""The page's one reload after a late credit: not while the user would lose something by it."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Route, expect

from .browser_user import BrowserUser

EMPTY = "₽0.00"
FULL = "₽1,000.00"
LATE_SECONDS = 60  # the page has stopped polling by then
NEXT_POLL_SECONDS = 30
IDLE_SECONDS = 40  # the script counts a user as idle after 30 s
PRICING = "**/api/v1/billing/public/pricing-config"
TOPUP = "**/api/v1/billing/topup"
OPEN_NATIVE_DIALOG = """
document.body.insertAdjacentHTML('beforeend', '<dialog><button>Close</button></dialog>');
const dialog = document.querySelector('dialog');
dialog.querySelector('button').onclick = () => dialog.close();
dialog.show();
"""


@pytest.fixture
def payment(browser_user: BrowserUser) -> str:
    """Return a payment that the browser stores, and that is not paid yet."""
    return browser_user.start_topup()


def pay_late(browser_user: BrowserUser, payment: str) -> None:
    """Return, wait until the page has stopped polling, and pay."""
    browser_user.return_from_provider()
    browser_user.wait(LATE_SECONDS)
    browser_user.assert_state("pending")
    browser_user.simulator.pay(payment)


def assert_not_reloaded(browser_user: BrowserUser) -> None:
    """Assert that the page stays as it is although the payment is credited."""
    browser_user.wait(NEXT_POLL_SECONDS)
    assert browser_user.user.balance() == 100_000
    browser_user.idle(IDLE_SECONDS)
    assert browser_user.loads == 1
    browser_user.assert_state("pending")
    browser_user.assert_balance(EMPTY)


def assert_reloaded(browser_user: BrowserUser) -> None:
    """Assert that an idle user's page is loaded once more and shows the credit."""
    browser_user.wait(IDLE_SECONDS)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.loads == 2
    assert browser_user.stored is None


def test_a_user_who_does_nothing_does_not_wait(browser_user: BrowserUser, payment: str) -> None:
    pay_late(browser_user, payment)
    browser_user.wait(NEXT_POLL_SECONDS + 1)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.loads == 2


def test_no_reload_where_the_page_sees_the_credit(browser_user: BrowserUser, payment: str) -> None:
    browser_user.return_from_provider()
    browser_user.simulator.pay(payment)
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    browser_user.idle(120)
    assert browser_user.loads == 1


# --- A dialog is open ---


@pytest.mark.parametrize("answer", ["Allow", "No, thanks"])
def test_the_consent_bar_is_open(browser_user: BrowserUser, payment: str, answer: str) -> None:
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'visits')")
    pay_late(browser_user, payment)
    expect(browser_user.page.get_by_role("dialog")).to_be_visible()
    assert_not_reloaded(browser_user)
    browser_user.page.get_by_role("button", name=answer).click()
    expect(browser_user.page.get_by_role("dialog")).to_be_hidden()
    assert_reloaded(browser_user)


def test_the_terms_cover_the_page(browser_user: BrowserUser, payment: str) -> None:
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'terms')")
    pay_late(browser_user, payment)
    browser_user.page.get_by_label("I have read the terms and accept them").check()
    assert_not_reloaded(browser_user)
    expect(browser_user.page.get_by_role("checkbox")).to_be_checked()
    browser_user.page.get_by_role("button", name="Continue").click()
    assert_reloaded(browser_user)


def test_a_native_dialog_opens_after_the_credit(browser_user: BrowserUser, payment: str) -> None:
    pay_late(browser_user, payment)
    browser_user.wait(NEXT_POLL_SECONDS - 4)
    assert browser_user.user.balance() == 100_000
    browser_user.page.evaluate(OPEN_NATIVE_DIALOG)
    assert_not_reloaded(browser_user)
    browser_user.page.get_by_role("button", name="Close", exact=True).last.click()
    assert_reloaded(browser_user)


def test_the_page_refreshes_itself_while_a_dialog_is_open(browser_user: BrowserUser, payment: str) -> None:
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'visits')")
    pay_late(browser_user, payment)
    assert_not_reloaded(browser_user)
    browser_user.page.get_by_role("button", name="Refresh the balance").click()
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    browser_user.page.get_by_role("button", name="Allow").click()
    browser_user.idle(120)
    assert browser_user.loads == 1


def test_the_user_leaves_while_a_dialog_is_open(browser_user: BrowserUser, payment: str) -> None:
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'visits')")
    pay_late(browser_user, payment)
    assert_not_reloaded(browser_user)
    browser_user.page.get_by_role("link", name="Chat").click()
    browser_user.page.get_by_role("button", name="Allow").click()
    browser_user.page.evaluate("window.isSamePage = true")
    browser_user.idle(120)
    assert browser_user.page.evaluate("window.isSamePage")
    assert browser_user.loads == 1


# --- A new top-up is being made ---


class HeldTopup:
    """The user's next request for a new top-up, unanswered until ``route`` is used."""

    def __init__(self, browser_user: BrowserUser) -> None:
        self._browser_user = browser_user
        self._routes: list[Route] = []
        browser_user.context.route(TOPUP, self._hold)

    def _hold(self, route: Route) -> None:
        self._routes.append(route)

    def press(self) -> None:
        """Press a package and wait until the request is on its way."""
        page = self._browser_user.page
        button = page.locator(".packages button").first
        with page.expect_request(TOPUP):
            button.click()
        expect(button).to_be_disabled()
        expect(button).to_have_text("Processing…")

    def wait(self, seconds: int) -> None:
        """Let time pass in the browser while the request is in flight."""
        for _ in range(seconds):
            self._browser_user.context.clock.run_for(1000)
        self._browser_user.page.wait_for_function("window.requestsInFlight === 1")

    @property
    def route(self) -> Route:
        """The request, to be answered."""
        (route,) = self._routes
        return route


@pytest.fixture
def held_topup(browser_user: BrowserUser) -> HeldTopup:
    """Return the user's next top-up, which the server does not answer."""
    return HeldTopup(browser_user)


def test_a_new_topup_is_under_way_and_fails(
    browser_user: BrowserUser, payment: str, held_topup: HeldTopup
) -> None:
    pay_late(browser_user, payment)
    browser_user.wait(NEXT_POLL_SECONDS - 4)
    assert browser_user.user.balance() == 100_000
    held_topup.press()
    held_topup.wait(2 * IDLE_SECONDS)
    assert browser_user.loads == 1
    held_topup.route.fulfill(status=502, json={"detail": "Not now."})
    expect(browser_user.page.locator(".packages button").first).to_be_enabled()
    browser_user.wait(5)
    assert_reloaded(browser_user)


def test_a_new_topup_is_under_way_and_succeeds(
    browser_user: BrowserUser, payment: str, held_topup: HeldTopup
) -> None:
    pay_late(browser_user, payment)
    browser_user.wait(NEXT_POLL_SECONDS - 4)
    held_topup.press()
    held_topup.wait(2 * IDLE_SECONDS)
    assert browser_user.loads == 1
    held_topup.route.continue_()
    browser_user.page.wait_for_url(f"{browser_user.simulator.url}/checkout/*")
    assert not browser_user.page.url.endswith(payment)
    assert browser_user.loads == 1


def test_an_amount_is_being_typed(browser_user: BrowserUser, payment: str) -> None:
    browser_user.context.route(
        PRICING, lambda route: route.fulfill(body=json.dumps({"topup_amounts_rub": []}))
    )
    pay_late(browser_user, payment)
    field = browser_user.page.get_by_label("Another amount")
    field.press_sequentially("15")
    field.blur()
    assert_not_reloaded(browser_user)
    expect(field).to_have_value("15")
    field.fill("")
    assert_reloaded(browser_user)


def test_a_newer_topup_is_stored_by_another_tab(browser_user: BrowserUser, payment: str) -> None:
    browser_user.page.evaluate("localStorage.setItem('consent_due', 'visits')")
    pay_late(browser_user, payment)
    assert_not_reloaded(browser_user)
    newer = browser_user.flow(browser_user.user.topup())
    browser_user.page.evaluate("(flow) => localStorage.setItem('billing_topup_flow_v1', flow)", newer)
    browser_user.page.get_by_role("button", name="Allow").click()
    browser_user.idle(120)
    assert browser_user.loads == 1
