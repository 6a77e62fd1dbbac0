"""A user who only reads the balance while others are in trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.harness.host import User


class Bystander:
    """Reads the balance again and again on a thread, and measures the longest wait."""

    def __init__(self, user: User, pause: float, *, only_health: bool) -> None:
        self._user = user
        self._pause = pause
        self._only_health = only_health
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.longest = 0.0
        self.trouble: str | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while self.trouble is None:
            began = time.monotonic()
            try:
                self._user.host.http.get("/health").raise_for_status()
                if not self._only_health:
                    self._user.balance()
            except httpx.HTTPError as error:
                self.trouble = repr(error)
            self.longest = max(self.longest, time.monotonic() - began)
            if self._over.wait(self._pause):
                return


@contextmanager
def unharmed(
    user: User, seconds: float = 3.0, pause: float = 0.1, *, only_health: bool = False
) -> Iterator[None]:
    """Assert that meanwhile this user can read the balance, within so many seconds each time.

    ``only_health``: that the host answers, for when its own reads of the database are in trouble too.
    """
    user.balance()  # the first read creates the wallet
    # Newer hosts lock the wallet to read its balance, so that there a held row harms its owner's reads.
    bystander = Bystander(user, pause, only_health=only_health or user.host.books.has_claims)
    bystander.start()
    try:
        yield
    finally:
        bystander.stop()
    assert bystander.trouble is None, bystander.trouble
    assert bystander.longest < seconds, f"the longest wait was {bystander.longest:.1f} s"
