"""Posts each held top-up to a chat, through the chat's incoming webhook."""

from __future__ import annotations

import json
import logging
import os
from typing import Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from openwebui_billing_reconcile import TopupEvent, hookimpl

log = logging.getLogger(__name__)

WEBHOOK_URL: Final = "HELD_TO_CHAT_WEBHOOK_URL"
TIMEOUT: Final = 5.0


class _RefuseRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: following it would turn the post into a GET that posts nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = build_opener(_RefuseRedirects)


@hookimpl
def topup_outcome(event: TopupEvent) -> None:
    """Post a held top-up; a failure is one log line."""
    if event.outcome != "held":
        return
    try:
        _post(os.environ[WEBHOOK_URL], message(event))
    except Exception as error:  # noqa: BLE001 - whatever a chat or a wrong address leads to
        # The name only: the text of some errors holds the URL, and whoever has the URL can post.
        why = f"HTTP {error.code}" if isinstance(error, HTTPError) else type(error).__name__
        log.warning("The chat was not told of the held payment %s: %s", event.payment_id, why)


def message(event: TopupEvent) -> str:
    """Return what the chat reads about a held top-up."""
    return (
        f"Top-up held: payment {event.payment_id}, {_amount(event)}, reason {event.reason}. "
        "Nothing was credited; a person has to look."
    )


def _amount(event: TopupEvent) -> str:
    if event.amount_kopeks is None:
        return "amount not known"
    rubles, kopeks = divmod(event.amount_kopeks, 100)
    return f"{rubles}.{kopeks:02} {event.currency or ''}".rstrip()


def _post(url: str, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - the operator's own URL
    with _opener.open(request, timeout=TIMEOUT):
        pass
