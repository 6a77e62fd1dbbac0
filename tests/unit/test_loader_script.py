"""Our script behind the host's loader.js: added to it, never in its way, and gone without a trace."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pytest_mock import MockerFixture
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from openwebui_billing_reconcile.web import loader_script as frontend

LOADER = "/static/loader.js"
THEIRS = b"console.log('theirs')"
OURS = (Path(frontend.__file__).parent / frontend.SCRIPT).read_bytes()
BOTH = THEIRS + b"\n;\n" + OURS


def make_app() -> FastAPI:
    """What attaching and the host make of it between them."""
    app, theirs, ours = FastAPI(), APIRouter(), APIRouter()
    ours.lifespan_context = frontend.lifespan
    ours.add_api_route("/ours", lambda: "ours")
    theirs.include_router(ours)
    app.include_router(theirs, prefix="/api")
    return app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The host's static folder."""
    (tmp_path / "loader.js").write_bytes(THEIRS)
    (tmp_path / "other.js").write_bytes(b"other()")
    return tmp_path


@pytest.fixture
def app(folder: Path) -> FastAPI:
    """A host with that folder."""
    app = make_app()
    app.mount("/static", StaticFiles(directory=folder), name="static")
    return app


def client(app: FastAPI, root_path: str = "") -> httpx.AsyncClient:
    """Somebody who speaks to the application, whether or not it has been started."""
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://host")


@asynccontextmanager
async def running(app: FastAPI, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """The application, started."""
    async with app.router.lifespan_context(app), client(app, root_path) as site:
        yield site


@pytest.fixture
async def site(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The host, running."""
    async with running(app) as site:
        yield site


@asynccontextmanager
async def serving(loader: Callable[[Request], Response]) -> AsyncIterator[httpx.AsyncClient]:
    """A host that makes up the file in its own way."""
    app = make_app()
    app.router.routes.append(Route(LOADER, loader))
    async with running(app) as site:
        yield site


def without_date(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "date"}


# --- The file ---


@pytest.mark.parametrize(
    "theirs",
    [
        b"",
        THEIRS,
        b"// a comment",
        b"f()\r\n",
        b"\xef\xbb\xbfbom()",
        "«текст»".encode("cp1251"),
        b"x" * 300_000,
    ],
)
async def test_the_hosts_file_comes_first_byte_for_byte(
    site: httpx.AsyncClient, folder: Path, theirs: bytes
) -> None:
    (folder / "loader.js").write_bytes(theirs)  # after the start: it is read when it is asked for
    answer = await site.get(LOADER)
    assert answer.status_code == 200
    assert answer.content == theirs + b"\n;\n" + OURS
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_our_script_comes_alone_where_the_host_has_none(site: httpx.AsyncClient, folder: Path) -> None:
    (folder / "loader.js").unlink()
    answer = await site.get(LOADER)
    assert answer.status_code == 200
    assert answer.content == OURS
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_a_page_in_place_of_the_file_is_no_script() -> None:
    async with serving(lambda _: HTMLResponse("<!doctype html>")) as site:
        answer = await site.get(LOADER)
    assert answer.content == OURS
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_the_type_is_the_hosts(site: httpx.AsyncClient, app: FastAPI) -> None:
    assert (await site.get(LOADER)).headers["content-type"] == (await site.get("/static/other.js")).headers[
        "content-type"
    ]


async def test_the_hosts_own_headers_stay() -> None:
    headers = {"cache-control": "max-age=60", "x-robots-tag": "none", "content-type": "text/javascript"}
    async with serving(lambda _: Response(THEIRS, headers=headers)) as site:
        answer = await site.get(LOADER)
    assert answer.content == BOTH
    assert headers.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("theirs", "status"),
    [
        (RedirectResponse("/elsewhere.js"), 307),
        (Response("no", 500), 500),
        (Response(b"zip", media_type="text/javascript", headers={"content-encoding": "x-own"}), 200),
    ],
)
async def test_whatever_else_the_host_answers_is_passed_on(theirs: Response, status: int) -> None:
    async with serving(lambda _: theirs) as site:
        answer = await site.get(LOADER)
    assert answer.status_code == status
    assert answer.content == theirs.body
    assert {k.decode(): v.decode() for k, v in theirs.raw_headers} == without_date(answer)


async def test_a_refusal_is_the_hosts() -> None:
    def refuse(_request: Request) -> Response:
        raise HTTPException(401, "sign in", {"www-authenticate": "Bearer"})

    async with serving(refuse) as site:
        answer = await site.get(LOADER)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


# --- Caching ---


async def test_it_is_kept_but_asked_after_each_time(site: httpx.AsyncClient) -> None:
    answer = await site.get(LOADER)
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["etag"].strip('"')
    assert "last-modified" not in answer.headers
    assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"other",W/{}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_known_is_not_sent_again(site: httpx.AsyncClient, form: str, method: str) -> None:
    etag = (await site.get(LOADER)).headers["etag"]
    answer = await site.request(method, LOADER, headers={"If-None-Match": form.format(etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "no-cache"
    assert not {"content-length", "content-type"} & set(answer.headers)


async def test_another_file_is_another_etag(site: httpx.AsyncClient, folder: Path) -> None:
    etag = (await site.get(LOADER)).headers["etag"]
    (folder / "loader.js").write_bytes(THEIRS[::-1])
    answer = await site.get(LOADER, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content[: len(THEIRS)]) == (200, THEIRS[::-1])
    assert answer.headers["etag"] != etag


async def test_a_copy_from_before_the_plugin_is_replaced_and_one_from_its_time_after_it(
    app: FastAPI, folder: Path
) -> None:
    before = await client(app).get(LOADER)
    theirs = {
        "If-None-Match": before.headers["etag"],
        "If-Modified-Since": before.headers["last-modified"],
    }
    async with running(app) as site:
        during = await site.get(LOADER, headers=theirs)
        assert (during.status_code, during.content) == (200, BOTH)
    after = await client(app).get(LOADER, headers={"If-None-Match": during.headers["etag"]})
    assert (after.status_code, after.content) == (200, THEIRS)


async def test_a_date_is_no_validator(site: httpx.AsyncClient) -> None:
    answer = await site.get(LOADER, headers={"If-Modified-Since": formatdate(usegmt=True)})
    assert (answer.status_code, answer.content) == (200, BOTH)


async def test_there_are_no_parts_of_it(site: httpx.AsyncClient) -> None:
    answer = await site.get(LOADER, headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (200, BOTH)


async def test_head_is_get_without_the_body(site: httpx.AsyncClient) -> None:
    get, head = await site.get(LOADER), await site.head(LOADER)
    assert head.status_code == 200
    assert without_date(head) == without_date(get)
    assert head.content == b""


async def test_other_methods_are_for_the_host(site: httpx.AsyncClient, app: FastAPI) -> None:
    assert (await site.post(LOADER)).status_code == 405


async def test_the_hosts_compression_works_on_both(app: FastAPI) -> None:
    app.add_middleware(GZipMiddleware)
    async with running(app) as site:
        answer = await site.get(LOADER, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == BOTH


# --- The rest of the host ---


async def test_every_other_route_is_as_before(app: FastAPI) -> None:
    app.add_api_route("/health", lambda: "well")
    paths = ["/static/other.js", "/static/none.js", "/static/", "/health", "/api/ours", "/loader.js"]
    plain = client(app)
    async with running(app) as site:
        for path in paths:
            with_it, without = await site.get(path), await plain.get(path)
            assert with_it.status_code == without.status_code
            assert with_it.content == without.content
            assert without_date(with_it) == without_date(without)
        assert app.url_path_for("static", path="loader.js") == LOADER
        assert LOADER not in app.openapi()["paths"]


async def test_it_is_gone_when_the_application_has_ended(app: FastAPI) -> None:
    routes = list(app.router.routes)
    for _ in range(2):  # an application may run again
        async with running(app) as site:
            assert (await site.get(LOADER)).content == BOTH
            assert len(app.router.routes) == len(routes) + 1
        assert app.router.routes == routes
        assert (await client(app).get(LOADER)).content == THEIRS


async def test_a_route_added_meanwhile_stays(app: FastAPI) -> None:
    async with running(app) as site:
        app.add_api_route("/late", lambda: "late")
        assert (await site.get("/late")).json() == "late"
    assert (await client(app).get("/late")).json() == "late"


async def test_a_router_included_twice_adds_it_once(folder: Path) -> None:
    app, router = FastAPI(), APIRouter()
    router.lifespan_context = frontend.lifespan
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    app.mount("/static", StaticFiles(directory=folder))
    async with running(app) as site:
        assert (await site.get(LOADER)).content == BOTH
    assert (await client(app).get(LOADER)).content == THEIRS


@pytest.mark.parametrize("root_path", ["", "/chat"])
async def test_it_works_below_a_base_path(app: FastAPI, root_path: str) -> None:
    async with running(app, root_path) as site:
        assert (await site.get(root_path + LOADER)).content == BOTH


async def test_the_application_starts_where_nobody_serves_the_file(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    async with running(app) as site:
        assert (await site.get("/api/ours")).json() == "ours"
        assert (await site.get(LOADER)).status_code == 404
    (record,) = [record for record in caplog.records if record.name == frontend.__name__]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "The balance page's script is not served: LookupError: the host serves no /static/loader.js"
    )


async def test_the_application_starts_where_our_script_is_lost(
    app: FastAPI, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(frontend, "SCRIPT", "static/lost.js")
    async with running(app) as site:
        assert (await site.get(LOADER)).content == THEIRS
    (record,) = [record for record in caplog.records if record.name == frontend.__name__]
    assert record.levelno == logging.WARNING
    assert "not served: FileNotFoundError" in record.getMessage()


# --- In the host ---
