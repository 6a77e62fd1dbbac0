"""Notifications to the shop, and their redelivery."""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx

# Seconds after the first attempt; in between the provider is silent.
SCHEDULE = (10, 42, 84, 168, 672, 5376, 86016)
RECEIVER_TIMEOUT = 10.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Where notifications go, whether, and how fast."""

    url: str | None
    on: bool
    delay_seconds: float = 0.0
    redelivery_factor: float = 1.0


@dataclass(frozen=True)
class Attempt:
    """One notification on its way; no status where the receiver could not be reached."""

    payment_id: str
    event: str
    epoch: float
    status: int | None
    error: str | None = None


class Webhooks:
    """Sends notifications. Switching off drops what is still due as well: it is lost."""

    def __init__(self, url: str | None) -> None:
        self._initial = Settings(url, on=url is not None)
        self.settings = self._initial
        self.attempts: list[Attempt] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # No proxy and no certificates: receivers are on this machine. A connection for each, as
        # a kept one would fail after the receiver was started anew.
        self._client = httpx.AsyncClient(
            timeout=RECEIVER_TIMEOUT,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    def change(self, **fields: Any) -> None:
        """Change some of the settings."""
        self.settings = replace(self.settings, **fields)
        if not self.settings.on:
            self._drop_due()

    def state(self) -> Document:
        """The settings, and how many notifications are on their way or due again."""
        document = asdict(self.settings)
        document["mode"] = "on" if document.pop("on") else "off"
        return document | {"due": len(self._tasks)}

    def notify(self, event: str, subject: Document) -> None:
        """Tell the shop in the background, with the object as it is now."""
        if not self.settings.on:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(event, copy.deepcopy(subject)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send(self, event: str, subject: Document) -> Attempt:
        """One notification now, whatever the mode."""
        body = {"type": "notification", "event": event, "object": subject}
        status, error = None, None
        epoch = time.time()
        try:
            answer = await self._client.post(self.settings.url or "", json=body)
            status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = type(failure).__name__
        attempt = Attempt(_payment_id(event, subject), event, epoch, status, error)
        self.attempts.append(attempt)
        return attempt

    def clear(self) -> None:
        """Forget everything, also what is due."""
        self._drop_due()
        self.settings = self._initial
        self.attempts.clear()

    async def close(self) -> None:
        """Stop for good."""
        self.clear()
        await self._client.aclose()

    def _drop_due(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _deliver(self, event: str, subject: Document) -> None:
        await asyncio.sleep(self.settings.delay_seconds)
        start = time.monotonic()
        for after in (0, *SCHEDULE):
            due = start + after * self.settings.redelivery_factor
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if (await self.send(event, subject)).status == 200:
                return


def _payment_id(event: str, subject: Document) -> str:
    return str(subject.get("payment_id" if event.startswith("refund.") else "id"))
