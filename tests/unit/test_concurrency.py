"""Tasks, single flight, keyed locks, limits and threads, without a domain word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.concurrency import (
    InFlightLimit,
    InFlightLimitError,
    KeyedLock,
    PerLoop,
    SerialThread,
    SingleFlight,
    TaskSet,
)


class Work:
    """Counts its runs; each ends when the test lets it."""

    def __init__(self) -> None:
        self.runs = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        await self.may_end.wait()
        return number


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def settle_down() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- TaskSet -------------------------------------------------------------------------------------


async def test_work_goes_on_without_its_caller() -> None:
    work, ended = Work(), asyncio.Event()

    async def run() -> None:
        await work()
        ended.set()

    caller = asyncio.create_task(TaskSet().run(run()))
    await until(lambda: work.runs == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    work.may_end.set()
    await asyncio.wait_for(ended.wait(), 10)


async def test_a_failure_without_a_caller_is_nobodys_warning() -> None:
    tasks, work = TaskSet(), Work()

    async def fail() -> None:
        await work()
        raise ValueError("nobody hears this")

    caller = asyncio.create_task(tasks.run(fail()))
    await until(lambda: work.runs == 1)
    caller.cancel()
    work.may_end.set()
    await settle_down()  # an exception that nobody retrieves would be an error of this test


async def test_the_caller_gets_result_and_failure() -> None:
    async def fail() -> None:
        raise ValueError("heard")

    work = Work()
    work.may_end.set()
    assert await TaskSet().run(work()) == 1
    with pytest.raises(ValueError, match="heard"):
        await TaskSet().run(fail())


# --- SingleFlight --------------------------------------------------------------------------------


async def test_callers_before_the_start_share_it() -> None:
    flights, gate, work = SingleFlight(TaskSet()), asyncio.Lock(), Work()
    work.may_end.set()
    await gate.acquire()
    callers = [asyncio.create_task(flights.run("key", gate, work)) for _ in range(5)]
    other = asyncio.create_task(flights.run("other key", gate, Work()))
    await settle_down()
    assert work.runs == 0
    gate.release()
    assert await asyncio.gather(*callers) == [1] * 5
    assert not other.done()
    other.cancel()


async def test_a_caller_after_the_start_runs_it_anew() -> None:
    flights, gate, work = SingleFlight(TaskSet()), asyncio.Semaphore(2), Work()
    first = asyncio.create_task(flights.run("key", gate, work))
    await until(lambda: work.runs == 1)
    second = asyncio.create_task(flights.run("key", gate, work))
    await until(lambda: work.runs == 2)
    work.may_end.set()
    assert (await first, await second) == (1, 2)


async def test_started_work_goes_on_without_a_caller_who_leaves() -> None:
    flights, work = SingleFlight(TaskSet()), Work()
    caller = asyncio.create_task(flights.run("key", asyncio.Semaphore(1), work))
    await until(lambda: work.runs == 1)
    caller.cancel()
    await settle_down()
    assert work.runs == 1
    work.may_end.set()


async def test_work_that_nobody_waits_for_is_not_started() -> None:
    flights, gate, work = SingleFlight(TaskSet()), asyncio.Lock(), Work()
    work.may_end.set()
    async with gate:
        callers = [asyncio.create_task(flights.run("key", gate, work)) for _ in range(2)]
        await settle_down()
        for caller in callers:
            caller.cancel()
        await settle_down()
    await settle_down()
    assert work.runs == 0
    assert await flights.run("key", gate, work) == 1


async def test_work_that_one_still_waits_for_is_started() -> None:
    flights, gate, work = SingleFlight(TaskSet()), asyncio.Lock(), Work()
    work.may_end.set()
    async with gate:
        first, second = (asyncio.create_task(flights.run("key", gate, work)) for _ in range(2))
        await settle_down()
        first.cancel()
        await settle_down()
    assert await second == 1


async def test_a_gate_that_fails_is_not_remembered() -> None:
    class Closed:
        async def __aenter__(self) -> None:
            raise OSError("closed")

        async def __aexit__(self, *_: object) -> None: ...

    flights, work = SingleFlight(TaskSet()), Work()
    work.may_end.set()
    with pytest.raises(OSError, match="closed"):
        await flights.run("key", Closed(), work)
    assert await flights.run("key", asyncio.Lock(), work) == 1


# --- KeyedLock -----------------------------------------------------------------------------------


async def test_one_at_a_time_holds_a_key() -> None:
    locks, inside = KeyedLock(), 0

    async def enter(key: str) -> int:
        nonlocal inside
        async with locks(key):
            assert locks.locked(key)
            inside += 1
            await settle_down()
            together = inside
            inside -= 1
            return together

    assert await asyncio.gather(*(enter("key") for _ in range(5))) == [1] * 5
    assert max(await asyncio.gather(*(enter(f"key-{n}") for n in range(5)))) == 5
    assert not locks.locked("key")


# --- InFlightLimit -------------------------------------------------------------------------------


def test_a_key_has_so_many_items_under_way() -> None:
    limit = InFlightLimit(2)
    with limit.track("key", "a"), limit.track("key", "b"):
        with pytest.raises(InFlightLimitError), limit.track("key", "c"):
            pass
        with limit.track("key", "a"), limit.track("another key", "c"):
            pass
        with pytest.raises(InFlightLimitError), limit.track("key", "c"):
            pass
    with limit.track("key", "c"), limit.track("key", "d"):
        pass


# --- SerialThread ----------------------------------------------------------------------------------


class Blocking:
    """Work on a thread that ends when the test lets it."""

    def __init__(self) -> None:
        self.running = 0
        self.may_end = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.running += 1
        self.may_end.wait(30)
        return threading.get_ident()


async def in_slot(slot: SerialThread, work: Callable[[], int]) -> int:
    async with slot.slot():
        return await slot.run(work)


async def test_one_thread_works_at_a_time_and_not_the_loops() -> None:
    slot, work = SerialThread(spare=3, overdue_after=60), Blocking()
    calls = [asyncio.create_task(in_slot(slot, work)) for _ in range(5)]
    await until(lambda: work.running == 1)
    await settle_down()
    assert work.running == 1
    assert await asyncio.to_thread(lambda: "free") == "free"  # the default pool is not used
    work.may_end.set()
    assert threading.get_ident() not in await asyncio.gather(*calls)


async def test_a_stuck_thread_gives_its_place_to_a_spare_one() -> None:
    slot, stuck = SerialThread(spare=2, overdue_after=0.02), Blocking()
    calls = [asyncio.create_task(in_slot(slot, stuck)) for _ in range(2)]
    await until(lambda: stuck.running == 2)
    assert await asyncio.wait_for(in_slot(slot, lambda: 7), 10) == 7
    stuck.may_end.set()
    await asyncio.gather(*calls)


async def test_no_more_threads_than_one_and_the_spare_are_stuck() -> None:
    slot, stuck = SerialThread(spare=2, overdue_after=0.01), Blocking()
    calls = [asyncio.create_task(in_slot(slot, stuck)) for _ in range(8)]
    await until(lambda: stuck.running == 3)
    await asyncio.sleep(0.1)  # more than enough for the others to become overdue
    assert stuck.running == 3
    stuck.may_end.set()
    await asyncio.gather(*calls)


async def test_a_thread_that_ends_when_it_is_overdue_gives_one_place_back(mocker: MockerFixture) -> None:
    serial = SerialThread(spare=3, overdue_after=60)
    call_later = mocker.spy(asyncio.get_running_loop(), "call_later")
    async with serial.slot():
        _, overdue = call_later.call_args.args
        overdue()
    async with serial.slot():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), serial.slot():
                pass


# --- PerLoop -------------------------------------------------------------------------------------


def test_each_loop_has_its_own_instance_and_closed_ones_are_forgotten() -> None:
    per_loop = PerLoop(object)

    async def get() -> object:
        assert per_loop.get() is per_loop.get()
        return per_loop.get()

    first, second = asyncio.run(get()), asyncio.run(get())
    assert first is not second
    assert len(per_loop._instances) == 1
