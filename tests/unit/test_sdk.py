"""The official SDK: its failures have names, and what is no list is not read as one."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import GatewayError
from openwebui_billing_reconcile.hookspecs import CapturedPage
from openwebui_billing_reconcile.provider import sdk_client
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway

GATEWAY = SdkGateway("1", "test_x", "http://127.0.0.1:9/v3")


async def test_nobody_listening_is_a_failure_with_a_name() -> None:
    with pytest.raises(GatewayError):
        await GATEWAY.get_payment("x")
    with pytest.raises(GatewayError):
        await GATEWAY.list_captured(0.0, None)


@pytest.mark.parametrize("cursor", [None, "next"])
async def test_a_page_is_read_with_its_items_as_they_are(mocker: MockerFixture, cursor: str | None) -> None:
    items = [{"amount": {"value": "1000.00"}}, None, 5]
    mocker.patch.object(
        sdk_client, "get", return_value={"type": "list", "items": items, "next_cursor": cursor}
    )
    assert await GATEWAY.list_captured(0.0, None) == CapturedPage(items, cursor)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "list",
        {},
        {"type": "list"},
        {"items": []},
        {"type": "error", "items": []},
        {"type": "list", "items": None},
        {"type": "list", "items": {}},
        {"type": "list", "items": "abc"},
        {"type": "list", "items": [], "next_cursor": ""},
        {"type": "list", "items": [], "next_cursor": 5},
        {"type": "list", "items": [], "next_cursor": False},
        {"type": "list", "items": [], "next_cursor": ["x"]},
    ],
)
async def test_what_is_no_list_is_not_read_as_one(mocker: MockerFixture, answer: object) -> None:
    mocker.patch.object(sdk_client, "get", return_value=answer)
    with pytest.raises(GatewayError):
        await GATEWAY.list_captured(0.0, None)


@pytest.mark.parametrize(
    ("since", "cursor", "parameters"),
    [
        (0.0, None, {"captured_at.gte": "1970-01-01T00:00:00.000Z"}),
        (1773144000.123, "a&b", {"captured_at.gte": "2026-03-10T12:00:00.123Z", "cursor": "a&b"}),
    ],
)
async def test_a_list_is_asked_for_by_moment_status_and_cursor(
    mocker: MockerFixture, since: float, cursor: str | None, parameters: dict[str, str]
) -> None:
    get = mocker.patch.object(sdk_client, "get", return_value={"type": "list", "items": []})
    await GATEWAY.list_captured(since, cursor)
    *_, path, asked, _ = get.call_args.args
    assert path == "/payments"
    assert asked == {"status": "succeeded", "limit": "100"} | parameters
