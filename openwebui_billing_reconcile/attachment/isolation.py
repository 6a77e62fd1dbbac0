"""Keep a plugin's faults to itself, ``sys.exit()`` included: the host always starts and goes on."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway, PaymentGateway

log = logging.getLogger(__name__)

START_TIMEOUT: Final = 30.0
"""The longest that the host's start waits for a plugin's, in seconds."""

STOP_TIMEOUT: Final = 5.0
"""The longest that the host's stop waits for a plugin's, in seconds."""

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class PluginError(Exception):
    """A plugin breaks the rules in ``hooks.md``; the text says which one and what to do."""


def describe_failure(error: BaseException, function: object) -> str:
    """Return the type of ``error`` and where in ``function``'s plugin it arose; its text may hold secrets."""
    raised = (isinstance(error, PluginError) and error.__cause__) or error  # an exit is the cause of ours
    package = str(getattr(function, "__module__", None)).partition(".")[0]
    places = [
        f" in {Path(frame.f_code.co_filename).name}, line {line}"
        for frame, line in traceback.walk_tb(raised.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return f"{type(error).__name__}{places[-1] if places else ''}"


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Raise ``PluginError`` in place of ``SystemExit`` and its like, which would end the host.

    For what is awaited: there a cancellation, and the end of a generator, are the caller's.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"it raised {type(error).__name__}") from error


@contextmanager
def all_as_errors() -> Iterator[None]:
    """Do so for everything but the operator's interrupt. For functions that return at once."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"it raised {type(error).__name__}") from error


class IsolatedGateway:
    """A plugin's gateway whose faults are errors of that gateway."""

    def __init__(self, gateway: PaymentGateway) -> None:
        """Read what does not change. Raises whatever the gateway raises."""
        self.account_id = gateway.account_id
        self.is_test_shop = gateway.is_test_shop
        self._get_payment = gateway.get_payment

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``."""
        with exits_as_errors():
            return await self._get_payment(payment_id)


class IsolatedListingGateway(IsolatedGateway):
    """A plugin's listing gateway in the same isolation."""

    def __init__(self, gateway: ListingGateway) -> None:
        """See ``IsolatedGateway``."""
        super().__init__(gateway)
        self._list_captured = gateway.list_captured

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        """See ``ListingGateway``."""
        with exits_as_errors():
            return await self._list_captured(since, cursor)


def isolated_gateway(gateway: PaymentGateway) -> PaymentGateway:
    """Return the gateway in isolation; it is a ``ListingGateway`` where the plugin's is one.

    Raises whatever the gateway raises, ``PluginError`` for an exit.
    """
    with exits_as_errors():  # reading an attribute may run the plugin's code
        if isinstance(gateway, ListingGateway):
            return IsolatedListingGateway(gateway)
        return IsolatedGateway(gateway)


def isolated_lifespan(lifespan: Lifespan, plugin: str) -> Lifespan:
    """Return the lifespan of a plugin's router such that the host starts and stops whatever it does.

    It runs in a task of its own: a task group in it that fails cancels that task, not the host's.
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        started: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        stopping = asyncio.Event()

        async def live() -> None:
            with exits_as_errors():
                async with lifespan(app) as state:
                    started.set_result(state)
                    await stopping.wait()

        def log_end(task: asyncio.Task[None]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                when = "stop" if stopping.is_set() else "runtime" if started.done() else "start"
                what = describe_failure(error, lifespan)
                log.warning("Plugin %r failed at the host's %s: %s", plugin, when, what)

        task = asyncio.create_task(live())
        task.add_done_callback(log_end)
        try:
            either: set[asyncio.Future[Any]] = {task, started}
            await asyncio.wait(either, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not started.done():
                log.warning("Plugin %r takes too long to start: the host goes on without waiting", plugin)
            state = started.result() if started.done() else None
            yield state if isinstance(state, Mapping) else None
        finally:
            stopping.set()
            await asyncio.wait({task}, timeout=STOP_TIMEOUT)
            task.cancel()

    return run
