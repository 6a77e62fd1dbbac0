"""An administrator releases a held payment: what is asked, decided, written and told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import IntegrityError, OperationalError

from openwebui_billing_reconcile.errors import (
    GatewayRejectedError,
    InvalidPaymentIdError,
    InvalidReleaseError,
    NotConfiguredError,
    ProviderRejectedError,
    ReleaseRefusedError,
    StillBeingCheckedError,
    TemporarilyUnavailableError,
    UnknownPaymentError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import DB, ENV, TABLES
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.money.values import ReleaseResult
from openwebui_billing_reconcile.settings import Mode, Settings
from openwebui_billing_reconcile.topup import reply, wallet_wait
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.release import MAX_NOTE, ReleaseOrder, Releaser
from openwebui_billing_reconcile.topup.resources import Resources
from tests.unit.account import CAPTURED_AT, Account, for_user, payment, rub, unpaid
from tests.unit.desk import Desk, until
from tests.unit.stub_host import LEDGER_KEY, WALLET_LEDGER_KEY, StubHost

PAID_LESS = payment(value="400.00")
"""1000.00 were ordered."""


class Office(Desk):
    """The desk at which an administrator releases; "me" has ordered pay-1."""

    def __init__(self, stub: StubHost) -> None:
        super().__init__(stub)
        self.stub = stub
        self.account = Account()
        self.host.hook = self.account
        self.resources = Resources(self.host, Settings())
        self.reconciler = Reconciler(self.resources)
        self.releaser = Releaser(self.resources)

    async def release(
        self,
        reason: str = "amount_mismatch",
        payment_id: str = "pay-1",
        *,
        confirm: bool = True,
        by: str = "admin",
    ) -> ReleaseResult:
        order = ReleaseOrder.parse(payment_id, reason, " seen the receipt ", by, confirm=confirm)
        return await self.releaser.release(order, confirm=confirm)

    async def refused(self, *arguments: Any, **options: Any) -> str:
        """Return the code with which a release is refused; nothing has changed then."""
        before = self.rows()
        with pytest.raises(ReleaseRefusedError) as raised:
            await self.release(*arguments, **options)
        assert self.rows() == before
        return raised.value.reason

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that the tables hold."""
        with self.host.session() as session:
            return {
                model: [dict(row._mapping) for row in session.execute(select(self.host.table(model)))]
                for model in ("Payment", "Wallet", "LedgerEntry")
            }

    def entry(self) -> dict[str, Any]:
        """Return the only entry of the ledger."""
        (entry,) = self.rows()["LedgerEntry"]
        return entry

    def status(self) -> str:
        """Return the only payment's status."""
        (record,) = self.rows()["Payment"]
        return str(record["status"])

    def add_entry(self, **changes: Any) -> None:
        """Enter the credit of pay-1 as a webhook does."""
        row = {
            "id": "credit of pay-1",
            "user_id": "me",
            "wallet_id": "wallet of me",
            "currency": "RUB",
            "type": "topup",
            "amount_kopeks": 100_000,
            "reference_type": "payment",
            "reference_id": "pay-1",
        }
        self.stub.add("LedgerEntry", **row | changes)

    def around_crediting(self, mocker: MockerFixture, path: Callable[..., Any]) -> None:
        """Have the host credit by ``path``, which is given the host's own and its arguments."""
        service = self.host.wallet_service
        credit = service.apply_topup
        mocker.patch.object(service, "apply_topup", lambda **named: path(credit, **named))


@pytest.fixture
async def office(host: StubHost) -> Office:
    """Return the office; 400.00 were paid of 1000.00 ordered."""
    office = Office(host)
    office.add_payment()
    office.account.add(PAID_LESS)
    return office


# --- What is asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [None, "", "other", "AMOUNT_MISMATCH", 1, ["refunded"], {}, True])
def test_the_reason_must_be_a_known_one(reason: object) -> None:
    with pytest.raises(InvalidReleaseError, match="reason must be the code that the audit names"):
        ReleaseOrder.parse("pay-1", reason, "note", "admin", confirm=True)


@pytest.mark.parametrize("note", [None, "", " \n", "x" * (MAX_NOTE + 1), 1, ["x"]])
def test_the_note_must_say_something(note: object) -> None:
    with pytest.raises(InvalidReleaseError, match="note is required"):
        ReleaseOrder.parse("pay-1", "refunded", note, "admin", confirm=True)


def test_a_preview_needs_no_note() -> None:
    assert ReleaseOrder.parse("pay-1", "refunded", None, "admin", confirm=False).note == ""
    with pytest.raises(InvalidReleaseError):
        ReleaseOrder.parse("pay-1", "refunded", "x" * (MAX_NOTE + 1), "admin", confirm=False)


@pytest.mark.parametrize("payment_id", [None, "", "a/b", 1])
def test_the_payment_must_be_named(payment_id: object) -> None:
    with pytest.raises(InvalidPaymentIdError):
        ReleaseOrder.parse(payment_id, "refunded", "note", "admin", confirm=True)


def test_an_order_is_read_without_white_space_and_is_one_of_its_own() -> None:
    asked = " pay-1 ", "refunded", f" {'x' * MAX_NOTE} ", "admin"
    orders = [ReleaseOrder.parse(*asked, confirm=True) for _ in range(2)]
    assert {(o.payment_id, o.reason, o.note) for o in orders} == {
        ("pay-1", HoldReason.REFUNDED, "x" * MAX_NOTE)
    }
    assert orders[0].release_id != orders[1].release_id


# --- A preview -------------------------------------------------------------------------------------------


async def test_a_preview_says_what_would_be_done_and_writes_nothing(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    before = office.rows()
    assert await office.release(confirm=False) == ReleaseResult(
        payment_id="pay-1",
        provider_status="succeeded",
        payment_status="pending",
        credited=False,
        amount_kopeks=40_000,
        currency="RUB",
        user_id="me",
        wallet_id="wallet of me",
    )
    assert office.rows() == before
    assert not office.account.events
    assert not caplog.messages


async def test_a_preview_creates_no_wallet(office: Office) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone", user_id="newcomer")
    office.account.add(payment())
    before = office.rows()
    preview = await office.release("wallet_missing", confirm=False)
    assert (preview.wallet_id, preview.user_id, preview.amount_kopeks) == (None, "newcomer", 100_000)
    assert office.rows() == before


# --- A release -------------------------------------------------------------------------------------------


async def test_a_confirmed_release_credits_what_the_provider_holds(office: Office) -> None:
    done = await office.release()
    assert done == ReleaseResult("pay-1", "succeeded", "succeeded", True, 40_000, "RUB", "me", "wallet of me")
    entry = office.entry()
    assert (entry["amount_kopeks"], entry["user_id"], entry["wallet_id"]) == (40_000, "me", "wallet of me")
    assert (entry["type"], entry["reference_type"], entry["reference_id"]) == ("topup", "payment", "pay-1")
    assert entry["idempotency_key"] == "record of pay-1"
    assert office.status() == "succeeded"


async def test_the_entry_keeps_who_released_it_when_and_why(office: Office) -> None:
    began = int(time.time())
    await office.release()
    metadata = office.entry()["metadata_json"]
    assert began <= metadata.pop("released_at") <= time.time()
    assert len(metadata.pop("release_id")) == 32
    assert metadata == {
        "reconciled_by": "release",
        "captured_at": CAPTURED_AT,
        "payment_id": "pay-1",
        "released_by": "admin",
        "reason": "amount_mismatch",
        "note": "seen the receipt",
    }


async def test_a_release_is_logged_and_told_once(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    await office.release()
    assert await office.refused() == "already_credited"
    assert (await office("pay-1")).credited
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    what = "payment=pay-1 user=me wallet=wallet of me kopeks=40000 currency=RUB"
    released, credited = caplog.messages
    assert released == (f"Top-up released: {what} reason=amount_mismatch by=admin note='seen the receipt'")
    assert credited == f"Top-up credited: {what} way=release"
    await until(lambda: office.account.events)
    (event,) = office.account.events
    assert (event.outcome, event.way, event.amount_kopeks) == ("credited", Way.RELEASE, 40_000)
    assert event.captured_at == 1773133200


async def test_a_released_payment_is_credited_for_everybody(office: Office) -> None:
    await office.release()
    result = await office("pay-1")
    assert (result.credited, result.payment_status) == (True, "succeeded")
    assert len(office.account.queries) == 1


@pytest.mark.parametrize("status", ["pending", "failed", "canceled"])
async def test_a_status_that_fell_behind_is_put_right(office: Office, status: str) -> None:
    office.add_payment(status=status)
    assert (await office.release()).payment_status == "succeeded"
    assert office.status() == "succeeded"


async def test_that_it_cannot_be_put_right_now_changes_nothing_else(
    office: Office, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(Ledger, "mark_succeeded", side_effect=OperationalError("x", {}, Exception("secret")))
    done = await office.release()
    assert (done.credited, done.payment_status) == (True, "pending")
    assert caplog.messages[-1] == (
        "A credited payment could not be marked succeeded: payment=pay-1 error=OperationalError"
    )


async def test_what_is_marked_done_without_an_entry_gets_its_entry(office: Office) -> None:
    office.add_payment(status="succeeded")
    office.account.add(payment())
    assert (await office.release("succeeded_without_ledger")).credited
    assert office.entries() == ["pay-1"]


async def test_money_is_valid_for_as_long_as_the_hosts(host: StubHost, mocker: MockerFixture) -> None:
    host.append(ENV, "BILLING_TOPUP_TTL_DAYS = 30\n")
    office = Office(host)
    office.add_payment()
    office.account.add(PAID_LESS)
    spy = mocker.spy(office.host.wallet_service, "apply_topup")
    await office.release()
    assert spy.call_args.kwargs["expires_at"] == pytest.approx(time.time() + 30 * 86400, abs=60)


async def test_without_end_where_the_host_says_so(office: Office, mocker: MockerFixture) -> None:
    spy = mocker.spy(office.host.wallet_service, "apply_topup")
    await office.release()
    assert spy.call_args.kwargs["expires_at"] is None


async def test_without_a_record_the_user_whom_the_payment_names_is_credited(office: Office) -> None:
    office.account.add(payment("pay-9", test=True, **for_user("me", "wallet of me")))
    done = await office.release("test_payment", "pay-9")
    assert (done.credited, done.payment_status, done.user_id) == (True, None, "me")
    assert office.entry()["idempotency_key"] == "pay-9"


# --- Once ------------------------------------------------------------------------------------------------


async def test_a_second_release_is_refused(office: Office) -> None:
    await office.release()
    assert await office.refused() == "already_credited"
    assert await office.refused(confirm=False) == "already_credited"
    assert len(office.entries()) == 1


async def test_of_releases_at_once_one_credits(office: Office) -> None:
    results = await asyncio.gather(*(office.release() for _ in range(5)), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, ReleaseRefusedError)]
    assert [refusal.reason for refusal in refusals] == ["already_credited"] * 4
    assert len(office.entries()) == 1


@pytest.mark.parametrize("kopeks", [100_000, 40_000])
@pytest.mark.parametrize("is_refused_by_the_key", [False, True])
async def test_a_webhook_that_comes_first_counts_and_the_release_does_not(
    office: Office,
    mocker: MockerFixture,
    caplog: pytest.LogCaptureFixture,
    kopeks: int,
    is_refused_by_the_key: bool,
) -> None:
    def lose_the_race(credit: Callable[..., Any], **named: Any) -> None:
        office.add_entry(amount_kopeks=kopeks)
        if is_refused_by_the_key:
            raise IntegrityError("insert", {}, Exception("unique"))
        credit(**named)

    office.around_crediting(mocker, lose_the_race)
    with pytest.raises(ReleaseRefusedError) as raised:
        await office.release()
    assert raised.value.reason == "already_credited"
    assert office.entry()["amount_kopeks"] == kopeks
    assert office.entry()["metadata_json"] is None
    assert not [line for line in caplog.messages if line.startswith(("Top-up released", "Top-up credited"))]
    assert not office.account.events


async def test_an_entry_without_a_record_says_that_it_is_credited(office: Office) -> None:
    office.add_entry(reference_id="pay-9", user_id="somebody")
    office.account.add(payment("pay-9", **for_user("me", "wallet of me")))
    assert await office.refused("test_payment", "pay-9") == "already_credited"


# --- The wallet ------------------------------------------------------------------------------------------


async def test_where_the_wallet_named_is_gone_the_owners_own_is_credited(office: Office) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone")
    office.account.add(payment())
    done = await office.release("wallet_missing")
    assert (done.wallet_id, office.entry()["wallet_id"]) == ("wallet of me", "wallet of me")


async def test_one_is_created_where_there_is_none(office: Office) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone", user_id="newcomer")
    office.account.add(payment())
    assert (await office.release("wallet_missing")).wallet_id == "wallet of newcomer"
    assert (office.entry()["user_id"], office.entry()["wallet_id"]) == ("newcomer", "wallet of newcomer")


async def test_none_is_created_in_another_currency(office: Office) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone", user_id="newcomer", currency="USD")
    office.account.add(payment(amount={"value": "1000.00", "currency": "USD"}))
    assert await office.refused("wallet_missing") == "wallet_missing"


async def test_a_wallet_that_cannot_be_created_now_is_try_later(
    office: Office, mocker: MockerFixture
) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone", user_id="newcomer")
    office.account.add(payment())
    mocker.patch.object(
        office.host.wallet_service,
        "get_or_create_wallet",
        side_effect=OperationalError("x", {}, Exception("secret")),
    )
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await office.release("wallet_missing")
    assert raised.value.reason == "database_unavailable"
    assert office.entries() == []


async def test_what_happened_while_a_wallet_was_created_counts(office: Office, mocker: MockerFixture) -> None:
    office.stub.add_payment(id="record of pay-1", wallet_id="gone", user_id="newcomer")
    office.account.add(payment())
    create = Ledger.create_wallet

    def create_beside_a_webhook(ledger: Ledger, user_id: str, currency: str) -> None:
        create(ledger, user_id, currency)
        office.add_entry(user_id="newcomer", wallet_id="gone")

    mocker.patch.object(Ledger, "create_wallet", create_beside_a_webhook)
    with pytest.raises(ReleaseRefusedError) as raised:
        await office.release("wallet_missing")
    assert raised.value.reason == "already_credited"
    assert office.entry()["wallet_id"] == "gone"


async def test_a_wallet_that_somebody_holds_for_a_moment_is_waited_for(
    office: Office, mocker: MockerFixture
) -> None:
    mocker.patch.object(Ledger, "_check_wallet_is_free", side_effect=[WalletBusyError, None])
    assert (await office.release()).credited
    assert office.entry()["amount_kopeks"] == 40_000
    assert len(office.account.queries) == 1


async def test_one_tried_anew_finds_the_record_as_it_was(office: Office, mocker: MockerFixture) -> None:
    mocker.patch.object(OpenWebUIHost, "ledger_key_has_wallet", True)
    office.stub.add_payment(id="record of pay-1", wallet_id="gone")
    office.account.add(payment())
    mocker.patch.object(Ledger, "_check_wallet_is_free", side_effect=[WalletBusyError, None, None])
    assert (await office.release("wallet_missing")).credited
    assert office.entry()["wallet_id"] == "wallet of me"


async def test_a_wallet_that_somebody_holds_is_try_later(office: Office, mocker: MockerFixture) -> None:
    mocker.patch.object(wallet_wait, "MIN_WAIT", 0.05)
    mocker.patch.object(Ledger, "_check_wallet_is_free", side_effect=WalletBusyError)
    with pytest.raises(WalletBusyError):
        await office.release()
    assert office.entries() == []


# --- What the host does ----------------------------------------------------------------------------------


async def test_whatever_the_host_raises_a_credit_in_the_ledger_counts(
    office: Office, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_afterwards(credit: Callable[..., Any], **named: Any) -> None:
        credit(**named)
        raise TypeError("secret")

    office.around_crediting(mocker, fail_afterwards)
    assert (await office.release()).credited
    assert caplog.messages[0] == "Releasing did not go through: payment=pay-1 error=TypeError"
    assert [line.partition(":")[0] for line in caplog.messages[1:]] == ["Top-up released", "Top-up credited"]
    await until(lambda: office.account.events)


@pytest.mark.parametrize("failure", [None, TypeError("secret")])
async def test_without_an_entry_it_is_not_credited(
    office: Office, mocker: MockerFixture, failure: Exception | None
) -> None:
    def write_nothing(_credit: Callable[..., Any], **_: Any) -> None:
        if failure:
            raise failure

    office.around_crediting(mocker, write_nothing)
    before = office.rows()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await office.release()
    assert raised.value.reason == "not_written"
    assert office.rows() == before


async def test_a_database_that_does_not_answer_is_try_later(office: Office, mocker: MockerFixture) -> None:
    error = OperationalError("x", {}, Exception("secret"))
    mocker.patch.object(Ledger, "read_with_wallets", side_effect=error)
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await office.release()
    assert raised.value.reason == "database_unavailable"
    assert "secret" not in str(raised.value)


# --- What is refused -------------------------------------------------------------------------------------


async def test_a_payment_that_nothing_holds_is_not_released(office: Office) -> None:
    office.account.add(payment())
    for reason in HoldReason:
        assert await office.refused(reason.value) == "not_held"


async def test_what_is_undecided_is_not_released_as_uncredited(office: Office) -> None:
    office.account.add(unpaid("pay-1", "pending"))
    assert await office.refused("uncredited") == "not_held"


async def test_what_is_held_is_not_released_as_uncredited(office: Office) -> None:
    assert await office.refused("uncredited") == "amount_mismatch"


async def test_the_refusal_says_how_it_is_held_now(office: Office) -> None:
    assert await office.refused("refunded") == "amount_mismatch"
    office.account.add(payment(refunded_amount=rub("1000.00")))
    assert await office.refused("refunded") == "refunded"
    office.account.add(payment(recipient={"account_id": "999"}))
    assert await office.refused("other_shop") == "other_shop"


@pytest.mark.parametrize("fields", [for_user("nobody here"), {}, {"metadata": {"user_id": "me"}}])
async def test_what_names_no_user_of_this_host_is_no_topup_of_it(
    office: Office, fields: dict[str, Any]
) -> None:
    office.account.add(payment("pay-9", test=True, **fields))
    assert await office.refused("test_payment", "pay-9") == "not_a_topup"


async def test_a_payment_the_provider_does_not_know_is_not_released(office: Office) -> None:
    office.account.payments.clear()
    with pytest.raises(UnknownPaymentError):
        await office.release()
    assert office.entries() == []


async def test_nothing_is_released_while_observing(office: Office) -> None:
    office.releaser = Releaser(Resources(office.host, Settings(mode=Mode.OBSERVE)))
    for confirm in (True, False):
        assert await office.refused(confirm=confirm) == "observing"
    assert office.account.queries == []


async def test_without_a_provider_nothing_is_released(office: Office) -> None:
    office.account.is_configured = False
    with pytest.raises(NotConfiguredError):
        await office.release()


async def test_a_provider_that_refuses_is_named_so(office: Office) -> None:
    office.account.errors["pay-1"] = GatewayRejectedError("secret")
    with pytest.raises(ProviderRejectedError):
        await office.release()


# --- When ------------------------------------------------------------------------------------------------


async def test_the_provider_is_asked_anew(office: Office) -> None:
    assert (await office.release(confirm=False)).amount_kopeks == 40_000
    office.account.add(payment(value="400.00", refunded_amount=rub("100.00")))
    assert await office.refused() == "refunded"
    assert (await office.release("refunded")).amount_kopeks == 30_000
    assert len(office.account.queries) == 3


async def test_nothing_is_written_once_nobody_waits(office: Office, mocker: MockerFixture) -> None:
    ask = office.account.get_payment

    async def slowly(payment_id: str) -> object:
        clock = mocker.patch.object(reply, "time")
        clock.monotonic.side_effect = lambda: time.monotonic() + reply.REPLY_TIMEOUT
        return await ask(payment_id)

    mocker.patch.object(office.account, "get_payment", slowly)
    with pytest.raises(StillBeingCheckedError):
        await office.release()
    assert office.entries() == []


async def test_a_release_that_has_begun_goes_on_without_its_caller(
    office: Office, mocker: MockerFixture
) -> None:
    loop, has_begun, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def credit_slowly(credit: Callable[..., Any], **named: Any) -> None:
        loop.call_soon_threadsafe(has_begun.set)
        assert may_go_on.wait(10)
        credit(**named)

    office.around_crediting(mocker, credit_slowly)
    caller = asyncio.create_task(office.release())
    await has_begun.wait()
    caller.cancel()
    await asyncio.wait({caller})
    assert office.resources.of_loop().user_write_lock.is_held("me")
    may_go_on.set()
    await until(lambda: office.account.events)
    assert office.entries() == ["pay-1"]


# --- Where the ledger's key holds the wallet -------------------------------------------------------------


async def test_what_is_settled_by_hand_while_the_record_is_changed_is_not_released_too(
    host: StubHost,
) -> None:
    host.edit(TABLES, LEDGER_KEY, WALLET_LEDGER_KEY)
    office = Office(host)
    office.add_payment()
    office.stub.add_payment(id="record of pay-1", wallet_id="gone")
    office.account.add(payment())
    engine = office.stub.module(DB).engine

    def settle_by_hand(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE payment SET wallet_id"):
            connection.exec_driver_sql(
                "INSERT INTO ledger_entry (id, user_id, wallet_id, currency, type, amount_kopeks,"
                " reference_id, reference_type, created_at)"
                " VALUES ('by hand', 'me', 'w', 'RUB', 'adjustment', 1, 'pay-1', 'manual', 0)"
            )

    event.listen(engine, "before_cursor_execute", settle_by_hand)
    with pytest.raises(TemporarilyUnavailableError):
        await office.release("wallet_missing")
    assert [row["type"] for row in office.rows()["LedgerEntry"]] == ["adjustment"]
