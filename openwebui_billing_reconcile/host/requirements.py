"""What the plugin requires of a host: one list, checked by one piece of code.

It is checked through a ``HostView``: ``loaded.LoadedHost`` looks at imported modules,
``source.SourceHost`` at the text of files, without importing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final, Protocol

BILLING_ROUTER: Final = "open_webui.routers.billing"
"""The module whose import means that the host has billing."""

BILLING: Final = "open_webui.utils.billing"
AUTH: Final = "open_webui.utils.auth"
WALLET: Final = "open_webui.utils.wallet"
TABLES: Final = "open_webui.models.billing"
DB: Final = "open_webui.internal.db"
ENV: Final = "open_webui.env"

SERVICE: Final = "BillingService"
CREDITING_PATH: Final = "BillingService._process_topup_webhook"

REQUIRED_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    BILLING_ROUTER: (
        "router",
        "billing_service",
        "billing_service._process_topup_webhook",
        "ENABLE_BILLING_WALLET",
    ),
    BILLING: (SERVICE, CREDITING_PATH),
    AUTH: ("get_verified_user", "get_admin_user"),
    WALLET: ("wallet_service", "wallet_service.get_or_create_wallet", "wallet_service.apply_topup"),
    TABLES: ("LedgerEntry", "Payment", "Wallet"),
    DB: ("get_db",),
    ENV: ("BILLING_DEFAULT_CURRENCY",),
}
"""Names by module."""

REQUIRED_CALLS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    BILLING: {CREDITING_PATH: ("event_type", "payment_id", "webhook_data")},
    WALLET: {
        "wallet_service.get_or_create_wallet": ("user_id", "currency"),
        "wallet_service.apply_topup": (
            "wallet_id",
            "amount_kopeks",
            "reference_id",
            "reference_type",
            "idempotency_key",
            "expires_at",
            "metadata",
        ),
    },
    DB: {"get_db": ()},
}
"""Plain functions, and the keyword arguments with which they are called: each known, and no other needed."""

REQUIRED_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "LedgerEntry": (
        "id",
        "user_id",
        "wallet_id",
        "currency",
        "type",
        "amount_kopeks",
        "reference_id",
        "reference_type",
        "idempotency_key",
        "metadata_json",
        "created_at",
    ),
    "Payment": (
        "id",
        "provider_payment_id",
        "status",
        "kind",
        "user_id",
        "wallet_id",
        "amount_kopeks",
        "currency",
        "metadata_json",
        "raw_payload_json",
        "created_at",
        "updated_at",
    ),
    "Wallet": ("id", "user_id", "currency"),
}
"""Columns by model."""

OPTIONAL_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    ENV: (
        "YOOKASSA_SHOP_ID",
        "YOOKASSA_SECRET_KEY",
        "YOOKASSA_API_URL",
        "BILLING_TOPUP_TTL_DAYS",
        "STATIC_DIR",
        "REDIS_URL",
        "REDIS_KEY_PREFIX",
        "REDIS_SENTINEL_HOSTS",
        "REDIS_CLUSTER",
    ),
}
"""Names that a host may have: ``open_webui.OpenWebUIHost`` says what holds without each."""

AUTO_TOPUP: Final = "_is_auto_topup_metadata"
AUTO_TOPUP_FAILURE: Final = "_record_auto_topup_failure"
FAIL_COUNT: Final = "auto_topup_fail_count"
ERROR_WORDS: Final = "_payment_gateway_http_error"

OPTIONAL_CALLS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    BILLING_ROUTER: {ERROR_WORDS: ("error", "action")},
    BILLING: {
        "get_yookassa_client": (),
        f"{SERVICE}.{AUTO_TOPUP}": ("metadata",),
        f"{SERVICE}.{AUTO_TOPUP_FAILURE}": ("wallet_id", "fail_count"),
    },
}
"""Functions that a host may have; one that is there has to fit.

Without the first our own words are used, and without a client of the host's the SDK. Without the last two,
but with the column in ``OPTIONAL_COLUMNS``, we record no cancellation: it might have to be counted.
"""

CLAIM_KEY: Final = "auto_topup_claim_key"
"""By it newer hosts claim an auto top-up of a wallet, until its payment is settled or canceled."""

OPTIONAL_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {"Wallet": (FAIL_COUNT,), "Payment": (CLAIM_KEY,)}
"""Columns that a host may have, by model."""

LEDGER_KEY: Final = frozenset({"reference_type", "reference_id", "type"})
"""The ledger's unique key, by which a payment is credited once."""

WALLET_LEDGER_KEY: Final = LEDGER_KEY | {"wallet_id"}
"""That of newer hosts: one payment could be credited to two wallets. There a credit goes only to the wallet
that the payment's record names: by ``RECORD_KEY`` it has one record, and see ``WALLET_KEY``."""

RECORD_KEY: Final = frozenset({"provider_payment_id"})
WALLET_KEY: Final = frozenset({"user_id", "currency"})
"""By it all who credit a user's own wallet in a currency mean the same one."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function can be called: the parameters it knows by name, and those of them it demands."""

    parameters: Set[str]
    required: Set[str]
    is_async: bool = False
    takes_any: bool = False

    def accepts(self, arguments: tuple[str, ...]) -> bool:
        """Whether a call with these keyword arguments fits."""
        return self.required <= set(arguments) and (self.takes_any or set(arguments) <= self.parameters)


class HostView(Protocol):
    """A way to look at a host. Names are dotted paths inside a module, such as ``BillingService.method``."""

    def has_module(self, module: str) -> bool:
        """Whether the module is there."""

    def has_name(self, module: str, name: str) -> bool:
        """Whether the module has the name."""

    def signature(self, module: str, name: str) -> Signature | None:
        """The function's signature; ``None`` where it cannot be told."""

    def columns(self, model: str) -> Set[str]:
        """The columns of a model of ``TABLES``."""

    def unique_keys(self, model: str) -> list[Set[str]]:
        """The column sets of the model's unique keys."""


def missing_requirements(host: HostView) -> list[str]:
    """Return what this host lacks, in words that name it; empty when it has all that is required."""
    return [what for what, is_there in check_requirements(host) if not is_there]


def check_requirements(host: HostView) -> Iterator[tuple[str, bool]]:
    """Yield each requirement, by its dotted path, and whether the host meets it."""
    for module, names in REQUIRED_NAMES.items():
        if not host.has_module(module):
            yield module, False
            continue
        for name in names:
            yield f"{module}.{name}", host.has_name(module, name)
    for module, calls in (*REQUIRED_CALLS.items(), *OPTIONAL_CALLS.items()):
        for name, arguments in calls.items():
            if host.has_name(module, name):
                signature = host.signature(module, name)
                fits = signature is None or (not signature.is_async and signature.accepts(arguments))
                yield f"{module}.{name}({', '.join(arguments)})", fits
    for model, columns in REQUIRED_COLUMNS.items():
        if host.has_name(TABLES, model):
            present = host.columns(model)
            yield from ((f"{TABLES}.{model}.{column}", column in present) for column in columns)


def has_ledger_key(host: HostView) -> bool:
    """Whether the declared keys let a payment be credited once only."""
    keys = host.unique_keys("LedgerEntry")
    if LEDGER_KEY in keys:
        return True
    others = (("Payment", RECORD_KEY), ("Wallet", WALLET_KEY))
    return WALLET_LEDGER_KEY in keys and all(key in host.unique_keys(model) for model, key in others)
