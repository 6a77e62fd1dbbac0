"""The audit over a host's tables and a provider: what it reads, what it finds, and that it writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import date
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import (
    AuditRunningError,
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    InvalidProviderResponseError,
    NotConfiguredError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    TemporarilyUnavailableError,
)
from openwebui_billing_reconcile.host import reader
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.findings import Finding, FindingClass
from openwebui_billing_reconcile.money.values import Money, parse_time
from openwebui_billing_reconcile.operate import audit, captured
from openwebui_billing_reconcile.operate.audit import (
    Auditor,
    AuditResult,
    HostSources,
    Progress,
    finding_as_json,
)
from openwebui_billing_reconcile.operate.period import Period
from openwebui_billing_reconcile.settings import Settings
from openwebui_billing_reconcile.topup.resources import Resources
from tests.unit.account import CAPTURED_AT, Account, for_user, payment, rub, unpaid
from tests.unit.desk import Desk, until
from tests.unit.stub_host import StubHost

DAY = 24 * 60 * 60
PERIOD = Period(date(2026, 3, 9), date(2026, 3, 12))
NOON = int(parse_time(CAPTURED_AT) or 0)
MONTHS_LATER = NOON + 90 * DAY
BEFORE = "2026-03-08T20:59:59.000Z"
AFTER = "2026-03-11T21:00:00.000Z"


class Auditing(Desk):
    """A host to audit, three months after the period; "me" and "somebody" have wallets."""

    def __init__(self, stub: StubHost) -> None:
        super().__init__(stub)
        self.stub = stub
        self.account = Account()
        self.host.hook = self.account
        self.resources = Resources(self.host, Settings())
        self.auditor = Auditor(lambda: HostSources(self.resources))
        for user_id in ("me", "somebody"):
            stub.add_wallet(id=f"wallet of {user_id}", user_id=user_id)

    def order(self, payment_id: str, **changes: Any) -> None:
        """Add an order of 1000.00, made in the period."""
        row = {"id": f"record of {payment_id}", "provider_payment_id": payment_id, "created_at": NOON}
        self.stub.add_payment(**row | {"wallet_id": "wallet of me"} | changes)

    def enter(self, payment_id: str, **changes: Any) -> None:
        """Add the credit of 1000.00, made in the period."""
        row = {
            "id": f"credit of {payment_id}",
            "user_id": "me",
            "wallet_id": "wallet of me",
            "currency": "RUB",
            "type": "topup",
            "amount_kopeks": 100_000,
            "reference_type": "payment",
            "reference_id": payment_id,
            "created_at": NOON,
        }
        self.stub.add("LedgerEntry", **row | changes)

    def credit(self, payment_id: str, **changes: Any) -> None:
        """Add an order with its credit."""
        self.order(payment_id, status="succeeded")
        self.enter(payment_id, **changes)

    async def audit(self, period: Period = PERIOD) -> AuditResult:
        """Return the result."""
        *progress, result = [step async for step in self.auditor.run(period)]
        assert all(isinstance(step, Progress) for step in progress)
        assert isinstance(result, AuditResult)
        return result

    async def found(self) -> dict[str, tuple[str, str | None]]:
        """Return class and reason of each finding, by payment."""
        findings = (await self.audit()).findings
        by_payment = {found.payment_id: (found.kind.value, found.reason) for found in findings}
        assert len(by_payment) == len(findings)
        return by_payment

    def rows(self) -> list[Any]:
        """Return all that the tables hold."""
        with self.host.session() as session:
            models = ("Payment", "Wallet", "LedgerEntry")
            return [session.execute(select(self.host.table(model))).all() for model in models]


@pytest.fixture
async def desk(host: StubHost, mocker: MockerFixture) -> Auditing:
    """Return a host where everything is in order."""
    mocker.patch.object(audit, "QUERY_INTERVAL", 0.0)
    mocker.patch.object(captured, "PAGE_INTERVAL", 0.0)
    mocker.patch.object(audit, "time").time.return_value = float(MONTHS_LATER)
    desk = Auditing(host)
    desk.credit("sound")
    desk.account.add(payment("sound"))
    return desk


def mix(desk: Auditing) -> None:
    """Add one of everything that an audit tells apart."""
    desk.order("uncredited")
    desk.account.add(payment("uncredited"))
    desk.account.add(payment("unrecorded", **for_user("me", "wallet of me")))
    desk.order("held")
    desk.account.add(payment("held", "900.00"))
    desk.order("without-ledger", status="succeeded")
    desk.account.add(payment("without-ledger"))
    desk.credit("refunded")
    desk.account.add(payment("refunded", refunded_amount=rub("250.00")))
    desk.credit("differs")
    desk.account.add(payment("differs", "999.99"))
    desk.credit("canceled")
    desk.account.add(unpaid("canceled", "canceled"))
    desk.credit("unknown-to-provider")
    desk.order("open", wallet_id=None)
    desk.account.add(payment("unknown-here", **for_user("me", "gone")))
    desk.order("by-hand")
    desk.enter("by-hand", type="adjustment", reference_type="manual")
    desk.account.add(payment("by-hand"))
    desk.order("subscription", kind="subscription")
    desk.account.add(payment("subscription"))
    desk.account.add(payment("another-system"))
    desk.account.add(payment("another-hosts", **for_user("nobody here", "gone")))
    desk.account.odd = [None, {"id": "odd"}, payment("../x")]


# --- What is found ---------------------------------------------------------------------------------------


async def test_where_everything_is_in_order_there_is_nothing_to_look_at(desk: Auditing) -> None:
    assert await desk.audit() == AuditResult(PERIOD, payments=1, entries=1)
    assert desk.account.queries == []


async def test_each_class_is_found_in_a_mixture(desk: Auditing) -> None:
    mix(desk)
    assert await desk.found() == {
        "uncredited": ("uncredited", "uncredited"),
        "unrecorded": ("uncredited", "uncredited"),
        "held": ("held", "amount_mismatch"),
        "without-ledger": ("held", "succeeded_without_ledger"),
        "refunded": ("refunded_after_credit", None),
        "differs": ("amount_differs", None),
        "canceled": ("credited_unpaid", None),
        "unknown-to-provider": ("credited_unpaid", None),
        "open": ("open_too_long", None),
        "unknown-here": ("unknown_here", "wallet_missing"),
    }


async def test_what_is_no_finding_is_counted(desk: Auditing) -> None:
    mix(desk)
    result = await desk.audit()
    assert (result.payments, result.entries) == (12, 5)
    assert (result.others, result.settled, result.unreadable) == (3, 1, 3)


async def test_the_summary_sums_each_class_in_the_hosts_currency(desk: Auditing) -> None:
    mix(desk)
    desk.order("dollars", currency="USD")
    desk.account.add(payment("dollars", amount={"value": "7.00", "currency": "USD"}))
    summary = (await desk.audit()).summary("RUB")
    assert summary.keys() == {"since", "until", "checked", "settled", "totals"}
    assert (summary["since"], summary["until"]) == ("2026-03-09", "2026-03-12")
    assert summary["checked"] == {"payments": 13, "entries": 5, "others": 3, "unreadable": 3}
    assert summary["totals"] == {
        "uncredited": {"count": 2, "kopeks": 200_000},
        "held": {"count": 3, "kopeks": 190_000},
        "refunded_after_credit": {"count": 1, "kopeks": 25_000},
        "credited_unpaid": {"count": 2, "kopeks": 200_000},
        "amount_differs": {"count": 1, "kopeks": 99_999},
        "open_too_long": {"count": 1, "kopeks": 100_000},
        "unknown_here": {"count": 1, "kopeks": 100_000},
    }


async def test_adjustments_are_read_of_refunded_payments_only(desk: Auditing, mocker: MockerFixture) -> None:
    read = mocker.spy(desk.resources.ledger, "adjusted_kopeks")
    desk.credit("whole")
    desk.account.add(payment("whole", refunded_amount=rub("0.00")))
    desk.enter("whole", id="a gift", type="adjustment", reference_type="manual")
    assert await desk.found() == {}
    read.assert_not_called()


async def test_a_refund_that_was_taken_back_by_hand_is_settled(desk: Auditing) -> None:
    desk.credit("refunded")
    desk.account.add(payment("refunded", refunded_amount=rub("250.00")))
    correction = {"type": "adjustment", "amount_kopeks": -25_000}
    desk.enter("refunded", id="in dollars", reference_type="manual", currency="USD", **correction)
    assert await desk.found() == {"refunded": ("refunded_after_credit", None)}
    desk.enter("refunded", id="correction", reference_type="another", **correction)
    assert await desk.found() == {}


async def test_findings_say_whose_they_are_and_come_in_order(desk: Auditing) -> None:
    desk.order("open", user_id="somebody", wallet_id="wallet of somebody", amount_kopeks=5)
    desk.order("later")
    desk.account.add(payment("later", captured_at="2026-03-11T00:00:00.000Z"))
    desk.order("earlier")
    desk.account.add(payment("earlier"))
    assert (await desk.audit()).findings == [
        Finding(FindingClass.OPEN_TOO_LONG, "open", "somebody", "wallet of somebody", Money(5, "RUB")),
        *(
            Finding(
                FindingClass.UNCREDITED,
                payment_id,
                "me",
                "wallet of me",
                Money(100_000, "RUB"),
                reason="uncredited",
                captured_at=captured_at,
                releasable=True,
            )
            for payment_id, captured_at in (
                ("earlier", CAPTURED_AT),
                ("later", "2026-03-11T00:00:00.000Z"),
            )
        ),
    ]


def test_a_finding_without_an_amount_is_null_in_json() -> None:
    found = Finding(FindingClass.HELD, "x", "me", None, None, "malformed", None, False)
    assert finding_as_json(found) == {
        "class": "held",
        "payment_id": "x",
        "user_id": "me",
        "wallet_id": None,
        "amount_kopeks": None,
        "currency": None,
        "reason": "malformed",
        "captured_at": None,
        "releasable": False,
    }


async def test_what_was_released_is_silent(desk: Auditing) -> None:
    desk.order("released")
    release = {"reconciled_by": "release", "release_id": "r1"}
    desk.enter("released", amount_kopeks=90_000, metadata_json=release)
    desk.account.add(payment("released", "900.00"))
    assert await desk.found() == {}
    desk.account.add(payment("released", "900.00", refunded_amount=rub("0.01")))
    assert await desk.found() == {"released": ("refunded_after_credit", None)}


async def test_an_entry_that_only_names_a_release_of_ours_is_none(desk: Auditing) -> None:
    for number, metadata in enumerate(({"release_id": "r1"}, {"reconciled_by": "release"})):
        desk.order(f"odd-{number}")
        desk.enter(f"odd-{number}", amount_kopeks=90_000, metadata_json=metadata)
        desk.account.add(payment(f"odd-{number}", "900.00"))
    assert set((await desk.found()).values()) == {("held", "credited_elsewhere")}


async def test_a_wallet_of_somebody_else_is_unknown_here(desk: Auditing) -> None:
    desk.account.add(payment("foreign", **for_user("me", "wallet of somebody")))
    assert await desk.found() == {"foreign": ("unknown_here", "wallet_foreign")}


async def test_a_wallet_that_is_missing_can_be_released_where_the_user_is_known(desk: Auditing) -> None:
    desk.account.add(payment("unknown-here", **for_user("me", "gone")))
    (found,) = (await desk.audit()).findings
    assert (found.user_id, found.wallet_id, found.releasable) == ("me", "gone", True)


# --- Which days ------------------------------------------------------------------------------------------


async def test_a_payment_belongs_to_the_day_of_its_capture(desk: Auditing) -> None:
    for name, captured_at in (("before", BEFORE), ("after", AFTER), ("in", CAPTURED_AT)):
        desk.order(name, created_at=int(PERIOD.start) - DAY)
        desk.account.add(payment(name, captured_at=captured_at))
    result = await desk.audit()
    assert [found.payment_id for found in result.findings] == ["in"]
    assert result.payments == 2
    assert [since for since, _ in desk.account.lists] == [PERIOD.start] * 2


async def test_one_that_does_not_say_when_it_was_captured_belongs_to_every_day(desk: Auditing) -> None:
    desk.order("undated")
    desk.account.add(payment("undated", captured_at="odd"))
    assert await desk.found() == {"undated": ("uncredited", "uncredited")}


@pytest.mark.parametrize("at", [int(PERIOD.start) - 1, int(PERIOD.end)])
async def test_entries_of_other_days_are_not_asked_about(desk: Auditing, at: int) -> None:
    desk.credit("other-day", created_at=at)
    assert (await desk.audit()).entries == 1
    assert desk.account.queries == []


@pytest.mark.parametrize("at", [int(PERIOD.start), int(PERIOD.end) - 1])
async def test_entries_whose_payments_are_not_listed_are_asked_about_by_id(desk: Auditing, at: int) -> None:
    desk.credit("unlisted", created_at=at)
    desk.account.add(unpaid("unlisted", "canceled"))
    assert await desk.found() == {"unlisted": ("credited_unpaid", None)}
    assert desk.account.queries == ["unlisted"]


async def test_a_payment_captured_on_another_day_is_left_to_that_days_audit(desk: Auditing) -> None:
    desk.credit("before")
    desk.account.add(payment("before", "1.00", captured_at=BEFORE))
    desk.credit("after")
    desk.account.add(payment("after", "1.00", captured_at=AFTER))
    assert await desk.found() == {}
    assert desk.account.queries == ["before"]


async def test_an_entry_whose_reference_is_no_payment_id_is_nobodys_payment(desk: Auditing) -> None:
    desk.enter("top-up #5, by hand")
    assert await desk.found() == {"top-up #5, by hand": ("credited_unpaid", None)}
    assert desk.account.queries == []


async def test_other_entries_are_not_asked_about(desk: Auditing) -> None:
    desk.enter("adjusted", type="adjustment")
    desk.enter("manual", reference_type="manual")
    assert (await desk.audit()).entries == 1
    assert desk.account.queries == []


async def test_open_is_too_long_after_eight_days(desk: Auditing, mocker: MockerFixture) -> None:
    desk.order("open")
    clock = mocker.patch.object(audit, "time").time
    clock.return_value = float(NOON + 8 * DAY - 1)
    assert await desk.found() == {}
    clock.return_value += 1
    assert await desk.found() == {"open": ("open_too_long", None)}


@pytest.mark.parametrize(
    ("at", "is_found"),
    [
        (PERIOD.start - 1, False),
        (PERIOD.start, True),
        (PERIOD.end - 1, True),
        (PERIOD.end, False),
    ],
)
async def test_it_belongs_to_the_day_it_was_made(desk: Auditing, at: float, is_found: bool) -> None:
    desk.order("open", created_at=int(at))
    assert ("open" in await desk.found()) is is_found


@pytest.mark.parametrize("changes", [{"status": "canceled"}, {"status": "failed"}, {"kind": "subscription"}])
async def test_only_pending_topups_are_open(desk: Auditing, changes: dict[str, str]) -> None:
    desk.order("other", **changes)
    assert await desk.found() == {}


async def test_a_credited_or_paid_one_is_not_open(desk: Auditing) -> None:
    for name in ("credited", "paid"):
        desk.order(name)
        desk.account.add(payment(name))
    desk.enter("credited")
    assert await desk.found() == {"paid": ("uncredited", "uncredited")}


# --- Pages -----------------------------------------------------------------------------------------------


async def test_all_pages_are_read(desk: Auditing, mocker: MockerFixture) -> None:
    mocker.patch.object(audit, "_PAGE", 2)
    for number in range(5):
        desk.credit(f"paid-{number}")
        desk.account.add(payment(f"paid-{number}"))
        desk.credit(f"canceled-{number}")
        desk.account.add(unpaid(f"canceled-{number}", "canceled"))
        desk.order(f"open-{number}")
    result = await desk.audit()
    assert (result.payments, result.entries, len(result.findings)) == (6, 11, 10)
    assert [cursor for _, cursor in desk.account.lists] == [None, "2", "4"]
    assert sorted(desk.account.queries) == [f"canceled-{number}" for number in range(5)]


async def test_progress_grows_and_the_result_comes_last(desk: Auditing, mocker: MockerFixture) -> None:
    mocker.patch.object(audit, "_PAGE", 2)
    for number in range(4):
        desk.credit(f"paid-{number}")
        desk.account.add(payment(f"paid-{number}"))
    *progress, result = [step async for step in desk.auditor.run(PERIOD)]
    assert progress == [Progress(*n) for n in ((2, 0), (4, 0), (5, 0), (5, 2), (5, 4), (5, 5))]
    assert isinstance(result, AuditResult)


async def test_what_is_in_order_costs_one_statement_for_many(desk: Auditing, mocker: MockerFixture) -> None:
    desk.credit("another")
    desk.account.add(payment("another"))
    read, read_many = mocker.spy(Ledger, "read_with_wallets"), mocker.spy(Ledger, "read_many")
    wallets, users = mocker.spy(Ledger, "wallets"), mocker.spy(Ledger, "users_among")
    await desk.audit()
    assert (read.call_count, read_many.call_count) == (0, 1)
    assert (wallets.call_count, users.call_count) == (0, 0)


# --- Nothing is written ----------------------------------------------------------------------------------


async def test_nothing_is_written_told_or_logged(desk: Auditing, caplog: pytest.LogCaptureFixture) -> None:
    mix(desk)
    before = desk.rows()
    statements: list[str] = []
    event.listen(
        desk.host.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    await desk.audit()
    assert {statement.split()[0] for statement in statements} <= {"SELECT", "WITH"}
    assert desk.rows() == before
    assert not caplog.messages
    assert not desk.account.events


# --- What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "2", "canceled"], ids=["first page", "later page", "by id"])
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (GatewayError("secret"), ProviderUnavailableError),
        (GatewayThrottledError("secret", retry_after=3), ProviderThrottledError),
        (GatewayRejectedError("secret"), ProviderRejectedError),
        (OSError("secret"), ProviderUnavailableError),
    ],
)
async def test_an_error_of_the_provider_ends_it(
    desk: Auditing, place: str, failure: Exception, error: type[Exception]
) -> None:
    mix(desk)
    desk.account.errors[place] = failure
    with pytest.raises(error) as raised:
        await desk.audit()
    assert "secret" not in str(raised.value)


async def test_a_list_without_an_end_is_given_up(desk: Auditing, mocker: MockerFixture) -> None:
    page = await desk.account.list_captured(0, None)
    endless = type(page)(page.items, "again")
    mocker.patch.object(desk.account, "list_captured", return_value=endless)
    with pytest.raises(InvalidProviderResponseError):
        await desk.audit()


@pytest.mark.parametrize(
    "statement", ["records_and_topups", "record_and_topups", "credited_topups", "open_topups"]
)
async def test_a_database_that_does_not_answer_ends_it(
    desk: Auditing, mocker: MockerFixture, statement: str
) -> None:
    mix(desk)
    error = OperationalError("x", {}, Exception("secret"))
    mocker.patch.object(reader, statement, side_effect=error)
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await desk.audit()
    assert raised.value.reason == "database_unavailable"


async def test_without_a_provider_or_its_list_there_is_no_audit(
    desk: Auditing, mocker: MockerFixture
) -> None:
    mocker.patch.object(desk.account, "payment_gateway", return_value=object())
    with pytest.raises(NotConfiguredError):
        await desk.audit()
    mocker.stopall()
    desk.account.is_configured = False
    with pytest.raises(NotConfiguredError):
        await desk.audit()


# --- One at a time ---------------------------------------------------------------------------------------


async def test_there_is_one_at_a_time(desk: Auditing) -> None:
    desk.account.may_answer.clear()
    first = asyncio.create_task(desk.audit())
    await until(lambda: desk.account.lists)
    with pytest.raises(AuditRunningError) as raised:
        await desk.audit()
    assert raised.value.retry_after
    desk.account.may_answer.set()
    assert (await first).payments == 1
    assert (await desk.audit()).payments == 1


async def steps_of(desk: Auditing) -> AsyncGenerator[Progress | AuditResult]:
    """Begin an audit and return the rest of it."""
    steps = desk.auditor.run(PERIOD)
    assert isinstance(await anext(steps), Progress)
    return steps


async def test_a_reader_that_goes_away_makes_place_for_the_next(desk: Auditing) -> None:
    async with aclosing(await steps_of(desk)):
        with pytest.raises(AuditRunningError):
            await desk.audit()
    assert (await desk.audit()).payments == 1


async def test_so_does_one_that_goes_away_while_the_provider_is_asked(desk: Auditing) -> None:
    desk.account.may_answer.clear()
    reading = asyncio.create_task(desk.audit())
    await until(lambda: desk.account.lists)
    reading.cancel()
    await asyncio.wait({reading})
    desk.account.may_answer.set()
    assert (await desk.audit()).payments == 1


async def test_so_does_an_error(desk: Auditing) -> None:
    desk.account.errors[""] = GatewayError("x")
    with pytest.raises(ProviderUnavailableError):
        await desk.audit()
    desk.account.errors.clear()
    assert (await desk.audit()).payments == 1


# --- People's questions come first -----------------------------------------------------------------------


async def test_a_pause_comes_before_each_query_by_id_and_between_pages(
    desk: Auditing, mocker: MockerFixture
) -> None:
    mix(desk)
    mocker.patch.object(audit, "QUERY_INTERVAL", 0.001)
    mocker.patch.object(captured, "PAGE_INTERVAL", 0.002)
    sleep = mocker.spy(asyncio, "sleep")
    await desk.audit()
    pauses = [call.args[0] for call in sleep.call_args_list]
    assert pauses.count(0.001) == len(desk.account.queries) == 2
    assert pauses.count(0.002) == len(desk.account.lists) - 1


async def test_what_somebody_was_told_just_now_is_asked_again(desk: Auditing) -> None:
    desk.credit("canceled")
    desk.account.add(unpaid("canceled", "canceled"))
    await desk.resources.of_loop().provider.fetch(desk.account, "canceled")
    assert await desk.found() == {"canceled": ("credited_unpaid", None)}
    assert desk.account.queries == ["canceled", "canceled"]


async def test_the_event_loop_is_free_while_tables_are_read(desk: Auditing, mocker: MockerFixture) -> None:
    loop, is_free = asyncio.get_running_loop(), asyncio.Event()
    read_many = Ledger.read_many

    def read(ledger: Ledger, payment_ids: Any) -> Any:
        asyncio.run_coroutine_threadsafe(_set(is_free), loop).result(10)
        return read_many(ledger, payment_ids)

    mocker.patch.object(Ledger, "read_many", read)
    assert (await desk.audit()).payments == 1
    assert is_free.is_set()


async def _set(event: asyncio.Event) -> None:
    event.set()
