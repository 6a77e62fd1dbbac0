"""The provider's API, `/v3`."""

from __future__ import annotations

import binascii
import copy
import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import listing
from .calls import read_amount, read_json, read_payment
from .errors import ApiError, invalid
from .idempotence import HEADER, Memory, read_key
from .money import Money
from .payments import Document, Payment, Shop

Act = Callable[[dict[str, Any]], Document]


class Api:
    """The calls of one shop."""

    def __init__(self, shop: Shop, memory: Memory) -> None:
        self._shop = shop
        self._memory = memory

    def routes(self) -> list[Route]:
        """What is served."""
        return [
            Route("/v3/payments", self.create, methods=["POST"]),
            Route("/v3/payments", self.list, methods=["GET"]),
            Route("/v3/payments/{payment_id}", self.get, methods=["GET"]),
            Route("/v3/payments/{payment_id}/capture", self.capture, methods=["POST"]),
            Route("/v3/payments/{payment_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v3/refunds", self.refund, methods=["POST"]),
            Route("/v3/refunds/{refund_id}", self.get_refund, methods=["GET"]),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /payments`."""

        def act(body: dict[str, Any]) -> Document:
            base_url = str(request.base_url).rstrip("/")
            return self._shop.open(read_payment(body), base_url).document

        return await self._once(request, act)

    async def get(self, request: Request) -> Response:
        """`GET /payments/{id}`."""
        self._authorize(request)
        return JSONResponse(self._shop.payment(request.path_params["payment_id"]).document)

    async def list(self, request: Request) -> Response:
        """`GET /payments`."""
        self._authorize(request)
        return JSONResponse(listing.page(self._shop.newest_first(), request.query_params))

    async def capture(self, request: Request) -> Response:
        """`POST /payments/{id}/capture`."""

        def act(body: dict[str, Any]) -> Document:
            payment = self._held(request)
            amount = read_amount(body) if "amount" in body else None
            held = Money.read(payment.document.get("amount"))
            if amount and held and not _part_of(amount, held):
                raise invalid("The amount exceeds what is held", "amount")
            self._shop.succeed(payment, amount)
            return payment.document

        return await self._once(request, act)

    async def cancel(self, request: Request) -> Response:
        """`POST /payments/{id}/cancel`."""

        def act(_body: dict[str, Any]) -> Document:
            payment = self._held(request)
            self._shop.cancel(payment, "merchant", "canceled_by_merchant")
            return payment.document

        return await self._once(request, act)

    async def refund(self, request: Request) -> Response:
        """`POST /refunds`."""

        def act(body: dict[str, Any]) -> Document:
            payment_id = body.get("payment_id")
            if not isinstance(payment_id, str) or payment_id not in self._shop.payments:
                raise invalid("Incorrect payment_id", "payment_id")
            payment = self._shop.payment(payment_id)
            if payment.status != "succeeded":
                raise invalid("Only a succeeded payment can be refunded", "payment_id")
            description = body.get("description")
            text = description if isinstance(description, str) else None
            return self._shop.give_back(payment, read_amount(body), text)

        return await self._once(request, act)

    async def get_refund(self, request: Request) -> Response:
        """`GET /refunds/{id}`."""
        self._authorize(request)
        return JSONResponse(self._shop.refund(request.path_params["refund_id"]))

    async def _once(self, request: Request, act: Act) -> Response:
        """Do what is asked, or answer as the first time. Nothing awaits between look and deed."""
        self._authorize(request)
        key = read_key(request.headers.get(HEADER))
        raw = await request.body()
        if raw and "json" not in request.headers.get("content-type", ""):
            raise HTTPException(415)
        body = read_json(raw)
        asked = f"{request.url.path} {json.dumps(body, sort_keys=True)}"
        answer = self._memory.recall(key, asked)
        if answer is None:
            answer = copy.deepcopy(act(body))
            self._memory.remember(key, asked, answer)
        return JSONResponse(answer)

    def _held(self, request: Request) -> Payment:
        payment = self._shop.payment(request.path_params["payment_id"])
        if payment.status != "waiting_for_capture":
            raise invalid("The payment is not waiting for capture", "payment_id")
        return payment

    def _authorize(self, request: Request) -> None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise ApiError(401, "Use HTTP Basic with shopId and secret key", "Authorization")
        try:
            pair = b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        if pair != f"{self._shop.shop_id}:{self._shop.secret_key}":
            raise ApiError(401, "Error in shopId or secret key. Check both.", "Authorization")


def _part_of(amount: Money, whole: Money) -> bool:
    return amount.currency == whole.currency and amount.kopeks <= whole.kopeks
