"""The host's environment as its process will have it, read without starting the host."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

SHOP_ID: Final = "YOOKASSA_SHOP_ID"
SECRET_KEY: Final = "YOOKASSA_SECRET_KEY"  # noqa: S105 - a name

PROVIDER_URL: Final = "https://api.yookassa.ru/v3"
"""The address that the provider documents."""

_POSTGRESQL_DRIVERS: Final = ("psycopg2", "psycopg")

_PARTS: Final = ("TYPE", "HOST", "PORT", "NAME")


class HostEnvironment:
    """The variables of this process, then those of the host's .env file, as the host reads them."""

    def __init__(self, environ: Mapping[str, str], package: Path | None) -> None:
        """``package`` is the folder of the host's package, ``None`` where there is no host."""
        # The host reads the file above its backend folder; what the environment says wins.
        self._environ = environ
        self._package = package
        self._file = package.parent.parent / ".env" if package else None
        found = _dotenv(self._file) if self._file and self._file.is_file() else {}
        self._is_unreadable = found is None
        self._from_file = found or {}
        self.variables = {**self._from_file, **environ}

    @property
    def problem(self) -> str | None:
        """Why a .env file that is there could not be read; ``None`` where all is well."""
        if self._is_unreadable:
            return f"{self._file} is not read: python-dotenv is not installed in this environment"
        return None

    def origin(self, name: str) -> str:
        """Return where a variable comes from: environment, the .env file's path, or default."""
        if name in self._environ:
            return "environment"
        return str(self._file) if name in self._from_file else "default"

    def is_on(self, name: str) -> bool:
        """Whether a switch of the host's own is on; as the host, only "true" is, in any case."""
        return self.variables.get(name, "").lower() == "true"

    @property
    def provider_url(self) -> str:
        """Where the provider's API is."""
        return self.variables.get("YOOKASSA_API_URL") or PROVIDER_URL

    @property
    def database_url(self) -> URL:
        """Where the host's database is. Raises ``sqlalchemy.exc.ArgumentError`` where that cannot be read."""
        try:
            url = make_url(self._database_url().replace("postgres://", "postgresql://"))
        except ValueError:  # of the port; a password with an @ in it may stand in its text
            raise ArgumentError("the port is no number") from None
        if url.get_backend_name() == "sqlite" and url.database:
            folder = self._package.parent if self._package else Path()
            return url.set(database=str(folder / url.database))  # relative: to where the server is started
        driver = next((name for name in _POSTGRESQL_DRIVERS if find_spec(name)), None)
        if url.drivername == "postgresql" and driver:  # which one that means depends on SQLAlchemy's version
            return url.set(drivername=f"postgresql+{driver}")
        return url

    def _database_url(self) -> str:
        parts = {part: self.variables.get(f"DATABASE_{part}", "") for part in _PARTS}
        user, password = (self.variables.get(f"DATABASE_{part}", "") for part in ("USER", "PASSWORD"))
        account = f"{user}:{password}" if password else user
        if account and all(parts.values()):
            return f"{parts['TYPE']}://{account}@{parts['HOST']}:{parts['PORT']}/{parts['NAME']}"
        return self.variables.get("DATABASE_URL") or f"sqlite:///{self._data_dir() / 'webui.db'}"

    def _data_dir(self) -> Path:
        backend = self._package.parent if self._package else Path()
        return backend / self.variables.get("DATA_DIR", "data")


def _dotenv(file: Path) -> dict[str, str] | None:
    """The variables of a .env file, read as the host reads them; ``None`` without python-dotenv."""
    try:
        from dotenv import dotenv_values
    except ImportError:
        return None
    return {name: value for name, value in dotenv_values(file).items() if value is not None}
