"""Python processes forked from one that has imported the libraries already, which is most of a host's start.

Each is a process of its own from there on, to an interpreter's own end. It imports the host's modules and the
plugin's itself, as one that is started anew does, since they read the environment meanwhile.

Both sides are here: ``ForkServer`` asks, and this module, run as a program, forks.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

# What the reference host and the simulator import of others, but for the SDK: that the plugin imports it late
# is promised.
_LIBRARIES: Final = (
    "aiohttp",
    "fastapi",
    "fastapi.openapi.models",
    "httpx",
    "jwt",
    "pluggy",
    "pydantic.v1",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.orm",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.main",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
_ROOT: Final = Path(__file__).parents[2]
_CHUNK: Final = 1 << 16  # bytes
_NUMBER: Final = 4  # bytes


class ForkedProcess:
    """A forked process. What it has works as in ``subprocess.Popen``."""

    def __init__(self, report: int, stdout: int, stderr: int) -> None:
        self.stdout = os.fdopen(stdout, encoding="utf-8", errors="replace")
        self.stderr = os.fdopen(stderr, encoding="utf-8", errors="replace")
        self.returncode: int | None = None
        self._report = report
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, report)
        self.pid = self._number()

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._end_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        returncode = self._end_within(timeout)
        if returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return returncode

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _end_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], seconds)[0]:
            with self._lock:  # other threads may wait for it, too
                if self.returncode is None:
                    self.returncode = self._number()
        return self.returncode

    def _number(self) -> int:
        number = os.read(self._report, _NUMBER)
        if not number:  # 0 would be this process's own group
            raise RuntimeError("The fork server has ended")
        return int.from_bytes(number, sys.byteorder, signed=True)


class ForkServer:
    """The process that has the libraries, to be asked for forks."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_ROOT,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.close)

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> ForkedProcess:
        """Start this Python with ``-m`` and a module, or ``-c`` and code, in a session of its own."""
        python, option, *program = command
        assert python == sys.executable
        assert option in _RUN
        order = {"option": option, "program": program, "env": {**env}, "cwd": str(cwd)}
        ours, theirs = zip(os.pipe(), os.pipe(), os.pipe(), strict=True)
        with self._lock:
            try:
                socket.send_fds(self._orders, [json.dumps(order).encode() + b"\n"], theirs)
            finally:
                for end in theirs:
                    os.close(end)
            return ForkedProcess(*ours)

    def close(self) -> None:
        """Let it end. What it has forked goes on."""
        self._orders.close()
        self._process.wait()


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()


def run(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it wrote; it is killed after ``timeout`` seconds.

    It is forked where it can be: not another Python, nor one that is given options of its own.
    """
    if command[0] != sys.executable or command[1] not in _RUN:
        return subprocess.run(
            command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
        )
    process = fork_server().start(command, env, cwd)
    killer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        with process.stdout, process.stderr, ThreadPoolExecutor(2) as readers:
            stdout, stderr = readers.map(lambda stream: stream.read(), (process.stdout, process.stderr))
            returncode = process.wait()
    finally:
        killer.cancel()
    return subprocess.CompletedProcess(command, returncode, stdout, stderr)


def _serve(orders: socket.socket) -> dict[str, Any]:
    """Fork for each order, and return it in the new process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        order, ends = b"", []
        while not order.endswith(b"\n"):
            chunk, received, _flags, _address = socket.recv_fds(orders, _CHUNK, 3)
            if not chunk:
                sys.exit()
            order += chunk
            ends += received
        if os.fork() == 0:
            orders.close()
            _keep_new_process(*ends)
            return dict(json.loads(order))
        for end in ends:
            os.close(end)


def _keep_new_process(report: int, stdout: int, stderr: int) -> None:
    """Fork once more and report the new process's number and its end; returns in the new process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for end in (report, stdout, stderr):
            os.close(end)
        return
    os.close(stdout)
    os.close(stderr)
    _report(report, pid)
    _report(report, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _report(report: int, number: int) -> None:
    os.write(report, number.to_bytes(_NUMBER, sys.byteorder, signed=True))


def _run_module(module: str) -> None:
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _run_code(code: str) -> None:
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


_RUN: Final = {"-m": _run_module, "-c": _run_code}


def main() -> None:
    """Import the libraries and fork; in each new process, run what it is for."""
    for library in _LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # else each new process copies all of that once its garbage is collected
    workers: Any = importlib.import_module("uvicorn._subprocess")
    workers.spawn = multiprocessing.get_context("fork")  # else uvicorn starts each of its workers anew
    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    program, *arguments = order["program"]
    sys.argv = [order["option"], *arguments]
    sys.path[:1] = [order["cwd"], *filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep))]
    _RUN[order["option"]](program)


if __name__ == "__main__":
    main()
