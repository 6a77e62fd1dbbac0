"""The only file that reaches into ``open_webui``.

It holds the host's modules, never their contents: a host's own tests and operators replace names on those
modules, and a copy taken at import would miss it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, UniqueConstraint

from openwebui_billing_reconcile.hookspecs import Hooks

if TYPE_CHECKING:
    from fastapi import APIRouter, HTTPException
    from sqlalchemy import Table
    from sqlalchemy.orm import Session

BILLING_ROUTER = "open_webui.routers.billing"
"""The module whose import means that the host has billing."""

_BILLING = "open_webui.utils.billing"
_AUTH = "open_webui.utils.auth"
_WALLET = "open_webui.utils.wallet"
_TABLES = "open_webui.models.billing"
_DB = "open_webui.internal.db"
_ENV = "open_webui.env"

NEEDED: dict[str, tuple[str, ...]] = {
    BILLING_ROUTER: ("router", "billing_service", "ENABLE_BILLING_WALLET"),
    _BILLING: ("BillingService", "BillingService._process_topup_webhook"),
    _AUTH: ("get_verified_user", "get_admin_user"),
    _WALLET: ("wallet_service",),
    _TABLES: ("LedgerEntry", "Payment", "Wallet"),
    _DB: ("get_db",),
    _ENV: ("BILLING_DEFAULT_CURRENCY",),
}
"""What the host must have, by module. ``status`` looks the same names up in the host's source text."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "LedgerEntry": (
        "user_id",
        "wallet_id",
        "currency",
        "type",
        "amount_kopeks",
        "reference_id",
        "reference_type",
        "idempotency_key",
    ),
    "Payment": ("provider_payment_id", "status", "updated_at"),
    "Wallet": ("id", "user_id", "currency"),
}
CREDITING_ARGUMENTS = {"event_type", "payment_id", "webhook_data"}
LEDGER_KEY = {"reference_type", "reference_id", "type"}


def missing_names() -> list[str]:
    """The needed names this host lacks, as dotted paths; empty when it has them all."""
    return list(_missing_names())


def _missing_names() -> Iterator[str]:
    for module_name, names in NEEDED.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            yield module_name
            continue
        for name in names:
            if not _has(module, name):
                yield f"{module_name}.{name}"
    yield from _missing_details()


def _has(owner: object, dotted: str) -> bool:
    for name in dotted.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def _missing_details() -> Iterator[str]:
    tables = importlib.import_module(_TABLES)
    for name, columns in COLUMNS.items():
        table = getattr(getattr(tables, name, None), "__table__", None)
        if table is not None:
            yield from (f"{_TABLES}.{name}.{c}" for c in columns if c not in table.columns)
    path = getattr(
        getattr(importlib.import_module(_BILLING), "BillingService", None),
        "_process_topup_webhook",
        None,
    )
    if path is not None:
        lacking = CREDITING_ARGUMENTS - set(inspect.signature(path).parameters)
        if lacking:
            yield f"{_BILLING}.BillingService._process_topup_webhook({', '.join(sorted(lacking))})"
        if inspect.iscoroutinefunction(path):
            yield f"{_BILLING}.BillingService._process_topup_webhook as a plain function"


def ledger_key_is_declared() -> bool:
    """Whether a payment can be credited only once: a unique key over reference and type, and nothing more.

    With a further column in the key (the wallet, say) one payment could be credited to two wallets.
    """
    table: Table = importlib.import_module(_TABLES).LedgerEntry.__table__
    unique_sets = [
        {column.name for column in key.columns}
        for key in (*table.constraints, *table.indexes)
        if isinstance(key, UniqueConstraint) or (isinstance(key, Index) and key.unique)
    ]
    return LEDGER_KEY in unique_sets


class OpenWebUIHost:
    """A real host behind the ``Host`` protocol. Every property is looked up at each access."""

    def __init__(self, hook: Hooks) -> None:
        """``hook`` is where the hooks are called. Raises ``ImportError`` where a needed module is missing."""
        self.hook = hook
        self._modules = {name: importlib.import_module(name) for name in NEEDED}

    @property
    def router(self) -> APIRouter:
        router: APIRouter = self._modules[BILLING_ROUTER].router
        return router

    @property
    def billing_service(self) -> Any:
        return self._modules[BILLING_ROUTER].billing_service

    @property
    def billing_service_class(self) -> type[Any]:
        service_class: type[Any] = self._modules[_BILLING].BillingService
        return service_class

    @property
    def wallet_enabled(self) -> bool:
        return bool(self._modules[BILLING_ROUTER].ENABLE_BILLING_WALLET)

    @property
    def default_currency(self) -> str:
        return str(self._modules[_ENV].BILLING_DEFAULT_CURRENCY)

    @property
    def get_verified_user(self) -> Callable[..., Any]:
        dependency: Callable[..., Any] = self._modules[_AUTH].get_verified_user
        return dependency

    @property
    def get_admin_user(self) -> Callable[..., Any]:
        dependency: Callable[..., Any] = self._modules[_AUTH].get_admin_user
        return dependency

    @property
    def has_payment_client(self) -> bool:
        """Whether the host has a YooKassa client of its own, initialised or not."""
        return hasattr(self._modules[_BILLING], "get_yookassa_client")

    @property
    def payment_client(self) -> Any | None:
        return self._modules[_BILLING].get_yookassa_client() if self.has_payment_client else None

    @property
    def shop_id(self) -> str:
        return str(getattr(self._modules[_ENV], "YOOKASSA_SHOP_ID", "") or "")

    @property
    def shop_secret_key(self) -> str:
        return str(getattr(self._modules[_ENV], "YOOKASSA_SECRET_KEY", "") or "")

    @property
    def provider_url(self) -> str:
        """Where the provider's API is; its documented address where the host does not say."""
        return str(getattr(self._modules[_ENV], "YOOKASSA_API_URL", "") or "https://api.yookassa.ru/v3")

    @property
    def wallet_service(self) -> Any:
        return self._modules[_WALLET].wallet_service

    @property
    def static_dir(self) -> str:
        """The folder behind the host's ``/static``, "" where the host does not say."""
        return str(getattr(self._modules[_ENV], "STATIC_DIR", "") or "")

    def session(self) -> AbstractContextManager[Session]:
        """A database session of the host's own, closed at the end of the ``with``."""
        session: AbstractContextManager[Session] = self._modules[_DB].get_db()
        return session

    def table(self, model: str) -> Table:
        """The SQLAlchemy table of one of the host's billing models: Payment, Wallet, LedgerEntry."""
        table: Table = getattr(self._modules[_TABLES], model).__table__
        return table

    def provider_error_words(self, error: BaseException) -> str | None:
        """What the host's other endpoints say about an error of its client.

        ``error`` is that error or one it caused. ``None`` where the host has no words for it.
        """
        speak = getattr(self._modules[BILLING_ROUTER], "_payment_gateway_http_error", None)
        cause: BaseException | None = error
        while cause is not None and not hasattr(cause, "status_code"):
            cause = cause.__cause__
        if speak is None or cause is None:
            return None
        try:
            answer: HTTPException = speak(cause, action="topup reconcile")
        except Exception:  # noqa: BLE001 - it may be the error of another client than the host's
            return None
        return str(answer.detail)
