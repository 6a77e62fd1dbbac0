"""Somebody who only wants to look at the balance while others are in trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.harness.host import User


class Bystander:
    """Looks again and again, and notes the longest wait."""

    def __init__(self, user: User, pause: float, *, alive: bool) -> None:
        self._user = user
        self._pause = pause
        self._alive = alive
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.longest = 0.0
        self.trouble: str | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while self.trouble is None:
            began = time.monotonic()
            try:
                self._user.host.http.get("/health").raise_for_status()
                if not self._alive:
                    self._user.balance()
            except httpx.HTTPError as error:
                self.trouble = repr(error)
            self.longest = max(self.longest, time.monotonic() - began)
            if self._over.wait(self._pause):
                return


@contextmanager
def unharmed(user: User, seconds: float = 3.0, pause: float = 0.1, *, alive: bool = False) -> Iterator[None]:
    """Meanwhile this user's balance is always there, after so many seconds at most.

    Only `alive`: the host answers, while its own reads of the database may be in trouble too.
    """
    user.balance()  # the first look makes the wallet
    bystander = Bystander(user, pause, alive=alive)
    bystander.start()
    try:
        yield
    finally:
        bystander.stop()
    assert bystander.trouble is None, bystander.trouble
    assert bystander.longest < seconds, f"the longest wait was {bystander.longest:.1f} s"
