"""The hosts under fire, each started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.yookassa.client import Simulator

from .director import Director
from .stage import Stage, watched_host

WORKERS = 4
PLENTY = {"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "1000000/minute"}
DEBUG = {"GLOBAL_LOG_LEVEL": "DEBUG"}
# A connection is waited for two seconds, not thirty.
POOL = {"DATABASE_POOL_SIZE": "5", "DATABASE_POOL_MAX_OVERFLOW": "10", "DATABASE_POOL_TIMEOUT": "2"}


@pytest.fixture(scope="session")
def director() -> Iterator[Director]:
    """Who is told of the workers' steps."""
    director = Director()
    yield director
    director.close()


@pytest.fixture(scope="session")
def sqlite_stage(program: Program, simulator: Simulator, director: Director) -> Iterator[Stage]:
    """SQLite."""
    with watched_host(program, director=director, simulator=simulator, env=DEBUG | PLENTY) as host:
        url = host.environment["DATABASE_URL"]
        with running_host(program, simulator=simulator, database_url=url) as other:
            yield Stage(host, other, director)


@pytest.fixture(scope="session")
def postgres_stage(
    program: Program, simulator: Simulator, director: Director, postgres: Postgres
) -> Iterator[Stage]:
    """PostgreSQL."""
    url, env = postgres.new_database(), DEBUG | PLENTY | POOL
    with (
        watched_host(program, director=director, simulator=simulator, database_url=url, env=env) as host,
        running_host(program, simulator=simulator, database_url=url) as other,
    ):
        yield Stage(host, other, director)


# Not a parametrised session fixture: going to and fro between its parameters would start hosts anew.
@pytest.fixture(params=["sqlite_stage", "postgres_stage"], ids=["sqlite", "postgres"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """The stage, on either database."""
    stage: Stage = request.getfixturevalue(request.param)
    return stage


@pytest.fixture(scope="session")
def sqlite_crowd(program: Program, simulator: Simulator) -> Iterator[Host]:
    """Four workers on SQLite."""
    with running_host(program, simulator=simulator, workers=WORKERS, env=PLENTY) as host:
        yield host


@pytest.fixture(scope="session")
def postgres_crowd(program: Program, simulator: Simulator, postgres: Postgres) -> Iterator[Host]:
    """Four workers on PostgreSQL."""
    url = postgres.new_database()
    with running_host(program, simulator=simulator, workers=WORKERS, database_url=url, env=PLENTY) as host:
        yield host


@pytest.fixture(params=["sqlite_crowd", "postgres_crowd"], ids=["sqlite", "postgres"])
def crowd(request: pytest.FixtureRequest) -> Host:
    """Four workers, on either database."""
    host: Host = request.getfixturevalue(request.param)
    return host


@pytest.fixture
def user(stage: Stage) -> User:
    """Somebody new."""
    return stage.host.new_user()


@pytest.fixture
def stranger(stage: Stage) -> User:
    """Somebody else."""
    return stage.host.new_user()
