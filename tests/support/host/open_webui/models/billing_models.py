"""The table of subscription payments, which top-ups have nothing to do with."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from open_webui.internal.db import Base


class TransactionStatus(str, Enum):
    """The state of a subscription payment."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Transaction(Base):
    """A subscription payment."""

    __tablename__ = "billing_transaction"
    __table_args__ = (Index("idx_transaction_user", "user_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(default="RUB")
    status: Mapped[str]
    yookassa_payment_id: Mapped[str | None] = mapped_column(unique=True)
    yookassa_status: Mapped[str | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class TransactionModel(BaseModel):
    """A subscription payment, detached from the database."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    user_id: str
    amount: Decimal
    currency: str = "RUB"
    status: str
    yookassa_payment_id: str | None = None
    yookassa_status: str | None = None
    created_at: int
    updated_at: int
