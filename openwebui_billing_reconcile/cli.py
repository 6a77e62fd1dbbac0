"""``openwebui-billing-reconcile``: what the next start of the host will do, and an audit without it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ._autoload import is_installed
from .attachment.status import REPORTED_FACTS, Status, ask_server, find_host, read_status
from .errors import ReconcileError
from .host.environment import HostEnvironment
from .operate import audit_output
from .operate.audit import Audit, AuditResult
from .operate.offline import OfflineError, OfflineSources
from .operate.period import DEFAULT_DAYS, MAX_DAYS, Period
from .version import version

TOKEN: Final = "BILLING_RECONCILE_TOKEN"  # noqa: S105 - a name
"""The variable that may hold an administrator's token."""

CANNOT_CREDIT: Final = 3
"""``status``: it attaches, and nobody can be credited."""

_PASS_COUNTS: Final = ("listed", "credited", "canceled", "held", "failed")

FAILED: Final = 2
"""``audit``: it could not be made."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    ``status``: 0 when the plugin attaches, or is attached to the server asked about; 3 when it attaches and
    cannot credit; else 1, also where the server does not accept the token. ``audit``: 0 when there is nothing
    to look at, 1 with findings, 2 when it failed.
    """
    options = _parser().parse_args(arguments)
    run: Any = options.run
    return int(run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openwebui-billing-reconcile",
        description="Credits a paid top-up although the webhook never came. Nothing here starts the host.",
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(required=True, metavar="command")

    status = commands.add_parser("status", help="say what the next start of the host will do, and why")
    status.set_defaults(run=_status)
    _add_app_dir(status)
    status.add_argument("--url", help="ask a running server instead, such as http://127.0.0.1:8080")
    status.add_argument(
        "--token", default=os.environ.get(TOKEN), help=f"an administrator's token, for --url; or {TOKEN}"
    )
    status.add_argument("--json", action="store_true", help="for machines")

    audit = commands.add_parser(
        "audit",
        help="compare the provider's payments with the host's tables, and write nothing",
        description="Exit code 0: nothing to look at; 1: findings; 2: the audit could not be made.",
    )
    audit.set_defaults(run=_audit)
    _add_app_dir(audit)
    audit.add_argument(
        "--since", help=f"the first day as YYYY-MM-DD, Moscow time (default: {DEFAULT_DAYS} days)"
    )
    audit.add_argument("--until", help=f"the day after the last one, at most {MAX_DAYS} days later")
    form = audit.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--csv", action="store_true", help="one line for each finding")
    return parser


def _add_app_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--app-dir",
        default=".",
        help="where the server looks for open_webui (default: the current directory)",
    )


def _status(options: argparse.Namespace) -> int:
    if options.url:
        return _server_status(options)
    with _silenced_logging():  # what a broken plugin logs stands in our own answer
        status = read_status(Path(options.app_dir).resolve(), os.environ, is_installed=is_installed())
    print(status.as_json() if options.json else _status_words(status))
    if not status.prediction.attaches:
        return 1
    return 0 if status.prediction.credits else CANNOT_CREDIT


def _server_status(options: argparse.Namespace) -> int:
    answer = ask_server(options.url, options.token or None)
    report = answer.report or {}
    facts = {name: report.get(name) for name in sorted(REPORTED_FACTS)}
    if options.json:
        print(json.dumps({"url": options.url, "attached": answer.attached, "why": answer.words, **facts}))
    else:
        print(answer.words)
        for title, value in _server_facts(report) if report else ():
            print(_row(title, value))
    is_told = answer.report is not None or not options.token
    return 0 if answer.attached and is_told else 1


def _server_facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "version", report["version"]
    yield "mode", report["mode"]
    yield "plugins", ", ".join(report["plugins"])
    done = report["last_pass"]
    if done is None:
        yield "last pass", "none yet, as the worker knows it that answered"
        return
    counts = ", ".join(f"{done[name]} {name}" for name in _PASS_COUNTS)
    complete = "complete" if done["is_complete"] else "not complete"
    yield "last pass", f"{time.time() - done['began_at']:.0f} s ago, {complete}: {counts}"


def _status_words(status: Status) -> str:
    prediction = status.prediction
    host = f"{status.host}, version {status.host_version or 'unknown'}" if status.host else "not found"
    rows = [
        ("plugin", status.version),
        *(("installed twice", place) for place in status.installed if len(status.installed) > 1),
        ("start-up hook", status.hook),
        ("host", host),
        ("needed names", f"{len(status.present)} present" if status.host else "not looked for"),
        *(("missing", name) for name in status.missing),
        *(("flag", f"{flag.name}={flag.value} ({flag.origin})") for flag in status.flags),
        *(("problem", problem) for problem in status.problems),
        ("plugins", ", ".join(status.plugins)),
        *(("blocked", name) for name in status.blocked),
        *(("broken", f"{name}: {why}") for name, why in status.broken.items()),
        ("next start", prediction.why if prediction.attaches else "does not attach"),
        *([] if prediction.attaches else [("because", prediction.why)]),
        *(("cannot credit", obstacle) for obstacle in prediction.obstacles),
    ]
    return "\n".join(_row(title, text) for title, text in rows)


def _row(title: str, value: object) -> str:
    return f"{title:<16} {value}"


def _audit(options: argparse.Namespace) -> int:
    environment = HostEnvironment(os.environ, find_host(Path(options.app_dir).resolve()))
    try:
        period = Period.parse(options.since, options.until, time.time())
        sources = OfflineSources(environment)
        result = asyncio.run(_run_audit(Audit(sources, period)))
    except (OfflineError, ReconcileError) as error:
        print(f"The audit could not be made: {error}", file=sys.stderr)
        return FAILED
    except Exception as error:  # noqa: BLE001 - a traceback would exit with 1, and may hold the password
        print(f"The audit could not be made: {type(error).__name__}", file=sys.stderr)
        return FAILED
    if options.json:
        print(audit_output.as_json(result, sources.currency))
    elif options.csv:
        print(audit_output.as_csv(result))
    else:
        print(audit_output.as_text(result, sources.currency))
    return 1 if result.findings else 0


async def _run_audit(audit: Audit) -> AuditResult:
    show = sys.stderr.isatty()
    async for step in audit.run():
        if isinstance(step, AuditResult):
            if show:
                print(file=sys.stderr)
            return step
        if show:
            words = f"\r{step.payments} payments, {step.entries} credits checked"
            print(words, end="", file=sys.stderr, flush=True)
    raise AssertionError("an audit ends with its result")


@contextmanager
def _silenced_logging() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(main())
