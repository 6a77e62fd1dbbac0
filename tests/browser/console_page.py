"""The console in a browser, wherever it is served."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, WebError, expect

CONSOLE = "/api/v1/billing/topup/reconcile/console"
_STORE = """
(token) => token === null ? localStorage.removeItem('token') : localStorage.setItem('token', token)
"""


class ConsolePage:
    """A person at the console, signed in to the host with ``token`` or, without one, not at all."""

    def __init__(self, context: BrowserContext, base_url: str, token: str | None) -> None:
        self.script_errors: list[str] = []
        """Errors of scripts, and violations of the content security policy."""
        context.on("weberror", self._note_error)
        context.on("console", self._note_console)
        self.page = context.new_page()
        self.base_url = base_url
        self.open()  # the storage is its origin's
        self.store_token(token)

    # --- Actions ---

    def store_token(self, token: str | None) -> None:
        """Sign in or out, as the host's own pages do: the next request has it."""
        self.page.evaluate(_STORE, token)

    def open(self) -> None:
        """Load the page."""
        self.page.goto(self.base_url + CONSOLE)

    def run_audit(self) -> None:
        """Start an audit of the days that stand in the form."""
        self.button("Run audit").click()

    def open_release(self, payment_id: str) -> None:
        """Open the dialog for a held payment."""
        self.held(payment_id).get_by_role("button", name="Release").click()
        expect(self.dialog).to_be_visible()

    def preview(self) -> None:
        """Preview the release in the dialog, and wait for the answer."""
        self.dialog.get_by_role("button", name="Preview").click()
        expect(self.dialog.get_by_role("heading", name="What a release would do")).to_be_visible()

    def write_note(self, note: str) -> None:
        """Fill in the dialog's note."""
        self.dialog.get_by_label("Note").fill(note)

    # --- What the page shows ---

    @property
    def dialog(self) -> Locator:
        """The dialog in which a payment is released."""
        return self.page.get_by_role("dialog")

    @property
    def confirm(self) -> Locator:
        """The dialog's last button."""
        return self.dialog.get_by_role("button", name="Confirm")

    @property
    def chart(self) -> Locator:
        """The chart of credits by day."""
        return self.section("Lost webhooks").get_by_role("img")

    @property
    def findings(self) -> Locator:
        """The rows of the audit's findings."""
        return self.section("Audit").get_by_role("table", name="Findings", exact=True).locator("tbody tr")

    def button(self, name: str) -> Locator:
        """Return a button of the page."""
        return self.page.get_by_role("button", name=name, exact=True)

    def section(self, title: str) -> Locator:
        """Return a section by its heading."""
        return self.page.get_by_role("region", name=title, exact=True)

    def held(self, payment_id: str) -> Locator:
        """Return the row of a held payment."""
        return self.section("Held and uncredited payments").get_by_role("row").filter(has_text=payment_id)

    def facts(self, where: Locator) -> dict[str, str]:
        """Return the names and values listed there."""
        names, values = where.locator("dt").all_inner_texts(), where.locator("dd").all_inner_texts()
        return dict(zip(names, values, strict=True))

    def overflow(self) -> int:
        """Return the pixels by which the page is wider than the window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(width))

    def _note_error(self, error: WebError) -> None:
        self.script_errors.append(str(error.error))

    def _note_console(self, message: ConsoleMessage) -> None:
        # The console also shows 4xx answers and lost connections, which the tests expect.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.script_errors.append(message.text)
