"""Concurrency tools without a domain word: tasks, single flight, keyed locks, threads, one per loop.

Everything here but ``PerLoop`` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import anyio.to_thread
from anyio import CapacityLimiter

T = TypeVar("T")


class TaskSet:
    """Tasks that outlive their callers: a caller that is cancelled does not cancel the work."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio itself keeps only weak references

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` in a task of its own."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` and return its result; it goes on where the caller is cancelled or times out."""
        return await asyncio.shield(self.start(work))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone; asyncio would report it as never retrieved


class SingleFlight:
    """Shares work among callers that ask for the same before it has started."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._queued: dict[Hashable, _Flight] = {}

    async def run(
        self, key: Hashable, gate: AbstractAsyncContextManager[object], work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run ``work`` inside ``gate``, once for all callers with the same ``key`` before it starts.

        A caller that comes later may know of something that ``work`` has missed, and starts it anew. Work
        that has started goes on without its callers; work that has not is dropped with its last one.
        """
        flight = self._queued.get(key)
        if flight is None:
            flight = self._queued[key] = _Flight()
            flight.task = self._tasks.start(self._fly(key, flight, gate, work))
        flight.callers += 1
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            flight.callers -= 1
            if not flight.callers and self._forget(key, flight):
                flight.task.cancel()
            del flight  # a failed task and this frame would keep each other alive

    async def _fly(
        self,
        key: Hashable,
        flight: _Flight,
        gate: AbstractAsyncContextManager[object],
        work: Callable[[], Awaitable[T]],
    ) -> T:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(gate)
            finally:
                self._forget(key, flight)
                del flight  # as in run(): the task is in it
            return await work()

    def _forget(self, key: Hashable, flight: _Flight) -> bool:
        """Let nobody join ``flight`` any more; return whether somebody still could."""
        is_queued = self._queued.get(key) is flight
        if is_queued:
            del self._queued[key]
        return is_queued


class _Flight:
    """Shared work that waits to start, and how many callers want it."""

    task: asyncio.Task[Any]

    def __init__(self) -> None:
        self.callers = 0


class KeyedLock:
    """One lock for each key; a key that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def __call__(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lock of ``key``."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    def locked(self, key: Hashable) -> bool:
        """Whether somebody holds the lock of ``key``."""
        lock = self._locks.get(key)
        return lock is not None and lock.locked()


class InFlight:
    """Tells what is under way."""

    def __init__(self) -> None:
        self._items: Counter[Hashable] = Counter()

    def __contains__(self, item: Hashable) -> bool:
        return item in self._items

    def __len__(self) -> int:
        return len(self._items)

    @contextmanager
    def track(self, item: Hashable) -> Iterator[None]:
        """Count ``item`` as under way."""
        self._items[item] += 1
        try:
            yield
        finally:
            self._items[item] -= 1
            if not self._items[item]:
                del self._items[item]


class InFlightLimit:
    """Bounds how many different items each key has under way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: defaultdict[Hashable, InFlight] = defaultdict(InFlight)

    @contextmanager
    def track(self, key: Hashable, item: Hashable) -> Iterator[None]:
        """Count ``item`` as under way. Raises ``InFlightLimitError`` where ``key`` has too many others."""
        items = self._items[key]
        if item not in items and len(items) >= self._most:
            raise InFlightLimitError
        try:
            with items.track(item):
                yield
        finally:
            if not items:
                del self._items[key]


class InFlightLimitError(Exception):
    """A key has too many different items under way."""


class SerialThread:
    """One thread at a time, apart from the default pool, and spare threads for when that one is stuck.

    Threads of one process share the interpreter's lock, so that a second one makes the first slower.
    """

    def __init__(self, spare: int, overdue_after: float) -> None:
        """After ``overdue_after`` seconds a thread that still works no longer counts; ``spare`` may be so."""
        self._overdue_after = overdue_after
        self._slot = asyncio.Semaphore()
        self._limiter = CapacityLimiter(1 + spare)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold the slot for one ``run``."""
        await self._slot.acquire()
        is_released = False

        def release() -> None:
            nonlocal is_released
            if not is_released:
                is_released = True
                self._slot.release()

        overdue = asyncio.get_running_loop().call_later(self._overdue_after, release)
        try:
            yield
        finally:
            overdue.cancel()
            release()

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a thread, inside a slot."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class PerLoop(Generic[T]):
    """One instance for each event loop, since locks and tasks belong to theirs."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._instances: dict[asyncio.AbstractEventLoop, T] = {}
        self._lock = threading.Lock()  # loops on different threads may come at once

    def get(self) -> T:
        """Return the running loop's instance."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._instances:
                self._instances = {known: i for known, i in self._instances.items() if not known.is_closed()}
                self._instances[loop] = self._factory()
            return self._instances[loop]
