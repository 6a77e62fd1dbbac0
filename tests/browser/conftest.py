"""The browser, the host and the provider of these tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.harness.host import Host, Program, running_host
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import ROOT, running_simulator

from .browser_user import BrowserUser, Clock

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

NewBrowserUser = Callable[..., BrowserUser]


# While Playwright runs, this thread has an event loop over which other asynchronous tests would stumble. A
# package's fixtures end before the tests of another one begin.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Yield Chromium."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing = f"no Chromium: none of {', '.join(NAMES)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=15_000)  # a machine may be busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def provider() -> Iterator[Simulator]:
    """Yield the provider; it sends no webhooks."""
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="package")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """Return the server's clock."""
    return Clock(tmp_path_factory.mktemp("clock") / "now")


@pytest.fixture(scope="package")
def host(provider: Simulator, clock: Clock) -> Iterator[Host]:
    """Yield the host with the plugin."""
    env = {"TEST_CLOCK": str(clock.file), "PYTHONPATH": str(ROOT)}
    app = "tests.browser.clocked_app:app"
    with running_host(Program(), simulator=provider, env=env, app=app) as host:
        yield host


@pytest.fixture
def new_browser_user(browser: Browser, host: Host, clock: Clock) -> Iterator[NewBrowserUser]:
    """Yield a function that makes a user at this or another host, with options for the browser context."""
    users: list[BrowserUser] = []
    with ExitStack() as stack:

        def make(at: Host = host, **options: Any) -> BrowserUser:
            context = browser.new_context(**{"locale": "en-US", **options})
            stack.callback(context.close)
            users.append(BrowserUser(at, clock, context))
            return users[-1]

        yield make
    assert [browser_user.script_errors for browser_user in users] == [[] for _ in users]


@pytest.fixture
def browser_user(new_browser_user: NewBrowserUser) -> BrowserUser:
    """Return a user whose clock is stopped."""
    browser_user = new_browser_user()
    browser_user.stop_clock()
    return browser_user
