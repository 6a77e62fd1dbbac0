"""200 reconcile calls and 20 webhooks for one payment at the same time, on four workers."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from tests.support.harness.host import RECONCILE, Host, User
from tests.support.yookassa.client import Document

from .host_pair import HostPair
from .payments import (
    WEBHOOK,
    assert_books_balance,
    assert_credited,
    assert_one_credit,
    notification,
    paid,
    topups,
    unrecorded,
)

CALLS = 200
WEBHOOKS = 20
LOCKED = ("database is locked", "could not obtain lock", "deadlock detected")


async def _storm(
    host: Host, user: User, payment: Document, calls: int, webhooks: int
) -> list[httpx.Response]:
    # Every request has a connection of its own, so that the workers share them.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=host.base_url, trust_env=False, timeout=60, limits=limits) as http:
        body = {"payment_id": payment["id"]}
        calls_to_make = [http.post(RECONCILE, json=body, headers=user.headers) for _ in range(calls)]
        webhooks_to_send = [http.post(WEBHOOK, json=notification(payment)) for _ in range(webhooks)]
        step = max(1, calls // max(1, webhooks))
        mixed = [*calls_to_make]
        for index, webhook in enumerate(webhooks_to_send):
            mixed.insert(index * (step + 1), webhook)
        return await asyncio.gather(*mixed)


def storm(user: User, payment_id: str, calls: int = CALLS, webhooks: int = WEBHOOKS) -> list[httpx.Response]:
    """Send all at once; return the answers to the reconcile calls."""
    host = user.host
    payment = host.simulator.payment(payment_id)
    responses = asyncio.run(_storm(host, user, payment, calls, webhooks))
    return [response for response in responses if response.request.url.path == RECONCILE]


def withstands(host: Host, user: User, payment_id: str, webhooks: int, calls: int = CALLS) -> None:
    """One entry and the exact balance, no 500, and no worker queries the provider twice."""
    before = len(host.log)
    responses = storm(user, payment_id, calls, webhooks)
    assert len(topups(host.books, payment_id)) == 1
    statuses = Counter(response.status_code for response in responses)
    assert statuses.keys() <= {200, 503}, statuses
    if statuses[503]:
        log = host.log[before:]
        assert any(words in log for words in LOCKED), f"{statuses} and no lock is logged:\n{log[-3000:]}"
    assert statuses[200] > 0
    assert all(r.json()["credited"] for r in responses if r.status_code == 200)
    queries = host.simulator.questions(payment_id) - webhooks  # each webhook sends one
    assert queries <= host.workers, f"{queries} queries"
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)
    assert_books_balance(user)


def test_storm_credits_once(four_workers: Host) -> None:
    user = four_workers.new_user()
    withstands(four_workers, user, paid(user), WEBHOOKS)


def test_storm_without_a_webhook_credits_once(four_workers: Host) -> None:
    user = four_workers.new_user()
    withstands(four_workers, user, paid(user), 0)


def test_storm_about_an_unrecorded_payment_credits_once(four_workers: Host) -> None:
    user = four_workers.new_user()
    payment_id = unrecorded(user)
    responses = storm(user, payment_id, calls=25, webhooks=WEBHOOKS)
    # Of the workers that make the record at the same time only one can; the others are told to come again.
    assert {response.status_code for response in responses} <= {200, 503}
    assert_credited(user.reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)
    assert_books_balance(user)


# --- Negative controls -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mutations", "failure"),
    [
        (("no shared query",), r"\d+ queries"),
        (("no shared query", "no user lock", "no thread slot", "own crediting path"), r"assert \d+ == 1"),
    ],
)
def test_without_its_guards_the_proof_fails(
    postgres_pair: HostPair, mutations: tuple[str, ...], failure: str
) -> None:
    user = postgres_pair.host.new_user()
    payment_id = paid(user)
    with postgres_pair.mutated(*mutations), pytest.raises(AssertionError, match=failure):
        withstands(postgres_pair.host, user, payment_id, 0, calls=20)
