"""Attaching to the host: probe first, change then, undo everything when a change fails.

The host always starts: whatever is wrong here becomes one clear log line and a report.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fastapi import APIRouter
from starlette.routing import BaseRoute

from openwebui_billing_reconcile.host.loaded import LoadedHost
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import BILLING_ROUTER, has_ledger_key, missing_requirements
from openwebui_billing_reconcile.settings import ENABLED, Settings
from openwebui_billing_reconcile.version import version

from .isolation import PluginError, isolated_lifespan
from .own_reconcile import OwnReconcile, serves
from .plugins import BUILTIN, Plugins

log = logging.getLogger(__name__)


class State(StrEnum):
    """The outcome of an attach."""

    ATTACHED = "attached"
    BESIDE = "beside"
    """Attached beside a reconcile that the host has of its own, whose endpoint and method stay the host's."""
    OFF = "off"
    NO_BILLING = "no_billing"
    INCOMPATIBLE = "incompatible"


ATTACHED_STATES: Final = frozenset({State.ATTACHED, State.BESIDE})


@dataclass(frozen=True, slots=True)
class Report:
    """What ``attach`` did, and why."""

    state: State
    why: str
    routes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


class _NotAttachedError(Exception):
    """Raised when the plugin cannot attach; ``attach`` catches it and reports."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.report = Report(state, why)


_lock = threading.RLock()
_attached = ExitStack()


def attach() -> Report:
    """Attach to the host in this process, before it includes its billing router. Never raises.

    A second call attaches anew, for a host module that was reloaded.
    """
    global _attached
    with _lock:
        try:
            detach()
            with ExitStack() as undo:
                report = _attach(undo)
                _attached = undo.pop_all()
        except _NotAttachedError as stop:
            report = stop.report
        except Exception as error:  # noqa: BLE001 - the host always starts
            report = Report(State.INCOMPATIBLE, f"attaching failed: {type(error).__name__}: {error}")
    _log(report)
    return report


def detach() -> None:
    """Take back what ``attach`` changed. A host that already serves the routes goes on serving them."""
    global _attached
    with _lock:
        _attached.close()
        _attached = ExitStack()


def report_no_billing() -> Report:
    """Say that this host came up without loading a billing router."""
    report = Report(State.NO_BILLING, f"this host does not load {BILLING_ROUTER}")
    _log(report)
    return report


def _log(report: Report) -> None:
    """The one line at start. It has to be seen, and hosts differ in what they show while they import."""
    level = logging.INFO if log.isEnabledFor(logging.INFO) else logging.WARNING
    if report.state is State.INCOMPATIBLE:
        level = logging.WARNING
    verb = "is attached" if report.state in ATTACHED_STATES else "is not attached"
    log.log(level, "Billing top-up reconcile %s %s: %s", version(), verb, report.why)


def _attach(undo: ExitStack) -> Report:
    settings = Settings.read(os.environ)
    for problem in settings.problems:
        log.warning("%s", problem)
    if not settings.enabled:
        raise _NotAttachedError(State.OFF, f"{ENABLED.name} is off")
    plugins = Plugins()
    host = _probe(plugins)
    own = OwnReconcile(host)
    stays = own.exists and not settings.take_over
    plugins.load(settings.blocked_plugins)
    if BUILTIN not in plugins.names:
        raise _NotAttachedError(
            State.INCOMPATIBLE,
            f"our own plugin is broken: {plugins.broken.get(BUILTIN, 'not registered')}",
        )
    routes: list[str] = []
    methods: list[str] = []
    for name in plugins.names:
        try:
            contribution = _contribution(plugins, name, host, own, stays=stays)
            _add(contribution, host, own, undo)
        except Exception as error:
            if name == BUILTIN:
                raise
            plugins.drop(name, error)
        else:
            routes += contribution.route_names
            methods += contribution.methods
    what = f"{', '.join(routes)}; BillingService.{', '.join(methods)}; {settings.words}"
    why = f"{what}; {own.words(stays=stays)}plugins: {', '.join(plugins.names)}"
    state = State.BESIDE if stays else State.ATTACHED
    return Report(state, why, tuple(routes), tuple(methods), tuple(plugins.names))


def _add(contribution: _Contribution, host: OpenWebUIHost, own: OwnReconcile, undo: ExitStack) -> None:
    """Add all that one plugin contributes, or nothing of it."""
    with ExitStack() as undo_plugin:
        if contribution.takes_over:
            own.displace(undo_plugin)
        added = _add_router(host.router, contribution.router, undo_plugin)
        if contribution.takes_over:
            own.put_in_place(added)
        _add_methods(host.billing_service_class, contribution.methods, undo_plugin)
        undo.push(undo_plugin.pop_all())


def _probe(plugins: Plugins) -> OpenWebUIHost:
    """The host, if it is one to attach to. Changes nothing."""
    loaded = LoadedHost()
    missing = missing_requirements(loaded)
    if BILLING_ROUTER in missing:
        raise _NotAttachedError(State.NO_BILLING, f"this host has no {BILLING_ROUTER}")
    if missing:
        raise _NotAttachedError(State.INCOMPATIBLE, f"this host lacks {', '.join(missing)}")
    host = OpenWebUIHost(plugins)
    if not isinstance(host.billing_service, host.billing_service_class):
        raise _NotAttachedError(State.INCOMPATIBLE, "the router's billing_service is no BillingService")
    if not has_ledger_key(loaded):
        raise _NotAttachedError(
            State.INCOMPATIBLE,
            "the host's ledger has no unique key (reference_type, reference_id, type), so one payment "
            "could be credited twice",
        )
    return host


@dataclass(frozen=True, slots=True)
class _Contribution:
    """What one plugin adds. ``takes_over``: in the place of the host's own reconcile."""

    router: APIRouter | None
    route_names: list[str]
    methods: Mapping[str, Callable[..., Any]]
    takes_over: bool


def _contribution(
    plugins: Plugins, name: str, host: OpenWebUIHost, own: OwnReconcile, *, stays: bool
) -> _Contribution:
    """All that one plugin adds, checked before anything of it is added."""
    is_ours = name == BUILTIN
    router = plugins.billing_router(plugin=name, host=host)
    if router is not None and not isinstance(router, APIRouter):
        raise PluginError("billing_router must return an APIRouter or None")
    methods = plugins.billing_service_methods(plugin=name, host=host)
    if is_ours and stays:
        methods = own.leave_to_host(router, methods)
    taken_over = own.names if is_ours and not stays else frozenset[str]()
    routes: list[str] = []
    if router is not None:
        routes = list(_checked_routes(router, host.router, taken_over))
        router.lifespan_context = isolated_lifespan(router.lifespan_context, name)
    checked = _checked_methods(methods, host.billing_service, taken_over)
    return _Contribution(router, routes, checked, bool(taken_over))


def _checked_routes(router: APIRouter, existing: APIRouter, taken_over: Set[str]) -> Iterator[str]:
    if router.on_startup or router.on_shutdown:
        raise PluginError("billing_router may not have start-up handlers: use a lifespan")
    for route in router.routes:
        path, methods = getattr(route, "path", None), getattr(route, "methods", None)
        if not path or not methods:
            raise PluginError("billing_router may only hold plain routes: no WebSocket, mount, nested router")
        for method in sorted(methods):
            if f"{method} {path}" not in taken_over and serves(existing, method, path):
                raise PluginError(f"{method} {path} is served already: choose another path")
            yield f"{method} {path}"


def _checked_methods(
    methods: object, service: object, taken_over: Set[str]
) -> Mapping[str, Callable[..., Any]]:
    if methods is None:
        return {}
    if not isinstance(methods, Mapping):
        raise PluginError("billing_service_methods must return a mapping of names to functions")
    for name, function in methods.items():
        is_plain = isinstance(name, str) and name.isidentifier() and not name.startswith("__")
        if not is_plain or not callable(function):
            raise PluginError(f"{name!r}: a method needs a plain name and a function")
        if name not in taken_over and hasattr(service, name):
            raise PluginError(f"BillingService.{name} exists already: choose another name")
    return methods


def _add_router(host_router: APIRouter, router: APIRouter | None, undo: ExitStack) -> list[BaseRoute]:
    added: list[BaseRoute] = []
    if router is None:
        return added
    before = list(host_router.routes)
    lifespan = host_router.lifespan_context

    def undo_router() -> None:
        _remove(host_router.routes, added)
        host_router.lifespan_context = lifespan

    undo.callback(undo_router)
    try:
        host_router.include_router(router)
    finally:
        added += [route for route in host_router.routes if not any(route is old for old in before)]
    return added


def _remove(routes: list[BaseRoute], added: list[BaseRoute]) -> None:
    routes[:] = [route for route in routes if not any(route is ours for ours in added)]


def _add_methods(
    service_class: type[Any], methods: Mapping[str, Callable[..., Any]], undo: ExitStack
) -> None:
    for name, function in methods.items():
        theirs = vars(service_class).get(name)
        setattr(service_class, name, function)
        if theirs is None:
            undo.callback(delattr, service_class, name)
        else:
            undo.callback(setattr, service_class, name, theirs)
