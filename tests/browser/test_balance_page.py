"""What a user sees after returning from the provider, and the queries it causes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.support.harness.host import PASSWORD, Program, running_host
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import ROOT

from .browser_user import BALANCE, BrowserUser
from .conftest import NewBrowserUser

EMPTY = "₽0.00"
FULL = "₽1,000.00"
SCREENSHOT = os.environ.get("BALANCE_PAGE_SCREENSHOT")  # where to, from the root: docs/balance-page.png
AT_A_DESK = {"locale": "en-US", "viewport": {"width": 720, "height": 790}, "device_scale_factor": 2}
ON_A_PHONE = {
    "locale": "ru-RU",
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "color_scheme": "dark",
}


def sign_in(browser_user: BrowserUser) -> None:
    browser_user.page.locator("input[name=email]").fill(browser_user.user.email)
    browser_user.page.locator("input[name=password]").fill(PASSWORD)
    browser_user.page.locator("form button").click()


def open_checkout(browser_user: BrowserUser) -> str:
    """Click a package on the balance page and return the payment's id."""
    browser_user.page.locator(".packages button").first.click()
    browser_user.page.wait_for_url(f"{browser_user.simulator.url}/checkout/*")
    return browser_user.page.url.rpartition("/")[2]


# --- There and back ---


@pytest.mark.parametrize(
    ("options", "empty", "full"),
    [(AT_A_DESK, EMPTY, FULL), (ON_A_PHONE, "0,00\xa0₽", "1\xa0000,00\xa0₽")],
    ids=["at a desk, in English", "on a phone, in Russian, dark"],
)
def test_user_pays_and_the_webhook_is_lost(
    new_browser_user: NewBrowserUser, options: dict[str, Any], empty: str, full: str
) -> None:
    browser_user = new_browser_user(**options)
    browser_user.page.goto(browser_user.host.base_url + BALANCE)
    sign_in(browser_user)
    browser_user.assert_balance(empty)
    browser_user.assert_no_topup()
    payment = open_checkout(browser_user)
    browser_user.page.locator("form[action$=pay] button").click()
    browser_user.assert_state("success")
    browser_user.assert_balance(full)
    assert browser_user.statuses == [200]
    assert browser_user.simulator.questions(payment) == 1
    assert browser_user.stored is None
    if SCREENSHOT and options is AT_A_DESK:
        expect(browser_user.page.locator(".entries .sum")).to_be_visible()
        browser_user.page.screenshot(path=ROOT / SCREENSHOT, animations="disabled")


def test_the_payment_is_declined(browser_user: BrowserUser) -> None:
    browser_user.store(None)
    browser_user.page.goto(browser_user.host.base_url + BALANCE)
    payment = open_checkout(browser_user)
    browser_user.page.locator("form[action$=decline] button").click()
    browser_user.assert_state("checking")
    browser_user.wait(120)
    browser_user.assert_state("pending")
    browser_user.page.get_by_role("button", name="Refresh the balance").click()
    browser_user.wait(30)
    browser_user.assert_state("pending")
    browser_user.assert_balance(EMPTY)
    assert browser_user.statuses == [200]
    assert browser_user.simulator.questions(payment) == 1
    assert browser_user.user.get("/ledger").json() == []
    assert browser_user.loads == 2


# --- The payment settles late ---


@pytest.mark.parametrize(
    ("due", "polls", "loads"),
    [
        (2, [0, 3], 1),
        (15, [0, 3, 8, 16], 1),
        (60, [0, 3, 8, 16, 29, 50, 84], 2),  # the page has given up by then, so it is loaded anew
    ],
)
def test_the_payment_settles_after_the_return(
    browser_user: BrowserUser, due: float, polls: list[float], loads: int
) -> None:
    payment = browser_user.start_topup()
    browser_user.return_from_provider()
    browser_user.assert_state("checking")
    browser_user.wait(due)
    browser_user.assert_state("checking" if due < 18 else "pending")
    browser_user.assert_balance(EMPTY)
    browser_user.simulator.pay(payment)
    browser_user.wait(polls[-1] - due + 6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.polled_at == pytest.approx(polls, abs=1)
    assert browser_user.statuses == [200] * len(polls)
    assert browser_user.simulator.questions(payment) == len(polls)
    assert len([at for at in browser_user.polled_at if at < 60]) <= 6
    assert browser_user.stored is None
    browser_user.idle(120)
    assert browser_user.loads == loads
    assert len(browser_user.polled_at) == len(polls)


def test_a_page_that_shows_no_success_is_loaded_anew_only_once(browser_user: BrowserUser) -> None:
    payment = browser_user.user.topup()
    browser_user.simulator.pay(payment)
    # As if something had been spent in the meantime: the balance never rises above what it was.
    browser_user.store(browser_user.flow(payment, previous_total_kopeks=900_000))
    browser_user.return_from_provider()
    browser_user.wait(120)
    browser_user.assert_state("pending")
    browser_user.assert_balance(FULL)
    assert browser_user.loads == 2
    assert browser_user.statuses == [200]
    assert browser_user.simulator.questions(payment) == 1


# --- Two tabs, no connection, a page out of sight ---


def test_two_tabs(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    other = browser_user.context.new_page()
    browser_user.return_from_provider()
    browser_user.return_from_provider(other)
    browser_user.assert_state("checking")
    browser_user.assert_state("checking", other)
    browser_user.simulator.pay(payment)
    browser_user.wait(6)
    for page in (browser_user.page, other):
        browser_user.assert_state("success", page)
        browser_user.assert_balance(FULL, page)
    assert browser_user.statuses == [200] * 4
    assert browser_user.simulator.questions(payment) == 2  # at once, and after three seconds: for both
    assert browser_user.user.balance() == 100_000


@pytest.mark.parametrize(("away", "loads"), [(7, 1), (40, 2)])
def test_the_connection_is_lost_and_comes_back(browser_user: BrowserUser, away: float, loads: int) -> None:
    payment = browser_user.start_topup()
    browser_user.return_from_provider()
    browser_user.context.set_offline(True)
    browser_user.simulator.pay(payment)
    browser_user.wait(away)
    browser_user.assert_state("checking" if away < 18 else "pending")
    browser_user.assert_balance(EMPTY)
    assert browser_user.polled_at == [0]
    browser_user.context.set_offline(False)
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [200, 200]
    assert browser_user.polled_at[1] <= away + 1  # at once
    assert browser_user.simulator.questions(payment) == 2
    assert browser_user.loads == loads


def test_a_hidden_page_does_not_poll(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    browser_user.return_from_provider()
    browser_user.set_visibility("hidden")
    browser_user.simulator.pay(payment)
    browser_user.idle(60)
    assert browser_user.polled_at == [0]
    browser_user.set_visibility("visible")
    assert browser_user.polled_at == [0, 60]
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [200, 200]
    assert browser_user.simulator.questions(payment) == 2


# --- Another user, or none ---


def test_the_token_has_expired(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    browser_user.simulator.pay(payment)
    browser_user.store(browser_user.flow(payment), token="expired.expired.expired")
    browser_user.return_from_provider()
    expect(browser_user.page.locator("input[name=email]")).to_be_visible()
    assert browser_user.statuses == [401]
    assert browser_user.simulator.questions(payment) == 0
    sign_in(browser_user)
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [401, 200]
    assert browser_user.simulator.questions(payment) == 1
    assert browser_user.loads == 1


def test_the_stored_payment_is_another_users(browser_user: BrowserUser) -> None:
    owner = browser_user.host.new_user()
    payment = owner.topup()
    browser_user.simulator.pay(payment)
    browser_user.store(browser_user.flow(payment))
    browser_user.return_from_provider()
    browser_user.idle(120)
    browser_user.assert_state("pending")
    browser_user.assert_balance(EMPTY)
    assert browser_user.statuses == [403]
    assert browser_user.simulator.questions(payment) == 0
    assert owner.balance() == 0


FLOW = {"started_at_ms": 4e12, "amount_kopeks": 1, "previous_total_kopeks": 0, "return_to": None}


@pytest.mark.parametrize(
    "flow",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "<img src=x onerror=alert(1)>",
        json.dumps(FLOW),
        json.dumps(FLOW | {"payment_id": "../../auths/signout"}),
        json.dumps(FLOW | {"payment_id": ["2c5d1a9e"]}),
        json.dumps(FLOW | {"payment_id": "2c5d1a9e", "started_at_ms": 1}),
        json.dumps(FLOW | {"payment_id": "x" * 65}),
    ],
)
def test_the_stored_flow_is_invalid(browser_user: BrowserUser, flow: str) -> None:
    browser_user.store(flow)
    browser_user.return_from_provider()
    browser_user.idle(30)
    browser_user.assert_balance(EMPTY)
    assert browser_user.polled_at == []
    assert browser_user.loads == 1


def test_an_invented_payment_is_queried_once(browser_user: BrowserUser) -> None:
    browser_user.store(json.dumps(FLOW | {"payment_id": "invented"}))
    browser_user.return_from_provider()
    browser_user.idle(120)
    browser_user.assert_balance(EMPTY)
    assert browser_user.statuses == [403]
    assert browser_user.simulator.questions("invented") == 1


# --- Where the page is ---


def test_other_pages_do_not_poll_and_the_balance_page_does(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    browser_user.simulator.pay(payment)
    browser_user.page.goto(browser_user.host.base_url + "/?topup_return=1")
    expect(browser_user.page.get_by_role("heading", name="Chat")).to_be_visible()
    browser_user.idle(60)
    assert browser_user.polled_at == []
    browser_user.page.get_by_role("link", name="Balance and top-ups").click()
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [200]
    assert browser_user.loads == 0


def test_leaving_the_balance_page_ends_it(browser_user: BrowserUser) -> None:
    payment = browser_user.start_topup()
    browser_user.return_from_provider()
    browser_user.page.get_by_role("link", name="Chat").click()
    browser_user.simulator.pay(payment)
    browser_user.idle(120)
    assert browser_user.polled_at == [0]
    assert browser_user.loads == 1


def test_a_strict_security_policy(browser_user: BrowserUser) -> None:
    def add_policy(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, headers={**answer.headers, "content-security-policy": "default-src 'self'"}
        )

    browser_user.context.route(f"{browser_user.host.base_url}{BALANCE}*", add_policy)
    payment = browser_user.start_topup()
    browser_user.simulator.pay(payment)
    browser_user.return_from_provider()
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [200]
    # The policy was in force:
    assert browser_user.page.evaluate("fetch('https://elsewhere.example/').catch((error) => error.name)")
    assert [text for text in browser_user.script_errors if "Content Security Policy" in text]
    browser_user.script_errors.clear()


def test_below_a_base_path(browser_user: BrowserUser) -> None:
    host = browser_user.host.base_url
    outside: list[str] = []

    def pass_on(route: Route) -> None:
        """Act as a reverse proxy for a front end that was built for this path."""
        if not route.request.url.startswith(f"{host}/chat/"):
            outside.append(route.request.url)
            route.abort()
            return
        answer = route.fetch(url=route.request.url.replace(f"{host}/chat/", f"{host}/"))
        if answer.headers["content-type"].startswith("text/html"):
            route.fulfill(response=answer, body=answer.text().replace('="/', '="/chat/'))
        else:
            route.fulfill(response=answer)

    payment = browser_user.start_topup()
    browser_user.simulator.pay(payment)
    browser_user.context.route(f"{host}/**", pass_on)
    browser_user.base_url = f"{host}/chat"
    browser_user.return_from_provider()
    browser_user.wait(6)
    browser_user.assert_state("success")
    browser_user.assert_balance(FULL)
    assert browser_user.statuses == [200]
    assert browser_user.simulator.questions(payment) == 1
    assert outside == []


def test_the_hosts_own_loader_script_still_runs(browser_user: BrowserUser) -> None:
    loader = Path(browser_user.host.environment["STATIC_DIR"]) / "loader.js"
    content = loader.read_bytes()
    loader.write_bytes(b"window.theirs = () => document.title")
    try:
        payment = browser_user.start_topup()
        browser_user.simulator.pay(payment)
        browser_user.return_from_provider()
        browser_user.wait(6)
    finally:
        loader.write_bytes(content)
    browser_user.assert_state("success")
    assert browser_user.page.evaluate("window.theirs()") == "Open WebUI"
    assert browser_user.statuses == [200]


# --- Turned off ---


@pytest.mark.parametrize(
    "flag", ["ENABLE_BILLING_TOPUP_RECONCILE_FRONTEND", "ENABLE_BILLING_TOPUP_RECONCILE"]
)
def test_without_the_script_the_page_is_as_it_was(
    new_browser_user: NewBrowserUser, provider: Simulator, flag: str
) -> None:
    with running_host(Program(), simulator=provider, env={flag: "false"}) as host:
        browser_user = new_browser_user(host)
        browser_user.stop_clock()
        payment = browser_user.start_topup()
        browser_user.simulator.pay(payment)
        browser_user.return_from_provider()
        browser_user.assert_state("checking")
        browser_user.idle(60)
        browser_user.assert_state("pending")
        browser_user.assert_balance(EMPTY)
        assert browser_user.polled_at == []
        assert browser_user.simulator.questions(payment) == 0
        assert browser_user.loads == 1
