"""Logging of the running application."""

from __future__ import annotations

import logging
import sys

from open_webui.env import GLOBAL_LOG_LEVEL


def start_logger() -> None:
    """From here on everybody's INFO lines appear on stdout."""
    logging.basicConfig(
        stream=sys.stdout,
        level=GLOBAL_LOG_LEVEL,
        format="%(asctime)s | %(levelname)-8s | %(name)s - %(message)s",
        force=True,
    )
