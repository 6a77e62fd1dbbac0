"""Our script behind the host's own ``/static/loader.js``, for a front end built before this plugin existed.

Every page of the host loads that file, which is there for operators to fill. While the application runs, a
route of ours stands in front of whoever serves it: it has the file served to itself, and passes it on, byte
for byte, with our script behind it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

PATH = "/static/loader.js"
SCRIPT = "static/reconcile-topup.js"
"""Our script, below this package."""

_NAME = "billing_topup_reconcile_loader"
_SEPARATOR = b"\n;\n"  # the host's file may end within a line, and within a statement
_JAVASCRIPT = "text/javascript; charset=utf-8"

# Request headers with which the host might send less than its whole file, as it is.
_CONDITIONS = frozenset(
    {
        b"accept-encoding",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    }
)
# What the host's answer says of its file alone. There is no Last-Modified of both: whoever asks with the date
# of one could be told that nothing has changed when the other has, or has gone.
_OF_THEIR_FILE = ("accept-ranges", "etag", "last-modified")


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Serve our script while ``app`` runs. What fails is one log line, and the host's file stays as it is."""
    routes: list[BaseRoute] = []
    route = None
    try:
        script = await anyio.to_thread.run_sync(_read_script)
        routes = app.router.routes
        route = _insert_route(routes, script)
    except Exception as error:  # noqa: BLE001 - the host always starts
        log.warning("The balance page's script is not served: %s: %s", type(error).__name__, error)
    else:
        log.info("The balance page's script is served behind %s", PATH)
    try:
        yield
    finally:
        routes[:] = [other for other in routes if other is not route]


def _read_script() -> bytes:
    return files(__package__).joinpath(SCRIPT).read_bytes()


def _insert_route(routes: list[BaseRoute], script: bytes) -> Route | None:
    """Our route; ``None`` where one stands there already: the router may be included twice."""
    scope = {"type": "http", "method": "GET", "path": PATH, "root_path": "", "headers": []}
    for place, route in enumerate(routes):
        if route.matches(dict(scope))[0] is Match.FULL:
            if getattr(route, "name", None) == _NAME:
                return None
            ours = Route(PATH, _Loader(route, script), methods=["GET"], name=_NAME, include_in_schema=False)
            routes.insert(place, ours)
            return ours
    raise LookupError(f"the host serves no {PATH}")


@dataclass(slots=True)
class _Answer:
    """A whole answer."""

    status: int = 404
    headers: MutableHeaders = field(default_factory=MutableHeaders)
    body: bytes = b""


class _Loader:
    """An ASGI application: the file that the route ``behind`` serves, and ``script`` behind that."""

    def __init__(self, behind: BaseRoute, script: bytes) -> None:
        self._behind = behind
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._of_the_host(scope, receive)
        if self._add_ours(answer) and _has_it(scope, answer.headers["etag"]):
            answer.status, answer.body = 304, b""
            del answer.headers["content-length"], answer.headers["content-type"]
        response = Response(b"" if scope["method"] == "HEAD" else answer.body, answer.status)
        response.raw_headers = answer.headers.raw
        await response(scope, receive, send)

    async def _of_the_host(self, scope: Scope, receive: Receive) -> _Answer:
        """The host's answer, whole and unconditional; 404 where it has no such file."""
        headers = [header for header in scope["headers"] if header[0] not in _CONDITIONS]
        asked = {**scope, "method": "GET", "headers": headers, "extensions": {}}
        asked.update(self._behind.matches(asked)[1])
        answer, body = _Answer(), bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = MutableHeaders(raw=list(message["headers"]))
            else:
                body.extend(message.get("body", b""))

        try:
            await self._behind.handle(asked, receive, keep)
        except HTTPException as error:
            if error.status_code != 404:
                raise
        answer.body = bytes(body)
        return answer

    def _add_ours(self, answer: _Answer) -> bool:
        """Put our script behind the host's file, or in the place of none; not into anything else."""
        is_script = "javascript" in answer.headers.get("content-type", "")
        if answer.status == 200 and is_script and "content-encoding" not in answer.headers:
            answer.body += _SEPARATOR + self._script
        elif answer.status == 404 or (answer.status == 200 and not is_script):  # a page in place of the file
            answer.status, answer.body = 200, self._script
            answer.headers = MutableHeaders({"content-type": _JAVASCRIPT})
        else:
            return False
        for name in _OF_THEIR_FILE:
            del answer.headers[name]
        answer.headers["etag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
        answer.headers["content-length"] = str(len(answer.body))
        answer.headers.setdefault("cache-control", "no-cache")
        return True


def _has_it(scope: Scope, etag: str) -> bool:
    known = Headers(scope=scope).get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") in {etag, "*"} for tag in known)
