"""A Redis of one's own, from the system's package `redis-server`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .ports import free_port
from .waiting import wait_until

START_SECONDS = 30.0
PASSWORD = "redis-password"

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="needs redis-server"
)


class RedisServer:
    """A server on a port of its own, which it keeps when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        settings = ["--bind", "127.0.0.1", "--port", str(self._port), "--requirepass", PASSWORD]
        self._process = subprocess.Popen(
            ["redis-server", *settings, "--dir", str(self._folder), "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, START_SECONDS, "Redis does not answer")

    def kill(self) -> None:
        """End it at once, with all it knows."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections meanwhile, and answers nobody."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client that tries once."""
        with closing(redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))) as client:
            yield client

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Redis died"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Start a server, hand it out, take it away again."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.kill()
