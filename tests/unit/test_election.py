"""One sweeps at a time on a SQLite file, from any loop or process; without a lock everybody does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy import create_engine

from openwebui_billing_reconcile.operate import sweep
from openwebui_billing_reconcile.operate.election import Election
from openwebui_billing_reconcile.operate.sweep import Sweep
from tests.unit.desk import until
from tests.unit.stub_host import StubHost
from tests.unit.test_sweep import Sweeping


class Database:
    """The part of a host that an election needs."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "webui.db"


def election(file: Path) -> Election:
    database: Any = Database(f"sqlite:///{file}")
    return Election(database)


async def test_one_of_two_is_elected_until_the_end(file: Path) -> None:
    first, second = election(file), election(file)
    async with first.candidate() as is_first:
        async with second.candidate() as is_second:
            assert (is_first, is_second) == (True, False)
        async with second.candidate() as is_second:
            assert not is_second
    async with second.candidate() as is_second:
        assert is_second


async def test_the_lock_ends_with_an_error_and_with_cancellation(file: Path) -> None:
    with pytest.raises(OSError, match="x"):
        async with election(file).candidate():
            raise OSError("x")
    entered = asyncio.Event()

    async def wait_for_ever() -> None:
        async with election(file).candidate():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_for_ever())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})
    async with election(file).candidate() as is_elected:
        assert is_elected


def test_loops_of_one_process_take_turns(file: Path) -> None:
    async def other_loop() -> bool:
        async with election(file).candidate() as is_elected:
            return is_elected

    async def elected() -> bool:
        async with election(file).candidate() as is_elected:
            assert is_elected
            return await asyncio.to_thread(asyncio.run, other_loop())

    assert asyncio.run(elected()) is False
    assert asyncio.run(other_loop()) is True


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def hold(lock: Path) -> subprocess.Popen[bytes]:
    """Start a process that holds the lock."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder


async def test_a_process_that_dies_lets_go(file: Path) -> None:
    async with election(file).candidate():
        pass
    (lock,) = file.parent.glob(f"{file.name}.*")
    holder = hold(lock)
    async with election(file).candidate() as is_elected:
        assert not is_elected
    holder.kill()
    holder.communicate()
    async with election(file).candidate() as is_elected:
        assert is_elected


async def lists_of_two_workers(desk: Sweeping, mocker: MockerFixture, file: Path) -> int:
    """Let two workers each take one turn on a database, the second while the first one pauses."""
    mocker.patch.object(type(desk.host), "engine", create_engine(f"sqlite:///{file}"))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) % 2 == 0:  # the first one of each worker comes ahead of its turn
            await asyncio.Event().wait()

    stand_in = mocker.patch.object(sweep, "asyncio", wraps=asyncio)
    stand_in.sleep = pause
    async with AsyncExitStack() as running:
        for turns in (1, 2):
            worker = Sweep(desk.host, desk.reconciler, interval=120)
            await running.enter_async_context(worker.running())
            await until(lambda turns=turns: len(pauses) == 2 * turns)  # type: ignore[misc]
    return len(desk.provider.lists)


async def test_two_workers_make_one_pass_an_interval(
    host: StubHost, mocker: MockerFixture, file: Path
) -> None:
    assert await lists_of_two_workers(Sweeping(host, mocker), mocker, file) == 1


async def test_without_the_election_they_make_two(host: StubHost, mocker: MockerFixture, file: Path) -> None:
    @asynccontextmanager
    async def all_are_elected(_election: Election) -> AsyncIterator[bool]:
        yield True

    mocker.patch.object(Election, "candidate", all_are_elected)
    assert await lists_of_two_workers(Sweeping(host, mocker), mocker, file) == 2


async def test_without_a_file_everybody_is_elected() -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            database: Any = Database("sqlite://")
            assert await stack.enter_async_context(Election(database).candidate())


async def test_where_the_lock_cannot_be_had_everybody_is_elected_and_it_is_said_once(
    file: Path, caplog: pytest.LogCaptureFixture, mocker: MockerFixture
) -> None:
    broken: Any = mocker.Mock()
    type(broken).engine = mocker.PropertyMock(side_effect=OSError("secret"))
    without = Election(broken)
    for _ in range(3):
        async with without.candidate() as is_elected:
            assert is_elected
    assert caplog.messages == ["Workers cannot take turns at sweeping: OSError"]
