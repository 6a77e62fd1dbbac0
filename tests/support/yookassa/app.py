"""The simulator as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .api import Api
from .checkout import Checkout
from .control import Control, ControlError
from .errors import ApiError, error_body
from .faults import Faults
from .idempotence import Memory
from .payments import Shop
from .traffic import Journal, Traffic
from .webhooks import Webhooks


def create_app(
    shop_id: str = "100500", secret_key: str = "test_secret", webhook_url: str | None = None
) -> Starlette:
    """Build the simulator of one shop."""
    memory, faults, journal, webhooks = Memory(), Faults(), Journal(), Webhooks(webhook_url)
    shop = Shop(shop_id, secret_key, webhooks.notify)
    control = Control(shop, memory, webhooks, faults, journal)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await webhooks.close()

    app = Starlette(
        routes=[*Api(shop, memory).routes(), *Checkout(shop).routes(), *control.routes()],
        middleware=[Middleware(Traffic, journal=journal, faults=faults)],
        exception_handlers={ApiError: _refused, ControlError: _misused, 404: _nowhere},
        lifespan=lifespan,
    )
    # The provider does not redirect either: an address is right or it is unknown.
    app.router.redirect_slashes = False
    return app


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status)


def _misused(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _nowhere(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/v3"):
        return JSONResponse(error_body(404, "Unknown address"), 404)
    return PlainTextResponse("Not found", 404)
