"""In the test: who is told of the steps, and lets the workers go on."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

ON_THE_WAY = (
    "row read",
    "record read",
    "provider asked",
    "provider answered",
    "books read again",
    "wallet read",
    "path entered",
    "path has the record",
    "credit not committed",
    "ledger committed",
    "status written",
    "proof read",
)
"""The steps of a call that credits, in their order."""

LONGEST_STOP = 60.0  # seconds


@dataclass(frozen=True)
class Passing:
    """A worker has come to a step; so many database connections are in use in it."""

    step: str
    payment_id: str
    pid: int
    connections: int


Act = Callable[[Passing], object]


class StepMissedError(Exception):
    """The test is wrong about the way a call takes. No proof fails like this."""


class Checkpoints:
    """Acts once at a step, while the worker waits there."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], Act] = {}
        self._lock = threading.Lock()
        self._failures: list[Exception] = []
        self._passings: list[Passing] = []
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Nobody is told any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def at(self, step: str, payment_id: str, act: Act) -> Iterator[None]:
        """Act when a call about the payment first comes to the step, which it must meanwhile."""
        plan = (step, payment_id)
        self._plans[plan] = act
        try:
            yield
        finally:
            missed = self._plans.pop(plan, None) is not None
        failures, self._failures = self._failures, []
        if failures:
            raise failures[0]
        if missed:
            raise StepMissedError(f"no call about {payment_id} came to: {step}")

    @contextmanager
    def stopping(self, step: str, payment_id: str) -> Iterator[threading.Event]:
        """Stop the call there until the end of the `with`; the event says that it has come."""
        arrived, go_on = threading.Event(), threading.Event()

        def stop(_: Passing) -> None:
            arrived.set()
            go_on.wait(LONGEST_STOP)

        with self.at(step, payment_id, stop):
            try:
                yield arrived
            finally:
                go_on.set()

    def steps(self, payment_id: str) -> list[str]:
        """The steps that calls about a payment have come to."""
        return [passing.step for passing in self._passings if passing.payment_id == payment_id]

    def _reached(self, passing: Passing) -> None:
        with self._lock:
            self._passings.append(passing)
            act = self._plans.pop((passing.step, passing.payment_id), None)
        if act is None:
            return
        try:
            act(passing)
        except Exception as error:  # noqa: BLE001 - raised in the test
            self._failures.append(error)

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        checkpoints = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                document: dict[str, Any] = json.loads(self.rfile.readline())
                checkpoints._reached(Passing(**document))
                with suppress(OSError):  # it may have been killed
                    self.wfile.write(b"go on\n")

        return Handler
