"""A host in a few lines of text, whole or with a part changed: loaded into this process or written out."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from fastapi import APIRouter
from sqlalchemy.dialects.sqlite import insert
from starlette.routing import Match

from openwebui_billing_reconcile.host.requirements import (
    AUTH,
    BILLING,
    BILLING_ROUTER,
    DB,
    ENV,
    OPTIONAL_CALLS,
    REQUIRED_CALLS,
    REQUIRED_COLUMNS,
    REQUIRED_NAMES,
    TABLES,
    WALLET,
)

PACKAGE = "open_webui"
SERVICE = "class BillingService:"
CLIENT = "open_webui.utils.yookassa"
OUR_ROUTES = (
    "POST /topup/reconcile",
    "POST /topup/reconcile/pending",
    "GET /topup/reconcile/audit",
    "POST /topup/reconcile/release",
    "GET /topup/reconcile/report",
    "GET /topup/reconcile/console",
)
OUR_PLUGINS = ("builtin", "builtin_metrics")
OUR_METHODS = ("reconcile_topup_payment", "reconcile_pending_topups")
LEDGER_KEY = 'UniqueConstraint("reference_type", "reference_id", "type")'

# A part that is taken away takes nothing else with it, hence each import of another part in a try.
_SOURCES: Mapping[str, str] = {
    ENV: """
BILLING_DEFAULT_CURRENCY = "RUB"
YOOKASSA_SHOP_ID = "100500"
YOOKASSA_SECRET_KEY = "test_secret"
""",
    AUTH: """
def get_verified_user():
    return None


def get_admin_user():
    return None
""",
    TABLES: f"""
from typing import Any

from sqlalchemy import JSON, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {{dict[str, Any]: JSON}}


class LedgerEntry(Base):
    __tablename__ = "ledger_entry"
    __table_args__ = ({LEDGER_KEY},)
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    wallet_id: Mapped[str]
    currency: Mapped[str]
    type: Mapped[str]
    amount_kopeks: Mapped[int]
    reference_id: Mapped[str | None]
    reference_type: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    metadata_json: Mapped[dict[str, Any] | None]
    created_at: Mapped[int] = mapped_column(default=0)


class Payment(Base):
    __tablename__ = "payment"
    id: Mapped[str] = mapped_column(primary_key=True)
    provider_payment_id: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]
    kind: Mapped[str]
    user_id: Mapped[str]
    wallet_id: Mapped[str | None]
    amount_kopeks: Mapped[int]
    currency: Mapped[str]
    metadata_json: Mapped[dict[str, Any] | None]
    raw_payload_json: Mapped[dict[str, Any] | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class Wallet(Base):
    __tablename__ = "wallet"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    currency: Mapped[str]
    auto_topup_fail_count: Mapped[int] = mapped_column(default=0)


""",
    DB: """
from contextlib import contextmanager
from threading import RLock

from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


# The one connection of a database in memory serves one session at a time.
_lock = RLock()


@contextmanager
def get_db():
    with _lock, Session(engine) as session:
        yield session
""",
    WALLET: """
class WalletService:
    def get_or_create_wallet(self, user_id, currency):
        from open_webui.internal.db import get_db
        from open_webui.models.billing import Wallet

        with get_db() as session:
            session.add(Wallet(id=f"wallet of {user_id}", user_id=user_id, currency=currency))
            session.commit()

    def apply_topup(self, wallet_id, amount_kopeks, reference_id, reference_type, idempotency_key, expires_at, metadata):
        from open_webui.internal.db import get_db
        from open_webui.models.billing import LedgerEntry, Wallet

        with get_db() as session:
            if session.get(LedgerEntry, f"credit of {reference_id}") is None:
                wallet = session.get(Wallet, wallet_id)
                session.add(
                    LedgerEntry(
                        id=f"credit of {reference_id}",
                        user_id=wallet.user_id,
                        wallet_id=wallet.id,
                        currency=wallet.currency,
                        type="topup",
                        amount_kopeks=amount_kopeks,
                        reference_id=reference_id,
                        reference_type=reference_type,
                        idempotency_key=idempotency_key,
                        metadata_json=metadata,
                        created_at=0,
                    )
                )
            session.commit()


wallet_service = WalletService()
""",  # noqa: E501 - one line, for "demand" and "forget"
    CLIENT: """
def get_yookassa_client():
    return None
""",
    BILLING: """
try:
    from open_webui.utils.yookassa import get_yookassa_client
except ImportError:
    pass


class BillingService:
    def create_topup_payment(self):
        return "theirs"

    def _process_topup_webhook(self, event_type, payment_id, webhook_data):
        from open_webui.internal.db import get_db
        from open_webui.models.billing import LedgerEntry, Payment

        metadata = webhook_data["metadata"]
        with get_db() as session:
            if session.get(LedgerEntry, f"credit of {payment_id}") is None:
                session.add(
                    LedgerEntry(
                        id=f"credit of {payment_id}",
                        user_id=metadata["user_id"],
                        wallet_id=metadata["wallet_id"],
                        currency=webhook_data["currency"],
                        type="topup",
                        amount_kopeks=metadata["amount_kopeks"],
                        reference_id=payment_id,
                        reference_type="payment",
                    )
                )
            session.query(Payment).filter_by(provider_payment_id=payment_id).update({"status": "succeeded"})
            session.commit()


    def _is_auto_topup_metadata(self, metadata):
        return bool(metadata and metadata.get("auto_topup"))

    def _record_auto_topup_failure(self, wallet_id, fail_count):
        from open_webui.internal.db import get_db
        from open_webui.models.billing import Wallet

        with get_db() as session:
            session.get(Wallet, wallet_id).auto_topup_fail_count = fail_count + 1
            session.commit()


billing_service = BillingService()
""",
    BILLING_ROUTER: """
from fastapi import APIRouter

try:
    from open_webui.utils.billing import billing_service
except ImportError:
    billing_service = None

ENABLE_BILLING_WALLET = True
router = APIRouter()


def _payment_gateway_http_error(error, action):
    return None


@router.get("/balance")
def balance():
    return {"balance": 0}
""",
}


class StubHost:
    """The parts of a host, each as text. What is changed is changed before the host is loaded."""

    def __init__(self) -> None:
        self._sources = dict(_SOURCES)

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        assert old in self._sources[module]
        self._sources[module] = self._sources[module].replace(old, new)

    def keep_in(self, file: Path) -> None:
        """Keep the database in a file, with a connection for each session, and not in memory with one."""
        memory = 'create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
        self.edit(DB, memory, f'create_engine("sqlite:///{file}")')

    def append(self, module: str, text: str) -> None:
        """Put a text at the end of a module."""
        self._sources[module] += text

    def remove(self, module: str) -> None:
        """Take a whole module away."""
        del self._sources[module]

    def rename(self, module: str, name: str, within: str = "") -> None:
        """Give something another name, everywhere in the module or within one of its classes."""
        text = self._sources[module]
        start = text.index(f"class {within}(") if within else 0
        end = text.index("\n\n\n", start) if within else len(text)
        renamed, count = re.subn(rf"\b{name}\b", f"other_{name}", text[start:end])
        assert count
        self._sources[module] = text[:start] + renamed + text[end:]

    def demand(self, function: str, parameter: str) -> None:
        """Let a function need one more argument."""
        self._change_parameters(function, lambda known: [*known, parameter])

    def forget(self, function: str, parameter: str) -> None:
        """Let a function know a parameter no more."""
        self._change_parameters(function, lambda known: [name for name in known if name != parameter])

    def _change_parameters(self, function: str, change: Callable[[list[str]], list[str]]) -> None:
        def changed(found: re.Match[str]) -> str:
            return f"def {function}({', '.join(change([name for name in found[1].split(', ') if name]))})"

        for module, text in self._sources.items():
            self._sources[module] = re.sub(rf"def {function}\((.*)\)", changed, text)

    def write(self, folder: Path) -> Path:
        """Write the host's files below ``folder``; its package."""
        for module, text in self._sources.items():
            file = folder.joinpath(*module.split(".")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (folder / PACKAGE / "__init__.py").write_text("")
        return folder / PACKAGE

    def load(self) -> None:
        """Make the host the one of this process; ``unload`` takes it away."""
        assert PACKAGE not in sys.modules
        for name, text in self._sources.items():
            package, _, _ = name.rpartition(".")
            for parent in (PACKAGE, package):
                sys.modules.setdefault(parent, _package(parent))
            module = sys.modules[name] = ModuleType(name)
            if name == TABLES:
                vars(module).update(_models(text))
            else:
                exec(_compiled(text, name), vars(module))
            setattr(sys.modules[package], name.rpartition(".")[2], module)

    def unload(self) -> None:
        """Leave nothing of the host in this process."""
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]

    def module(self, name: str) -> Any:
        """A module of the loaded host."""
        return importlib.import_module(name)

    @property
    def router(self) -> APIRouter:
        """The loaded host's billing router."""
        router: APIRouter = self.module(BILLING_ROUTER).router
        return router

    def serves(self, method: str, path: str) -> bool:
        """Whether the loaded host's billing router has a route for it."""
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        return any(route.matches(dict(scope))[0] is Match.FULL for route in self.router.routes)

    def create_tables(self) -> None:
        """Make the tables in the database, which is in memory."""
        self.module(TABLES).Base.metadata.create_all(self.module(DB).engine)

    def add(self, model: str, **columns: Any) -> None:
        """Add a row, in the place of one with the same id."""
        row = insert(getattr(self.module(TABLES), model)).values(columns)
        with self.module(DB).get_db() as session:
            session.execute(row.on_conflict_do_update(index_elements=["id"], set_=columns))
            session.commit()

    def add_wallet(self, **changes: Any) -> None:
        """Add a wallet of "me"."""
        self.add("Wallet", **{"id": "w1", "user_id": "me", "currency": "RUB"} | changes)

    def add_payment(self, **changes: Any) -> None:
        """Add a pending top-up of 1000.00 for "me"."""
        row = {
            "id": "record-1",
            "provider_payment_id": "pay-1",
            "status": "pending",
            "kind": "topup",
            "user_id": "me",
            "wallet_id": "w1",
            "amount_kopeks": 100_000,
            "currency": "RUB",
            "created_at": 0,
            "updated_at": 0,
        }
        self.add("Payment", **row | changes)

    def looks(self) -> list[object]:
        """All of the loaded host that an attach may change."""
        router = getattr(sys.modules.get(BILLING_ROUTER), "router", None)
        service = getattr(sys.modules.get(BILLING), "BillingService", None)
        return [
            router and list(router.routes),
            router and router.lifespan_context,
            service and dict(vars(service)),
        ]


@cache
def _models(text: str) -> dict[str, Any]:
    """Run a module of models once for all tests: SQLAlchemy takes its time, and nothing changes them."""
    names: dict[str, Any] = {"__name__": TABLES}
    exec(_compiled(text, TABLES), names)
    return names


@cache
def _compiled(text: str, module: str) -> CodeType:
    return compile(text, module, "exec", dont_inherit=True)  # not with this module's postponed annotations


def _package(name: str) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = []
    return package


def broken_requirements() -> Iterator[tuple[str, Callable[[StubHost], None]]]:
    """Each requirement, in the words in which it is missed, and what takes it away from a host.

    The billing router's module is not among them: a host without it is one without billing.
    """
    for module, names in REQUIRED_NAMES.items():
        if module != BILLING_ROUTER:
            yield module, partial(StubHost.remove, module=module)
        for name in names:
            last = name.rpartition(".")[2]
            home = BILLING if name == f"billing_service.{last}" else module
            yield f"{module}.{name}", partial(StubHost.rename, module=home, name=last)
    for model, columns in REQUIRED_COLUMNS.items():
        for column in columns:
            rename = partial(StubHost.rename, module=TABLES, name=column, within=model)
            yield f"{TABLES}.{model}.{column}", rename
    for module, calls in (*REQUIRED_CALLS.items(), *OPTIONAL_CALLS.items()):
        for name, arguments in calls.items():
            home = CLIENT if name == "get_yookassa_client" else module
            function, what = name.rpartition(".")[2], f"{module}.{name}({', '.join(arguments)})"
            yield what, partial(StubHost.demand, function=function, parameter="further")
            yield what, partial(StubHost.demand, function=function, parameter="*, further")
            yield (
                what,
                partial(StubHost.edit, module=home, old=f"def {function}", new=f"async def {function}"),
            )
            for argument in arguments:
                yield what, partial(StubHost.forget, function=function, parameter=argument)


WALLET_LEDGER_KEY = LEDGER_KEY.replace(")", ', "wallet_id")')
"""The key of newer hosts, by which a payment could be credited to two wallets."""

LEDGERS_WITHOUT_KEY: Mapping[str, str] = {
    "no key": "",
    "a key for each user": LEDGER_KEY.replace(")", ', "user_id")'),
    "a key of two columns": LEDGER_KEY.replace(', "type"', ""),
}
"""What may stand in the place of the ledger's key, and does not keep a payment from being credited twice."""
