"""A visit reconciles the user's own open top-ups, each with its own outcome, and asks about nothing else."""

from __future__ import annotations

import time
from typing import Any

import httpx

from openwebui_billing_reconcile.errors import RateLimitedError
from tests.support.harness.host import Host, User
from tests.support.yookassa.client import Simulator

from . import answers
from .scenarios import StartHost, assert_credited_once, no_queries, nothing_written, paid, unrecorded

HOUR = 60 * 60


def visited(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the payments of a 200."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body.keys() == {"payments"}
    return list(body["payments"])


def outcome(payment_id: str, provider: str | None, record: str, **more: Any) -> dict[str, Any]:
    """Return what a visit says about one payment."""
    return {
        "payment_id": payment_id,
        "provider_status": provider,
        "payment_status": record,
        "credited": False,
    } | more


def test_paid_topups_are_credited_the_newest_first(host: Host, user: User) -> None:
    older, newer = paid(user), paid(user)
    host.books.change_record(older, created_at=int(time.time()) - HOUR)
    response = user.reconcile_pending()
    assert visited(response) == [
        outcome(newer, "succeeded", "succeeded", credited=True),
        outcome(older, "succeeded", "succeeded", credited=True),
    ]
    assert "retry-after" not in response.headers
    assert user.balance() == 200_000
    record = host.books.record(older)
    assert record is not None
    assert record["raw_payload_json"]["metadata"]["reconciled_by"] == "visit"


def test_without_open_topups_nobody_is_asked(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        response = user.reconcile_pending()
        assert visited(response) == []
    assert "retry-after" not in response.headers


def test_only_own_open_topups_of_the_last_day_are_asked_about(host: Host, user: User, stranger: User) -> None:
    theirs, old, subscription = paid(stranger), paid(user), paid(user)
    host.books.change_record(old, created_at=int(time.time()) - 25 * HOUR)
    host.books.change_record(subscription, kind="subscription")
    canceled = paid(user)
    host.books.change_record(canceled, status="canceled")
    unrecorded(user)
    with no_queries(host.simulator), nothing_written(user, stranger, about=theirs):
        assert visited(user.reconcile_pending()) == []


def test_the_newest_five_are_asked_about(host: Host, user: User) -> None:
    payment_ids = [user.topup() for _ in range(6)]
    for age, payment_id in enumerate(payment_ids):
        host.books.change_record(payment_id, created_at=int(time.time()) - age * HOUR)
    topups = visited(user.reconcile_pending())
    assert [topup["payment_id"] for topup in topups] == payment_ids[:5]


def test_undecided_ones_are_polled_by_the_schedule(user: User) -> None:
    payment_id = user.topup()
    for earliest, latest in ((1, 3), (1, 5)):
        response = user.reconcile_pending()
        assert visited(response) == [outcome(payment_id, "pending", "pending")]
        assert earliest <= answers.retry_after(response) <= latest


def test_one_that_errs_does_not_fail_the_others(host: Host, user: User) -> None:
    sound, mismatch, silent, canceled = paid(user), paid(user), paid(user), user.topup()
    host.simulator.change(mismatch, amount={"value": "1.00", "currency": "RUB"})
    host.simulator.fault(payment_id=silent, status=500)
    host.simulator.decline(canceled)
    response = user.reconcile_pending()
    topups = {topup["payment_id"]: topup for topup in visited(response)}
    assert topups == {
        sound: outcome(sound, "succeeded", "succeeded", credited=True),
        mismatch: outcome(mismatch, "succeeded", "pending", reason="amount_mismatch"),
        silent: outcome(silent, None, "pending", reason="provider_unavailable"),
        canceled: outcome(canceled, "canceled", "canceled"),
    }
    assert answers.retry_after(response) >= 1  # for the silent one


def test_what_is_held_is_not_polled(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.simulator.change(payment_id, amount={"value": "1.00", "currency": "RUB"})
    response = user.reconcile_pending()
    assert visited(response)[0]["reason"] == "amount_mismatch"
    assert "retry-after" not in response.headers


def test_a_visit_beside_a_return_credits_once(user: User) -> None:
    payment_id = paid(user)
    topups = visited(user.reconcile_pending())
    assert [topup["credited"] for topup in topups] == [True]
    answers.credited(user.reconcile(payment_id), payment_id)
    assert_credited_once(user, payment_id)


def test_visits_count_against_the_users_rate_limit(simulator: Simulator, start_host: StartHost) -> None:
    host = start_host(simulator, BILLING_TOPUP_RECONCILE_RATE_LIMIT="2/minute")
    user = host.new_user()
    for _ in range(3):
        paid(user)
    topups = visited(user.reconcile_pending())
    assert sorted(topup["credited"] for topup in topups) == [False, True, True]
    (refused,) = (topup for topup in topups if not topup["credited"])
    assert (refused["reason"], refused["provider_status"]) == (RateLimitedError.reason, None)


def test_signed_in_users_only(host: Host) -> None:
    assert host.http.post("/api/v1/billing/topup/reconcile/pending").status_code in {401, 403}


def test_without_wallets_it_is_not_found(simulator: Simulator, start_host: StartHost) -> None:
    host = start_host(simulator, ENABLE_BILLING_WALLET="false")
    response = host.new_user().reconcile_pending()
    assert (response.status_code, response.json()) == (404, {"detail": answers.WALLET_OFF})
