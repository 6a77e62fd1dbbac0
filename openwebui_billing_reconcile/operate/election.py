"""One worker sweeps at a time, so that several do not ask the provider for the same list.

It saves queries only: that a payment is credited once never depends on it. So where no lock can be had,
every worker sweeps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import anyio.to_thread
from sqlalchemy import Engine, text

from openwebui_billing_reconcile.hookspecs import PROJECT
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost

log = logging.getLogger(__name__)

Release = Callable[[], None]

_POSTGRES_KEY: Final = int.from_bytes(sha256(f"{PROJECT}.sweep".encode()).digest()[:8], signed=True)
_LOCK_SUFFIX: Final = ".topup-sweep.lock"


class Election:
    """The right to sweep one host's database, among all its workers, loops and machines."""

    def __init__(self, host: OpenWebUIHost) -> None:
        self._host = host
        self._is_failure_logged = False

    @asynccontextmanager
    async def candidate(self) -> AsyncIterator[bool]:
        """Yield whether this worker is elected, until the end of the ``with``."""
        release = await anyio.to_thread.run_sync(self._try_lock, abandon_on_cancel=True)
        try:
            yield release is not None
        finally:
            if release is not None:
                with suppress(Exception):  # a connection that is lost has given the lock up already
                    await anyio.to_thread.run_sync(release)

    def _try_lock(self) -> Release | None:
        """Return how to let go of the lock; ``None``: another worker has it."""
        try:
            engine = self._host.engine
            if engine.dialect.name == "postgresql":
                return _lock_in_postgres(engine)
            if engine.dialect.name == "sqlite" and engine.url.database:
                return _lock_beside(Path(engine.url.database))
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            if not self._is_failure_logged:
                self._is_failure_logged = True
                log.warning("Workers cannot take turns at sweeping: %s", type(error).__name__)
        return _nothing_to_release


def _lock_in_postgres(engine: Engine) -> Release | None:
    # A connection apart from the host's pool, which keeps its size. A lock of the transaction, since that
    # of a session is lost behind a pooler; it ends with the connection, however that ends.
    connection = engine.connect()
    connection.detach()
    try:
        is_elected = connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _POSTGRES_KEY})
    except BaseException:
        connection.close()
        raise
    if is_elected:
        return connection.close
    connection.close()
    return None


def _lock_beside(database: Path) -> Release | None:
    import fcntl  # not on Windows

    file = os.open(database.with_name(database.name + _LOCK_SUFFIX), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return lambda: os.close(file)


def _nothing_to_release() -> None:
    """Release what is no lock."""
