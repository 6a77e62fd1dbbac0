"""Credits a paid YooKassa top-up on an Open WebUI-style host although the webhook never came.

The public names are loaded on first use: Python imports this package at every interpreter start, for the
import hook in ``_autoload``, and that may cost nothing.
"""

TYPE_CHECKING = False  # typing itself would cost an import at every interpreter start
if TYPE_CHECKING:
    from .attachment.attach import Report, State, attach, detach
    from .errors import (
        GatewayBusyError,
        GatewayError,
        GatewayRejectedError,
        InvalidPaymentIdError,
        NotConfiguredError,
        NotYourPaymentError,
        PaymentHeldError,
        PaymentUnknownError,
        ProviderNonsenseError,
        ProviderRejectedError,
        ReconcileError,
        TooManyQuestionsError,
        TryLaterError,
    )
    from .hookspecs import Host, PaymentGateway, TopupRecord, hookimpl

__all__ = [
    "GatewayBusyError",
    "GatewayError",
    "GatewayRejectedError",
    "Host",
    "InvalidPaymentIdError",
    "NotConfiguredError",
    "NotYourPaymentError",
    "PaymentGateway",
    "PaymentHeldError",
    "PaymentUnknownError",
    "ProviderNonsenseError",
    "ProviderRejectedError",
    "ReconcileError",
    "Report",
    "State",
    "TooManyQuestionsError",
    "TopupRecord",
    "TryLaterError",
    "attach",
    "detach",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import errors, hookspecs
    from .attachment import attach as attachment

    public = next(vars(room)[name] for room in (attachment, errors, hookspecs) if name in vars(room))
    globals()[name] = public
    return public
