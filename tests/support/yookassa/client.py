"""How tests speak to a simulator in another process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from tests.support.local_http import local_client

Document = dict[str, Any]


def rubles(value: object) -> Document:
    """Return an amount in rubles as the provider writes it, malformed ones too."""
    return {"value": value, "currency": "RUB"}


@dataclass(frozen=True)
class Seen:
    """An API request as it was received; no status if it was never answered."""

    method: str
    target: str
    payment_id: str | None
    monotonic: float
    epoch: float
    status: int | None


@dataclass(frozen=True)
class Attempt:
    """A notification sent; no status if the receiver could not be reached."""

    payment_id: str
    event: str
    epoch: float
    status: int | None
    error: str | None


@dataclass(frozen=True)
class InFlight:
    """API requests being answered: now, and at most."""

    now: int
    peak: int


class Simulator:
    """A running simulator. What it refuses is raised as `httpx.HTTPStatusError`."""

    def __init__(self, url: str, shop_id: str = "100500", secret_key: str = "test_secret") -> None:
        self.url = url
        self.api_url = f"{url}/v3"
        self.shop_id = shop_id
        self.secret_key = secret_key
        self._client = local_client(base_url=f"{url}/_control", timeout=15)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the simulator goes on."""
        self._client.close()

    def create(self, *, remove: Iterable[str] = (), **fields: Any) -> Document:
        """A payment in any shape: the fields replace those of a valid one of that status.

        Succeeded, 1000.00 RUB, unless the fields say otherwise. `remove` names keys to leave out;
        "amount.currency" reaches inside.
        """
        return self._document("POST", "/payments", fields | {"remove": [*remove]})

    def change(self, payment_id: str, *, remove: Iterable[str] = (), **fields: Any) -> Document:
        """Replace raw fields, malformed ones too."""
        body = fields | {"remove": [*remove]}
        return self._document("PATCH", f"/payments/{payment_id}", body)

    def payment(self, payment_id: str) -> Document:
        """Return a payment as it is now; this counts as no query."""
        return self._document("GET", f"/payments/{payment_id}")

    def payments(self) -> list[Document]:
        """Return all payments, newest first; this counts as no query."""
        return list(self._call("GET", "/payments").json())

    def pay(self, payment_id: str) -> Document:
        """Make it succeeded."""
        return self._document("POST", f"/payments/{payment_id}/pay")

    def hold(self, payment_id: str) -> Document:
        """Make it waiting_for_capture."""
        return self._document("POST", f"/payments/{payment_id}/hold")

    def decline(
        self,
        payment_id: str,
        *,
        party: str = "payment_network",
        reason: str = "general_decline",
    ) -> Document:
        """Make it canceled; for an expired one: party yoo_money, reason expired_on_confirmation."""
        body = {"party": party, "reason": reason}
        return self._document("POST", f"/payments/{payment_id}/decline", body)

    def refund(self, payment_id: str, amount: str | None = None) -> Document:
        """Refund an amount such as "10.00", or all that is left."""
        return self._document("POST", f"/payments/{payment_id}/refund", {"amount": amount})

    def webhooks(
        self,
        *,
        url: str | None = None,
        mode: Literal["on", "off"] | None = None,
        delay_seconds: float | None = None,
        redelivery_factor: float | None = None,
    ) -> Document:
        """Change some of the settings; the rest stays. `due` tells how many are still to come."""
        fields = {
            "url": url,
            "mode": mode,
            "delay_seconds": delay_seconds,
            "redelivery_factor": redelivery_factor,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return self._document("PUT", "/webhooks", given)

    def deliver(self, payment_id: str, event: str) -> int | None:
        """Send one notification now, whatever the mode; the receiver's status."""
        answer = self._document("POST", f"/webhooks/{payment_id}", {"event": event})
        return Attempt(**answer).status

    def deliveries(self, payment_id: str | None = None) -> list[Attempt]:
        """The notifications sent so far."""
        return [Attempt(**document) for document in self._about("/webhooks", payment_id)]

    def fault(self, *, payment_id: str | None = None, times: int | None = None, **answer: Any) -> None:
        """Answer GETs of payments wrongly: of one payment or of all, so many times or on and on.

        The answer: status, body, headers; raw, content_type; redirect; delay_seconds; hang; reset;
        drip_seconds_per_byte; truncate; or sequence=[{…}, …], in which {} is an honest answer.
        """
        rule = {"payment_id": payment_id, "times": times} | answer
        self._call("PUT", "/faults", rule)

    def clear_faults(self) -> None:
        """Answer honestly again."""
        self._call("DELETE", "/faults")

    def requests(self, payment_id: str | None = None) -> list[Seen]:
        """The API requests in the order they came."""
        return [Seen(**document) for document in self._about("/requests", payment_id)]

    def questions(self, payment_id: str) -> int:
        """Return how often this payment was queried."""
        return sum(seen.method == "GET" for seen in self.requests(payment_id))

    def forget_requests(self) -> None:
        """Count from here on."""
        self._call("DELETE", "/requests")

    def in_flight(self) -> InFlight:
        """API requests being answered."""
        return InFlight(**self._document("GET", "/in_flight"))

    def reset(self) -> None:
        """As freshly started."""
        self._call("POST", "/reset")

    def _about(self, path: str, payment_id: str | None) -> list[Document]:
        query = {} if payment_id is None else {"payment_id": payment_id}
        return list(self._call("GET", path, query=query).json())

    def _document(self, method: str, path: str, body: Document | None = None) -> Document:
        return dict(self._call(method, path, body).json())

    def _call(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        query: dict[str, str] | None = None,
    ) -> httpx.Response:
        answer = self._client.request(method, path, json=body, params=query)
        return answer.raise_for_status()
