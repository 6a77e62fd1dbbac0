"""The example ``second-provider``, installed beside the plugin: it starts top-ups and answers for those."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.packaging.environments import Environment, with_example
from tests.support.harness.host import REFERENCE_FOLDER, Host, Program, User, running_host
from tests.support.harness.http_server import Answer, HttpServer, running_http_server
from tests.support.harness.waiting import wait_until
from tests.support.variants import environment
from tests.support.yookassa.client import Simulator

Order = Callable[..., str]
KEY = "live_key"
START = "/api/v1/billing/topup/second"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def example(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Program:
    environment = with_example("second-provider", installed, tmp_path_factory.mktemp("second-provider"))
    return Program(python=str(environment.python))


@pytest.fixture(scope="module")
def provider() -> Iterator[HttpServer]:
    with running_http_server() as server:
        yield server


def settings(provider: HttpServer) -> dict[str, str]:
    return {
        "SECOND_PROVIDER_URL": provider.url,
        "SECOND_PROVIDER_KEY": KEY,
        "SECOND_PROVIDER_MERCHANT": "m-1",
    }


@pytest.fixture(scope="module")
def host(example: Program, simulator: Simulator, provider: HttpServer) -> Iterator[Host]:
    with running_host(example, simulator=simulator, env=settings(provider)) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    return host.new_user()


@pytest.fixture
def order(user: User, provider: HttpServer) -> Order:
    """Return a function that has the provider tell about a new order, and returns its id in the host.

    The host has a pending record of it. It is paid, 1000.00 RUB, unless the fields say otherwise.
    """

    def make(answer: Answer | None = None, *, recorded: bool = True, **fields: Any) -> str:
        order = str(uuid4())
        payment_id = f"second-{order}"
        if recorded:
            user.host.books.add_record(user.id, payment_id, provider="second")
        provider.answers[asked(payment_id)] = answer or Answer(200, paid_order(order) | fields)
        return payment_id

    return make


def asked(payment_id: str) -> str:
    """Where the provider is asked about a payment: it does not know our prefix."""
    return f"/orders/{payment_id.removeprefix('second-')}"


def paid_order(order: str) -> dict[str, Any]:
    return {
        "order": order,
        "state": "PAID",
        "sum": 100_000,
        "returned": 0,
        "currency": "RUB",
        "paid_at": 1_773_144_000,
        "merchant": "m-1",
        "sandbox": False,
        "extra": {},
    }


def start(user: User, amount_kopeks: object = 100_000) -> httpx.Response:
    return user.host.http.post(START, json={"amount_kopeks": amount_kopeks}, headers=user.headers)


def stored_metadata(host: Host, payment_id: str) -> dict[str, Any]:
    record = host.books.record(payment_id)
    assert record is not None
    return dict(record["raw_payload_json"]["metadata"])


def test_a_top_up_is_started_paid_and_credited(host: Host, user: User, provider: HttpServer) -> None:
    order = str(uuid4())
    payment_id, page = f"second-{order}", f"https://pay.example/{order}"
    provider.answers["/orders"] = Answer(200, {"order": order, "pay_at": page})
    assert start(user).json() == {"payment_id": payment_id, "confirmation_url": page}
    opened = provider.received[-1]
    extra = {"kind": "topup", "user_id": user.id, "amount_kopeks": 100_000}
    assert json.loads(opened.body) == {"sum": 100_000, "currency": "RUB", "extra": extra}
    assert opened.headers["Authorization"] == f"Bearer {KEY}"
    record = host.books.record(payment_id)
    assert record is not None
    assert (record["provider"], record["status"], record["user_id"]) == ("second", "pending", user.id)

    provider.answers[asked(payment_id)] = Answer(200, paid_order(order) | {"extra": extra})
    assert user.reconcile(payment_id).json()["credited"] is True
    assert user.balance() == 100_000


@pytest.mark.parametrize("amount", [None, "100000", 100_000.5, True, 0, -100_000, 10**12])
def test_a_top_up_without_a_proper_amount_is_refused(
    user: User, provider: HttpServer, amount: object
) -> None:
    provider.received.clear()
    assert start(user, amount).status_code == 422
    assert provider.received == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(200, {}),
        Answer(200, {"order": 5, "pay_at": "https://pay.example/5"}),
        Answer(200, {"order": "a.b", "pay_at": "https://pay.example/5"}),
    ],
)
def test_a_top_up_that_the_provider_does_not_open_is_not_recorded(
    user: User, provider: HttpServer, answer: Answer
) -> None:
    provider.answers["/orders"] = answer
    assert start(user).status_code == 502
    assert user.reconcile_pending().json() == {"payments": []}


def test_only_a_verified_user_starts_a_top_up(host: Host, provider: HttpServer) -> None:
    provider.received.clear()
    assert host.http.post(START, json={"amount_kopeks": 100_000}).status_code == 401
    assert start(host.new_user("pending")).status_code == 401
    assert provider.received == []


def test_a_payment_of_the_second_provider_is_credited(
    host: Host, user: User, provider: HttpServer, order: Order
) -> None:
    payment_id = order()
    assert user.reconcile(payment_id).json() == {
        "payment_id": payment_id,
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
    }
    assert user.balance() == 100_000
    assert stored_metadata(host, payment_id)["captured_at"] == "2026-03-10T12:00:00+00:00"
    (query,) = [seen for seen in provider.received if seen.path == asked(payment_id)]
    assert query.headers["Authorization"] == f"Bearer {KEY}"
    assert host.simulator.questions(payment_id) == 0


def test_a_visit_asks_each_provider_about_its_own(
    host: Host, user: User, provider: HttpServer, order: Order
) -> None:
    ours = user.topup()
    host.simulator.pay(ours)
    theirs = order()
    payments = user.reconcile_pending().json()["payments"]
    assert {payment["payment_id"]: payment["credited"] for payment in payments} == {ours: True, theirs: True}
    assert user.balance() == 200_000
    assert asked(ours) not in [seen.path for seen in provider.received]
    assert host.simulator.questions(theirs) == 0


def test_without_a_record_the_providers_extra_tells_whose_it_is(user: User, order: Order) -> None:
    extra = {"kind": "topup", "user_id": user.id, "amount_kopeks": "100000"}
    payment_id = order(recorded=False, extra=extra)
    assert user.reconcile(payment_id).json()["credited"] is True
    assert user.balance() == 100_000
    unnamed = order(recorded=False)
    assert user.reconcile(unnamed).status_code == 403


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"state": "NEW", "paid_at": None}, "pending"),
        ({"state": "AUTHORIZED", "paid_at": None}, "waiting_for_capture"),
        ({"state": "DECLINED", "paid_at": None}, "canceled"),
    ],
)
def test_each_state_has_its_status(user: User, order: Order, fields: dict[str, Any], status: str) -> None:
    answer = user.reconcile(order(**fields)).json()
    assert (answer["provider_status"], answer["credited"]) == (status, False)
    assert answer["payment_status"] == ("canceled" if status == "canceled" else "pending")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sum": 99_999}, "amount_mismatch"),
        ({"currency": "USD"}, "currency_mismatch"),
        ({"currency": None}, "malformed"),
        ({"returned": 1}, "refunded"),
        ({"state": "RETURNED", "returned": 100_000}, "refunded"),
        ({"merchant": "m-2"}, "other_shop"),
        ({"sandbox": True}, "test_payment"),
    ],
)
def test_the_rules_of_money_are_the_same(
    host: Host, user: User, order: Order, fields: dict[str, Any], reason: str
) -> None:
    payment_id = order(**fields)
    assert user.reconcile(payment_id).status_code == 409
    line = f"payment={payment_id} user={user.id} reason={reason}"
    wait_until(lambda: line in host.log, PATIENCE, f"not logged: {line}")
    assert user.balance() == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(404), 502),
        (Answer(400), 502),
        (Answer(401), 502),
        (Answer(403), 502),
        (Answer(500), 503),
        (Answer(302, headers={"Location": "/elsewhere"}), 503),
        (Answer(200, None), 503),
        (Answer(200, []), 503),
        (Answer(200, {}), 503),
    ],
)
def test_every_failure_has_its_status(user: User, order: Order, answer: Answer, status: int) -> None:
    response = user.reconcile(order(answer))
    assert response.status_code == status
    assert ("Retry-After" in response.headers) is (status == 503)
    assert user.balance() == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"order": "another"}, 502),
        ({"order": 5}, 503),
        ({"state": "LOST"}, 503),
        ({"sum": 1000.0}, 503),
        ({"sum": "100000"}, 503),
        ({"sum": True}, 503),
        ({"returned": -1}, 503),
    ],
)
def test_an_answer_that_cannot_be_read_credits_nothing(
    user: User, order: Order, fields: dict[str, Any], status: int
) -> None:
    assert user.reconcile(order(**fields)).status_code == status
    assert user.balance() == 0


def test_a_pause_that_it_asks_for_is_kept_and_yookassa_goes_on(
    host: Host, user: User, provider: HttpServer, order: Order
) -> None:
    payment_id = order(Answer(429, headers={"Retry-After": "2"}))
    throttled = user.reconcile(payment_id)
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (503, "2")
    ours = user.topup()
    host.simulator.pay(ours)
    assert user.reconcile(ours).json()["credited"] is True
    del provider.answers[asked(payment_id)]  # 404, once it asks again
    wait_until(lambda: user.reconcile(payment_id).status_code == 502, PATIENCE, "the pause does not end")


def test_the_client_is_open_while_the_application_runs(
    example: Program, provider: HttpServer, tmp_path: Path
) -> None:
    code = """
import asyncio, json
import second_provider
from open_webui.main import app
from openwebui_billing_reconcile import GatewayError

async def main():
    gateway = second_provider.payment_gateway("second-1")
    async with app.router.lifespan_context(app):
        (client,) = gateway._clients.values()
        seen = [client.is_closed]
    seen.append(client.is_closed)
    try:
        await gateway.get_payment("second-1")
    except GatewayError:
        seen.append("GatewayError")
    print(json.dumps(seen))

asyncio.run(main())
"""
    done = subprocess.run(
        [example.python, "-c", code],
        cwd=REFERENCE_FOLDER,
        env=environment(tmp_path) | settings(provider),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True, "GatewayError"]


def test_without_wallets_no_top_up_is_started(
    example: Program, simulator: Simulator, provider: HttpServer
) -> None:
    switched_off = settings(provider) | {"ENABLE_BILLING_WALLET": "false"}
    with running_host(example, simulator=simulator, env=switched_off) as host:
        provider.received.clear()
        assert start(host.new_user()).status_code == 404
        assert provider.received == []


def test_without_its_settings_it_is_left_out_by_name(example: Program, simulator: Simulator) -> None:
    with running_host(example, simulator=simulator) as host:
        assert "Plugin 'second_provider' is left out: KeyError: 'SECOND_PROVIDER_URL'" in host.log
        user = host.new_user()
        payment_id = user.topup()
        simulator.pay(payment_id)
        assert user.reconcile(payment_id).json()["credited"] is True
