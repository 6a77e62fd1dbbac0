"""The administrators' console: one static page that loads nothing else.

It holds no data, so nobody has to sign in to load it. Its script asks the endpoints beside it, with the token
that the host's own front end keeps in the browser.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse

PATH = "/topup/reconcile/console"
PAGE = "static/console.html"
"""The page, below this package."""


def make_router() -> APIRouter:
    """Return the console for the host's billing router."""
    page = files(__package__).joinpath(PAGE).read_text("utf-8")
    headers = {
        "Content-Security-Policy": _content_security_policy(page),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }
    router = APIRouter()

    @router.get(PATH, include_in_schema=False, name="reconcile_console")
    async def console() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    return router


def _content_security_policy(page: str) -> str:
    """Allow the page's own script and style by their hashes, and requests to where it came from."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hashes(page: str, element: str) -> str:
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
