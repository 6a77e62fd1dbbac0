"""How many provider queries one user may cause, and the provider's own pause, in one process."""

from __future__ import annotations

import asyncio
import math
import sys
import time
import tracemalloc
from types import SimpleNamespace
from uuid import uuid4

import limits
import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import RateLimitedError, TemporarilyUnavailableError
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import ENV
from openwebui_billing_reconcile.provider import user_rate_limit
from openwebui_billing_reconcile.provider.client import ProviderClient
from openwebui_billing_reconcile.provider.cooldown import MAX_COOLDOWN, Cooldown
from openwebui_billing_reconcile.provider.shared_redis import open_redis
from openwebui_billing_reconcile.provider.user_rate_limit import RateLimiter
from tests.support.harness.rate_limits import HOUR, Clock, granted, limiter, retry_after


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- In this process -----------------------------------------------------------------------------


async def test_a_user_has_so_many_and_no_more(clock: Clock) -> None:
    budget = limiter("3/minute", clock)
    assert await granted(budget, 5) == 3
    assert await granted(budget, 5, "another") == 3


async def test_the_window_moves(clock: Clock) -> None:
    budget = limiter("2/minute", clock)
    await budget.hit("user")
    clock.now += 40
    await budget.hit("user")
    assert await retry_after(budget) == 20
    clock.now += 19.5
    assert await retry_after(budget) == 1
    clock.now += 0.5
    assert await granted(budget, 2) == 1  # the first has left the window, the second has not
    assert await retry_after(budget) == 40


async def test_refused_hits_are_not_counted(clock: Clock) -> None:
    budget = limiter("2/minute", clock)
    assert await granted(budget, 100) == 2
    clock.now += 60
    assert await granted(budget, 100) == 2


async def test_all_rates_hold(clock: Clock) -> None:
    budget = limiter("30/minute;100/hour", clock)
    minutes = []
    for _ in range(5):
        minutes.append(await granted(budget, 40))
        clock.now += 60
    assert minutes == [30, 30, 30, 10, 0]
    assert await retry_after(budget) == HOUR - 5 * 60
    clock.now += HOUR - 5 * 60
    assert await granted(budget, 40) == 30


async def test_who_is_refused_waits_for_the_strictest_rate(clock: Clock) -> None:
    budget = limiter("5/hour;1/second", clock)
    for _ in range(4):
        await budget.hit("user")
        assert await retry_after(budget) == 1
        clock.now += 1
    await budget.hit("user")
    assert await retry_after(budget) == HOUR - 4


@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_a_wall_clock_that_is_set_changes_nothing(step: float, mocker: MockerFixture) -> None:
    budget = RateLimiter(limits.parse_many("2/minute"))
    assert await granted(budget, 3) == 2
    now = time.time
    mocker.patch.object(time, "time", side_effect=lambda: now() + step)
    assert 58 <= await retry_after(budget) <= 60


async def test_the_user_idle_longest_is_forgotten_first(clock: Clock, mocker: MockerFixture) -> None:
    mocker.patch.object(user_rate_limit, "MAX_USERS", 100)
    budget = limiter("1/minute", clock)
    await budget.hit("idle")
    await budget.hit("busy")
    for number in range(500):
        await budget.hit(str(number))
        assert await granted(budget, 1, "busy") == 0
    assert await granted(budget, 1, "idle") == 1


async def test_memory_is_bounded(clock: Clock, mocker: MockerFixture) -> None:
    most, bytes_each = 3000, 500
    mocker.patch.object(user_rate_limit, "MAX_USERS", most)
    users = [str(uuid4()) for _ in range(3 * most)]
    budget = limiter("30/minute", clock)
    tracemalloc.start()
    for user_id in users[:most]:
        await budget.hit(user_id)
    full, _ = tracemalloc.get_traced_memory()
    for user_id in users[most:]:
        await budget.hit(user_id)
    later, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert full < most * bytes_each
    assert later < full * 1.5


async def test_a_hit_costs_the_same_however_many_users_are_known(clock: Clock) -> None:
    few, many = (limiter("1000/minute", clock) for _ in range(2))
    users = [str(uuid4()) for _ in range(10_000)]
    for user_id in users:
        await many.hit(user_id)

    async def seconds(budget: RateLimiter, known: list[str]) -> float:
        began = time.process_time()
        for number in range(2000):
            await budget.hit(known[number % len(known)])
        return time.process_time() - began

    # The best of several, in turn: what else runs here disturbs both.
    rounds = [(await seconds(few, users[:10]), await seconds(many, users)) for _ in range(5)]
    assert min(m for _, m in rounds) < 5 * min(f for f, _ in rounds)


# --- Charging ------------------------------------------------------------------------------------


class Gateway:
    """Tells that every payment is pending, after a moment."""

    account_id = None
    is_test_shop = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get_payment(self, payment_id: str) -> object:
        self.asked.append(payment_id)
        await asyncio.sleep(0.01)
        return {"id": payment_id, "status": "pending"}


async def test_simultaneous_callers_cause_one_query_and_one_charge() -> None:
    client, gateway, charged = ProviderClient(5), Gateway(), 0

    async def charge() -> None:
        nonlocal charged
        await asyncio.sleep(0.01)  # as a Redis does
        charged += 1

    fetches = [client.fetch(gateway, "payment", on_new_query=charge) for _ in range(50)]
    payments = await asyncio.gather(*fetches)
    assert len({id(payment) for payment in payments}) == 1
    assert (gateway.asked, charged) == (["payment"], 1)


async def test_who_cannot_pay_keeps_nobody_else_from_asking(clock: Clock) -> None:
    client, gateway, budget = ProviderClient(5), Gateway(), limiter("1/minute", clock)
    await budget.hit("poor")

    async def fetch(user_id: str) -> object:
        return await client.fetch(gateway, "payment", on_new_query=lambda: budget.hit(user_id))

    poor, rich = await asyncio.gather(fetch("poor"), fetch("rich"), return_exceptions=True)
    assert isinstance(poor, RateLimitedError)
    assert rich
    assert gateway.asked == ["payment"]


async def test_a_cooldown_charges_nobody() -> None:
    cooldown = Cooldown()
    await cooldown.start("", 5)
    client, gateway = ProviderClient(5, cooldown=cooldown), Gateway()

    async def charge() -> None:
        raise AssertionError

    with pytest.raises(TemporarilyUnavailableError) as refused:
        await client.fetch(gateway, "payment", on_new_query=charge)
    assert (refused.value.reason, refused.value.retry_after) == ("provider_throttled", 5)
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("asked", "lasts"),
    [(-5, 1), (0, 1), (2.5, 2.5), (9999, MAX_COOLDOWN), (None, 5), ("7", 5), (math.nan, 5), (math.inf, 60)],
)
async def test_a_cooldown_lasts_as_long_as_the_provider_asks(
    clock: Clock, asked: object, lasts: float
) -> None:
    cooldown = Cooldown(clock=clock)
    assert await cooldown.remaining("shop") == 0
    assert await cooldown.start("shop", asked) == lasts
    assert await cooldown.remaining("shop") == lasts
    clock.now += lasts
    assert await cooldown.remaining("shop") == 0


async def test_a_shorter_cooldown_does_not_cut_a_longer_one(clock: Clock) -> None:
    cooldown = Cooldown(clock=clock)
    await cooldown.start("shop", 30)
    await cooldown.start("shop", 2)
    assert await cooldown.remaining("shop") == 30


# --- No Redis ------------------------------------------------------------------------------------


def test_a_host_without_redis_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert open_redis("", "open-webui") is None
    assert caplog.records == []


def test_an_unusable_address_is_one_line_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    assert open_redis("http://:secret@127.0.0.1", "open-webui") is None
    (record,) = caplog.records
    assert "REDIS_URL cannot be used (ValueError)" in record.getMessage()
    assert "secret" not in caplog.text


def test_without_the_redis_package_there_is_one_line(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.dict(sys.modules, {"redis.asyncio": None})
    assert open_redis("redis://127.0.0.1", "open-webui") is None
    (record,) = caplog.records
    assert "REDIS_URL cannot be used (ModuleNotFoundError)" in record.getMessage()


@pytest.mark.parametrize(
    ("env", "url", "prefix"),
    [
        ({}, "", ""),
        ({"REDIS_URL": "", "REDIS_KEY_PREFIX": "open-webui"}, "", "open-webui"),
        ({"REDIS_URL": "rediss://r:6380/1", "REDIS_CLUSTER": False}, "rediss://r:6380/1", ""),
        ({"REDIS_URL": "redis://r", "REDIS_SENTINEL_HOSTS": "a,b"}, "", ""),
        ({"REDIS_URL": "redis://r", "REDIS_CLUSTER": True}, "", ""),
    ],
)
def test_the_host_says_where_its_redis_is(
    env: dict[str, object], url: str, prefix: str, mocker: MockerFixture
) -> None:
    mocker.patch.object(OpenWebUIHost, "__init__", return_value=None)
    host = OpenWebUIHost()  # type: ignore[call-arg]
    host._modules = {ENV: SimpleNamespace(**env)}  # type: ignore[dict-item]
    assert (host.redis_url, host.redis_key_prefix) == (url, prefix)
