"""The console at a real host: an administrator's afternoon, and a user who has no business there."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.contract.scenarios import paid
from tests.support.harness.host import Host, running_host
from tests.support.yookassa.client import rubles
from tests.support.yookassa.process import running_simulator

from .console_page import ConsolePage

NOTE = "Paid 250.50 of 1000; the customer agrees."


def console_of(browser: Browser, host: Host, token: str) -> ConsolePage:
    console = ConsolePage(browser.new_context(locale="en-US"), host.base_url, token)
    console.open()
    return console


def test_an_administrator_finds_and_releases_what_is_held(browser: Browser) -> None:
    with running_simulator() as provider, running_host(simulator=provider) as host:
        user = host.new_user()
        returned, short, lost = paid(user), paid(user), paid(user)
        user.reconcile(returned)
        provider.change(short, amount=rubles("250.50"))

        console = console_of(browser, host, host.admin.token)
        expect(console.chart).to_be_visible()
        console.run_audit()
        expect(console.findings).to_have_count(2)
        expect(console.findings.filter(has_text=lost)).to_contain_text("₽1,000.00")
        console.open_release(short)
        console.preview()
        assert console.facts(console.dialog.locator(".preview"))["Would be credited"] == "₽250.50"
        console.write_note(NOTE)
        console.confirm.click()
        expect(console.dialog.get_by_role("status")).to_contain_text("Released. ₽250.50")
        assert user.balance() == 125_050
        (entry,) = host.books.entries(short)
        assert (entry["metadata_json"]["note"], entry["metadata_json"]["released_by"]) == (
            NOTE,
            host.admin.id,
        )

        console.dialog.get_by_role("button", name="Close").click()
        console.run_audit()
        expect(console.findings).to_have_count(1)
        assert console.script_errors == []

        stranger = console_of(browser, host, user.token)
        expect(stranger.page.get_by_role("alert")).to_contain_text("administrator")
        expect(stranger.chart).to_have_count(0)
        assert stranger.script_errors == []
