"""A user at a browser, and the clock of the browser and the server."""

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
SETTLE_TIMEOUT = 20.0

# Counts the requests of each document, and those whose answers it has not yet processed.
_COUNT_REQUESTS = """
window.requestsInFlight = 0;
window.requestsSent = Math.random();
const send = window.fetch;
window.fetch = async (...request) => {
    window.requestsInFlight += 1;
    window.requestsSent += 1;
    try {
        const answer = await send(...request);
        const body = await answer.arrayBuffer();
        return new Response(body.byteLength ? body : null, answer);
    } finally {
        queueMicrotask(() => queueMicrotask(() => (window.requestsInFlight -= 1)));
    }
};
"""
_STORE = """
([key, value]) => value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value)
"""
_SET_VISIBILITY = """
(state) => {
    Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
    Object.defineProperty(document, 'hidden', { value: state === 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}
"""


_REQUESTS_SENT = """
document.readyState !== 'complete' || window.requestsInFlight > 0 ? null : window.requestsSent
"""


def _requests_sent(page: Page) -> float | None:
    """Count the requests of a page that has processed all answers; None while it has not."""
    try:
        count: float | None = page.evaluate(_REQUESTS_SENT)
    except Error:  # the page is loading
        return None
    return count


class Clock:
    """The server's clock for provider queries: a file with seconds that changes only in ``advance``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._now = 0.0
        self.advance(1.0)

    def advance(self, seconds: float) -> None:
        """Add seconds."""
        self._now += seconds
        fresh = self.file.with_suffix(".next")
        fresh.write_text(str(self._now))
        fresh.replace(self.file)


class BrowserUser:
    """A user with a browser and an account of their own."""

    def __init__(self, host: Host, clock: Clock, context: BrowserContext) -> None:
        self.host = host
        self.simulator = host.simulator
        self.user: User = host.new_user()
        self.context = context
        self.base_url = host.base_url
        self.seconds = 0.0
        """Seconds since the clock was stopped."""
        self.polled_at: list[float] = []
        """Seconds at which the page polled the endpoint."""
        self.statuses: list[int] = []
        """The endpoint's status for each poll."""
        self.visited_at: list[float] = []
        """Seconds at which the page asked about all open top-ups."""
        self.loads = 0
        """Number of balance page loads."""
        self.script_errors: list[str] = []
        """Errors of scripts, and violations of the content security policy."""
        self._clock = clock
        self._clock_stopped = False
        self._requests_sent: list[float | None] = []
        context.on("response", self._note_response)
        context.on("weberror", self._note_error)
        context.on("console", self._note_console)
        self.page = context.new_page()

    # --- Actions ---

    def stop_clock(self) -> None:
        """Stop the clock of browser and server; from here on time passes in ``wait`` only."""
        now = time.time()
        self.context.clock.install(time=now)
        self.context.clock.pause_at(now + 1)
        self.context.add_init_script(_COUNT_REQUESTS)
        self._clock.advance(1000)  # so that no state of an earlier test is left
        self._clock_stopped = True

    def wait(self, seconds: float) -> None:
        """Let time pass in steps of a second; requests sent in a step are answered before the next."""
        self._wait(seconds, step=1.0)

    def idle(self, seconds: float) -> None:
        """Let time pass in which the script is to do nothing, in few steps."""
        self._wait(seconds, step=10.0)

    def _wait(self, seconds: float, step: float) -> None:
        steps, rest = divmod(seconds, step)
        assert not rest
        for _ in range(round(steps)):
            self._clock.advance(step)
            self.seconds += step
            self.context.clock.run_for(round(step * 1000))
            self._settle()

    def store(self, flow: str | None, token: str | None = None) -> None:
        """Store a token and a top-up in the browser, without loading a page of the host."""
        self.page.goto(f"{self.host.base_url}/health")
        self.page.evaluate(_STORE, ["token", token or self.user.token])
        self.page.evaluate(_STORE, [FLOW_KEY, flow])

    def start_topup(self) -> str:
        """Begin a top-up as the page does and return its id."""
        payment_id = self.user.topup(PACKAGE)
        self.store(self.flow(payment_id))
        return payment_id

    def return_from_provider(self, page: Page | None = None) -> None:
        """Load the page to which the provider redirects."""
        (page or self.page).goto(f"{self.base_url}{BALANCE}?topup_return=1")
        self._settle()

    def open_balance(self) -> None:
        """Load the balance page from elsewhere."""
        self.page.goto(self.base_url + BALANCE)
        self._settle()

    def set_visibility(self, state: str) -> None:
        """Set the page's visibility: "visible" or "hidden"."""
        self.page.evaluate(_SET_VISIBILITY, state)
        self._settle()

    # --- What the page shows ---

    def assert_state(self, state: str, page: Page | None = None) -> None:
        """Assert what the page shows about the top-up: checking, success, pending."""
        expect((page or self.page).locator(".banner")).to_have_attribute("data-state", state)
        expect((page or self.page).locator(".banner")).to_be_visible()

    def assert_no_topup(self) -> None:
        """Assert that the page shows nothing about a top-up."""
        expect(self.page.locator(".packages button").first).to_be_visible()
        expect(self.page.locator(".banner")).to_be_hidden()

    def assert_balance(self, text: str, page: Page | None = None) -> None:
        """Assert the balance as text."""
        expect((page or self.page).locator(".figure")).to_have_text(text)

    # --- What the browser stores ---

    def flow(self, payment_id: str, **fields: Any) -> str:
        """Return what the page stores before the redirect to the provider."""
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
        """The top-up that the browser still stores, as text."""
        return self.page.evaluate(f"localStorage.getItem('{FLOW_KEY}')")

    def _settle(self) -> None:
        """Wait until no page has a request in flight, and none has sent any since the last look."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while self._clock_stopped:
            assert time.monotonic() < deadline, "the pages still have requests in flight"
            requests_sent = [_requests_sent(page) for page in self.context.pages]
            if None not in requests_sent and requests_sent == self._requests_sent:
                return
            self._requests_sent = requests_sent

    def _note_response(self, response: Response) -> None:
        path = urlsplit(response.url).path
        if path.endswith(RECONCILE):
            self.polled_at.append(self.seconds)
            self.statuses.append(response.status)
        elif path.endswith(f"{RECONCILE}/pending"):
            self.visited_at.append(self.seconds)
        elif path.endswith(BALANCE) and response.request.is_navigation_request():
            self.loads += 1

    def _note_error(self, error: WebError) -> None:
        self.script_errors.append(str(error.error))

    def _note_console(self, message: ConsoleMessage) -> None:
        # The console also shows 4xx answers and lost connections, which the tests expect.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.script_errors.append(message.text)
