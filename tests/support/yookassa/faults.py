"""Rules by which payment queries are answered wrongly, late or not at all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .errors import error_body


class RuleError(ValueError):
    """A rule that cannot be followed."""


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """How one query is answered. Without a reply of its own the honest one is used."""

    reply: Reply | None = None
    delay_seconds: float = 0.0
    drip_seconds_per_byte: float = 0.0
    truncate: int | None = None
    hang: bool = False
    reset: bool = False


_REPLY_KEYS = {"status", "body", "headers", "raw", "content_type", "redirect"}
_PLAIN_KEYS = {"delay_seconds", "drip_seconds_per_byte", "truncate", "hang", "reset"}
_RULE_KEYS = {"payment_id", "times", "sequence"}


def read_answer(document: object) -> Answer:
    """One answer of a rule; the empty one is the honest answer."""
    if not isinstance(document, dict):
        raise RuleError("an answer is an object")
    unknown = document.keys() - _REPLY_KEYS - _PLAIN_KEYS
    if unknown:
        raise RuleError(f"unknown: {', '.join(sorted(unknown))}")
    reply = _reply(document) if document.keys() & _REPLY_KEYS else None
    plain = {name: value for name, value in document.items() if name in _PLAIN_KEYS}
    for name, value in plain.items():
        if not isinstance(value, bool if name in ("hang", "reset") else int | float):
            raise RuleError(f"{name} cannot be {value!r}")
    return Answer(reply, **plain)


def _reply(document: dict[str, Any]) -> Reply:
    headers = {str(name): str(value) for name, value in document.get("headers", {}).items()}
    if "redirect" in document:
        headers = {"location": document["redirect"]} | headers
        return Reply(document.get("status", 302), headers, b"")
    status = document.get("status", 200)
    if "raw" in document:
        content_type = document.get("content_type", "text/html; charset=utf-8")
        return Reply(status, {"content-type": content_type} | headers, document["raw"].encode())
    content_type, body = _body(document, status)
    return Reply(status, {"content-type": content_type} | headers, body)


def _body(document: dict[str, Any], status: int) -> tuple[str, bytes]:
    body = document["body"] if "body" in document else error_body(status)
    if isinstance(body, str):
        return "text/plain; charset=utf-8", body.encode()
    return "application/json", json.dumps(body, ensure_ascii=False).encode()


@dataclass
class _Rule:
    answers: list[Answer]
    rounds: int | None
    upcoming: Iterator[Answer] = field(init=False)

    def __post_init__(self) -> None:
        rounds = itertools.count() if self.rounds is None else range(self.rounds)
        self.upcoming = (answer for _ in rounds for answer in self.answers)


class Faults:
    """At most one rule for each payment, and one for all others. Faults come before the key check."""

    def __init__(self) -> None:
        self._rules: dict[str | None, _Rule] = {}

    def put(self, document: dict[str, Any]) -> None:
        """Add a rule, in place of an earlier one for the same payment.

        A single answer holds until cleared, a sequence is gone through once; `times` says how
        often instead. After that the honest answers return.
        """
        times = document.get("times")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise RuleError("times is a positive number")
        if "sequence" in document:
            if document.keys() - _RULE_KEYS:
                raise RuleError("a sequence stands alone")
            answers = [read_answer(answer) for answer in document["sequence"]]
            rule = _Rule(answers, times or 1)
        else:
            single = {name: document[name] for name in document.keys() - _RULE_KEYS}
            rule = _Rule([read_answer(single)], times)
        self._rules[document.get("payment_id")] = rule

    def take(self, payment_id: str | None) -> Answer | None:
        """The next wrong answer; None where there is none and the honest one is due."""
        for key in dict.fromkeys((payment_id, None)):
            rule = self._rules.get(key)
            if rule is None:
                continue
            answer = next(rule.upcoming, None)
            if answer is not None:
                return answer
            del self._rules[key]
        return None

    def clear(self) -> None:
        """Answer honestly from now on."""
        self._rules.clear()
