"""A lean HTTP client: hundreds of kept-alive connections with little overhead for a request."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and its duration."""

    status: int
    body: bytes
    milliseconds: float


class Connection:
    """A kept-alive connection for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, base_url: str) -> Self:
        """Open a connection."""
        address = urlsplit(base_url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def send(self, request: bytes) -> Answer:
        """Send a request and wait for the answer."""
        started_at = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        body = await self._reader.readexactly(int(length[1]))
        return Answer(int(head[9:12]), body, (time.perf_counter() - started_at) * 1000)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


def get(path: str, token: str | None = None) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\n{_headers(token)}\r\n".encode()


def post(path: str, token: str, content: object) -> bytes:
    """Return a POST request with a JSON body."""
    body = json.dumps(content)
    about = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{_headers(token)}{about}\r\n{body}".encode()


def _headers(token: str | None) -> str:
    return "Host: host\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
