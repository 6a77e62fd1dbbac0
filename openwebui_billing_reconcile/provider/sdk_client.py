"""A client of the official SDK that shares nothing with the rest of the process.

The SDK keeps one shop for the whole process in class attributes, which a host may use for another shop; has
no socket timeout; logs the Authorization header where a logger is set; and turns amounts into floats. So it
is given a client of our own here, and asked for the raw JSON. Importing this module imports the SDK.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from yookassa.client import ApiClient
from yookassa.domain.common import UserAgent

if TYPE_CHECKING:
    from .sdk_gateway import Exchange

SOCKET_TIMEOUT: Final = (3.05, 8.0)
"""Connecting, and each wait for bytes, in seconds. What bounds the whole is the end of the exchange."""


def get(
    shop_id: str, secret_key: str, api_url: str, path: str, parameters: Mapping[str, str], exchange: Exchange
) -> object:
    """Return the JSON that the provider answers to a GET of ``path``, which is below ``api_url``.

    Blocks; ends soon after ``exchange`` is aborted. Raises ``StatusError`` for an answer with another status
    than 200, and anything for the rest.
    """
    with _Session(exchange) as session:
        client = _Client(shop_id, secret_key, api_url, session)
        try:
            answer: object = client.request("GET", path, parameters)
        except Exception as error:
            # Which error the SDK makes of a status differs between its versions, and some do not carry it.
            response = session.response
            if response is None or response.status_code == 200:
                raise
            raise StatusError(response.status_code, response.text) from error
        return answer


class StatusError(Exception):
    """The provider answered with another status than 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"the provider answered {status}")
        self.status_code = status
        self.response_text = body


class _Client(ApiClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client without the process-wide configuration."""

    def __init__(self, shop_id: str, secret_key: str, api_url: str, session: requests.Session) -> None:
        # Not super().__init__(): that reads the process-wide configuration.
        self.configuration = SimpleNamespace(verify=None)
        self.endpoint = api_url
        self.shop_id = shop_id
        self.shop_password = secret_key
        self.auth_token = None
        self.timeout = 0
        self.max_attempts = 0
        self.user_agent = UserAgent()
        self._session = session

    def get_session(self) -> requests.Session:
        return self._session

    def log_request(self, *_: Any) -> None:
        """Log nothing: the SDK would log the Authorization header."""

    def log_response(self, *_: Any) -> None:
        """Log nothing: the SDK would log the provider's body."""


class _Session(requests.Session):
    """A session that gives up, and that sends the credentials to the provider's address only."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        # As the hosts' own clients: no proxy of the environment, and no other credentials from a .netrc file.
        self.trust_env = False
        self.response: requests.Response | None = None
        adapter = _Adapter(exchange)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        options.update(timeout=SOCKET_TIMEOUT, allow_redirects=False)
        self.response = super().request(*arguments, **options)
        return self.response


class _Adapter(HTTPAdapter):
    """Makes connections that belong to an ``Exchange``."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = _pools(exchange)


def _pools(exchange: Exchange) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            exchange.add(connection)
            return connection

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            exchange.add(connection)
            return connection

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
