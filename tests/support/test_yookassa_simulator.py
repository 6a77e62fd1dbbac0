"""The simulator is faithful: clients that were not written for it can use it, faults included."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import yookassax
from async_yookassa import YooKassaClient  # type: ignore[import-untyped]
from async_yookassa.exceptions import (  # type: ignore[import-untyped]
    BadRequestError,
    NotFoundError,
    UnauthorizedError,
)
from async_yookassa.models.payment import PaymentListOptions  # type: ignore[import-untyped]
from yookassa import Payment as OfficialPayment
from yookassa.client import ApiClient
from yookassa.domain.common import UserAgent
from yookassa.domain.exceptions import NotFoundError as OfficialNotFoundError

from tests.support.harness import waiting
from tests.support.local_http import answers, local_client
from tests.support.yookassa.app import create_app
from tests.support.yookassa.client import Attempt, Document, Simulator
from tests.support.yookassa.errors import ApiError
from tests.support.yookassa.idempotence import REMEMBERED_SECONDS, Memory
from tests.support.yookassa.process import ServerProcess, running_server, running_simulator

RETURN_URL = "https://shop.example/billing/balance?topup_return=1"
PATIENCE = 20.0


# --- What the tests share ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    return process


@pytest.fixture
def api(simulator: Simulator) -> Iterator[httpx.Client]:
    auth = simulator.shop_id, simulator.secret_key
    with local_client(base_url=simulator.api_url, auth=auth, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def browser(simulator: Simulator) -> Iterator[httpx.Client]:
    with local_client(base_url=simulator.url, timeout=PATIENCE) as client:
        yield client


class Receiver:
    """A shop's webhook address: answers with the statuses given, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.notifications: queue.Queue[tuple[float, Document]] = queue.Queue()
        self._statuses = list(statuses)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.notifications.put((time.monotonic(), json.loads(body)))
                self.send_response(receiver._statuses.pop(0) if receiver._statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self) -> Document:
        return self.notifications.get(timeout=PATIENCE)[1]


def wait_until(condition: Callable[[], bool]) -> None:
    waiting.wait_until(condition, PATIENCE, "it did not come about")


def order(**fields: Any) -> Document:
    return {
        "amount": {"value": "1000.00", "currency": "RUB"},
        "confirmation": {"type": "redirect", "return_url": RETURN_URL},
        "description": "Top-up",
    } | fields


def key() -> dict[str, str]:
    return {"Idempotence-Key": str(uuid4())}


def opened(api: httpx.Client, **fields: Any) -> Document:
    answer = api.post("/payments", json=order(**fields), headers=key())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def assert_error(answer: httpx.Response, status: int, code: str, parameter: str | None) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert {"type", "id", "code", "description"} <= body.keys()
    assert (body["type"], body["code"], body.get("parameter")) == ("error", code, parameter)
    UUID(body["id"])


# --- Clients that know only the provider ---------------------------------------------------------


@pytest.fixture
def yookassax_client(simulator: Simulator) -> Iterator[yookassax.YooKassa]:
    with yookassax.YooKassa(
        shop_id=simulator.shop_id,
        secret_key=simulator.secret_key,
        api_url=simulator.api_url,
        retries=1,
    ) as client:
        yield client


def test_yookassax_takes_a_payment_through(
    simulator: Simulator, yookassax_client: yookassax.YooKassa
) -> None:
    payments = yookassax_client.payments
    payment = payments.create(order(metadata={"amount_kopeks": 100000}))
    assert payment.is_pending
    assert payment.id is not None
    assert payment.confirmation_url == f"{simulator.url}/checkout/{payment.id}"
    assert payment.metadata == {"amount_kopeks": "100000"}

    simulator.hold(payment.id)
    assert payments.get(payment.id).is_waiting_for_capture
    captured = payments.capture(payment.id, {"amount": {"value": "600.00", "currency": "RUB"}})
    assert captured.is_succeeded
    assert captured.amount is not None
    assert str(captured.amount.value) == "600.00"

    refund = yookassax_client.refunds.create(
        {"payment_id": payment.id, "amount": {"value": "100.50", "currency": "RUB"}}
    )
    assert refund.id is not None
    assert yookassax_client.refunds.get(refund.id).status == "succeeded"
    refunded = payments.get(payment.id).refunded_amount
    assert refunded is not None
    assert str(refunded.value) == "100.50"


def test_yookassax_cancels_lists_and_understands_errors(
    simulator: Simulator, yookassax_client: yookassax.YooKassa
) -> None:
    payments = yookassax_client.payments
    ids = [payments.create(order()).id for _ in range(5)]
    assert [payment.id for payment in payments.iterate(limit=2)] == ids[::-1]

    held = ids[0]
    assert held is not None
    simulator.hold(held)
    canceled = payments.cancel(held)
    assert canceled.is_canceled
    assert canceled.cancellation_details is not None
    assert canceled.cancellation_details.reason == "canceled_by_merchant"

    with pytest.raises(yookassax.NotFound) as caught:
        payments.get(str(uuid4()))
    assert (caught.value.code, caught.value.parameter) == ("not_found", "payment_id")
    with pytest.raises(yookassax.BadRequest):
        payments.capture(held)
    simulator.fault(status=500)
    with pytest.raises(yookassax.ServerError):
        payments.get(held)
    simulator.fault(reset=True)
    with pytest.raises(yookassax.TransportError):
        payments.get(held)


async def test_async_yookassa_takes_a_payment_through(simulator: Simulator) -> None:
    async with YooKassaClient(simulator.shop_id, simulator.secret_key, api_url=simulator.api_url) as client:
        payment = await client.payment.create(order(metadata={"kind": "topup"}))
        assert payment.status == "pending"
        assert payment.confirmation.confirmation_url.startswith(simulator.url)

        simulator.hold(payment.id)
        assert (await client.payment.find_one(payment.id)).status == "waiting_for_capture"
        captured = await client.payment.capture(payment.id)
        assert (captured.status, captured.income_amount.value) == ("succeeded", "965.00")

        amount = {"value": "1000.00", "currency": "RUB"}
        refund = await client.refund.create({"payment_id": payment.id, "amount": amount})
        assert (await client.refund.find_one(refund.id)).amount.value == "1000.00"
        refunded = await client.payment.find_one(payment.id)
        assert (refunded.refunded_amount.value, refunded.refundable) == ("1000.00", False)


async def test_async_yookassa_cancels_lists_and_understands_errors(simulator: Simulator) -> None:
    async with YooKassaClient(simulator.shop_id, simulator.secret_key, api_url=simulator.api_url) as client:
        ids = [(await client.payment.create(order())).id for _ in range(3)]
        simulator.hold(ids[1])
        assert (await client.payment.cancel(ids[1])).status == "canceled"

        page = await client.payment.list(PaymentListOptions(status="pending", limit=1))
        assert ([payment.id for payment in page.items], page.next_cursor) == ([ids[2]], ids[2])
        page = await client.payment.list({"status": "pending", "cursor": page.next_cursor})
        assert ([payment.id for payment in page.items], page.next_cursor) == ([ids[0]], None)

        with pytest.raises(NotFoundError):
            await client.payment.find_one(str(uuid4()))
        with pytest.raises(BadRequestError):
            await client.payment.cancel(ids[0])
    async with YooKassaClient(simulator.shop_id, "wrong", api_url=simulator.api_url) as client:
        with pytest.raises(UnauthorizedError):
            await client.payment.find_one(ids[0])


def official_payments(simulator: Simulator) -> Any:
    """The provider's own SDK with a client of its own: its configuration is global state."""

    class Client(ApiClient):  # type: ignore[misc]
        def __init__(self) -> None:
            self.endpoint = simulator.api_url
            self.shop_id, self.shop_password = simulator.shop_id, simulator.secret_key
            self.auth_token = None
            self.timeout, self.max_attempts = 1800, 1
            self.configuration = SimpleNamespace(verify=True)
            self.user_agent = UserAgent()

    class Payments(OfficialPayment):  # type: ignore[misc]
        def __init__(self) -> None:
            self.client = Client()

    return Payments


def test_official_sdk_takes_a_payment_through(simulator: Simulator) -> None:
    payments = official_payments(simulator)
    payment = payments.create(order(metadata={"kind": "topup"}))
    assert payment.confirmation.confirmation_url.startswith(simulator.url)
    simulator.hold(payment.id)
    assert payments.find_one(payment.id).status == "waiting_for_capture"
    captured = payments.capture(payment.id)
    assert (captured.status, captured.paid, str(captured.amount.value)) == (
        "succeeded",
        True,
        "1000.00",
    )
    assert [item.id for item in payments.list({"limit": 1}).items] == [payment.id]
    with pytest.raises(OfficialNotFoundError):
        payments.find_one(str(uuid4()))


# --- The payment ---------------------------------------------------------------------------------


def test_a_new_payment_has_the_documented_shape(simulator: Simulator, api: httpx.Client) -> None:
    payment = opened(api)
    assert UUID(payment["id"]).hex == payment["id"].replace("-", "")
    assert payment == {
        "id": payment["id"],
        "status": "pending",
        "amount": {"value": "1000.00", "currency": "RUB"},
        "description": "Top-up",
        "recipient": {"account_id": "100500", "gateway_id": "2100500"},
        "created_at": payment["created_at"],
        "confirmation": {
            "type": "redirect",
            "return_url": RETURN_URL,
            "confirmation_url": f"{simulator.url}/checkout/{payment['id']}",
        },
        "paid": False,
        "test": True,
        "refundable": False,
        "metadata": {},
    }
    assert payment["created_at"].endswith("Z")


def test_each_state_has_its_own_fields(simulator: Simulator) -> None:
    pending = simulator.create(status="pending")
    assert "confirmation" in pending
    held = simulator.hold(pending["id"])
    assert (held["status"], held["paid"], held["refundable"]) == (
        "waiting_for_capture",
        True,
        False,
    )
    assert "expires_at" in held
    assert not {"confirmation", "captured_at", "refunded_amount"} & held.keys()
    paid = simulator.pay(pending["id"])
    assert (paid["status"], paid["paid"], paid["refundable"]) == ("succeeded", True, True)
    assert paid["refunded_amount"]["value"] == "0.00"
    assert {"captured_at", "income_amount", "payment_method"} <= paid.keys()
    assert not {"confirmation", "expires_at"} & paid.keys()
    lost = simulator.decline(pending["id"], party="yoo_money", reason="expired_on_confirmation")
    assert (lost["status"], lost["paid"]) == ("canceled", False)
    assert lost["cancellation_details"] == {
        "party": "yoo_money",
        "reason": "expired_on_confirmation",
    }


def test_a_live_key_makes_real_payments() -> None:
    with running_simulator(shop_id="7", secret_key="live_secret") as simulator:
        payment = simulator.create()
    assert (payment["test"], payment["recipient"]["account_id"]) == (False, "7")


def test_metadata_values_become_strings(api: httpx.Client) -> None:
    payment = opened(api, metadata={"n": 10000, "x": 1.5, "yes": True, "s": "ы", "none": None})
    expected = {"n": "10000", "x": "1.5", "yes": "true", "s": "ы"}
    assert payment["metadata"] == expected
    assert api.get(f"/payments/{payment['id']}").json()["metadata"] == expected


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"amount": None}, "amount.value"),
        ({"amount": {"value": 1000, "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "1000.001", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "-1.00", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "0.00", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "1.00", "currency": "rub"}}, "amount.value"),
        ({"capture": "yes"}, "capture"),
        ({"description": "x" * 129}, "description"),
        ({"confirmation": None}, "confirmation"),
        ({"confirmation": {"type": "qr"}}, "confirmation.type"),
        ({"confirmation": {"type": "redirect"}}, "confirmation.return_url"),
        (
            {"confirmation": {"type": "redirect", "return_url": "javascript:alert(1)"}},
            "confirmation.return_url",
        ),
        ({"metadata": ["a"]}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 33: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": {}}}, "metadata"),
    ],
)
def test_a_malformed_payment_is_refused(api: httpx.Client, fields: Document, parameter: str) -> None:
    answer = api.post("/payments", json=order(**fields), headers=key())
    assert_error(answer, 400, "invalid_request", parameter)


def test_the_largest_metadata_is_taken(api: httpx.Client) -> None:
    metadata = {f"{n:032}": "v" * 512 for n in range(16)}
    assert opened(api, metadata=metadata)["metadata"] == metadata


def test_a_saved_method_pays_without_a_person(api: httpx.Client) -> None:
    fields = {"confirmation": None, "payment_method_id": "pm-1"}
    assert opened(api, **fields, capture=True)["status"] == "succeeded"
    held = opened(api, **fields)
    assert (held["status"], held["payment_method"]["id"]) == ("waiting_for_capture", "pm-1")


def test_capture_and_cancel_need_a_hold(simulator: Simulator, api: httpx.Client) -> None:
    payment = simulator.create(status="pending")
    for action in ("capture", "cancel"):
        answer = api.post(f"/payments/{payment['id']}/{action}", headers=key())
        assert_error(answer, 400, "invalid_request", "payment_id")
    simulator.hold(payment["id"])
    more = {"amount": {"value": "1000.01", "currency": "RUB"}}
    answer = api.post(f"/payments/{payment['id']}/capture", json=more, headers=key())
    assert_error(answer, 400, "invalid_request", "amount")


def test_refunds_never_exceed_the_payment(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create()["id"]

    def refund(value: str, currency: str = "RUB") -> httpx.Response:
        amount = {"value": value, "currency": currency}
        body = {"payment_id": payment_id, "amount": amount, "description": "sorry"}
        return api.post("/refunds", json=body, headers=key())

    first = refund("0.10").json()
    assert (first["status"], first["payment_id"]) == ("succeeded", payment_id)
    assert api.get(f"/refunds/{first['id']}").json() == first
    assert_error(refund("999.91"), 400, "invalid_request", "amount")
    assert_error(refund("1.00", "USD"), 400, "invalid_request", "amount")
    assert refund("999.90").status_code == 200
    payment = api.get(f"/payments/{payment_id}").json()
    assert (payment["status"], payment["refundable"]) == ("succeeded", False)
    assert payment["refunded_amount"] == {"value": "1000.00", "currency": "RUB"}
    assert_error(refund("0.01"), 400, "invalid_request", "amount")


def test_only_a_succeeded_payment_is_refunded(simulator: Simulator, api: httpx.Client) -> None:
    amount = {"value": "1.00", "currency": "RUB"}
    for payment_id in (simulator.create(status="pending")["id"], "unknown", 5):
        body = {"payment_id": payment_id, "amount": amount}
        answer = api.post("/refunds", json=body, headers=key())
        assert_error(answer, 400, "invalid_request", "payment_id")
    assert_error(api.get("/refunds/unknown"), 404, "not_found", "refund_id")


def test_lists_filter_and_page(simulator: Simulator, api: httpx.Client) -> None:
    for day in range(1, 13):
        simulator.create(
            id=f"p{day:02}",
            created_at=f"2026-03-{day:02}T00:00:00.000Z",
            captured_at=f"2026-03-{day:02}T12:00:00.000Z",
        )
    simulator.create(id="fresh", status="pending", created_at="2026-03-20T00:00:00.000Z")

    def ids(**query: str) -> list[str]:
        page = api.get("/payments", params=query).json()
        assert page["type"] == "list"
        return [payment["id"] for payment in page["items"]]

    assert ids() == ["fresh", *(f"p{day:02}" for day in range(12, 3, -1))]
    assert len(ids(limit="100")) == 13
    assert ids(status="pending") == ["fresh"]
    assert ids(payment_method="sbp") == []
    assert "fresh" not in ids(payment_method="bank_card")
    bounds = {"created_at.gte": "2026-03-02T00:00:00Z", "created_at.lt": "2026-03-04T00:00:00Z"}
    assert ids(**bounds) == ["p03", "p02"]
    bounds = {"created_at.gt": "2026-03-02T00:00:00Z", "created_at.lte": "2026-03-04T00:00:00Z"}
    assert ids(**bounds) == ["p04", "p03"]
    assert ids(**{"captured_at.gt": "2026-03-12T11:00:00+00:00"}) == ["p12"]
    assert ids(cursor="p03", limit="1") == ["p02"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "ten"),
        ("cursor", "nowhere"),
        ("created_at.gte", "yesterday"),
        ("created_at", "2026-03-02T00:00:00Z"),
    ],
)
def test_a_malformed_list_is_refused(simulator: Simulator, api: httpx.Client, name: str, value: str) -> None:
    simulator.create()
    assert_error(api.get("/payments", params={name: value}), 400, "invalid_request", name)


# --- The protocol --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [None, "Basic", "Basic !!!", "Basic dXNlcjpwYXNz", "Basic gICA", "Bearer test_secret"],
)
def test_nothing_without_the_key(simulator: Simulator, browser: httpx.Client, header: str | None) -> None:
    payment = simulator.create()
    headers = {} if header is None else {"Authorization": header}
    for call in (
        browser.get(f"/v3/payments/{payment['id']}", headers=headers),
        browser.get("/v3/payments", headers=headers),
        browser.post("/v3/payments", headers=headers | key(), json=order()),
    ):
        assert_error(call, 401, "invalid_credentials", "Authorization")


def test_an_unknown_payment_in_the_providers_words(api: httpx.Client) -> None:
    for path in ("/payments/unknown", "/payments/%2e%2e", "/payments/x%3Fy=1"):
        answer = api.get(path)
        assert_error(answer, 404, "not_found", "payment_id")
        assert answer.json()["description"].startswith(
            "Incorrect payment_id. Payment doesn't exist or access denied."
        )


def test_addresses_are_right_or_unknown(simulator: Simulator, api: httpx.Client) -> None:
    payment = simulator.create()
    for path in ("/payments/a/b", "/payments/", "/nothing"):
        assert_error(api.get(path), 404, "not_found", None)
    assert api.get(f"/payments/{payment['id']}/cancel").status_code == 405
    text = {"content-type": "text/plain"}
    assert api.post("/payments", content="{}", headers=key() | text).status_code == 415


def test_get_tolerates_what_some_clients_send(simulator: Simulator, api: httpx.Client) -> None:
    payment = simulator.create()
    answer = api.request("GET", f"/payments/{payment['id']}", json={"a": 1}, headers=key())
    assert answer.json() == payment


def test_posts_need_an_idempotence_key(simulator: Simulator, api: httpx.Client) -> None:
    held = simulator.create(status="waiting_for_capture")
    paths = (
        "/payments",
        "/refunds",
        *(f"/payments/{held['id']}/{a}" for a in ("capture", "cancel")),
    )
    for path in paths:
        for headers in ({}, {"Idempotence-Key": ""}, {"Idempotence-Key": "k" * 65}):
            answer = api.post(path, json=order(), headers=headers)
            assert_error(answer, 400, "invalid_request", "Idempotence-Key")
    longest = api.post("/payments", json=order(), headers={"Idempotence-Key": "k" * 64})
    assert longest.status_code == 200


def test_repetitions_get_the_first_answer(simulator: Simulator, api: httpx.Client) -> None:
    headers = key()
    first = api.post("/payments", json=order(), headers=headers).json()
    simulator.pay(first["id"])
    shuffled = dict(reversed(order().items()))
    assert api.post("/payments", json=shuffled, headers=headers).json() == first
    assert len(simulator.payments()) == 1

    other = order(description="Another")
    assert_error(
        api.post("/payments", json=other, headers=headers),
        400,
        "invalid_request",
        "Idempotence-Key",
    )
    elsewhere = api.post("/refunds", json=order(), headers=headers)
    assert_error(elsewhere, 400, "invalid_request", "Idempotence-Key")


def test_repeated_refunds_and_captures_happen_once(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create(status="waiting_for_capture")["id"]
    headers = key()
    captures = [api.post(f"/payments/{payment_id}/capture", headers=headers) for _ in range(2)]
    assert captures[0].json() == captures[1].json()
    headers = key()
    body = {"payment_id": payment_id, "amount": {"value": "600.00", "currency": "RUB"}}
    refunds = [api.post("/refunds", json=body, headers=headers).json() for _ in range(2)]
    assert refunds[0] == refunds[1]
    assert simulator.payment(payment_id)["refunded_amount"]["value"] == "600.00"


def test_a_refused_request_may_be_repeated_with_its_key(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create(status="pending")["id"]
    headers = key()
    assert api.post(f"/payments/{payment_id}/capture", headers=headers).status_code == 400
    simulator.hold(payment_id)
    assert api.post(f"/payments/{payment_id}/capture", headers=headers).status_code == 200


def test_keys_are_remembered_for_a_day() -> None:
    clock = [0.0]
    memory = Memory(now=lambda: clock[0])
    memory.remember("old", "request", {"n": 1})
    clock[0] = REMEMBERED_SECONDS - 1
    memory.remember("new", "request", {"n": 2})
    assert memory.recall("old", "request") == {"n": 1}
    with pytest.raises(ApiError):
        memory.recall("old", "another request")
    clock[0] = REMEMBERED_SECONDS
    assert memory.recall("old", "another request") is None
    assert memory.recall("new", "request") == {"n": 2}


@pytest.mark.parametrize("body", ["{", "[]", "null"])
def test_a_body_is_a_json_object(api: httpx.Client, body: str) -> None:
    headers = key() | {"content-type": "application/json"}
    answer = api.post("/payments", content=body, headers=headers)
    assert_error(answer, 400, "invalid_request", None)


# --- The checkout page ---------------------------------------------------------------------------


@pytest.mark.parametrize(("capture", "status"), [(True, "succeeded"), (False, "waiting_for_capture")])
def test_a_person_pays(
    simulator: Simulator, api: httpx.Client, browser: httpx.Client, capture: bool, status: str
) -> None:
    payment = opened(api, capture=capture, description="Top-up <b>1</b>")
    page = browser.get(payment["confirmation"]["confirmation_url"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "₽1,000.00" in page.text
    assert "Top-up &lt;b&gt;1&lt;/b&gt;" in page.text
    assert "<script" not in page.text
    assert f'action="/checkout/{payment["id"]}/pay"' in page.text

    for _ in range(2):  # the second click changes nothing
        answer = browser.post(f"/checkout/{payment['id']}/pay")
        assert (answer.status_code, answer.headers["location"]) == (303, RETURN_URL)
    assert simulator.payment(payment["id"])["status"] == status
    assert browser.post(f"/checkout/{payment['id']}/decline").status_code == 303
    assert simulator.payment(payment["id"])["status"] == status
    page = browser.get(f"/checkout/{payment['id']}")
    assert "<form" not in page.text
    assert RETURN_URL in page.text


def test_a_person_declines(simulator: Simulator, api: httpx.Client, browser: httpx.Client) -> None:
    payment = opened(api)
    answer = browser.post(f"/checkout/{payment['id']}/decline")
    assert (answer.status_code, answer.headers["location"]) == (303, RETURN_URL)
    declined = simulator.payment(payment["id"])
    assert (declined["status"], declined["cancellation_details"]["reason"]) == (
        "canceled",
        "general_decline",
    )


def test_the_page_speaks_english_and_russian(simulator: Simulator, browser: httpx.Client) -> None:
    payment = simulator.create(status="pending", amount={"value": "1234567.80", "currency": "RUB"})
    page = f"/checkout/{payment['id']}"

    def text(language: str, query: str = "") -> str:
        return browser.get(page + query, headers={"Accept-Language": language}).text

    assert "Оплатить 1\u202f234\u202f567,80\u00a0₽" in text("ru-RU,ru;q=0.9,en;q=0.8")
    assert '<html lang="ru">' in text("ru")
    assert "Pay ₽1,234,567.80" in text("en-GB,en;q=0.9,ru;q=0.8")
    assert "Pay ₽1,234,567.80" in text("de")
    assert '<html lang="en">' in text("ru", "?lang=en")


def test_the_page_bears_whatever_a_payment_has_become(simulator: Simulator, browser: httpx.Client) -> None:
    payment = simulator.create(status="odd", amount=5, description=["x"])
    assert "not known" in browser.get(f"/checkout/{payment['id']}").text
    assert browser.get("/checkout/unknown").status_code == 404
    answer = browser.post(f"/checkout/{payment['id']}/pay")
    assert answer.headers["location"] == f"/checkout/{payment['id']}"


# --- The control interface -----------------------------------------------------------------------


def test_payments_take_any_shape(simulator: Simulator, api: httpx.Client) -> None:
    payment = simulator.create(
        id="mine", paid="yes", metadata={"n": 1}, remove=["recipient", "amount.currency"]
    )
    assert (payment["status"], payment["paid"], payment["metadata"]) == (
        "succeeded",
        "yes",
        {"n": 1},
    )
    assert payment["amount"] == {"value": "1000.00"}
    assert "recipient" not in payment
    changed = simulator.change("mine", amount=5, id="another", remove=["paid", "no.such.key"])
    assert (changed["amount"], changed["id"]) == (5, "another")
    assert "paid" not in changed
    assert api.get("/payments/mine").json() == changed == simulator.payment("mine")
    assert simulator.pay("mine")["paid"] is True


def test_amounts_of_a_bent_payment_stay_consistent(simulator: Simulator) -> None:
    payment = simulator.create(amount={"value": "200.00", "currency": "USD"})
    assert payment["income_amount"] == {"value": "193.00", "currency": "USD"}
    assert simulator.refund(payment["id"], "50.00")["amount"]["value"] == "50.00"
    assert simulator.refund(payment["id"])["amount"] == {"value": "150.00", "currency": "USD"}
    assert simulator.payment(payment["id"])["refunded_amount"]["value"] == "200.00"


def test_misuse_of_the_control_interface_is_told(simulator: Simulator, browser: httpx.Client) -> None:
    payment_id = simulator.create(status="pending")["id"]
    for misuse in (
        lambda: simulator.refund(payment_id),
        lambda: simulator.fault(hangs=True),
        lambda: simulator.fault(hang=1),
        lambda: simulator.fault(times=0, status=500),
        lambda: simulator.fault(status=500, sequence=[{}]),
        lambda: simulator.fault(sequence=[5]),
        lambda: simulator.deliver(payment_id, "refund.succeeded"),
        lambda: simulator.create(remove=[1]),  # type: ignore[list-item]
        lambda: simulator.webhooks(mode="maybe"),  # type: ignore[arg-type]
    ):
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            misuse()
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        simulator.pay("unknown")
    for path, body in (
        ("payments", "["),
        ("payments", "[]"),
        (f"payments/{payment_id}/refund", '{"amount": 5}'),
        (f"webhooks/{payment_id}", "{}"),
    ):
        assert browser.post(f"/_control/{path}", content=body).status_code == 400
    assert browser.put("/_control/webhooks", json={"speed": 1}).status_code == 400


def test_requests_are_noted_as_on_the_wire(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create()["id"]
    before = time.time()
    api.get(f"/payments/{payment_id}?a=%31")
    api.get(f"/payments/{payment_id}", auth=("x", "y"))
    api.post(f"/payments/{payment_id}/capture", headers=key())
    api.get("/payments/%2e%2e")
    api.get("/payments?limit=1")
    simulator.payment(payment_id)

    seen = simulator.requests(payment_id)
    assert [(s.method, s.target, s.status) for s in seen] == [
        ("GET", f"/v3/payments/{payment_id}?a=%31", 200),
        ("GET", f"/v3/payments/{payment_id}", 401),
        ("POST", f"/v3/payments/{payment_id}/capture", 400),
    ]
    assert before <= seen[0].epoch <= time.time()
    assert seen[0].monotonic <= seen[1].monotonic
    assert simulator.questions(payment_id) == 2
    assert simulator.questions("..") == 1
    others = [(s.target, s.payment_id) for s in simulator.requests() if s not in seen]
    assert others == [("/v3/payments/%2e%2e", ".."), ("/v3/payments?limit=1", None)]
    simulator.forget_requests()
    assert simulator.requests() == []


def test_reset_forgets_everything(simulator: Simulator, api: httpx.Client) -> None:
    headers = key()
    api.post("/payments", json=order(), headers=headers)
    simulator.create(id="known")
    simulator.fault(status=500)
    simulator.webhooks(url="http://127.0.0.1:9/", mode="on")
    simulator.deliver("known", "payment.succeeded")
    simulator.reset()
    assert (simulator.payments(), simulator.requests(), simulator.deliveries()) == ([], [], [])
    assert api.get("/payments").status_code == 200
    assert simulator.webhooks()["mode"] == "off"
    assert api.post("/payments", json=order(description="New"), headers=headers).is_success


# --- Faults --------------------------------------------------------------------------------------


def test_a_fault_replaces_the_answer(simulator: Simulator, api: httpx.Client) -> None:
    payment = simulator.create()
    path = f"/payments/{payment['id']}"

    simulator.fault(status=429, body={"retry_after": 1800}, headers={"Retry-After": "2"})
    answer = api.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert answer.json() == {"retry_after": 1800}
    simulator.fault(status=500)
    assert api.get(path).json()["code"] == "internal_server_error"
    assert api.get("/payments").status_code == 500
    simulator.fault(status=200, body="")
    assert api.get(path).content == b""
    simulator.fault(status=200, body=None)
    assert api.get(path).text == "null"
    simulator.fault(raw="<h1>ой</h1>", content_type="text/html; charset=utf-8")
    answer = api.get(path)
    assert (answer.status_code, answer.text) == (200, "<h1>ой</h1>")
    simulator.fault(redirect="http://127.0.0.1:9/elsewhere")
    answer = api.get(path)
    assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:9/elsewhere")

    simulator.clear_faults()
    assert api.get(path).json() == payment
    assert simulator.questions(payment["id"]) == 7


def test_a_fault_can_be_for_one_payment_and_for_some_times(simulator: Simulator, api: httpx.Client) -> None:
    one, other = simulator.create()["id"], simulator.create()["id"]
    simulator.fault(payment_id=one, times=2, status=500)

    def statuses(payment_id: str) -> list[int]:
        return [api.get(f"/payments/{payment_id}").status_code for _ in range(3)]

    assert statuses(other) == [200, 200, 200]
    assert statuses(one) == [500, 500, 200]
    simulator.fault(payment_id=one, sequence=[{"status": 500}, {}, {"status": 429}])
    assert [*statuses(one), *statuses(one)] == [500, 200, 429, 200, 200, 200]
    simulator.fault(sequence=[{"status": 500}, {}], times=2)
    assert [*statuses(one), *statuses(other)] == [500, 200, 500, 200, 200, 200]
    simulator.fault(status=500)
    simulator.fault(payment_id=one, times=1, status=403)
    assert statuses(one) == [403, 500, 500]


def test_faults_are_for_questions_about_payments_only(simulator: Simulator, api: httpx.Client) -> None:
    simulator.fault(status=500)
    payment = opened(api)
    assert api.get(f"/refunds/{payment['id']}").status_code == 404
    assert api.get(f"/payments/{payment['id']}").status_code == 500


def test_a_late_answer_tells_what_was_true_when_asked(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create(status="pending")["id"]
    simulator.fault(payment_id=payment_id, delay_seconds=0.4, times=1)
    answers: list[Document] = []
    started = time.monotonic()
    asking = threading.Thread(target=lambda: answers.append(api.get(f"/payments/{payment_id}").json()))
    asking.start()
    wait_until(lambda: simulator.questions(payment_id) == 1)
    simulator.pay(payment_id)
    asking.join()
    assert time.monotonic() - started >= 0.4
    assert answers[0]["status"] == "pending"
    assert api.get(f"/payments/{payment_id}").json()["status"] == "succeeded"


def test_a_hanging_answer_never_comes(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create()["id"]
    simulator.fault(hang=True)
    with pytest.raises(httpx.ReadTimeout):
        api.get(f"/payments/{payment_id}", timeout=0.2)
    wait_until(lambda: simulator.questions(payment_id) == 1)
    wait_until(lambda: simulator.in_flight().now == 0)
    assert simulator.in_flight().peak == 1
    assert [seen.status for seen in simulator.requests(payment_id)] == [None]


def test_a_connection_can_be_cut(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create()["id"]
    simulator.fault(reset=True)
    with pytest.raises(httpx.ReadError):
        api.get(f"/payments/{payment_id}")
    simulator.fault(truncate=10)
    with pytest.raises(httpx.RemoteProtocolError, match="received 10 bytes"):
        api.get(f"/payments/{payment_id}")
    simulator.clear_faults()
    assert api.get(f"/payments/{payment_id}").status_code == 200
    wait_until(lambda: simulator.in_flight().now == 0)


def test_an_answer_can_drip(simulator: Simulator, api: httpx.Client) -> None:
    payment_id = simulator.create()["id"]
    simulator.fault(drip_seconds_per_byte=0.02, status=200, body={"a": 1})
    started = time.monotonic()
    with api.stream("GET", f"/payments/{payment_id}") as answer:
        pieces = list(answer.iter_raw())
    assert b"".join(pieces) == b'{"a": 1}'
    assert len(pieces) > 1
    assert time.monotonic() - started >= 0.02 * len(b'{"a": 1}')


async def test_three_hundred_ask_at_once(simulator: Simulator) -> None:
    path = f"{simulator.api_url}/payments/{simulator.create()['id']}"
    auth = httpx.BasicAuth(simulator.shop_id, simulator.secret_key)
    simulator.fault(hang=True)
    async with httpx.AsyncClient(
        auth=auth, trust_env=False, timeout=60, limits=httpx.Limits(max_connections=300)
    ) as client:
        hanging = [asyncio.create_task(client.get(path)) for _ in range(300)]
        await asyncio.to_thread(wait_until, lambda: simulator.in_flight().now == 300)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        simulator.clear_faults()
        answers = await asyncio.gather(*(client.get(path) for _ in range(300)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.in_flight().peak == 300


# --- Notifications -------------------------------------------------------------------------------


def test_every_change_of_state_is_told(simulator: Simulator, api: httpx.Client) -> None:
    with Receiver() as receiver:
        simulator.webhooks(url=receiver.url, mode="on")
        payment_id = opened(api)["id"]
        held = simulator.hold(payment_id)
        notification = receiver.next()
        assert notification == {
            "type": "notification",
            "event": "payment.waiting_for_capture",
            "object": held,
        }
        assert yookassax.webhooks.parse(notification).object.id == payment_id
        api.post(f"/payments/{payment_id}/capture", headers=key())
        assert receiver.next()["event"] == "payment.succeeded"
        refund = simulator.refund(payment_id, "1.00")
        assert receiver.next() == {
            "type": "notification",
            "event": "refund.succeeded",
            "object": refund,
        }
        simulator.decline(simulator.create(status="pending")["id"])
        assert receiver.next()["event"] == "payment.canceled"
        wait_until(lambda: len(simulator.deliveries(payment_id)) == 3)
        assert simulator.deliveries(payment_id)[-1].event == "refund.succeeded"


def test_without_an_address_nothing_is_told(simulator: Simulator) -> None:
    payment_id = simulator.create(status="pending")["id"]
    assert simulator.webhooks()["mode"] == "off"
    simulator.pay(payment_id)
    assert simulator.deliver(payment_id, "payment.succeeded") is None
    assert [(a.status, a.error) for a in simulator.deliveries()] == [(None, "UnsupportedProtocol")]


def test_an_address_on_the_command_line_switches_them_on() -> None:
    with Receiver() as receiver, running_simulator(webhook_url=receiver.url) as simulator:
        simulator.pay(simulator.create(status="pending")["id"])
        assert receiver.next()["event"] == "payment.succeeded"


def test_off_loses_what_is_due_and_force_sends_it(simulator: Simulator) -> None:
    with Receiver() as receiver:
        simulator.webhooks(url=receiver.url, mode="on", delay_seconds=60)
        payment_id = simulator.create(status="pending")["id"]
        simulator.pay(payment_id)
        assert simulator.webhooks()["due"] == 1
        simulator.webhooks(mode="off")
        wait_until(lambda: simulator.webhooks(mode="on", delay_seconds=0)["due"] == 0)
        assert simulator.deliveries() == []

        simulator.webhooks(mode="off")
        simulator.refund(payment_id)
        assert simulator.deliver(payment_id, "payment.waiting_for_capture") == 200
        late = receiver.next()
        assert (late["event"], late["object"]["status"]) == (
            "payment.waiting_for_capture",
            "waiting_for_capture",
        )
        assert simulator.payment(payment_id)["status"] == "succeeded"
        assert simulator.deliver(payment_id, "refund.succeeded") == 200
        assert receiver.next()["object"]["payment_id"] == payment_id


def test_notifications_can_be_late(simulator: Simulator) -> None:
    with Receiver() as receiver:
        simulator.webhooks(url=receiver.url, mode="on", delay_seconds=0.3)
        payment_id = simulator.create(status="pending")["id"]
        started = time.monotonic()
        simulator.pay(payment_id)
        at, _ = receiver.notifications.get(timeout=PATIENCE)
        assert at - started >= 0.3


def test_anything_but_200_is_redelivered_on_schedule(simulator: Simulator) -> None:
    factor = 0.005
    with Receiver(500, 201, 404) as receiver:
        simulator.webhooks(url=receiver.url, mode="on", redelivery_factor=factor)
        payment_id = simulator.create(status="pending")["id"]
        simulator.pay(payment_id)
        bodies = [receiver.next() for _ in range(4)]
        assert bodies == [bodies[0]] * 4
        wait_until(lambda: simulator.webhooks()["due"] == 0)
    first, *others = simulator.deliveries(payment_id)
    assert [attempt.status for attempt in (first, *others)] == [500, 201, 404, 200]
    for attempt, seconds in zip(others, (10, 42, 84), strict=True):
        assert attempt.epoch - first.epoch >= seconds * factor - 0.02


def test_an_unreachable_receiver_is_tried_again(simulator: Simulator) -> None:
    simulator.webhooks(url="http://127.0.0.1:9/", mode="on", redelivery_factor=0.0001)
    payment_id = simulator.create(status="pending")["id"]
    simulator.pay(payment_id)
    wait_until(lambda: len(simulator.deliveries(payment_id)) >= 3)
    attempt: Attempt = simulator.deliveries(payment_id)[0]
    assert (attempt.status, attempt.error) == (None, "ConnectError")


# --- The process ---------------------------------------------------------------------------------


def simulator_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.yookassa", *options]


def test_it_ends_cleanly_even_while_an_answer_hangs() -> None:
    server = ServerProcess(simulator_command())
    url = server.wait_until_started()
    with Simulator(url) as simulator:
        simulator.fault(hang=True)
        asking = threading.Thread(target=_ask_in_vain, args=(f"{url}/v3/payments/x",))
        asking.start()
        wait_until(lambda: simulator.in_flight().now == 1)
        assert server.stop() == 0
        asking.join()
    assert server.output == f"listening on {url}\n"


def _ask_in_vain(url: str) -> None:
    with local_client(timeout=PATIENCE) as client, pytest.raises(httpx.TransportError):
        client.get(url)


def test_a_server_that_does_not_start_is_quoted() -> None:
    with (
        pytest.raises(RuntimeError, match="unrecognized arguments: --bogus"),
        running_server(simulator_command("--bogus")),
    ):
        pytest.fail("it started")


def use_a_dying_server(failure: Exception | None = None) -> None:
    with running_server(simulator_command()) as (_url, server):
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.returncode is not None)
        if failure is not None:
            raise failure


def test_a_server_that_dies_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="The server died"):
        use_a_dying_server()


def test_a_failing_test_is_told_that_its_server_died() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        use_a_dying_server(ZeroDivisionError())
    assert caught.value.__notes__[0].startswith("The server died")


def test_other_servers_can_be_started_too() -> None:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with running_server(command, started=r"\((http://\S+?)/\)") as (url, server):
        assert answers(url)
        assert "Serving HTTP" in server.output


async def test_it_can_be_used_in_process() -> None:
    transport = httpx.ASGITransport(create_app(shop_id="7", secret_key="test_7"))
    async with httpx.AsyncClient(transport=transport, base_url="http://in.process") as client:
        payment = (await client.post("/_control/payments", json={"status": "pending"})).json()
        answer = await client.get(f"/v3/payments/{payment['id']}", auth=("7", "test_7"))
        assert answer.json() == payment
        await client.put("/_control/faults", json={"delay_seconds": 0.01, "status": 500})
        answer = await client.get(f"/v3/payments/{payment['id']}", auth=("7", "test_7"))
        assert answer.status_code == 500
