"""The wire models of the administrators' endpoints."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from openwebui_billing_reconcile.money.findings import FindingClass
from openwebui_billing_reconcile.money.release import RELEASABLE, UNCREDITED
from openwebui_billing_reconcile.money.values import PAYMENT_ID_PATTERN
from openwebui_billing_reconcile.topup.release import MAX_NOTE


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FindingResponse(_Strict):
    """Something that a person should look at."""

    kind: FindingClass = Field(alias="class")
    payment_id: str
    user_id: str | None
    wallet_id: str | None
    amount_kopeks: int | None = Field(
        description="What the provider holds, paid less refunded; of a refund after the credit, what the "
        "wallet has beyond that; what was credited or ordered where it holds nothing or was not asked."
    )
    currency: str | None
    reason: str | None = Field(description="The code of a hold, or uncredited.")
    captured_at: str | None = Field(description="The provider's time of capture.")
    releasable: bool = Field(description="Whether POST …/release can credit it.")


class CheckedResponse(_Strict):
    """How much an audit has checked."""

    payments: int = Field(description="Payments captured in these days, as the provider lists them.")
    entries: int = Field(description="Entries of the ledger in these days that credit a payment.")
    others: int = Field(description="Payments that are no top-ups of this host.")
    unreadable: int = Field(description="Items of the provider's list that are no payments.")


class TotalResponse(_Strict):
    """A number of payments, and how much of the host's default currency they are."""

    count: int
    kopeks: int


class AuditResponse(_Strict):
    """What an audit found."""

    since: str
    until: str = Field(description="Not included.")
    checked: CheckedResponse
    settled: int = Field(description="Payments that were settled by hand.")
    totals: dict[FindingClass, TotalResponse]
    findings: list[FindingResponse]


class ReleaseRequest(BaseModel):
    """What is to be released, and why."""

    payment_id: str = Field(pattern=rf"^\s*{PAYMENT_ID_PATTERN}\s*$")
    reason: str = Field(
        description="The reason that the audit names: one of these.",
        json_schema_extra={"enum": [UNCREDITED, *(reason.value for reason in sorted(RELEASABLE))]},
    )
    note: str = Field(default="", max_length=MAX_NOTE, description="Why it is released; needed to confirm.")
    confirm: bool = Field(description="false: say what would be done, and write nothing.")


class ReleaseResponse(_Strict):
    """What a release did, or would do."""

    payment_id: str
    provider_status: str
    payment_status: str | None
    credited: bool = Field(description="false where it was not confirmed.")
    amount_kopeks: int
    currency: str
    user_id: str
    wallet_id: str | None = Field(description="null for a wallet that is yet to be created.")


class ReleaseRefusal(_Strict):
    """Why nothing was released."""

    detail: str
    reason: str = Field(description="The code: already_credited, not_held, observing, or of the hold.")


class WaysResponse(_Strict):
    """Credits, by the way they came."""

    webhook: TotalResponse
    by_return: TotalResponse = Field(alias="return")
    visit: TotalResponse
    sweep: TotalResponse
    release: TotalResponse


class DayResponse(WaysResponse):
    """The credits of one day."""

    date: str


class OpenResponse(_Strict):
    """How many top-ups are pending for longer than some seconds."""

    older_than: int
    count: int


class DelayResponse(_Strict):
    """Seconds from capture to credit, of credits that did not come by webhook."""

    median: float | None
    p95: float | None


class PassResponse(_Strict):
    """What a pass of the sweep did. ``began_at`` is in epoch seconds."""

    began_at: float
    seconds: float
    listed: int
    credited: int
    canceled: int
    held: int
    failed: int
    others: int
    unreadable: int
    is_complete: bool


class ReportResponse(_Strict):
    """How many credits came which way, and what runs."""

    since: str
    until: str = Field(description="Not included.")
    totals: WaysResponse
    days: list[DayResponse]
    open: list[OpenResponse]
    delay_seconds: DelayResponse
    last_pass: PassResponse | None = Field(description="As the answering worker knows it.")
    mode: str
    version: str
    plugins: list[str]
