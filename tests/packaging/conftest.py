"""The wheel, built and installed once for each test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import HOST_NEEDS, Environment, build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this source tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """Return an environment with the wheel and what the reference host needs, to be left as it is."""
    environment = Environment.create(tmp_path_factory.mktemp("installed") / "venv")
    environment.install(wheel, *HOST_NEEDS)
    return environment
