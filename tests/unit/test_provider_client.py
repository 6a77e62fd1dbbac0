"""The provider client: shared queries, remembered answers, deadline, slots and cooldown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    InvalidProviderResponseError,
    PaymentNotFoundError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    RateLimitedError,
    ReconcileError,
    TemporarilyUnavailableError,
)
from openwebui_billing_reconcile.hookspecs import PROJECT, CapturedPage
from openwebui_billing_reconcile.money.values import ProviderPayment
from openwebui_billing_reconcile.provider.client import MAX_QUERIES_IN_FLIGHT, ProviderClient

ID = "pay-1"
TEXTS: Mapping[type[ReconcileError], str] = {
    TemporarilyUnavailableError: "Payment provider is temporarily unavailable",
    ProviderRejectedError: "Payment provider rejected the payment request",
}
"""What the user is told."""


class Clock:
    """A clock in the test's hand, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Provider:
    """A gateway that answers when the test lets it."""

    account_id: str | None = None
    is_test_shop: bool | None = None
    queries: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    status: str = "pending"
    open: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    peak: int = 0

    async def get_payment(self, payment_id: str) -> object:
        self.queries.append(payment_id)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self.open.wait()
        finally:
            self.in_flight -= 1
        if self.failure:
            raise self.failure
        return {"id": payment_id, "status": self.status}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> ProviderClient:
    return ProviderClient(8.0, clock)


@pytest.fixture
async def provider() -> Provider:
    provider = Provider()
    provider.open.set()
    return provider


async def free() -> None:
    """Charge nothing."""


async def fetch(
    client: ProviderClient, provider: Provider, payment_id: str = ID, **options: float
) -> ProviderPayment | None:
    return await client.fetch(provider, payment_id, on_new_query=free, **options)


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_simultaneous_callers_share_one_query(client: ProviderClient, provider: Provider) -> None:
    provider.open.clear()
    callers = [asyncio.create_task(fetch(client, provider)) for _ in range(50)]
    await until(lambda: bool(provider.queries))
    provider.open.set()
    answers = await asyncio.gather(*callers)
    assert len(provider.queries) == 1
    assert all(answer and answer.status == "pending" for answer in answers)


async def test_a_caller_that_goes_away_takes_nothing_from_the_others(
    client: ProviderClient, provider: Provider
) -> None:
    provider.open.clear()
    first, second = (asyncio.create_task(fetch(client, provider)) for _ in range(2))
    await until(lambda: bool(provider.queries))
    first.cancel()
    provider.open.set()
    assert await second
    assert len(provider.queries) == 1


async def test_an_answer_is_remembered_for_a_second(
    client: ProviderClient, provider: Provider, clock: Clock
) -> None:
    await fetch(client, provider)
    clock.now += 0.75
    await fetch(client, provider)
    assert len(provider.queries) == 1
    clock.now += 0.25
    await fetch(client, provider)
    assert len(provider.queries) == 2


async def test_a_caller_may_accept_an_older_answer(
    client: ProviderClient, provider: Provider, clock: Clock
) -> None:
    await fetch(client, provider)
    clock.now += 11.75
    await fetch(client, provider, max_age=12)
    assert len(provider.queries) == 1
    clock.now += 0.25
    await fetch(client, provider, max_age=12)
    assert len(provider.queries) == 2


async def test_only_a_query_that_is_sent_is_charged(client: ProviderClient, provider: Provider) -> None:
    charged: list[str] = []

    async def charge() -> None:
        charged.append("one")

    for _ in range(3):
        await client.fetch(provider, ID, on_new_query=charge)
    assert charged == ["one"]


async def test_a_query_that_cannot_be_charged_is_not_sent(client: ProviderClient, provider: Provider) -> None:
    async def refuse() -> None:
        raise RateLimitedError(7)

    with pytest.raises(RateLimitedError):
        await client.fetch(provider, ID, on_new_query=refuse)
    assert not provider.queries
    assert await fetch(client, provider)


async def test_a_charge_that_takes_long_holds_up_no_other_payment(
    client: ProviderClient, provider: Provider
) -> None:
    may_charge = asyncio.Event()

    async def charge_slowly() -> None:
        await may_charge.wait()

    slow = asyncio.create_task(client.fetch(provider, ID, on_new_query=charge_slowly))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(fetch(client, provider, "another"), 10)
    assert provider.queries == ["another"]
    may_charge.set()
    assert await slow


async def test_a_failure_is_shared_but_not_remembered(client: ProviderClient, provider: Provider) -> None:
    provider.open.clear()
    provider.failure = GatewayError("down")
    callers = [asyncio.create_task(fetch(client, provider)) for _ in range(2)]
    await until(lambda: bool(provider.queries))
    provider.open.set()
    assert all(
        isinstance(e, TemporarilyUnavailableError)
        for e in await asyncio.gather(*callers, return_exceptions=True)
    )
    provider.failure = None
    assert await fetch(client, provider)
    assert len(provider.queries) == 2


async def test_a_failure_is_not_remembered_although_an_older_answer_would_do(
    client: ProviderClient, provider: Provider, clock: Clock
) -> None:
    await fetch(client, provider)
    clock.now += 2
    provider.failure = GatewayError("down")
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(client, provider)
    provider.failure = None
    assert await fetch(client, provider, max_age=12)
    assert len(provider.queries) == 3


async def test_a_failure_that_nobody_waited_for_is_not_remembered(
    client: ProviderClient, provider: Provider
) -> None:
    provider.open.clear()
    provider.failure = GatewayError("down")
    caller = asyncio.create_task(fetch(client, provider))
    await until(lambda: bool(provider.queries))
    caller.cancel()
    provider.open.set()
    await until(lambda: not provider.in_flight)
    await asyncio.sleep(0)
    provider.failure = None
    assert await fetch(client, provider)
    assert len(provider.queries) == 2


@pytest.mark.parametrize(
    ("failure", "becomes", "reason", "retry_after"),
    [
        (GatewayError("x"), TemporarilyUnavailableError, "provider_unavailable", 5),
        (OSError("x"), TemporarilyUnavailableError, "provider_unavailable", 5),
        (TimeoutError(), TemporarilyUnavailableError, "provider_unavailable", 5),
        (asyncio.CancelledError(), TemporarilyUnavailableError, "provider_unavailable", 5),
        (GatewayRejectedError("x"), ProviderRejectedError, "provider_rejected", None),
        *[
            (
                GatewayThrottledError("x", retry_after=asked),
                TemporarilyUnavailableError,
                "provider_throttled",
                seconds,
            )
            for asked, seconds in ((2.2, 3), (-5, 1), (float("inf"), 60), (float("nan"), 5))
        ],
    ],
)
async def test_failures_become_ours(
    client: ProviderClient,
    provider: Provider,
    failure: BaseException,
    becomes: type[ReconcileError],
    reason: str,
    retry_after: int | None,
) -> None:
    provider.failure = failure
    with pytest.raises(becomes) as raised:
        await fetch(client, provider)
    assert (raised.value.reason, raised.value.retry_after) == (reason, retry_after)
    assert str(raised.value) == TEXTS[becomes]


async def test_an_unknown_payment_is_an_answer(client: ProviderClient, provider: Provider) -> None:
    provider.failure = PaymentNotFoundError("x")
    assert await fetch(client, provider) is None
    assert await fetch(client, provider) is None
    assert len(provider.queries) == 1


async def test_an_invalid_response_is_named_so(client: ProviderClient, provider: Provider) -> None:
    provider.status = "refunded"
    with pytest.raises(InvalidProviderResponseError):
        await fetch(client, provider)


async def test_a_query_has_its_deadline() -> None:
    provider = Provider()  # never answers
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(ProviderClient(0.02), provider)
    assert provider.in_flight == 0


async def test_at_most_ten_queries_are_in_flight(client: ProviderClient, provider: Provider) -> None:
    provider.open.clear()
    callers = [asyncio.create_task(fetch(client, provider, f"pay-{n}")) for n in range(25)]
    await until(lambda: provider.in_flight == 10)
    for _ in range(100):
        await asyncio.sleep(0)
    provider.open.set()
    await asyncio.gather(*callers)
    assert (provider.peak, len(provider.queries)) == (10, 25)


async def test_a_429_pauses_all_queries_for_as_long_as_the_provider_asks(
    client: ProviderClient, provider: Provider, clock: Clock
) -> None:
    provider.failure = GatewayThrottledError("x", retry_after=4)
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(client, provider)
    provider.failure = None
    clock.now += 1.5
    charged: list[str] = []

    async def charge() -> None:
        charged.append("one")

    with pytest.raises(TemporarilyUnavailableError) as raised:
        await client.fetch(provider, "another", on_new_query=charge)
    assert not charged
    assert raised.value.retry_after == 3
    clock.now += 2.25
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(client, provider, "another")
    assert provider.queries == [ID]
    clock.now += 0.25
    assert await fetch(client, provider, "another")


async def test_queries_that_waited_for_a_slot_heed_a_pause_too(
    client: ProviderClient, provider: Provider
) -> None:
    provider.open.clear()
    provider.failure = GatewayThrottledError("x", retry_after=4)
    callers = [asyncio.create_task(fetch(client, provider, f"pay-{n}")) for n in range(15)]
    await until(lambda: provider.in_flight == 10)
    provider.open.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert len(provider.queries) == 10


async def test_two_idle_minutes_start_the_poll_schedule_anew(
    client: ProviderClient, provider: Provider, clock: Clock
) -> None:
    await fetch(client, provider)
    clock.now += 119
    assert client.retry_after(ID) == 34
    await fetch(client, provider)
    clock.now += 119
    assert client.retry_after(ID) == 34
    clock.now += 1
    await fetch(client, provider)
    assert client.retry_after(ID) == 3


async def test_memory_is_bounded(client: ProviderClient, provider: Provider) -> None:
    await fetch(client, provider, "first")
    for n in range(1023):
        await fetch(client, provider, f"pay-{n}")
    await fetch(client, provider, "first")
    assert provider.queries.count("first") == 1
    for n in range(1024):
        await fetch(client, provider, f"other-{n}")
    await fetch(client, provider, "first")
    assert provider.queries.count("first") == 2


@pytest.mark.parametrize(
    ("cause", "named"), [(OSError("more secret words"), "OSError"), (None, "no cause")], ids=str
)
async def test_a_failure_is_logged_by_its_name_and_not_by_what_a_provider_wrote(
    client: ProviderClient,
    provider: Provider,
    cause: Exception | None,
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.failure = GatewayError("secret words")
    provider.failure.__cause__ = cause
    with caplog.at_level(logging.DEBUG), pytest.raises(TemporarilyUnavailableError) as raised:
        await fetch(client, provider)
    [record] = [record for record in caplog.records if record.name.startswith(PROJECT)]
    assert record.levelno == logging.INFO
    assert record.message == f"The payment provider did not answer: GatewayError ({named})"
    assert "secret" not in caplog.text
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("account_id", [None, "ours"])
async def test_anothers_cooldown_leaves_ours_alone(
    client: ProviderClient, provider: Provider, account_id: str | None
) -> None:
    provider.account_id = account_id
    another = Provider(account_id="another", failure=GatewayThrottledError("x", retry_after=60))
    another.open.set()
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(client, another, "theirs")
    assert await fetch(client, provider)
    with pytest.raises(TemporarilyUnavailableError):
        await fetch(client, another, "theirs too")
    assert another.queries == ["theirs"]


async def test_anothers_slots_are_not_ours(client: ProviderClient, provider: Provider) -> None:
    another = Provider(account_id="another")
    waiting = [asyncio.create_task(fetch(client, another, f"theirs-{n}")) for n in range(20)]
    await until(lambda: another.in_flight == MAX_QUERIES_IN_FLIGHT)
    assert await fetch(client, provider)
    another.open.set()
    await asyncio.gather(*waiting)
    assert another.peak == MAX_QUERIES_IN_FLIGHT


class Lister(Provider):
    """A gateway that lists."""

    page: object = CapturedPage([], None)

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        self.queries.append(f"{since} {cursor}")
        if self.failure:
            raise self.failure
        return cast("CapturedPage", self.page)


async def test_a_list_is_passed_on_and_heeds_the_cooldown(client: ProviderClient) -> None:
    lister = Lister()
    lister.page = CapturedPage([{"id": "a"}], "next")
    assert await client.list_captured(lister, 100.0, "this") is lister.page
    assert lister.queries == ["100.0 this"]
    lister.failure = GatewayThrottledError("x", retry_after=7)
    for _ in range(2):
        with pytest.raises(ProviderThrottledError) as raised:
            await client.list_captured(lister, 0.0, None)
        assert raised.value.retry_after == 7
        lister.failure = None


@pytest.mark.parametrize("page", [None, [], {"items": []}])
async def test_a_list_that_is_none_is_an_invalid_response(client: ProviderClient, page: object) -> None:
    lister = Lister()
    lister.page = page
    with pytest.raises(InvalidProviderResponseError, match=r"^Payment provider sent an unreadable list$"):
        await client.list_captured(lister, 0.0, None)


@pytest.mark.parametrize("failure", [GatewayError("x"), PaymentNotFoundError("x"), OSError("x")])
async def test_a_list_that_fails_is_try_later(client: ProviderClient, failure: Exception) -> None:
    lister = Lister(failure=failure)
    with pytest.raises(ProviderUnavailableError):
        await client.list_captured(lister, 0.0, None)


async def test_a_list_has_more_time_than_a_payment(client: ProviderClient, mocker: MockerFixture) -> None:
    timeout, lister = mocker.spy(asyncio, "timeout"), Lister()
    lister.open.set()
    await client.list_captured(lister, 0.0, None)
    await fetch(client, lister)
    assert [call.args for call in timeout.call_args_list] == [(15.0,), (8.0,)]


async def test_an_earlier_answer_does_not_make_a_failure_that_nobody_waited_for_count(
    client: ProviderClient, provider: Provider
) -> None:
    assert await fetch(client, provider)
    provider.open.clear()
    caller = asyncio.create_task(fetch(client, provider, max_age=0))
    await until(lambda: len(provider.queries) == 2)
    caller.cancel()
    provider.failure = GatewayError("x")
    provider.open.set()
    await until(lambda: provider.in_flight == 0)
    provider.failure = None
    assert await fetch(client, provider, max_age=60)
    assert len(provider.queries) == 3
