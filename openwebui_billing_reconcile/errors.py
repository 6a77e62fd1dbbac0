"""Everything that can go wrong, as named errors.

The families are those the host's own billing code raises: ``ValueError`` for bad input, ``PermissionError``
for somebody else's payment, ``RuntimeError`` for the rest. A host that calls the service method needs to know
nothing of this plugin to handle them; one that does know finds ``reason`` and ``retry_after``.
"""

from __future__ import annotations


class ReconcileError(Exception):
    """A top-up was not reconciled; nothing was credited by this call unless a later one proves it.

    ``reason`` is a short code for machines, ``str(error)`` says it in words that may be shown to the user,
    ``retry_after`` is the number of seconds after which asking again makes sense (``None``: asking again
    cannot help). ``provider_status`` is the provider's, where it answered.
    """

    reason = "failed"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason or type(self).reason
        self.retry_after = retry_after
        self.provider_status: str | None = None


class InvalidBodyError(ReconcileError, ValueError):
    """A request's body is no JSON object that can be read."""

    reason = "invalid_body"


class InvalidPaymentIdError(ReconcileError, ValueError):
    """The payment id is missing or not shaped like one."""

    reason = "invalid_payment_id"


class PaymentNotOwnedError(ReconcileError, PermissionError):
    """Another user's payment, or one whose owner cannot be proved: one wording for both."""

    reason = "not_owned"

    def __init__(self) -> None:
        super().__init__("Payment does not belong to the current user")


class NotConfiguredError(ReconcileError, RuntimeError):
    """The host has no payment client, so no provider can be queried."""

    reason = "not_configured"

    def __init__(self) -> None:
        super().__init__("Payment system is not configured")


class RateLimitedError(ReconcileError, RuntimeError):
    """This user has caused too many provider queries."""

    reason = "rate_limited"

    def __init__(self, retry_after: int) -> None:
        super().__init__("Too many payment checks, try again later", retry_after=retry_after)


class PaymentHeldError(ReconcileError, RuntimeError):
    """It does not add up, so a person has to look; asking again does not help.

    ``amount_kopeks`` of ``currency`` are at stake; ``None`` where that cannot be told.
    """

    reason = "held"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        amount_kopeks: int | None = None,
        currency: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.amount_kopeks = amount_kopeks
        self.currency = currency


class InvalidReleaseError(ReconcileError, ValueError):
    """What is to be released, why, or whether, is not said clearly."""

    reason = "invalid_release"


class ReleaseRefusedError(ReconcileError, RuntimeError):
    """Nothing was released.

    ``reason`` is ``already_credited``, ``not_held``, ``observing``, or the code of the hold as it is now.
    """

    reason = "not_held"


class InvalidPeriodError(ReconcileError, ValueError):
    """The days to audit or report are not given clearly."""

    reason = "invalid_period"


class AuditRunningError(ReconcileError, RuntimeError):
    """This process makes one audit at a time, and another one is under way."""

    reason = "audit_running"

    def __init__(self) -> None:
        super().__init__("Another audit is under way: try again when it has ended", retry_after=30)


class UnknownPaymentError(ReconcileError, LookupError):
    """The provider does not know the payment that is to be released."""

    reason = "unknown_payment"

    def __init__(self) -> None:
        super().__init__("Payment provider does not know this payment")


class ProviderRejectedError(ReconcileError, RuntimeError):
    """The provider rejected the query (400, 401, 403): the shop's set-up is wrong.

    ``__cause__`` is the error of the host's own client, where the host's client made the query.
    """

    reason = "provider_rejected"


class InvalidProviderResponseError(ReconcileError, RuntimeError):
    """The provider's answer cannot be about this payment, or is no answer at all."""

    reason = "invalid_provider_response"


class TemporarilyUnavailableError(ReconcileError, RuntimeError):
    """Nothing is decided and a later call can succeed: provider or database did not answer in time."""

    reason = "temporarily_unavailable"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: int = 5) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after)


class UnexpectedError(ReconcileError, RuntimeError):
    """A fault of the program, ours or the host's: asking again does not help, the log names it."""

    reason = "unexpected"

    def __init__(self) -> None:
        super().__init__("Payment could not be checked")


class StillBeingCheckedError(TemporarilyUnavailableError):
    """The call took longer than its caller waits; what it has begun goes on."""

    reason = "timeout"

    def __init__(self) -> None:
        super().__init__("Payment is still being checked")


class ProviderUnavailableError(TemporarilyUnavailableError):
    """The provider did not answer in time, or with an error of its own."""

    reason = "provider_unavailable"

    def __init__(self, retry_after: int = 5) -> None:
        super().__init__("Payment provider is temporarily unavailable", retry_after=retry_after)


class ProviderThrottledError(ProviderUnavailableError):
    """The provider has asked for a pause, of which ``retry_after`` seconds are left."""

    reason = "provider_throttled"


class WalletBusyError(TemporarilyUnavailableError):
    """Somebody else holds the wallet's row, or on SQLite the database: crediting would have to wait."""

    reason = "wallet_busy"

    def __init__(self) -> None:
        super().__init__("Payment could not be credited yet")


class GatewayError(Exception):
    """A ``PaymentGateway`` could not get an answer: timeout, network, 5xx. A later query can succeed."""


class PaymentNotFoundError(GatewayError):
    """The provider does not know this payment id (404)."""


class GatewayRejectedError(GatewayError):
    """The provider rejected the query as such (400, 401, 403)."""


class GatewayThrottledError(GatewayError):
    """The provider asks for a pause of ``retry_after`` seconds (429)."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
