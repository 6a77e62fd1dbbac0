"""The use case in this process: who waits for whom, what goes on without its caller, what is shared."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import (
    InvalidPaymentIdError,
    NotConfiguredError,
    PaymentHeldError,
    PaymentNotOwnedError,
    RateLimitedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.values import ReconcileResult
from openwebui_billing_reconcile.provider.client import MAX_QUERIES_IN_FLIGHT
from openwebui_billing_reconcile.settings import Mode, Settings
from openwebui_billing_reconcile.topup import reconcile
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from tests.unit.desk import Desk, until
from tests.unit.stub_host import StubHost

CREDITED = ReconcileResult("pay-1", "succeeded", "succeeded", credited=True)


@pytest.fixture
async def desk(host: StubHost) -> Desk:
    """Return a host with one pending top-up, which the provider says is paid."""
    desk = Desk(host)
    desk.add_payment()
    return desk


async def test_a_test_payment_is_credited_in_a_known_test_shop(desk: Desk) -> None:
    desk.provider.is_test, desk.provider.is_test_shop = True, True
    assert await desk() == CREDITED


@pytest.mark.parametrize("answer", [None, False, "false", 1])
async def test_whatever_else_a_gateway_says_of_its_shop_counts_as_live(desk: Desk, answer: Any) -> None:
    desk.provider.is_test, desk.provider.is_test_shop = True, answer
    with pytest.raises(PaymentHeldError) as raised:
        await desk()
    assert raised.value.reason == "test_payment"
    assert desk.entries() == []


async def test_a_paid_topup_is_credited_once(desk: Desk) -> None:
    assert await desk() == CREDITED
    assert await desk() == CREDITED
    assert desk.entries() == ["pay-1"]
    assert desk.provider.queries == ["pay-1"]


async def test_callers_at_once_share_one_query_and_one_credit(desk: Desk) -> None:
    assert await asyncio.gather(*(desk() for _ in range(50))) == [CREDITED] * 50
    assert desk.entries() == ["pay-1"]
    assert desk.provider.queries == ["pay-1"]


async def test_a_caller_who_leaves_cancels_nothing(desk: Desk) -> None:
    desk.provider.may_answer.clear()
    caller = desk.start()
    await until(lambda: desk.provider.queries)
    caller.cancel()
    desk.provider.may_answer.set()
    await until(desk.entries)


async def test_a_reply_that_takes_too_long_is_given_up_and_lands_later(
    desk: Desk, mocker: MockerFixture
) -> None:
    mocker.patch.object(reconcile, "REPLY_TIMEOUT", 0.2)
    desk.provider.may_answer.clear()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await desk()
    assert raised.value.reason == "timeout"
    assert raised.value.retry_after
    desk.provider.may_answer.set()
    assert not desk.entries()  # its answer is too old by then; the next call proves or asks anew
    await until(lambda: desk.provider.queries)


async def test_a_credit_is_reported_once_although_the_hosts_path_fails_after_it(
    desk: Desk, mocker: MockerFixture
) -> None:
    service = desk.host.billing_service
    path = service._process_topup_webhook

    def fails_at_the_end(**arguments: Any) -> None:
        path(**arguments)
        raise ConnectionError

    mocker.patch.object(service, "_process_topup_webhook", fails_at_the_end)
    desk.reconciler = Reconciler(desk.host, Settings())  # as after a second attach to the same host
    assert await desk() == CREDITED
    assert await desk() == CREDITED
    await until(lambda: desk.provider.events)
    assert [(event.outcome, event.payment_id) for event in desk.provider.events] == [("credited", "pay-1")]


async def test_a_credit_that_could_not_be_proved_is_reported_with_its_proof(
    desk: Desk, mocker: MockerFixture
) -> None:
    read, reads = Ledger.read, []

    def fails_the_second_time(*arguments: Any) -> Any:
        reads.append(1)
        if len(reads) == 2:
            raise OperationalError("select", {}, Exception("down"))
        return read(*arguments)

    mocker.patch.object(Ledger, "read", fails_the_second_time)
    with pytest.raises(TemporarilyUnavailableError):
        await desk()
    assert not desk.provider.events
    assert await desk() == CREDITED
    await until(lambda: desk.provider.events)
    assert [event.outcome for event in desk.provider.events] == ["credited"]


async def test_a_poll_gets_no_old_answer_because_another_payment_is_being_settled(
    desk: Desk, mocker: MockerFixture
) -> None:
    mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
    desk.provider.status = "pending"
    assert not (await desk()).credited
    desk.add_payment("another")
    desk.provider.status = "succeeded"
    may_settle = threading.Event()
    credit = Ledger.credit

    def credits_slowly(*arguments: Any) -> None:
        may_settle.wait(30)
        credit(*arguments)

    mocker.patch.object(Ledger, "credit", credits_slowly)
    another = desk.start("another")
    await until(lambda: "another" in desk.provider.queries)
    poll = desk.start()
    await until(lambda: desk.provider.queries.count("pay-1") == 2)
    may_settle.set()
    assert (await poll).credited
    assert (await another).credited


async def test_only_the_owner_is_answered_and_nobody_else_costs_a_query(desk: Desk) -> None:
    with pytest.raises(PaymentNotOwnedError):
        await desk("pay-1", "somebody")
    assert not desk.provider.queries


async def test_a_payment_that_is_nobodys_costs_the_asker(desk: Desk) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "2/minute"})
    desk.reconciler = Reconciler(desk.host, settings)
    for payment_id in ("unknown-1", "unknown-2"):
        with pytest.raises(PaymentNotOwnedError):
            await desk(payment_id)
    with pytest.raises(RateLimitedError) as raised:
        await desk("unknown-3")
    assert raised.value.retry_after
    assert desk.provider.queries == ["unknown-1", "unknown-2"]


async def test_a_user_has_so_many_payments_under_way_that_others_have_slots(desk: Desk) -> None:
    most = reconcile.MAX_PAYMENTS_UNDER_WAY
    assert most < MAX_QUERIES_IN_FLIGHT
    for number in range(most + 1):
        desk.add_payment(f"more-{number}")
    desk.add_payment("theirs", "somebody")
    desk.provider.may_answer.clear()
    calls = [desk.start(f"more-{number}") for number in range(most)]
    await until(lambda: len(desk.provider.queries) == most)
    with pytest.raises(RateLimitedError) as raised:
        await desk(f"more-{most}")
    assert raised.value.retry_after == 1
    again = desk.start("more-0")  # one that is under way is joined
    theirs = desk.start("theirs", "somebody")
    await until(lambda: "theirs" in desk.provider.queries)
    desk.provider.may_answer.set()
    assert all(result.credited for result in await asyncio.gather(*calls, again, theirs))
    assert (await desk(f"more-{most}")).credited


async def test_one_call_at_a_time_settles_for_a_user(desk: Desk, mocker: MockerFixture) -> None:
    for number in range(4):
        desk.add_payment(f"more-{number}")
    inside, most = 0, 0
    credit = Ledger.credit

    def counted(*arguments: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            credit(*arguments)
        finally:
            inside -= 1

    mocker.patch.object(Ledger, "credit", counted)
    results = await asyncio.gather(*(desk(f"more-{number}") for number in range(4)))
    assert [result.credited for result in results] == [True] * 4
    assert most == 1


async def test_a_wallet_that_is_held_for_a_moment_is_waited_for(desk: Desk, mocker: MockerFixture) -> None:
    credit, held = Ledger.credit, [1, 2, 3]

    def busy_at_first(*arguments: Any) -> None:
        if held:
            held.pop()
            raise WalletBusyError
        credit(*arguments)

    mocker.patch.object(Ledger, "credit", busy_at_first)
    assert await desk() == CREDITED
    assert desk.provider.queries == ["pay-1"]


async def test_a_wallet_that_stays_held_is_given_up(desk: Desk, mocker: MockerFixture) -> None:
    mocker.patch.object(reconcile, "WALLET_TIMEOUT", 0.05)
    mocker.patch.object(Ledger, "credit", side_effect=WalletBusyError)
    with pytest.raises(WalletBusyError) as raised:
        await desk()
    assert raised.value.retry_after


async def test_the_time_to_wait_for_a_wallet_begins_with_the_providers_answer(
    desk: Desk, mocker: MockerFixture
) -> None:
    clock = mocker.patch.object(reconcile, "time")
    clock.monotonic.side_effect = time.monotonic
    desk.provider.may_answer.clear()
    credit, held = Ledger.credit, [1]

    def busy_at_first(*arguments: Any) -> None:
        if held:
            held.pop()
            raise WalletBusyError
        credit(*arguments)

    mocker.patch.object(Ledger, "credit", busy_at_first)
    call = desk.start()
    await until(lambda: desk.provider.queries)
    clock.monotonic.side_effect = lambda: time.monotonic() + 8  # so long the provider took
    desk.provider.may_answer.set()
    assert await call == CREDITED


async def test_what_does_not_add_up_is_held(desk: Desk) -> None:
    desk.provider.amount = "1.00"
    with pytest.raises(PaymentHeldError) as raised:
        await desk()
    assert (raised.value.reason, raised.value.retry_after) == ("amount_mismatch", None)
    assert not desk.entries()


async def test_an_undecided_payment_has_a_next_poll(desk: Desk) -> None:
    desk.provider.status = "pending"
    assert await desk() == ReconcileResult("pay-1", "pending", "pending", credited=False)
    assert desk.reconciler.retry_after("pay-1") == 3


async def test_a_host_without_a_client_is_not_configured(desk: Desk) -> None:
    desk.provider.is_configured = False
    with pytest.raises(NotConfiguredError):
        await desk()


async def test_a_bad_id_is_refused_before_anything_is_read(desk: Desk, mocker: MockerFixture) -> None:
    read = mocker.spy(Ledger, "read")
    with pytest.raises(InvalidPaymentIdError):
        await desk("../refunds")
    read.assert_not_called()


async def test_a_fault_of_the_program_is_not_try_later(
    desk: Desk, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(Ledger, "read", side_effect=TypeError("secret words"))
    with pytest.raises(UnexpectedError) as raised:
        await desk()
    assert raised.value.retry_after is None
    assert "TypeError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_status_left_behind_is_put_right_without_a_query(desk: Desk) -> None:
    await desk()
    with desk.host.session() as session:
        session.execute(desk.host.table("Payment").update().values(status="canceled"))
        session.commit()
    assert await desk() == CREDITED
    assert desk.provider.queries == ["pay-1"]


async def test_a_visit_credits_each_open_topup_and_says_what_came_of_the_others(
    desk: Desk, mocker: MockerFixture
) -> None:
    desk.add_payment("another")
    desk.add_payment("theirs", "somebody")
    desk.provider.amount = "1.00"
    visited = await desk.reconciler.reconcile_open(desk.host.billing_service, "me")
    assert sorted((topup.payment_id, topup.provider_status, topup.reason) for topup in visited) == [
        ("another", "succeeded", "amount_mismatch"),
        ("pay-1", "succeeded", "amount_mismatch"),
    ]
    desk.provider.amount = "1000.00"
    mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
    visited = await desk.reconciler.reconcile_open(desk.host.billing_service, "me")
    assert [(topup.credited, topup.reason) for topup in visited] == [(True, None)] * 2
    assert sorted(desk.entries()) == ["another", "pay-1"]


async def test_a_visit_whose_list_cannot_be_read_is_try_later(desk: Desk, mocker: MockerFixture) -> None:
    error = OperationalError("select", {}, Exception("down"))
    mocker.patch.object(Ledger, "open_topups_of_user", side_effect=error)
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await desk.reconciler.reconcile_open(desk.host.billing_service, "me")
    assert raised.value.reason == "database_unavailable"


async def test_a_repair_overwrites_no_status_given_while_it_waits(desk: Desk, mocker: MockerFixture) -> None:
    await desk()
    set_status(desk, "pending")
    mark = Ledger.mark_succeeded

    def after_somebody_else(ledger: Ledger, payment_id: str) -> bool:
        set_status(desk, "refunded")
        return mark(ledger, payment_id)

    mocker.patch.object(Ledger, "mark_succeeded", after_somebody_else)
    assert await desk() == ReconcileResult("pay-1", "succeeded", "refunded", credited=True)


async def test_a_repair_credits_nothing_where_the_entry_is_gone_meanwhile(
    desk: Desk, mocker: MockerFixture
) -> None:
    await desk()
    set_status(desk, "pending")
    mark = Ledger.mark_succeeded

    def after_a_reversal(ledger: Ledger, payment_id: str) -> bool:
        with desk.host.session() as session:
            session.execute(desk.host.table("LedgerEntry").delete())
            session.commit()
        return mark(ledger, payment_id)

    mocker.patch.object(Ledger, "mark_succeeded", after_a_reversal)
    assert (await desk()).payment_status == "pending"
    assert desk.entries() == []


def set_status(desk: Desk, status: str) -> None:
    with desk.host.session() as session:
        session.execute(desk.host.table("Payment").update().values(status=status))
        session.commit()


async def test_while_only_observing_it_tells_what_it_would_do_and_writes_nothing(
    desk: Desk, mocker: MockerFixture
) -> None:
    desk.reconciler = Reconciler(desk.host, Settings(mode=Mode.OBSERVE))
    desk.add_payment("canceled")
    writes = [mocker.spy(Ledger, name) for name in ("credit", "cancel", "mark_succeeded", "create_wallet")]
    for _ in range(2):
        assert await desk() == ReconcileResult("pay-1", "succeeded", "pending", credited=False)
    desk.provider.status = "canceled"
    assert await desk("canceled") == ReconcileResult("canceled", "canceled", "pending", credited=False)
    await until(lambda: len(desk.provider.events) == 2)
    would_credit, would_cancel = desk.provider.events
    assert (would_credit.outcome, would_credit.amount_kopeks, would_credit.way) == (
        "would_credit",
        100_000,
        "return",
    )
    assert (would_cancel.outcome, would_cancel.payment_id) == ("would_cancel", "canceled")
    assert not any(write.called for write in writes)
    assert desk.entries() == []
