"""The host's billing tables as they are in its database, to be read without importing the host."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import URL, Engine, MetaData, Table, create_engine
from sqlalchemy.orm import Session

TABLE_NAMES: Final = {
    "Payment": "billing_payment",
    "Wallet": "billing_wallet",
    "LedgerEntry": "billing_ledger_entry",
}
"""By the names of the host's models."""


class ReflectedTables:
    """Billing tables of one database, by reflection; see ``reader.Tables``. Nothing can be written."""

    def __init__(self, url: URL, schema: str | None = None) -> None:
        """Read how the tables look.

        Raises ``FileNotFoundError`` where there is no such SQLite file, the errors of SQLAlchemy where
        database or tables cannot be read, and ``ImportError`` where the database's driver is missing.
        """
        self._engine = _read_only_engine(url)
        metadata = MetaData(schema=schema)
        self._tables = {
            model: Table(name, metadata, autoload_with=self._engine) for model, name in TABLE_NAMES.items()
        }

    def session(self) -> AbstractContextManager[Session]:
        """See ``Tables``."""
        return Session(self._engine)

    def table(self, model: str) -> Table:
        """See ``Tables``."""
        return self._tables[model]


def _read_only_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, execution_options={"postgresql_readonly": True})
    if not url.database or not Path(url.database).is_file():
        raise FileNotFoundError(f"there is no database {url.database}")
    file = f"file:{quote(url.database)}"
    return create_engine(url.set(database=file, query={"mode": "ro", "uri": "true"}))
