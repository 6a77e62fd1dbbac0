"""A rival acts at an exact step of a reconcile call, and the money still arrives exactly once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import httpx
import pytest

from tests.support.harness.host import PACKAGE, User
from tests.support.harness.waiting import wait_until

from .checkpoints import CREDITING_STEPS
from .host_pair import HostPair
from .payments import (
    assert_books_balance,
    assert_credited,
    assert_no_credit,
    assert_one_credit,
    assert_refused,
    paid,
)

Rival = Callable[[HostPair, User, str], object]

# At "credit not committed" the worker holds the wallet's lock, so a rival would have to wait for it.
STEPS = tuple(step for step in CREDITING_STEPS if step != "credit not committed")
# A rival that acts at one of these is seen by the second read, by its first or by all of its statements.
BEFORE_RECORD_READ_AGAIN = STEPS[: STEPS.index("record read again")]
BEFORE_SECOND_READ = STEPS[: STEPS.index("second read")]
BEFORE_COMMIT = STEPS[STEPS.index("second read") : STEPS.index("ledger committed")]
AFTER_COMMIT = STEPS[STEPS.index("ledger committed") :]
ADJUSTMENT = 777

every_step = pytest.mark.parametrize("step", STEPS)


def reconcile_against(
    rival: Rival, host_pair: HostPair, step: str, user: User, payment_id: str
) -> httpx.Response:
    """Reconcile, and let the rival act when the call reaches the step."""
    with host_pair.checkpoints.at(step, payment_id, lambda _: rival(host_pair, user, payment_id)):
        return user.reconcile(payment_id)


# --- The rivals --------------------------------------------------------------------------------------


def webhook(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The notification arrives at another worker after all."""
    assert host_pair.other.webhook(payment_id) == 200


def second_call(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The same user calls another worker too, and is answered first."""
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)


def late_cancellation(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The host is told that the payment was canceled, which is not so, and overwrites its status."""
    host_pair.host.simulator.decline(payment_id)
    assert host_pair.other.webhook(payment_id, "payment.canceled") == 200
    host_pair.host.simulator.pay(payment_id)


def late_capture(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The host is told late that the money was held once, and sets the payment back to pending."""
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
    """The local record is deleted."""
    host_pair.host.books.delete_record(payment_id)


def wallet_deletion(host_pair: HostPair, user: User, _payment_id: str) -> None:
    """The wallet is deleted."""
    host_pair.host.books.delete_wallet(host_pair.host.books.wallet(user.id)["id"])


def other_wallet(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The record now names a wallet in another currency."""
    books = host_pair.host.books
    books.change_record(payment_id, wallet_id=books.add_wallet(user.id, "USD"))


def strangers_wallet(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The record now names another user's wallet."""
    books = host_pair.host.books
    books.change_record(payment_id, wallet_id=books.add_wallet("somebody-else-" + payment_id))


def refund(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The provider refunds the payment."""
    host_pair.host.simulator.refund(payment_id)


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

    def joins(*_: object) -> None:
        before = host_pair.checkpoints.steps(payment_id).count("first read")
        second.append(pool.submit(user.reconcile, payment_id))
        has_read = lambda: host_pair.checkpoints.steps(payment_id).count("first read") > before  # noqa: E731
        wait_until(has_read, 10, "no second call")

    # With a thread for each call it is the user's lock alone that makes the second one wait, and at once.
    with host_pair.mutated("no thread slot"), ThreadPoolExecutor(1) as pool:
        responses = [reconcile_against(joins, host_pair, step, user, payment_id), second[0].result()]
    for response in responses:
        # The second call does not wait until the first has marked what is credited already.
        assert_credited(response, payment_id, payment_status=response.json()["payment_status"])
    assert_one_credit(user, payment_id)
    assert host_pair.checkpoints.steps(payment_id).count("credit not committed") == 1


@pytest.mark.parametrize("step", BEFORE_SECOND_READ)
def test_settled_by_hand_is_not_credited_too(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(adjustment, host_pair, step, user, payment_id)
    assert_refused(response, 409, "settled by hand")
    assert_no_credit(user, payment_id, beside=ADJUSTMENT)


# Another process can act between our read and the host's commit: the host's path does not look for such
# entries. That stays a matter of milliseconds, unless they hold the wallet's lock.
@pytest.mark.parametrize("step", [*BEFORE_COMMIT, "ledger committed"])
def test_settled_by_hand_after_the_second_read_is_still_one_credit(
    host_pair: HostPair, user: User, step: str
) -> None:
    payment_id = paid(user)
    assert_credited(reconcile_against(adjustment, host_pair, step, user, payment_id), payment_id)
    assert_one_credit(user, payment_id, beside=ADJUSTMENT)
    assert_credited(host_pair.elsewhere(user).reconcile(payment_id), payment_id)
    assert_one_credit(user, payment_id, beside=ADJUSTMENT)


def test_settling_reads_decides_and_writes_on_one_thread(host_pair: HostPair, user: User) -> None:
    payment_id = paid(user)
    assert_credited(user.reconcile(payment_id), payment_id)
    reached = host_pair.checkpoints.reached(payment_id)
    settling = CREDITING_STEPS[CREDITING_STEPS.index("record read again") :]
    threads = {checkpoint.step: checkpoint.thread for checkpoint in reached}
    # A host may reach a step of its own twice.
    assert list(dict.fromkeys(c.step for c in reached if c.step in settling)) == [*settling]
    assert len({threads[step] for step in settling}) == 1
    assert threads["provider answered"] not in {threads[step] for step in settling}


def settled_by_hand_while_waiting(host_pair: HostPair, user: User) -> None:
    """A payment is settled by hand while its call waits for another call of the user: it is not credited."""
    first, second = paid(user), paid(user)
    checkpoints = host_pair.checkpoints
    with ThreadPoolExecutor(2) as pool:
        with checkpoints.stopping("path entered", first) as arrived:
            crediting = pool.submit(user.reconcile, first)
            assert arrived.wait(10)
            waiting = pool.submit(user.reconcile, second)
            wait_until(lambda: "provider answered" in checkpoints.steps(second), 10, "no second call")
            adjustment(host_pair, user, second)
            assert "record read again" not in checkpoints.steps(second)
        assert_credited(crediting.result(), first)
        assert_refused(waiting.result(), 409, "settled by hand")
    assert_no_credit(user, second, beside=PACKAGE + ADJUSTMENT)


def test_call_that_waits_for_another_reads_after_it(host_pair: HostPair, user: User) -> None:
    settled_by_hand_while_waiting(host_pair, user)


@every_step
def test_record_that_is_deleted_takes_no_money_with_it(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(deletion, host_pair, step, user, payment_id)
    is_anew = host_pair.host.books.record(payment_id) is not None
    # The host's path creates the record anew, unless it has read the old one already. Real ones read twice.
    if step != "path has the record" or host_pair.host.program.is_reference:
        assert is_anew == (step in STEPS[: STEPS.index("path has the record")])
    answered = "succeeded" if is_anew or step == "proof read" else None
    assert_credited(response, payment_id, payment_status=answered)
    assert_one_credit(user, payment_id, recorded=is_anew)
    again = host_pair.elsewhere(user).reconcile(payment_id)
    assert_credited(again, payment_id, payment_status="succeeded" if is_anew else None)


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
    if step in BEFORE_RECORD_READ_AGAIN:
        assert_refused(response, 409, words)
        assert_no_credit(user, payment_id)
        return
    if response.status_code == 503 and host_pair.host.books.has_claims:
        # The path of newer hosts refuses a record that says otherwise by now.
        assert_no_credit(user, payment_id)
        assert_refused(host_pair.elsewhere(user).reconcile(payment_id), 409, words)
        return
    # The money is where the record said it belongs. That the record says otherwise now is for a person.
    if step == "proof read":
        assert_credited(response, payment_id)
    else:
        assert_refused(response, 409, "in a different way")
    assert_refused(host_pair.elsewhere(user).reconcile(payment_id), 409, "in a different way")
    (entry,) = host_pair.host.books.entries(payment_id)
    assert (entry["wallet_id"], entry["amount_kopeks"]) == (mine, PACKAGE)
    assert_books_balance(user)


@every_step
def test_wallet_that_is_deleted_is_not_credited(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(wallet_deletion, host_pair, step, user, payment_id)
    if step in AFTER_COMMIT:
        assert_credited(response, payment_id)
        return
    if step in BEFORE_COMMIT:
        assert_refused(response, 503)
    else:
        assert_refused(response, 409, "does not exist")
    assert_refused(host_pair.elsewhere(user).reconcile(payment_id), 409, "does not exist")
    assert_no_credit(user, payment_id)


@every_step
def test_refund_counts_as_of_the_providers_answer(host_pair: HostPair, user: User, step: str) -> None:
    payment_id = paid(user)
    response = reconcile_against(refund, host_pair, step, user, payment_id)
    if step in STEPS[: STEPS.index("provider answered")]:
        assert_refused(response, 409, "refunded")
        assert_no_credit(user, payment_id)
    else:
        assert_credited(response, payment_id)
        assert_one_credit(user, payment_id)


def credited_by_webhook(host_pair: HostPair, _user: User, payment_id: str) -> None:
    """The webhook credits in the very moment before a cancellation would be recorded."""
    host_pair.host.simulator.pay(payment_id)
    assert host_pair.other.webhook(payment_id) == 200
    host_pair.host.simulator.decline(payment_id)


def half_credited(host_pair: HostPair, user: User, payment_id: str) -> None:
    """The same, and the host has not marked the payment yet."""
    credited_by_webhook(host_pair, user, payment_id)
    host_pair.host.books.change_record(payment_id, status="pending")


@pytest.mark.parametrize("rival", [credited_by_webhook, half_credited])
@pytest.mark.parametrize("step", ["provider answered", "second read", "cancel entered"])
def test_cancellation_never_overwrites_a_credit(
    host_pair: HostPair, user: User, rival: Rival, step: str
) -> None:
    payment_id = user.topup()
    host_pair.host.simulator.decline(payment_id)
    seen: list[object] = []

    def look(_: object) -> None:
        record = host_pair.host.books.record(payment_id)
        seen.append(record and record["status"])

    # At "provider answered" the second read sees the credit, and nothing is canceled at all.
    is_canceling = step != "provider answered"
    with host_pair.checkpoints.at("canceled", payment_id, look) if is_canceling else nullcontext():
        response = reconcile_against(rival, host_pair, step, user, payment_id)
    assert "canceled" not in seen
    assert_credited(response, payment_id, provider_status="canceled")
    assert_one_credit(user, payment_id)


def test_undecided_payment_writes_nothing_at_any_step(host_pair: HostPair, user: User) -> None:
    payment_id = user.topup()
    before = host_pair.host.books.record(payment_id)
    assert user.reconcile(payment_id).json()["payment_status"] == "pending"
    assert host_pair.host.books.record(payment_id) == before
    writing = CREDITING_STEPS[CREDITING_STEPS.index("path entered") :]
    assert not set(host_pair.checkpoints.steps(payment_id)) & set(writing)


def test_no_connection_is_held_while_the_provider_is_queried(host_pair: HostPair, user: User) -> None:
    payment_id = paid(user)
    held: list[int] = []
    with host_pair.checkpoints.at("provider queried", payment_id, lambda c: held.append(c.connections)):
        assert_credited(user.reconcile(payment_id), payment_id)
    assert held == [0]


# --- Negative controls: with the guard taken out the proof fails --------------------------------------


@pytest.mark.parametrize(
    ("mutation", "proof", "rival", "step", "failure"),
    [
        (
            "no second read",
            test_settled_by_hand_is_not_credited_too,
            None,
            "provider answered",
            "200 == 409",
        ),
        (
            "ledger read before record",
            test_credited_once_against_rivals_for_the_same_money,
            webhook,
            "first read",
            "409 == 200",
        ),
        (
            "no repair",
            test_credited_once_against_rivals_for_the_same_money,
            late_capture,
            "status written",
            "'payment_status': 'pending'",
        ),
        (
            "own crediting path",
            test_credited_once_against_rivals_for_the_same_money,
            webhook,
            "second read",
            "one more item",
        ),
        (
            "unconditional cancel",
            test_cancellation_never_overwrites_a_credit,
            half_credited,
            "cancel entered",
            "'canceled' not in",
        ),
        (
            "unconditional cancel",
            test_cancellation_never_overwrites_a_credit,
            credited_by_webhook,
            "cancel entered",
            "'canceled' not in",
        ),
        ("no proof", test_wallet_that_is_deleted_is_not_credited, None, "second read", "200 == 503"),
    ],
)
def test_without_its_guard_the_proof_fails(
    host_pair: HostPair,
    user: User,
    mutation: str,
    proof: Callable[..., None],
    rival: Rival | None,
    step: str,
    failure: str,
) -> None:
    named = {"rival": rival} if rival else {}
    with host_pair.mutated(mutation), pytest.raises(AssertionError, match=failure):
        proof(host_pair, user, step=step, **named)


def test_without_lock_and_slot_the_proof_fails(host_pair: HostPair, user: User) -> None:
    with (
        host_pair.mutated("no user lock", "no thread slot"),
        pytest.raises(AssertionError, match=r"'record read again' not in|200 == 409"),
    ):
        settled_by_hand_while_waiting(host_pair, user)
