"""All statements on the host's tables, for any host's tables.

SQLAlchemy takes longer to build these than the database to answer them, so each is built once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    func,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union,
    union_all,
    update,
)

from openwebui_billing_reconcile.money.values import PENDING, TOPUP

from .requirements import CLAIM_KEY, FAIL_COUNT

REFERENCE_TYPE: Final = "payment"
"""The reference type under which the host enters a top-up."""

_TABLES = 8  # a process has one host; its tests may have several

_PAYMENT_ID: BindParameter[str] = bindparam("payment_id")
_RECORD_ID: BindParameter[str] = bindparam("record_id")


def _is_topup(entry: Table) -> ColumnElement[bool]:
    return and_(
        entry.c.reference_type == REFERENCE_TYPE,
        entry.c.reference_id == _PAYMENT_ID,
        entry.c.type == TOPUP,
    )


@lru_cache(maxsize=_TABLES)
def record_and_topups(payment: Table, entry: Table) -> Select[Any]:
    """The payment's record beside each entry that credits it; one row of nulls where there is neither.

    One statement sees one moment: a credit that lands meanwhile is seen whole or not at all, and never as a
    payment marked succeeded without an entry.
    """
    anything = select(literal(1)).subquery()
    return select(*_columns(payment, entry)).select_from(
        anything.outerjoin(payment, payment.c.provider_payment_id == _PAYMENT_ID).outerjoin(
            entry, _is_topup(entry)
        )
    )


@lru_cache(maxsize=_TABLES)
def records_and_topups(payment: Table, entry: Table) -> CompoundSelect[Any]:
    """The same for many payments at once, with each row's payment id first; no row where there is neither."""
    ids: BindParameter[Any] = bindparam("payment_ids", expanding=True)
    credits_ = and_(entry.c.reference_type == REFERENCE_TYPE, entry.c.type == TOPUP)
    recorded = select(
        payment.c.provider_payment_id.label("payment_id"), *_columns(payment, entry)
    ).select_from(
        payment.outerjoin(entry, and_(credits_, entry.c.reference_id == payment.c.provider_payment_id))
    )
    unrecorded = select(entry.c.reference_id, *_columns(payment, entry)).select_from(
        entry.outerjoin(payment, payment.c.provider_payment_id == entry.c.reference_id)
    )
    return union_all(
        recorded.where(payment.c.provider_payment_id.in_(ids)),
        unrecorded.where(credits_, entry.c.reference_id.in_(ids), payment.c.id.is_(None)),
    )


def _columns(payment: Table, entry: Table) -> list[ColumnElement[Any]]:
    return [
        payment.c.id.label("record_id"),
        payment.c.status,
        payment.c.kind,
        payment.c.user_id.label("record_user_id"),
        payment.c.wallet_id.label("record_wallet_id"),
        payment.c.amount_kopeks.label("record_kopeks"),
        payment.c.currency.label("record_currency"),
        entry.c.id.label("entry_id"),
        entry.c.user_id,
        entry.c.wallet_id,
        entry.c.amount_kopeks,
        entry.c.currency,
        entry.c.metadata_json.label("entry_metadata"),
    ]


@lru_cache(maxsize=_TABLES)
def other_entries_naming(entry: Table) -> CompoundSelect[Any]:
    """The entries that name the payment and are not the top-up that credits it.

    The top-up is left out, since it may land between the two statements: it is a credit that the next read
    sees, and nothing that somebody settled by hand.

    There is no index on ``reference_id`` alone, so this walks the few distinct reference types through the
    ledger's unique key and looks the payment up under each: the cost does not grow with the ledger.
    """
    types = select(func.min(entry.c.reference_type).label("reference_type")).cte(recursive=True)
    following = select(func.min(entry.c.reference_type)).where(
        entry.c.reference_type > types.c.reference_type
    )
    types = types.union_all(select(following.scalar_subquery()).where(types.c.reference_type.is_not(None)))
    is_other = or_(
        entry.c.reference_type.is_distinct_from(REFERENCE_TYPE),
        entry.c.reference_id.is_distinct_from(_PAYMENT_ID),
        entry.c.type.is_distinct_from(TOPUP),
    )
    named = select(entry.c.id, entry.c.amount_kopeks, entry.c.currency).where(is_other)
    return union(
        named.join(types, entry.c.reference_type == types.c.reference_type).where(
            entry.c.reference_id == _PAYMENT_ID
        ),
        named.where(entry.c.reference_type.is_(None), entry.c.reference_id == _PAYMENT_ID),
        named.where(entry.c.idempotency_key.in_([_PAYMENT_ID, _RECORD_ID])),
    )


@lru_cache(maxsize=_TABLES)
def credited_topups(payment: Table, entry: Table) -> Select[Any]:
    """The entries that credit a payment, made from ``since`` to before ``until``, a page after a known one.

    There is no index on the time alone: the pages go once through the ledger by its primary key.
    """
    return (
        select(
            entry.c.id,
            entry.c.reference_id.label("payment_id"),
            entry.c.amount_kopeks,
            entry.c.currency,
            entry.c.created_at,
            entry.c.metadata_json.label("entry_metadata"),
            payment.c.raw_payload_json.label("payload"),
        )
        .select_from(entry.outerjoin(payment, payment.c.provider_payment_id == entry.c.reference_id))
        .where(
            entry.c.id > bindparam("after"),
            entry.c.reference_type == REFERENCE_TYPE,
            entry.c.type == TOPUP,
            entry.c.created_at >= bindparam("since"),
            entry.c.created_at < bindparam("until"),
        )
        .order_by(entry.c.id)
        .limit(bindparam("most"))
    )


@lru_cache(maxsize=_TABLES)
def users_among(payment: Table, wallet: Table) -> CompoundSelect[Any]:
    """Which of some users this host has: those with a wallet or a payment here."""
    ids: BindParameter[Any] = bindparam("user_ids", expanding=True)
    return union(
        select(wallet.c.user_id).where(wallet.c.user_id.in_(ids)),
        select(payment.c.user_id).where(payment.c.user_id.in_(ids)),
    )


@lru_cache(maxsize=_TABLES)
def count_open_topups(payment: Table) -> Select[Any]:
    """How many pending top-ups were made up to ``until``."""
    return select(func.count()).where(
        payment.c.status == PENDING,
        payment.c.created_at <= bindparam("until"),
        payment.c.kind == TOPUP,
        payment.c.provider_payment_id.is_not(None),
    )


@lru_cache(maxsize=_TABLES)
def open_topups_of_user(payment: Table) -> Select[Any]:
    """A user's pending top-ups since a moment, the newest first."""
    return (
        select(payment.c.provider_payment_id)
        .where(
            payment.c.user_id == bindparam("user_id"),
            payment.c.created_at >= bindparam("since"),
            payment.c.status == PENDING,
            payment.c.kind == TOPUP,
            payment.c.provider_payment_id.is_not(None),
        )
        .order_by(payment.c.created_at.desc())
        .limit(bindparam("most"))
    )


@lru_cache(maxsize=_TABLES)
def open_topups(payment: Table) -> Select[Any]:
    """All pending top-ups made from ``since`` to ``until``, the oldest first, a page after a known one."""
    place = tuple_(payment.c.created_at, payment.c.provider_payment_id)
    return (
        select(payment.c.provider_payment_id, payment.c.user_id, payment.c.created_at)
        .where(
            payment.c.status == PENDING,
            payment.c.created_at.between(bindparam("since"), bindparam("until")),
            payment.c.kind == TOPUP,
            payment.c.provider_payment_id.is_not(None),
            place > tuple_(bindparam("after_created_at"), bindparam("after_payment_id")),
        )
        .order_by(payment.c.created_at, payment.c.provider_payment_id)
        .limit(bindparam("most"))
    )


@lru_cache(maxsize=_TABLES)
def wallets_with_ids(wallet: Table) -> Select[Any]:
    wanted = wallet.c.id.in_(bindparam("ids", expanding=True))
    return select(wallet.c.id, wallet.c.user_id, wallet.c.currency).where(wanted)


@lru_cache(maxsize=_TABLES)
def wallet_by(wallet: Table, *key: str) -> Select[Any]:
    wanted = (wallet.c[name] == bindparam(name) for name in key)
    return select(wallet.c.id, wallet.c.user_id, wallet.c.currency).where(*wanted)


@lru_cache(maxsize=_TABLES)
def lock_wallet(wallet: Table) -> Select[Any]:
    return select(wallet.c.id).where(wallet.c.id == bindparam("id")).with_for_update(nowait=True)


@lru_cache(maxsize=_TABLES)
def change_status(payment: Table, entry: Table, *, where_credited: bool) -> Update:
    """One statement, so that nothing can come between the look at status and credit and the change."""
    credit = select(entry.c.id).where(_is_topup(entry)).exists()
    released = {CLAIM_KEY: None} if CLAIM_KEY in payment.c else {}
    return (
        update(payment)
        .where(
            payment.c.provider_payment_id == _PAYMENT_ID,
            payment.c.status.in_(bindparam("old", expanding=True)),
            credit if where_credited else not_(credit),
        )
        .values(status=bindparam("new"), updated_at=bindparam("now"), **released)
    )


@lru_cache(maxsize=_TABLES)
def assign_wallet(payment: Table, entry: Table) -> Update:
    """Give the record of a payment that is not credited another wallet than ``old_wallet``."""
    return (
        update(payment)
        .where(
            payment.c.provider_payment_id == _PAYMENT_ID,
            payment.c.wallet_id.is_not_distinct_from(bindparam("old_wallet")),
            not_(select(entry.c.id).where(_is_topup(entry)).exists()),
        )
        .values(wallet_id=bindparam("wallet"), updated_at=bindparam("now"))
    )


@lru_cache(maxsize=_TABLES)
def wallet_and_metadata(payment: Table) -> Select[Any]:
    """What the record of a pending payment says about where its money comes from and goes to."""
    return select(payment.c.wallet_id, payment.c.metadata_json).where(
        payment.c.provider_payment_id == _PAYMENT_ID, payment.c.status == PENDING
    )


@lru_cache(maxsize=_TABLES)
def failures_of(wallet: Table) -> Select[Any]:
    """How many auto top-ups into a wallet have failed in a row."""
    return select(wallet.c[FAIL_COUNT].label("failures")).where(wallet.c.id == bindparam("id"))
