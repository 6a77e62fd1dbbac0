"""Seed data: users and payments inserted directly into the host's tables, thousands in a second."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import jwt
from sqlalchemy import Connection, MetaData, Table, insert, text

from tests.support.harness.host import PACKAGE, Host


@dataclass(frozen=True, slots=True)
class SeedUser:
    """A signed-in user with an empty wallet."""

    id: str
    wallet_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Payment:
    """A pending top-up."""

    id: str
    owner: SeedUser


# Settled long ago. As in a live shop, most of the ledger is not about payments.
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
_OLD_PAYMENTS = """
INSERT INTO billing_payment (id, provider, status, kind, amount_kopeks, currency, idempotency_key,
    provider_payment_id, user_id, wallet_id, created_at, updated_at)
SELECT 'record-' || i, 'yookassa', 'succeeded', 'topup', 100000, 'RUB', 'key-' || i,
    'old-' || i, 'old-user-' || (i % 1000), 'wallet-' || (i % 1000), 1700000000 + i, 1700000000 + i FROM n
"""
_OLD_ENTRIES = """
INSERT INTO billing_ledger_entry (id, user_id, wallet_id, currency, type, amount_kopeks,
    balance_included_after, balance_topup_after, reference_id, reference_type, idempotency_key, created_at)
SELECT '{type}-' || i, 'old-user-' || (i % 1000), 'wallet-' || (i % 1000), 'RUB', '{type}', 100000,
    0, 100000, 'old-' || i, '{reference_type}', '{type}-of-' || i, 1700000000 + i FROM n
"""


class SeedData:
    """Inserts seed data into one host's tables."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._numbers = itertools.count()
        with host.books.transaction() as connection:
            self._accounts = Table("user", MetaData(), autoload_with=connection)

    def add_old_payments(self, count: int) -> None:
        """Insert payments credited long ago, each with its ledger entry, and as many charges."""
        topups = _OLD_ENTRIES.format(type="topup", reference_type="payment")
        charges = _OLD_ENTRIES.format(type="charge", reference_type="usage")
        with self._host.books.transaction() as connection:
            for rows in (_OLD_PAYMENTS, topups, charges):
                self._add_numbered(connection, rows, count)
            if connection.dialect.name == "postgresql":
                connection.execute(text("ANALYZE"))  # as autovacuum would do before long

    def users(self, count: int) -> list[SeedUser]:
        """Insert accounts with wallets and return them."""
        users = [self._new_user() for _ in range(count)]
        now = int(time.time())
        times = {"created_at": now, "updated_at": now}
        accounts = [
            {"id": u.id, "name": "Seed user", "email": f"{u.id}@example.com", "role": "user"}
            | {"profile_image_url": "/user.png", "last_active_at": now}
            | times
            for u in users
        ]
        wallets = [
            {
                "id": u.wallet_id,
                "user_id": u.id,
                "currency": "RUB",
                "balance_topup_kopeks": 0,
                "balance_included_kopeks": 0,
                **times,
            }
            for u in users
        ]
        with self._host.books.transaction() as connection:
            connection.execute(insert(self._accounts), accounts)
            connection.execute(insert(self._host.books.wallet_table), wallets)
        return users

    def payments(self, prefix: str, owners: Sequence[SeedUser]) -> list[Payment]:
        """Insert a pending top-up for each owner; the prefix of the id tells the provider its status."""
        made = [Payment(f"{prefix}{next(self._numbers)}", owner) for owner in owners]
        now = int(time.time())
        rows = [
            {"id": str(uuid4()), "provider": "yookassa", "status": "pending", "kind": "topup"}
            | {"amount_kopeks": PACKAGE, "currency": "RUB", "idempotency_key": str(uuid4())}
            | {"provider_payment_id": p.id, "user_id": p.owner.id, "wallet_id": p.owner.wallet_id}
            | {"created_at": now, "updated_at": now}
            for p in made
        ]
        with self._host.books.transaction() as connection:
            connection.execute(insert(self._host.books.payments), rows)
        return made

    def _new_user(self) -> SeedUser:
        user_id = str(uuid4())
        secret = self._host.environment["WEBUI_SECRET_KEY"]
        return SeedUser(user_id, str(uuid4()), jwt.encode({"id": user_id}, secret, algorithm="HS256"))

    def _add_numbered(self, connection: Connection, rows: str, count: int) -> None:
        # SQLite requires the WITH clause ahead of INSERT; PostgreSQL accepts it there.
        connection.execute(text(_NUMBERS + rows), {"count": count})
