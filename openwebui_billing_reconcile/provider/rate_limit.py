"""How many provider queries one user may cause."""

from __future__ import annotations

import math
import time

import limits
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from openwebui_billing_reconcile.errors import RateLimitedError


class RateLimiter:
    """Provider queries per user, counted in this process and shared by all its event loops."""

    def __init__(self, rate: limits.RateLimitItem) -> None:
        self._rate = rate
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def hit(self, user_id: str) -> None:
        """Count one query. Raises ``RateLimitedError`` when the user has none left."""
        if self._window.hit(self._rate, user_id):
            return
        reset_at = self._window.get_window_stats(self._rate, user_id).reset_time
        raise RateLimitedError(retry_after=max(1, math.ceil(reset_at - time.time())))
