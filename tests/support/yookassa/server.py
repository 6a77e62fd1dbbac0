"""The simulator as a server of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .traffic import TRANSPORT

HOST = "127.0.0.1"
BACKLOG = 1024
# Longer than any pause of a test's client: a connection it keeps is never closed under its hands.
KEEP_ALIVE_SECONDS = 75


class _Protocol(H11Protocol):
    """Shows each request its connection, so that a fault can cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: Any = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # An answer that hangs on purpose would be waited for.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # The server has wound up by now and hands its signal on: being asked to stop is no failure.
    sys.exit(0)


def _listener(port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where the protocol is named: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


def serve(app: ASGIApp, port: int) -> None:
    """Serve until SIGTERM; the address is printed once connections are accepted."""
    listener = _listener(port)
    url = f"http://{HOST}:{listener.getsockname()[1]}"

    def announce() -> None:
        sys.stdout.write(f"listening on {url}\n")
        sys.stdout.flush()

    signal.signal(signal.SIGTERM, _stop)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        log_level="warning",
        access_log=False,
    )
    _Server(config, announce).run(sockets=[listener])
