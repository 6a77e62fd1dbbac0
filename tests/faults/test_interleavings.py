"""A rival does its worst at an exact step of a reconcile call, and the money still arrives exactly once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import httpx
import pytest

from tests.support.harness.host import PACKAGE, User
from tests.support.harness.waiting import wait_until

from .checkpoints import ON_THE_WAY
from .host_pair import (
    HostPair,
    assert_books_balance,
    assert_credited,
    assert_no_credit,
    assert_one_credit,
    assert_refused,
    paid,
)

Rival = Callable[[HostPair, User, str], object]

# A rival has to wait while the worker holds the wallet's lock: nobody else can act on the wallet then.
STEPS = tuple(step for step in ON_THE_WAY if step != "credit not committed")
BEFORE_LAST_LOOK = STEPS[: STEPS.index("books read again")]
AFTER_LAST_LOOK = STEPS[STEPS.index("books read again") :]
AFTER_WALLET_READ = STEPS[STEPS.index("wallet read") :]
AFTER_COMMIT = STEPS[STEPS.index("ledger committed") :]
ADJUSTMENT = 777

every_step = pytest.mark.parametrize("step", STEPS)


def reconcile_against(
    rival: Rival, host_pair: HostPair, step: str, user: User, payment_id: str
) -> httpx.Response:
    """Reconcile, and let the rival in when the call comes to the step."""
    with host_pair.checkpoints.at(step, payment_id, lambda _: rival(host_pair, user, payment_id)):
        return user.reconcile(payment_id)


# --- The rivals --------------------------------------------------------------------------------------


def webhook(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The notification comes after all, to another worker."""
    assert host_pair.other.webhook(payment_id) == 200


def second_call(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The same person asks another worker too, and is answered first."""
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)


def late_cancellation(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The host believes that the payment was canceled and overwrites whatever it had; it was not."""
    host_pair.host.simulator.decline(payment_id)
    assert host_pair.other.webhook(payment_id, "payment.canceled") == 200
    host_pair.host.simulator.pay(payment_id)


def late_capture(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The host hears late that the money was held once, and takes the payment back to pending."""
    host_pair.host.simulator.hold(payment_id)
    assert host_pair.other.webhook(payment_id, "payment.waiting_for_capture") == 200
    host_pair.host.simulator.pay(payment_id)


def adjustment(host_pair: HostPair, user: User, payment_id: str) -> None:
    """An administrator settles the payment by hand."""
    body = {"delta_topup_kopeks": ADJUSTMENT, "reason": "paid, not credited", "reference_id": payment_id}
    path = f"/api/v1/admin/billing/users/{user.id}/wallet/adjust"
    answer = host_pair.other.http.post(path, json=body, headers=host_pair.host.admin.headers)
    answer.raise_for_status()


def deletion(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The local record goes."""
    host_pair.host.books.delete_record(payment_id)


def other_wallet(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The record now names a wallet in another currency."""
    host_pair.host.books.change_record(payment_id, wallet_id=host_pair.host.books.add_wallet(user.id, "USD"))


def strangers_wallet(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The record now names somebody else's wallet."""
    elsewhere = host_pair.host.books.add_wallet("somebody-else-" + payment_id)
    host_pair.host.books.change_record(payment_id, wallet_id=elsewhere)


# --- The proofs --------------------------------------------------------------------------------------


@every_step
@pytest.mark.parametrize("rival", [webhook, second_call, late_cancellation, late_capture])
def test_credited_once_against_rivals_for_the_same_money(
    host_pair: HostPair, user: User, rival: Rival, step: str
) -> None:
    payment_id = paid(user)
    assert_credited(reconcile_against(rival, host_pair, step, user, payment_id), payment_id)
    # What the host overwrote at the very last step is put right by the next call.
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id)


@every_step
def test_second_call_at_the_same_worker_waits_for_the_first(
    host_pair: HostPair, user: User, step: str
) -> None:
    payment_id = paid(user)
    second: list[Future[httpx.Response]] = []

    def joins(_stage: HostPair, _user: User, _payment_id: str) -> None:
        arrived = "row read" if step != "row read" else "record read"
        before = host_pair.checkpoints.steps(payment_id).count(arrived)
        second.append(pool.submit(user.reconcile, payment_id))
        wait_until(
            lambda: host_pair.checkpoints.steps(payment_id).count(arrived) > before, 10, "no second call"
        )

    with ThreadPoolExecutor(1) as pool:
        responses = [reconcile_against(joins, host_pair, step, user, payment_id), second[0].result()]
    for response in responses:
        # The one does not wait until the other has marked what is credited already.
        assert_credited(response, payment_id, payment_status=response.json()["payment_status"])
    assert_one_credit(user, payment_id)
    assert host_pair.checkpoints.steps(payment_id).count("credit not committed") == 1


@pytest.mark.parametrize("step", BEFORE_LAST_LOOK)
def test_settled_by_hand_is_not_credited_too(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(adjustment, host_pair, step, user, payment_id)
    assert_refused(response, 409, "settled by hand")
    assert_no_credit(user, payment_id, beside=ADJUSTMENT)


@pytest.mark.parametrize("step", AFTER_LAST_LOOK)
def test_settled_by_hand_after_our_last_look_is_still_one_credit(
    host_pair: HostPair, user: User, step: str
) -> None:
    payment_id = paid(user)
    assert_credited(reconcile_against(adjustment, host_pair, step, user, payment_id), payment_id)
    assert_one_credit(user, payment_id, beside=ADJUSTMENT)
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id, beside=ADJUSTMENT)


@every_step
def test_record_that_goes_takes_no_money_with_it(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(deletion, host_pair, step, user, payment_id)
    # The host makes the record anew, unless it has looked at the old one already.
    made_anew = step in STEPS[: STEPS.index("path has the record")]
    answered = "succeeded" if made_anew or step == "proof read" else None
    assert_credited(response, payment_id, payment_status=answered)
    assert_one_credit(user, payment_id, recorded=made_anew)
    again = host_pair.elsewhere(user).reconcile(payment_id)
    assert_credited(again, payment_id, payment_status="succeeded" if made_anew else None)


@every_step
@pytest.mark.parametrize(
    ("rival", "words"), [(other_wallet, "another currency"), (strangers_wallet, "not yours")]
)
def test_wallet_changed_meanwhile_gets_nothing(
    host_pair: HostPair, user: User, rival: Rival, words: str, step: str
) -> None:
    payment_id = paid(user)
    mine = host_pair.host.books.wallet(user.id)["id"]
    response = reconcile_against(rival, host_pair, step, user, payment_id)
    if step in BEFORE_LAST_LOOK:
        assert_refused(response, 409, words)
        assert_no_credit(user, payment_id)
        return
    # The money is where the record said it belongs; that the record now says otherwise is for a person.
    if step == "proof read":
        assert_credited(response, payment_id)
    else:
        assert_refused(response, 409, "in a different way")
    assert_refused(host_pair.elsewhere(user).reconcile(payment_id), 409, "in a different way")
    (entry,) = host_pair.host.books.entries(payment_id)
    assert (entry["wallet_id"], entry["amount_kopeks"]) == (mine, PACKAGE)
    assert_books_balance(user)


@every_step
def test_wallet_that_goes_is_not_credited(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    mine = host_pair.host.books.wallet(user.id)["id"]
    response = reconcile_against(
        lambda host_pair, _user, _payment_id: host_pair.host.books.delete_wallet(mine),
        host_pair,
        step,
        user,
        payment_id,
    )
    if step in AFTER_COMMIT:
        assert_credited(response, payment_id)
        return
    if step in AFTER_WALLET_READ:
        assert_refused(response, 503)
    else:
        assert_refused(response, 409, "does not exist")
    assert_refused(host_pair.elsewhere(user).reconcile(payment_id), 409, "does not exist")
    assert_no_credit(user, payment_id)


@every_step
def test_refund_counts_as_of_the_providers_answer(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(
        lambda host_pair, _user, payment_id: host_pair.host.simulator.refund(payment_id),
        host_pair,
        step,
        user,
        payment_id,
    )
    if step in STEPS[: STEPS.index("provider answered")]:
        assert_refused(response, 409, "refunded")
        assert_no_credit(user, payment_id)
    else:
        assert_credited(response, payment_id)
        assert_one_credit(user, payment_id)


def credited_against_all(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The webhook credits in the very moment before we would record a cancellation."""
    host_pair.host.simulator.pay(payment_id)
    assert host_pair.other.webhook(payment_id) == 200
    host_pair.host.simulator.decline(payment_id)


def half_credited(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The same, and the host has not come to marking the payment yet."""
    credited_against_all(host_pair, user, payment_id)
    host_pair.host.books.change_record(payment_id, status="pending")


@pytest.mark.parametrize("rival", [credited_against_all, half_credited])
@pytest.mark.parametrize("step", ["provider answered", "books read again", "cancel entered"])
def test_cancellation_never_overwrites_a_credit(
    host_pair: HostPair, user: User, rival: Rival, step: str
) -> None:
    payment_id = user.topup()
    host_pair.host.simulator.decline(payment_id)
    seen: list[object] = []

    def look(_: object) -> None:
        record = host_pair.host.books.record(payment_id)
        seen.append(record and record["status"])

    at_the_end = step != "provider answered"  # else the credit is seen and nothing is canceled at all
    with host_pair.checkpoints.at("canceled", payment_id, look) if at_the_end else nullcontext():
        response = reconcile_against(rival, host_pair, step, user, payment_id)
    assert "canceled" not in seen
    assert_credited(response, payment_id, provider_status="canceled")
    assert_one_credit(user, payment_id)


def test_undecided_payment_writes_nothing_at_any_step(host_pair: HostPair, user: User) -> None:
    payment_id = user.topup()
    before = host_pair.host.books.record(payment_id)
    assert user.reconcile(payment_id).json()["payment_status"] == "pending"
    assert host_pair.host.books.record(payment_id) == before
    assert not set(host_pair.checkpoints.steps(payment_id)) & set(AFTER_WALLET_READ[1:])


def test_no_connection_is_held_while_the_provider_thinks(host_pair: HostPair, user: User) -> None:
    payment_id = paid(user)
    held: list[int] = []
    with host_pair.checkpoints.at(
        "provider asked", payment_id, lambda passing: held.append(passing.connections)
    ):
        assert_credited(user.reconcile(payment_id), payment_id)
    assert held == [0]


# --- Negative controls: with a guard taken out the proof fails ----------------------------------------


@pytest.mark.parametrize(
    ("guard", "proof", "rival", "step"),
    [
        ("second look", test_settled_by_hand_is_not_credited_too, None, "provider answered"),
        ("record before ledger", test_credited_once_against_rivals_for_the_same_money, webhook, "row read"),
        ("repair", test_credited_once_against_rivals_for_the_same_money, late_capture, "status written"),
        ("the host's path", test_credited_once_against_rivals_for_the_same_money, webhook, "wallet read"),
        ("careful cancel", test_cancellation_never_overwrites_a_credit, half_credited, "cancel entered"),
        (
            "careful cancel",
            test_cancellation_never_overwrites_a_credit,
            credited_against_all,
            "cancel entered",
        ),
        ("proof", test_wallet_that_goes_is_not_credited, None, "wallet read"),
    ],
)
def test_without_its_guard_the_proof_fails(
    host_pair: HostPair, user: User, guard: str, proof: Callable[..., None], rival: Rival | None, step: str
) -> None:
    named = {"rival": rival} if rival else {}
    with host_pair.mutated(guard), pytest.raises(AssertionError):
        proof(host_pair, user, step=step, **named)
