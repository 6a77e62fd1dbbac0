"""Ways in which a user might get more than is theirs, or might keep others from what is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from openwebui_billing_reconcile.topup.resources import MAX_PAYMENTS_UNDER_WAY
from tests.support.harness.host import PACKAGE, Host, Program, User, running_host
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator

from .bystander import unharmed
from .host_pair import ROOT, HostPair
from .payments import (
    FOREIGN,
    WEBHOOK,
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

LIMIT = 30
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
    # No more than one worker takes of a user at a time: all of them may come to the same one.
    count = MAX_PAYMENTS_UNDER_WAY
    payments = [str(four_workers.simulator.create(metadata=metadata)["id"]) for _ in range(count)]
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


def test_query_of_a_stranger_serves_the_owner_and_not_the_stranger(
    host_pair: HostPair, user: User, stranger: User
) -> None:
    payment_id = unrecorded(user)
    with ThreadPoolExecutor(2) as pool:
        with host_pair.checkpoints.stopping("provider queried", payment_id) as queried:
            strangers = pool.submit(stranger.reconcile, payment_id)
            assert queried.wait(10)
            owners = pool.submit(user.reconcile, payment_id)
            both_read = lambda: host_pair.checkpoints.steps(payment_id).count("first read") == 2  # noqa: E731
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


# --- The rate limit ------------------------------------------------------------------------------------


def spelled(payment_id: str) -> list[str]:
    """Return the same id in other letters."""
    return [payment_id, f" {payment_id}", f"{payment_id}\n", f"\t{payment_id} ", payment_id.upper()]


def statuses_and_queries(user: User, payments: list[str]) -> tuple[set[int], int]:
    """Reconcile all; return the statuses, and how many queries the provider received."""
    simulator = user.host.simulator
    simulator.forget_requests()
    calls = [partial(user.reconcile, payment_id) for payment_id in payments]
    responses = at_once(calls, threads=MAX_PAYMENTS_UNDER_WAY - 1)
    return {response.status_code for response in responses}, len(simulator.requests())


def test_no_spelling_and_no_crowd_causes_more_queries(sqlite_pair: HostPair) -> None:
    user, stranger = (sqlite_pair.elsewhere(sqlite_pair.host.new_user()) for _ in range(2))
    theirs = unrecorded(stranger)
    guesses = [f"guess-{number}-{user.id}" for number in range(LIMIT)]
    statuses, queries = statuses_and_queries(user, [*guesses, *spelled(theirs), *spelled(unrecorded(user))])
    assert {429} < statuses <= {200, 403, 429}
    assert queries <= LIMIT
    # It costs nobody else anything.
    assert_credited(stranger.reconcile(theirs), theirs)


def test_without_a_rate_limit_there_are_more_queries(sqlite_pair: HostPair) -> None:
    user = sqlite_pair.host.new_user()  # the watched host's limit is set out of reach
    guesses = [f"guess-{number}-{user.id}" for number in range(2 * LIMIT)]
    assert statuses_and_queries(user, guesses) == ({403}, 2 * LIMIT)


# --- Calls without a caller ----------------------------------------------------------------------------


def queries_nothing_late(pair: HostPair, *mutations: str) -> None:
    """A read takes longer than its callers wait; none of their calls goes on after that."""
    user, checkpoints = pair.host.new_user(), pair.checkpoints
    payments = [paid(user) for _ in range(MAX_PAYMENTS_UNDER_WAY - 1)]
    with (
        pair.mutated(*mutations),
        ThreadPoolExecutor(1) as pool,
        checkpoints.stopping("first read", payments[0]) as arrived,
    ):
        first = pool.submit(user.reconcile, payments[0])
        assert arrived.wait(10)
        for response in at_once([partial(user.reconcile, payment_id) for payment_id in payments]):
            assert_refused(response, 503)
        assert_refused(first.result(), 503)
    # This call reads after all that wait for the thread.
    last = paid(user)
    assert_credited(user.reconcile(last), last)
    for payment_id in payments:
        assert pair.host.simulator.questions(payment_id) == 0, "a call goes on without its caller"
        assert topups(pair.host.books, payment_id) == []
    assert_credited(user.reconcile(payments[0]), payments[0])


def test_calls_without_a_caller_query_nothing(host_pair: HostPair) -> None:
    queries_nothing_late(host_pair, "short reply timeout")


def test_where_calls_outlive_their_callers_the_proof_fails(sqlite_pair: HostPair) -> None:
    with pytest.raises(AssertionError, match="without its caller"):
        queries_nothing_late(sqlite_pair, "call outlives its caller")


# --- Malicious plugins in the same process -----------------------------------------------------------


@pytest.fixture(scope="module")
def infiltrated(
    program: Program, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """A host in whose environment a malicious plugin is installed."""
    folder = tmp_path_factory.mktemp("malicious")
    package = folder / "malicious-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: malicious\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[openwebui_billing_reconcile]\nmalicious = tests.faults.malicious_plugin\n"
    )
    env = {"PYTHONPATH": f"{ROOT}:{folder}", "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS": "1"}
    with running_host(program, simulator=simulator, env=env) as host:
        assert "plugins: builtin, builtin_metrics, malicious" in host.log
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
def test_malicious_gateway_is_an_unreachable_provider(infiltrated: Host, what: str, status: int) -> None:
    user, other = infiltrated.new_user(), infiltrated.new_user()
    with unharmed(infiltrated.new_user()):
        assert_refused(user.reconcile(f"{what}_{user.id}"), status)
        payment_id = paid(other)
        # A gateway may have started a cooldown.
        wait_until(lambda: other.reconcile(payment_id).status_code == 200, 10, "nothing works any more")
    assert_one_credit(other, payment_id)


def test_malicious_listener_delays_no_answer(infiltrated: Host) -> None:
    user = infiltrated.new_user()
    held = paid(user)
    infiltrated.simulator.change(held, paid=False)
    assert_refused(user.reconcile(held, timeout=SOON), 409)
    for payment_id in [paid(user) for _ in range(5)]:
        assert_credited(user.reconcile(payment_id, timeout=SOON), payment_id)
    assert user.balance() == 5 * PACKAGE
