"""``openwebui-billing-reconcile status``: what the next start of the host will do, and why."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._autoload import is_installed
from .attachment.status import Status, ask_server, read_status


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when the plugin attaches, or is attached to the server asked about, else 1."""
    options = _parser().parse_args(arguments)
    if options.url:
        attached, words = ask_server(options.url)
        print(json.dumps({"url": options.url, "attached": attached, "why": words}) if options.json else words)
        return 0 if attached else 1
    with _silenced_logging():  # what a broken plugin logs stands in our own answer
        status = read_status(Path(options.app_dir).resolve(), os.environ, is_installed=is_installed())
    print(status.as_json() if options.json else _words(status))
    return 0 if status.attaches else 1


@contextmanager
def _silenced_logging() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openwebui-billing-reconcile",
        description="Credits a paid top-up although the webhook never came. Nothing here starts the host.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    status = commands.add_parser("status", help="say what the next start of the host will do, and why")
    status.add_argument(
        "--app-dir",
        default=".",
        help="where the server looks for open_webui (default: the current directory)",
    )
    status.add_argument("--url", help="ask a running server instead, such as http://127.0.0.1:8080")
    status.add_argument("--json", action="store_true", help="for machines")
    return parser


def _words(status: Status) -> str:
    rows = [
        ("plugin", status.version),
        *(("installed twice", place) for place in status.installed if len(status.installed) > 1),
        ("start-up hook", status.hook),
        (
            "host",
            f"{status.host}, version {status.host_version or 'unknown'}" if status.host else "not found",
        ),
        ("needed names", f"{len(status.present)} present" if status.host else "not looked for"),
        *(("missing", name) for name in status.missing),
        *(("flag", f"{flag.name}={flag.value} ({flag.origin})") for flag in status.flags),
        *(("flag problem", problem) for problem in status.problems),
        ("plugins", ", ".join(status.plugins)),
        *(("blocked", name) for name in status.blocked),
        *(("broken", f"{name}: {why}") for name, why in status.broken.items()),
        ("next start", "attaches" if status.attaches else "does not attach"),
        ("because" if not status.attaches else "that is", status.why),
    ]
    return "\n".join(f"{title:<16} {text}" for title, text in rows)


if __name__ == "__main__":
    sys.exit(main())
