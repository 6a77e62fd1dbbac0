"""The host's client as a gateway."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
)
from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway
from openwebui_billing_reconcile.provider.host_gateway import (
    Account,
    HostGateway,
    ListingHostGateway,
    account_of,
)

UNKNOWN = Account("", "", "")
URL = "https://provider.example/v3"


class HostClientError(Exception):
    """Shaped like the one class that a host's client raises for everything."""

    def __init__(self, status_code: int | None, response_text: str = "") -> None:
        super().__init__("secret text of the provider")
        self.status_code = status_code
        self.response_text = response_text


class Client:
    def __init__(self, error: Exception | None = None, **config: str) -> None:
        self.error = error
        if config:
            self.config = SimpleNamespace(**config)

    async def get_payment(self, payment_id: str) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"id": payment_id}


async def test_the_answer_goes_through_as_it_is() -> None:
    assert await HostGateway(Client(), UNKNOWN).get_payment("x") == {"id": "x"}


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (HostClientError(404), PaymentNotFoundError),
        (HostClientError(400), GatewayRejectedError),
        (HostClientError(401), GatewayRejectedError),
        (HostClientError(403), GatewayRejectedError),
        (HostClientError(429), GatewayThrottledError),
        (HostClientError(500), GatewayError),
        (HostClientError(None), GatewayError),
        (RuntimeError("x"), GatewayError),
    ],
)
async def test_every_error_has_a_name_and_keeps_the_providers_text_to_itself(
    error: Exception, named: type[GatewayError]
) -> None:
    with pytest.raises(GatewayError) as raised:
        await HostGateway(Client(error), UNKNOWN).get_payment("x")
    assert type(raised.value) is named
    assert raised.value.__cause__ is error
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (json.dumps({"retry_after": 1800}), 1.8),
        (json.dumps({"retry_after": True}), 5.0),
        (json.dumps({"retry_after": "1800"}), 5.0),
        (json.dumps({"retry_after": -1}), 5.0),
        ('{"retry_after": NaN}', 5.0),
        (json.dumps({"retry_after": 7_200_000}), 60.0),
        (json.dumps({"retry_after": 10**400}), 60.0),
        ('{"retry_after": 1e999}', 60.0),
        (json.dumps({}), 5.0),
        (json.dumps([]), 5.0),
        ("<html>", 5.0),
        ("[" * 5000, 5.0),
        ("", 5.0),
    ],
)
async def test_the_pause_is_what_the_provider_asks_for_in_milliseconds(body: str, seconds: float) -> None:
    with pytest.raises(GatewayThrottledError) as raised:
        await HostGateway(Client(HostClientError(429, body)), UNKNOWN).get_payment("x")
    assert raised.value.retry_after == seconds


@pytest.mark.parametrize(
    ("client", "shop_id", "key", "account", "is_test"),
    [
        (Client(shop_id="1", secret_key="test_a"), "2", "live_b", "1", True),
        (Client(shop_id="1", secret_key="live_a"), "2", "test_b", "1", False),
        (Client(), "2", "test_b", "2", True),
        (Client(), "", "", None, None),
        (Client(), "2", "testing_c", "2", False),
        (Client(), "2", "live_test_x", "2", False),
        (Client(), "2", "xtest_", "2", False),
        (Client(), "2", "test_", "2", True),
        (Client(), "2", "", "2", None),
        (Client(shop_id="1", secret_key=""), "2", "", "1", None),
    ],
)
def test_the_shop_is_the_clients_or_else_the_hosts(
    client: Client, shop_id: str, key: str, account: str | None, is_test: bool | None
) -> None:
    gateway = HostGateway(client, account_of(client, Account(shop_id, key, "")))
    assert (gateway.account_id, gateway.is_test_shop) == (account, is_test)


def test_an_account_does_not_show_its_key() -> None:
    assert "test_b" not in repr(Account("2", "test_b", URL))


@pytest.mark.parametrize(
    ("client", "account"),
    [
        (Client(), Account("2", "test_b", URL)),
        (Client(shop_id="1"), Account("1", "test_b", URL)),
        (Client(secret_key="test_a", api_url=""), Account("2", "test_a", URL)),
        (Client(api_url="http://127.0.0.1:9"), Account("2", "test_b", "http://127.0.0.1:9")),
    ],
)
def test_what_the_client_does_not_carry_is_the_hosts(client: Client, account: Account) -> None:
    assert account_of(client, Account("2", "test_b", URL)) == account


class Lists(HostGateway):
    """A gateway that answers with what it was asked for."""

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        return CapturedPage([since], cursor)


async def test_the_host_lists_through_the_gateway_beside_its_client() -> None:
    gateway = ListingHostGateway(Client(shop_id="1"), Account("1", "test_b", URL), Lists(Client(), UNKNOWN))
    assert isinstance(gateway, ListingGateway)
    assert await gateway.list_captured(5.0, "here") == CapturedPage([5.0], "here")
    assert await gateway.get_payment("x") == {"id": "x"}
    assert (gateway.account_id, gateway.is_test_shop) == ("1", True)
    assert not isinstance(HostGateway(Client(), UNKNOWN), ListingGateway)
