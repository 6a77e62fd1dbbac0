"""Options and servers for the tests that run a whole host."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.harness.host import Program
from tests.support.harness.postgres import Postgres, running_postgres
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import running_simulator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Point the tests at another host than the reference host."""
    group = parser.getgroup("host")
    group.addoption("--host-dir", type=Path, metavar="DIR", help="backend folder of the host to test")
    group.addoption("--host-shape", choices=("p", "n"), default="p", help="of the reference host")
    group.addoption("--host-python", metavar="PYTHON", help="the Python that runs it, plugin installed")


def pytest_configure() -> None:
    """Look for garbage seldom: there is little, and looking took a twentieth of the unit tests' time."""
    gc.set_threshold(50_000, 50, 50)


def pytest_collection_finish() -> None:
    """Never look for garbage among what was collected: it stays to the end."""
    gc.freeze()


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> Program:
    """The host under test."""
    folder, python = pytestconfig.getoption("--host-dir"), pytestconfig.getoption("--host-python")
    reference = Program(shape=pytestconfig.getoption("--host-shape"))
    return replace(
        reference, folder=folder.resolve() if folder else reference.folder, python=python or reference.python
    )


@pytest.fixture(scope="session")
def newer_program(program: Program) -> Program:
    """The reference host in the newer host's shape; a real host has one shape only."""
    if not program.is_reference:
        pytest.skip("only the reference host has a second shape")
    return replace(program, shape="n")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL, one for each test process."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """The provider, with a test shop."""
    with running_simulator() as provider:
        yield provider
