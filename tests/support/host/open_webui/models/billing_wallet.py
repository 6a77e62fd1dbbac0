"""The tables of the wallets, their ledger and the payments."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index, Integer, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from open_webui.internal.db import Base
from open_webui.shape import take_shape

JsonDict = dict[str, Any]


class LedgerEntryType(str, Enum):
    """What moved the money."""

    HOLD = "hold"
    CHARGE = "charge"
    REFUND = "refund"
    TOPUP = "topup"
    SUBSCRIPTION_CREDIT = "subscription_credit"
    ADJUSTMENT = "adjustment"
    RELEASE = "release"


class PaymentStatus(str, Enum):
    """The state of our own record, not the provider's."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class PaymentKind(str, Enum):
    """What a payment is for."""

    TOPUP = "topup"
    SUBSCRIPTION = "subscription"
    ADJUSTMENT = "adjustment"


class Wallet(Base):
    """What somebody has, in one currency."""

    __tablename__ = "billing_wallet"
    __table_args__ = (
        UniqueConstraint("user_id", "currency", name="uq_wallet_user_currency"),
        Index("idx_wallet_user", "user_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    currency: Mapped[str] = mapped_column(default="RUB", server_default="RUB")
    balance_topup_kopeks: Mapped[int] = mapped_column(default=0, server_default="0")
    balance_included_kopeks: Mapped[int] = mapped_column(default=0, server_default="0")
    included_expires_at: Mapped[int | None]
    max_reply_cost_kopeks: Mapped[int | None]
    daily_cap_kopeks: Mapped[int | None]
    daily_spent_kopeks: Mapped[int] = mapped_column(default=0, server_default="0")
    daily_reset_at: Mapped[int | None]
    auto_topup_enabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    auto_topup_threshold_kopeks: Mapped[int | None]
    auto_topup_amount_kopeks: Mapped[int | None]
    auto_topup_fail_count: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    auto_topup_last_failed_at: Mapped[int | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class LedgerEntry(Base):
    """One movement of money; the unique key keeps one payment from moving it twice."""

    __tablename__ = "billing_ledger_entry"
    __table_args__ = (
        UniqueConstraint("reference_type", "reference_id", "type", name="uq_ledger_reference"),
        Index("idx_ledger_user_time", "user_id", "created_at"),
        Index("idx_ledger_wallet_type", "wallet_id", "type"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    wallet_id: Mapped[str]
    currency: Mapped[str]
    type: Mapped[str]
    amount_kopeks: Mapped[int]
    charged_input_kopeks: Mapped[int | None]
    charged_output_kopeks: Mapped[int | None]
    balance_included_after: Mapped[int]
    balance_topup_after: Mapped[int]
    reference_id: Mapped[str | None]
    reference_type: Mapped[str | None]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    hold_expires_at: Mapped[int | None]
    expires_at: Mapped[int | None]
    metadata_json: Mapped[dict[str, Any] | None]
    created_at: Mapped[int]


class Payment(Base):
    """A payment at the provider, as far as we know."""

    __tablename__ = "billing_payment"
    __table_args__ = (
        Index("idx_payment_user_time", "user_id", "created_at"),
        Index("idx_payment_status_time", "status", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str]
    status: Mapped[str]
    kind: Mapped[str]
    amount_kopeks: Mapped[int]
    currency: Mapped[str]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    provider_payment_id: Mapped[str | None] = mapped_column(unique=True)
    payment_method_id: Mapped[str | None]
    status_details: Mapped[dict[str, Any] | None]
    metadata_json: Mapped[dict[str, Any] | None]
    raw_payload_json: Mapped[dict[str, Any] | None]
    user_id: Mapped[str]
    wallet_id: Mapped[str | None]
    subscription_id: Mapped[str | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class _RowModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class WalletModel(_RowModel):
    """A wallet, detached from the database."""

    id: str
    user_id: str
    currency: str
    balance_topup_kopeks: int
    balance_included_kopeks: int
    included_expires_at: int | None = None
    max_reply_cost_kopeks: int | None = None
    daily_cap_kopeks: int | None = None
    daily_spent_kopeks: int = 0
    daily_reset_at: int | None = None
    auto_topup_enabled: bool = False
    auto_topup_threshold_kopeks: int | None = None
    auto_topup_amount_kopeks: int | None = None
    auto_topup_fail_count: int = 0
    auto_topup_last_failed_at: int | None = None
    created_at: int
    updated_at: int


class LedgerEntryModel(_RowModel):
    """A ledger entry, detached from the database."""

    id: str
    user_id: str
    wallet_id: str
    currency: str
    type: str
    amount_kopeks: int
    charged_input_kopeks: int | None = None
    charged_output_kopeks: int | None = None
    balance_included_after: int
    balance_topup_after: int
    reference_id: str | None = None
    reference_type: str | None = None
    idempotency_key: str | None = None
    hold_expires_at: int | None = None
    expires_at: int | None = None
    metadata_json: JsonDict | None = None
    created_at: int


class PaymentModel(_RowModel):
    """A payment, detached from the database."""

    id: str
    provider: str
    status: str
    kind: str
    amount_kopeks: int
    currency: str
    idempotency_key: str | None = None
    provider_payment_id: str | None = None
    payment_method_id: str | None = None
    status_details: JsonDict | None = None
    metadata_json: JsonDict | None = None
    raw_payload_json: JsonDict | None = None
    user_id: str
    wallet_id: str | None = None
    subscription_id: str | None = None
    created_at: int
    updated_at: int


take_shape(__name__, "tables")
