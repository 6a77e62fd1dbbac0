"""Rate limit and cooldown in a real Redis, as one worker sees them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.provider import shared_redis
from openwebui_billing_reconcile.provider.cooldown import Cooldown
from openwebui_billing_reconcile.provider.shared_redis import OUTAGE_PAUSE, SharedRedis, open_redis
from openwebui_billing_reconcile.topup.once_a_day import DAY, OnceADay
from tests.support.harness.rate_limits import HOUR, Clock, granted, limiter, retry_after
from tests.support.harness.redis import PASSWORD, RedisServer, needs_redis, running_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest_asyncio.fixture
async def redis(server: RedisServer, mocker: MockerFixture) -> AsyncIterator[SharedRedis]:
    """One worker's, with time to answer: a busy machine is no outage."""
    mocker.patch.object(shared_redis, "COMMAND_TIMEOUT", 30.0)
    opened = of_a_worker(server)
    yield opened
    await opened.close()


def of_a_worker(server: RedisServer) -> SharedRedis:
    """What one worker has of the shared state, under keys of its own."""
    opened = open_redis(server.url, f"test-{uuid4()}")
    assert opened is not None
    return opened


def ours(server: RedisServer, redis: SharedRedis, key: str) -> str:
    """The whole key, and no other is there."""
    with server.client() as client:
        (found,) = [name.decode() for name in client.scan_iter(f"{redis._prefix}:*")]
    assert found == f"{redis._prefix}:{key}"
    return str(found)


async def test_workers_share_one_budget(server: RedisServer, redis: SharedRedis) -> None:
    workers = [limiter("3/minute;100/hour", Clock(), redis) for _ in range(2)]
    assert [await granted(worker, 2) for worker in workers] == [2, 1]
    assert all([58 <= await retry_after(worker) <= 60 for worker in workers])
    assert await granted(workers[0], 1, "another") == 1
    with server.client() as client:
        keys = {name.decode() for name in client.scan_iter(f"{redis._prefix}:*")}
        assert keys == {f"{redis._prefix}:queries:{user_id}" for user_id in ("user", "another")}
        assert all(0 < client.pttl(key) <= HOUR * 1000 for key in keys)


async def test_the_window_moves(redis: SharedRedis) -> None:
    budget = limiter("2/second", Clock(), redis)
    assert await granted(budget, 3) == 2
    assert await retry_after(budget) == 1
    await asyncio.sleep(1.05)
    assert await granted(budget, 3) == 2


async def test_all_rates_hold(redis: SharedRedis) -> None:
    budget = limiter("3/hour;2/second", Clock(), redis)
    assert await granted(budget, 3) == 2
    await asyncio.sleep(1.05)
    assert await granted(budget, 3) == 1
    assert HOUR - 3 <= await retry_after(budget) <= HOUR


async def test_simultaneous_hits_are_counted_one_by_one(
    redis: SharedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    workers = [limiter("10/minute", Clock(), redis) for _ in range(2)]
    assert sum(await asyncio.gather(*(granted(workers[n % 2], 1) for n in range(300)))) == 10
    assert caplog.records == []


async def test_a_burst_that_meets_an_outage_is_one_line(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis = of_a_worker(server)
    budget = limiter("1000/minute", Clock(), redis)
    burst = asyncio.gather(*(granted(budget, 1, str(n)) for n in range(300)))
    while not budget._hits:  # some have been answered
        await asyncio.sleep(0)
    with server.hanging():
        assert sum(await burst) == 300
    assert len(caplog.records) == 1
    await redis.close()


async def test_a_history_is_no_longer_than_needed(server: RedisServer, redis: SharedRedis) -> None:
    budget = limiter("2/second", Clock(), redis)
    await granted(budget, 2)
    await asyncio.sleep(1.05)
    await granted(budget, 2)
    with server.client() as client:
        assert client.llen(ours(server, redis, "queries:user")) == 2


async def test_a_clock_set_back_refuses_nobody(server: RedisServer, redis: SharedRedis) -> None:
    budget = limiter("3/minute", Clock(), redis)
    await granted(budget, 1)
    with server.client() as client:  # as it stands when the clock has gone back by an hour
        key, future = ours(server, redis, "queries:user"), int((time.time() + HOUR) * 1000)
        client.lpush(key, future, future, future)
    assert await granted(limiter("3/minute", Clock(), redis), 5) == 3


async def test_workers_share_one_cooldown(redis: SharedRedis) -> None:
    one, other = Cooldown(redis), Cooldown(redis)
    assert await other.remaining("shop") == 0
    await one.start("shop", 30)
    await one.start("shop", 1)
    assert 28 < await other.remaining("shop") <= 30
    await other.start("shop", 40)
    assert 38 < await Cooldown(redis).remaining("shop") <= 40


async def test_a_cooldown_ends(redis: SharedRedis) -> None:
    one, other = Cooldown(redis), Cooldown(redis)
    await one.start("shop", 1)
    await asyncio.sleep(1.05)
    assert (await one.remaining("shop"), await other.remaining("shop")) == (0, 0)


async def test_a_cooldown_outlasts_no_clock_set_back(server: RedisServer, redis: SharedRedis) -> None:
    await Cooldown(redis).start("shop", 30)
    with server.client() as client:
        client.pexpire(ours(server, redis, "cooldown:shop"), int(HOUR * 1000))
    assert await Cooldown(redis).remaining("shop") == 0


async def test_loops_have_connections_of_their_own(server: RedisServer) -> None:
    shared = of_a_worker(server)
    budget = limiter("3/minute", Clock(), shared)

    async def in_a_loop() -> int:
        count = await granted(budget, 2)
        await shared.close()
        return count

    assert [await asyncio.to_thread(asyncio.run, in_a_loop()) for _ in range(2)] == [2, 1]


async def test_without_redis_this_process_counts_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, shared_redis.__name__)
    clock = Clock()
    with running_redis() as server:
        opened = open_redis(server.url, "")
        assert opened is not None
        redis = SharedRedis(opened._clients._factory, "", clock)
        budget, cooldown = limiter("3/minute", clock, redis), Cooldown(redis, clock)
        assert await granted(budget, 1) == 1
        server.kill()
        assert await granted(budget, 5) == 2  # the first one is not forgotten
        assert await granted(budget, 5, "another") == 3
        assert await cooldown.start("shop", 1) == 1
        assert await cooldown.remaining("shop") == 1
        clock.now += OUTAGE_PAUSE
        assert await cooldown.remaining("shop") == 0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        server.start()
        assert await cooldown.remaining("shop") == 0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        clock.now += OUTAGE_PAUSE
        assert await granted(budget, 5) == 3
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert PASSWORD not in caplog.text
        await redis.close()


async def test_a_redis_that_hangs_delays_one_hit_by_half_a_second(server: RedisServer) -> None:
    redis = of_a_worker(server)
    budget = limiter("20/minute", Clock(), redis)
    with server.hanging():
        began = time.monotonic()
        assert await granted(budget, 20) == 20
        assert 0.4 < time.monotonic() - began < 1.5
    await redis.close()


async def test_a_connection_closed_meanwhile_is_no_outage(
    server: RedisServer, redis: SharedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    budget = limiter("3/minute", Clock(), redis)
    await budget.hit("user")
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert await granted(limiter("3/minute", Clock(), redis), 5) == 2
    assert caplog.records == []


async def test_what_is_said_once_a_day_is_said_by_one_worker(server: RedisServer, redis: SharedRedis) -> None:
    workers = [OnceADay(redis) for _ in range(2)]
    assert [await worker.is_first("pay-1:refunded") for worker in (*workers, *workers)] == [True] + [
        False
    ] * 3
    assert await OnceADay(redis).is_first("pay-1:refunded") is False  # after a restart
    assert await OnceADay(redis).is_first("pay-1:not_paid") is True
    with server.client() as client:
        ttl = client.ttl(f"{redis._prefix}:told:pay-1:refunded")
    assert DAY - 60 < ttl <= DAY


async def test_without_redis_each_worker_says_it_once(server: RedisServer) -> None:
    redis = of_a_worker(server)
    workers = [OnceADay(redis) for _ in range(2)]
    with server.hanging():
        answers = [await worker.is_first("pay-1:refunded") for worker in (*workers, *workers)]
    assert answers == [True, True, False, False]
    await redis.close()
