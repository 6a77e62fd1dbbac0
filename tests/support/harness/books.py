"""The host's books, read and bent behind its back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    MetaData,
    Table,
    create_engine,
    delete,
    insert,
    or_,
    select,
    text,
    update,
)

Row = dict[str, Any]


class Books:
    """The tables of the payments, the wallets and the ledger of one database."""

    def __init__(self, database_url: str) -> None:
        url = database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
        self._engine = create_engine(url)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction of one's own."""
        with self._engine.begin() as connection:
            yield connection

    # --- Payments ---

    def record(self, payment_id: str) -> Row | None:
        """The host's record of a payment, found by the provider's id."""
        return self._first(self.payments, self.payments.c.provider_payment_id == payment_id)

    def add_record(self, user_id: str, payment_id: str, **columns: Any) -> str:
        """A pending top-up into no particular wallet; our own id of it."""
        record_id, now = str(uuid4()), int(time.time())
        usual = {
            "id": record_id,
            "provider": "yookassa",
            "status": "pending",
            "kind": "topup",
            "amount_kopeks": 100_000,
            "currency": "RUB",
            "idempotency_key": str(uuid4()),
            "provider_payment_id": payment_id,
            "user_id": user_id,
            "created_at": now,
            "updated_at": now,
        }
        with self.transaction() as connection:
            connection.execute(insert(self.payments).values(usual | columns))
        return record_id

    def change_record(self, payment_id: str, **columns: Any) -> None:
        """Overwrite parts of a record."""
        self._change(self.payments, self.payments.c.provider_payment_id == payment_id, columns)

    @property
    def has_claims(self) -> bool:
        """Whether an auto top-up is claimed by a column of its payment, as on newer hosts."""
        return "auto_topup_claim_key" in self.payments.c

    def keep_apart(self, payment_id: str) -> None:
        """Let the next top-up of that amount be another payment.

        Newer hosts open a pending one again, unless it is claimed for an auto top-up.
        """
        if self.has_claims:
            self.change_record(payment_id, auto_topup_claim_key=f"kept apart: {payment_id}")

    def delete_record(self, payment_id: str) -> None:
        """The host never knew of it."""
        self._delete(self.payments, self.payments.c.provider_payment_id == payment_id)

    # --- Wallets ---

    def wallets(self, user_id: str) -> list[Row]:
        """Return all wallets of a user."""
        return self._all(self.wallet_table, self.wallet_table.c.user_id == user_id)

    def wallet(self, user_id: str, currency: str = "RUB") -> Row:
        """Return a user's wallet, which must exist."""
        (wallet,) = [w for w in self.wallets(user_id) if w["currency"] == currency]
        return wallet

    def add_wallet(self, user_id: str, currency: str = "RUB") -> str:
        """An empty wallet; its id."""
        wallet_id, now = str(uuid4()), int(time.time())
        with self.transaction() as connection:
            connection.execute(
                insert(self.wallet_table).values(
                    id=wallet_id,
                    user_id=user_id,
                    currency=currency,
                    balance_topup_kopeks=0,
                    balance_included_kopeks=0,
                    created_at=now,
                    updated_at=now,
                )
            )
        return wallet_id

    def change_wallet(self, wallet_id: str, **columns: Any) -> None:
        """Overwrite parts of a wallet."""
        self._change(self.wallet_table, self.wallet_table.c.id == wallet_id, columns)

    def delete_wallet(self, wallet_id: str) -> None:
        """It is gone."""
        self._delete(self.wallet_table, self.wallet_table.c.id == wallet_id)

    # --- The ledger ---

    def entries(self, payment_id: str) -> list[Row]:
        """The entries that name a payment, by the provider's id or by our record's."""
        record = self.record(payment_id)
        keys = [payment_id] + ([record["id"]] if record else [])
        entry = self.ledger.c
        return self._all(self.ledger, or_(entry.reference_id == payment_id, entry.idempotency_key.in_(keys)))

    def add_entry(self, user_id: str, wallet_id: str, **columns: Any) -> str:
        """An entry by hand, a top-up unless the columns say otherwise; its id. No balance is moved."""
        entry_id = str(uuid4())
        usual = {
            "id": entry_id,
            "user_id": user_id,
            "wallet_id": wallet_id,
            "currency": "RUB",
            "type": "topup",
            "amount_kopeks": 100_000,
            "balance_included_after": 0,
            "balance_topup_after": 0,
            "reference_type": "payment",
            "created_at": int(time.time()),
        }
        with self.transaction() as connection:
            connection.execute(insert(self.ledger).values(usual | columns))
        return entry_id

    def change_entry(self, entry_id: str, **columns: Any) -> None:
        """Overwrite parts of an entry."""
        self._change(self.ledger, self.ledger.c.id == entry_id, columns)

    def delete_entry(self, entry_id: str) -> None:
        """It was never there."""
        self._delete(self.ledger, self.ledger.c.id == entry_id)

    # --- Trouble ---

    @contextmanager
    def refusing(self, operation: str, table: Table, **where: str) -> Iterator[None]:
        """Let no INSERT (or UPDATE) of such rows through, as a database in trouble does."""
        name = f"refuse_{uuid4().hex}"
        condition = " AND ".join(f"NEW.{column} = '{value}'" for column, value in where.items())
        trigger = f"CREATE TRIGGER {name} BEFORE {operation} ON {table.name}"
        if self._engine.dialect.name == "sqlite":
            make = [f"{trigger} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"]
            undo = [f"DROP TRIGGER {name}"]
        else:
            refuse = "BEGIN RAISE EXCEPTION 'refused by the test'; END"
            make = [
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$",
                f"{trigger} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()",
            ]
            undo = [f"DROP TRIGGER {name} ON {table.name}", f"DROP FUNCTION {name}()"]
        self._run(make)
        try:
            yield
        finally:
            self._run(undo)

    @contextmanager
    def holding_wallet(self, wallet_id: str) -> Iterator[None]:
        """Lock a wallet's row, as a transaction does that never ends."""
        wallet = self.wallet_table
        with self.transaction() as connection:
            connection.execute(select(wallet).where(wallet.c.id == wallet_id).with_for_update())
            yield

    @contextmanager
    def holding_record(self, payment_id: str) -> Iterator[None]:
        """Lock a payment's row in the same way."""
        this = self.payments.c.provider_payment_id == payment_id
        with self.transaction() as connection:
            connection.execute(select(self.payments).where(this).with_for_update())
            yield

    @contextmanager
    def missing(self, table: Table) -> Iterator[None]:
        """Take a whole table away for a while."""
        self._run([f"ALTER TABLE {table.name} RENAME TO {table.name}_away"])
        try:
            yield
        finally:
            self._run([f"ALTER TABLE {table.name}_away RENAME TO {table.name}"])

    # --- The tables, as they are in this database ---

    @cached_property
    def payments(self) -> Table:
        """`billing_payment`."""
        return self._table("billing_payment")

    @cached_property
    def wallet_table(self) -> Table:
        """`billing_wallet`."""
        return self._table("billing_wallet")

    @cached_property
    def ledger(self) -> Table:
        """`billing_ledger_entry`."""
        return self._table("billing_ledger_entry")

    def _table(self, name: str) -> Table:
        return Table(name, MetaData(), autoload_with=self._engine)

    def _run(self, statements: list[str]) -> None:
        with self.transaction() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def _all(self, table: Table, where: ColumnElement[bool]) -> list[Row]:
        with self.transaction() as connection:
            rows = connection.execute(select(table).where(where).order_by(table.c.id))
            return [dict(row) for row in rows.mappings()]

    def _first(self, table: Table, where: ColumnElement[bool]) -> Row | None:
        found = self._all(table, where)
        return found[0] if found else None

    def _change(self, table: Table, where: ColumnElement[bool], columns: Mapping[str, Any]) -> None:
        with self.transaction() as connection:
            changed = connection.execute(update(table).where(where).values(**columns))
            assert changed.rowcount == 1

    def _delete(self, table: Table, where: ColumnElement[bool]) -> None:
        with self.transaction() as connection:
            assert connection.execute(delete(table).where(where)).rowcount == 1
