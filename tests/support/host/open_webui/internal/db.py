"""The engine and the sessions everything in the host shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import JSON, BigInteger, Engine, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from open_webui.env import (
    DATA_DIR,
    DATABASE_ENABLE_SQLITE_WAL,
    DATABASE_POOL_MAX_OVERFLOW,
    DATABASE_POOL_SIZE,
    DATABASE_POOL_TIMEOUT,
    DATABASE_URL,
)


class Base(DeclarativeBase):
    """Money is kept in kopeks and time in epoch seconds, both wider than 32 bits."""

    type_annotation_map = {int: BigInteger, dict[str, Any]: JSON}  # noqa: RUF012


def _sqlite_engine() -> Engine:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    # Flaw: a writer waits five seconds for another (the driver's default) and gives up.
    engine = create_engine(DATABASE_URL, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def set_journal(connection: Any, _record: Any) -> None:
        # Flaw: without the write-ahead log readers and writers stand in each other's way.
        mode = "WAL" if DATABASE_ENABLE_SQLITE_WAL else "DELETE"
        connection.execute(f"PRAGMA journal_mode={mode}")

    return engine


def _postgresql_engine() -> Engine:
    # The driver is named because SQLAlchemy's default has changed between versions.
    url = DATABASE_URL.replace("postgresql://", "postgresql+psycopg2://", 1)
    if DATABASE_POOL_SIZE == 0:
        return create_engine(url, pool_pre_ping=True)
    return create_engine(
        url,
        pool_size=DATABASE_POOL_SIZE,
        max_overflow=DATABASE_POOL_MAX_OVERFLOW,
        pool_timeout=DATABASE_POOL_TIMEOUT,
        pool_pre_ping=True,
    )


engine = _sqlite_engine() if DATABASE_URL.startswith("sqlite") else _postgresql_engine()
SessionLocal = sessionmaker(bind=engine, autoflush=False, expire_on_commit=False)


@contextmanager
def get_db() -> Iterator[Session]:
    """A session of one's own, closed at the end; committing is the caller's business."""
    session = SessionLocal()
    try:
        yield session
    finally:
        session.close()
