"""`make demo` tells its story, and takes what it has started along when it is ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.harness.waiting import wait_until
from tests.support.local_http import answers
from tests.support.variants import Variant

ROOT = Path(__file__).parents[2]


def test_the_story_is_told_and_sigterm_ends_all_that_it_started(tmp_path: Path) -> None:
    said = tmp_path / "said"
    plugins = Variant(tmp_path)  # only the plugins: the host that runs is the demo's own
    plugins.install("sound", "")
    plugins.install("broken", "1 / 0")
    with said.open("w") as output:
        demo = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.support.demo", "--serve"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(plugins.folder)},
            stdout=output,
        )
    try:
        wait_until(lambda: "Ctrl+C ends it" in said.read_text(), 120, "the demo does not serve")
        told = said.read_text()
        assert "Plugin 'broken' is left out: ZeroDivisionError: division by zero\n" in told
        assert re.search(r"is attached: .* plugins: builtin, builtin_metrics, sound\n", told)
        assert told.count("It is there once:") == 2
        (console,) = re.findall(r"console is (\S+)", told)
        assert answers(console)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 128 + signal.SIGTERM
        assert not answers(console)
    finally:
        demo.kill()
        demo.wait()
