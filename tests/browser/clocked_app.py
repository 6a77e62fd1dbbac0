"""The host's application with a provider client whose clock the tests move.

Answers expire and polls become due by that clock; deadlines stay in real time.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from openwebui_billing_reconcile.provider import client

CLOCK = Path(os.environ["TEST_CLOCK"])


def _seconds() -> float:
    return float(CLOCK.read_text())


# Before the reconciler imports the name.
client.ProviderClient = partial(client.ProviderClient, clock=_seconds)  # type: ignore[assignment,misc]

from open_webui.main import app  # noqa: E402 - the clock comes first

__all__ = ["app"]
