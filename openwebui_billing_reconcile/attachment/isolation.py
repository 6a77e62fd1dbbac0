"""Keep a plugin's faults to itself, ``sys.exit()`` included: the host always starts and goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway, PaymentGateway

log = logging.getLogger(__name__)

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class PluginError(Exception):
    """A plugin breaks the rules in ``hooks.md``; the text says which one and what to do."""


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Raise ``PluginError`` in place of ``SystemExit`` and its like, which would end the host."""
    try:
        yield
    except (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
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
    """Return the lifespan of a plugin's router such that the host starts and stops whatever it raises."""

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        context = lifespan(app)
        try:
            with exits_as_errors():
                state = await context.__aenter__()
        except Exception as error:  # noqa: BLE001 - the host always starts
            _log_failure(plugin, "start", error)
            yield None
            return
        try:
            yield state if isinstance(state, Mapping) else None
        finally:
            try:
                with exits_as_errors():
                    await context.__aexit__(None, None, None)
            except Exception as error:  # noqa: BLE001 - the host goes on stopping
                _log_failure(plugin, "stop", error)

    return run


def _log_failure(plugin: str, when: str, error: Exception) -> None:
    log.warning("Plugin %r failed at the host's %s: %s", plugin, when, type(error).__name__)
