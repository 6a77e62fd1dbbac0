"""The official SDK, for hosts without a client of their own: asked safely, its globals left alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yookassa import Configuration

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
)
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
    provider: Simulator, gateway: SdkGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(logging.Logger):
        def info(self, *_: object, **__: object) -> None:
            raise AssertionError("the SDK logged a request")

    monkeypatch.setattr(Configuration, "account_id", "another shop")
    monkeypatch.setattr(Configuration, "secret_key", "another key")
    monkeypatch.setattr(Configuration, "logger", Forbidden("forbidden"))
    before = {name: value for name, value in vars(Configuration).items() if not callable(value)}
    answer: Any = await gateway.get_payment(provider.create()["id"])
    assert answer["status"] == "succeeded"
    assert {name: value for name, value in vars(Configuration).items() if not callable(value)} == before


async def test_the_question_is_asked_on_another_thread(
    gateway: SdkGateway, provider: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    ask = gateway._client.request

    def asked(*arguments: str) -> object:
        threads.append(threading.get_ident())
        return ask(*arguments)

    monkeypatch.setattr(gateway._client, "request", asked)
    await gateway.get_payment(provider.create()["id"])
    assert threads[0] != threading.get_ident()


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
        assert host.log.count("pip install 'openwebui-billing-reconcile[sdk]'") == 1
