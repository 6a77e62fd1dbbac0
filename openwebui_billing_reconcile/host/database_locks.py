"""The database's locks: whether they can be had, and how long our threads may wait for them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

LOCK_TIMEOUT: Final = 1
"""The longest that a statement of the host's path waits for a lock on a thread of ours, in seconds."""

_LOCK_NOT_AVAILABLE: Final = "55P03"  # PostgreSQL's code

_LOCKING: Final = re.compile(r"^\s*(INSERT|UPDATE|DELETE)|\bFOR (NO KEY )?UPDATE\b", re.IGNORECASE)

_waits = threading.local()


@contextmanager
def bounded_lock_waits(engine: Engine) -> Iterator[None]:
    """Let this thread's transactions wait for no lock longer than ``LOCK_TIMEOUT``.

    PostgreSQL waits without limit, and few threads do all our work: one held row a thread would stop it for
    everybody. SQLite gives up by itself.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    if not event.contains(engine, "before_cursor_execute", _bound):
        event.listen(engine, "before_cursor_execute", _bound)
    were_bounded = getattr(_waits, "are_bounded", False)  # one may stand inside another
    _waits.are_bounded = True
    try:
        yield
    finally:
        _waits.are_bounded, _waits.transaction = were_bounded, None


def _bound(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
    """Set the timeout ahead of the first statement of a transaction that can wait for a lock."""
    if not getattr(_waits, "are_bounded", False) or not _LOCKING.search(statement):
        return
    transaction = connection.get_transaction()
    if transaction is not getattr(_waits, "transaction", None):
        _waits.transaction = transaction
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")


def lock_sqlite(connection: Connection) -> None:
    """Take SQLite's one lock for writing, without waiting; the end of the transaction releases it.

    Raises ``OperationalError`` where somebody else has it. A wait, however short, would let others commit
    what our last look has not seen.
    """
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience or 0}")


def is_lock_timeout(error: OperationalError) -> bool:
    """Whether a lock could not be had in time."""
    # psycopg 3 has "sqlstate", psycopg2 "pgcode".
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return code == _LOCK_NOT_AVAILABLE or "database is locked" in str(error.orig)
