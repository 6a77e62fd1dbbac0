"""Ports for servers that cannot tell which one they chose."""

from __future__ import annotations

import socket
from contextlib import closing


def free_port() -> int:
    """Return a free port of this machine."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])
