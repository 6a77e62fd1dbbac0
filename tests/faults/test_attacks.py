"""Ways in which somebody might get more than is theirs, or less than is theirs given to somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from sqlalchemy import text

from tests.support.harness.host import PACKAGE, Host, Program, User, running_host
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator

from .bystander import unharmed
from .host_pair import (
    FOREIGN,
    ROOT,
    WEBHOOK,
    HostPair,
    assert_books_balance,
    assert_credited,
    assert_one_credit,
    assert_refused,
    at_once,
    notification,
    paid,
    topups,
    unrecorded,
)

BUDGET = 30
SOON = 3.0  # seconds, on a busy machine


# --- The same wallet, the same moment ------------------------------------------------------------------


def test_many_payments_into_one_wallet_add_up(four_workers: Host) -> None:
    user = four_workers.new_user()
    payments = [paid(user) for _ in range(12)]

    def told(payment_id: str) -> httpx.Response:
        document = four_workers.simulator.payment(payment_id)
        return four_workers.http.post(WEBHOOK, json=notification(document))

    at_once([partial(user.reconcile, p) for p in payments * 2] + [partial(told, p) for p in payments])
    for payment_id in payments:
        assert_credited(user.reconcile(payment_id), payment_id)
        assert len(topups(four_workers.books, payment_id)) == 1
    assert user.balance() == len(payments) * PACKAGE
    assert_books_balance(user)


def test_workers_that_make_the_first_wallet_together_make_one(four_workers: Host) -> None:
    user = four_workers.new_user()
    metadata = {"kind": "topup", "user_id": user.id}
    payments = [str(four_workers.simulator.create(metadata=metadata)["id"]) for _ in range(8)]
    responses = at_once([partial(user.reconcile, payment_id) for payment_id in payments])
    assert {response.status_code for response in responses} <= {200, 503}
    for payment_id in payments:
        assert_credited(user.reconcile(payment_id), payment_id)
    (wallet,) = four_workers.books.wallets(user.id)
    assert wallet["balance_topup_kopeks"] == len(payments) * PACKAGE
    assert_books_balance(user)


def test_payment_is_credited_to_its_owner_whoever_asks_meanwhile(four_workers: Host) -> None:
    owner, *others = (four_workers.new_user() for _ in range(6))
    payment_id = unrecorded(owner)
    calls = [partial(user.reconcile, payment_id) for user in [owner, *others] * 3]
    for user, response in zip([owner, *others] * 3, at_once(calls), strict=True):
        if user is not owner:
            assert (response.status_code, response.json()) == (403, {"detail": FOREIGN})
    assert_credited(owner.reconcile(payment_id), payment_id)
    assert_one_credit(owner, payment_id)
    assert all(user.balance() == 0 for user in others)


# --- The shared answer ---------------------------------------------------------------------------------


def test_question_of_a_stranger_serves_the_owner_and_not_the_stranger(
    host_pair: HostPair, user: User, stranger: User
) -> None:
    payment_id = unrecorded(user)
    with ThreadPoolExecutor(2) as pool:
        with host_pair.checkpoints.stopping("provider asked", payment_id) as asked:
            strangers = pool.submit(stranger.reconcile, payment_id)
            assert asked.wait(10)
            owners = pool.submit(user.reconcile, payment_id)
            both_read = lambda: host_pair.checkpoints.steps(payment_id).count("record read") == 2  # noqa: E731
            wait_until(both_read, 10, "the second call does not come")
        assert_refused(strangers.result(), 403, FOREIGN)
        assert_credited(owners.result(), payment_id)
    assert host_pair.host.simulator.questions(payment_id) == 1
    assert_one_credit(user, payment_id)
    assert stranger.balance() == 0


def test_stranger_who_leaves_takes_nothing_along(host_pair: HostPair, user: User, stranger: User) -> None:
    payment_id = unrecorded(user)
    host_pair.host.simulator.fault(payment_id=payment_id, delay_seconds=1, times=1)
    with pytest.raises(httpx.ReadTimeout):
        stranger.reconcile(payment_id, timeout=0.3)
    assert_credited(user.reconcile(payment_id), payment_id)
    assert host_pair.host.simulator.questions(payment_id) == 1
    assert_one_credit(user, payment_id)


# --- The budget ----------------------------------------------------------------------------------------


def spelled(payment_id: str) -> list[str]:
    """The same id in other letters."""
    return [payment_id, f" {payment_id}", f"{payment_id}\n", f"\t{payment_id} ", payment_id.upper()]


def questions_of(user: User, payments: list[str]) -> int:
    """How many questions all these calls at once lead to."""
    simulator = user.host.simulator
    simulator.forget_requests()
    responses = at_once([partial(user.reconcile, payment_id) for payment_id in payments])
    assert {response.status_code for response in responses} <= {200, 403, 429}
    assert any(response.status_code == 429 for response in responses)
    return len(simulator.requests())


def test_no_spelling_and_no_crowd_buys_more_questions(sqlite_pair: HostPair) -> None:
    user, stranger = (sqlite_pair.elsewhere(sqlite_pair.host.new_user()) for _ in range(2))
    theirs = unrecorded(stranger)
    guesses = [f"guess-{number}-{user.id}" for number in range(BUDGET)]
    assert questions_of(user, [*guesses, *spelled(theirs), *spelled(unrecorded(user))]) <= BUDGET
    # Nor is anybody else any poorer.
    assert_credited(stranger.reconcile(theirs), theirs)


def test_without_a_budget_the_proof_fails(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()
    guesses = [f"guess-{number}-{user.id}" for number in range(2 * BUDGET)]
    with sqlite_pair.mutated("budget"), pytest.raises(AssertionError):
        assert questions_of(user, guesses) <= BUDGET


# --- Stale work ----------------------------------------------------------------------------------------


def test_calls_that_nobody_waits_for_any_more_ask_nothing(postgres_pair: HostPair) -> None:
    asks_nothing_late(postgres_pair, "long replies", "long validity")


def test_without_an_end_of_patience_the_proof_fails(postgres_pair: HostPair) -> None:
    with pytest.raises(AssertionError):
        asks_nothing_late(postgres_pair, "long replies", "young answer")


def asks_nothing_late(host_pair: HostPair, *without: str) -> None:
    """The tables are locked for longer than anybody waits; no call goes on after that."""
    user = host_pair.host.new_user()
    payments = [paid(user) for _ in range(6)]
    with host_pair.mutated(*without):
        with host_pair.host.books.transaction() as stall:
            stall.execute(text("LOCK TABLE billing_payment IN ACCESS EXCLUSIVE MODE"))
            for response in at_once([partial(user.reconcile, payment_id) for payment_id in payments]):
                assert_refused(response, 503)
        looked = lambda: all("row read" in host_pair.checkpoints.steps(p) for p in payments)  # noqa: E731
        wait_until(looked, 10, "the calls do not go on")
        # Whoever calls now stands behind all of them.
        assert_credited(user.reconcile(payments[0]), payments[0])
    for payment_id in payments[1:]:
        assert host_pair.host.simulator.questions(payment_id) == 0
        assert topups(host_pair.host.books, payment_id) == []


# --- Malicious plugins in the same process ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def infiltrated(
    program: Program, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """A host in whose environment a plugin is installed that means harm."""
    folder = tmp_path_factory.mktemp("malicious_plugin")
    package = folder / "malicious_plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: malicious_plugin\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[openwebui_billing_reconcile]\nmalicious = tests.faults.malicious_plugin\n"
    )
    env = {"PYTHONPATH": f"{ROOT}:{folder}", "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS": "1"}
    with running_host(program, simulator=simulator, env=env) as host:
        assert "malicious_plugin" in host.log
        yield host


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("canceled", 503),
        ("status", 502),
        ("never", 503),
        ("group", 503),
        ("odd", 502),
        ("surrogate", 403),
        ("stubborn", 502),
    ],
)
def test_rogue_gateway_is_an_unreachable_provider(infiltrated: Host, what: str, status: int) -> None:
    user, other = infiltrated.new_user(), infiltrated.new_user()
    with unharmed(infiltrated.new_user()):
        assert_refused(user.reconcile(f"{what}_{user.id}"), status)
        payment_id = paid(other)
        # A gateway may have asked for a pause.
        wait_until(lambda: other.reconcile(payment_id).status_code == 200, 10, "nothing works any more")
    assert_one_credit(other, payment_id)


def test_rogue_listener_delays_no_answer(infiltrated: Host) -> None:
    user = infiltrated.new_user()
    held = paid(user)
    infiltrated.simulator.change(held, paid=False)
    assert_refused(user.reconcile(held, timeout=SOON), 409)
    for payment_id in [paid(user) for _ in range(5)]:
        assert_credited(user.reconcile(payment_id, timeout=SOON), payment_id)
    assert user.balance() == 5 * PACKAGE
