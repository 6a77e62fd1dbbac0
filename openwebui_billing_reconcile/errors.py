"""What can go wrong, each with a name.

The families are those the host's own billing code raises: ``ValueError`` for bad input, ``PermissionError``
for somebody else's payment, ``RuntimeError`` for the rest. A host that calls the service method needs to know
nothing of this plugin to handle them; one that does know finds ``reason`` and ``retry_after``.
"""

from __future__ import annotations


class ReconcileError(Exception):
    """A top-up was not reconciled; nothing was credited by this call unless a later one proves it.

    ``reason`` is a short code for machines, ``str(error)`` says it in words that may be shown to the user,
    ``retry_after`` is the number of seconds after which asking again makes sense (``None``: asking again
    cannot help).
    """

    reason = "failed"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason or type(self).reason
        self.retry_after = retry_after


class InvalidPaymentIdError(ReconcileError, ValueError):
    """The payment id is missing or not shaped like one."""

    reason = "invalid_payment_id"


class NotYourPaymentError(ReconcileError, PermissionError):
    """Another user's payment, or one whose owner cannot be proved: the same words for both."""

    reason = "not_your_payment"

    def __init__(self) -> None:
        super().__init__("Payment does not belong to the current user")


class NotConfiguredError(ReconcileError, RuntimeError):
    """The host has no payment client, so nobody can be asked."""

    reason = "not_configured"

    def __init__(self) -> None:
        super().__init__("Payment system is not configured")


class TooManyQuestionsError(ReconcileError, RuntimeError):
    """This user has used up the budget of questions to the provider."""

    reason = "too_many_questions"

    def __init__(self, retry_after: int) -> None:
        super().__init__("Too many payment checks, try again later", retry_after=retry_after)


class PaymentHeldError(ReconcileError, RuntimeError):
    """It does not add up, so a person has to look; asking again does not help."""

    reason = "held"


class ProviderRejectedError(ReconcileError, RuntimeError):
    """The provider refused the question (400, 401, 403): the shop's set-up is wrong.

    ``__cause__`` is the error of the host's own client, where it was the host's client that asked.
    """

    reason = "provider_rejected"


class ProviderNonsenseError(ReconcileError, RuntimeError):
    """The provider's answer cannot be about this payment, or is no answer at all."""

    reason = "provider_nonsense"


class TryLaterError(ReconcileError, RuntimeError):
    """Nothing is decided and a later call can succeed: provider or database did not answer in time."""

    reason = "try_later"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: int = 5) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after)


class GatewayError(Exception):
    """A ``PaymentGateway`` could not get an answer: timeout, network, 5xx. A later question can succeed."""


class PaymentUnknownError(GatewayError):
    """The provider does not know this payment id (404)."""


class GatewayRejectedError(GatewayError):
    """The provider refused the question as such (400, 401, 403)."""


class GatewayBusyError(GatewayError):
    """The provider asks for a pause (429) of ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
