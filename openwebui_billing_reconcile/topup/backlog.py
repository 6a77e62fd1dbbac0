"""Top-ups that nobody names: a user's open ones, all open ones, and unsettled ones in the provider's list."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openwebui_billing_reconcile.host.database_errors import database_errors
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.rules import AlreadyCredited, decide_locally, owner_of
from openwebui_billing_reconcile.money.values import (
    TOPUP,
    LocalState,
    OpenTopup,
    ProviderPayment,
    Wallet,
    parse_listed,
)

from .settle import needs_repair

VISIT_SECONDS: Final = 24 * 60 * 60
"""How far back a visit looks, in seconds: the provider redelivers its notification for so long."""

MAX_VISIT_PAYMENTS: Final = 5
OPEN_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is to be done about one page of the provider's list.

    ``topups`` are to be settled, each for its user. ``others`` is how many payments are none of this host's
    top-ups, ``unreadable`` how many items are no payments.
    """

    topups: list[tuple[str, ProviderPayment]]
    others: int
    unreadable: int


class Backlog:
    """Finds top-ups to look at. Every method blocks, and raises ``TemporarilyUnavailableError``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open_of_user(self, user_id: str) -> list[str]:
        """Return the payment ids of the user's newest open top-ups, the newest first."""
        since = time.time() - VISIT_SECONDS
        with database_errors(f"user={user_id}"):
            return self._ledger.open_topups_of_user(user_id, since, MAX_VISIT_PAYMENTS)

    def open(self, since: float, until: float, after: OpenTopup | None) -> list[OpenTopup]:
        """Return a page of the open top-ups made from ``since`` to ``until`` (epoch seconds), oldest first.

        ``after`` is the last one of the page before.
        """
        with database_errors("open top-ups"):
            return self._ledger.open_topups(since, until, after, OPEN_PAGE)

    def unsettled(self, items: Sequence[object]) -> Unsettled:
        """Return the payments of a page of the provider's list that are this host's and not settled yet."""
        readable = [payment for payment in map(parse_listed, items) if payment is not None]
        with database_errors("captured payments"):
            states = self._ledger.read_many([payment.id for payment in readable])
            wallets = self._wallets_of([p for p in readable if states[p.id] == LocalState()])
        topups: list[tuple[str, ProviderPayment]] = []
        others = 0
        for payment in readable:
            local = states[payment.id]
            user_id = owner_of(payment, local, wallets.get(payment.topup.wallet_id or ""))
            if user_id is None:
                others += 1
            elif not _is_settled(local, user_id):
                topups.append((user_id, payment))
        return Unsettled(topups, others, len(items) - len(readable))

    def _wallets_of(self, unknown: Sequence[ProviderPayment]) -> dict[str, Wallet]:
        named = {payment.topup.wallet_id for payment in unknown if payment.topup.kind == TOPUP}
        wallet_ids = [wallet_id for wallet_id in named if wallet_id]
        return self._ledger.wallets(wallet_ids) if wallet_ids else {}


def _is_settled(local: LocalState, user_id: str) -> bool:
    return isinstance(decide_locally(local, user_id), AlreadyCredited) and not needs_repair(local)
