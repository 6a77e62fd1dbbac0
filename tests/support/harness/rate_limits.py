"""A rate limiter as tests ask it, with a clock of theirs."""

from __future__ import annotations

import limits
import pytest

from openwebui_billing_reconcile.errors import RateLimitedError
from openwebui_billing_reconcile.provider.shared_redis import SharedRedis
from openwebui_billing_reconcile.provider.user_rate_limit import RateLimiter

HOUR = 3600.0


class Clock:
    """Seconds, as the test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(rates: str, clock: Clock, redis: SharedRedis | None = None) -> RateLimiter:
    return RateLimiter(limits.parse_many(rates), redis, clock)


async def granted(limiter: RateLimiter, tries: int, user_id: str = "user") -> int:
    """How many of so many tries are allowed."""
    count = 0
    for _ in range(tries):
        try:
            await limiter.hit(user_id)
        except RateLimitedError:
            continue
        count += 1
    return count


async def retry_after(limiter: RateLimiter, user_id: str = "user") -> int:
    """What a refused user is told, in seconds."""
    with pytest.raises(RateLimitedError) as refused:
        await limiter.hit(user_id)
    assert refused.value.retry_after is not None
    return refused.value.retry_after
