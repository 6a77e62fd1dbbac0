"""The host's application in a worker under fire: `uvicorn tests.faults.app:app`.

The plugin attaches to it as to any host. From outside, its steps are watched and its guards can be taken out.
"""

from __future__ import annotations

import json
import os
from typing import Any

from open_webui.internal.db import engine
from open_webui.main import app
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import MUTATIONS, mutations, watched_steps

_taken: list[Any] = []
_read_only = False


async def mutate(request: Request) -> JSONResponse:
    """Run on without some guards."""
    mutations.mutate(await request.json())
    return JSONResponse({})


async def exhaust(request: Request) -> JSONResponse:
    """Take all of the host's database connections, or give them back."""
    while _taken:
        _taken.pop().close()
    if await request.json():
        pool: Any = engine.pool
        while pool.checkedout() < pool.size() + pool._max_overflow:
            _taken.append(engine.connect())
    return JSONResponse({"connections": len(_taken)})


async def read_only(request: Request) -> JSONResponse:
    """Let nothing be written any more, or all again."""
    global _read_only
    _read_only = await request.json()
    return JSONResponse({})


@event.listens_for(engine, "checkout")
def _checkout(connection: Any, _record: Any, _proxy: Any) -> None:
    if engine.dialect.name == "sqlite":
        connection.execute(f"PRAGMA query_only = {int(_read_only)}")
    else:
        connection.readonly = _read_only


watched_steps.install()
mutations.mutate(json.loads(os.environ.get(MUTATIONS, "[]")))
# In front of whatever answers for every path.
app.router.routes[:0] = [
    Route("/faults/mutations", mutate, methods=["POST"]),
    Route("/faults/exhaust", exhaust, methods=["POST"]),
    Route("/faults/read_only", read_only, methods=["POST"]),
]

__all__ = ["app"]
