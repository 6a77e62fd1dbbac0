"""Workers with a Redis share budgets and the provider's pause; without it they go on, each for itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.redis import PASSWORD, RedisServer, needs_redis, running_redis
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator

from . import answers
from .scenarios import assert_credited_once, no_queries, paid

pytestmark = needs_redis

OURS = "openwebui_billing_reconcile"
PATIENCE = 15.0
OUTAGE, RECOVERY = "Redis does not answer", "Redis answers again"


@pytest.fixture
def host_without_redis(program: Program) -> None:
    """A host that itself can do without: real ones look up there whether a token was revoked."""
    if not program.is_reference:
        pytest.skip("this host's own authentication needs its Redis")


@contextmanager
def running_pair(
    program: Program, simulator: Simulator, folder: Path, flags: Mapping[str, str]
) -> Iterator[tuple[Host, Host]]:
    """Two workers on two machines, as it were: hosts of their own on one database."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                running_host(
                    program, simulator=simulator, database_url=f"sqlite:///{folder}/webui.db", env=flags
                )
            )
            for _ in range(2)
        )
        yield first, second


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def pair(
    program: Program, simulator: Simulator, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Host, Host]]:
    flags = {"REDIS_URL": redis.url, "BILLING_TOPUP_RECONCILE_RATE_LIMIT": "3/minute;100/hour"}
    with running_pair(program, simulator, tmp_path_factory.mktemp("pair"), flags) as hosts:
        yield hosts


@pytest.fixture
def users(pair: tuple[Host, Host]) -> tuple[User, User]:
    """One person, at either worker, while Redis answers both."""
    for host in pair:
        wait_until(partial(has_redis, host), PATIENCE, "Redis is not back")
    user = pair[0].new_user()
    return user, replace(user, host=pair[1])


def has_redis(host: Host) -> bool:
    """Whether Redis answers the host; where it did not, the host is made to ask again."""
    if host.log.count(OUTAGE) > host.log.count(RECOVERY):
        somebody = host.new_user()
        somebody.reconcile(somebody.topup())
    return host.log.count(OUTAGE) == host.log.count(RECOVERY)


def pending(user: User) -> None:
    """Send a query that is answered."""
    payment_id = user.topup()
    answers.undecided(user.reconcile(payment_id), payment_id, "pending", "pending")


def used_up(user: User) -> None:
    """Ask for a query that the rate limit refuses."""
    payment_id = user.topup()
    with no_queries(user.host.simulator):
        response = user.reconcile(payment_id)
        answers.error(response, 429, retryable=True)
        assert 1 <= answers.retry_after(response) <= 60


def test_workers_share_one_rate_limit(users: tuple[User, User]) -> None:
    here, there = users
    for user in (here, there, here):
        pending(user)
    for user in (there, here):
        used_up(user)


def test_rate_limit_is_still_each_users_own(pair: tuple[Host, Host]) -> None:
    for host in pair:
        user = host.new_user()
        for _ in range(3):
            pending(user)


def test_workers_share_one_cooldown(users: tuple[User, User]) -> None:
    here, there = users
    first, second = paid(here), paid(there)
    busy = {"type": "error", "code": "too_many_requests", "retry_after": 2500}
    here.host.simulator.fault(payment_id=first, status=429, body=busy)
    began = time.monotonic()
    assert answers.temporarily_unavailable(here.reconcile(first)) == 3
    here.host.simulator.clear_faults()
    with no_queries(here.host.simulator):
        assert answers.temporarily_unavailable(there.reconcile(second)) in {1, 2, 3}
    wait_until(lambda: there.reconcile(second).status_code == 200, 10, "the cooldown does not end")
    assert time.monotonic() - began > 2
    assert_credited_once(there, second)


def test_a_hold_is_logged_once_by_all_workers(users: tuple[User, User]) -> None:
    payment_id = paid(users[0])
    users[0].host.simulator.refund(payment_id, "100.00")
    for user in (*users, *users):
        answers.held(user.reconcile(payment_id), HoldReason.REFUNDED)

    def lines() -> list[str]:
        log = "".join(user.host.log for user in users)
        return [line for line in log.splitlines() if f"nothing credited: payment={payment_id}" in line]

    wait_until(lambda: bool(lines()), 30, "the hold is not logged")
    assert len(lines()) == 1


def test_keys_are_named_after_host_and_plugin_and_expire(
    users: tuple[User, User], redis: RedisServer
) -> None:
    pending(users[0])
    with redis.client() as client:
        keys = {key.decode() for key in client.scan_iter(f"*{OURS}*")}
        assert f"open-webui:{OURS}:queries:{users[0].id}" in keys
        assert all(key.startswith(f"open-webui:{OURS}:") and client.pttl(key) > 0 for key in keys)


@pytest.mark.usefixtures("host_without_redis")
def test_without_redis_everybody_goes_on(program: Program, simulator: Simulator, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_redis())
        flags = {"REDIS_URL": server.url, "BILLING_TOPUP_RECONCILE_RATE_LIMIT": "4/minute"}
        pair = stack.enter_context(running_pair(program, simulator, tmp_path, flags))
        here = pair[0].new_user()
        there = replace(here, host=pair[1])
        pending(here)
        pending(there)
        server.kill()
        for user, left in ((here, 3), (there, 3)):  # each worker remembers what it has granted
            payments = [paid(user) for _ in range(left)]
            for payment_id in payments:
                answers.credited(user.reconcile(payment_id), payment_id)
            used_up(user)
        assert [host.log.count(OUTAGE) for host in pair] == [1, 1]
        server.start()
        wait_until(partial(has_redis, pair[0]), PATIENCE, "Redis is not back")
        assert pair[0].log.count(RECOVERY) == 1
        for host in pair:
            assert PASSWORD not in host.log
    for host in pair:
        assert "Traceback" not in host.log


@pytest.mark.usefixtures("host_without_redis")
def test_a_redis_that_hangs_is_not_waited_for(users: tuple[User, User], redis: RedisServer) -> None:
    here, _ = users
    payment_id = paid(here)
    with redis.hanging():
        began = time.monotonic()
        answers.credited(here.reconcile(payment_id), payment_id)
        assert time.monotonic() - began < 2
