"""Somebody at a browser, and the time that passes for them and for the server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Page, Response, WebError, expect

from tests.support.harness.host import RECONCILE, Host, User

FLOW_KEY = "billing_topup_flow_v1"
PACKAGE = 100_000
BALANCE = "/billing/balance"
STEP_SECONDS = 1.0
PATIENCE_SECONDS = 20.0

# Counts what the page has sent and not yet taken in.
_COUNT_REQUESTS = """
window.underWay = 0;
const send = window.fetch;
window.fetch = async (...request) => {
    window.underWay += 1;
    try {
        const answer = await send(...request);
        const body = await answer.arrayBuffer();
        return new Response(body.byteLength ? body : null, answer);
    } finally {
        queueMicrotask(() => queueMicrotask(() => (window.underWay -= 1)));
    }
};
"""
_STORE = """
([key, value]) => value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value)
"""
_LOOK_AWAY = """
(state) => {
    Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
    Object.defineProperty(document, 'hidden', { value: state === 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}
"""


def _is_busy(page: Page) -> bool:
    try:
        return bool(page.evaluate("document.readyState !== 'complete' || window.underWay > 0"))
    except Error:  # it is being loaded anew
        return True


class Clock:
    """The one by which the server paces its questions: a file, which stands still unless it is moved."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._now = 0.0
        self.advance(1.0)

    def advance(self, seconds: float) -> None:
        """Move it on."""
        self._now += seconds
        fresh = self.file.with_suffix(".next")
        fresh.write_text(str(self._now))
        fresh.replace(self.file)


class Person:
    """Somebody with a browser and an account of their own."""

    def __init__(self, host: Host, clock: Clock, context: BrowserContext) -> None:
        self.host = host
        self.simulator = host.simulator
        self.user: User = host.new_user()
        self.context = context
        self.base_url = host.base_url
        self.seconds = 0.0
        """How much time has passed since their clock was stopped."""
        self.asked: list[float] = []
        """When the server was asked about a top-up."""
        self.answered: list[int] = []
        """With which status it answered."""
        self.loads = 0
        """How often a balance page was loaded."""
        self.complaints: list[str] = []
        """Errors of scripts, and what the browser refused to do for the security policy."""
        self._clock = clock
        self._clock_stands = False
        context.on("response", self._note_response)
        context.on("weberror", self._note_error)
        context.on("console", self._note_console)
        self.page = context.new_page()

    # --- What they do ---

    def stop_the_clock(self) -> None:
        """From here on time passes in `wait` only, for the browser and for the server."""
        now = time.time()
        self.context.clock.install(time=now)
        self.context.clock.pause_at(now + 1)
        self.context.add_init_script(_COUNT_REQUESTS)
        self._clock.advance(1000)  # so that nothing before this counts
        self._clock_stands = True

    def wait(self, seconds: float) -> None:
        """Let time pass, step by step; what is sent in a step is answered before the next."""
        for _ in range(round(seconds / STEP_SECONDS)):
            self._clock.advance(STEP_SECONDS)
            self.seconds += STEP_SECONDS
            self.context.clock.run_for(round(STEP_SECONDS * 1000))
            self._settle()

    def remember(self, flow: str | None, token: str | None = None) -> None:
        """Have the browser store a token and a top-up, without loading a page of the host."""
        self.page.goto(f"{self.host.base_url}/health")
        self.page.evaluate(_STORE, ["token", token or self.user.token])
        self.page.evaluate(_STORE, [FLOW_KEY, flow])

    def leave_for_the_provider(self) -> str:
        """Begin a top-up, as the page does it; its id."""
        payment_id = self.user.topup(PACKAGE)
        self.remember(self.flow(payment_id))
        return payment_id

    def come_back(self, page: Page | None = None) -> None:
        """Load the page that the provider sends them to."""
        (page or self.page).goto(f"{self.base_url}{BALANCE}?topup_return=1")
        self._settle()

    def look(self, state: str) -> None:
        """Turn to the page, or away from it: "visible", "hidden"."""
        self.page.evaluate(_LOOK_AWAY, state)
        self._settle()

    # --- What they see ---

    def sees(self, state: str, page: Page | None = None) -> None:
        """What the page says about the top-up: checking, success, pending."""
        expect((page or self.page).locator(".banner")).to_have_attribute("data-state", state)
        expect((page or self.page).locator(".banner")).to_be_visible()

    def sees_no_topup(self) -> None:
        """The page says nothing about a top-up."""
        expect(self.page.locator(".packages button").first).to_be_visible()
        expect(self.page.locator(".banner")).to_be_hidden()

    def sees_balance(self, text: str, page: Page | None = None) -> None:
        """The balance, in words."""
        expect((page or self.page).locator(".figure")).to_have_text(text)

    # --- What there is ---

    def flow(self, payment_id: str, **fields: Any) -> str:
        """What the page stores before it sends somebody away."""
        flow = {
            "started_at_ms": int(time.time() * 1000),
            "amount_kopeks": PACKAGE,
            "previous_total_kopeks": self.user.balance(),
            "payment_id": payment_id,
            "return_to": None,
        }
        return json.dumps(flow | fields)

    @property
    def stored(self) -> object:
        """The top-up that the browser still remembers."""
        return self.page.evaluate(f"localStorage.getItem('{FLOW_KEY}')")

    def _settle(self) -> None:
        """Until every page has taken in what it asked for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        quiet = 0
        while quiet < 2 and self._clock_stands:
            assert time.monotonic() < deadline, "the pages do not come to rest"
            quiet = 0 if any(_is_busy(page) for page in self.context.pages) else quiet + 1

    def _note_response(self, response: Response) -> None:
        path = urlsplit(response.url).path
        if path.endswith(RECONCILE):
            self.asked.append(self.seconds)
            self.answered.append(response.status)
        elif path.endswith(BALANCE) and response.request.is_navigation_request():
            self.loads += 1

    def _note_error(self, error: WebError) -> None:
        self.complaints.append(str(error.error))

    def _note_console(self, message: ConsoleMessage) -> None:
        # Answers of 4xx and lost connections are in the console as well; those a test expects.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)
