"""A reconcile that the host has of its own: left to it, or taken over by ours, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from fastapi import APIRouter
from starlette.routing import BaseRoute, Match

from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.settings import TAKE_OVER
from openwebui_billing_reconcile.web.wire import PATH

METHOD: Final = "reconcile_topup_payment"
ENDPOINT: Final = f"POST {PATH}"


class OwnReconcile:
    """The endpoint and the method of the host's own by the names of ours, where there are any."""

    def __init__(self, host: OpenWebUIHost) -> None:
        self._router = host.router
        self.names = frozenset(
            name
            for name, exists in (
                (ENDPOINT, serves(host.router, "POST", PATH)),
                (METHOD, hasattr(host.billing_service, METHOD)),
            )
            if exists
        )
        self._place = len(host.router.routes)

    @property
    def exists(self) -> bool:
        """Whether the host has either."""
        return bool(self.names)

    def words(self, *, stays: bool) -> str:
        """Say what becomes of it, for the line at start; "" where there is none."""
        if not self.exists:
            return ""
        names = " and ".join(sorted(self.names))
        if stays:
            return f"the host keeps its own {names}: {WOULD_GAIN}; "
        return f"in place of the host's own {names}; "

    def leave_to_host(
        self, router: APIRouter | None, methods: Mapping[str, Callable[..., Any]]
    ) -> Mapping[str, Callable[..., Any]]:
        """Take our endpoint out of ``router``, and return our methods without the one of that name."""
        if router is not None:
            router.routes[:] = [route for route in router.routes if getattr(route, "path", None) != PATH]
        return {name: method for name, method in methods.items() if name != METHOD}

    def displace(self, undo: ExitStack) -> None:
        """Take the host's endpoint out of its router; ``undo`` puts it back where it was.

        A route that serves other paths as well stays; ours will stand before it.
        """
        routes = self._router.routes
        for place, route in enumerate(routes):
            if _is_served_by(route, "POST", PATH):
                self._place = place
                if getattr(route, "path", None) == self._router.prefix + PATH:
                    undo.callback(routes.insert, place, route)
                    del routes[place]
                return

    def put_in_place(self, added: Sequence[BaseRoute]) -> None:
        """Move what serves our endpoint, of the routes just added, to where the host's was."""
        routes = self._router.routes
        for route in added:
            if _is_served_by(route, "POST", PATH):
                routes.remove(route)
                routes.insert(self._place, route)
                return


WOULD_GAIN: Final = (
    f"{TAKE_OVER.name}=true lets ours replace that: ours holds what was refunded, paid to another shop, "
    "settled by hand or does not add up"
)


def serves(router: APIRouter, method: str, path: str) -> bool:
    """Whether a router has a route for it."""
    return any(_is_served_by(route, method, path) for route in router.routes)


def _is_served_by(route: BaseRoute, method: str, path: str) -> bool:
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    return route.matches(scope)[0] is Match.FULL
