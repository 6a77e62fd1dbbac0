"""Two hosts on one database, of which one is watched, and ways to start and to trouble them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.harness.host import Host, Program, User, running_host

from . import CHECKPOINTS
from .checkpoints import Checkpoints

THOROUGH = os.environ.get("PROVE", "") not in {"", "0"}
"""Whether to take the time for the long versions: PROVE=1."""

APP = "tests.faults.app:app"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class HostPair:
    """One database and two hosts of one worker each. The steps of ``host`` are watched."""

    host: Host
    other: Host
    checkpoints: Checkpoints

    @contextmanager
    def mutated(self, *names: str) -> Iterator[None]:
        """Apply mutations to the watched host."""
        mutate(self.host, *names)
        try:
            yield
        finally:
            mutate(self.host)

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """Take all of the watched host's database connections."""
        with self._in_trouble("exhaust"):
            yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse all writes of the watched host to its database."""
        with self._in_trouble("read_only"):
            yield

    def elsewhere(self, user: User) -> User:
        """Return the same user at the other host."""
        return replace(user, host=self.other)

    @contextmanager
    def _in_trouble(self, trouble: str) -> Iterator[None]:
        self.host.http.post(f"/faults/{trouble}", json=True).raise_for_status()
        try:
            yield
        finally:
            self.host.http.post(f"/faults/{trouble}", json=False).raise_for_status()


def mutate(host: Host, *names: str) -> None:
    """Apply these mutations to a watched host and undo all others."""
    host.http.post("/faults/mutations", json=[*names]).raise_for_status()


def watched_host(
    program: Program,
    *,
    checkpoints: Checkpoints | None = None,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> AbstractContextManager[Host]:
    """Start a host that can be mutated; with ``checkpoints`` its workers report their steps."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths)}
    if checkpoints:
        variables[CHECKPOINTS] = str(checkpoints.port)
    return running_host(program, app=APP, env=variables | dict(env or {}), **options)
