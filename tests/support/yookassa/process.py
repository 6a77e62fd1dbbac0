"""Servers as processes of their own, for as long as a test needs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.support.fork_server import ForkedProcess, fork_server

from .client import Simulator

ROOT = Path(__file__).parents[3]
STARTED = r"listening on (http://\S+)"
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class ServerProcess:
    """A server that says on stdout or stderr where it listens."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        started: str = STARTED,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        is_forked: bool = False,
    ) -> None:
        self._started = re.compile(started)
        self._url: str | None = None
        self._known = threading.Event()
        self._lines: list[str] = []
        start = fork_server().start if is_forked else _execute
        self._process: subprocess.Popen[str] | ForkedProcess
        self._process = start(command, os.environ if env is None else env, cwd)
        # Both are read all the time: a full pipe would stop the server.
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """What it has written so far, both streams in the order of arrival."""
        return "".join(self._lines)

    def wait_until_started(self, seconds: float = START_SECONDS) -> str:
        """The server's address, once it has said it."""
        self._known.wait(seconds)
        if self._url is None:
            self.stop()
            raise RuntimeError(f"did not start (exit status {self.returncode}):\n{self.output}")
        return self._url

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask it to end, insist after a while, and say how it ended."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for reader in self._readers:
            reader.join()
        return self._process.wait()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.append(line)
                match = self._started.search(line)
                if match:
                    self._url = match[1]
                    self._known.set()
        self._process.wait()
        self._known.set()


def _execute(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # so that a server that will not end takes its workers along
    )


@contextmanager
def running_server(
    command: Sequence[str],
    *,
    started: str = STARTED,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    start_seconds: float = START_SECONDS,
    is_forked: bool = False,
) -> Iterator[tuple[str, ServerProcess]]:
    """Start a server, hand out its address, stop it; fail with its output if it died meanwhile.

    `started` is a regular expression for the line that says where it listens; its first group is
    the address. For uvicorn's own words: `r"running on (http://\\S+)"`.
    """
    server = ServerProcess(command, started=started, env=env, cwd=cwd, is_forked=is_forked)
    try:
        url = server.wait_until_started(start_seconds)
        with _noticing_death(server):
            yield url, server
    finally:
        server.stop()


@contextmanager
def _noticing_death(server: ServerProcess) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if server.returncode is not None:
            error.add_note(f"The server died (exit status {server.returncode}):\n{server.output}")
        raise
    if server.returncode is not None:
        raise RuntimeError(f"The server died (exit status {server.returncode}):\n{server.output}")


@contextmanager
def running_simulator(
    *,
    shop_id: str = "100500",
    secret_key: str = "test_secret",
    webhook_url: str | None = None,
    port: int = 0,
) -> Iterator[Simulator]:
    """The simulator in a process of its own."""
    command = [sys.executable, "-m", "tests.support.yookassa", "--port", str(port)]
    command += ["--shop-id", shop_id, "--secret-key", secret_key]
    if webhook_url is not None:
        command += ["--webhook-url", webhook_url]
    with ExitStack() as stack:
        url, _server = stack.enter_context(running_server(command, is_forked=True))
        yield stack.enter_context(Simulator(url, shop_id, secret_key))
