"""The use case in this process: who waits for whom, what goes on without its caller, what is shared."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.concurrency import SingleFlight
from openwebui_billing_reconcile.errors import (
    GatewayThrottledError,
    InvalidPaymentIdError,
    NotConfiguredError,
    PaymentHeldError,
    PaymentNotOwnedError,
    RateLimitedError,
    StillBeingCheckedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.requirements import ENV
from openwebui_billing_reconcile.money.values import ProviderPayment, ReconcileResult, VisitedTopup
from openwebui_billing_reconcile.provider.client import MAX_QUERIES_IN_FLIGHT
from openwebui_billing_reconcile.provider.shared_redis import SharedRedis
from openwebui_billing_reconcile.settings import Mode, Settings
from openwebui_billing_reconcile.topup import reconcile, reply, resources, wallet_wait
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.resources import Resources
from tests.unit.desk import Desk, until
from tests.unit.stub_host import StubHost

CREDITED = ReconcileResult("pay-1", "succeeded", "succeeded", credited=True)


@pytest.fixture
async def desk(host: StubHost) -> Desk:
    """Return a host with one pending top-up, which the provider says is paid."""
    desk = Desk(host)
    desk.add_payment()
    return desk


@pytest.fixture
def spare_thread_at_once(mocker: MockerFixture) -> None:
    """Let a stuck thread give its place to a spare one almost at once, and not after a second."""
    mocker.patch.object(resources, "OVERDUE_AFTER", 0.01)


def slow_credits(mocker: MockerFixture) -> tuple[threading.Event, threading.Event]:
    """Let a credit wait; return what it sets once it has begun, and what it waits for."""
    begun, may_go_on = threading.Event(), threading.Event()
    credit = Ledger.credit

    def waits(*arguments: Any) -> None:
        begun.set()
        may_go_on.wait(30)
        credit(*arguments)

    mocker.patch.object(Ledger, "credit", waits)
    return begun, may_go_on


async def credit_of_another(desk: Desk, mocker: MockerFixture) -> tuple[asyncio.Task[Any], threading.Event]:
    """Let another payment of the user be credited, and go on with it when the event is set."""
    desk.add_payment("another")
    begun, may_go_on = slow_credits(mocker)
    another = desk.start("another")
    await until(begun.is_set)
    return another, may_go_on


def calls_that_settle(mocker: MockerFixture) -> Callable[[], int]:
    """Count the calls from here on that settle an answer, or have joined one that waits to."""
    flights = mocker.spy(SingleFlight, "run")
    return lambda: [flight.args[1][0] for flight in flights.call_args_list].count("settle")


def credits_when_free(mocker: MockerFixture, refusals: int) -> None:
    """Let somebody hold the wallet for so many tries."""
    credit, held = Ledger.credit, [*range(refusals)]

    def busy_at_first(*arguments: Any) -> None:
        if held:
            held.pop()
            raise WalletBusyError
        credit(*arguments)

    mocker.patch.object(Ledger, "credit", busy_at_first)


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


@pytest.mark.parametrize(("word", "is_accepted"), [("true", True), ("false", False)])
async def test_what_the_operator_says_of_test_payments_overrules_the_gateway(
    desk: Desk, word: str, *, is_accepted: bool
) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS": word})
    desk.reconciler = Reconciler(Resources(desk.host, settings))
    desk.provider.is_test, desk.provider.is_test_shop = True, not is_accepted
    if is_accepted:
        assert await desk() == CREDITED
    else:
        with pytest.raises(PaymentHeldError):
            await desk()


async def test_a_payment_of_another_shop_is_held(desk: Desk, mocker: MockerFixture) -> None:
    answer = desk.provider.get_payment

    async def of_another_shop(payment_id: str) -> object:
        payment: Any = await answer(payment_id)
        return {**payment, "recipient": {"account_id": "another"}}

    mocker.patch.object(desk.provider, "get_payment", of_another_shop)
    desk.provider.account_id = "ours"
    with pytest.raises(PaymentHeldError) as raised:
        await desk()
    assert raised.value.reason == "other_shop"
    assert desk.entries() == []


async def test_where_no_wallet_is_named_one_in_the_hosts_currency_is_created(desk: Desk) -> None:
    with desk.host.session() as session:
        session.execute(desk.host.table("Wallet").delete())
        session.execute(desk.host.table("Payment").update().values(wallet_id=None))
        session.commit()
    assert await desk() == CREDITED
    assert desk.entries() == ["pay-1"]


async def test_a_gateway_is_asked_for_by_host_and_payment(desk: Desk, mocker: MockerFixture) -> None:
    asked = mocker.spy(desk.provider, "payment_gateway")
    await desk()
    asked.assert_called_once_with(host=desk.host, payment_id="pay-1")


async def test_a_provider_that_is_silent_is_given_up_at_the_deadline(
    desk: Desk, mocker: MockerFixture
) -> None:
    desk.reconciler = Reconciler(Resources(desk.host, Settings(deadline_seconds=0.05)))
    desk.provider.may_answer.clear()
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await desk()
    assert raised.value.reason == "provider_unavailable"


async def test_a_pause_that_the_provider_asks_for_holds_on_every_loop(
    desk: Desk, mocker: MockerFixture
) -> None:
    throttled = GatewayThrottledError("x", retry_after=30)
    ask = mocker.patch.object(desk.provider, "get_payment", side_effect=throttled)
    desk.add_payment("another")
    for call in (desk(), asyncio.to_thread(asyncio.run, desk("another"))):
        with pytest.raises(TemporarilyUnavailableError) as raised:
            await call
        assert raised.value.reason == "provider_throttled"
    ask.assert_called_once_with("pay-1")


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
    mocker.patch.object(reply, "REPLY_TIMEOUT", 0.2)
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
    desk.reconciler = Reconciler(
        Resources(desk.host, Settings())
    )  # as after a second attach to the same host
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


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_poll_gets_no_old_answer_because_another_payment_is_being_settled(
    desk: Desk, mocker: MockerFixture
) -> None:
    mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
    desk.provider.status = "pending"
    assert not (await desk()).credited
    desk.add_payment("another")
    desk.provider.status = "succeeded"
    _, may_settle = slow_credits(mocker)
    another = desk.start("another")
    await until(lambda: "another" in desk.provider.queries)
    poll = desk.start()
    await until(lambda: desk.provider.queries.count("pay-1") == 2)
    may_settle.set()
    assert (await poll).credited
    assert (await another).credited


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_poll_gets_no_old_answer_because_another_call_has_only_begun(
    desk: Desk, mocker: MockerFixture
) -> None:
    mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
    desk.provider.status = "pending"
    assert not (await desk()).credited
    desk.provider.status = "succeeded"
    begun, may_read = threading.Event(), threading.Event()
    read = Ledger.read

    def the_first_one_waits(*arguments: Any) -> Any:
        if not begun.is_set():
            begun.set()
            may_read.wait(30)
        return read(*arguments)

    mocker.patch.object(Ledger, "read", the_first_one_waits)
    one = desk.start()
    await until(begun.is_set)
    assert (await desk()).credited
    may_read.set()
    assert (await one).credited


async def test_only_the_owner_is_answered_and_nobody_else_costs_a_query(desk: Desk) -> None:
    with pytest.raises(PaymentNotOwnedError):
        await desk("pay-1", "somebody")
    assert not desk.provider.queries


async def test_each_user_pays_for_what_that_user_asks(desk: Desk) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "2/minute"})
    desk.reconciler = Reconciler(Resources(desk.host, settings))
    desk.provider.status = "pending"
    desk.add_payment("mine")
    desk.add_payment("theirs", "somebody")
    await desk()
    await desk("mine")
    desk.add_payment("one-more")
    with pytest.raises(RateLimitedError):
        await desk("one-more")
    assert (await desk("theirs", "somebody")).provider_status == "pending"
    for _ in range(2):
        with pytest.raises(PaymentNotOwnedError):
            await desk("pay-1", "a third one")
    with pytest.raises(RateLimitedError):
        await desk("pay-1", "a third one")
    with pytest.raises(PaymentNotOwnedError):
        await desk("pay-1", "a fourth one")


async def test_a_payment_that_is_nobodys_costs_the_asker(desk: Desk) -> None:
    settings = Settings.read({"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "2/minute"})
    desk.reconciler = Reconciler(Resources(desk.host, settings))
    for payment_id in ("unknown-1", "unknown-2"):
        with pytest.raises(PaymentNotOwnedError):
            await desk(payment_id)
    with pytest.raises(RateLimitedError) as raised:
        await desk("unknown-3")
    assert raised.value.retry_after
    assert desk.provider.queries == ["unknown-1", "unknown-2"]


async def test_a_user_has_so_many_payments_under_way_that_others_have_slots(desk: Desk) -> None:
    most = resources.MAX_PAYMENTS_UNDER_WAY
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


async def test_the_payments_under_way_are_counted_for_each_user(desk: Desk) -> None:
    users = [f"user-{number}" for number in range(12)]
    for user_id in users:
        desk.add_payment(f"of-{user_id}", user_id)
    results = await asyncio.gather(*(desk(f"of-{user_id}", user_id) for user_id in users))
    assert [result.payment_id for result in results] == [f"of-{user_id}" for user_id in users]


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_caller_joins_the_answer_that_another_settles(desk: Desk, mocker: MockerFixture) -> None:
    mocker.patch.object(reconcile, "ANSWER_TTL", 0.0)
    crediting, may_settle = slow_credits(mocker)
    first = desk.start()
    await until(crediting.is_set)
    settling = calls_that_settle(mocker)
    second = desk.start()
    await until(settling)
    may_settle.set()
    assert [await first, await second] == [CREDITED] * 2
    assert desk.provider.queries == ["pay-1"]


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_caller_goes_on_where_the_time_of_the_one_it_joined_is_over(
    desk: Desk, mocker: MockerFixture
) -> None:
    another, may_go_on = await credit_of_another(desk, mocker)
    settling, now = calls_that_settle(mocker), time.monotonic()
    calls = []
    for seconds in (100, 200):
        call = desk.reconciler.reconcile(
            desk.host.billing_service, "me", "pay-1", Way.RETURN, expires_at=now + seconds
        )
        calls.append(asyncio.create_task(call))
        await until(lambda: settling() == len(calls))
    mocker.patch.object(reply, "time").monotonic.return_value = now + 150
    may_go_on.set()
    first, second = calls
    with pytest.raises(StillBeingCheckedError):
        await first
    assert await second == CREDITED
    assert (await another).credited
    assert desk.provider.queries == ["another", "pay-1"]


async def test_a_service_that_fails_takes_no_other_services_call_along(
    desk: Desk, mocker: MockerFixture
) -> None:
    broken = mocker.Mock()
    broken._process_topup_webhook.side_effect = ConnectionError
    failed, credited = await asyncio.gather(
        desk.reconciler.reconcile(broken, "me", "pay-1"), desk(), return_exceptions=True
    )
    assert isinstance(failed, TemporarilyUnavailableError)
    assert credited == CREDITED


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_newer_answer_is_not_settled_as_an_older_one_that_waits(
    desk: Desk, mocker: MockerFixture
) -> None:
    another, may_settle = await credit_of_another(desk, mocker)
    settling_calls = calls_that_settle(mocker)
    older = ProviderPayment.parse({"id": "pay-1", "status": "pending"}, "pay-1")
    settling = desk.reconciler.settle_listed(desk.host.billing_service, "me", older, desk.provider)
    first, second = asyncio.create_task(settling), desk.start()
    await until(lambda: settling_calls() == 2)
    may_settle.set()
    assert not (await first).credited
    assert await second == CREDITED
    assert (await another).credited


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"test": True}, "test_payment"), ({"recipient": {"account_id": "another"}}, "other_shop")],
)
async def test_a_listed_payment_is_held_as_any_other(desk: Desk, change: dict[str, Any], reason: str) -> None:
    desk.provider.account_id = "ours"
    answer: Any = await desk.provider.get_payment("pay-1")
    payment = ProviderPayment.parse(answer | change, "pay-1")
    with pytest.raises(PaymentHeldError) as raised:
        await desk.reconciler.settle_listed(desk.host.billing_service, "me", payment, desk.provider)
    assert raised.value.reason == reason
    assert desk.entries() == []


async def test_rate_limit_and_pause_are_shared_in_the_hosts_redis(
    host: StubHost, mocker: MockerFixture
) -> None:
    host.append(ENV, '\nREDIS_URL = "redis://theirs"\nREDIS_KEY_PREFIX = "prefix"\n')
    redis = mocker.create_autospec(SharedRedis, instance=True)
    opened = mocker.patch.object(resources, "open_redis", return_value=redis)
    desk = Desk(host)
    desk.add_payment()
    opened.assert_called_once_with("redis://theirs", "prefix")
    redis.run.side_effect = lambda _script, key, *_: 7000 if key.startswith("cooldown") else 0
    with pytest.raises(TemporarilyUnavailableError) as paused:
        await desk()
    assert (paused.value.reason, paused.value.retry_after) == ("provider_throttled", 7)
    redis.run.side_effect = lambda _script, key, *_: 9000 if key == "queries:me" else 0
    with pytest.raises(RateLimitedError) as limited:
        await desk()
    assert limited.value.retry_after == 9
    assert not desk.provider.queries


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_stuck_wallet_holds_up_its_owner_alone(desk: Desk, mocker: MockerFixture) -> None:
    desk.add_payment("lags-behind")
    await desk("lags-behind")
    payment = desk.host.table("Payment")
    with desk.host.session() as session:
        lagging = payment.c.provider_payment_id == "lags-behind"
        session.execute(payment.update().where(lagging).values(status="canceled"))
        session.commit()
    desk.add_payment("theirs", "somebody")
    may_settle = threading.Event()
    credit, crediting = Ledger.credit, mocker.Mock()

    def sticks(ledger: Ledger, service: Any, payment_id: str, *arguments: Any) -> None:
        crediting()
        if payment_id == "pay-1":
            may_settle.wait(30)
        credit(ledger, service, payment_id, *arguments)

    mocker.patch.object(Ledger, "credit", sticks)
    mocker.patch.object(reconcile, "REPAIR_TIMEOUT", 60.0)
    stuck = desk.start()
    await until(lambda: crediting.called)
    async with asyncio.timeout(10):
        assert (await desk("theirs", "somebody")).credited
        left_behind = ReconcileResult("lags-behind", "succeeded", "canceled", credited=True)
        assert await desk("lags-behind") == left_behind  # a later call puts it right
    may_settle.set()
    assert await stuck == CREDITED


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_readers_who_leave_a_database_that_hangs_hold_no_more_threads_than_there_are(
    desk: Desk,
) -> None:
    begun: list[int] = []
    may_end = threading.Event()

    def hangs(number: int) -> None:
        begun.append(number)
        may_end.wait(30)

    shared = Resources(desk.host, Settings()).of_loop()
    for number in range(resources.THREADS):
        reader = asyncio.create_task(shared.read(partial(hangs, number)))
        await until(lambda: len(begun) > number)  # noqa: B023 - it is called at once
        reader.cancel()
    late = asyncio.create_task(shared.read(partial(hangs, resources.THREADS)))
    await asyncio.sleep(0.05)
    assert begun == [*range(resources.THREADS)]
    may_end.set()
    await late


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
    assert results == [replace(CREDITED, payment_id=f"more-{number}") for number in range(4)]
    assert most == 1


async def test_a_wallet_that_is_held_for_a_moment_is_waited_for(desk: Desk, mocker: MockerFixture) -> None:
    credits_when_free(mocker, refusals=3)
    assert await desk() == CREDITED
    assert desk.provider.queries == ["pay-1"]


async def test_the_time_to_wait_for_a_wallet_begins_with_the_providers_answer(
    desk: Desk, mocker: MockerFixture
) -> None:
    clock = mocker.patch.object(wallet_wait, "time")
    clock.monotonic.side_effect = time.monotonic
    desk.provider.may_answer.clear()
    credits_when_free(mocker, refusals=wallet_wait.MIN_TRIES)
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


@pytest.mark.usefixtures("spare_thread_at_once")
async def test_a_status_that_takes_long_to_put_right_holds_up_no_answer_and_no_loop(
    desk: Desk, mocker: MockerFixture
) -> None:
    await desk()
    with desk.host.session() as session:
        session.execute(desk.host.table("Payment").update().values(status="canceled"))
        session.commit()
    desk.add_payment("another")
    may_repair = threading.Event()
    mark_succeeded, threads = Ledger.mark_succeeded, []

    def repairs_slowly(*arguments: Any) -> None:
        threads.append(threading.get_ident())
        may_repair.wait(5)
        mark_succeeded(*arguments)

    mocker.patch.object(Ledger, "mark_succeeded", repairs_slowly)
    mocker.patch.object(reconcile, "REPAIR_TIMEOUT", 0.05)
    async with asyncio.timeout(4):
        assert await desk() == ReconcileResult("pay-1", "succeeded", "canceled", credited=True)
    assert threading.get_ident() not in threads
    another = desk.start("another")
    await asyncio.sleep(0.5)  # the stuck thread no longer counts by then
    assert desk.entries() == ["pay-1"]  # one call at a time writes for a user
    may_repair.set()
    assert (await another).credited
    assert await desk() == CREDITED


async def test_a_credit_that_does_not_add_up_is_held_without_a_query(desk: Desk) -> None:
    await desk()
    await until(lambda: desk.provider.events)
    desk.provider.events.clear()
    with desk.host.session() as session:
        session.execute(desk.host.table("LedgerEntry").update().values(amount_kopeks=1))
        session.commit()
    with pytest.raises(PaymentHeldError) as raised:
        await desk()
    assert raised.value.reason == "credited_elsewhere"
    await until(lambda: desk.provider.events)
    [event] = desk.provider.events
    assert (event.outcome, event.payment_id, event.user_id, event.reason) == (
        "held",
        "pay-1",
        "me",
        "credited_elsewhere",
    )
    assert desk.provider.queries == ["pay-1"]


async def test_visits_of_two_users_at_once_list_each_ones_own(desk: Desk) -> None:
    desk.add_payment("theirs", "somebody")
    service = desk.host.billing_service
    mine, theirs = await asyncio.gather(
        desk.reconciler.reconcile_open(service, "me"), desk.reconciler.reconcile_open(service, "somebody")
    )
    assert mine == [VisitedTopup("pay-1", "succeeded", "succeeded", credited=True)]
    assert theirs == [VisitedTopup("theirs", "succeeded", "succeeded", credited=True)]
    await until(lambda: len(desk.provider.events) == 2)
    assert {event.way for event in desk.provider.events} == {Way.VISIT}


async def test_a_visit_credits_each_open_topup_and_says_what_came_of_the_others(
    desk: Desk, mocker: MockerFixture
) -> None:
    desk.add_payment("another")
    desk.add_payment("theirs", "somebody")
    desk.provider.amount = "1.00"
    visited = await desk.reconciler.reconcile_open(desk.host.billing_service, "me")
    assert sorted(visited, key=attrgetter("payment_id")) == [
        VisitedTopup("another", "succeeded", "pending", credited=False, reason="amount_mismatch"),
        VisitedTopup("pay-1", "succeeded", "pending", credited=False, reason="amount_mismatch"),
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


async def test_what_a_visits_list_takes_is_taken_from_its_topups_time(
    desk: Desk, mocker: MockerFixture
) -> None:
    list_open = Ledger.open_topups_of_user
    clock = mocker.patch.object(reply, "time")
    clock.monotonic.side_effect = time.monotonic

    def slowly(*arguments: Any) -> Any:
        clock.monotonic.side_effect = lambda: time.monotonic() + reply.REPLY_TIMEOUT - 0.1
        return list_open(*arguments)

    mocker.patch.object(Ledger, "open_topups_of_user", slowly)
    desk.reconciler = Reconciler(Resources(desk.host, Settings(deadline_seconds=1.0)))
    desk.provider.may_answer.clear()
    [visited] = await desk.reconciler.reconcile_open(desk.host.billing_service, "me")
    assert visited.reason == "timeout"  # and not the provider's, who has a second


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
    desk.reconciler = Reconciler(Resources(desk.host, Settings(mode=Mode.OBSERVE)))
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
