"""Credits a paid YooKassa top-up on an Open WebUI-style host although the webhook never came.

The public names are loaded on first use: Python imports this package at every interpreter start, for the
import hook in ``_autoload``, and that may cost nothing.
"""

TYPE_CHECKING = False  # typing itself would cost an import at every interpreter start
if TYPE_CHECKING:
    from .attachment.attach import Report, State, attach, detach
    from .errors import (
        GatewayError,
        GatewayRejectedError,
        GatewayThrottledError,
        InvalidPaymentIdError,
        InvalidProviderResponseError,
        NotConfiguredError,
        PaymentHeldError,
        PaymentNotFoundError,
        PaymentNotOwnedError,
        ProviderRejectedError,
        ProviderThrottledError,
        ProviderUnavailableError,
        RateLimitedError,
        ReconcileError,
        StillBeingCheckedError,
        TemporarilyUnavailableError,
        UnexpectedError,
        WalletBusyError,
    )
    from .hookspecs import CapturedPage, Host, ListingGateway, PaymentGateway, TopupEvent, Way, hookimpl

__all__ = [
    "CapturedPage",
    "GatewayError",
    "GatewayRejectedError",
    "GatewayThrottledError",
    "Host",
    "InvalidPaymentIdError",
    "InvalidProviderResponseError",
    "ListingGateway",
    "NotConfiguredError",
    "PaymentGateway",
    "PaymentHeldError",
    "PaymentNotFoundError",
    "PaymentNotOwnedError",
    "ProviderRejectedError",
    "ProviderThrottledError",
    "ProviderUnavailableError",
    "RateLimitedError",
    "ReconcileError",
    "Report",
    "State",
    "StillBeingCheckedError",
    "TemporarilyUnavailableError",
    "TopupEvent",
    "UnexpectedError",
    "WalletBusyError",
    "Way",
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
