"""What is said once a day: by one process, by several that share Redis, and while Redis is out."""

from __future__ import annotations

import asyncio
from functools import partial
from threading import Barrier, Thread
from typing import Any

import pytest
from cachetools import TTLCache
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.topup import once_a_day
from openwebui_billing_reconcile.topup.once_a_day import DAY, OnceADay
from tests.support.harness.rate_limits import Clock


class Redis:
    """Runs our one script as Redis would; ``None`` while it is out."""

    def __init__(self) -> None:
        self.is_out = False
        self.keys: dict[str, int] = {}
        self.calls = 0

    async def run(self, script: str, key: str, *arguments: int) -> int | None:
        self.calls += 1
        assert "'NX', 'EX', ARGV[1]" in script
        if self.is_out:
            return None
        is_new = key not in self.keys
        self.keys.setdefault(key, *arguments)
        return int(is_new)


def sharing(redis: Any) -> OnceADay:
    return OnceADay(redis)


async def test_a_thing_is_new_once() -> None:
    told = OnceADay()
    assert [await told.is_first(what) for what in ("a", "a", "b", "a", "b")] == [
        True,
        False,
        True,
        False,
        False,
    ]


async def test_a_day_later_it_is_new_again(mocker: MockerFixture) -> None:
    clock = Clock()
    mocker.patch.object(once_a_day, "TTLCache", partial(TTLCache, timer=clock))
    told = OnceADay()
    assert await told.is_first("a")
    clock.now += DAY - 1
    assert not await told.is_first("a")
    clock.now += 1
    assert await told.is_first("a")
    assert not await told.is_first("a")
    assert DAY == 86_400


async def test_what_is_remembered_is_bounded(mocker: MockerFixture) -> None:
    mocker.patch.object(once_a_day, "_MAX_REMEMBERED", 2)
    told = OnceADay()
    for what in ("a", "b", "c"):
        assert await told.is_first(what)
    assert not await told.is_first("c")
    assert await told.is_first("a")


async def test_processes_that_share_redis_say_it_once() -> None:
    redis = Redis()
    processes = [sharing(redis) for _ in range(4)]
    answers = await asyncio.gather(*(told.is_first("a") for told in processes))
    assert sorted(answers) == [False, False, False, True]
    assert redis.keys == {"told:a": DAY}


async def test_redis_is_not_asked_again_about_what_is_known() -> None:
    redis = Redis()
    told = sharing(redis)
    for _ in range(3):
        await told.is_first("a")
    assert redis.calls == 1


@pytest.mark.parametrize("processes", [1, 2])
async def test_without_redis_each_process_says_it_once(processes: int) -> None:
    redis = Redis()
    redis.is_out = True
    every = [sharing(redis) for _ in range(processes)]
    answers = [await told.is_first("a") for told in every for _ in range(2)]
    assert answers == [True, False] * processes


def test_event_loops_at_once_say_it_once() -> None:
    told, answers, start = OnceADay(), [], Barrier(8)

    def ask() -> None:
        start.wait()
        answers.append(asyncio.run(told.is_first("a")))

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
