"""The control interface, `/_control`: how a test says what the provider does."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .faults import Faults, RuleError
from .idempotence import Memory
from .money import Money, read_kopeks
from .payments import Document, Payment, Shop, bend, refundable
from .traffic import Journal
from .webhooks import Webhooks


class ControlError(ValueError):
    """The test asked for something impossible."""


class Control:
    """Everything that can be steered."""

    def __init__(
        self, shop: Shop, memory: Memory, webhooks: Webhooks, faults: Faults, journal: Journal
    ) -> None:
        self._shop = shop
        self._memory = memory
        self._webhooks = webhooks
        self._faults = faults
        self._journal = journal

    def routes(self) -> list[Route]:
        """What is served."""
        one = "/_control/payments/{payment_id}"
        return [
            Route("/_control/payments", self.create, methods=["POST"]),
            Route("/_control/payments", self.list, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(one, self.change, methods=["PATCH"]),
            Route(f"{one}/pay", self.pay, methods=["POST"]),
            Route(f"{one}/hold", self.hold, methods=["POST"]),
            Route(f"{one}/decline", self.decline, methods=["POST"]),
            Route(f"{one}/refund", self.refund, methods=["POST"]),
            Route("/_control/webhooks", self.set_webhooks, methods=["PUT"]),
            Route("/_control/webhooks", self.attempts, methods=["GET"]),
            Route("/_control/webhooks/{payment_id}", self.deliver, methods=["POST"]),
            Route("/_control/faults", self.put_fault, methods=["PUT"]),
            Route("/_control/faults", self.clear_faults, methods=["DELETE"]),
            Route("/_control/requests", self.requests, methods=["GET"]),
            Route("/_control/requests", self.clear_requests, methods=["DELETE"]),
            Route("/_control/in_flight", self.in_flight, methods=["GET"]),
            Route("/_control/reset", self.reset, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """A payment in any shape."""
        fields, remove = _bending(await _body(request))
        payment = self._shop.put(fields, remove, str(request.base_url).rstrip("/"))
        return JSONResponse(payment.document)

    async def list(self, _request: Request) -> Response:
        """All payments; this counts as no query."""
        return JSONResponse([payment.document for payment in self._shop.newest_first()])

    async def get(self, request: Request) -> Response:
        """One payment; this counts as no query."""
        return JSONResponse(self._payment(request).document)

    async def change(self, request: Request) -> Response:
        """Raw fields over a payment's own."""
        payment = self._payment(request)
        fields, remove = _bending(await _body(request))
        bend(payment, fields, remove)
        return JSONResponse(payment.document)

    async def pay(self, request: Request) -> Response:
        """Succeeded, from whatever it was."""
        payment = self._payment(request)
        self._shop.succeed(payment)
        return JSONResponse(payment.document)

    async def hold(self, request: Request) -> Response:
        """Waiting for capture, from whatever it was."""
        payment = self._payment(request)
        self._shop.hold(payment)
        return JSONResponse(payment.document)

    async def decline(self, request: Request) -> Response:
        """Canceled, from whatever it was, for the reason given."""
        payment = self._payment(request)
        body = await _body(request)
        party = body.get("party", "payment_network")
        self._shop.cancel(payment, party, body.get("reason", "general_decline"))
        return JSONResponse(payment.document)

    async def refund(self, request: Request) -> Response:
        """A refund of so many roubles, or of all that is left."""
        payment = self._payment(request)
        left = refundable(payment)
        if left is None:
            raise ControlError("this payment cannot be refunded")
        amount = (await _body(request)).get("amount")
        kopeks = left.kopeks if amount is None else read_kopeks(amount)
        if kopeks is None:
            raise ControlError('the amount is a string such as "10.00"')
        return JSONResponse(self._shop.give_back(payment, Money(kopeks, left.currency), None))

    async def set_webhooks(self, request: Request) -> Response:
        """Change where notifications go, whether, and how fast."""
        fields = await _body(request)
        unknown = fields.keys() - {"url", "mode", "delay_seconds", "redelivery_factor"}
        if unknown:
            raise ControlError(f"unknown: {', '.join(sorted(unknown))}")
        mode = fields.pop("mode", None)
        if mode not in (None, "on", "off"):
            raise ControlError("the mode is on or off")
        if mode is not None:
            fields["on"] = mode == "on"
        self._webhooks.change(**fields)
        return JSONResponse(self._webhooks.state())

    async def attempts(self, request: Request) -> Response:
        """The notifications sent so far."""
        wanted = request.query_params.get("payment_id")
        attempts = self._webhooks.attempts
        return JSONResponse([asdict(a) for a in attempts if wanted in (None, a.payment_id)])

    async def deliver(self, request: Request) -> Response:
        """One notification now, whatever the mode; the receiver's answer is told."""
        payment = self._payment(request)
        event = (await _body(request)).get("event")
        if not isinstance(event, str):
            raise ControlError("which event?")
        attempt = await self._webhooks.send(event, self._subject(event, payment))
        return JSONResponse(asdict(attempt))

    async def put_fault(self, request: Request) -> Response:
        """Answer queries wrongly from now on."""
        try:
            self._faults.put(await _body(request))
        except RuleError as error:
            raise ControlError(str(error)) from error
        return Response(status_code=204)

    async def clear_faults(self, _request: Request) -> Response:
        """Answer honestly from now on."""
        self._faults.clear()
        return Response(status_code=204)

    async def requests(self, request: Request) -> Response:
        """The API's requests as they were received."""
        wanted = request.query_params.get("payment_id")
        seen = self._journal.seen
        return JSONResponse([asdict(s) for s in seen if wanted in (None, s.payment_id)])

    async def clear_requests(self, _request: Request) -> Response:
        """Forget the requests so far."""
        self._journal.clear()
        return Response(status_code=204)

    async def in_flight(self, _request: Request) -> Response:
        """How many API requests are being answered, and how many were at most."""
        return JSONResponse({"now": self._journal.now, "peak": self._journal.peak})

    async def reset(self, _request: Request) -> Response:
        """As freshly started."""
        for part in (self._shop, self._memory, self._webhooks, self._faults, self._journal):
            part.clear()
        return Response(status_code=204)

    def _payment(self, request: Request) -> Payment:
        return self._shop.payment(request.path_params["payment_id"])

    def _subject(self, event: str, payment: Payment) -> Document:
        """What an event is about. A late notification tells of the state as it was then."""
        kind, _, status = event.partition(".")
        if kind == "payment":
            return payment.document | {"status": status}
        payment_id = payment.document.get("id")
        refunds = [r for r in self._shop.refunds.values() if r["payment_id"] == payment_id]
        if kind != "refund" or not refunds:
            raise ControlError(f"nothing to tell about {event}")
        return refunds[-1]


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else {}
    except ValueError as error:
        raise ControlError("not JSON") from error
    if not isinstance(body, dict):
        raise ControlError("not an object")
    return body


def _bending(body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    remove = body.pop("remove", [])
    if not isinstance(remove, list) or not all(isinstance(path, str) for path in remove):
        raise ControlError("remove is a list of keys")
    return body, remove
