"""What importing the host does to the world: logging, tables, static files.

As in real hosts this happens as soon as a router or the billing module is imported.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from sqlalchemy import text

# The tables have to be known before they can be made.
import open_webui.models.auths
import open_webui.models.billing
import open_webui.models.users  # noqa: F401
from open_webui.env import FRONTEND_BUILD_DIR, STATIC_DIR
from open_webui.internal.db import Base, engine

# Workers start at the same moment: one makes the tables, the others wait and find them.
TABLE_LOCKS = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(7030127)",
}


def _quiet_logging() -> None:
    # The migrations of real hosts leave the root logger at WARNING, on stderr. Only the
    # application's start opens it for INFO: such a line written at import time is lost.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)


def run_migrations() -> None:
    """Create the tables that are not there yet."""
    _quiet_logging()
    with engine.begin() as connection:
        connection.execute(text(TABLE_LOCKS[engine.dialect.name]))
        Base.metadata.create_all(connection)


def _replace(source: Path, target: Path) -> None:
    # In one step, so that a worker already serving never misses the file.
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def refill_static_dir() -> None:
    """Make the static folder what the built front end has; whatever else lies there goes."""
    origin = FRONTEND_BUILD_DIR / "static"
    wanted = {path.relative_to(origin) for path in origin.rglob("*") if path.is_file()}
    STATIC_DIR.mkdir(parents=True, exist_ok=True)
    for path in STATIC_DIR.iterdir():
        # A name with a leading dot is another worker's copy in the making.
        if path.is_file() and path.relative_to(STATIC_DIR) not in wanted and path.name[0] != ".":
            path.unlink(missing_ok=True)
    for relative in wanted:
        _replace(origin / relative, STATIC_DIR / relative)


run_migrations()
refill_static_dir()
