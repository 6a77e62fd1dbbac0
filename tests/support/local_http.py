"""HTTP clients of the servers that the tests start on this machine."""

from __future__ import annotations

from typing import Any

import httpx

# For servers that have several workers, any of which may answer, or that end before the client does.
ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)


def local_client(**options: Any) -> httpx.Client:
    """Return a client without proxies and certificates: to load those takes longer than many tests."""
    return httpx.Client(trust_env=False, verify=False, **options)


_ONE_FOR_ALL = local_client(timeout=5, limits=ONE_REQUEST_EACH)


def answers(url: str) -> bool:
    """Return whether a server answers this address with success."""
    try:
        return _ONE_FOR_ALL.get(url).is_success
    except httpx.TransportError:
        return False
