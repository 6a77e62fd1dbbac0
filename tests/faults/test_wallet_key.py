"""Exactly once where the ledger's key holds the wallet: credits go to the wallet that the record names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.harness.host import PACKAGE, Host, Program, User
from tests.support.harness.postgres import Postgres
from tests.support.yookassa.client import Simulator, rubles

from .conftest import NO_RATE_LIMIT
from .host_pair import mutate, watched_host
from .payments import assert_one_credit, at_once, paid, topups, unrecorded


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def host(
    request: pytest.FixtureRequest, newer_program: Program, simulator: Simulator, postgres: Postgres
) -> Iterator[Host]:
    """Yield a host of the newer shape that can be mutated."""
    options: dict[str, Any] = {}
    if request.param == "postgres":
        options = {"database_url": postgres.new_database()}
    with watched_host(newer_program, simulator=simulator, env=NO_RATE_LIMIT, **options) as host:
        yield host


@pytest.fixture
def user(host: Host) -> User:
    """Return a user with two wallets, in roubles and in dollars."""
    user = host.new_user()
    user.balance()
    host.books.add_wallet(user.id, "USD")
    return user


def entries_after_everybody_came(host: Host, user: User, payment_id: str) -> int:
    """Let returns and webhooks come at the same moment; the number of credits there are then."""
    at_once([partial(user.reconcile, payment_id)] * 10 + [partial(host.webhook, payment_id)] * 3)
    host.webhook(payment_id)
    return len(topups(host.books, payment_id))


def test_returns_and_webhooks_credit_once(host: Host, user: User) -> None:
    payment_id = paid(user)
    assert entries_after_everybody_came(host, user, payment_id) == 1
    assert_one_credit(user, payment_id)


def test_a_credit_to_another_wallet_would_be_paid_twice(host: Host, user: User) -> None:
    payment_id = paid(user)
    mutate(host, "any wallet")
    try:
        user.reconcile(payment_id)
    finally:
        mutate(host)
    assert host.webhook(payment_id) == 200
    assert len(topups(host.books, payment_id)) == 2


def test_without_a_record_they_credit_once(host: Host, user: User) -> None:
    payment_id = unrecorded(user)
    assert entries_after_everybody_came(host, user, payment_id) == 1
    assert host.books.wallet(user.id)["balance_topup_kopeks"] == PACKAGE


def test_a_record_without_a_wallet_is_credited_once(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=None)
    assert entries_after_everybody_came(host, user, payment_id) == 1
    assert host.books.wallet(user.id)["balance_topup_kopeks"] == PACKAGE


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_release_makes_the_record_name_the_wallet_that_it_credits(
    host: Host, user: User, is_recorded: bool
) -> None:
    wallet_id = host.books.wallet(user.id)["id"]
    if is_recorded:
        payment_id, reason = paid(user), "wallet_missing"
        host.books.change_record(payment_id, wallet_id="gone")
    else:
        payment_id, reason = unrecorded(user), "amount_mismatch"
        metadata = host.simulator.payment(payment_id)["metadata"]
        host.simulator.change(payment_id, amount=rubles("250.50"), metadata=metadata)
    release = partial(host.admin.release, payment_id, reason)
    responses = at_once([release] * 5)
    assert [response.status_code for response in responses].count(200) == 1
    host.webhook(payment_id)
    record = host.books.record(payment_id)
    assert record is not None
    assert record["wallet_id"] == wallet_id
    (entry,) = host.books.entries(payment_id)
    assert (entry["wallet_id"], entry["amount_kopeks"]) == (wallet_id, PACKAGE if is_recorded else 25_050)


def test_a_claim_for_an_auto_topup_is_given_back(host: Host, user: User) -> None:
    for settle in (host.simulator.pay, host.simulator.decline):
        payment_id = user.topup()
        host.books.change_record(payment_id, auto_topup_claim_key=f"auto_topup:{payment_id}")
        settle(payment_id)
        assert user.reconcile(payment_id).status_code == 200
        record = host.books.record(payment_id)
        assert record is not None
        assert record["auto_topup_claim_key"] is None
