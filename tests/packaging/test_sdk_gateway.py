"""The official SDK, for lists and for hosts without a client: asked safely, its globals left alone."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture
from yookassa import Configuration

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
)
from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway
from openwebui_billing_reconcile.provider import sdk_gateway
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway
from tests.support.harness.host import Program, running_host
from tests.support.variants import Variant
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import running_simulator


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def gateway(provider: Simulator) -> SdkGateway:
    provider.clear_faults()
    return SdkGateway(provider.shop_id, provider.secret_key, provider.api_url)


Query = Callable[[SdkGateway], Awaitable[object]]
each_query = pytest.mark.parametrize(
    "query",
    [lambda gateway: gateway.get_payment("x"), lambda gateway: gateway.list_captured(0.0, None)],
    ids=["payment", "list"],
)


async def test_the_answer_is_the_raw_one(provider: Simulator, gateway: SdkGateway) -> None:
    payment = provider.create(amount={"value": "1000.00", "currency": "RUB"}, paid="false")
    answer: Any = await gateway.get_payment(payment["id"])
    assert answer["amount"] == {"value": "1000.00", "currency": "RUB"}
    assert answer["paid"] == "false"
    assert (gateway.account_id, gateway.is_test_shop) == (provider.shop_id, True)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"status": 400, "body": {"type": "error"}}, GatewayRejectedError),
        ({"status": 401, "body": {"type": "error"}}, GatewayRejectedError),
        ({"status": 403, "body": {"type": "error"}}, GatewayRejectedError),
        ({"status": 404, "body": {"type": "error"}}, PaymentNotFoundError),
        ({"status": 429, "body": {"type": "error", "retry_after": 1800}}, GatewayThrottledError),
        ({"status": 500, "body": {"type": "error"}}, GatewayError),
        ({"status": 502, "body": "<html>"}, GatewayError),
        ({"raw": "<html>", "content_type": "text/html"}, GatewayError),
        ({"raw": ""}, GatewayError),
        ({"reset": True}, GatewayError),
        ({"redirect": "http://127.0.0.1:9/"}, GatewayError),
    ],
)
async def test_every_failure_has_a_name(
    provider: Simulator, gateway: SdkGateway, fault: dict[str, Any], named: type[GatewayError]
) -> None:
    payment = provider.create()
    provider.fault(payment_id=payment["id"], **fault)
    with pytest.raises(GatewayError) as raised:
        await gateway.get_payment(payment["id"])
    assert type(raised.value) is named
    if isinstance(raised.value, GatewayThrottledError):
        assert raised.value.retry_after == 1.8


@pytest.fixture
def listed(provider: Simulator) -> Iterator[Simulator]:
    """The provider without any payments before and after."""
    provider.reset()
    yield provider
    provider.reset()


async def test_a_list_comes_in_pages_raw_and_newest_first(listed: Simulator, gateway: SdkGateway) -> None:
    for number in range(205):
        listed.create(metadata={"number": number}, paid="true")
    pages: list[CapturedPage] = []
    cursor = None
    while not pages or cursor is not None:
        pages.append(await gateway.list_captured(0.0, cursor))
        cursor = pages[-1].next_cursor
    assert [len(page.items) for page in pages] == [100, 100, 5]
    items: list[Any] = [item for page in pages for item in page.items]
    assert items == listed.payments()
    assert [item["metadata"]["number"] for item in items] == [*reversed(range(205))]


async def test_a_list_holds_what_was_captured_at_the_moment_or_later(
    listed: Simulator, gateway: SdkGateway
) -> None:
    moments = [f"2026-03-10T{text}Z" for text in ("11:59:59.999", "12:00:00.123", "12:00:00.124")]
    for moment in moments:
        listed.create(captured_at=moment, created_at="2026-03-01T00:00:00.000Z")

    async def captured(since: str) -> set[str]:
        page = await gateway.list_captured(datetime.fromisoformat(since).timestamp(), None)
        return {item["captured_at"] for item in page.items if isinstance(item, dict)}

    assert await captured(moments[1]) == {*moments[1:]}
    assert await captured("2026-03-10T15:00:00.124+03:00") == {moments[2]}
    assert await captured("2026-03-10T12:00:00.125Z") == set()


async def test_a_list_holds_succeeded_payments_only(listed: Simulator, gateway: SdkGateway) -> None:
    for status in ("pending", "waiting_for_capture", "canceled", "succeeded"):
        listed.create(status=status, captured_at="2026-03-10T12:00:00.000Z")
    refunded = listed.create()
    listed.refund(refunded["id"])
    page = await gateway.list_captured(0.0, None)
    assert [item["status"] for item in page.items if isinstance(item, dict)] == ["succeeded"] * 2


async def test_an_empty_list_is_one_page(listed: Simulator, gateway: SdkGateway) -> None:
    assert await gateway.list_captured(0.0, None) == CapturedPage([], None)
    assert isinstance(gateway, ListingGateway)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"status": 400, "body": {"type": "error"}}, GatewayRejectedError),
        ({"status": 403, "body": {"type": "error"}}, GatewayRejectedError),
        ({"status": 404, "body": {"type": "error"}}, GatewayError),
        ({"status": 429, "body": {"type": "error", "retry_after": 1800}}, GatewayThrottledError),
        ({"status": 500, "body": {"type": "error"}}, GatewayError),
        ({"status": 502, "body": "<html>"}, GatewayError),
        ({"raw": "<html>", "content_type": "text/html"}, GatewayError),
        ({"raw": ""}, GatewayError),
        ({"raw": "null"}, GatewayError),
        ({"body": {"type": "error"}}, GatewayError),
        ({"truncate": 20}, GatewayError),
        ({"reset": True}, GatewayError),
    ],
)
async def test_every_failure_of_a_list_has_a_name(
    provider: Simulator, gateway: SdkGateway, fault: dict[str, Any], named: type[GatewayError]
) -> None:
    provider.fault(**fault)
    with pytest.raises(GatewayError) as raised:
        await gateway.list_captured(0.0, None)
    assert type(raised.value) is named
    if isinstance(raised.value, GatewayThrottledError):
        assert raised.value.retry_after == 1.8
    provider.clear_faults()


async def test_a_list_is_refused_to_another_key_and_after_an_unknown_cursor(
    provider: Simulator, gateway: SdkGateway
) -> None:
    with pytest.raises(GatewayRejectedError):
        await SdkGateway(provider.shop_id, "test_wrong", provider.api_url).list_captured(0.0, None)
    with pytest.raises(GatewayRejectedError):
        await gateway.list_captured(0.0, "no such & cursor")


async def test_a_deadline_is_kept_and_the_event_loop_stays_free(
    provider: Simulator, gateway: SdkGateway
) -> None:
    payment = provider.create()
    provider.fault(payment_id=payment["id"], hang=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await gateway.get_payment(payment["id"])
    provider.clear_faults()


async def test_the_process_wide_configuration_is_neither_read_nor_changed(
    provider: Simulator, gateway: SdkGateway, mocker: MockerFixture
) -> None:
    class Forbidden(logging.Logger):
        def info(self, *_: object, **__: object) -> None:
            raise AssertionError("the SDK logged a request")

    mocker.patch.object(Configuration, "account_id", "another shop")
    mocker.patch.object(Configuration, "secret_key", "another key")
    mocker.patch.object(Configuration, "logger", Forbidden("forbidden"))
    before = {name: value for name, value in vars(Configuration).items() if not callable(value)}
    answer: Any = await gateway.get_payment(provider.create()["id"])
    assert answer["status"] == "succeeded"
    assert {name: value for name, value in vars(Configuration).items() if not callable(value)} == before


@pytest.mark.parametrize("query", ["get_payment('x')", "list_captured(0.0, None)"])
def test_the_sdk_is_imported_with_the_first_query_and_on_a_thread(query: str) -> None:
    code = f"""
import asyncio, sys, threading
import openwebui_billing_reconcile.attachment.builtin
from openwebui_billing_reconcile.errors import GatewayError
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("yookassa", "requests"):
            print(name, threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Finder())
gateway = SdkGateway("1", "test_x", "http://127.0.0.1:9/v3")
assert not sys.modules.keys() & ("yookassa", "requests")
try:
    asyncio.run(gateway.{query})
except GatewayError:
    print("done")
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert sorted(out.splitlines()) == ["done", "requests False", "yookassa False"]


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with headers that never end, a byte at a time, each well within a socket's timeout."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    with suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.fixture
async def dripping() -> AsyncIterator[str]:
    """The address of a provider whose answers drip for ever."""
    handlers = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        handlers.add(task)
        try:
            await _drip(reader, writer)
        finally:
            handlers.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"http://{host}:{port}/v3"
    server.close()
    async with asyncio.timeout(5):
        while handlers:  # a connection that nobody shut down would drip on
            await asyncio.sleep(0.01)


@each_query
async def test_queries_that_are_given_up_free_their_threads(
    dripping: str, provider: Simulator, query: Query
) -> None:
    before = set(threading.enumerate())
    gateway = SdkGateway(provider.shop_id, provider.secret_key, dripping)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await query(gateway)

    for _ in range(4):
        await asyncio.gather(*(give_up() for _ in range(10)))
        assert len(set(threading.enumerate()) - before) <= 10
    gateway._shop = provider.shop_id, provider.secret_key, provider.api_url
    payment_id = provider.create()["id"]
    async with asyncio.timeout(5):  # the threads that dripped are free for others
        answers: list[Any] = await asyncio.gather(*(gateway.get_payment(payment_id) for _ in range(10)))
    assert {answer["id"] for answer in answers} == {payment_id}


@each_query
async def test_an_exchange_ends_although_its_caller_waits_on(
    dripping: str, mocker: MockerFixture, query: Query
) -> None:
    mocker.patch.object(sdk_gateway, "EXCHANGE_TIMEOUT", 0.3)
    with pytest.raises(GatewayError) as raised:
        await query(SdkGateway("1", "test_x", dripping))
    assert isinstance(raised.value.__cause__, TimeoutError)


async def test_a_silent_provider_ends_the_query_at_the_sockets_timeout(
    provider: Simulator, gateway: SdkGateway, mocker: MockerFixture
) -> None:
    from openwebui_billing_reconcile.provider import sdk_client

    assert max(sdk_client.SOCKET_TIMEOUT) < sdk_gateway.EXCHANGE_TIMEOUT
    mocker.patch.object(sdk_client, "SOCKET_TIMEOUT", (0.2, 0.2))
    payment = provider.create()
    provider.fault(payment_id=payment["id"], hang=True)
    with pytest.raises(GatewayError) as raised:
        async with asyncio.timeout(5):
            await gateway.get_payment(payment["id"])
    assert not isinstance(raised.value.__cause__, TimeoutError)  # not the end of the exchange
    provider.clear_faults()


async def test_a_connection_made_after_the_end_is_closed() -> None:
    exchange = sdk_gateway.Exchange()
    exchange.abort()
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(ConnectionAbortedError):
        exchange.add(ours)
    assert ours.fileno() == -1


async def test_the_credentials_go_nowhere_else(
    provider: Simulator, gateway: SdkGateway, tmp_path: Path, mocker: MockerFixture
) -> None:
    reached: list[object] = []
    elsewhere = await asyncio.start_server(lambda *_: reached.append(_), "127.0.0.1", 0)
    host, port = elsewhere.sockets[0].getsockname()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login another password shop\n")
    mocker.patch.dict(os.environ, {"NETRC": str(netrc)})
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        os.environ[name] = f"http://{host}:{port}"
    os.environ.pop("NO_PROXY", None)
    os.environ.pop("no_proxy", None)
    payment = provider.create()
    answer: Any = await gateway.get_payment(payment["id"])  # 401 with the credentials of .netrc
    assert answer["id"] == payment["id"]
    provider.fault(payment_id=payment["id"], redirect=f"http://{host}:{port}/")
    with pytest.raises(GatewayError):
        await gateway.get_payment(payment["id"])
    elsewhere.close()
    assert not reached


async def test_neither_credentials_nor_the_providers_words_are_logged(
    provider: Simulator, gateway: SdkGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    payment = provider.create(description="words of the provider")
    await gateway.get_payment(payment["id"])
    provider.fault(payment_id=payment["id"], status=401, body={"description": "words of the provider"})
    with pytest.raises(GatewayError):
        await gateway.get_payment(payment["id"])
    for secret in (provider.secret_key, "Basic ", "words of the provider"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("key", "is_test"),
    [("test_", True), ("test_x", True), ("live_test_x", False), ("xtest_", False), ("TEST_x", False)],
)
def test_a_test_shop_is_one_whose_key_begins_so(key: str, is_test: bool) -> None:
    assert SdkGateway("1", key, "http://127.0.0.1:9/v3").is_test_shop is is_test


@pytest.mark.parametrize("key", ["", None])
def test_without_a_key_it_is_not_known(key: str) -> None:
    assert SdkGateway("1", key, "http://127.0.0.1:9/v3").is_test_shop is None


def test_a_host_with_a_client_lists_where_its_client_asks(listed: Simulator, tmp_path: Path) -> None:
    shop = listed.shop_id, listed.secret_key, None, listed.api_url  # the host's settings name another address
    code = f"""
import asyncio, json, sys
import open_webui.main
from open_webui.utils.yookassa import YooKassaConfig, init_yookassa
from openwebui_billing_reconcile.attachment.plugins import Plugins
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost

init_yookassa(YooKassaConfig(*{shop!r}))
plugins = Plugins()
plugins.load()
gateway = plugins.payment_gateway(host=OpenWebUIHost(plugins), payment_id="x")
assert "yookassa" not in sys.modules
page = asyncio.run(gateway.list_captured(0.0, None))
print(json.dumps([page.items, page.next_cursor]))
"""
    payment = listed.create()
    assert Variant(tmp_path / "host").json(code) == [[payment], None]


@pytest.fixture
def without_a_client(tmp_path: Path) -> Variant:
    """A host whose billing has no ``get_yookassa_client``."""
    host = Variant(tmp_path / "host")
    for file in (host.folder / "open_webui").rglob("*.py"):
        file.write_text(file.read_text().replace("get_yookassa_client", "client_of_the_host"))
    return host


def test_a_host_without_a_client_is_served_by_the_sdk(without_a_client: Variant, provider: Simulator) -> None:
    with running_host(Program(folder=without_a_client.folder), simulator=provider) as host:
        user = host.new_user()
        payment_id = user.topup()
        assert user.reconcile(payment_id).json()["provider_status"] == "pending"
        paid = user.topup()
        provider.pay(paid)
        assert user.reconcile(paid).json()["credited"] is True
        assert user.balance() == 100_000


def test_without_the_sdk_the_answer_is_503_and_one_line_says_what_to_install(
    without_a_client: Variant, provider: Simulator
) -> None:
    without_a_client.write("yookassa/__init__.py", "raise ImportError('not installed')")
    with running_host(Program(folder=without_a_client.folder), simulator=provider) as host:
        user = host.new_user()
        answers = [user.reconcile(user.topup()) for _ in range(2)]
        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].json() == {"detail": "Payment system is not configured"}
        assert "Retry-After" not in answers[0].headers
        assert host.log.count("pip install yookassa") == 1
