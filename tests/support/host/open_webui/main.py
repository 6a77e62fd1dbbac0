"""The application: `python -m uvicorn open_webui.main:app`."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Scope

import open_webui.config  # noqa: F401 - logging, tables and static files are set up by it
from open_webui.env import FRONTEND_BUILD_DIR, STATIC_DIR
from open_webui.routers import audio, auths
from open_webui.utils.airis.app_bootstrap import bootstrap_airis
from open_webui.utils.airis.billing_init import init_billing_on_startup
from open_webui.utils.logger import start_logger

log = logging.getLogger(__name__)


class SPAStaticFiles(StaticFiles):
    """A front end that does its own routing: unknown pages are its index page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file or the index page; a script that is missing stays missing."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or path.endswith(".js"):
                raise
            return await super().get_response("index.html", scope)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """What happens at start and not at import: without it there is no provider's client."""
    start_logger()
    await init_billing_on_startup()
    yield


app = FastAPI(title="Open WebUI", lifespan=lifespan)


@app.middleware("http")
async def add_process_time(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Say how long it took; all routes run inside middleware of this kind, as in real hosts."""
    started = time.monotonic()
    response = await call_next(request)
    response.headers["X-Process-Time"] = str(int(time.monotonic() - started))
    return response


app.include_router(audio.router, prefix="/api/v1/audio", tags=["audio"])
app.include_router(auths.router, prefix="/api/v1/auths", tags=["auths"])

bootstrap_airis(app)


@app.get("/health")
async def healthcheck() -> dict[str, bool]:
    """Whether the application runs."""
    return {"status": True}


app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")

# Last, since it answers for every path: what is added after it is never reached.
if FRONTEND_BUILD_DIR.is_dir():
    app.mount("/", SPAStaticFiles(directory=FRONTEND_BUILD_DIR, html=True), name="spa-static-files")
else:
    log.warning("No front end in %s: only the API is served", FRONTEND_BUILD_DIR)
