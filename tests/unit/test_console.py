"""The console's page: as it was built, with a policy that allows its own script and style alone."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from openwebui_billing_reconcile.web import console

PAGE = (Path(console.__file__).parent / console.PAGE).read_bytes()
URL = f"/api/v1/billing{console.PATH}"


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    app.include_router(console.make_router(), prefix="/api/v1/billing")
    return app


async def get(app: FastAPI) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as site:
        return await site.get(URL)


def sha256_of(element: str) -> str:
    """The hash of what stands in the page's one such element, as a browser takes it."""
    opening, closing = f"<{element}>".encode(), f"</{element}>".encode()
    assert PAGE.count(opening) == PAGE.count(closing) == 1
    content = PAGE.partition(opening)[2].partition(closing)[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


async def test_the_page_is_served_to_anybody_as_it_was_built(app: FastAPI) -> None:
    answer = await get(app)
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_the_policy_allows_the_pages_own_script_and_style_alone(app: FastAPI) -> None:
    policy = (await get(app)).headers["content-security-policy"]
    assert dict(directive.split(" ", 1) for directive in policy.split("; ")) == {
        "default-src": "'none'",
        "script-src": sha256_of("script"),
        "style-src": sha256_of("style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_the_page_is_not_kept_framed_or_told_of(app: FastAPI) -> None:
    headers = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
    assert headers.items() <= dict((await get(app)).headers).items()


def test_the_page_is_no_part_of_the_api(app: FastAPI) -> None:
    assert URL not in app.openapi()["paths"]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = PAGE.decode()
    assert re.findall(r"<(?:script|style|link|img|iframe|base|meta http-equiv)\b[^>]*>", page) == [
        re.search(r"<link\s+rel=\"icon\"\s+href=\"data:[^>]*>", page)[0],  # type: ignore[index]
        "<style>",
        "<script>",
    ]
    addresses = set(re.findall(r"https?://[^\s'\"`)]+", page))
    assert {address.split("/")[2] for address in addresses} <= {"www.w3.org"}  # the names of namespaces
