"""Settings, read once at import from the environment and from a `.env` file."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import load_dotenv

OPEN_WEBUI_DIR = Path(__file__).resolve().parent
BACKEND_DIR = OPEN_WEBUI_DIR.parent
BASE_DIR = BACKEND_DIR.parent

# Above the backend folder, as in real ones. What the environment already says wins.
load_dotenv(BASE_DIR / ".env")


def _integers(value: str) -> list[int]:
    """The numbers of a comma-separated list; what is no number is left out."""
    return [int(part) for part in value.split(",") if part.strip().isdecimal()]


def _integer(name: str, default: int) -> int:
    value = os.environ.get(name, "").strip()
    return int(value) if value.isdecimal() else default


GLOBAL_LOG_LEVEL = os.environ.get("GLOBAL_LOG_LEVEL", "").upper() or "INFO"

DATA_DIR = Path(os.environ.get("DATA_DIR", BACKEND_DIR / "data")).resolve()
# Real hosts keep it inside the package; here the checkout stays clean.
STATIC_DIR = Path(os.environ.get("STATIC_DIR", DATA_DIR / "static")).resolve()
FRONTEND_BUILD_DIR = Path(os.environ.get("FRONTEND_BUILD_DIR", BACKEND_DIR / "frontend")).resolve()

DATABASE_URL = os.environ.get("DATABASE_URL", f"sqlite:///{DATA_DIR}/webui.db").replace(
    "postgres://", "postgresql://"
)
# Without a size of its own the pool is SQLAlchemy's: five connections and ten more at need.
DATABASE_POOL_SIZE = _integer("DATABASE_POOL_SIZE", 0)
DATABASE_POOL_MAX_OVERFLOW = _integer("DATABASE_POOL_MAX_OVERFLOW", 0)
DATABASE_POOL_TIMEOUT = _integer("DATABASE_POOL_TIMEOUT", 30)
DATABASE_ENABLE_SQLITE_WAL = os.environ.get("DATABASE_ENABLE_SQLITE_WAL", "False").lower() == "true"

WEBUI_SECRET_KEY = os.environ.get("WEBUI_SECRET_KEY", "not-a-secret-but-long-enough-for-hs256")

# Real hosts keep sessions there; this one only says where it is.
REDIS_URL = os.environ.get("REDIS_URL", "")
REDIS_CLUSTER = os.environ.get("REDIS_CLUSTER", "False").lower() == "true"
REDIS_KEY_PREFIX = os.environ.get("REDIS_KEY_PREFIX", "open-webui")
REDIS_SENTINEL_HOSTS = os.environ.get("REDIS_SENTINEL_HOSTS", "")

ENABLE_BILLING_WALLET = os.environ.get("ENABLE_BILLING_WALLET", "False").lower() == "true"
BILLING_DEFAULT_CURRENCY = os.environ.get("BILLING_DEFAULT_CURRENCY", "RUB")
BILLING_TOPUP_TTL_DAYS = int(os.environ.get("BILLING_TOPUP_TTL_DAYS", "365"))
BILLING_TOPUP_PACKAGES_KOPEKS = _integers(
    os.environ.get("BILLING_TOPUP_PACKAGES_KOPEKS", "100000,150000,500000,1000000")
)

YOOKASSA_SHOP_ID = os.environ.get("YOOKASSA_SHOP_ID", "")
YOOKASSA_SECRET_KEY = os.environ.get("YOOKASSA_SECRET_KEY", "")
YOOKASSA_API_URL = os.environ.get("YOOKASSA_API_URL", "https://api.yookassa.ru/v3")
