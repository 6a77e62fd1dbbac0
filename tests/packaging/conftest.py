"""The wheel, built once for each test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this source tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))
