"""The host's environment, read without the host: its .env file, its database, its provider."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import ArgumentError

from openwebui_billing_reconcile.host import environment
from openwebui_billing_reconcile.host.environment import HostEnvironment

PARTS = {
    "DATABASE_TYPE": "postgresql",
    "DATABASE_USER": "webui",
    "DATABASE_PASSWORD": "secret",
    "DATABASE_HOST": "db",
    "DATABASE_PORT": "5433",
    "DATABASE_NAME": "billing",
}
COMPOSED = "postgresql://webui:secret@db:5433/billing"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of a host's package, in its backend folder."""
    folder = tmp_path / "host" / "backend" / "open_webui"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def _no_driver_is_there(mocker: MockerFixture) -> None:
    mocker.patch.object(environment, "find_spec", return_value=None)


def write_dotenv(package: Path, *lines: str) -> None:
    (package.parent.parent / ".env").write_text("\n".join(lines))


def url(package: Path | None, **variables: str) -> str:
    return HostEnvironment(variables, package).database_url.render_as_string(hide_password=False)


# --- Variables -------------------------------------------------------------------------------------------


def test_the_file_above_the_backend_folder_counts_below_the_environment(package: Path) -> None:
    write_dotenv(package, "A=file", 'export B="quoted # text"', "# C=comment", "EMPTY=", "BARE", "D=file")
    host = HostEnvironment({"A": "environment", "D": ""}, package)
    assert host.variables == {"A": "environment", "B": "quoted # text", "EMPTY": "", "D": ""}
    assert host.origin("A") == host.origin("D") == "environment"
    assert host.origin("B") == str(package.parent.parent / ".env")
    assert host.origin("C") == "default"


@pytest.mark.parametrize("folder", [".", "open_webui"])
def test_no_other_file_counts(package: Path, folder: str) -> None:
    (package.parent / folder / ".env").write_text("A=1")
    assert HostEnvironment({}, package).variables == {}


def test_without_a_file_or_a_host_the_environment_is_all(package: Path) -> None:
    assert HostEnvironment({"A": "1"}, package).variables == {"A": "1"}
    assert HostEnvironment({"A": "1"}, None).variables == {"A": "1"}


def test_without_a_reader_of_such_files_it_is_too(package: Path, mocker: MockerFixture) -> None:
    write_dotenv(package, "A=1")
    assert HostEnvironment({}, package).problem is None
    mocker.patch.dict(sys.modules, {"dotenv": None})
    environment = HostEnvironment({}, package)
    assert environment.variables == {}
    assert environment.problem == (
        f"{package.parent.parent / '.env'} is not read: python-dotenv is not installed in this environment"
    )


def test_nor_is_it_a_problem_where_there_is_no_such_file(package: Path, mocker: MockerFixture) -> None:
    mocker.patch.dict(sys.modules, {"dotenv": None})
    assert HostEnvironment({}, package).problem is None
    assert HostEnvironment({}, None).problem is None


@pytest.mark.parametrize(
    ("value", "is_on"), [("true", True), ("True", True), ("TRUE", True), ("1", False), ("yes", False)]
)
def test_a_switch_of_the_hosts_is_read_as_the_host_reads_it(value: str, is_on: bool) -> None:
    assert HostEnvironment({"SWITCH": value}, None).is_on("SWITCH") is is_on
    assert not HostEnvironment({}, None).is_on("SWITCH")


@pytest.mark.parametrize("value", [{}, {"YOOKASSA_API_URL": ""}])
def test_the_provider_is_where_it_documents(value: dict[str, str]) -> None:
    assert HostEnvironment(value, None).provider_url == "https://api.yookassa.ru/v3"


def test_or_where_the_host_says() -> None:
    assert HostEnvironment({"YOOKASSA_API_URL": "http://here/v3"}, None).provider_url == "http://here/v3"


# --- The database ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://webui:secret@db:5433/billing",
        "postgresql+psycopg2://webui:secret@db:5433/billing",
        "postgresql+psycopg://webui:secret@db:5433/billing",
        "postgresql://db/billing?sslmode=require",
        "sqlite:////var/lib/webui.db",
    ],
)
def test_a_database_url_is_taken_as_it_is(package: Path, given: str) -> None:
    assert url(package, DATABASE_URL=given) == given


def test_the_url_may_stand_in_the_file(package: Path) -> None:
    write_dotenv(package, f"DATABASE_URL={COMPOSED}")
    assert url(package) == COMPOSED
    assert url(package, DATABASE_URL="sqlite:////other.db") == "sqlite:////other.db"


def test_the_short_name_of_postgresql_is_made_the_long_one() -> None:
    assert url(None, DATABASE_URL="postgres://webui:secret@db:5433/billing") == COMPOSED


def test_all_parts_together_count_before_the_url(package: Path) -> None:
    assert url(package, **PARTS, DATABASE_URL="sqlite:////other.db") == COMPOSED
    assert url(package, **PARTS | {"DATABASE_TYPE": "postgres"}) == COMPOSED


def test_a_database_may_ask_for_no_password(package: Path) -> None:
    user = {"DATABASE_PASSWORD": "", "DATABASE_URL": "sqlite:////other.db"}
    assert url(package, **PARTS | user) == "postgresql://webui@db:5433/billing"
    assert url(package, **PARTS | user | {"DATABASE_USER": ""}) == "sqlite:////other.db"


def test_parts_may_stand_in_the_file_and_in_the_environment(package: Path) -> None:
    write_dotenv(package, *(f"{name}={value}" for name, value in PARTS.items()))
    assert url(package) == COMPOSED
    assert url(package, DATABASE_HOST="other") == COMPOSED.replace("db", "other")


@pytest.mark.parametrize("missing", ["DATABASE_TYPE", "DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_where_a_part_is_missing_the_url_counts(package: Path, missing: str, is_empty: bool) -> None:
    parts = {name: value for name, value in PARTS.items() if name != missing}
    empty = {missing: ""} if is_empty else {}
    assert url(package, **parts, **empty, DATABASE_URL="sqlite:////other.db") == "sqlite:////other.db"


def test_by_default_it_is_a_file_in_the_data_folder_of_the_backend(package: Path) -> None:
    assert url(package) == f"sqlite:///{package.parent}/data/webui.db"


def test_the_data_folder_may_be_elsewhere(package: Path) -> None:
    assert url(package, DATA_DIR="/srv/data") == "sqlite:////srv/data/webui.db"
    assert url(package, DATA_DIR="other") == f"sqlite:///{package.parent}/other/webui.db"


@pytest.mark.parametrize("given", ["sqlite:///data/webui.db", "sqlite:///./data/webui.db"])
def test_a_relative_file_is_below_the_backend_folder(package: Path, given: str) -> None:
    assert url(package, DATABASE_URL=given) == f"sqlite:///{package.parent}/data/webui.db"


def test_without_a_host_it_is_below_the_current_folder() -> None:
    assert url(None) == "sqlite:///data/webui.db"
    assert url(None, DATABASE_URL="sqlite:///webui.db") == "sqlite:///webui.db"


@pytest.mark.parametrize(
    ("there", "driver"),
    [
        ({"psycopg2", "psycopg"}, "postgresql+psycopg2"),
        ({"psycopg2"}, "postgresql+psycopg2"),
        ({"psycopg"}, "postgresql+psycopg"),
        (set(), "postgresql"),
    ],
)
def test_without_a_driver_named_the_one_that_is_there_is_taken(
    mocker: MockerFixture, there: set[str], driver: str
) -> None:
    mocker.patch.object(environment, "find_spec", lambda name: name in there or None)
    assert url(None, DATABASE_URL=COMPOSED) == COMPOSED.replace("postgresql", driver)
    named = COMPOSED.replace("postgresql", "postgresql+asyncpg")
    assert url(None, DATABASE_URL=named) == named


@pytest.mark.parametrize("odd", ["webui.db", "/srv/webui.db", "postgresql", "://"])
def test_what_is_no_url_is_an_error_of_sqlalchemy(odd: str) -> None:
    with pytest.raises(ArgumentError):
        url(None, DATABASE_URL=odd)


@pytest.mark.parametrize("password", ["pass@word:secret", "secret"])
def test_so_is_a_port_that_is_no_number_and_its_text_keeps_the_password(password: str) -> None:
    variables = PARTS | {"DATABASE_PASSWORD": password, "DATABASE_PORT": "none"}
    with pytest.raises(ArgumentError) as raised:
        url(None, **variables)
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__
