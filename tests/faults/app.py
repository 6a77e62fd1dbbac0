"""The host's application in a worker under test: ``uvicorn tests.faults.app:app``.

The plugin attaches to it as to any host. The steps of its calls are watched, and mutations applied, from
outside. And it notes nobody's visits: hosts write them after their answers, at a moment that no test chooses,
and a call that meets SQLite's lock then reads again.
"""

from __future__ import annotations

from typing import Any

from open_webui.internal.db import engine
from open_webui.main import app
from open_webui.models.users import UsersTable
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import mutations, watched_steps

_taken: list[Any] = []
_read_only = False


async def mutate(request: Request) -> JSONResponse:
    """Apply the named mutations, and no others."""
    mutations.apply(await request.json())
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
    """Refuse all writes to the database, or allow them again."""
    global _read_only
    _read_only = await request.json()
    return JSONResponse({})


@event.listens_for(engine, "checkout")
def _checkout(connection: Any, _record: Any, _proxy: Any) -> None:
    if engine.dialect.name == "sqlite":
        connection.execute(f"PRAGMA query_only = {int(_read_only)}")
    else:
        connection.readonly = _read_only


def note_no_visit(_users: UsersTable, _user_id: str) -> None:
    """Stand in the place of the host's own."""


UsersTable.update_last_active_by_id = note_no_visit
watched_steps.install()
# In front of the host's route that answers for every path.
app.router.routes[:0] = [
    Route("/faults/mutations", mutate, methods=["POST"]),
    Route("/faults/exhaust", exhaust, methods=["POST"]),
    Route("/faults/read_only", read_only, methods=["POST"]),
]

__all__ = ["app"]
