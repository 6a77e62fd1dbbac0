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

from .browser_user import Clock, Person

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

NewPerson = Callable[..., Person]


# While Playwright runs, this thread has an event loop over which other asynchronous tests would stumble. A
# package's fixtures end before the tests of another one begin.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium."""
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
    """The provider; its webhooks never come."""
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="package")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """The server's clock."""
    return Clock(tmp_path_factory.mktemp("clock") / "now")


@pytest.fixture(scope="package")
def host(provider: Simulator, clock: Clock) -> Iterator[Host]:
    """The host with the plugin."""
    env = {"TEST_CLOCK": str(clock.file), "PYTHONPATH": str(ROOT)}
    app = "tests.browser.clocked_app:app"
    with running_host(Program(), simulator=provider, env=env, app=app) as host:
        yield host


@pytest.fixture
def new_person(browser: Browser, host: Host, clock: Clock) -> Iterator[NewPerson]:
    """Makes somebody: at this host or at another one, with whatever browser they like."""
    people: list[Person] = []
    with ExitStack() as stack:

        def make(at: Host = host, **options: Any) -> Person:
            context = browser.new_context(**{"locale": "en-US", **options})
            stack.callback(context.close)
            people.append(Person(at, clock, context))
            return people[-1]

        yield make
    assert [person.complaints for person in people] == [[] for _ in people]


@pytest.fixture
def person(new_person: NewPerson) -> Person:
    """Somebody whose clock stands still."""
    person = new_person()
    person.stop_the_clock()
    return person
