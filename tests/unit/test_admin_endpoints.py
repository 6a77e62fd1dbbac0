"""The administrators' endpoints: statuses, lines, headers, and what the OpenAPI document says of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from pytest_mock import MockerFixture
from starlette.requests import ClientDisconnect

from openwebui_billing_reconcile.errors import (
    AuditRunningError,
    InvalidProviderResponseError,
    NotConfiguredError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    ReleaseRefusedError,
    StillBeingCheckedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    UnknownPaymentError,
    WalletBusyError,
)
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.findings import Finding, FindingClass
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import Money, ReleaseResult, parse_time
from openwebui_billing_reconcile.operate.audit import Auditor, AuditResult, Progress
from openwebui_billing_reconcile.operate.period import Period
from openwebui_billing_reconcile.operate.report import PATHS
from openwebui_billing_reconcile.operate.sweep import Pass
from openwebui_billing_reconcile.topup.release import MAX_NOTE, Releaser
from openwebui_billing_reconcile.web import admin
from openwebui_billing_reconcile.web.admin import NDJSON, make_router
from openwebui_billing_reconcile.web.admin_models import AuditResponse, ReleaseResponse, ReportResponse
from openwebui_billing_reconcile.web.wire import PATH

from .request_bodies import HOSTILE_IDS, NOT_BODIES, NOT_IDS

AUDIT, RELEASE, REPORT = f"{PATH}/audit", f"{PATH}/release", f"{PATH}/report"
PERIOD = Period(date(2026, 3, 9), date(2026, 3, 12))
FOUND = Finding(
    FindingClass.HELD, "pay-1", "me", None, Money(5, "RUB"), "refunded", "2026-03-10T09:00:00.000Z", True
)
RESULT = AuditResult(PERIOD, payments=3, entries=2, others=1, findings=[FOUND])
FOUND_JSON = {
    "class": "held",
    "payment_id": "pay-1",
    "user_id": "me",
    "wallet_id": None,
    "amount_kopeks": 5,
    "currency": "RUB",
    "reason": "refunded",
    "captured_at": "2026-03-10T09:00:00.000Z",
    "releasable": True,
}
RELEASED = ReleaseResult("pay-1", "succeeded", "succeeded", True, 5, "RUB", "me", "w1")
ORDER = {"payment_id": " pay-1 ", "reason": "refunded", "note": "seen", "confirm": True}
ZERO = {"count": 0, "kopeks": 0}
REPORTED = {
    "since": "2026-03-10",
    "until": "2026-03-11",
    "totals": dict.fromkeys(PATHS, ZERO),
    "days": [{"date": "2026-03-10", **dict.fromkeys(PATHS, ZERO)}],
    "open": [{"older_than": 3600, "count": 1}],
    "delay_seconds": {"median": None, "p95": 1.5},
    "last_pass": None,
    "mode": "credit",
    "version": "1.0",
    "plugins": ["builtin"],
}
UNEXPECTED = {"detail": "Payment system temporarily unavailable"}

Step = Progress | AuditResult | Exception


class Steps:
    """An auditor that says what the test wants said."""

    def __init__(self) -> None:
        self.steps: list[Step] = [Progress(1, 0), Progress(3, 2), RESULT]
        self.periods: list[Period] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.has_ended = False

    async def run(self, period: Period) -> AsyncGenerator[Progress | AuditResult]:
        self.periods.append(period)
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                yield step
                await self.may_go_on.wait()
        finally:
            self.has_ended = True


class Console:
    """The endpoints in this process, for an administrator."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.host = mocker.create_autospec(OpenWebUIHost, instance=True)
        self.host.default_currency = "RUB"
        self.host.get_admin_user = self._admin
        self.release = mocker.AsyncMock()
        self.report = mocker.AsyncMock()
        auditor = mocker.create_autospec(Auditor, instance=True)
        auditor.run = lambda period: self.audits.run(period)
        releaser = mocker.create_autospec(Releaser, instance=True)
        releaser.release = self.release
        self.app = FastAPI()
        self.app.include_router(make_router(self.host, auditor, releaser, self.report))

    def start_anew(self) -> None:
        """Forget what a test has asked and arranged."""
        self.host.wallet_enabled = True
        self.host.provider_error_detail.return_value = None
        self.refusal: Exception | None = None
        self.audits = Steps()
        for stand_in, answer in ((self.release, RELEASED), (self.report, REPORTED)):
            stand_in.reset_mock(side_effect=True)
            stand_in.return_value = answer

    def _admin(self) -> object:
        if self.refusal:
            raise self.refusal
        return SimpleNamespace(id="admin")

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; no answer may be kept by a cache."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            response = await http.request(method, path, **options)
        assert response.headers["Cache-Control"] == "no-store"
        return response

    async def get(self, path: str, accept: str = "application/json", **days: str) -> httpx.Response:
        return await self.request("GET", path, params=days, headers={"Accept": accept})

    async def post(self, **changes: Any) -> httpx.Response:
        return await self.request("POST", RELEASE, json=ORDER | changes)

    async def lines(self) -> list[Any]:
        """Return the lines of a streamed audit."""
        response = await self.get(AUDIT, NDJSON)
        assert response.status_code == 200
        assert response.headers["Content-Type"].partition(";")[0] == NDJSON
        assert response.text.endswith("\n")
        return [json.loads(line) for line in response.text.splitlines()]


@pytest.fixture(scope="module")
def shared_console(module_mocker: MockerFixture) -> Console:
    """Return one for all tests here: making it takes longer than most of them."""
    return Console(module_mocker)


@pytest.fixture
def console(shared_console: Console) -> Console:
    """Return the endpoints, not called yet."""
    shared_console.start_anew()
    return shared_console


# --- Who may ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", AUDIT), ("POST", RELEASE), ("GET", REPORT)])
@pytest.mark.parametrize("status", [401, 403])
async def test_the_host_decides_who_is_an_administrator(
    console: Console, method: str, path: str, status: int
) -> None:
    console.refusal = HTTPException(status, "theirs", headers={"X-Theirs": "1"})
    response = await console.request(method, path, content=b"{odd", params={"days": "odd", "since": "odd"})
    assert (response.status_code, response.json()) == (status, {"detail": "theirs"})
    assert response.headers["X-Theirs"] == "1"
    assert not console.audits.periods
    console.release.assert_not_called()
    console.report.assert_not_called()


# --- Audit -----------------------------------------------------------------------------------------------


async def test_an_audit_is_one_object(console: Console) -> None:
    response = await console.get(AUDIT, since="2026-03-09", until="2026-03-12")
    assert response.status_code == 200
    assert response.json() == {**RESULT.summary("RUB"), "findings": [FOUND_JSON]}
    AuditResponse.model_validate(response.json(), by_alias=True)
    assert console.audits.periods == [PERIOD]
    assert console.audits.has_ended


async def test_by_default_it_is_of_the_last_thirty_days(console: Console, mocker: MockerFixture) -> None:
    now = parse_time("2026-03-10T21:00:00Z") or 0.0
    mocker.patch.object(admin, "time").time.return_value = now
    await console.get(AUDIT)
    await console.get(AUDIT, since="", until="")
    assert console.audits.periods == [Period(date(2026, 2, 10), date(2026, 3, 12))] * 2


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
@pytest.mark.parametrize(
    "days",
    [
        {"since": "odd"},
        {"until": "2026-02-30"},
        {"until": "0001-01-03"},
        {"since": "2026-03-12", "until": "2026-03-12"},
        {"since": "2026-01-01", "until": "2026-12-31"},
        {"days": "7"},
    ],
)
async def test_bad_days_are_400(console: Console, accept: str, days: dict[str, str]) -> None:
    response = await console.get(AUDIT, accept, **days)
    assert response.status_code == 400
    assert response.json().keys() == {"detail"}
    assert not console.audits.periods


async def test_lines_are_progress_then_findings_then_the_rest(console: Console) -> None:
    assert await console.lines() == [
        {"progress": {"payments": 1, "entries": 0}},
        {"progress": {"payments": 3, "entries": 2}},
        {"finding": FOUND_JSON},
        RESULT.summary("RUB"),
    ]
    assert console.audits.has_ended


async def test_a_line_holds_no_line_feed(console: Console) -> None:
    odd = Finding(FindingClass.HELD, "a\nb\u2028c", "ж", None, None)
    console.audits.steps = [Progress(1, 1), AuditResult(PERIOD, findings=[odd])]
    response = await console.get(AUDIT, NDJSON)
    _, line, _ = response.text.removesuffix("\n").split("\n")
    found = json.loads(line)["finding"]
    assert (found["payment_id"], found["user_id"]) == ("a\nb\u2028c", "ж")


ERRORS: list[tuple[Exception, int, str | None]] = [
    (NotConfiguredError(), 503, None),
    (ProviderRejectedError("rejected"), 502, None),
    (InvalidProviderResponseError("odd"), 502, None),
    (ProviderUnavailableError(), 503, "5"),
    (ProviderThrottledError(retry_after=7), 503, "7"),
    (TemporarilyUnavailableError("later", reason="database_unavailable"), 503, "5"),
    (UnexpectedError(), 503, None),
]


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
@pytest.mark.parametrize(("error", "status", "retry_after"), [*ERRORS, (AuditRunningError(), 409, "30")])
async def test_what_cannot_begin_is_an_ordinary_error(
    console: Console, accept: str, error: Exception, status: int, retry_after: str | None
) -> None:
    console.audits.steps = [error]
    response = await console.get(AUDIT, accept)
    assert (response.status_code, response.json()) == (status, {"detail": str(error)})
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize(("error", "status", "retry_after"), ERRORS)
async def test_so_is_what_fails_later_where_one_object_is_asked_for(
    console: Console, error: Exception, status: int, retry_after: str | None
) -> None:
    console.audits.steps = [Progress(1, 0), error]
    response = await console.get(AUDIT)
    assert (response.status_code, response.json()) == (status, {"detail": str(error)})
    assert response.headers.get("Retry-After") == retry_after
    assert console.audits.has_ended


@pytest.mark.parametrize(("error", "status", "retry_after"), ERRORS)
async def test_where_lines_are_asked_for_it_is_the_last_line(
    console: Console, error: Exception, status: int, retry_after: str | None
) -> None:
    console.audits.steps = [Progress(1, 0), error]
    assert await console.lines() == [
        {"progress": {"payments": 1, "entries": 0}},
        {"error": {"detail": str(error)}},
    ]
    assert console.audits.has_ended


async def test_a_provider_that_rejects_is_named_in_the_hosts_words(console: Console) -> None:
    console.host.provider_error_detail.return_value = "Payment provider credentials are invalid"
    console.audits.steps = [Progress(1, 0), ProviderRejectedError("secret")]
    last = (await console.lines())[-1]
    assert last == {"error": {"detail": "Payment provider credentials are invalid"}}


async def test_what_nobody_expected_is_try_later_without_its_text(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    error = KeyError("secret")
    failures: list[list[Step]] = [[error], [Progress(1, 0), error]]
    for steps in failures:
        console.audits.steps = steps
        response = await console.get(AUDIT)
        assert (response.status_code, response.json()) == (503, UNEXPECTED)
    assert (await console.lines())[-1] == {"error": UNEXPECTED}
    assert caplog.messages == ["Reconciling a top-up failed: KeyError"] * 3


@pytest.mark.parametrize("asgi", ["2.0", "2.4"])
async def test_an_audit_ends_when_its_reader_goes_away(console: Console, asgi: str) -> None:
    console.audits.may_go_on.clear()
    has_read = asyncio.Event()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": asgi},
        "method": "GET",
        "path": AUDIT,
        "raw_path": AUDIT.encode(),
        "query_string": b"",
        "headers": [(b"accept", NDJSON.encode())],
    }

    async def receive() -> dict[str, Any]:
        await has_read.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            has_read.set()
            console.audits.may_go_on.set()
            if asgi == "2.4":
                raise OSError
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        with suppress(ClientDisconnect):
            await console.app(scope, receive, send)
    assert console.audits.has_ended


# --- Release ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_release_is_made_in_the_administrators_name(console: Console, confirm: bool) -> None:
    response = await console.post(confirm=confirm)
    assert response.status_code == 200
    assert response.json() == {
        "payment_id": "pay-1",
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
        "amount_kopeks": 5,
        "currency": "RUB",
        "user_id": "me",
        "wallet_id": "w1",
    }
    ReleaseResponse.model_validate(response.json())
    ((order,), options) = console.release.await_args
    assert (order.payment_id, order.reason, order.note) == ("pay-1", HoldReason.REFUNDED, "seen")
    assert order.administrator == "admin"
    assert options == {"confirm": confirm}


async def assert_400(console: Console, response: httpx.Response) -> None:
    assert response.status_code == 400
    assert response.json().keys() == {"detail"}
    console.release.assert_not_called()


async def test_a_bad_id_is_400(console: Console) -> None:
    headers = {"Content-Type": "application/json"}
    for payment_id in (HOSTILE_IDS | NOT_IDS).values():
        content = json.dumps(ORDER | {"payment_id": payment_id})
        await assert_400(console, await console.request("POST", RELEASE, content=content, headers=headers))


async def test_a_bad_body_is_400(console: Console) -> None:
    headers = {"Content-Type": "application/json"}
    for content in NOT_BODIES.values():
        await assert_400(console, await console.request("POST", RELEASE, content=content, headers=headers))


async def test_what_another_sites_form_can_send_is_400(console: Console) -> None:
    headers = {"Content-Type": "text/plain"}
    response = await console.request("POST", RELEASE, content=json.dumps(ORDER), headers=headers)
    await assert_400(console, response)


UNCLEAR: dict[str, tuple[object, ...]] = {
    "confirm": (None, 0, 1, "true", "false", "", [], {}),
    "reason": (None, "", "odd", "Refunded", 1, []),
    "note": (None, "", " ", 1, [], "x" * (MAX_NOTE + 1)),
}


@pytest.mark.parametrize("name", UNCLEAR)
async def test_what_is_not_said_clearly_is_400(console: Console, name: str) -> None:
    for value in UNCLEAR[name]:
        await assert_400(console, await console.post(**{name: value}))


@pytest.mark.parametrize("absent", ORDER)
async def test_what_is_not_said_at_all_is_400(console: Console, absent: str) -> None:
    body = {name: value for name, value in ORDER.items() if name != absent}
    await assert_400(console, await console.request("POST", RELEASE, json=body))


@pytest.mark.parametrize("reason", ["already_credited", "not_held", "observing", "refunded"])
async def test_a_refusal_is_409_with_its_reason(console: Console, reason: str) -> None:
    console.release.side_effect = ReleaseRefusedError("in words", reason=reason)
    response = await console.post()
    assert (response.status_code, response.json()) == (409, {"detail": "in words", "reason": reason})


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        *ERRORS,
        (UnknownPaymentError(), 404, None),
        (WalletBusyError(), 503, "5"),
        (StillBeingCheckedError(), 503, "5"),
    ],
)
async def test_a_release_that_fails_says_how(
    console: Console, error: Exception, status: int, retry_after: str | None
) -> None:
    console.release.side_effect = error
    response = await console.post()
    assert (response.status_code, response.json()) == (status, {"detail": str(error)})
    assert response.headers.get("Retry-After") == retry_after


async def test_without_a_wallet_nothing_is_released(console: Console) -> None:
    console.host.wallet_enabled = False
    response = await console.request("POST", RELEASE, content=b"{odd")
    assert (response.status_code, response.json()) == (404, {"detail": "Billing wallet is disabled"})
    console.release.assert_not_called()
    assert (await console.get(AUDIT)).status_code == 200
    assert (await console.get(REPORT)).status_code == 200


# --- Report ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "since", "until"),
    [
        ({}, date(2026, 2, 10), date(2026, 3, 12)),
        ({"days": "1"}, date(2026, 3, 11), date(2026, 3, 12)),
        ({"days": "92"}, date(2025, 12, 10), date(2026, 3, 12)),
        ({"since": "2026-02-01", "until": "2026-03-01"}, date(2026, 2, 1), date(2026, 3, 1)),
        ({"since": "2026-02-01"}, date(2026, 2, 1), date(2026, 3, 12)),
    ],
)
async def test_a_report_is_of_the_days_asked_for(
    console: Console, mocker: MockerFixture, asked: dict[str, str], since: date, until: date
) -> None:
    mocker.patch.object(admin, "time").time.return_value = parse_time("2026-03-10T21:00:00Z")
    response = await console.get(REPORT, **asked)
    assert (response.status_code, response.json()) == (200, REPORTED)
    console.report.assert_awaited_once_with(Period(since, until))


async def test_a_report_tells_all_of_the_last_pass(console: Console) -> None:
    last_pass = asdict(Pass(1.0, listed=2))
    console.report.return_value = REPORTED | {"last_pass": last_pass}
    response = await console.get(REPORT)
    assert response.json()["last_pass"] == last_pass
    ReportResponse.model_validate(response.json(), by_alias=True)


async def test_a_bad_number_of_days_is_400(console: Console) -> None:
    for days in ("", "0", "93", "-1", "+1", "1.0", "1e1", " 1", "odd", "1000", "9" * 5000, "\u0661", "²"):
        response = await console.get(REPORT, days=days)
        expected = {"detail": "days must be a number from 1 to 92"}
        assert (response.status_code, response.json()) == (400, expected)
    for odd in (
        {"since": "odd"},
        {"days": "1", "since": "2026-03-01"},
        {"days": "1", "until": ""},
        {"x": "1"},
    ):
        assert (await console.get(REPORT, **odd)).status_code == 400
    console.report.assert_not_called()


async def test_a_report_that_fails_says_how(console: Console) -> None:
    console.report.side_effect = TemporarilyUnavailableError("later", reason="database_unavailable")
    response = await console.get(REPORT)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    console.report.side_effect = KeyError("secret")
    response = await console.get(REPORT)
    assert (response.status_code, response.json()) == (503, UNEXPECTED)


# --- What is documented ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        (AUDIT, "get", {"200", "400", "401", "403", "409", "502", "503"}),
        (RELEASE, "post", {"200", "400", "401", "403", "404", "409", "502", "503"}),
        (REPORT, "get", {"200", "400", "401", "403", "503"}),
    ],
)
async def test_each_status_is_documented_and_422_is_none(
    console: Console, path: str, method: str, statuses: set[str]
) -> None:
    assert console.app.openapi()["paths"][path][method]["responses"].keys() == statuses


async def test_parameters_and_bodies_are_documented(console: Console) -> None:
    paths = console.app.openapi()["paths"]
    names = [[p["name"] for p in paths[path]["get"]["parameters"]] for path in (AUDIT, REPORT)]
    assert names == [["since", "until"], ["days", "since", "until"]]
    audit = paths[AUDIT]["get"]["responses"]
    assert audit["200"]["content"].keys() == {"application/json", NDJSON}
    assert "Retry-After" in audit["409"]["headers"]
    body = paths[RELEASE]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == ORDER.keys() - {"note"}  # a preview needs none
    assert "refunded" in body["properties"]["reason"]["enum"]
    assert "other_shop" not in body["properties"]["reason"]["enum"]
