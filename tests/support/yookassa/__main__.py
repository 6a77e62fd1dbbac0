"""`python -m tests.support.yookassa`."""

from __future__ import annotations

import argparse

from .app import create_app
from .server import serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.yookassa", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--shop-id", default="100500")
    parser.add_argument("--secret-key", default="test_secret")
    parser.add_argument("--webhook-url", help="where notifications go; none are sent without it")
    options = parser.parse_args()
    serve(create_app(options.shop_id, options.secret_key, options.webhook_url), options.port)


if __name__ == "__main__":
    main()
