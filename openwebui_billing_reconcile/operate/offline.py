"""An audit without the host: its database and its shop are read from its environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError

from openwebui_billing_reconcile.hookspecs import PaymentGateway
from openwebui_billing_reconcile.host.environment import SECRET_KEY, SHOP_ID, HostEnvironment
from openwebui_billing_reconcile.host.reader import LedgerReader
from openwebui_billing_reconcile.host.reflected import ReflectedTables
from openwebui_billing_reconcile.money.rules import Shop
from openwebui_billing_reconcile.provider.client import ProviderClient
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway
from openwebui_billing_reconcile.provider.shop import shop_of
from openwebui_billing_reconcile.settings import Settings

T = TypeVar("T")


class OfflineError(Exception):
    """The audit cannot be made from here; the text says what is missing and what to do."""


class OfflineSources:
    """What an audit reads from; see ``audit.AuditSources``. It asks YooKassa only: no plugin is loaded."""

    def __init__(self, environment: HostEnvironment) -> None:
        """Raises ``OfflineError``."""
        variables = environment.variables
        missing = [name for name in (SHOP_ID, SECRET_KEY) if not variables.get(name)]
        if missing:
            words = f"{' and '.join(missing)} must be set, in the environment or the host's .env"
            raise OfflineError("; ".join(filter(None, [words, environment.problem])))
        self._settings = Settings.read(variables)
        self.currency = variables.get("BILLING_DEFAULT_CURRENCY", "RUB")
        self.reader = LedgerReader(_tables(environment))
        self.provider = ProviderClient(self._settings.deadline_seconds)
        self._gateway = SdkGateway(variables[SHOP_ID], variables[SECRET_KEY], environment.provider_url)

    def gateway(self, payment_id: str) -> PaymentGateway:
        """See ``AuditSources``."""
        return self._gateway

    def shop(self, gateway: PaymentGateway) -> Shop:
        """See ``AuditSources``."""
        return shop_of(gateway, self._settings, self.currency)

    async def read(self, work: Callable[[], T]) -> T:
        """See ``AuditSources``."""
        return await anyio.to_thread.run_sync(work)


def _tables(environment: HostEnvironment) -> ReflectedTables:
    try:
        return ReflectedTables(environment.database_url, environment.variables.get("DATABASE_SCHEMA") or None)
    except FileNotFoundError as error:
        raise OfflineError(f"{error}: run this in the host's backend folder, or use --app-dir") from error
    except ImportError as error:
        raise OfflineError(f"the database's driver is missing: {error}") from error
    except SQLAlchemyError as error:
        # The type only: the text may hold the password.
        raise OfflineError(f"the host's billing tables cannot be read: {type(error).__name__}") from error
