"""The host's application, its questions to the provider paced by a clock that the tests move."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from openwebui_billing_reconcile.provider import client as pacing

CLOCK = Path(os.environ["TEST_CLOCK"])


def _seconds() -> float:
    return float(CLOCK.read_text())


pacing.Pacing = partial(pacing.Pacing, clock=_seconds)  # type: ignore[assignment,misc]

from open_webui.main import app  # noqa: E402 - the clock comes first

__all__ = ["app"]
