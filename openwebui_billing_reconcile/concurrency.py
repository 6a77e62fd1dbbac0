"""Concurrency tools without a domain word: tasks, single flight, keyed locks, thread slots, one per loop.

Everything here but ``PerLoop`` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
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

    async def wait(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run ``work`` and return its result. Raises ``TimeoutError`` after ``seconds``; the work goes on."""
        done, _ = await asyncio.wait({self.start(work)}, timeout=seconds)
        if not done:
            raise TimeoutError
        return done.pop().result()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone; asyncio would report it as never retrieved


class SingleFlight:
    """Shares work among callers that ask for the same before it has started."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._queued: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(
        self, key: Hashable, gate: AbstractAsyncContextManager[object], work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run ``work`` inside ``gate``, once for all callers with the same ``key`` before it starts.

        A caller that comes later may know of something that ``work`` has missed, and starts it anew.
        """
        task = self._queued.get(key)
        if task is None:
            task = self._queued[key] = self._tasks.start(self._enter(key, gate, work))
        done, _ = await asyncio.wait({task})
        del task  # a failed task and this frame would keep each other alive
        result: T = done.pop().result()
        return result

    async def _enter(
        self, key: Hashable, gate: AbstractAsyncContextManager[object], work: Callable[[], Awaitable[T]]
    ) -> T:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(gate)
            finally:
                del self._queued[key]
            return await work()


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


class ThreadSlots:
    """A fixed number of threads apart from the default pool. ``async with`` takes a slot for one ``run``."""

    def __init__(self, count: int) -> None:
        self._slots = asyncio.Semaphore(count)
        self._limiter = CapacityLimiter(count)

    async def __aenter__(self) -> None:
        await self._slots.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a thread, inside a slot."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class PerLoop(Generic[T]):
    """One instance for each event loop, since locks and tasks belong to theirs."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._instances: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """Return the running loop's instance."""
        loop = asyncio.get_running_loop()
        if loop not in self._instances:
            self._instances = {known: i for known, i in self._instances.items() if not known.is_closed()}
            self._instances[loop] = self._factory()
        return self._instances[loop]
