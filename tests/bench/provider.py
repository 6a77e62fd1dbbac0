"""A payment provider 20 ms away that is never the bottleneck; `python -m tests.bench.provider`.

It keeps nothing but a count of queries: the prefix of the payment's id tells its status. It lists as captured
the seed data's old payments, as many as it is told to.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import parse_qs, urlsplit

from tests.support.yookassa.process import running_server

SHOP_ID = "100500"
PAID, OPEN, OLD = "paid-", "open-", "old-"
"""Prefixes of the ids of paid and of pending payments, and of those settled long ago."""

DISTANCE_SECONDS = 0.020
_BACKLOG = 1024  # hundreds of queries at once; TCP retries a refused connection only a second later
_COUNT = "/queries"
_CAPTURED = "/captured/"
_PAGE = 100


class Provider:
    """A running provider."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self.settings: Mapping[str, str] = {
            "YOOKASSA_SHOP_ID": SHOP_ID,
            "YOOKASSA_SECRET_KEY": "test_secret",
            "YOOKASSA_API_URL": f"{url}/v3",
        }

    def queries(self) -> int:
        """Return the number of queries so far."""
        return self._get(_COUNT)

    def list_captured(self, count: int) -> None:
        """List so many of the old payments as captured from now on."""
        self._get(f"{_CAPTURED}{count}")

    def _get(self, path: str) -> int:
        connection = HTTPConnection(self._address)
        try:
            connection.request("GET", path)
            return int(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Run the provider in a process of its own."""
    with running_server([sys.executable, "-m", __name__]) as (url, _server):
        yield Provider(url)


class _Server:
    def __init__(self) -> None:
        self._queries = 0
        self._captured = 0

    async def serve(self) -> None:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, backlog=_BACKLOG)
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        port = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"listening on http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        async with server:
            await stopped.wait()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request per connection, as the host's client sends them."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            writer.write(_response(await self._answer(target)))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has disconnected
        finally:
            writer.close()

    async def _answer(self, target: str) -> object:
        if target == _COUNT:
            return self._queries
        if target.startswith(_CAPTURED):
            self._captured = int(target.removeprefix(_CAPTURED))
            return self._captured
        self._queries += 1
        await asyncio.sleep(DISTANCE_SECONDS)
        url = urlsplit(target)
        if url.query:
            return self._page(int(parse_qs(url.query).get("cursor", ["0"])[0]))
        return _payment(url.path.rpartition("/")[2])

    def _page(self, start: int) -> dict[str, object]:
        end = min(start + _PAGE, self._captured)
        items = [_payment(f"{OLD}{number}") for number in range(start + 1, end + 1)]
        following = {"next_cursor": str(end)} if end < self._captured else {}
        return {"type": "list", "items": items, **following}


def _payment(payment_id: str) -> dict[str, object]:
    paid = payment_id.startswith((PAID, OLD))
    return {
        "id": payment_id,
        "status": "succeeded" if paid else "pending",
        "paid": paid,
        "test": True,
        "amount": {"value": "1000.00", "currency": "RUB"},
        "recipient": {"account_id": SHOP_ID, "gateway_id": "100700"},
        "metadata": {"kind": "topup"},
    }


def _response(content: object) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


if __name__ == "__main__":
    asyncio.run(_Server().serve())
