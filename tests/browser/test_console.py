"""What an administrator sees and does at the console, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.support.harness.waiting import wait_until

from .console_api import ADMIN, FOREIGN, HELD, OWNER, REFUNDED, USER, WALLET, FakeApi, serving
from .console_page import ConsolePage

NewConsole = Callable[..., ConsolePage]

ON_A_PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DARK = {"color_scheme": "dark"}
NOTE = "Paid 900 of 1000; the customer agrees."


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """The endpoints behind the console."""
    with serving(FakeApi()) as api:
        yield api


@pytest.fixture
def new_console(browser: Browser, api: FakeApi) -> Iterator[NewConsole]:
    """Open the console, with options for the browser context; no script may err."""
    consoles: list[ConsolePage] = []
    with ExitStack() as stack:

        def make(token: str | None = ADMIN, **options: Any) -> ConsolePage:
            context = browser.new_context(**{"locale": "en-US", "timezone_id": "Asia/Tokyo", **options})
            stack.callback(context.close)
            console = ConsolePage(context, api.url, token)
            console.open()
            consoles.append(console)
            return console

        yield make
        assert [console.script_errors for console in consoles] == [[] for _ in consoles]


@pytest.fixture
def console(new_console: NewConsole) -> ConsolePage:
    return new_console()


@pytest.fixture
def audited(console: ConsolePage) -> ConsolePage:
    """The console after an audit."""
    console.run_audit()
    expect(console.findings).to_have_count(5)
    return console


# --- Who may look ---


def test_without_a_token_it_says_where_to_sign_in(new_console: NewConsole) -> None:
    console = new_console(token=None)
    alert = console.page.get_by_role("alert")
    expect(alert).to_contain_text("Sign in as an administrator")
    expect(alert).to_contain_text("Nobody is signed in")
    expect(alert.get_by_role("link")).to_have_attribute("href", f"{console.base_url}/")
    expect(console.chart).to_have_count(0)
    console.store_token(ADMIN)
    console.button("Try again").click()
    expect(console.chart).to_be_visible()


@pytest.mark.parametrize("token", [USER, "expired"])
def test_who_is_no_administrator_is_told(new_console: NewConsole, token: str) -> None:
    console = new_console(token=token)
    expect(console.page.get_by_role("alert")).to_contain_text("did not accept")
    expect(console.chart).to_have_count(0)


def test_nothing_stays_in_view_once_the_sign_in_is_over(audited: ConsolePage) -> None:
    audited.store_token("expired")
    audited.button("Refresh").click()
    expect(audited.page.get_by_role("alert")).to_contain_text("Sign in as an administrator")
    expect(audited.page.get_by_text(HELD)).to_have_count(0)


# --- The report ---


def test_the_report_shows_what_the_server_said(console: ConsolePage) -> None:
    expect(console.chart).to_be_visible()
    expect(console.page.locator("header")).to_contain_text("Mode: credit Version 0.1.0 · Plugins: builtin")
    expect(console.page.get_by_text(re.compile(r"^Loaded .*\d\d:\d\d:\d\d$"))).to_be_visible()
    lost = console.section("Lost webhooks")
    rows = lost.get_by_role("table", name="Credited top-ups by way").locator("tbody tr")
    expect(rows).to_have_text(
        [
            re.compile(r"Webhook.*345₽345,000\.00$"),
            re.compile(r"Return.*43₽43,000\.00$"),
            re.compile(r"Visit.*30₽30,000\.00$"),
            re.compile(r"Sweep.*26₽26,000\.00$"),
            re.compile(r"Release.*1₽1,000\.00$"),
            re.compile(r"Total445₽445,000\.00$"),
        ]
    )
    assert console.facts(lost) == {
        "Credited without a webhook": "22.5%\n100 of 445",
        "Median delay": "12 sec\nfrom capture to credit, without a webhook",
        "95th percentile of the delay": "1 min 35 sec\nfrom capture to credit, without a webhook",
    }
    expect(console.section("Open top-ups").locator("tbody tr")).to_have_text(["1 hr3", "1 day1", "8 days0"])
    last_pass = console.facts(console.section("Last pass of the sweep"))
    assert (last_pass["Took"], last_pass["Payments listed"], last_pass["Held"]) == ("1.2 sec", "100", "2")


def test_the_chart_has_a_bar_for_each_way_and_the_same_numbers_as_a_table(console: ConsolePage) -> None:
    bars = console.chart.locator("g")
    expect(bars).to_have_count(30)
    expect(console.chart).to_have_accessible_name(re.compile("Oct 26, 2026 to Nov 24, 2026"))
    console.page.get_by_text("The same numbers as a table").click()
    rows = console.page.get_by_role("table", name="Credited top-ups by day").locator("tbody tr")
    expect(rows).to_have_count(30)
    expect(rows.nth(3)).to_have_text("Nov 21, 202612₽12,000.003₽3,000.001₽1,000.001₽1,000.001₽1,000.00")


def test_another_number_of_days_is_another_report(console: ConsolePage) -> None:
    expect(console.chart.locator("g")).to_have_count(30)
    for days in (7, 90):
        console.button(str(days)).click()
        expect(console.chart.locator("g")).to_have_count(days)
        expect(console.button(str(days))).to_have_attribute("aria-pressed", "true")


def test_what_cannot_be_loaded_is_not_shown_from_before(console: ConsolePage, api: FakeApi) -> None:
    expect(console.chart).to_be_visible()
    api.fails_with = (503, {"detail": "Billing is temporarily unavailable"})
    console.button("Refresh").click()
    problem = console.page.get_by_text("The report could not be loaded, so no numbers are shown.")
    expect(problem).to_contain_text("Billing is temporarily unavailable Try again in 7 sec.")
    expect(console.chart).to_have_count(0)
    expect(console.section("Open top-ups")).to_have_count(0)
    api.fails_with = None
    console.button("Refresh").click()
    expect(console.chart).to_be_visible()
    expect(problem).to_have_count(0)


def test_a_worker_that_has_made_no_pass_says_so(new_console: NewConsole, api: FakeApi) -> None:
    api.report |= {"last_pass": None, "delay_seconds": {"median": None, "p95": None}}
    console = new_console()
    expect(console.section("Last pass of the sweep")).to_contain_text("This worker has made none yet.")
    assert console.facts(console.section("Lost webhooks"))["Median delay"].startswith("not known")


# --- The audit ---


def test_an_audit_shows_its_progress_and_then_all_findings(console: ConsolePage, api: FakeApi) -> None:
    api.may_end.clear()
    console.run_audit()
    audit = console.section("Audit")
    status = audit.get_by_role("status")
    expect(status).to_contain_text("Payments read: 100; ledger entries read: 97; findings: 1.")
    expect(audit.get_by_role("progressbar")).to_be_visible()
    expect(console.findings).to_have_count(1)
    api.may_end.set()
    expect(status).to_contain_text(re.compile("is complete. Findings: 5."))
    expect(console.findings).to_have_count(5)
    totals = audit.get_by_role("table", name="Findings by class").locator("tbody tr")
    expect(totals.first).to_have_text(re.compile(r"^HeldPaid, .*3₽2,050\.50$"))
    assert console.facts(audit)["Settled by hand"] == "2"


def test_findings_are_shown_by_class(audited: ConsolePage) -> None:
    audited.page.get_by_label("Show class").select_option("Held (3)")
    expect(audited.findings).to_have_count(3)
    audited.page.get_by_label("Show class").select_option("All classes (5)")
    expect(audited.findings).to_have_count(5)


def test_an_audit_that_is_stopped_ends_at_the_server_and_is_not_called_complete(
    console: ConsolePage, api: FakeApi
) -> None:
    api.may_end.clear()
    console.run_audit()
    expect(console.findings).to_have_count(1)
    console.button("Stop").click()
    expect(console.section("Audit").get_by_role("status")).to_contain_text("Stopped before its end.")
    expect(console.button("Run audit")).to_be_focused()
    wait_until(lambda: api.running == 0, 15, "the audit goes on")


def test_leaving_the_page_ends_the_audit(console: ConsolePage, api: FakeApi) -> None:
    api.may_end.clear()
    console.run_audit()
    expect(console.findings).to_have_count(1)
    console.page.goto("about:blank")
    wait_until(lambda: api.running == 0, 15, "the audit goes on")


def test_an_audit_that_breaks_off_is_not_called_complete(console: ConsolePage, api: FakeApi) -> None:
    api.audit_error = "Payment provider is temporarily unavailable"
    console.run_audit()
    status = console.section("Audit").get_by_role("status")
    expect(status).to_contain_text("Payment provider is temporarily unavailable The audit broke off.")
    expect(console.findings).to_have_count(1)
    expect(console.section("Held and uncredited payments")).not_to_contain_text("Nothing is held or")


def test_another_audit_at_the_same_time_is_refused_in_the_servers_words(
    console: ConsolePage, api: FakeApi
) -> None:
    expect(console.chart).to_be_visible()
    api.fails_with = (409, {"detail": "Another audit is running"})
    console.run_audit()
    expect(console.section("Audit").get_by_role("status")).to_contain_text(
        "Another audit is running Try again in 7 sec."
    )


def test_days_that_cannot_be_audited_are_not_sent(console: ConsolePage, api: FakeApi) -> None:
    console.page.get_by_label("Since").fill("2026-11-25")
    console.page.get_by_label("Until").fill("2026-11-25")
    console.run_audit()
    expect(console.section("Audit").get_by_role("alert")).to_contain_text("Choose two days")
    console.page.get_by_label("Since").fill("2026-08-25")
    expect(console.section("Audit").get_by_role("alert")).to_be_hidden()
    console.run_audit()
    expect(console.findings).to_have_count(5)
    assert api.audited == [("2026-08-25", "2026-11-25")]


# --- Held payments ---


def test_a_held_payment_is_previewed_and_released_once(audited: ConsolePage, api: FakeApi) -> None:
    row = audited.held(HELD)
    expect(row).to_contain_text("Amount is not what was ordered amount_mismatch")
    expect(row).to_contain_text("A release credits what was paid.")
    expect(row).to_contain_text(OWNER)
    expect(row).to_contain_text("Nov 24, 2026, 00:14:05")  # in Moscow
    audited.open_release(HELD)
    expect(audited.confirm).to_be_disabled()
    audited.preview()
    facts = audited.facts(audited.dialog.locator(".preview"))
    assert facts == {
        "Would be credited": "₽900.00",
        "Owner": OWNER,
        "Wallet": WALLET,
        "Status at the provider": "succeeded",
        "Status here": "pending",
    }
    expect(audited.confirm).to_be_disabled()
    audited.write_note(NOTE)
    audited.confirm.click()
    expect(audited.dialog.get_by_role("status")).to_have_text("Released. ₽900.00 was credited to the wallet.")
    audited.dialog.get_by_role("button", name="Close").click()
    expect(audited.dialog).to_have_count(0)
    expect(row).to_contain_text("Released: ₽900.00")
    expect(row.get_by_role("button")).to_have_count(0)
    asked = {"payment_id": HELD, "reason": "amount_mismatch"}
    assert api.released == [
        {**asked, "note": "", "confirm": False},
        {**asked, "note": NOTE, "confirm": True},
    ]


def test_only_what_the_server_calls_releasable_can_be_released(audited: ConsolePage) -> None:
    buttons = audited.section("Held and uncredited payments").get_by_role("button")
    expect(buttons).to_have_count(3)
    expect(audited.held(FOREIGN)).to_contain_text("Cannot be released here")
    expect(audited.held(FOREIGN)).to_contain_text("whose is the money?")


def test_observe_mode_is_said_and_releases_nothing(new_console: NewConsole, api: FakeApi) -> None:
    api.report["mode"] = "observe"
    console = new_console()
    expect(console.page.get_by_text("nothing is credited and nothing is canceled")).to_be_visible()
    console.run_audit()
    expect(console.held(HELD)).to_contain_text("Release is off in observe mode")
    expect(console.section("Held and uncredited payments").get_by_role("button")).to_have_count(0)


def test_what_somebody_else_released_is_settled(audited: ConsolePage, api: FakeApi) -> None:
    api.released.append({"payment_id": HELD, "confirm": True})
    audited.open_release(HELD)
    audited.dialog.get_by_role("button", name="Preview").click()
    expect(audited.dialog.get_by_role("alert")).to_contain_text("Already credited")
    audited.page.keyboard.press("Escape")
    expect(audited.held(HELD)).to_contain_text("Already credited")
    expect(audited.held(HELD).get_by_role("button")).to_have_count(0)


# --- By keyboard ---


def test_the_keyboard_alone_releases_a_payment(audited: ConsolePage, api: FakeApi) -> None:
    keyboard = audited.page.keyboard
    opener = audited.held(REFUNDED).get_by_role("button")
    audited.held(HELD).get_by_role("button").focus()
    keyboard.press("Tab")
    expect(opener).to_be_focused()
    keyboard.press("Enter")
    expect(audited.dialog).to_be_visible()
    keyboard.press("Escape")
    expect(audited.dialog).to_have_count(0)
    expect(opener).to_be_focused()
    keyboard.press("Enter")
    expect(audited.dialog.get_by_role("button", name="Preview")).to_be_focused()
    keyboard.press("Enter")
    expect(audited.dialog.get_by_role("heading", name="What a release would do")).to_be_visible()
    keyboard.press("Tab")
    expect(audited.dialog.get_by_label("Note")).to_be_focused()
    keyboard.type(NOTE)
    keyboard.press("Tab")
    expect(audited.confirm).to_be_focused()
    outline = "element => getComputedStyle(element).outlineStyle"
    assert audited.confirm.evaluate(outline) == "solid"
    keyboard.press("Enter")
    expect(audited.dialog.get_by_role("status")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(audited.dialog).to_have_count(0)
    expect(audited.held(REFUNDED).get_by_text("Released: ₽250.50")).to_be_focused()
    assert [asked["confirm"] for asked in api.released] == [False, True]


# --- Languages, windows, schemes ---


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(new_console: NewConsole, locale: str) -> None:
    console = new_console(locale=locale, **ON_A_PHONE)
    expect(console.page.get_by_role("img")).to_be_visible()
    console.page.locator("form button").tap()
    opener = console.page.locator("[aria-haspopup=dialog]").first
    expect(opener).to_be_visible()
    console.page.locator("summary").tap()
    assert console.overflow() == 0
    opener.tap()
    console.dialog.get_by_role("button").first.tap()
    expect(console.dialog.locator(".preview")).to_be_visible()
    assert console.overflow() == 0
    assert console.dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
    box = console.dialog.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


def test_the_language_is_the_browsers_until_another_is_chosen(new_console: NewConsole) -> None:
    console = new_console(locale="ru-RU")
    expect(console.page).to_have_title("Сверка пополнений")
    expect(console.page.get_by_text("445\xa0000,00\xa0₽")).to_be_visible()
    assert console.page.locator("html").get_attribute("lang") == "ru"
    console.button("English").click()
    expect(console.page).to_have_title("Top-up reconcile")
    console.open()
    expect(console.page).to_have_title("Top-up reconcile")


@pytest.mark.parametrize("options", [{}, DARK], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(new_console: NewConsole, options: dict[str, Any]) -> None:
    console = new_console(**options)
    expect(console.chart).to_be_visible()
    console.run_audit()
    expect(console.findings).to_have_count(5)
    background = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if options else "rgb(244, 245, 247)")
    assert console.page.evaluate(_LOW_CONTRASTS) == []


_LOW_CONTRASTS = """
() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => {
        const [r, g, b] = numbers(color).map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if ((numbers(color)[3] ?? 1) === 1) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const isShownText = (element) =>
        element.checkVisibility() &&
        !element.matches('script, :disabled') &&
        [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const contrast = (element) => {
        const colors = [getComputedStyle(element).color, behind(element)];
        const [dark, light] = colors.map(luminance).sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    return [...document.querySelectorAll('body *')]
        .filter((element) => isShownText(element) && contrast(element) < 4.5)
        .map((element) => `${element.textContent}: ${contrast(element)}`);
}
"""
