"""The running host behind the ``Host`` protocol.

It holds the host's modules, never their contents: a host's own tests and operators replace names on those
modules, and a copy taken at import would miss it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from openwebui_billing_reconcile.hookspecs import Hooks

from .environment import PROVIDER_URL
from .loaded import LoadedHost
from .requirements import (
    AUTH,
    BILLING,
    BILLING_ROUTER,
    DB,
    ENV,
    ERROR_WORDS,
    LEDGER_KEY,
    REQUIRED_NAMES,
    TABLES,
    WALLET,
)

if TYPE_CHECKING:
    from fastapi import APIRouter, HTTPException
    from sqlalchemy import Engine, Table
    from sqlalchemy.orm import Session


class OpenWebUIHost:
    """A real host behind the ``Host`` protocol. Every property is looked up at each access."""

    def __init__(self, hook: Hooks) -> None:
        """``hook`` is where the hooks are called. Raises ``ImportError`` where a needed module is missing."""
        self.hook = hook
        self._modules = {name: importlib.import_module(name) for name in REQUIRED_NAMES}

    @property
    def router(self) -> APIRouter:
        router: APIRouter = self._modules[BILLING_ROUTER].router
        return router

    @property
    def billing_service(self) -> Any:
        return self._modules[BILLING_ROUTER].billing_service

    @property
    def billing_service_class(self) -> type[Any]:
        service_class: type[Any] = self._modules[BILLING].BillingService
        return service_class

    @property
    def wallet_enabled(self) -> bool:
        return bool(self._modules[BILLING_ROUTER].ENABLE_BILLING_WALLET)

    @property
    def default_currency(self) -> str:
        return str(self._modules[ENV].BILLING_DEFAULT_CURRENCY)

    @property
    def ledger_key_has_wallet(self) -> bool:
        """Whether the ledger's unique key leaves room for one credit of a payment in each wallet."""
        return LEDGER_KEY not in LoadedHost().unique_keys("LedgerEntry")

    @property
    def topup_ttl_days(self) -> int:
        """For how many days topped-up money is valid; 0: without end."""
        return int(getattr(self._modules[ENV], "BILLING_TOPUP_TTL_DAYS", 0))

    @property
    def get_verified_user(self) -> Callable[..., Any]:
        dependency: Callable[..., Any] = self._modules[AUTH].get_verified_user
        return dependency

    @property
    def get_admin_user(self) -> Callable[..., Any]:
        dependency: Callable[..., Any] = self._modules[AUTH].get_admin_user
        return dependency

    @property
    def has_payment_client(self) -> bool:
        """Whether the host has a YooKassa client of its own, initialised or not."""
        return hasattr(self._modules[BILLING], "get_yookassa_client")

    @property
    def payment_client(self) -> Any | None:
        return self._modules[BILLING].get_yookassa_client() if self.has_payment_client else None

    @property
    def shop_id(self) -> str:
        return str(getattr(self._modules[ENV], "YOOKASSA_SHOP_ID", "") or "")

    @property
    def shop_secret_key(self) -> str:
        return str(getattr(self._modules[ENV], "YOOKASSA_SECRET_KEY", "") or "")

    @property
    def provider_url(self) -> str:
        """Where the provider's API is; its documented address where the host does not say."""
        return str(getattr(self._modules[ENV], "YOOKASSA_API_URL", "") or PROVIDER_URL)

    @property
    def redis_url(self) -> str:
        """Where the host's Redis is, "" where it has none. Never log it: it may hold a password.

        Also "" where Redis is reached through Sentinel or Cluster, which needs more than an address.
        """
        env = self._modules[ENV]
        if getattr(env, "REDIS_SENTINEL_HOSTS", "") or getattr(env, "REDIS_CLUSTER", False):
            return ""
        return str(getattr(env, "REDIS_URL", "") or "")

    @property
    def redis_key_prefix(self) -> str:
        """What the host's keys in Redis begin with, "" where the host does not say."""
        return str(getattr(self._modules[ENV], "REDIS_KEY_PREFIX", "") or "")

    @property
    def wallet_service(self) -> Any:
        return self._modules[WALLET].wallet_service

    @property
    def static_dir(self) -> str:
        """The folder behind the host's ``/static``, "" where the host does not say."""
        return str(getattr(self._modules[ENV], "STATIC_DIR", "") or "")

    @property
    def engine(self) -> Engine:
        """The engine of the host's database."""
        with self.session() as session:
            return session.get_bind().engine

    def session(self) -> AbstractContextManager[Session]:
        """A database session of the host's own, closed at the end of the ``with``."""
        session: AbstractContextManager[Session] = self._modules[DB].get_db()
        return session

    def model(self, name: str) -> type[Any]:
        """One of the host's billing models: Payment, Wallet, LedgerEntry."""
        model: type[Any] = getattr(self._modules[TABLES], name)
        return model

    def table(self, model: str) -> Table:
        """The SQLAlchemy table of a model."""
        table: Table = self.model(model).__table__
        return table

    def provider_error_detail(self, error: BaseException) -> str | None:
        """What the host's other endpoints say about an error of its client.

        ``error`` is that error or one it caused. ``None`` where the host has no words for it.
        """
        speak = getattr(self._modules[BILLING_ROUTER], ERROR_WORDS, None)
        cause: BaseException | None = error
        while cause is not None and not hasattr(cause, "status_code"):
            cause = cause.__cause__
        if speak is None or cause is None:
            return None
        try:
            # The host logs what the provider wrote, which may hold anything: it is given the status alone.
            answer: HTTPException = speak(error=_without_text(cause), action="topup reconcile")
        except Exception:  # noqa: BLE001 - it may be the error of another client than the host's
            return None
        return str(answer.detail)


def _without_text(error: BaseException) -> BaseException:
    """Return an error of the same class with the numbers and flags of ``error``, its status among them.

    What the provider wrote can be in any text of it: the body, the message, a code read out of the body.
    """
    bare = type(error).__new__(type(error))
    for name, value in vars(error).items():
        setattr(bare, name, value if isinstance(value, int | float | None) else "")
    return bare
