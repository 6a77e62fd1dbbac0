"""The host's tables without the host: read by reflection, and never written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import URL, insert, make_url, select, text
from sqlalchemy.exc import DatabaseError, NoSuchTableError, OperationalError

from openwebui_billing_reconcile.host import reflected
from openwebui_billing_reconcile.host.reflected import TABLE_NAMES, ReflectedTables


def url_of(file: Path) -> URL:
    return URL.create("sqlite", database=str(file))


def make_tables(file: Path, *names: str, is_wal: bool = False) -> Path:
    """Make a database with a row in each table."""
    database = sqlite3.connect(file)
    if is_wal:
        database.execute("PRAGMA journal_mode = WAL")
    for name in names or tuple(TABLE_NAMES.values()):
        database.execute(f"CREATE TABLE {name} (id TEXT PRIMARY KEY, metadata_json JSON)")
        database.execute(f"INSERT INTO {name} VALUES ('one', '{{\"x\": 1}}')")
    database.commit()
    database.close()
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_tables(tmp_path / "webui.db")


@pytest.mark.parametrize("model", TABLE_NAMES)
def test_each_table_is_read_as_it_is(file: Path, model: str) -> None:
    tables = ReflectedTables(url_of(file))
    assert tables.table(model).name == TABLE_NAMES[model]
    with tables.session() as session:
        assert session.execute(select(tables.table(model))).all() == [("one", {"x": 1})]


@pytest.mark.parametrize("model", TABLE_NAMES)
def test_nothing_can_be_written(file: Path, model: str) -> None:
    tables = ReflectedTables(url_of(file))
    table = tables.table(model)
    for statement in (insert(table).values(id="two"), table.update().values(id="two"), table.delete()):
        with tables.session() as session, pytest.raises(OperationalError, match="readonly database"):
            session.execute(statement)
    with tables.session() as session, pytest.raises(OperationalError, match="readonly database"):
        session.execute(text("CREATE TABLE more (id TEXT)"))
    with sqlite3.connect(file) as database:
        assert database.execute(f"SELECT id FROM {table.name}").fetchall() == [("one",)]
    database.close()


def test_what_somebody_else_writes_meanwhile_is_seen(file: Path) -> None:
    tables = ReflectedTables(url_of(file))
    database = sqlite3.connect(file)
    database.execute("INSERT INTO billing_wallet VALUES ('two', NULL)")
    database.commit()
    database.close()
    with tables.session() as session:
        wallet = tables.table("Wallet")
        assert list(session.execute(select(wallet.c.id)).scalars()) == ["one", "two"]


@pytest.mark.parametrize("name", ["with space.db", "a?b=c.db", "a#b.db", "50%20.db", "ж.db", "-.db"])
def test_any_name_of_a_file_will_do(tmp_path: Path, name: str) -> None:
    tables = ReflectedTables(url_of(make_tables(tmp_path / name)))
    assert tables.table("Payment").columns.keys() == ["id", "metadata_json"]


def test_a_write_ahead_log_is_read_too(tmp_path: Path) -> None:
    tables = ReflectedTables(url_of(make_tables(tmp_path / "webui.db", is_wal=True)))
    with tables.session() as session:
        assert session.execute(select(tables.table("Payment").c.id)).scalar_one() == "one"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///nowhere/webui.db"])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, url: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no database"):
        ReflectedTables(make_url(url))
    missing = tmp_path / "webui.db"
    with pytest.raises(FileNotFoundError, match=f"there is no database {missing}"):
        ReflectedTables(url_of(missing))
    assert not missing.exists()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReflectedTables(url_of(tmp_path))


@pytest.mark.parametrize("missing", TABLE_NAMES.values())
def test_a_table_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    others = [name for name in TABLE_NAMES.values() if name != missing]
    file = make_tables(tmp_path / "webui.db", *others)
    with pytest.raises(NoSuchTableError, match=missing):
        ReflectedTables(url_of(file))


def test_what_is_no_database_is_an_error_of_sqlalchemy(tmp_path: Path) -> None:
    file = tmp_path / "webui.db"
    file.write_text("no database at all " * 100)
    with pytest.raises(DatabaseError):
        ReflectedTables(url_of(file))


def test_postgresql_is_asked_to_let_nothing_be_written() -> None:
    engine = reflected._read_only_engine(make_url("postgresql+psycopg2://user@host/name"))
    assert engine.get_execution_options()["postgresql_readonly"] is True
