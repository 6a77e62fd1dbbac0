"""On the test's side: is told of each step that a watched worker reaches, and lets the worker go on."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

CREDITING_STEPS = (
    "record read",
    "first read",
    "provider queried",
    "provider answered",
    "record read again",
    "second read",
    "path entered",
    "path has the record",
    "credit not committed",
    "ledger committed",
    "status written",
    "proof read",
)
"""The steps of a call that credits, in their order.

"record read": the first statement of the first read is done, which reads record and credits; the second one,
about other entries, is not. "record read again" is the same in the second read. Everything from there to
"proof read" happens on one thread.
"""

SETTLING_STEPS = CREDITING_STEPS[CREDITING_STEPS.index("record read again") :]
"""Those of a payment in the provider's list, which is neither read before nor queried."""

LONGEST_STOP = 60.0  # seconds


@dataclass(frozen=True)
class Checkpoint:
    """A step that a worker has reached.

    ``connections`` is how many database connections are in use in the worker, ``thread`` the number of the
    thread that reached the step.
    """

    step: str
    payment_id: str
    pid: int
    thread: int
    connections: int


Action = Callable[[Checkpoint], object]


class StepMissedError(Exception):
    """No call reached the step: the test is wrong about the steps of a call. Not an ``AssertionError``, so
    that no negative control takes it for a failed proof."""


class Checkpoints:
    """Runs actions at steps, once each, while the worker waits there."""

    def __init__(self) -> None:
        self._actions: dict[tuple[str, str], Action] = {}
        self._lock = threading.Lock()
        self._failures: list[Exception] = []
        self._reached: list[Checkpoint] = []
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where workers report their steps."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def at(self, step: str, payment_id: str, action: Action) -> Iterator[None]:
        """Run ``action`` when a call about the payment first reaches ``step``.

        An exception of the action is raised here. Raises ``StepMissedError`` where no call reached the step
        before the end of the ``with``.
        """
        key = (step, payment_id)
        self._actions[key] = action
        try:
            yield
        finally:
            missed = self._actions.pop(key, None) is not None
        failures, self._failures = self._failures, []
        if failures:
            raise failures[0]
        if missed:
            raise StepMissedError(f"no call about {payment_id} reached: {step}")

    @contextmanager
    def stopping(self, step: str, payment_id: str) -> Iterator[threading.Event]:
        """Stop the call there until the end of the ``with``; the event is set once it has arrived."""
        arrived, go_on = threading.Event(), threading.Event()

        def stop(_: Checkpoint) -> None:
            arrived.set()
            go_on.wait(LONGEST_STOP)

        with self.at(step, payment_id, stop):
            try:
                yield arrived
            finally:
                go_on.set()

    def reached(self, payment_id: str) -> list[Checkpoint]:
        """Return what calls about a payment have reached so far."""
        return [checkpoint for checkpoint in self._reached if checkpoint.payment_id == payment_id]

    def steps(self, payment_id: str) -> list[str]:
        """Return the steps that calls about a payment have reached so far."""
        return [checkpoint.step for checkpoint in self.reached(payment_id)]

    def _arrive(self, checkpoint: Checkpoint) -> None:
        with self._lock:
            self._reached.append(checkpoint)
            action = self._actions.pop((checkpoint.step, checkpoint.payment_id), None)
        if action is None:
            return
        try:
            action(checkpoint)
        except Exception as error:  # noqa: BLE001 - raised in the test
            self._failures.append(error)

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        checkpoints = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                document: dict[str, Any] = json.loads(self.rfile.readline())
                checkpoints._arrive(Checkpoint(**document))
                with suppress(OSError):  # the worker may have been killed
                    self.wfile.write(b"go on\n")

        return Handler
