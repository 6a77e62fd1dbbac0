"""The pluggy manager: who is registered, who failed, and hooks where one plugin's fault is nobody else's.

pluggy's own loading and calling stop at the first exception. A broken plugin must not take the others, or the
host, with it; so loading and calling go one plugin at a time here.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from openwebui_billing_reconcile import hookspecs
from openwebui_billing_reconcile.hookspecs import PROJECT, Host, PaymentGateway, TopupEvent

from .isolation import PluginError, all_as_errors, describe_failure, isolated_gateway

log = logging.getLogger(__name__)

BUILTIN = "builtin"
"""The name under which our own plugin is registered."""

_OURS = (
    EntryPoint(BUILTIN, f"{PROJECT}.attachment.builtin", PROJECT),
    EntryPoint("builtin_metrics", f"{PROJECT}.operate.metrics", PROJECT),
)
_HOOKS = ("billing_router", "billing_service_methods", "payment_gateway", "topup_outcome")
_NEVER_RUN = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
"""Calling such a function runs nothing of it, and what the call returns is neither awaited nor iterated."""


class Plugins:
    """The plugins of this process. As ``hook`` of a host it relays hook calls to each one in isolation."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.blocked: list[str] = []
        self.broken: dict[str, str] = {}
        """Why each plugin that was left out is broken, by its name."""

    def load(self, blocked: frozenset[str] = frozenset()) -> None:
        """Register the plugins installed in this environment, ours first, except those blocked by name."""
        for entry_point in _installed():
            name = entry_point.name
            if name in blocked and name != BUILTIN:
                self.blocked.append(name)
            else:
                self._register(entry_point)

    @property
    def names(self) -> list[str]:
        """The plugins that are registered."""
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def drop(self, name: str, error: BaseException) -> None:
        """Leave a plugin out: it is named, and nothing of it stays."""
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        self._leave_out(name, error)

    def _leave_out(self, name: str, error: BaseException) -> None:
        self.broken[name] = _describe(error)
        log.warning("Plugin %r is left out: %s", name, self.broken[name])

    def billing_router(self, *, plugin: str, host: Host) -> Any:
        """What one plugin's ``billing_router`` returns, ``None`` where it has none."""
        return self._of_plugin("billing_router", plugin, {"host": host})

    def billing_service_methods(self, *, plugin: str, host: Host) -> Any:
        """What one plugin's ``billing_service_methods`` returns, ``None`` where it has none."""
        return self._of_plugin("billing_service_methods", plugin, {"host": host})

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None:
        """Return the first gateway that a plugin offers for the payment; ``None`` where none does."""
        for impl, gateway in self._answers("payment_gateway", {"host": host, "payment_id": payment_id}):
            if gateway is None:
                continue
            try:
                return isolated_gateway(gateway)
            except Exception as error:  # noqa: BLE001 - see the module's docstring
                _log_failure(impl, "payment_gateway", error)
        return None

    def topup_outcome(self, *, event: TopupEvent) -> None:
        """Notify every listener."""
        for _ in self._answers("topup_outcome", {"event": event}):
            pass

    def _register(self, entry_point: EntryPoint) -> None:
        name = entry_point.name
        if self._manager.has_plugin(name):
            why = f"another plugin has this name already; left out is the one in {entry_point.value}"
            self._leave_out(name, PluginError(why))
            return
        try:
            if not entry_point.pattern.match(entry_point.value):
                raise PluginError(f"its entry point {entry_point.value!r} is no importable name: no dashes")
            plugin = entry_point.load()
            self._manager.register(plugin, name)
            self._manager.check_pending()
            self._check_functions(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also a plugin that calls sys.exit() at import
            self.drop(name, error)

    def _check_functions(self, name: str) -> None:
        for hook in _HOOKS:
            for impl in self._implementations(hook):
                if impl.plugin_name != name:
                    continue
                if impl.hookwrapper or impl.wrapper:
                    raise PluginError(f"{hook} is a hook wrapper: implement the hook itself")
                if any(is_of_kind(impl.function) for is_of_kind in _NEVER_RUN):
                    raise PluginError(f"{hook} would never run: write it without async and yield")

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """In the order in which pluggy would call them."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]

    def _of_plugin(self, hook: str, plugin: str, arguments: Mapping[str, object]) -> Any:
        for impl in self._implementations(hook):
            if impl.plugin_name == plugin:
                return _call(impl, arguments)
        return None

    def _answers(self, hook: str, arguments: Mapping[str, object]) -> Iterator[tuple[pluggy.HookImpl, Any]]:
        for impl in self._implementations(hook):
            try:
                answer = _call(impl, arguments)
            except Exception as error:  # noqa: BLE001 - see the module's docstring
                _log_failure(impl, hook, error)
            else:
                yield impl, answer


def _call(impl: pluggy.HookImpl, arguments: Mapping[str, object]) -> Any:
    with all_as_errors():
        return impl.function(*(arguments[name] for name in impl.argnames))


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text of a plugin's own error is the plugin's code
        return type(error).__name__


def _log_failure(impl: pluggy.HookImpl, hook: str, error: Exception) -> None:
    log.warning("Plugin %r failed in %s: %s", impl.plugin_name, hook, describe_failure(error, impl.function))


def _installed() -> list[EntryPoint]:
    """The entry points of our group, each once, ours first.

    Ours are there also where the package lies without its metadata. The same entry point twice is the same
    plugin in two versions; Python imports the first, so that one counts.
    """
    found = {(ours.name, ours.value): ours for ours in _OURS}
    for distribution in distributions():
        for entry_point in _entry_points(distribution):
            found.setdefault((entry_point.name, entry_point.value), entry_point)
    return list(found.values())


def _entry_points(distribution: Distribution) -> list[EntryPoint]:
    try:
        return [entry_point for entry_point in distribution.entry_points if entry_point.group == PROJECT]
    except Exception as error:  # noqa: BLE001 - one that cannot be read hides no other distribution's
        log.warning("Entry points cannot be read: %s", type(error).__name__)
        return []
