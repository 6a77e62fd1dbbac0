"""Bad payment ids and bodies are refused before anything is looked up, and never with 422."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import InvalidPaymentIdError
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.values import parse_payment_id
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.web.endpoint import TopupReconcileRequest, make_router
from openwebui_billing_reconcile.web.wire import PATH

from .provider_objects import each
from .request_bodies import BODY_LIMIT, HOSTILE_IDS, NOT_BODIES, NOT_IDS

RESULT = {"payment_id": "x", "provider_status": "succeeded", "payment_status": "succeeded", "credited": True}


class Endpoint:
    """The endpoint in this process, for a host whose service only counts its calls."""

    def __init__(self, mocker: MockerFixture) -> None:
        host = mocker.create_autospec(OpenWebUIHost, instance=True)
        host.get_verified_user = lambda: SimpleNamespace(id="user")
        host.wallet_enabled = True
        self.reconcile = mocker.AsyncMock(return_value=RESULT)
        host.billing_service.reconcile_topup_payment = self.reconcile
        self._app = FastAPI()
        self._app.include_router(make_router(host, mocker.create_autospec(Reconciler, instance=True)))

    async def post(self, content: bytes, content_type: str | None = "application/json") -> httpx.Response:
        """Send a body."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            return await http.post(PATH, content=content, headers=headers)


@pytest.fixture(scope="module")
def shared_endpoint(module_mocker: MockerFixture) -> Endpoint:
    """Return one for all tests here: making it takes longer than any of them."""
    return Endpoint(module_mocker)


@pytest.fixture
def endpoint(shared_endpoint: Endpoint) -> Endpoint:
    """Return the endpoint of a signed-in user, not called yet."""
    shared_endpoint.reconcile.reset_mock()
    return shared_endpoint


def assert_refused(endpoint: Endpoint, response: httpx.Response) -> None:
    """The response is a 400 with a text, and the service was not called."""
    assert response.status_code == 400
    body = response.json()
    assert body.keys() == {"detail"}
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert "retry-after" not in response.headers
    endpoint.reconcile.assert_not_called()


# --- Ids -----------------------------------------------------------------------------------------


@each(HOSTILE_IDS)
def test_hostile_id_is_not_valid(case: str) -> None:
    with pytest.raises(InvalidPaymentIdError, match="payment_id is not valid"):
        parse_payment_id(case)


@each(NOT_IDS)
def test_id_without_a_text_is_missing(case: object) -> None:
    with pytest.raises(InvalidPaymentIdError, match="payment_id is required"):
        parse_payment_id(case)


@pytest.mark.parametrize("payment_id", ["a", "A-Z_a-z_0-9", "-", "_", "x" * 64])
@pytest.mark.parametrize("around", ["{}", " {} ", "{}\n", "\t{}", "\r\n{}\r\n", "\u00a0{}"])
def test_id_is_read_without_its_white_space(payment_id: str, around: str) -> None:
    assert parse_payment_id(around.format(payment_id)) == payment_id


@each(HOSTILE_IDS | {"empty": "", "blank": " "})
def test_documented_pattern_refuses_what_the_endpoint_does(case: str) -> None:
    schema = TopupReconcileRequest.model_json_schema()
    assert not re.search(schema["properties"]["payment_id"]["pattern"], case)


# --- Bodies --------------------------------------------------------------------------------------


@each(HOSTILE_IDS | NOT_IDS)
async def test_bad_id_in_a_body_is_400(endpoint: Endpoint, case: object) -> None:
    assert_refused(endpoint, await endpoint.post(json.dumps({"payment_id": case}).encode()))


@each(NOT_BODIES)
async def test_bad_body_is_400(endpoint: Endpoint, case: bytes) -> None:
    assert_refused(endpoint, await endpoint.post(case))


async def test_body_may_be_as_large_as_the_limit(endpoint: Endpoint) -> None:
    response = await endpoint.post(b'{"payment_id": " x "}'.ljust(BODY_LIMIT))
    assert response.status_code == 200
    endpoint.reconcile.assert_awaited_once_with(user_id="user", payment_id="x")


# --- The content type ----------------------------------------------------------------------------

SOUND = b'{"payment_id": "x"}'


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/problem+json"],
)
async def test_json_is_asked_for_by_its_content_type(endpoint: Endpoint, content_type: str) -> None:
    assert (await endpoint.post(SOUND, content_type)).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "application/jsonp",
        "text/json",
    ],
)
async def test_what_another_sites_form_can_send_is_400(endpoint: Endpoint, content_type: str | None) -> None:
    response = await endpoint.post(SOUND, content_type)
    assert_refused(endpoint, response)
    assert response.json()["detail"] == "Send the header Content-Type: application/json"
