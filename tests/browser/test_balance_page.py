"""What a person sees who comes back from the provider, and what it costs the server and the provider."""

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

from .browser_user import BALANCE, Person
from .conftest import NewPerson

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


def sign_in(person: Person) -> None:
    person.page.locator("input[name=email]").fill(person.user.email)
    person.page.locator("input[name=password]").fill(PASSWORD)
    person.page.locator("form button").click()


def go_to_the_checkout(person: Person) -> str:
    """From the balance page; the payment's id."""
    person.page.locator(".packages button").first.click()
    person.page.wait_for_url(f"{person.simulator.url}/checkout/*")
    return person.page.url.rpartition("/")[2]


# --- There and back ---


@pytest.mark.parametrize(
    ("options", "empty", "full"),
    [(AT_A_DESK, EMPTY, FULL), (ON_A_PHONE, "0,00\xa0₽", "1\xa0000,00\xa0₽")],
    ids=["at a desk, in English", "on a phone, in Russian, dark"],
)
def test_somebody_pays_and_the_webhook_is_lost(
    new_person: NewPerson, options: dict[str, Any], empty: str, full: str
) -> None:
    person = new_person(**options)
    person.page.goto(person.host.base_url + BALANCE)
    sign_in(person)
    person.sees_balance(empty)
    person.sees_no_topup()
    payment = go_to_the_checkout(person)
    person.page.locator("form[action$=pay] button").click()
    person.sees("success")
    person.sees_balance(full)
    assert person.answered == [200]
    assert person.simulator.questions(payment) == 1
    assert person.stored is None
    if SCREENSHOT and options is AT_A_DESK:
        expect(person.page.locator(".entries .sum")).to_be_visible()
        person.page.screenshot(path=ROOT / SCREENSHOT, animations="disabled")


def test_the_payment_is_declined(person: Person) -> None:
    person.remember(None)
    person.page.goto(person.host.base_url + BALANCE)
    payment = go_to_the_checkout(person)
    person.page.locator("form[action$=decline] button").click()
    person.sees("checking")
    person.wait(120)
    person.sees("pending")
    person.page.get_by_role("button", name="Refresh the balance").click()
    person.wait(30)
    person.sees("pending")
    person.sees_balance(EMPTY)
    assert person.answered == [200]
    assert person.simulator.questions(payment) == 1
    assert person.user.get("/ledger").json() == []
    assert person.loads == 2


# --- The payment settles late ---


@pytest.mark.parametrize(
    ("due", "asked", "loads"),
    [
        (2, [0, 3], 1),
        (15, [0, 3, 8, 16], 1),
        (60, [0, 3, 8, 16, 29, 50, 84], 2),  # the page has given up by then, so it is loaded anew
    ],
)
def test_the_payment_settles_after_the_return(
    person: Person, due: float, asked: list[float], loads: int
) -> None:
    payment = person.leave_for_the_provider()
    person.come_back()
    person.sees("checking")
    person.wait(due)
    person.sees("checking" if due < 18 else "pending")
    person.sees_balance(EMPTY)
    person.simulator.pay(payment)
    person.wait(asked[-1] - due + 6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.asked == pytest.approx(asked, abs=1)
    assert person.answered == [200] * len(asked)
    assert person.simulator.questions(payment) == len(asked)
    assert len([at for at in person.asked if at < 60]) <= 6
    assert person.stored is None
    person.wait(120)
    assert person.loads == loads
    assert len(person.asked) == len(asked)


def test_a_page_that_shows_no_success_is_loaded_anew_only_once(person: Person) -> None:
    payment = person.user.topup()
    person.simulator.pay(payment)
    # As if something had been spent in the meantime: the balance never rises above what it was.
    person.remember(person.flow(payment, previous_total_kopeks=900_000))
    person.come_back()
    person.wait(120)
    person.sees("pending")
    person.sees_balance(FULL)
    assert person.loads == 2
    assert person.answered == [200]
    assert person.simulator.questions(payment) == 1


# --- Two tabs, no connection, a page out of sight ---


def test_two_tabs(person: Person) -> None:
    payment = person.leave_for_the_provider()
    other = person.context.new_page()
    person.come_back()
    person.come_back(other)
    person.sees("checking")
    person.sees("checking", other)
    person.simulator.pay(payment)
    person.wait(6)
    for page in (person.page, other):
        person.sees("success", page)
        person.sees_balance(FULL, page)
    assert person.answered == [200] * 4
    assert person.simulator.questions(payment) == 2  # at once, and after three seconds: for both
    assert person.user.balance() == 100_000


@pytest.mark.parametrize(("away", "loads"), [(7, 1), (40, 2)])
def test_the_connection_is_lost_and_comes_back(person: Person, away: float, loads: int) -> None:
    payment = person.leave_for_the_provider()
    person.come_back()
    person.context.set_offline(True)
    person.simulator.pay(payment)
    person.wait(away)
    person.sees("checking" if away < 18 else "pending")
    person.sees_balance(EMPTY)
    assert person.asked == [0]
    person.context.set_offline(False)
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [200, 200]
    assert person.asked[1] <= away + 1  # at once
    assert person.simulator.questions(payment) == 2
    assert person.loads == loads


def test_a_page_out_of_sight_asks_nothing(person: Person) -> None:
    payment = person.leave_for_the_provider()
    person.come_back()
    person.look("hidden")
    person.simulator.pay(payment)
    person.wait(60)
    assert person.asked == [0]
    person.look("visible")
    assert person.asked == [0, 60]
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [200, 200]
    assert person.simulator.questions(payment) == 2


# --- Somebody else, or nobody ---


def test_the_token_has_expired(person: Person) -> None:
    payment = person.leave_for_the_provider()
    person.simulator.pay(payment)
    person.remember(person.flow(payment), token="expired.expired.expired")
    person.come_back()
    expect(person.page.locator("input[name=email]")).to_be_visible()
    assert person.answered == [401]
    assert person.simulator.questions(payment) == 0
    sign_in(person)
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [401, 200]
    assert person.simulator.questions(payment) == 1
    assert person.loads == 1


def test_the_stored_payment_is_another_users(person: Person) -> None:
    owner = person.host.new_user()
    payment = owner.topup()
    person.simulator.pay(payment)
    person.remember(person.flow(payment))
    person.come_back()
    person.wait(120)
    person.sees("pending")
    person.sees_balance(EMPTY)
    assert person.answered == [403]
    assert person.simulator.questions(payment) == 0
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
def test_what_is_stored_has_been_tampered_with(person: Person, flow: str) -> None:
    person.remember(flow)
    person.come_back()
    person.wait(30)
    person.sees_balance(EMPTY)
    assert person.asked == []
    assert person.loads == 1


def test_an_invented_payment_is_asked_about_once(person: Person) -> None:
    person.remember(json.dumps(FLOW | {"payment_id": "invented"}))
    person.come_back()
    person.wait(120)
    person.sees_balance(EMPTY)
    assert person.answered == [403]
    assert person.simulator.questions("invented") == 1


# --- Where the page is ---


def test_other_pages_ask_nothing_and_a_move_to_the_balance_page_does(person: Person) -> None:
    payment = person.leave_for_the_provider()
    person.simulator.pay(payment)
    person.page.goto(person.host.base_url + "/?topup_return=1")
    expect(person.page.get_by_role("heading", name="Chat")).to_be_visible()
    person.wait(60)
    assert person.asked == []
    person.page.get_by_role("link", name="Balance and top-ups").click()
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [200]
    assert person.loads == 0


def test_leaving_the_balance_page_ends_it(person: Person) -> None:
    payment = person.leave_for_the_provider()
    person.come_back()
    person.page.get_by_role("link", name="Chat").click()
    person.simulator.pay(payment)
    person.wait(120)
    assert person.asked == [0]
    assert person.loads == 1


def test_a_strict_security_policy(person: Person) -> None:
    def add_policy(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, headers={**answer.headers, "content-security-policy": "default-src 'self'"}
        )

    person.context.route(f"{person.host.base_url}{BALANCE}*", add_policy)
    payment = person.leave_for_the_provider()
    person.simulator.pay(payment)
    person.come_back()
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [200]
    # The policy was in force:
    assert person.page.evaluate("fetch('https://elsewhere.example/').catch((error) => error.name)")
    assert [text for text in person.complaints if "Content Security Policy" in text]
    person.complaints.clear()


def test_below_a_base_path(person: Person) -> None:
    host = person.host.base_url
    outside: list[str] = []

    def pass_on(route: Route) -> None:
        """What a reverse proxy does, for a front end that was built for this path."""
        if not route.request.url.startswith(f"{host}/chat/"):
            outside.append(route.request.url)
            route.abort()
            return
        answer = route.fetch(url=route.request.url.replace(f"{host}/chat/", f"{host}/"))
        if answer.headers["content-type"].startswith("text/html"):
            route.fulfill(response=answer, body=answer.text().replace('="/', '="/chat/'))
        else:
            route.fulfill(response=answer)

    payment = person.leave_for_the_provider()
    person.simulator.pay(payment)
    person.context.route(f"{host}/**", pass_on)
    person.base_url = f"{host}/chat"
    person.come_back()
    person.wait(6)
    person.sees("success")
    person.sees_balance(FULL)
    assert person.answered == [200]
    assert person.simulator.questions(payment) == 1
    assert outside == []


def test_the_hosts_own_loader_script_still_runs(person: Person) -> None:
    loader = Path(person.host.environment["STATIC_DIR"]) / "loader.js"
    content = loader.read_bytes()
    loader.write_bytes(b"window.theirs = () => document.title")
    try:
        payment = person.leave_for_the_provider()
        person.simulator.pay(payment)
        person.come_back()
        person.wait(6)
    finally:
        loader.write_bytes(content)
    person.sees("success")
    assert person.page.evaluate("window.theirs()") == "Open WebUI"
    assert person.answered == [200]


# --- Turned off ---


@pytest.mark.parametrize(
    "flag", ["ENABLE_BILLING_TOPUP_RECONCILE_FRONTEND", "ENABLE_BILLING_TOPUP_RECONCILE"]
)
def test_without_the_script_the_page_is_as_it_was(
    new_person: NewPerson, provider: Simulator, flag: str
) -> None:
    with running_host(Program(), simulator=provider, env={flag: "false"}) as host:
        person = new_person(host)
        person.stop_the_clock()
        payment = person.leave_for_the_provider()
        person.simulator.pay(payment)
        person.come_back()
        person.sees("checking")
        person.wait(60)
        person.sees("pending")
        person.sees_balance(EMPTY)
        assert person.asked == []
        assert person.simulator.questions(payment) == 0
        assert person.loads == 1
