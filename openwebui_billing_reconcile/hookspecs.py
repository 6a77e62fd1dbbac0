"""The hooks, and what plugins and this package agree on: markers, specs and protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import pluggy

if TYPE_CHECKING:
    from fastapi import APIRouter

PROJECT = "openwebui_billing_reconcile"
"""pluggy's project name, and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class PaymentGateway(Protocol):
    """A payment provider that can be queried.

    ``account_id`` is the shop's id at the provider, or ``None`` where it is not known; ``is_test_shop`` says
    whether the shop's key is a test key (``None``: not known, which counts as live).
    """

    @property
    def account_id(self) -> str | None: ...

    @property
    def is_test_shop(self) -> bool | None: ...

    async def get_payment(self, payment_id: str) -> object:
        """Return the provider's payment object, as its JSON was.

        Raises ``PaymentNotFoundError``, ``GatewayRejectedError``, ``GatewayThrottledError``, or
        ``GatewayError`` for everything else; any other exception counts as ``GatewayError``. ``payment_id``
        is 1 to 64 letters, digits, ``_`` and ``-``.
        """


class Way(StrEnum):
    """Who asked about a payment, and on whose behalf. The value is ``reconciled_by`` in the host's tables."""

    RETURN = "return"
    """The person, who came back from the provider's page."""
    VISIT = "visit"
    """The person, on any balance page."""
    SWEEP = "sweep"
    """Nobody: the background task."""
    RELEASE = "release"
    """An administrator, about a held payment."""


@dataclass(frozen=True, slots=True)
class CapturedPage:
    """One page of a list of captured payments.

    ``items`` are the provider's payment objects, as their JSON was. ``next_cursor`` leads to the next page;
    ``None``: this is the last one.
    """

    items: Sequence[object]
    next_cursor: str | None


@runtime_checkable
class ListingGateway(PaymentGateway, Protocol):
    """A gateway that can list as well. ``isinstance(gateway, ListingGateway)`` tells whether one can."""

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        """Return up to 100 succeeded payments captured at ``since`` or later, the newest first.

        ``since`` is in epoch seconds. ``cursor`` is ``None`` for the first page, else the ``next_cursor`` of
        the page before. Raises the same errors as ``get_payment``; a list that cannot be read is a
        ``GatewayError``.
        """


@dataclass(frozen=True, slots=True)
class TopupEvent:
    """A new outcome of a top-up, for audit, metrics and alerts.

    ``way`` is how the payment came to be looked at. ``amount_kopeks`` with ``currency`` is what was credited,
    would be, or is at stake in a ``held`` one, where that can be told. ``wallet_id`` is there for
    ``credited`` and ``would_credit``, ``reason``, a code, for ``held``. ``at`` is in epoch seconds, and so is
    ``captured_at`` of a ``credited`` one: when the provider captured the payment, where it said so.
    """

    outcome: Literal["credited", "held", "canceled", "would_credit", "would_cancel"]
    payment_id: str
    user_id: str
    way: Way
    at: float
    wallet_id: str | None = None
    amount_kopeks: int | None = None
    currency: str | None = None
    reason: str | None = None
    captured_at: float | None = None


class Hooks(Protocol):
    """The relay by which our own code reaches the hooks: ours, or any pluggy manager's ``hook``."""

    def payment_gateway(self, *, host: Host, payment_id: str) -> PaymentGateway | None: ...

    def topup_outcome(self, *, event: TopupEvent) -> object: ...


class Host(Protocol):
    """The billing host, as plugins see it. Every attribute is looked up on the host at each access."""

    @property
    def hook(self) -> Hooks:
        """Where the hooks are called."""

    @property
    def router(self) -> APIRouter:
        """The host's billing router, served below ``/api/v1/billing``."""

    @property
    def billing_service(self) -> Any:
        """The host's ``BillingService`` instance."""

    @property
    def wallet_enabled(self) -> bool:
        """The host's ``ENABLE_BILLING_WALLET``."""

    @property
    def default_currency(self) -> str:
        """The host's ``BILLING_DEFAULT_CURRENCY``."""

    @property
    def get_verified_user(self) -> Callable[..., Any]:
        """The host's dependency for signed-in users, for ``fastapi.Depends``."""

    @property
    def get_admin_user(self) -> Callable[..., Any]:
        """The host's dependency for administrators, for ``fastapi.Depends``."""

    @property
    def payment_client(self) -> Any | None:
        """The host's own YooKassa client, ``None`` while it is not initialised."""

    @property
    def shop_id(self) -> str:
        """The shop's account id at the provider, "" where it is not set."""

    @property
    def shop_secret_key(self) -> str:
        """The shop's secret key at the provider, "" where it is not set. Never log it."""


@hookspec
def billing_router(host: Host) -> APIRouter | None:
    """Return a router whose routes are added to the host's billing router."""


@hookspec
def billing_service_methods(host: Host) -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Return functions, by name, to add to the host's ``BillingService`` as methods."""


@hookspec(firstresult=True)
def payment_gateway(host: Host, payment_id: str) -> PaymentGateway | None:
    """Return the gateway to query about this payment, or ``None`` to leave it to the next plugin."""


@hookspec
def topup_outcome(event: TopupEvent) -> None:
    """Take note of a new outcome."""
