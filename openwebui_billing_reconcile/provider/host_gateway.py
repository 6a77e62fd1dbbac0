"""The host's own client as a gateway."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway

from .http_errors import error_for_status, parse_retry_after
from .shop import is_test_key


@dataclass(frozen=True, slots=True)
class Account:
    """A shop's account at the provider, and the address of the provider's API. "" is not known."""

    shop_id: str
    secret_key: str = field(repr=False)  # so that no log line or traceback shows it
    api_url: str


def account_of(client: Any, settings: Account) -> Account:
    """Return the account that the host's client uses; ``settings`` count for what it does not carry."""
    config = getattr(client, "config", None)
    known = asdict(settings).items()
    return Account(**{name: str(getattr(config, name, "") or value) for name, value in known})


class HostGateway:
    """The host's initialised YooKassa client as a ``PaymentGateway``."""

    def __init__(self, client: Any, account: Account) -> None:
        """``account`` is the one that the client uses."""
        self._client = client
        self.account_id = account.shop_id or None
        self.is_test_shop = is_test_key(account.secret_key)

    async def get_payment(self, payment_id: str) -> object:
        """See ``PaymentGateway``."""
        try:
            answer: object = await self._client.get_payment(payment_id)
        except Exception as error:
            # The host's client raises one class for everything; it carries the status where there was one.
            pause = parse_retry_after(getattr(error, "response_text", ""))
            raise error_for_status(getattr(error, "status_code", None), pause) from error
        return answer


class ListingHostGateway(HostGateway):
    """The host's client, which cannot list, and beside it a gateway that lists for the same account."""

    def __init__(self, client: Any, account: Account, listing: ListingGateway) -> None:
        """See ``HostGateway``; ``listing`` is the gateway that lists."""
        super().__init__(client, account)
        self._listing = listing

    async def list_captured(self, since: float, cursor: str | None) -> CapturedPage:
        """See ``ListingGateway``."""
        return await self._listing.list_captured(since, cursor)
