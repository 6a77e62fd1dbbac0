"""The sweep: what it lists, for whom it settles, what it asks about, and when it comes again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    PaymentNotFoundError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import CapturedPage, Host, PaymentGateway, TopupEvent
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.requirements import BILLING_ROUTER, DB, TABLES
from openwebui_billing_reconcile.operate import captured, sweep
from openwebui_billing_reconcile.operate.election import Election
from openwebui_billing_reconcile.operate.sweep import DAY, HOUR, LOOK_BACK, MINUTE, OVERLAP, Sweep
from openwebui_billing_reconcile.settings import MODE, Settings
from openwebui_billing_reconcile.topup import backlog, reconcile
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.resources import Resources
from tests.unit.desk import Desk, until
from tests.unit.stub_host import StubHost

INTERVAL = 120.0


class ListingProvider:
    """A provider that lists: ``items``, two a page. A query by id answers with ``found`` or is not found."""

    account_id: str | None = None
    is_test_shop: bool | None = None

    def __init__(self) -> None:
        self.items: list[object] = []
        self.captured: dict[int, float] = {}
        """When an item was captured; those that are not named here are in every list."""
        self.found: dict[str, dict[str, Any]] = {}
        self.lists: list[tuple[float, str | None]] = []
        self.queries: list[str] = []
        self.events: list[TopupEvent] = []
        self.error: Exception | None = None

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None:
        return self

    def topup_outcome(self, *, event: TopupEvent) -> None:
        self.events.append(event)

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        self.lists.append((since, cursor))
        if self.error:
            raise self.error
        start = int(cursor or 0)
        end = start + 2
        listed = [item for item in self.items if self.captured.get(id(item), since) >= since]
        return CapturedPage(listed[start:end], str(end) if end < len(listed) else None)

    async def get_payment(self, payment_id: str) -> object:
        self.queries.append(payment_id)
        if self.error:
            raise self.error
        if payment_id not in self.found:
            raise PaymentNotFoundError(payment_id)
        return self.found[payment_id]


def payment(payment_id: str, status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    """Return a payment of 1000.00 as the provider tells it."""
    return {
        "id": payment_id,
        "status": status,
        "paid": status == "succeeded",
        "amount": {"value": "1000.00", "currency": "RUB"},
    } | fields


class Sweeping(Desk):
    """The desk with a sweep over it. Time passes only when the test says so."""

    def __init__(self, stub: StubHost, mocker: MockerFixture) -> None:
        super().__init__(stub)
        self.provider: Any = ListingProvider()
        self.host.hook = self.provider
        self.reconciler = Reconciler(Resources(self.host, Settings()))
        self.now = time.time()
        clock = mocker.patch.object(sweep, "time")
        clock.time.side_effect = lambda: self.now
        mocker.patch.object(sweep, "QUERY_INTERVAL", 0.0)
        mocker.patch.object(captured, "PAGE_INTERVAL", 0.0)
        mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
        self.stub = stub
        self.restart()

    def restart(self, environ: Mapping[str, str] | None = None) -> None:
        """Begin anew, as after a restart of the host, with these flags if any are named."""
        if environ is not None:
            self.reconciler = Reconciler(Resources(self.host, Settings.read(environ)))
        self.sweep = Sweep(self.host, self.reconciler, INTERVAL)

    def status(self, payment_id: str) -> str:
        """Return a record's status."""
        with self.stub.module(DB).get_db() as session:
            model = self.stub.module(TABLES).Payment
            return str(session.query(model).filter_by(provider_payment_id=payment_id).one().status)


@pytest.fixture
async def desk(host: StubHost, mocker: MockerFixture) -> Sweeping:
    """Return a host whose provider lists nothing yet."""
    return Sweeping(host, mocker)


# --- The provider's list ---------------------------------------------------------------------------------


async def test_what_was_captured_is_credited_for_the_records_user(desk: Sweeping) -> None:
    for number in range(5):
        desk.add_payment(f"pay-{number}", f"user-{number}")
        desk.provider.items.append(payment(f"pay-{number}"))
    done = await desk.sweep.make_pass()
    assert (done.listed, done.credited, done.held, done.failed) == (5, 5, 0, 0)
    assert sorted(desk.entries()) == [f"pay-{number}" for number in range(5)]
    assert [cursor for _, cursor in desk.provider.lists] == [None, "2", "4"]
    assert desk.provider.queries == []
    await until(lambda: len(desk.provider.events) == 5)
    assert {event.way for event in desk.provider.events} == {"sweep"}


async def test_the_first_list_reaches_back_and_each_later_one_overlaps(desk: Sweeping) -> None:
    began = desk.now
    await desk.sweep.make_pass()
    desk.now += INTERVAL
    await desk.sweep.make_pass()
    assert [since for since, _ in desk.provider.lists] == [began - LOOK_BACK - OVERLAP, began - OVERLAP]
    assert (LOOK_BACK, OVERLAP) == (26 * HOUR, 15 * MINUTE)


async def pass_over_a_late_capture(desk: Sweeping) -> int:
    """Make a pass, have the provider list a payment that was captured before it, and make the next one."""
    desk.add_payment()
    await desk.sweep.make_pass()
    late = payment("pay-1")
    desk.provider.items, desk.provider.captured = [late], {id(late): desk.now - 10 * MINUTE}
    desk.now += INTERVAL
    return (await desk.sweep.make_pass()).credited


async def test_what_is_listed_late_is_not_missed(desk: Sweeping) -> None:
    assert await pass_over_a_late_capture(desk) == 1


async def test_without_the_overlap_it_would_be(desk: Sweeping, mocker: MockerFixture) -> None:
    mocker.patch.object(sweep, "OVERLAP", 0)
    assert await pass_over_a_late_capture(desk) == 0


@pytest.mark.parametrize(
    "failure", [GatewayError("x"), GatewayThrottledError("x", retry_after=0.0), OSError("x")]
)
async def test_a_list_that_was_not_read_to_its_end_counts_as_not_read(
    desk: Sweeping, failure: Exception
) -> None:
    began = desk.now
    await desk.sweep.make_pass()
    desk.provider.error = failure
    for _ in range(3):
        desk.now += HOUR
        await desk.sweep.make_pass()
    desk.provider.error = None
    await asyncio.sleep(0.01)
    await desk.sweep.make_pass()
    assert {since for since, _ in desk.provider.lists[1:]} == {began - OVERLAP}


async def test_a_later_page_that_fails_loses_nothing(desk: Sweeping, mocker: MockerFixture) -> None:
    for number in range(4):
        desk.add_payment(f"pay-{number}")
        desk.provider.items.append(payment(f"pay-{number}"))
    list_captured: Callable[..., Awaitable[CapturedPage]] = desk.provider.list_captured

    async def fails_at_the_second(since: float, cursor: str | None) -> CapturedPage:
        if cursor:
            raise GatewayError("x")
        return await list_captured(since, cursor)

    failing = mocker.patch.object(desk.provider, "list_captured", fails_at_the_second)
    assert (await desk.sweep.make_pass()).credited == 2
    mocker.stop(failing)
    desk.now += DAY
    assert (await desk.sweep.make_pass()).credited == 2
    assert len(desk.entries()) == 4


async def test_a_list_without_an_end_is_given_up(desk: Sweeping, mocker: MockerFixture) -> None:
    async def endless(since: float, _cursor: str | None) -> CapturedPage:
        desk.provider.lists.append((since, None))
        return CapturedPage([], "again")

    mocker.patch.object(desk.provider, "list_captured", endless)
    await desk.sweep.make_pass()
    assert len(desk.provider.lists) == 2


async def test_a_credit_that_fails_keeps_its_payment_in_the_list(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    desk.add_payment("pay-1")
    desk.add_payment("pay-2", "somebody")
    desk.provider.items = [payment("pay-1"), payment("pay-2")]
    credit = Ledger.credit

    def busy_for_one(ledger: Ledger, service: Any, payment_id: str, *more: Any) -> None:
        if payment_id == "pay-1":
            raise WalletBusyError
        credit(ledger, service, payment_id, *more)

    busy = mocker.patch.object(Ledger, "credit", busy_for_one)
    began = desk.now
    done = await desk.sweep.make_pass()
    assert (done.credited, done.failed, desk.entries()) == (1, 1, ["pay-2"])
    mocker.stop(busy)
    desk.now += HOUR
    assert (await desk.sweep.make_pass()).credited == 1
    assert desk.provider.lists[-1][0] == began - LOOK_BACK - OVERLAP
    desk.now += HOUR
    await desk.sweep.make_pass()
    assert desk.provider.lists[-1][0] == began + HOUR - OVERLAP


async def test_what_fails_for_ever_does_not_make_the_list_grow_for_ever(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    desk.add_payment()
    desk.provider.items = [payment("pay-1")]
    mocker.patch.object(Ledger, "credit", side_effect=WalletBusyError)
    for _ in range(4):
        await desk.sweep.make_pass()
        desk.now += DAY
    assert desk.provider.lists[-1][0] >= desk.now - DAY - DAY - LOOK_BACK - OVERLAP


async def test_settled_payments_cost_one_statement_for_many(desk: Sweeping, mocker: MockerFixture) -> None:
    for number in range(6):
        desk.add_payment(f"pay-{number}", f"user-{number}")
        desk.provider.items.append(payment(f"pay-{number}"))
    await desk.sweep.make_pass()
    mocker.patch.object(sweep, "LOOKUP_SIZE", 4)  # two pages of this provider
    read, read_many = mocker.spy(Ledger, "read_with_wallet"), mocker.spy(Ledger, "read_many")
    wallets = mocker.spy(Ledger, "wallets")
    done = await desk.sweep.make_pass()
    assert (done.listed, done.credited, read.call_count, wallets.call_count) == (6, 0, 0, 0)
    assert read_many.call_count == 2


@pytest.mark.parametrize("status", ["canceled", "failed", "pending"])
async def test_a_status_left_behind_is_put_right(desk: Sweeping, status: str) -> None:
    desk.add_payment()
    desk.provider.items = [payment("pay-1")]
    await desk.sweep.make_pass()
    with desk.host.session() as session:
        session.execute(desk.host.table("Payment").update().values(status=status))
        session.commit()
    await desk.sweep.make_pass()
    assert desk.status("pay-1") == "succeeded"
    assert desk.entries() == ["pay-1"]


async def test_what_does_not_add_up_is_held_and_not_listed_for_ever(
    desk: Sweeping, caplog: pytest.LogCaptureFixture
) -> None:
    desk.add_payment()
    desk.provider.items = [payment("pay-1", refunded_amount={"value": "1.00", "currency": "RUB"})]
    began = desk.now
    for _ in range(2):
        done = await desk.sweep.make_pass()
        assert (done.held, done.credited, done.failed) == (1, 0, 0)
        desk.now += INTERVAL
    assert desk.entries() == []
    assert desk.provider.lists[-1][0] == began - OVERLAP
    assert (
        len(
            [
                line
                for line in caplog.messages
                if "reason=refunded kopeks=99900 currency=RUB way=sweep" in line
            ]
        )
        == 1
    )


async def test_two_sweeps_at_once_credit_once(host: StubHost, tmp_path: Path, mocker: MockerFixture) -> None:
    host.keep_in(tmp_path / "host.db")  # two of them need a connection each
    desk = Sweeping(host, mocker)
    for number in range(6):
        desk.add_payment(f"pay-{number}", f"user-{number % 2}")
        desk.provider.items.append(payment(f"pay-{number}"))
    another_worker = Sweep(desk.host, Reconciler(Resources(desk.host, Settings())), INTERVAL)
    await asyncio.gather(desk.sweep.make_pass(), another_worker.make_pass())
    await desk.sweep.make_pass()  # for what each found the other writing
    assert sorted(desk.entries()) == [f"pay-{number}" for number in range(6)]
    await until(lambda: len(desk.provider.events) == 6)


# --- For whom --------------------------------------------------------------------------------------------


def metadata(**fields: str) -> dict[str, Any]:
    """Return what a host writes on its payments."""
    return {"metadata": {"kind": "topup", "user_id": "me", "wallet_id": "w1"} | fields}


async def test_without_a_record_a_wallet_of_the_named_user_is_credited(desk: Sweeping) -> None:
    desk.stub.add_wallet()
    desk.provider.items = [payment("pay-9", **metadata())]
    done = await desk.sweep.make_pass()
    assert (done.credited, desk.entries()) == (1, ["pay-9"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        metadata(wallet_id="unknown"),
        metadata(user_id="somebody"),
        metadata(kind="subscription"),
        {"metadata": {"kind": "topup", "user_id": "me"}},
        {"metadata": {"kind": "topup", "wallet_id": "w1"}},
        {"metadata": "none"},
    ],
)
async def test_anything_else_without_a_record_is_anothers(
    desk: Sweeping, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    desk.stub.add_wallet()
    desk.provider.items = [payment("pay-9", **fields)]
    done = await desk.sweep.make_pass()
    assert (done.others, done.held, done.failed, desk.entries()) == (1, 0, 0, [])
    assert not caplog.messages
    assert not desk.provider.events


async def test_without_the_rule_anothers_payment_would_be_credited(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    mocker.patch.object(backlog, "owner_of", lambda payment, _local, _wallet: payment.topup.user_id)
    desk.provider.items = [payment("pay-9", metadata={"kind": "topup", "user_id": "me"})]
    await desk.sweep.make_pass()
    assert desk.entries() == ["pay-9"]


async def test_a_record_of_another_kind_is_anothers(desk: Sweeping, caplog: pytest.LogCaptureFixture) -> None:
    desk.add_payment(kind="subscription")
    desk.provider.items = [payment("pay-1")]
    done = await desk.sweep.make_pass()
    assert (done.others, done.held, desk.entries()) == (1, 0, [])
    assert not caplog.messages


async def test_items_that_are_no_payments_are_counted_and_lose_nothing(desk: Sweeping) -> None:
    desk.add_payment()
    odd: list[object] = [
        None,
        "pay-1",
        {"id": "../x", "status": "succeeded"},
        {"id": "pay-1", "status": "odd"},
    ]
    desk.provider.items = [*odd, payment("pay-1")]
    done = await desk.sweep.make_pass()
    assert (done.unreadable, done.credited, desk.entries()) == (4, 1, ["pay-1"])


# --- Open top-ups ----------------------------------------------------------------------------------------


async def test_open_topups_are_asked_about_as_they_grow_old(desk: Sweeping) -> None:
    desk.add_payment()
    desk.provider.found["pay-1"] = payment("pay-1", "pending")
    began = desk.now
    for age in (0.9, 1.0, 1.2, 5.9, 6.1, 24.9, 25.1, 71.9, 72.1, 167.9, 168.1, 180.0, 193.0):
        desk.now = began + age * HOUR
        before = len(desk.provider.queries)
        await desk.sweep.make_pass()
        assert len(desk.provider.queries) - before == (age in {1.2, 6.1, 25.1, 72.1, 168.1}), age


async def test_after_a_restart_they_are_asked_about_once_more(desk: Sweeping) -> None:
    desk.add_payment(age=2 * HOUR)
    desk.provider.found["pay-1"] = payment("pay-1", "pending")
    for _ in range(2):
        for _ in range(2):
            await desk.sweep.make_pass()
            desk.now += INTERVAL
        desk.restart()
    assert desk.provider.queries == ["pay-1"] * 2


async def test_those_older_than_eight_days_are_left_to_the_audit(desk: Sweeping) -> None:
    desk.add_payment(age=8 * DAY + HOUR)
    await desk.sweep.make_pass()
    assert desk.provider.queries == []


async def test_what_the_provider_canceled_is_closed(desk: Sweeping, caplog: pytest.LogCaptureFixture) -> None:
    desk.add_payment(age=2 * HOUR)
    desk.provider.found["pay-1"] = payment("pay-1", "canceled")
    done = await desk.sweep.make_pass()
    assert (done.canceled, desk.status("pay-1")) == (1, "canceled")
    assert "Top-up sweep: credited=0 canceled=1" in caplog.text


@pytest.mark.parametrize(
    ("record", "provider"), [("canceled", "succeeded"), ("pending", "succeeded"), ("pending", "canceled")]
)
async def test_what_is_only_observed_is_not_counted(
    desk: Sweeping, caplog: pytest.LogCaptureFixture, record: str, provider: str
) -> None:
    desk.restart({MODE.name: "observe"})
    desk.add_payment(age=2 * HOUR, status=record)
    desk.provider.items = [payment("pay-1")] if provider == "succeeded" else []
    desk.provider.found["pay-1"] = payment("pay-1", provider)
    done = await desk.sweep.make_pass()
    assert (done.credited, done.canceled, desk.status("pay-1")) == (0, 0, record)
    assert "Top-up would be " in caplog.text
    assert "Top-up sweep: " not in caplog.text


async def test_what_others_settled_is_not_counted(desk: Sweeping) -> None:
    desk.add_payment(status="canceled")
    desk.provider.items = [payment("pay-1")]
    assert (await desk.sweep.make_pass()).credited == 1
    with desk.host.session() as session:  # so that there is a status to be put right
        session.execute(desk.host.table("Payment").update().values(status="canceled"))
        session.commit()
    done = await desk.sweep.make_pass()
    assert (done.listed, done.credited, done.canceled) == (1, 0, 0)
    assert desk.status("pay-1") == "succeeded"


async def test_what_the_provider_does_not_know_is_never_marked_canceled(desk: Sweeping) -> None:
    desk.add_payment(age=2 * HOUR)
    for _ in range(2):
        await desk.sweep.make_pass()
        desk.now += INTERVAL
    assert (desk.provider.queries, desk.status("pay-1")) == (["pay-1"], "pending")


async def test_an_error_of_the_provider_is_no_attempt(desk: Sweeping, mocker: MockerFixture) -> None:
    desk.add_payment(age=2 * HOUR)
    desk.provider.found["pay-1"] = payment("pay-1")
    mocker.patch.object(desk.provider, "list_captured", return_value=CapturedPage([], None))
    for error in (GatewayError("x"), GatewayRejectedError("x")):
        desk.provider.error = error
        assert (await desk.sweep.make_pass()).credited == 0
    desk.provider.error = None
    assert (await desk.sweep.make_pass()).credited == 1
    assert desk.provider.queries == ["pay-1"] * 3


async def test_twenty_are_asked_about_in_a_pass_the_oldest_first(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    mocker.patch("openwebui_billing_reconcile.topup.backlog.OPEN_PAGE", 7)
    for number in range(50):
        desk.add_payment(f"pay-{number:02}", age=2 * HOUR - number // 2)
        desk.provider.found[f"pay-{number:02}"] = payment(f"pay-{number:02}", "pending")
    for _ in range(3):
        await desk.sweep.make_pass()
    assert desk.provider.queries == [f"pay-{number:02}" for number in range(50)]


async def test_what_can_never_be_asked_about_takes_no_others_place(desk: Sweeping) -> None:
    for number in range(sweep.MAX_OPEN_QUERIES):
        desk.add_payment(f"of another provider: {number}", age=3 * HOUR)
    desk.add_payment(age=2 * HOUR)
    desk.provider.found["pay-1"] = payment("pay-1")
    assert (await desk.sweep.make_pass()).credited == 0
    assert (await desk.sweep.make_pass()).credited == 1


async def test_what_fails_again_and_again_takes_no_others_place(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    mocker.patch.object(sweep, "MAX_OPEN_QUERIES", 2)
    ids = [f"pay-{number}" for number in range(5)]
    for number, payment_id in enumerate(ids):
        desk.add_payment(payment_id, f"user-{number}", age=3 * HOUR - number)
        desk.provider.found[payment_id] = payment(payment_id)
    credit = Ledger.credit

    def fails_but_for_the_last(ledger: Ledger, service: Any, payment_id: str, *more: Any) -> None:
        if payment_id != ids[-1]:
            raise OSError
        credit(ledger, service, payment_id, *more)

    mocker.patch.object(Ledger, "credit", fails_but_for_the_last)
    passes = [await desk.sweep.make_pass() for _ in range(4)]
    assert [(done.failed, done.credited) for done in passes] == [(2, 0), (2, 0), (0, 1), (2, 0)]
    assert desk.provider.queries == [*ids, *ids[:2]]


async def test_they_cost_nobodys_rate_limit(desk: Sweeping) -> None:
    desk.restart({"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "1/minute"})
    for number in range(5):
        desk.add_payment(f"pay-{number}", age=2 * HOUR)
        desk.provider.found[f"pay-{number}"] = payment(f"pay-{number}")
    assert (await desk.sweep.make_pass()).credited == 5


# --- When it comes again ---------------------------------------------------------------------------------


@pytest.fixture
def pauses(desk: Sweeping, mocker: MockerFixture) -> list[float]:
    """Have the sweep's pauses take no time; return them as they come."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def no_time(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0.001)

    stand_in = mocker.patch.object(sweep, "asyncio", wraps=asyncio)
    stand_in.sleep = no_time
    return taken


async def run_until(desk: Sweeping, condition: Callable[[], object]) -> None:
    async with desk.sweep.running():
        await until(condition)


async def test_it_comes_again_after_its_interval(desk: Sweeping, pauses: list[float]) -> None:
    await run_until(desk, lambda: len(pauses) > 20)
    assert 15 <= pauses[0] <= 45
    assert all(96 <= pause <= 144 for pause in pauses[1:])
    assert len(set(pauses)) > 10
    assert len(desk.provider.lists) >= 19


async def test_a_throttling_provider_doubles_the_pause_up_to_a_quarter_of_an_hour(
    desk: Sweeping, pauses: list[float]
) -> None:
    desk.provider.error = GatewayThrottledError("x", retry_after=0.0)
    await run_until(desk, lambda: len(pauses) > 6)
    for pause, base in zip(pauses[1:6], (240, 480, 900, 900, 900), strict=True):
        assert 0.8 * base <= pause <= 1.2 * base
    desk.provider.error = None
    await run_until(desk, lambda: 96 <= pauses[-1] <= 144)


async def test_it_never_dies_and_says_once_an_hour_what_fails(
    desk: Sweeping, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    desk.provider.error = RuntimeError("secret")
    await run_until(desk, lambda: len(pauses) > 5)
    assert len(desk.provider.lists) >= 5
    lines = [line for line in caplog.messages if line.startswith("The top-up sweep could not do all")]
    assert lines == ["The top-up sweep could not do all: provider_unavailable"]
    assert "secret" not in caplog.text


async def test_an_election_that_fails_does_not_end_it(
    desk: Sweeping, pauses: list[float], mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    candidate = Election.candidate
    failures = iter([OSError("secret")])

    def fails_once(election: Election) -> AbstractAsyncContextManager[bool]:
        for failure in failures:
            raise failure
        return candidate(election)

    mocker.patch.object(Election, "candidate", fails_once)
    await run_until(desk, lambda: desk.provider.lists)
    assert caplog.messages[0] == "The top-up sweep could not do all: OSError"


async def test_a_pass_that_did_nothing_is_not_logged_and_one_that_did_is_one_line(
    desk: Sweeping, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.sweep.make_pass()
    assert caplog.messages == []
    desk.add_payment()
    desk.provider.items = [payment("pay-1")]
    await desk.sweep.make_pass()
    (line,) = (line for line in caplog.messages if line.startswith("Top-up sweep: "))
    assert line.startswith(
        "Top-up sweep: credited=1 canceled=0 held=0 failed=0 listed=1 others=0 unreadable=0"
    )


async def test_without_wallets_nothing_is_asked(desk: Sweeping) -> None:
    desk.stub.module(BILLING_ROUTER).ENABLE_BILLING_WALLET = False
    desk.add_payment(age=2 * HOUR)
    done = await desk.sweep.make_pass()
    assert (done.is_complete, desk.provider.lists, desk.provider.queries) == (False, [], [])


async def test_only_a_pass_that_read_the_list_to_its_end_is_complete(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    assert (await desk.sweep.make_pass()).is_complete
    no_gateway = mocker.patch.object(desk.provider, "payment_gateway", return_value=None)
    assert not (await desk.sweep.make_pass()).is_complete
    mocker.stop(no_gateway)
    desk.provider.error = GatewayError("x")
    assert not (await desk.sweep.make_pass()).is_complete


async def test_a_gateway_that_cannot_list_is_not_swept_but_asked_about_open_topups(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    class Plain:
        account_id = is_test_shop = None
        get_payment = desk.provider.get_payment

    mocker.patch.object(desk.provider, "payment_gateway", return_value=Plain())
    desk.add_payment(age=2 * HOUR)
    desk.provider.found["pay-1"] = payment("pay-1")
    done = await desk.sweep.make_pass()
    assert (done.credited, done.is_complete, desk.provider.lists) == (1, False, [])


async def test_a_stop_waits_for_the_credit_under_way_and_for_nothing_else(
    desk: Sweeping, mocker: MockerFixture
) -> None:
    for number in range(3):
        desk.add_payment(f"pay-{number}", f"user-{number}")
        desk.provider.items.append(payment(f"pay-{number}"))
    mocker.patch.object(sweep, "_FIRST_PAUSE", (0.0, 0.0))
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    credit = Ledger.credit

    def slow(*arguments: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        while not stopping:
            time.sleep(0.001)
        credit(*arguments)

    stopping: list[bool] = []
    mocker.patch.object(Ledger, "credit", slow)
    async with desk.sweep.running():
        await asyncio.wait_for(begun.wait(), 10)
        loop.call_later(0.05, stopping.append, True)
    assert desk.entries() == ["pay-0"]
