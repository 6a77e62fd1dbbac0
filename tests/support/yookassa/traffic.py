"""What passes over the API's wire: every request is noted, and some are answered by a fault."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .faults import Answer, Faults, Reply

# The key under which our server puts a request's connection into the scope.
TRANSPORT = "tests.support.yookassa.transport"


@dataclass
class Seen:
    """One request; no status while, or if, it was never answered."""

    method: str
    target: str
    payment_id: str | None
    monotonic: float
    epoch: float
    status: int | None = None


class Journal:
    """The requests as they came, and how many are being answered."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.now = 0
        self.peak = 0

    def arrived(self, scope: Scope) -> Seen:
        """Note a request."""
        seen = Seen(scope["method"], _target(scope), _payment_id(scope), time.monotonic(), time.time())
        self.seen.append(seen)
        self.now += 1
        self.peak = max(self.peak, self.now)
        return seen

    def left(self) -> None:
        """A request is done with, one way or another."""
        self.now -= 1

    def clear(self) -> None:
        """Forget what was; what is under way stays counted."""
        self.seen.clear()
        self.peak = self.now


def _target(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return target.decode("ascii", "backslashreplace")


def _payment_id(scope: Scope) -> str | None:
    parts = scope["path"].split("/")
    return parts[3] if parts[1:3] == ["v3", "payments"] and len(parts) > 3 else None


class Traffic:
    """Middleware around the API."""

    def __init__(self, app: ASGIApp, journal: Journal, faults: Faults) -> None:
        self._app = app
        self._journal = journal
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request, then let the API or a fault answer it."""
        if scope["type"] != "http" or not scope["path"].startswith("/v3/"):
            await self._app(scope, receive, send)
            return
        seen = self._journal.arrived(scope)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            await send(message)

        try:
            await self._answer(seen, scope, receive, noting)
        finally:
            self._journal.left()

    async def _answer(self, seen: Seen, scope: Scope, receive: Receive, send: Send) -> None:
        about_payments = seen.method == "GET" and scope["path"].startswith("/v3/payments")
        answer = self._faults.take(seen.payment_id) if about_payments else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        # The honest answer describes the payment at the time of the query, however late it arrives.
        reply = answer.reply or await _honest(self._app, scope, receive)
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receive, group.cancel_scope)
            await _play(answer, reply, scope, send)
            group.cancel_scope.cancel()


async def _honest(app: ASGIApp, scope: Scope, receive: Receive) -> Reply:
    start: Message = {}
    body = bytearray()

    async def keep(message: Message) -> None:
        start.update(message)
        body.extend(message.get("body", b""))

    await app(scope, receive, keep)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], headers, bytes(body))


async def _until_gone(receive: Receive, answering: anyio.CancelScope) -> None:
    """Cancel the answer once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    answering.cancel()


async def _play(answer: Answer, reply: Reply, scope: Scope, send: Send) -> None:
    await anyio.sleep(answer.delay_seconds)
    if answer.hang:
        await anyio.sleep_forever()
    if answer.reset:
        _reset(_transport(scope))
        await anyio.sleep_forever()
    await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
    if answer.truncate is not None:
        await _part(send, reply.body[: answer.truncate])
        _transport(scope).close()
        await anyio.sleep_forever()
    if answer.drip_seconds_per_byte:
        for index in range(len(reply.body)):
            await anyio.sleep(answer.drip_seconds_per_byte)
            await _part(send, reply.body[index : index + 1])
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.body", "body": reply.body})


async def _part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = {"content-length": str(len(reply.body))} | reply.headers
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def _transport(scope: Scope) -> asyncio.Transport:
    transport = scope.get(TRANSPORT)
    if not isinstance(transport, asyncio.Transport):
        raise RuntimeError("cutting a connection needs the simulator's own server")
    return transport


def _reset(transport: asyncio.Transport) -> None:
    # Lingering for zero seconds makes the kernel send RST instead of FIN.
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
