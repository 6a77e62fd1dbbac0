"""Metrics: what a host with OpenTelemetry reads, and that nothing happens anywhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
    ReconcileError,
)
from openwebui_billing_reconcile.hookspecs import PROJECT, TopupEvent, Way
from openwebui_billing_reconcile.operate import metrics
from openwebui_billing_reconcile.provider.client import ProviderClient
from tests.unit.account import Account, payment
from tests.unit.desk import until

API = "opentelemetry.metrics"
Point = tuple[Any, dict[str, Any]]


class Readings:
    """What the SDK has recorded."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def _metrics(self) -> Iterator[Any]:
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == PROJECT
                yield from scope.metrics

    def __call__(self, name: str) -> list[Point]:
        """Return value, or number and sum, and attributes of each point."""
        found = [metric for metric in self._metrics() if metric.name == name]
        return [_point(point) for metric in found for point in metric.data.data_points]

    def units(self) -> dict[str, str]:
        return {metric.name: metric.unit for metric in self._metrics()}

    def as_text(self) -> str:
        data = self.reader.get_metrics_data()
        return data.to_json() if data else ""


def _point(point: Any) -> Point:
    value = point.value if hasattr(point, "value") else (point.count, point.sum)
    return value, dict(point.attributes)


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """Leave no instrument of one test to the next."""
    caches = (metrics._instrument, metrics._meter, metrics._log_once)
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def readings(mocker: MockerFixture) -> Readings:
    """Return a host that measures."""
    readings = Readings()
    api = ModuleType(API)
    api.get_meter = readings.provider.get_meter  # type: ignore[attr-defined]
    mocker.patch.dict(sys.modules, {API: api})
    return readings


def event(outcome: Any, **changes: Any) -> TopupEvent:
    fields: dict[str, Any] = {
        "payment_id": "pay-secret",
        "user_id": "user-secret",
        "wallet_id": "wallet-secret",
        "way": Way.SWEEP,
        "at": 1000.0,
    }
    return TopupEvent(outcome, **fields | changes)


# --- Outcomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", Way)
def test_credits_are_counted_by_the_way_they_came(readings: Readings, way: Way) -> None:
    for _ in range(2):
        metrics.topup_outcome(event("credited", way=way))
    assert readings("billing.topup.credited") == [(2, {"path": way.value})]


def test_holds_are_counted_by_their_reason(readings: Readings) -> None:
    for reason in ("refunded", "other_shop", "refunded", None):
        metrics.topup_outcome(event("held", reason=reason))
    assert readings("billing.topup.held") == [
        (2, {"reason": "refunded"}),
        (1, {"reason": "other_shop"}),
        (1, {"reason": ""}),
    ]
    assert readings("billing.topup.credited") == []


def test_how_late_a_credit_came_is_measured(readings: Readings) -> None:
    for captured_at in (940.0, 1000.5, None):
        metrics.topup_outcome(event("credited", captured_at=captured_at))
    assert readings("billing.topup.credit.delay") == [((2, 60.0), {})]


@pytest.mark.parametrize("outcome", ["canceled", "would_credit", "would_cancel"])
def test_other_outcomes_are_not_counted(readings: Readings, outcome: str) -> None:
    metrics.topup_outcome(event(outcome, captured_at=1.0))
    assert readings.units() == {}


def test_the_end_of_the_last_whole_pass_is_told(readings: Readings) -> None:
    for at in (1000.0, 2000.5):
        metrics.set_last_success(at)
    assert readings("billing.topup.sweep.last_success") == [(2000.5, {})]


def measure_all() -> None:
    metrics.topup_outcome(event("credited", captured_at=940.0))
    metrics.topup_outcome(event("held", reason="refunded"))
    metrics.count_query("payment", "answered")
    metrics.set_last_success(1.0)


def test_every_metric_has_its_unit(readings: Readings) -> None:
    measure_all()
    assert readings.units() == {
        "billing.topup.credited": "1",
        "billing.topup.held": "1",
        "billing.topup.provider.requests": "1",
        "billing.topup.credit.delay": "s",
        "billing.topup.sweep.last_success": "s",
    }


def test_no_metric_names_a_payment_or_a_person(readings: Readings) -> None:
    measure_all()
    assert "secret" not in readings.as_text()
    assert json.loads(readings.as_text())


# --- Queries ---------------------------------------------------------------------------------------------


async def query(failure: Exception | None, *, is_list: bool) -> None:
    account = Account()
    account.add(payment())
    if failure:
        account.errors = {"pay-1": failure, "": failure}
    client = ProviderClient(1.0, on_query=metrics.count_query)
    try:
        await (client.list_captured(account, 0, None) if is_list else client.fetch(account, "pay-1"))
    except ReconcileError:
        assert failure


@pytest.mark.parametrize("kind", ["payment", "list"])
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (None, "answered"),
        (PaymentNotFoundError("secret"), "not_found"),
        (GatewayRejectedError("secret"), "provider_rejected"),
        (GatewayThrottledError("secret", retry_after=1), "provider_throttled"),
        (GatewayError("secret"), "provider_unavailable"),
        (OSError("secret"), "provider_unavailable"),
        (TimeoutError(), "provider_unavailable"),
    ],
)
async def test_queries_are_counted_by_what_came_of_them(
    readings: Readings, kind: str, failure: Exception | None, outcome: str
) -> None:
    await query(failure, is_list=kind == "list")
    assert readings("billing.topup.provider.requests") == [(1, {"kind": kind, "outcome": outcome})]
    assert "secret" not in readings.as_text()


async def test_an_answer_that_cannot_be_read_is_counted_so(readings: Readings) -> None:
    account = Account()
    account.payments = {"pay-1": {"id": "another"}}
    with pytest.raises(ReconcileError):
        await ProviderClient(1.0, on_query=metrics.count_query).fetch(account, "pay-1")
    ((count, attributes),) = readings("billing.topup.provider.requests")
    assert (count, attributes["outcome"]) == (1, "invalid_provider_response")


async def test_a_list_that_nobody_waits_for_any_more_is_not_counted_as_answered(readings: Readings) -> None:
    account = Account()
    account.may_answer.clear()
    client = ProviderClient(60.0, on_query=metrics.count_query)
    listing = asyncio.create_task(client.list_captured(account, 0, None))
    await until(lambda: account.lists)
    listing.cancel()
    await asyncio.wait({listing})
    assert readings("billing.topup.provider.requests") == [(1, {"kind": "list", "outcome": "abandoned"})]


async def test_what_needed_no_query_is_not_counted(readings: Readings) -> None:
    account = Account()
    account.add(payment())
    client = ProviderClient(1.0, on_query=metrics.count_query)
    await asyncio.gather(*(client.fetch(account, "pay-1") for _ in range(5)))
    await client.fetch(account, "pay-1", max_age=60)
    ((count, _),) = readings("billing.topup.provider.requests")
    assert (count, len(account.queries)) == (1, 1)


# --- Without OpenTelemetry, and with one that is broken --------------------------------------------------


def test_nothing_is_imported_for_it(mocker: MockerFixture) -> None:
    mocker.patch.dict(sys.modules)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        del sys.modules[name]
    measure_all()
    assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]


def test_a_host_that_begins_to_measure_later_is_measured(mocker: MockerFixture, request: Any) -> None:
    mocker.patch.dict(sys.modules)
    sys.modules.pop(API, None)
    measure_all()
    readings: Readings = request.getfixturevalue("readings")
    assert readings.units() == {}
    measure_all()
    assert readings("billing.topup.credited") == [(1, {"path": "sweep"})]


def _fails(*_: object, **__: object) -> Any:
    raise RuntimeError("secret")


BROKEN: dict[str, Callable[[], Any]] = {
    "nothing in it": SimpleNamespace,
    "no meter": lambda: SimpleNamespace(get_meter=_fails),
    "no instruments": lambda: SimpleNamespace(get_meter=lambda name: SimpleNamespace()),
    "instruments fail": lambda: SimpleNamespace(
        get_meter=lambda name: SimpleNamespace(create_counter=_fails, create_histogram=_fails)
    ),
    "recording fails": lambda: SimpleNamespace(
        get_meter=lambda name: SimpleNamespace(
            create_counter=lambda *_, **__: SimpleNamespace(add=_fails),
            create_histogram=lambda *_, **__: SimpleNamespace(record=_fails),
            create_gauge=lambda *_, **__: SimpleNamespace(set=_fails),
        )
    ),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_a_meter_that_fails_harms_nobody_and_is_named_once(
    make: Callable[[], Any], mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, PROJECT)
    api: Any = ModuleType(API)
    vars(api).update(vars(make()))
    mocker.patch.dict(sys.modules, {API: api})
    for _ in range(3):
        measure_all()
    assert len(caplog.messages) == 5
    assert all(line.startswith("A metric cannot be recorded: billing.topup.") for line in caplog.messages)
    assert "secret" not in caplog.text


def test_one_metric_that_fails_leaves_the_others_alone(readings: Readings, mocker: MockerFixture) -> None:
    meter = readings.provider.get_meter(PROJECT)
    mocker.patch.object(sys.modules[API], "get_meter", return_value=meter)
    mocker.patch.object(meter, "create_gauge", side_effect=AttributeError)
    measure_all()
    assert len(readings.units()) == 4


async def test_queries_are_answered_although_the_meter_fails(mocker: MockerFixture) -> None:
    mocker.patch.dict(sys.modules, {API: ModuleType(API)})
    await query(None, is_list=False)
